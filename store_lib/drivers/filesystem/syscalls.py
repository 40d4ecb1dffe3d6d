"""The client of this backend: the system calls on files, and the descriptors they work on.

Its server is the kernel, hence the name.  The functions are calls that Python does not offer, or
not in the form needed here.  Each one does its work, raises ``OSError``, or returns a value that
says that the file system cannot do it.  None falls back to doing something else.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from store_lib.display import get_logger
from store_lib.exceptions import StoreClosed

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

#: What calls that a file system or kernel does not know answer with.
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_UNLOCKABLE = UNSUPPORTED | {errno.ENOLCK, errno.EBADF}
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


class Descriptor:
    """An open file, closed once nobody uses it any more.

    A call that hangs on a dead mount is given up by the engine, which then closes the file.
    Were the number free at once, the next file opened anywhere in the process could get it, and
    the rest of the given-up call would go to that file.  So the last user closes.

    ``with descriptor as fd`` uses it; before it is open and after :meth:`close` that raises
    ``StoreClosed``.

    It is made before the file is opened, so that an interrupt (an exception from a signal's
    handler) finds it and no bare number is lost.  After a fork the child closes its copies: a
    lock would otherwise outlive the parent.

    :param fd: a descriptor that is open already; -1 for none yet
    """

    __slots__ = ("__weakref__", "_closing", "_open", "_users")

    def __init__(self, fd: int = -1) -> None:
        #: The number, in a list: it is taken out and closed on one line, so that an interrupt
        #: neither loses it nor lets it be closed twice.
        self._open = [fd] if fd >= 0 else []
        #: An entry for each user.  There is no lock, since every piece that is read or written
        #: would take it twice: who comes enters itself before it looks whether the file is
        #: closed, and who closes says so before it looks whether there are users.
        self._users: list[None] = []
        self._closing = False
        _ALL[id(self)] = weakref.ref(self)

    def open(self, path: str, flags: int, *, directory: int | None = None) -> None:
        """Open a file, or make one that only this user may open; once.

        :param directory: descriptor of the directory that a relative ``path`` starts from
        :raises OSError: it cannot be opened
        """
        self._open.append(os.open(path, flags, 0o600, dir_fd=directory))

    def __enter__(self) -> int:
        self._users.append(None)
        try:
            if not self._closing:
                return self._open[0]
        except IndexError:  # not opened yet
            pass
        self._leave()
        raise StoreClosed(
            "The file is closed: its upload or download has ended, or was begun by the "
            "parent of this process."
        )

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        """Use it no longer, and close it if that is left to the last user."""
        if self._users:  # else this is a child, made by one of them
            self._users.pop()
        if self._closing and not self._users:
            self._close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing

    def close(self) -> None:
        """Close now, or when the last call at work on it has returned.  Idempotent."""
        self._closing = True
        if not self._users:
            self._close()

    def _close(self) -> None:
        try:
            if self._open:
                os.close(self._open.pop())
        except IndexError:
            pass  # another thread was quicker
        except OSError as error:
            # No harm: a writer asks for errors held back until close before it publishes.
            LOG.debug("Closing a file: %s", error)

    def __del__(self) -> None:
        # Whatever happened to close(): nobody can use it any more.
        _ALL.pop(id(self), None)
        if getattr(self, "_open", None):
            self._closing = True
            self._close()

    def _after_fork(self) -> None:
        """In the child: close its copy, whoever of the parent was using the file."""
        self._users.clear()
        self._closing = True
        self._close()


def closed() -> Descriptor:
    """Return one that is closed already."""
    file = Descriptor()
    file.close()
    return file


@contextlib.contextmanager
def opened(path: str, flags: int, *, directory: int | None = None) -> Iterator[int]:
    """Open a file for the length of a block.

    :param directory: descriptor of the directory that a relative ``path`` starts from
    :raises OSError: it cannot be opened
    """
    file = Descriptor()
    try:
        file.open(path, flags, directory=directory)
        with file as fd:
            yield fd
    finally:
        file.close()


#: By id.  Not a WeakSet: its Python code would run twice for each small object.
_ALL: dict[int, weakref.ref[Descriptor]] = {}


def _after_fork() -> None:
    for each in list(_ALL.values()):
        if (file := each()) is not None:
            file._after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _absent(*arguments: Any) -> int:
    """Stand in for a function that this C library does not have."""
    ctypes.set_errno(errno.ENOSYS)
    return -1


def _load(*names: str, arguments: tuple[Any, ...]) -> Callable[..., int]:
    """Return the first of the C library's functions that it has."""
    library = ctypes.CDLL(None, use_errno=True)
    for name in names:
        with contextlib.suppress(AttributeError):
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int
            found: Callable[..., int] = function
            return found
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
    """Rename, but never over something that is there: then ``FileExistsError``."""
    if _renameat2(
        _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


def preallocate(fd: int, size: int) -> bool:
    """Reserve the blocks of the first ``size`` bytes, which also become the file's size.

    Returns whether the file system can.  Never ``posix_fallocate``: where the file system
    cannot, the C library emulates it by writing every block.
    """
    while _fallocate(fd, 0, 0, size):
        number = ctypes.get_errno()
        if number in UNSUPPORTED:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def _type_of(path: str) -> int | None:
    """Return the magic number of the file system at ``path``, where that can be told."""
    # struct statfs begins with the type; the rest is of no interest, and shorter than this.
    answer = (ctypes.c_long * 64)()
    if _statfs(os.fsencode(path), ctypes.addressof(answer)):
        return None
    return int(answer[0])


def in_memory(path: str) -> bool:
    """Whether the files there lie in memory (tmpfs, ramfs), with no blocks to lay out."""
    return _type_of(path) in _MEMORY


def tells_late(path: str) -> bool:
    """Whether the file system there may hold back a write's error until the file is closed.

    Network file systems may; those of a local disk or of memory do not.
    """
    return _type_of(path) not in _LOCAL


def write_all(fd: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``, in as many calls as the system needs."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        more = os.pwrite(fd, memoryview(data)[written:], offset + written)
        if not more:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        written += more


def start_writeback(fd: int) -> None:
    """Ask for what has been written so far to go to the disk, and do not wait.

    A hint for the sake of speed; that it fails means nothing.
    """
    _sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


def pace_writeback(fd: int, start: int, end: int) -> None:
    """After a write from ``start`` to ``end``: set the disk to work at every 8 MiB.

    So it is not idle while the rest is read and hashed, and the final fsync finds little to do.
    """
    if end >> _PACE_SHIFT != start >> _PACE_SHIFT:
        start_writeback(fd)


def fsync(fd: int) -> None:
    """Wait until the file or directory is on the disk, where its file system has such a thing."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def fsync_directory(path: str) -> None:
    """Wait until the names in a directory are on the disk."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as fd:
        fsync(fd)


def clone(source: int, target: int) -> bool:
    """Let a file share another's blocks until one of them changes; return whether it could."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False
    return True


def lock(fd: int, how: int) -> bool | None:
    """Take a flock(2) lock: ``True`` taken, ``False`` someone holds one, ``None`` not to be had.

    :param how: ``fcntl.LOCK_EX`` or ``LOCK_SH``, with ``LOCK_NB`` so as not to wait
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
    """Whether ``path`` names the very file that ``opened`` is the status of."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return named.st_ino == opened.st_ino and named.st_dev == opened.st_dev


def unchanged(before: os.stat_result, now: os.stat_result) -> bool:
    """Whether nothing was written to a file meanwhile, as far as its size and time tell.

    Not the time of the last change of status: a link, a delete or new permissions change that.
    """
    return before.st_size == now.st_size and before.st_mtime_ns == now.st_mtime_ns
