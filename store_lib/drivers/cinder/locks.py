"""Lock files that processes of a host share: held by whoever lives, and gone when nobody does."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from store_lib.drivers.cinder.waiting import wait_for
from store_lib.exceptions import BackendException, TimeoutError

#: Seconds to wait for a lock: longer than anybody's attaching or detaching may rightly take.
LIMIT = 600
#: Seconds between looks at a lock: first, and at most.
_FIRST, _MOST = 0.005, 0.05

#: Not through a symbolic link, which others may have put there, nor waiting at a pipe.
_FILE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_PREFIX = "store_lib-cinder-"

#: Descriptors of locks that this process holds, which a child must not keep alive.
_held: set[int] = set()


def _forked() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forked)


class LockFile:
    """A file that is locked while somebody works on a thing.

    :param directory: where all processes of the host look
    :param name: the thing's, fit for a file name
    """

    def __init__(self, directory: str, name: str) -> None:
        self._path = os.path.join(directory, _PREFIX + name)
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Lock it, unless somebody has it; say whether that was done.

        :raises BackendException: its file cannot be opened
        """
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = self._is_current(descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
            if current:
                self._descriptor = descriptor
                _held.add(descriptor)
                return True
            os.close(descriptor)  # whoever had it has removed it meanwhile

    def _open(self) -> int:
        try:
            return os.open(self._path, _FILE, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise BackendException(
                    f"Expected a file for the lock {self._path}, got a symbolic link, which is not "
                    "followed. See who may write in lock_path of [oslo_concurrency], and remove it."
                ) from error
            raise BackendException(
                f"The lock {self._path} cannot be opened: {error.strerror}. Check lock_path in "
                "[oslo_concurrency], and that the file is not a leftover of another user's."
            ) from error

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove and unlock it; a child that inherited it leaves it alone.  Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or descriptor not in _held:
            return
        _held.discard(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        # Not only closed: a child just being forked has the descriptor too.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def is_held(self) -> bool:
        """Tell whether a living process holds it."""
        if not os.path.lexists(self._path):
            return False
        if not self.take():
            return True
        self.release()
        return False

    def wait(self) -> None:
        """Lock it as soon as nobody has it.

        :raises TimeoutError: others hold it for very long
        """
        if wait_for(lambda: self.take() or None, LIMIT, _FIRST, _MOST) is None:
            raise TimeoutError(
                f"Another process on this host has held {self._path} for {LIMIT} s. Find out "
                "(fuser) which one hangs, and end it."
            )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for a block.

        :raises TimeoutError: others hold it for very long
        """
        self.wait()
        try:
            yield
        finally:
            self.release()


def remove_dead(directory: str) -> None:
    """Remove the files of locks that processes held when they were killed."""
    for name in os.listdir(directory):
        if name.startswith(_PREFIX):
            with contextlib.suppress(OSError, BackendException):  # another user's, who removes it
                LockFile(directory, name.removeprefix(_PREFIX)).is_held()
