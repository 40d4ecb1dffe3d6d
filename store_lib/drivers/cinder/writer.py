"""Writes a new volume: filled under a temporary name, and published by one last request."""

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from store_lib.display import get_logger
from store_lib.driver import Chunk, PositionWriter
from store_lib.drivers.cinder.attachment import Attachment
from store_lib.drivers.cinder.incomplete import Cleanup
from store_lib.drivers.cinder.location import CinderLocation
from store_lib.drivers.cinder.options import Settings
from store_lib.drivers.cinder.volume import (
    GIB,
    HEARTBEAT_INTERVAL,
    HOST,
    IMAGE_ID,
    NONCE,
    OWNER,
    SIZE,
    UPLOAD,
    Volume,
    object_name,
    temporary_name,
)
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    NotFound,
    NotSupported,
    StorageFull,
    StoreError,
)

if TYPE_CHECKING:
    from store_lib.drivers.cinder.client import Cinder
    from store_lib.drivers.cinder.host import Host

_LOG = get_logger(__name__)


class Upload:
    """One upload: its volume's names and metadata, and the lock that it holds as long as it runs.

    :param owner: the id of the project that the object belongs to
    """

    def __init__(self, object_id: str, nonce: str, owner: str, host: "Host") -> None:
        self.temporary_name = temporary_name(nonce)
        self.name = object_name(object_id)
        self.host = host
        self.lock = host.locks.upload(nonce)
        self._object_id = object_id
        self._nonce = nonce
        self._owner = owner

    def initial_metadata(self) -> dict[str, str]:
        """Return the volume's metadata while it is being filled."""
        return {UPLOAD: self._object_id, NONCE: self._nonce, HOST: self.host.name}

    def final_metadata(self, size: int) -> dict[str, str]:
        """Return the object's metadata."""
        return {
            IMAGE_ID: self._object_id,
            SIZE: str(size),
            OWNER: self._owner,
            NONCE: self._nonce,
        }

    def is_published(self, metadata: Mapping[str, str]) -> bool:
        """Return whether a volume with this metadata is the object that this upload made."""
        return metadata.get(NONCE) == self._nonce and UPLOAD not in metadata


class VolumeWriter(PositionWriter):
    """A new volume.

    The first :meth:`reserve` creates the volume, and the first write attaches it.  It is not
    attached earlier: librados, for example, takes memory for every attached volume, even while an
    add still waits for its share of the transfers' memory.

    :param size: bytes to come; 0 if unknown
    """

    chunk_size = 1024 * 1024
    concurrency = 8
    # What librados takes with 15 threads for each volume; the kind of volume is known later.
    client_memory = 6 * 1024 * 1024

    def __init__(self, cinder: "Cinder", upload: Upload, size: int, settings: Settings) -> None:
        self.quiesce_to_grow = not settings.grow_attached
        self._cinder = cinder
        self._upload = upload
        self._size = size
        self._settings = settings
        self._volume: Volume | None = None
        self._is_created = False
        self._attachment: Attachment | None = None
        self._attach_lock = threading.Lock()
        self._next_heartbeat = time.monotonic() + HEARTBEAT_INTERVAL
        self._heartbeats = 0
        self._heartbeat_lock = threading.Lock()
        upload.lock.acquire()  # a sweep may hold it for a moment

    def write_at(self, offset: int, data: Chunk) -> None:
        self._attached().device.write_at(offset, data)
        self._send_heartbeat()

    def _attached(self) -> Attachment:
        with self._attach_lock:
            if self._attachment is None:
                assert self._volume is not None  # since reserve
                attachment = Attachment(self._upload.host, self._volume, "rw")
                try:
                    attachment.attach(self._cinder, self._settings.attach_timeout)
                except NotFound as error:
                    raise self._detached_by_others(self._volume) from error
                self._attachment = attachment
            return self._attachment

    @staticmethod
    def _detached_by_others(volume: Volume) -> BackendException:
        return BackendException(
            f"Another client ended the attachment of volume {volume.id} during the upload, so "
            "that not all of it may have been written. Add the object again."
        )

    def _send_heartbeat(self) -> None:
        """Change the volume now and then, so that other hosts know that the upload is alive."""
        if time.monotonic() < self._next_heartbeat or self._volume is None:
            return
        if not self._heartbeat_lock.acquire(blocking=False):
            return
        try:
            self._next_heartbeat = time.monotonic() + HEARTBEAT_INTERVAL
            self._heartbeats += 1
            text = f"being filled, heartbeat {self._heartbeats}"
            self._cinder.set_description(self._volume.id, text)
        except StoreError as error:
            _LOG.info("No heartbeat on volume %s: %s", self._volume.id, error)
        finally:
            self._heartbeat_lock.release()

    def reserve(self, end: int) -> int:
        """Create the volume, or extend it to twice its size or, if that is too small, to ``end``.

        May be called again after a temporary error at any step.
        """
        if self.quiesce_to_grow:
            self._detach()
        volume = self._create(max(end, self._size))
        if volume.size < end:
            volume = self._extend(volume, end)
        if self._attachment is not None:
            self._attachment.grow(volume)
        self.reserved = volume.size
        return self.reserved

    def _create(self, size: int, source: Volume | None = None) -> Volume:
        """Create the volume unless that was done before, and wait until it is available.

        :param source: the volume to clone
        :raises StorageFull: the quota is used up, or no backend has room
        """
        gibibytes = max(1, -(-size // GIB))
        changing = self._volume is None
        if self._volume is None:
            self._volume = self._begin_volume(gibibytes, source)
        self._volume = self._cinder.wait_until_stable(self._volume.id, changing=changing)
        if not self._is_created and self._volume.status != "available":
            raise StorageFull(
                f"Cinder could not make a volume of {gibibytes} GiB of type "
                f"{self._settings.volume_type or '(default)'}: it ended in state "
                f"{self._volume.status!r}. No backend of that type has room or is up; Cinder's "
                "scheduler has logged why."
            )
        self._is_created = True
        return self._volume

    def _begin_volume(self, gibibytes: int, source: Volume | None) -> Volume:
        try:
            return self._cinder.create(
                self._upload.temporary_name,
                gibibytes,
                self._settings.volume_type,
                self._upload.initial_metadata(),
                None if source is None else source.id,
            )
        except StoreError as error:
            if error.status is not ErrorStatus.TEMPORARY:
                raise
            # The response was lost; Cinder may have created the volume.
            volume = self._cinder.find(self._upload.temporary_name)
            if volume is None:
                raise
            return volume

    def _extend(self, volume: Volume, end: int) -> Volume:
        present = volume.size // GIB
        needed = -(-end // GIB)
        wanted = max(needed, 2 * present)
        while True:
            try:
                self._cinder.extend(volume.id, wanted)
                break
            except StorageFull:
                if wanted == needed:
                    raise
                wanted = max(needed, present + (wanted - present) // 2)
        self._volume = volume = self._cinder.wait_until_stable(volume.id, changing=True)
        if volume.size < wanted * GIB:
            raise StorageFull(
                f"Cinder could not extend volume {volume.id} from {present} to {wanted} GiB: "
                f"it ended in state {volume.status!r}. The backend has no room, or cannot "
                "do it; Cinder's volume service has logged why."
            )
        return volume

    def commit(self, size: int) -> CinderLocation:
        self._detach()
        if not self._is_created:  # an empty object has reserved nothing
            self._create(size)
        return self._publish(size)

    def copy_from(self, location: CinderLocation) -> CinderLocation:
        """Clone a volume.

        :raises NotSupported: the volume has another type than new ones, so it cannot be cloned
        """
        source = self._cinder.get(location.volume_id).check_object()
        if source.volume_type != (self._settings.volume_type or self._cinder.default_type()):
            raise NotSupported(
                store_id=self._settings.store_id,
                what=f"clone a volume of type {source.volume_type}",
                store=self._settings.store_id,
            )
        self._create(source.size, source)
        return self._publish(source.object_size)

    def _publish(self, size: int) -> CinderLocation:
        volume = self._volume
        assert volume is not None  # since _create
        self._cinder.set_readonly(volume.id)
        self._cinder.update(volume.id, self._upload.name, self._upload.final_metadata(size))
        self._upload.lock.release()
        return self._location(volume)

    def _location(self, volume: Volume) -> CinderLocation:
        return CinderLocation(volume.id, self._settings.uri_store)

    def _detach(self) -> None:
        """Flush and detach the volume, if it is attached."""
        if self._attachment is None or self._volume is None:
            return
        self._attachment.flush()
        try:
            self._attachment.detach(self._cinder)
        except NotFound as error:
            raise self._detached_by_others(self._volume) from error
        self._attachment = None

    def abort(self) -> None:
        attachment, self._attachment = self._attachment, None
        self._upload.lock.release()
        if attachment is not None:
            # What cannot be undone here is tried again with the volume.
            with contextlib.suppress(StoreError):
                attachment.detach(self._cinder)
        if self._volume is not None:
            Cleanup(self._cinder, self._upload.host).remove(self._volume.id)

    def resolve(self) -> CinderLocation | None:
        if self._volume is None:
            return None
        volume = self._cinder.get(self._volume.id)
        if not self._upload.is_published(volume.metadata):
            return None
        self._upload.lock.release()
        return self._location(volume)
