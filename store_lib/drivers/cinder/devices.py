"""Devices of attached volumes: a block device, a file, or an image opened by librbd."""

import abc
import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from typing import Any

from store_lib.clients.polling import poll
from store_lib.driver import Chunk
from store_lib.drivers.cinder.errors import device_error
from store_lib.exceptions import BackendException

#: Seconds to wait until a block device has the new size of its volume.
_RESIZE_TIMEOUT = 20

_MIB = 1024 * 1024

#: The number of bytes written between two flushes, so that the last flush, for which the upload has
#: to wait, is short.
_FLUSH_INTERVAL = 64 * _MIB


class Device(abc.ABC):
    """Reads and writes the bytes of an attached volume.  Thread-safe."""

    #: Whether this is a block device of this host.
    is_block = False
    #: The number of bytes to read at once.
    read_size = _MIB

    def __init__(self, volume_id: str) -> None:
        self.volume_id = volume_id

    @abc.abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes.

        :raises BackendException: the device is shorter
        """

    @abc.abstractmethod
    def write_at(self, offset: int, data: Chunk) -> None:
        """Write all of ``data``."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Make all bytes written so far durable."""

    @abc.abstractmethod
    def check_size(self, size: int) -> None:
        """Wait until the device has at least ``size`` bytes.

        :raises BackendException: it still has fewer after a while
        """

    def close(self) -> None:  # noqa: B027 - os-brick closes an image that it opened
        """Close the device.  Idempotent."""

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Turn errors into the library's.

        :param action: what was to be done with the device, such as ``"write to"``
        """
        try:
            yield
        except Exception as error:
            raise device_error(error, action, self.volume_id) from error


class FileDevice(Device):
    """A block device, or a file on a mounted share; never truncated."""

    def __init__(self, volume_id: str, path: str, *, writable: bool) -> None:
        super().__init__(volume_id)
        mode = os.O_RDWR if writable else os.O_RDONLY
        self._file = os.open(path, mode | os.O_CLOEXEC)
        self.is_block = stat.S_ISBLK(os.fstat(self._file).st_mode)
        self._unflushed = 0
        self._count_lock = threading.Lock()

    def read_at(self, offset: int, length: int) -> bytes:
        with self._errors("read"):
            data = os.pread(self._file, length, offset)
            while len(data) < length:
                more = os.pread(self._file, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        if len(data) < length:
            raise BackendException(
                f"Expected bytes up to {offset + length} of volume {self.volume_id}, but its "
                f"device ends at {offset + len(data)}. It was detached, or never extended."
            )
        return data

    def write_at(self, offset: int, data: Chunk) -> None:
        rest = memoryview(data)
        with self._errors("write to"):
            while rest:
                written = os.pwrite(self._file, rest, offset)
                rest = rest[written:]
                offset += written
        if self._flush_is_due(len(data)):
            self.flush()

    def _flush_is_due(self, written: int) -> bool:
        with self._count_lock:
            self._unflushed += written
            if self._unflushed < _FLUSH_INTERVAL:
                return False
            self._unflushed = 0
            return True

    def flush(self) -> None:
        with self._errors("write to"):
            os.fdatasync(self._file)

    def check_size(self, size: int) -> None:
        # A file grows as it is written.
        if self.is_block and poll(lambda: self._end() >= size or None, _RESIZE_TIMEOUT) is None:
            raise BackendException(
                f"The device of volume {self.volume_id} did not get its {size} bytes within "
                f"{_RESIZE_TIMEOUT} s. Check that this host sees the volume's new size."
            )

    def _end(self) -> int:
        # fstat does not know the size of a block device.
        return os.lseek(self._file, 0, os.SEEK_END)

    def close(self) -> None:
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)


class RbdDevice(Device):
    """An image in Ceph, read and written by librbd, without the kernel.

    :param handle: os-brick's handle, which os-brick closes when it disconnects the volume
    """

    def __init__(self, volume_id: str, handle: Any) -> None:
        super().__init__(volume_id)
        self._image = handle.rbd_image

    def read_at(self, offset: int, length: int) -> bytes:
        with self._errors("read"):
            data: bytes = self._image.read(offset, length)
        if len(data) < length:
            raise BackendException(
                f"Expected {length} bytes at {offset} of volume {self.volume_id}, got {len(data)}."
            )
        return data

    def write_at(self, offset: int, data: Chunk) -> None:
        with self._errors("write to"):
            self._image.write(bytes(data), offset)

    def flush(self) -> None:
        with self._errors("write to"):
            self._image.flush()

    def check_size(self, size: int) -> None:
        # An open image has the new size at once.
        if self._image.size() < size:
            raise BackendException(
                f"Expected an image of {size} bytes for volume {self.volume_id}, got "
                f"{self._image.size()}."
            )
