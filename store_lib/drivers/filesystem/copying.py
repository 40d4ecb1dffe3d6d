"""Copies a file's contents to another file by the cheapest way that the file systems offer."""

import errno
import os
from collections.abc import Iterator

from store_lib.drivers.filesystem import syscalls
from store_lib.exceptions import ObjectChanged

#: Bytes that the kernel is asked to copy in one call: seldom enough, and still interruptible.
_KERNEL_PIECE = 64 * 1024 * 1024
_PIECE = 1024 * 1024
#: What copy_file_range answers where it cannot do it between these two files.
_NOT_BETWEEN = syscalls.UNSUPPORTED | {errno.EXDEV, errno.EBADF, errno.EPERM, errno.EACCES}


def copy_contents(source: int, target: int, size: int, *, durable: bool) -> None:
    """Copy ``size`` bytes from the start of one file to another, empty one, holes as holes.

    :param durable: set the disk to work on what has been copied at once
    :raises ObjectChanged: the source has no such number of bytes
    :raises OSError: reading or writing failed
    """
    if syscalls.clone(source, target):
        if os.fstat(target).st_size != size:
            raise ObjectChanged
        return
    os.ftruncate(target, size)
    in_kernel = True
    for start, end in _data(source, size):
        while start < end:
            if in_kernel:
                copied = _copy_in_kernel(source, target, start, min(end - start, _KERNEL_PIECE))
                in_kernel = copied > 0
            if not in_kernel:
                copied = _copy_piece(source, target, start, min(end - start, _PIECE))
            if durable:
                syscalls.pace_writeback(target, start, start + copied)
            start += copied
    if os.fstat(source).st_size != size:
        raise ObjectChanged


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each stretch between holes; all of it where holes do not show."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole is left
            if error.errno not in syscalls.UNSUPPORTED:
                raise
            start, end = end, size
        if start < end:
            yield start, end


def _copy_in_kernel(source: int, target: int, start: int, length: int) -> int:
    """Return the bytes copied; 0 where it cannot be done in the kernel."""
    try:
        return os.copy_file_range(source, target, length, start, start)
    except OSError as error:
        if error.errno not in _NOT_BETWEEN:
            raise
        return 0


def _copy_piece(source: int, target: int, start: int, length: int) -> int:
    data = os.pread(source, length, start)
    if not data:
        raise ObjectChanged
    return os.pwrite(target, data, start)
