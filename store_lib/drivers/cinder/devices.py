"""An attached volume's bytes: a block device or a file, and an image that librbd reaches."""

import abc
import contextlib
import os
import stat
import threading
from typing import Any

from store_lib.driver import Chunk
from store_lib.drivers.cinder.errors import on_device
from store_lib.drivers.cinder.waiting import wait_for
from store_lib.exceptions import BackendException

#: Seconds for a block device to get the size that its volume has.
_RESIZE = 20

_MIB = 1024 * 1024

#: Bytes after which those written so far are flushed, while others are still being read and
#: hashed: so that the last flush, which everybody waits for, finds little to do.
_FLUSHED = 64 * _MIB


class Device(abc.ABC):
    """The bytes of a volume that is attached here; for many threads."""

    #: Whether it is a block device of this host.
    is_block = False
    #: Bytes that it reads and writes best at a time.
    piece = _MIB

    def __init__(self, volume_id: str) -> None:
        self.volume_id = volume_id

    @abc.abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes, all there as the volume is longer."""

    @abc.abstractmethod
    def write_at(self, offset: int, data: Chunk) -> None:
        """Write all of ``data``."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Have all that was written on the storage."""

    @abc.abstractmethod
    def check_size(self, size: int) -> None:
        """Wait until the device has ``size`` bytes, as an extended one has after a while."""

    def close(self) -> None:  # noqa: B027 - os-brick closes what it has opened
        """Let go of it.  Idempotent."""


class FileDevice(Device):
    """A block device, or a file on a mounted share; opened without ever being truncated."""

    def __init__(self, volume_id: str, path: str, *, writable: bool) -> None:
        super().__init__(volume_id)
        mode = os.O_RDWR if writable else os.O_RDONLY
        self._file = os.open(path, mode | os.O_CLOEXEC)
        self.is_block = stat.S_ISBLK(os.fstat(self._file).st_mode)
        self._unflushed = 0
        self._counting = threading.Lock()

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes."""
        try:
            found = os.pread(self._file, length, offset)
            while len(found) < length:
                more = os.pread(self._file, length - len(found), offset + len(found))
                if not more:
                    break
                found += more
        except OSError as error:
            raise on_device(error, "read", self.volume_id) from error
        if len(found) < length:
            raise BackendException(
                f"Expected bytes up to {offset + length} of volume {self.volume_id}, but its "
                f"device ends at {offset + len(found)}. It was detached, or never extended."
            )
        return found

    def write_at(self, offset: int, data: Chunk) -> None:
        """Write all of ``data``."""
        rest = memoryview(data)
        try:
            while rest:
                done = os.pwrite(self._file, rest, offset)
                rest = rest[done:]
                offset += done
        except OSError as error:
            raise on_device(error, "write to", self.volume_id) from error
        if self._is_much(len(data)):
            self.flush()

    def _is_much(self, written: int) -> bool:
        with self._counting:
            self._unflushed += written
            if self._unflushed < _FLUSHED:
                return False
            self._unflushed = 0
            return True

    def flush(self) -> None:
        """Have all that was written on the storage."""
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise on_device(error, "write to", self.volume_id) from error

    def check_size(self, size: int) -> None:
        """Wait until a block device has ``size`` bytes; a file grows as it is written."""
        if not self.is_block:
            return
        # fstat knows no size of block devices, but their end can be sought.
        look = lambda: os.lseek(self._file, 0, os.SEEK_END) >= size or None  # noqa: E731
        if wait_for(look, _RESIZE) is None:
            raise BackendException(
                f"The device of volume {self.volume_id} did not get its {size} bytes within "
                f"{_RESIZE} s. Check that this host sees the volume's new size."
            )

    def close(self) -> None:
        """Close it."""
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)


class RbdDevice(Device):
    """An image in Ceph, reached without the kernel.

    :param handle: what os-brick has opened, and closes when it disconnects
    """

    def __init__(self, volume_id: str, handle: Any) -> None:
        super().__init__(volume_id)
        self._image = handle.rbd_image

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes."""
        try:
            found: bytes = self._image.read(offset, length)
        except Exception as error:
            raise on_device(error, "read", self.volume_id) from error
        if len(found) < length:
            raise BackendException(
                f"Expected {length} bytes at {offset} of volume {self.volume_id}, got {len(found)}."
            )
        return found

    def write_at(self, offset: int, data: Chunk) -> None:
        """Write all of ``data``."""
        try:
            self._image.write(bytes(data), offset)
        except Exception as error:
            raise on_device(error, "write to", self.volume_id) from error

    def flush(self) -> None:
        """Have all that was written on the storage."""
        try:
            self._image.flush()
        except Exception as error:
            raise on_device(error, "write to", self.volume_id) from error

    def check_size(self, size: int) -> None:
        """Look whether it has ``size`` bytes: what is open sees a new size at once."""
        if self._image.size() < size:
            raise BackendException(
                f"Expected an image of {size} bytes for volume {self.volume_id}, got "
                f"{self._image.size()}."
            )
