"""What is asked of Cinder, of volumes and attachments, in the library's terms."""

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from cinderclient import client as cinderclient

from store_lib.drivers.cinder.answers import asking_cinder
from store_lib.drivers.cinder.errors import Refused
from store_lib.drivers.cinder.volume import Grant, Volume
from store_lib.drivers.cinder.waiting import FIRST, wait_for
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    NotFound,
    RemoteServiceUnavailable,
    TimeoutError,
)

#: Attachments with a mode of access have come with this one.
MICROVERSION = "3.54"

#: States in which Cinder is at work on a volume.
MOVING = frozenset({"creating", "extending", "attaching", "detaching", "reserved", "maintenance"})

#: Volumes asked for at once; Cinder may give fewer.
_PAGE = 500
#: Seconds between looks at most whether a volume can be attached: readers take turns.
_TURN = 0.5
#: How often a listing is begun at most.
_RESTARTS = 10

#: For cinderclient: bodies, which DEBUG lines would show, hold passwords of targets.
_WIRE = logging.getLogger(f"{__name__}.wire")
_WIRE.setLevel(logging.INFO)


class Cinder:
    """Cinder, asked in the name of one user; for many threads.

    :param session: keystoneauth's
    :param auth: a login other than the session's
    :param url: Cinder's, of the project
    :param patience: seconds to wait for a volume's state
    """

    def __init__(self, session: Any, auth: Any, url: str, *, retries: int, patience: float) -> None:
        self._client = cinderclient.Client(
            MICROVERSION,
            session=session,
            auth=auth,
            endpoint_override=url,
            retries=retries,
            logger=_WIRE,
        )
        self._patience = patience

    # Volumes

    def create(
        self,
        name: str,
        gibibytes: int,
        volume_type: str | None,
        metadata: Mapping[str, str],
        source: str | None = None,
    ) -> Volume:
        """Begin to make a volume, empty or as a clone.

        :raises StorageFull: the quota is used up
        :raises BadStoreConfiguration: there is no such type
        """
        try:
            with asking_cinder(f"create a volume of {gibibytes} GiB"):
                made = self._client.volumes.create(
                    gibibytes,
                    name=name,
                    volume_type=volume_type,
                    metadata=dict(metadata),
                    source_volid=source,
                )
        except NotFound as error:
            if source is not None and source in str(error):
                raise
            raise BadStoreConfiguration(
                f"Cinder has no volume type {volume_type!r} for this project: set "
                f"cinder_volume_type to one that it has. ({error})"
            ) from error
        return Volume.of(made)

    def get(self, volume_id: str) -> Volume:
        """Return a volume.

        :raises NotFound: there is none, or not for this user
        """
        with asking_cinder(f"show volume {volume_id}"):
            found = Volume.of(self._client.volumes.get(volume_id))
        return found

    def named(self, name: str) -> Volume | None:
        """Return the volume of a name of ours, if there is one."""
        with asking_cinder("list volumes by name"):
            found = self._client.volumes.list(search_opts={"name": name})
        return Volume.of(found[0]) if found else None

    def all(self) -> Iterator[Volume]:
        """Yield every volume of the project, once."""
        seen: set[str] = set()
        for _ in range(_RESTARTS):
            # Where the volume that a page was to begin behind has gone, from the beginning.
            with contextlib.suppress(NotFound):
                yield from self._pages(seen)
                return
        raise RemoteServiceUnavailable("Volumes went while they were listed, again and again.")

    def _pages(self, seen: set[str]) -> Iterator[Volume]:
        marker: str | None = None
        while True:
            with asking_cinder("list the volumes"):
                page = self._client.volumes.list(marker=marker, limit=_PAGE)
            for each in page:
                if each.id not in seen:
                    seen.add(each.id)
                    yield Volume.of(each)
            if len(page) < _PAGE:
                return
            marker = page[-1].id

    def delete(self, volume_id: str) -> None:
        """Have a volume deleted; Cinder does so behind its answer.

        :raises Refused: its state does not allow it
        """
        with asking_cinder(f"delete volume {volume_id}"):
            self._client.volumes.delete(volume_id)

    def has_snapshots(self, volume_id: str) -> bool:
        """Tell whether a volume has snapshots."""
        with asking_cinder(f"list the snapshots of volume {volume_id}"):
            return bool(
                self._client.volume_snapshots.list(
                    search_opts={"volume_id": volume_id}, detailed=False
                )
            )

    def extend(self, volume_id: str, gibibytes: int) -> None:
        """Have a volume extended; Cinder does so behind its answer.

        :raises StorageFull: the quota is used up
        """
        with asking_cinder(f"extend volume {volume_id} to {gibibytes} GiB"):
            self._client.volumes.extend(volume_id, gibibytes)

    def publish(self, volume_id: str, name: str, metadata: Mapping[str, str]) -> None:
        """Give a volume its name and its metadata, in place of all that it has, in one step."""
        with asking_cinder(f"name volume {volume_id}"):
            self._client.volumes.update(volume_id, name=name, metadata=dict(metadata))

    def note(self, volume_id: str, metadata: Mapping[str, str]) -> None:
        """Add to a volume's metadata."""
        with asking_cinder(f"note something on volume {volume_id}"):
            self._client.volumes.set_metadata(volume_id, dict(metadata))

    def protect(self, volume_id: str) -> None:
        """Let a volume be attached for reading only."""
        with asking_cinder(f"make volume {volume_id} read-only"):
            self._client.volumes.update_readonly_flag(volume_id, True)

    def settled(
        self, volume_id: str, moving: Collection[str] = MOVING, *, begun: bool = False
    ) -> Volume:
        """Wait until a volume is in no state of ``moving``, and return it.

        :param begun: it is in one now, and is not looked at for a moment
        :raises TimeoutError: not within cinder_state_transition_timeout
        """
        last = ""

        def look() -> Volume | None:
            nonlocal last
            volume = self.get(volume_id)
            last = volume.status
            return None if last in moving else volume

        if begun:
            time.sleep(FIRST)
        volume = wait_for(look, self._patience)
        if volume is None:
            raise TimeoutError(
                f"Volume {volume_id} is still in state {last!r} after %(timeout)g s "
                "(cinder_state_transition_timeout). Look at Cinder's logs, or raise the limit.",
                timeout=self._patience,
            )
        return volume

    # Attachments

    def reserve(self, volume_id: str, mode: str, patience: float) -> str:
        """Begin an attachment, and return its id; waits while another one is being made.

        :param mode: ``ro`` or ``rw``
        :param patience: seconds to wait
        :raises BackendException: the volume is not to be had
        :raises NotFound: it has gone, or is about to
        """
        refusal: Refused | None = None

        def ask() -> str | None:
            nonlocal refusal
            try:
                with asking_cinder(f"attach volume {volume_id}"):
                    made: str = self._client.attachments.create(volume_id, None, mode=mode)["id"]
                return made
            except Refused as error:
                status = self.get(volume_id).status
                if status.startswith("error"):
                    raise
                if status == "deleting":
                    raise NotFound(f"Volume {volume_id} is being deleted.") from error
                refusal = error
                return None

        found = wait_for(ask, patience, most=_TURN)
        if found is None:
            raise BackendException(
                f"Volume {volume_id} did not become free to attach within {patience:g} s "
                "(cinder_attachment_retry_attempts): something else has it attached. Give the "
                'volume type multiattach="<is> True" where several hosts read one volume. '
                f"({refusal})"
            )
        return found

    def connect(self, grant_id: str, host: Mapping[str, Any]) -> Grant:
        """Have a volume made reachable from this host.

        :param host: what os-brick tells of it
        """
        with asking_cinder("make a volume reachable from this host"):
            return Grant.of(self._client.attachments.update(grant_id, dict(host)))

    def complete(self, grant_id: str) -> None:
        """Tell Cinder that a volume is attached now."""
        with asking_cinder("complete an attachment"):
            self._client.attachments.complete(grant_id)

    def release(self, grant_id: str) -> None:
        """End an attachment.

        :raises NotFound: somebody has done so before
        """
        with asking_cinder("end an attachment"):
            self._client.attachments.delete(grant_id)

    def grants(self, volume_id: str) -> list[Grant]:
        """Return the attachments of a volume, unfinished ones too."""
        with asking_cinder(f"list the attachments of volume {volume_id}"):
            found = self._client.attachments.list(search_opts={"volume_id": volume_id})
        grants = []
        for each in found:
            with asking_cinder("show an attachment"):
                shown = self._client.attachments.show(each.id)
            grants.append(Grant.of(shown))
        return grants

    # Volume types

    def has_type(self, name: str) -> bool:
        """Tell whether there is a volume type of this name, for this user."""
        with asking_cinder("list the volume types"):
            return any(each.name == name for each in self._client.volume_types.list(is_public=None))

    def default_type(self) -> str | None:
        """Return the name of the type that volumes get when none is named."""
        try:
            with asking_cinder("tell the default volume type"):
                found: str = self._client.volume_types.default().name
        except NotFound:
            return None
        return found
