"""What is asked of Cinder, of volumes and attachments, in the library's terms."""

import contextlib
import functools
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from cinderclient import client as cinderclient

from store_lib.clients.decoding import text
from store_lib.driver import Repeater
from store_lib.drivers.cinder.answers import Answers
from store_lib.drivers.cinder.errors import is_refusal
from store_lib.drivers.cinder.volume import Grant, Volume
from store_lib.drivers.cinder.waiting import FIRST, wait_for
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
    TimeoutError,
)

#: Attachments with a mode of access have come with this one.
MICROVERSION = "3.54"

#: States in which Cinder is at work on a volume.
MOVING = frozenset({"creating", "extending", "attaching", "detaching", "reserved", "maintenance"})

#: States in which a volume can be attached, or can be once somebody else is ready.
ATTACHABLE = frozenset({"available", "in-use", "reserved", "attaching", "detaching"})

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
    :param retry: repeats a request after a temporary error
    """

    def __init__(
        self, session: Any, auth: Any, url: str, *, patience: float, retry: Repeater
    ) -> None:
        self._answers = Answers(session)
        self._client = cinderclient.Client(
            MICROVERSION,
            session=self._answers,
            auth=auth,
            endpoint_override=url,
            retries=0,
            logger=_WIRE,
        )
        self._patience = patience
        #: Repeats a request after a temporary error, where the engine does not do so by itself.
        self.retry = retry

    def now(self) -> float | None:
        """Return the time by Cinder's clock, once it has answered."""
        return self._answers.now()

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
            with self._answers.to(f"create a volume of {gibibytes} GiB"):
                made = self._client.volumes.create(
                    gibibytes,
                    name=name,
                    volume_type=volume_type,
                    metadata=dict(metadata),
                    source_volid=source,
                )
                return Volume.of(made)
        except NotFound as error:
            if source is not None and source in str(error):
                raise
            raise BadStoreConfiguration(
                f"Cinder has no volume type {volume_type!r} for this project: set "
                f"cinder_volume_type to one that it has. ({error})"
            ) from error

    def get(self, volume_id: str) -> Volume:
        """Return a volume.

        :raises NotFound: there is none, or not for this user
        """
        with self._answers.to(f"show volume {volume_id}"):
            found = Volume.of(self._client.volumes.get(volume_id))
        return found

    def named(self, name: str) -> Volume | None:
        """Return the volume of a name of ours, if there is one."""
        with self._answers.to("list volumes by name"):
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
        markers = set()
        while True:
            page = self.retry(functools.partial(self._page, marker))
            for each in page:
                if each.id not in seen:
                    seen.add(each.id)
                    yield each
            if len(page) < _PAGE:
                return
            marker = page[-1].id
            if marker in markers:
                raise BackendException(
                    f"Expected the volumes behind {ascii(marker)[:80]}, got a page that "
                    "ends with it again. Check what is between."
                )
            markers.add(marker)

    def _page(self, marker: str | None) -> list[Volume]:
        with self._answers.to("list the volumes"):
            return [
                Volume.of(each) for each in self._client.volumes.list(marker=marker, limit=_PAGE)
            ]

    def delete(self, volume_id: str) -> None:
        """Have a volume deleted; Cinder does so behind its answer.

        :raises BackendException: its state does not allow it, see :func:`is_refusal`
        """
        with self._answers.to(f"delete volume {volume_id}"):
            self._client.volumes.delete(volume_id)

    def has_snapshots(self, volume_id: str) -> bool:
        """Tell whether a volume has snapshots."""
        with self._answers.to(f"list the snapshots of volume {volume_id}"):
            return bool(
                self._client.volume_snapshots.list(
                    search_opts={"volume_id": volume_id}, detailed=False
                )
            )

    def extend(self, volume_id: str, gibibytes: int) -> None:
        """Have a volume extended; Cinder does so behind its answer.

        :raises StorageFull: the quota is used up
        """
        with self._answers.to(f"extend volume {volume_id} to {gibibytes} GiB"):
            self._client.volumes.extend(volume_id, gibibytes)

    def publish(self, volume_id: str, name: str, metadata: Mapping[str, str]) -> None:
        """Give a volume its name and its metadata, in place of all that it has, in one step."""
        with self._answers.to(f"name volume {volume_id}"):
            self._client.volumes.update(
                volume_id, name=name, description=None, metadata=dict(metadata)
            )

    def describe(self, volume_id: str, words: str) -> None:
        """Give a volume another description, and with it a new ``updated_at``.

        Metadata would not do: Cinder does not count them as a change of the volume.
        """
        with self._answers.to(f"describe volume {volume_id}"):
            self._client.volumes.update(volume_id, description=words)

    def protect(self, volume_id: str) -> None:
        """Let a volume be attached for reading only."""
        with self._answers.to(f"make volume {volume_id} read-only"):
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

        :param mode: ``ro`` or ``rw``; with ``rw`` nobody else has the volume rightly
        :param patience: seconds to wait
        :raises BackendException: the volume is not to be had
        :raises NotFound: it has gone, or is about to
        """
        refusal: StoreError | None = None
        status = ""

        def ask() -> str | None:
            nonlocal refusal, status
            try:
                with self._answers.to(f"attach volume {volume_id}"):
                    made = self._client.attachments.create(volume_id, None, mode=mode)
                    return text(made["id"])
            except StoreError as error:
                if not is_refusal(error):
                    raise
                status = self.get(volume_id).status
                check_attachable(volume_id, status)
                refusal = error
            if mode == "rw" and status == "reserved" and self._release_reserved(volume_id):
                return ask()
            return None

        found = wait_for(ask, patience, most=_TURN)
        if found is None:
            raise BackendException(
                f"Volume {volume_id} did not become free to attach within {patience:g} s "
                f"(cinder_attachment_retry_attempts): it is in state {status!r}. "
                f"{_BUSY.get(status, _OTHERS)} ({refusal})"
            ) from refusal
        return found

    def _release_reserved(self, volume_id: str) -> bool:
        """End the attachments of a volume of our own that have no host yet; say if there were any.

        They are ours, and the answer to the request for them was lost.
        """
        reserved = [each for each in self.grants(volume_id) if each.status == "reserved"]
        for each in reserved:
            with contextlib.suppress(NotFound):
                self.release(each.id)
        return bool(reserved)

    def connect(self, grant_id: str, host: Mapping[str, Any]) -> Grant:
        """Have a volume made reachable from this host.

        :param host: what os-brick tells of it
        """
        with self._answers.to("make a volume reachable from this host"):
            return Grant.of(self._client.attachments.update(grant_id, dict(host)))

    def complete(self, grant_id: str) -> None:
        """Tell Cinder that a volume is attached now."""
        with self._answers.to("complete an attachment"):
            self._client.attachments.complete(grant_id)

    def release(self, grant_id: str) -> None:
        """End an attachment.

        :raises NotFound: somebody has done so before
        """
        with self._answers.to("end an attachment"):
            self._client.attachments.delete(grant_id)

    def grants(self, volume_id: str) -> list[Grant]:
        """Return the attachments of a volume, unfinished ones too."""
        with self._answers.to(f"list the attachments of volume {volume_id}"):
            found = self._client.attachments.list(
                detailed=True, search_opts={"volume_id": volume_id}
            )
            return [Grant.of(each) for each in found]

    # Volume types

    def has_type(self, name: str) -> bool:
        """Tell whether there is a volume type of this name, for this user."""
        with self._answers.to("list the volume types"):
            found = self._client.volume_types.list(is_public=None)
            return name in [text(each.name) for each in found]

    def default_type(self) -> str | None:
        """Return the name of the type that volumes get when none is named."""
        try:
            with self._answers.to("tell the default volume type"):
                return text(self._client.volume_types.default().name)
        except NotFound:
            return None


#: What is to be done about a volume that stays in a state.
_OTHERS = (
    "Something else has it attached. Give the volume type "
    'multiattach="<is> True" where several hosts read one volume.'
)
_BUSY = {
    "reserved": "An attachment was begun and not made, perhaps as Cinder's answer was lost. Sweep "
    "the store (store-lib sweep), which ends it once it is five minutes old.",
    "attaching": "An attachment was begun and not completed. Sweep the store (store-lib sweep), "
    "which ends it once it is five minutes old.",
    "detaching": "Cinder is detaching it; if that does not end, look at Cinder's logs.",
}


def check_attachable(volume_id: str, status: str) -> None:
    """Refuse a volume that nobody can attach in the state that it is in.

    :raises NotFound: it is about to go
    :raises BackendException: with its state
    """
    if status == "deleting":
        raise NotFound(f"Volume {volume_id} is being deleted.")
    if status not in ATTACHABLE:
        raise BackendException(
            f"Volume {volume_id} is in state {status!r} and cannot be attached. Expected "
            "'available' or 'in-use': wait until Cinder has ended what it is doing with it, or "
            "look for the reason in Cinder, and reset its state there."
        )
