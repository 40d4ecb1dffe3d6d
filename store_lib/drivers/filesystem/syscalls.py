"""The client of this backend, whose server is the kernel: system calls and file descriptors.

The functions are system calls that Python does not offer, or not in the form needed here.  Each one
does its work, raises ``OSError``, or returns a value for "not supported by the file system".  Only
:func:`copy_contents` uses another way in that case.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Any

from store_lib.clients.process import DeferredClose, LiveObjects
from store_lib.display import get_logger
from store_lib.driver import do_nothing
from store_lib.exceptions import ObjectChanged, StoreClosed

LOG = get_logger(__name__)

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2
_FICLONE = 0x40049409
_PACE_SHIFT = 23
#: statfs(2): TMPFS_MAGIC, RAMFS_MAGIC.
_MEMORY = frozenset({0x01021994, 0x858458F6})
#: ext2 to ext4, XFS, Btrfs, F2FS; statfs(2).
_LOCAL = _MEMORY | {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010}

#: Errors of calls that the file system or the kernel does not implement.
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_UNLOCKABLE = UNSUPPORTED | {errno.ENOLCK, errno.EBADF}
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
#: Bytes that the kernel copies in one call: many, but few enough to stay interruptible.
_KERNEL_PIECE = 64 * 1024 * 1024
#: Bytes that are copied at a time by reading and writing.
_PIECE = 1024 * 1024
#: Size of the blocks of zeros that become holes when a file is copied by reading.
_BLOCK = 64 * 1024
_ZEROS = bytes(_BLOCK)
#: Errors of copy_file_range if it cannot copy between these two files.
_NOT_BETWEEN = UNSUPPORTED | {errno.EXDEV, errno.EBADF, errno.EPERM, errno.EACCES}


class Descriptor(DeferredClose):
    """A file descriptor that is closed by its last user.

    The engine abandons a call that hangs on a dead mount, and then closes the file.  If the number
    were free at once, the next file opened in the process could get it, and the rest of the
    abandoned call would act on that file.

    ``with descriptor as fd`` gives the number to a user.  Before :meth:`open` and after
    :meth:`close` this raises ``StoreClosed``.

    The object is created before the file is opened, so that an interrupt (an exception from a
    signal handler) cannot lose a bare number.  A forked child closes its copy, as otherwise a lock
    would outlive the parent.

    :param fd: a descriptor that is already open; -1 for none
    """

    __slots__ = ("_number",)

    def __init__(self, fd: int = -1) -> None:
        #: A list with the number.  It is removed and closed on one line, so that after an interrupt
        #: it is neither lost nor closed twice.
        self._number = [fd] if fd >= 0 else []
        super().__init__()
        _ALL.add(self)

    def open(self, path: str, flags: int, *, directory: int | None = None) -> None:
        """Open a file, or create one with mode 0600.  May be called only once.

        :param directory: descriptor of the directory to which ``path`` is relative
        :raises OSError: the file cannot be opened
        """
        self._number.append(os.open(path, flags, 0o600, dir_fd=directory))

    # enter() and leave() are inlined, since every read and write makes these calls.

    def __enter__(self) -> int:
        self._users.append(None)
        try:
            if not self.closing:
                return self._number[0]
        except IndexError:  # not opened yet
            pass
        self.leave()
        raise StoreClosed(
            "The file is closed: its upload or download has ended, or was begun by the "
            "parent of this process."
        )

    def __exit__(self, *_: object) -> None:
        if self._users:
            self._users.pop()
        if self.closing and not self._users:
            self._close_once()

    def _close_once(self) -> None:
        try:
            if self._number:
                os.close(self._number.pop())
        except IndexError:
            pass  # closed by another thread
        except OSError as error:
            # An error here is harmless, as a writer checks for deferred errors before it publishes.
            LOG.debug("Closing a file: %s", error)

    def __del__(self) -> None:
        # Close the file even without close(), as it can have no user any more.
        if getattr(self, "_number", None):  # an interrupt may have ended __init__
            self._close_once()

    def _after_fork(self) -> None:
        """Close the child's copy, even if the parent was using the file."""
        self.forget()
        self._close_once()


_ALL: LiveObjects[Descriptor] = LiveObjects(in_child=lambda file: file._after_fork())


def closed() -> Descriptor:
    """Return a closed descriptor."""
    file = Descriptor()
    file.close()
    return file


@contextlib.contextmanager
def opened(path: str, flags: int, *, directory: int | None = None) -> Iterator[int]:
    """Open a file for a ``with`` block.

    :param directory: descriptor of the directory to which ``path`` is relative
    :raises OSError: it cannot be opened
    """
    file = Descriptor()
    try:
        file.open(path, flags, directory=directory)
        with file as fd:
            yield fd
    finally:
        file.close()


def _absent(*arguments: Any) -> int:
    """Fail as unsupported, in place of a function that the C library lacks."""
    ctypes.set_errno(errno.ENOSYS)
    return -1


def _load(*names: str, arguments: tuple[Any, ...]) -> Callable[..., int]:
    """Return the first of these functions that the C library has."""
    library = ctypes.CDLL(None, use_errno=True)
    for name in names:
        with contextlib.suppress(AttributeError):
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int
            loaded: Callable[..., int] = function
            return loaded
    return _absent


_renameat2 = _load(
    "renameat2",
    arguments=(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint),
)
_fallocate = _load(
    "fallocate64",
    "fallocate",
    arguments=(ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64),
)
_statfs = _load("statfs64", "statfs", arguments=(ctypes.c_char_p, ctypes.c_void_p))
_sync_file_range = _load(
    "sync_file_range",
    arguments=(ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint),
)


def rename_noreplace(source: str, target: str) -> None:
    """Rename a file, but raise ``FileExistsError`` if the target exists."""
    if _renameat2(
        _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


def preallocate(fd: int, size: int) -> bool:
    """Reserve blocks for ``size`` bytes, which also becomes the file's size.

    Return whether the file system supports this.  ``posix_fallocate`` is not used, as the C library
    may emulate it by writing every block.
    """
    while _fallocate(fd, 0, 0, size):
        number = ctypes.get_errno()
        if number in UNSUPPORTED:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def _type_of(path: str) -> int | None:
    """Return the magic number of the file system at ``path``, or ``None`` if unknown."""
    # struct statfs begins with the type.  The buffer is longer than the whole structure.
    answer = (ctypes.c_long * 64)()
    if _statfs(os.fsencode(path), ctypes.addressof(answer)):
        return None
    return int(answer[0])


def in_memory(path: str) -> bool:
    """Return whether files there are kept in memory (tmpfs, ramfs), without blocks to allocate."""
    return _type_of(path) in _MEMORY


def reports_errors_on_close(path: str) -> bool:
    """Return whether the file system there may report a failed write only when the file is closed.

    Network file systems may.  Those of a local disk or of memory do not.
    """
    return _type_of(path) not in _LOCAL


def write_all(fd: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``, in as many calls as it takes."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        more = os.pwrite(fd, memoryview(data)[written:], offset + written)
        if not more:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        written += more


def start_writeback(fd: int) -> None:
    """Start to write dirty pages to the disk, without waiting.

    This is only for speed, so errors are ignored.
    """
    _sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


def pace_writeback(fd: int, start: int, end: int) -> None:
    """Start writeback if a write from ``start`` to ``end`` has crossed a multiple of 8 MiB.

    The disk is then busy while the rest is read and hashed, and the final fsync has little to do.
    """
    if end >> _PACE_SHIFT != start >> _PACE_SHIFT:
        start_writeback(fd)


def fsync(fd: int) -> None:
    """Wait until a file or directory is on the disk, if its file system supports that."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def fsync_directory(path: str) -> None:
    """Wait until the entries of a directory are on the disk."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as fd:
        fsync(fd)


def clone(source: int, target: int) -> bool:
    """Make a file share another one's blocks (a reflink); return whether that is possible."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False
    return True


def lock(fd: int, how: int) -> bool | None:
    """Acquire a flock(2) lock.

    :param how: ``fcntl.LOCK_EX`` or ``LOCK_SH``, with ``LOCK_NB`` in order not to wait
    :returns: ``True`` if acquired, ``False`` if it is held elsewhere, ``None`` if files cannot be
        locked here
    """
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNLOCKABLE:
            return None
        raise
    return True


def same_file(path: str, opened: os.stat_result) -> bool:
    """Return whether ``path`` is the file whose status is ``opened``."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return named.st_ino == opened.st_ino and named.st_dev == opened.st_dev


def unchanged(before: os.stat_result, now: os.stat_result) -> bool:
    """Return whether a file's size and modification time are the same in both.

    The time of the last status change does not count: a link, a removal or new permissions set it.
    """
    return before.st_size == now.st_size and before.st_mtime_ns == now.st_mtime_ns


def copy_contents(
    source: int,
    target: int,
    status: os.stat_result,
    *,
    durable: bool,
    step: Callable[[], None] = do_nothing,
) -> None:
    """Copy a file to an empty one in the fastest way, keeping its holes.

    :param status: the source's status when it was opened
    :param durable: whether to start writeback while copying
    :param step: called between the pieces
    :raises ObjectChanged: the source has changed
    :raises OSError: reading or writing failed
    """
    if not clone(source, target):
        os.ftruncate(target, status.st_size)
        _copy_data(source, target, status, durable, step)
    elif os.fstat(target).st_size != status.st_size:
        raise ObjectChanged
    if not unchanged(status, os.fstat(source)):
        raise ObjectChanged


def _copy_data(
    source: int, target: int, status: os.stat_result, durable: bool, step: Callable[[], None]
) -> None:
    find_holes = _hides_holes(source, status)
    in_kernel = not find_holes
    for start, end in _data(source, status.st_size):
        while start < end:
            if in_kernel:
                copied = _copy_in_kernel(source, target, start, min(end - start, _KERNEL_PIECE))
                in_kernel = copied > 0
            if not in_kernel:
                copied = _copy_piece(source, target, start, min(end - start, _PIECE), find_holes)
            if durable:
                pace_writeback(target, start, start + copied)
            start += copied
            step()


def _hides_holes(fd: int, status: os.stat_result) -> bool:
    """Return whether a file has holes that the file system does not report, as with FUSE.

    Such holes must be found by reading, as the kernel would copy them as zeros.
    """
    if not 0 <= status.st_blocks * 512 < status.st_size:
        return False
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) >= status.st_size
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return True


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each extent between the holes that the file system reports."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # only a hole is left
            if error.errno not in UNSUPPORTED:
                raise
            start, end = end, size
        if start < end:
            yield start, end


def _copy_in_kernel(source: int, target: int, start: int, length: int) -> int:
    """Copy in the kernel; return the number of bytes, or 0 if this is not possible."""
    try:
        return os.copy_file_range(source, target, length, start, start)
    except OSError as error:
        if error.errno not in _NOT_BETWEEN:
            raise
        return 0


def _copy_piece(source: int, target: int, start: int, length: int, skip_zeros: bool) -> int:
    """Copy by reading and writing; return the number of bytes.

    :param skip_zeros: leave holes for blocks of zeros
    """
    data = os.pread(source, length, start)
    if not data:
        raise ObjectChanged
    if not skip_zeros:
        return os.pwrite(target, data, start)
    for position in range(0, len(data), _BLOCK):
        block = data[position : position + _BLOCK]
        if block != _ZEROS[: len(block)]:
            write_all(target, block, start + position)
    return len(data)
