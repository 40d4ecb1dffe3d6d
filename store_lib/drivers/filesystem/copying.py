"""Copies a file's contents to another file by the cheapest way that the file systems offer."""

import errno
import os
from collections.abc import Callable, Iterator

from store_lib.driver import do_nothing
from store_lib.drivers.filesystem import syscalls
from store_lib.exceptions import ObjectChanged

#: Bytes that the kernel is asked to copy in one call: seldom enough, and still interruptible.
_KERNEL_PIECE = 64 * 1024 * 1024
_PIECE = 1024 * 1024
#: Bytes of the holes that are looked for.
_HOLE = 64 * 1024
_ZEROS = bytes(_HOLE)
#: What copy_file_range answers where it cannot do it between these two files.
_NOT_BETWEEN = syscalls.UNSUPPORTED | {errno.EXDEV, errno.EBADF, errno.EPERM, errno.EACCES}


def copy_contents(
    source: int,
    target: int,
    status: os.stat_result,
    *,
    durable: bool,
    step: Callable[[], None] = do_nothing,
) -> None:
    """Copy all of one file to another, empty one, holes as holes.

    :param status: the source's, as it was when it was opened
    :param durable: set the disk to work on what has been copied at once
    :param step: called between the pieces
    :raises ObjectChanged: the source is not what it was
    :raises OSError: reading or writing failed
    """
    if not syscalls.clone(source, target):
        os.ftruncate(target, status.st_size)
        _copy_data(source, target, status, durable, step)
    elif os.fstat(target).st_size != status.st_size:
        raise ObjectChanged
    if not syscalls.unchanged(status, os.fstat(source)):
        raise ObjectChanged


def _copy_data(
    source: int, target: int, status: os.stat_result, durable: bool, step: Callable[[], None]
) -> None:
    look = _hides_holes(source, status)
    in_kernel = not look
    for start, end in _data(source, status.st_size):
        while start < end:
            if in_kernel:
                copied = _copy_in_kernel(source, target, start, min(end - start, _KERNEL_PIECE))
                in_kernel = copied > 0
            if not in_kernel:
                copied = _copy_piece(source, target, start, min(end - start, _PIECE), look)
            if durable:
                syscalls.pace_writeback(target, start, start + copied)
            start += copied
            step()


def _hides_holes(fd: int, status: os.stat_result) -> bool:
    """Whether the file has holes that the file system does not show, as with FUSE.

    They are then looked for in what is read; the kernel would copy them as zeros.
    """
    if not 0 <= status.st_blocks * 512 < status.st_size:
        return False
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) >= status.st_size
    except OSError as error:
        if error.errno not in syscalls.UNSUPPORTED:
            raise
        return True


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


def _copy_piece(source: int, target: int, start: int, length: int, look: bool) -> int:
    """Return the bytes copied.

    :param look: leave out blocks of zeros
    """
    data = os.pread(source, length, start)
    if not data:
        raise ObjectChanged
    if not look:
        return os.pwrite(target, data, start)
    for position in range(0, len(data), _HOLE):
        block = data[position : position + _HOLE]
        if block != _ZEROS[: len(block)]:
            syscalls.write_all(target, block, start + position)
    return len(data)
