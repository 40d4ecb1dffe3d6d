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
    HEARTBEAT_TIMEOUT,
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

#: States of a volume with an attachment.
ATTACHED_STATES = frozenset({"in-use", "reserved", "attaching", "detaching"})


class Cleanup:
    """Finds and removes what is left over, with one client of Cinder, on one host."""

    def __init__(self, cinder: "Cinder", host: "Host") -> None:
        self._cinder = cinder
        self._host = host

    def find(self, volume: Volume) -> Iterator[Incomplete]:
        """Yield what is incomplete about a volume: itself, or attachments that are left over."""
        if volume.is_unfinished:
            yield self.describe(volume)
        elif UPLOAD not in volume.metadata and IMAGE_ID in volume.metadata:
            yield from self._dead_attachments(volume)

    def discard(self, key: str) -> bool:
        """Remove what has this key in :meth:`find`; return whether it was removed."""
        volume_id, _, attachment_id = key.partition("/")
        if attachment_id:
            return self._end_attachment(volume_id, attachment_id)
        try:
            volume = self._cinder.get(volume_id)
        except NotFound:
            return False
        if volume.status == "deleting" or not volume.is_unfinished:
            return False
        if self.describe(volume).live:
            return False
        self.remove(volume_id)
        return True

    # Volumes

    def describe(self, volume: Volume) -> Incomplete:
        """Describe an unfinished volume."""
        now = self._cinder.now()
        changed = volume.last_change(now)
        if volume.metadata.get(HOST) == self._host.name:
            live = self._host.locks.upload(volume.metadata[NONCE]).is_held()
        else:
            live = not _is_timed_out(changed, now)
        return Incomplete(volume.id, volume.metadata[UPLOAD], volume.size, changed, live, now)

    def remove(self, volume_id: str) -> None:
        """Remove a volume that never became an object, and its attachments.

        :raises StoreError: it cannot be removed now
        """
        with contextlib.suppress(NotFound):
            if self._try_delete(volume_id):
                return
            self._detach(volume_id)
            volume = self._cinder.wait_until_stable(volume_id)
            if not self._try_delete(volume_id):
                raise BackendException(
                    f"Volume {volume_id} is in state {volume.status!r} and was not deleted. Look "
                    "for the reason in Cinder, and reset its state there."
                )

    def _try_delete(self, volume_id: str) -> bool:
        """Delete a volume if its state allows it; return whether it did."""
        try:
            self._cinder.retry(lambda: self._cinder.delete(volume_id))
        except BackendException as error:  # Cinder is working on it, or it is attached
            if not is_invalid_state(error):
                raise
            return False
        return True

    def _detach(self, volume_id: str) -> None:
        """End the attachments of a volume whose upload has ended."""
        # It stays reserved or attaching until its attachment is ended.
        unstable = ("creating", "extending", "detaching")
        volume = self._cinder.wait_until_stable(volume_id, unstable)
        with self._host.locks.volume(volume_id).held():
            for attachment in self._attachments(volume_id):
                try:
                    if volume.metadata.get(HOST) == self._host.name:
                        disconnect_left_over(self._host, volume_id, attachment)
                finally:
                    self._delete(attachment)

    # Attachments

    def _attachments(self, volume_id: str) -> list[VolumeAttachment]:
        return self._cinder.retry(lambda: self._cinder.attachments(volume_id))

    def _delete(self, attachment: VolumeAttachment) -> None:
        with contextlib.suppress(NotFound):
            self._cinder.retry(lambda: self._cinder.delete_attachment(attachment.id))

    def _dead_attachments(self, volume: Volume) -> Iterator[Incomplete]:
        """Yield the attachments of an object that are known to be left over."""
        if volume.status in ATTACHED_STATES and not self._host.locks.volume(volume.id).is_held():
            for attachment in self._attachments(volume.id):
                if self._is_dead(volume, attachment):
                    now = self._cinder.now()
                    changed = volume.last_change(now, attachment.attached_at)
                    object_id = volume.metadata.get(IMAGE_ID)
                    key = f"{volume.id}/{attachment.id}"
                    yield Incomplete(key, object_id, 0, changed, False, now)

    def _is_dead(self, volume: Volume, attachment: VolumeAttachment) -> bool:
        """Return whether an attachment is left over from a dead process of this library.

        A complete attachment is this library's if it has our mount point.  An incomplete one may
        be another client's: it is dead if it is for no server and has not changed for long.
        """
        if attachment.instance is not None:
            return False
        if self._host.locks.attachment(attachment.id).is_held():
            return False
        if attachment.status in ("reserved", "attaching"):
            now = self._cinder.now()
            return _is_timed_out(volume.last_change(now, attachment.attached_at), now)
        return any(
            complete.id == attachment.id
            and complete.host == self._host.name
            and complete.device == MOUNTPOINT
            for complete in volume.attachments
        )

    def _end_attachment(self, volume_id: str, attachment_id: str) -> bool:
        """End an attachment if it is left over; return whether it was."""
        with self._host.locks.volume(volume_id).held():
            try:
                volume = self._cinder.get(volume_id)
                attachments = {each.id: each for each in self._cinder.attachments(volume_id)}
                attachment = attachments[attachment_id]
            except (NotFound, KeyError):
                return False
            if not self._is_dead(volume, attachment):
                return False
            try:
                self._disconnect(volume, attachment)
            finally:
                self._delete(attachment)
        return True

    def _disconnect(self, volume: Volume, attachment: VolumeAttachment) -> None:
        """Remove the device that a dead process may have connected, unless others here use it."""
        name = self._host.name
        if any(other.host == name and other.id != attachment.id for other in volume.attachments):
            return
        try:
            disconnect_left_over(self._host, volume.id, attachment)
        except StoreError as error:
            if attachment.status == "attached":
                raise
            # The volume may never have been connected, or only to another host.
            _LOG.info("Volume %s was not disconnected from this host: %s", volume.id, error)


def _is_timed_out(changed: float, now: float | None) -> bool:
    return (time.time() if now is None else now) - changed >= HEARTBEAT_TIMEOUT
