"""Finds and removes what uploads and readers leave behind when they are killed or cut off.

A running upload holds a lock on its own host; other hosts recognise it by the time of the last
change of its volume, which it touches now and then.  That time is by Cinder's clock, so that no
host's clock matters.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from store_lib.display import get_logger
from store_lib.driver import Incomplete
from store_lib.drivers.cinder.attachment import disconnect_left_over
from store_lib.drivers.cinder.errors import is_invalid_state
from store_lib.drivers.cinder.volume import (
    HOST,
    IMAGE_ID,
    MOUNTPOINT,
    NONCE,
    UPLOAD,
    Volume,
    VolumeAttachment,
)
from store_lib.exceptions import BackendException, NotFound, StoreError

if TYPE_CHECKING:
    from store_lib.drivers.cinder.client import Cinder
    from store_lib.drivers.cinder.host import Host

_LOG = get_logger(__name__)

#: Seconds between two changes that an upload makes to its volume, and after which an upload on
#: another host counts as dead.
HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT = 60, 300

#: States of a volume with an attachment.
ATTACHED_STATES = frozenset({"in-use", "reserved", "attaching", "detaching"})


def describe(host: "Host", volume: Volume, now: float | None) -> Incomplete:
    """Describe an unfinished volume.

    :param now: the time by Cinder's clock
    """
    changed = volume.last_change(now)
    if volume.metadata.get(HOST) == host.name:
        live = host.locks.upload(volume.metadata[NONCE]).is_held()
    else:
        live = not _is_timed_out(changed, now)
    return Incomplete(volume.id, volume.metadata[UPLOAD], volume.size, changed, live, now)


def _is_timed_out(changed: float, now: float | None) -> bool:
    return (time.time() if now is None else now) - changed >= HEARTBEAT_TIMEOUT


def remove(cinder: "Cinder", host: "Host", volume_id: str) -> None:
    """Remove a volume that never became an object, and its attachments.

    :raises StoreError: that is not possible now
    """

    def delete() -> bool:
        try:
            cinder.delete(volume_id)
        except BackendException as error:  # Cinder is working on it, or it is attached
            if not is_invalid_state(error):
                raise
            return False
        return True

    with contextlib.suppress(NotFound):
        if cinder.retry(delete):
            return
        _detach(cinder, host, volume_id)
        volume = cinder.wait_until_stable(volume_id)
        if not cinder.retry(delete):
            raise BackendException(
                f"Volume {volume_id} is in state {volume.status!r} and was not deleted. Look for "
                "the reason in Cinder, and reset its state there."
            )


def _detach(cinder: "Cinder", host: "Host", volume_id: str) -> None:
    """End the attachments of a volume whose upload has ended."""
    # It stays reserved or attaching until its attachment is ended.
    volume = cinder.wait_until_stable(volume_id, ("creating", "extending", "detaching"))
    with host.locks.volume(volume_id).held():
        for attachment in cinder.retry(lambda: cinder.attachments(volume_id)):
            try:
                if volume.metadata.get(HOST) == host.name:
                    disconnect_left_over(host, volume_id, attachment)
            finally:
                _delete(cinder, attachment)


def _delete(cinder: "Cinder", attachment: VolumeAttachment) -> None:
    with contextlib.suppress(NotFound):
        cinder.retry(lambda: cinder.delete_attachment(attachment.id))


def dead_attachments(cinder: "Cinder", host: "Host", volume: Volume) -> Iterator[Incomplete]:
    """Yield the attachments of an object that are known to be left over."""
    if volume.status in ATTACHED_STATES and not host.locks.volume(volume.id).is_held():
        for attachment in cinder.retry(lambda: cinder.attachments(volume.id)):
            if _is_dead(cinder, host, volume, attachment):
                now = cinder.now()
                changed = volume.last_change(now, attachment.attached_at)
                object_id = volume.metadata.get(IMAGE_ID)
                key = f"{volume.id}/{attachment.id}"
                yield Incomplete(key, object_id, 0, changed, False, now)


def _is_dead(cinder: "Cinder", host: "Host", volume: Volume, attachment: VolumeAttachment) -> bool:
    """Return whether an attachment is this library's, and its process has gone.

    A complete one has our mount point.  An incomplete one may be anybody's: it is dead if it is for
    no server and has not changed for long.
    """
    if attachment.instance is not None or host.locks.attachment(attachment.id).is_held():
        return False
    if attachment.status in ("reserved", "attaching"):
        now = cinder.now()
        return _is_timed_out(volume.last_change(now, attachment.attached_at), now)
    return any(
        complete.id == attachment.id
        and complete.host == host.name
        and complete.device == MOUNTPOINT
        for complete in volume.attachments
    )


def end_attachment(cinder: "Cinder", host: "Host", key: str) -> bool:
    """End an attachment of :func:`dead_attachments`, and return whether that was done."""
    volume_id, _, attachment_id = key.partition("/")
    with host.locks.volume(volume_id).held():
        try:
            volume = cinder.get(volume_id)
            attachments = cinder.attachments(volume_id)
            attachment = {attachment.id: attachment for attachment in attachments}[attachment_id]
        except (NotFound, KeyError):
            return False
        if not _is_dead(cinder, host, volume, attachment):
            return False
        try:
            _disconnect(host, volume, attachment)
        finally:
            _delete(cinder, attachment)
    return True


def _disconnect(host: "Host", volume: Volume, attachment: VolumeAttachment) -> None:
    """Remove the device that a dead process may have connected, unless others here use it."""
    if any(other.host == host.name and other.id != attachment.id for other in volume.attachments):
        return
    try:
        disconnect_left_over(host, volume.id, attachment)
    except StoreError as error:
        if attachment.status == "attached":
            raise
        # It may never have been connected, or by another host.
        _LOG.info("Volume %s was not disconnected from this host: %s", volume.id, error)
