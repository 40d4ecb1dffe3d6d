"""Writes a new volume: filled under a temporary name, and made the object in one last request."""

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from store_lib.display import get_logger
from store_lib.driver import Chunk, PositionWriter
from store_lib.drivers.cinder.attachment import Attachment
from store_lib.drivers.cinder.leftovers import remove
from store_lib.drivers.cinder.location import CinderLocation
from store_lib.drivers.cinder.uploads import BEAT, Upload
from store_lib.drivers.cinder.volume import GIB, Volume
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    NotFound,
    StorageFull,
    StoreError,
)

if TYPE_CHECKING:
    from store_lib.drivers.cinder.api import Cinder

_LOG = get_logger(__name__)


def make_volume(
    cinder: "Cinder",
    upload: Upload,
    gibibytes: int,
    volume_type: str | None,
    source: str | None = None,
) -> Volume:
    """Have a volume made for an upload, and wait until it is there.

    :param source: the volume to clone; ``None`` for an empty one
    :raises StorageFull: the quota is used up, or no backend has room
    """
    try:
        begun = cinder.create(upload.temporary_name, gibibytes, volume_type, upload.begun(), source)
    except StoreError as error:
        if error.status is not ErrorStatus.TEMPORARY:
            raise
        # The answer was lost; what was asked for may have been done.
        found = cinder.named(upload.temporary_name)
        if found is None:
            raise
        begun = found
    try:
        volume = cinder.settled(begun.id, begun=True)
        if volume.status != "available":
            raise StorageFull(
                f"Cinder could not make a volume of {gibibytes} GiB of type "
                f"{volume_type or '(default)'}: it ended in state {volume.status!r}. No backend "
                "of that type has room or is up; Cinder's scheduler has logged why."
            )
        return volume
    except BaseException as error:
        clean_up(cinder, upload, begun.id, error)
        raise


def clone(
    cinder: "Cinder", upload: Upload, source: Volume, size: int, volume_type: str | None
) -> str:
    """Have a volume cloned and make it an object; return its id.

    :param size: bytes of the object
    """
    volume = make_volume(cinder, upload, source.size // GIB, volume_type, source.id)
    try:
        cinder.protect(volume.id)
        cinder.publish(volume.id, upload.name, upload.done(size))
    except BaseException as error:
        clean_up(cinder, upload, volume.id, error)
        raise
    return volume.id


def clean_up(cinder: "Cinder", upload: Upload, volume_id: str, error: BaseException) -> None:
    """Remove a volume after ``error``, which is told if that fails."""
    try:
        remove(cinder, upload.host, volume_id)
    except StoreError as trouble:
        error.add_note(f"Volume {volume_id} is left over, for a sweep to remove: {trouble}")


class VolumeWriter(PositionWriter):
    """A new volume, attached here from the first byte on.

    Not before: clients such as librados take memory for each volume that is attached, and adds
    that wait for memory would all have one.

    :param patience: seconds to wait for an attachment
    :param grow_attached: extend it without detaching it
    """

    chunk_size = 1024 * 1024
    concurrency = 8
    # What librados has with 15 threads for each volume; which kind a volume is shows later.
    client_memory = 6 * 1024 * 1024

    def __init__(
        self,
        cinder: "Cinder",
        upload: Upload,
        volume: Volume,
        *,
        store_id: str | None,
        patience: float,
        grow_attached: bool,
    ) -> None:
        self.quiesce_to_grow = not grow_attached
        self.reserved = volume.size
        self._cinder = cinder
        self._upload = upload
        self._volume = volume
        self._store_id = store_id
        self._patience = patience
        self._attachment: Attachment | None = None
        self._attaching = threading.Lock()
        self._beat_at = time.monotonic() + BEAT
        self._beats = 0
        self._beating = threading.Lock()

    def _attached(self) -> Attachment:
        with self._attaching:
            if self._attachment is None:
                try:
                    self._attachment = Attachment(
                        self._cinder,
                        self._upload.host,
                        self._volume,
                        mode="rw",
                        patience=self._patience,
                    )
                except NotFound as error:
                    raise self._taken_away() from error
            return self._attachment

    def _taken_away(self) -> BackendException:
        return BackendException(
            f"Somebody ended the attachment of volume {self._volume.id} during the upload, so "
            "that not all of it may have been written. Add the object again."
        )

    def _detach(self) -> None:
        """Flush and detach, if it is attached."""
        if self._attachment is None:
            return
        self._attachment.flush()
        try:
            self._attachment.detach(self._cinder)
        except NotFound as error:
            raise self._taken_away() from error
        self._attachment = None

    def write_at(self, offset: int, data: Chunk) -> None:
        """Write all of ``data``, and now and then show life."""
        self._attached().device.write_at(offset, data)
        if time.monotonic() >= self._beat_at and self._beating.acquire(blocking=False):
            try:
                self._beat_at = time.monotonic() + BEAT
                self._beats += 1
                self._cinder.describe(self._volume.id, f"being filled, sign of life {self._beats}")
            except StoreError as error:
                _LOG.info("No sign of life on volume %s: %s", self._volume.id, error)
            finally:
                self._beating.release()

    def reserve(self, end: int) -> int:
        """Extend the volume to twice its size, or at least to ``end``.

        May be called again after a temporary error, wherever that left the volume.
        :raises StorageFull: the quota or the backend does not allow it
        """
        if self.quiesce_to_grow:
            self._detach()
        self._volume = self._cinder.settled(self._volume.id)
        if self._volume.size < end:
            self._extend(end)
        if self._attachment is not None:
            self._attachment.grown(self._volume)
        self.reserved = self._volume.size
        return self.reserved

    def _extend(self, end: int) -> None:
        present = self._volume.size // GIB
        needed = -(-end // GIB)
        wanted = max(needed, 2 * present)
        while True:
            try:
                self._cinder.extend(self._volume.id, wanted)
                break
            except StorageFull:
                if wanted == needed:
                    raise
                wanted = max(needed, present + (wanted - present) // 2)
        self._volume = self._cinder.settled(self._volume.id, begun=True)
        if self._volume.size < wanted * GIB:
            raise StorageFull(
                f"Cinder could not extend volume {self._volume.id} from {present} to {wanted} GiB: "
                f"it ended in state {self._volume.status!r}. The backend has no room, or cannot "
                "do it; Cinder's volume service has logged why."
            )

    def commit(self, size: int) -> CinderLocation:
        """Detach the volume, protect it, and make it the object."""
        self._detach()
        self._cinder.protect(self._volume.id)
        self._cinder.publish(self._volume.id, self._upload.name, self._upload.done(size))
        self._upload.end()
        return self._location()

    def _location(self) -> CinderLocation:
        return CinderLocation(self._volume.id, self._store_id)

    def abort(self) -> None:
        """Detach and remove the volume."""
        attachment, self._attachment = self._attachment, None
        self._upload.end()
        if attachment is not None:
            # What could not be undone here is tried again with the volume.
            with contextlib.suppress(StoreError):
                attachment.detach(self._cinder)
        remove(self._cinder, self._upload.host, self._volume.id)

    def resolve(self) -> CinderLocation | None:
        """Look whether the volume is the object already."""
        volume = self._cinder.get(self._volume.id)
        if not self._upload.is_published(volume.metadata):
            return None
        self._upload.end()
        return self._location()
