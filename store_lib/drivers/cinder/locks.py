"""Locks among the processes of this host, which end with the process that holds them."""

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator

from store_lib.clients.polling import poll
from store_lib.drivers.cinder.volume import NONCE_PATTERN
from store_lib.exceptions import BackendException, TimeoutError

#: Seconds to wait for a lock: longer than attaching or detaching may rightly take.
LOCK_TIMEOUT = 600
#: Seconds between two attempts to take a lock: first, and at most.
_FIRST_INTERVAL, _LONGEST_INTERVAL = 0.005, 0.05

#: Not through a symbolic link, which others may have put there, nor waiting at a pipe.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_PREFIX = "store_lib-cinder-"

#: Descriptors of the locks that this process holds, which a child must not keep locked.
_held: set[int] = set()


def _forked() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forked)


class HostLocks:
    """The locks of this host's volumes, attachments, uploads and shares.

    :param directory: the same for all processes of the host
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def volume(self, volume_id: str) -> "LockFile":
        """Return the lock that is held while a volume is attached or detached here."""
        return self._lock(f"volume-{volume_id}")

    def attachment(self, attachment_id: str) -> "LockFile":
        """Return the lock that a process holds as long as it uses an attachment."""
        return self._lock(f"attachment-{attachment_id}")

    def upload(self, nonce: str) -> "LockFile":
        """Return the lock that a process holds as long as its upload lasts."""
        return self._lock(f"upload-{nonce if NONCE_PATTERN.fullmatch(nonce) else 'unknown'}")

    def share(self, export: str) -> "LockFile":
        """Return the lock that is held while an NFS share is mounted or unmounted."""
        return self._lock(f"share-{hashlib.sha256(export.encode()).hexdigest()[:32]}")

    def _lock(self, name: str) -> "LockFile":
        return LockFile(self._directory, name)

    def remove_dead(self) -> None:
        """Remove the files of locks that processes held when they were killed."""
        for name in os.listdir(self._directory):
            if name.startswith(_PREFIX):
                # One of another user's is left for that user.
                with contextlib.suppress(OSError, BackendException):
                    self._lock(name.removeprefix(_PREFIX)).is_held()


class LockFile:
    """A lock among the processes of a host, which ends with the process that holds it.

    :param directory: the same for all processes
    :param name: must be a valid file name
    """

    def __init__(self, directory: str, name: str) -> None:
        self._path = os.path.join(directory, _PREFIX + name)
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free; return whether it was.

        :raises BackendException: the lock's file cannot be opened
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
            os.close(descriptor)  # its holder has removed the file meanwhile

    def _open(self) -> int:
        try:
            return os.open(self._path, _FLAGS, 0o600)
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

    def acquire(self) -> None:
        """Acquire the lock as soon as it is free.

        :raises TimeoutError: another process has held it too long
        """
        acquired = poll(
            lambda: self.try_acquire() or None,
            LOCK_TIMEOUT,
            interval=_FIRST_INTERVAL,
            longest=_LONGEST_INTERVAL,
        )
        if acquired is None:
            raise TimeoutError(
                f"Another process on this host has held {self._path} for {LOCK_TIMEOUT} s. Find "
                "out (fuser) which one hangs, and end it."
            )

    def release(self) -> None:
        """Remove and unlock the lock's file, except in a child that inherited it.  Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or descriptor not in _held:
            return
        _held.discard(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        # Closing is not enough: a child that is being forked has the descriptor too.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def is_held(self) -> bool:
        """Return whether a living process holds the lock."""
        if not os.path.lexists(self._path):
            return False
        if not self.try_acquire():
            return True
        self.release()
        return False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock in a ``with`` block.

        :raises TimeoutError: another process has held it too long
        """
        self.acquire()
        try:
            yield
        finally:
            self.release()
