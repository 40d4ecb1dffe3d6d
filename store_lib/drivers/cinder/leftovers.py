"""What killed or cut off processes leave in Cinder and on this host: found, and removed."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from store_lib.display import get_logger
from store_lib.driver import Incomplete
from store_lib.drivers.cinder.connection import disconnect_left_over
from store_lib.drivers.cinder.errors import is_refusal
from store_lib.drivers.cinder.uploads import DEAD, HOST, IMAGE_ID, last_change
from store_lib.drivers.cinder.volume import PLACE, Grant, Volume
from store_lib.exceptions import BackendException, NotFound, StoreError

if TYPE_CHECKING:
    from store_lib.drivers.cinder.api import Cinder
    from store_lib.drivers.cinder.brick import Host

_LOG = get_logger(__name__)

#: States of a volume that somebody has attached, or began to.
ATTACHED_STATES = frozenset({"in-use", "reserved", "attaching", "detaching"})


def remove(cinder: "Cinder", host: "Host", volume_id: str) -> None:
    """Remove a volume that never became an object, and whatever attaches it.

    :raises StoreError: that is not possible now
    """

    def delete() -> bool:
        try:
            cinder.delete(volume_id)
        except BackendException as error:  # Cinder is at work on it, or it is attached
            if not is_refusal(error):
                raise
            return False
        return True

    with contextlib.suppress(NotFound):
        if cinder.retry(delete):
            return
        _detach(cinder, host, volume_id)
        volume = cinder.settled(volume_id)
        if not cinder.retry(delete):
            raise BackendException(
                f"Volume {volume_id} is in state {volume.status!r} and was not deleted. Look for "
                "the reason in Cinder, and reset its state there."
            )


def _detach(cinder: "Cinder", host: "Host", volume_id: str) -> None:
    """End the attachments of a volume that nobody is at work on any more."""
    # Reserved or attaching it stays until its attachment is ended.
    volume = cinder.settled(volume_id, ("creating", "extending", "detaching"))
    with host.volume_lock(volume_id).held():
        for grant in cinder.retry(lambda: cinder.grants(volume_id)):
            try:
                if volume.metadata.get(HOST) == host.name:
                    disconnect_left_over(host, volume_id, grant)
            finally:
                _release(cinder, grant)


def _release(cinder: "Cinder", grant: Grant) -> None:
    with contextlib.suppress(NotFound):
        cinder.retry(lambda: cinder.release(grant.id))


def dead_attachments(cinder: "Cinder", host: "Host", volume: Volume) -> Iterator[Incomplete]:
    """Yield the attachments of an object that nobody uses any more, as far as that can be told."""
    if volume.status in ATTACHED_STATES and not host.volume_lock(volume.id).is_held():
        for grant in cinder.retry(lambda: cinder.grants(volume.id)):
            if _is_dead(cinder, host, volume, grant):
                now = cinder.now()
                changed = last_change(volume, now, grant.since)
                object_id = volume.metadata.get(IMAGE_ID)
                key = f"{volume.id}/{grant.id}"
                yield Incomplete(key, object_id, 0, changed, False, now)


def _is_dead(cinder: "Cinder", host: "Host", volume: Volume, grant: Grant) -> bool:
    """Tell whether an attachment is of this library, and its process has gone.

    A complete one says so itself.  Of one that never got as far nobody can tell whose it was: it
    is dead when a server has nothing to do with it, and nothing has become of it for long.
    """
    if grant.instance is not None or host.attachment_lock(grant.id).is_held():
        return False
    if grant.status in ("reserved", "attaching"):
        now = cinder.now()
        last = last_change(volume, now, grant.since)
        return (time.time() if now is None else now) - last >= DEAD
    own = (each for each in volume.attached if each.id == grant.id)
    return any(each.host == host.name and each.device == PLACE for each in own)


def end_attachment(cinder: "Cinder", host: "Host", key: str) -> bool:
    """End an attachment that :func:`dead_attachments` gave; say whether that was done."""
    volume_id, _, grant_id = key.partition("/")
    with host.volume_lock(volume_id).held():
        try:
            volume = cinder.get(volume_id)
            [grant] = [each for each in cinder.grants(volume_id) if each.id == grant_id]
        except (NotFound, ValueError):
            return False
        if not _is_dead(cinder, host, volume, grant):
            return False
        try:
            _disconnect(host, volume, grant)
        finally:
            _release(cinder, grant)
    return True


def _disconnect(host: "Host", volume: Volume, grant: Grant) -> None:
    """Take away what a dead process may have brought here, unless others here use it."""
    if any(each.host == host.name and each.id != grant.id for each in volume.attached):
        return
    try:
        disconnect_left_over(host, volume.id, grant)
    except StoreError as error:
        if grant.status == "attached":
            raise
        # It may never have come here, or have been another host's.
        _LOG.info("Volume %s was not taken away from this host: %s", volume.id, error)
