"""Staged files: where an upload collects its bytes, and what is left of an upload that died.

An upload holds an exclusive flock(2) lock on its staged file as long as it runs.  The system
releases the lock when the process ends in any way.  So a leftover is a staged file on which a
shared lock can be acquired.  Process ids would prove nothing across hosts or containers.

A sweep never removes a running upload's file:

* Once the upload has its lock, a sweep is refused the shared lock and does not touch the file.
* After the file is created and before it is locked, a sweep may get its shared lock.  Then the
  upload is refused the exclusive lock, or gets it on a file whose name the sweep has removed.  The
  upload checks for both, abandons that file and starts again.  Nothing is lost, since nothing was
  written.
* The upload starts again under a new random name, never the same one, since the sweep may still
  be about to remove the first name.  A removed name is never used again, so that sweeps need no
  lock against each other.
* A sweep checks that the name is still that of the file it has locked.  So it does not remove the
  object of an upload that has published by renaming in between.  With publishing by link, a crash
  between ``link`` and ``unlink`` leaves the staged name on a finished object; removing that name
  keeps the object.

A sweep uses a shared lock, as on NFS an exclusive lock requires write permission.  Continuing an
upload whose process has died needs the exclusive lock, as beginning one does.  If the file system
has no locks, a sweep goes by age alone, and leaves a file that was written since it was listed.
"""

import contextlib
import dataclasses
import fcntl
import functools
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from store_lib.display import get_logger
from store_lib.driver import Incomplete, Repeater, do_nothing
from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.errors import Action, translated
from store_lib.drivers.filesystem.location import (
    NAME_MAX,
    id_problem,
    is_leftover,
    is_staged,
    staged_name,
    staged_object_id,
)
from store_lib.drivers.filesystem.syscalls import Descriptor, opened
from store_lib.exceptions import BackendException, ErrorStatus, InUseByStore, Invalid, not_found

LOG = get_logger(__name__)

_CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
#: With O_NONBLOCK, opening a pipe that has the name of a staged file does not wait.
_REOPEN = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_INSPECT = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_ATTEMPTS = 20
_NONCE = re.compile(r"[0-9a-f]{32}")
_LARGEST_FILE = 2**63 - 1
#: Number of files that are inspected in one call; a call is given up or repeated as a whole.
_PAGE = 100


@dataclasses.dataclass(frozen=True, slots=True)
class UploadState:
    """What another process needs to continue an upload; see :meth:`FileWriter.state`."""

    object_id: str
    nonce: str
    #: Path of the data directory.
    directory: str
    #: Name of the staged file in the directory.
    name: str
    #: Number of bytes from the start that are kept.
    written: int

    @classmethod
    def parse(cls, state: Mapping[str, Any]) -> Self:
        """Check and return a state, which may come from an untrusted source.

        The name must be that of a staged file, so it cannot lead out of the directory.  The caller
        checks that the directory is the store's.

        :raises Invalid: the state is malformed
        """
        fields = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(state, Mapping) or set(state) != set(fields):
            raise invalid_state(f"its keys are not {', '.join(fields)}")
        for field in fields[:-1]:
            if not isinstance(state[field], str):
                raise invalid_state(f"{field} is no string")
        written = state["written"]
        if type(written) is not int or not 0 <= written <= _LARGEST_FILE:
            raise invalid_state("written is no number of bytes")
        if not _NONCE.fullmatch(state["nonce"]):
            raise invalid_state("nonce is not 32 hexadecimal digits")
        if id_problem(state["object_id"]) or not is_staged(state["name"], state["object_id"]):
            raise invalid_state("name is not that of an upload of the object")
        return cls(**state)


def invalid_state(reason: str) -> Invalid:
    """Return the error for a state that no upload to the store has returned."""
    return Invalid(
        f"Expected the state of an upload to this store, got one that cannot be: {reason}. Add the "
        "object again from its start."
    )


class WrittenBytes:
    """The number of bytes that an upload has written without a gap.

    Several threads may use it without a lock: only the thread that removes the entry at
    :attr:`end` changes :attr:`end`.
    """

    __slots__ = ("_beyond", "end")

    def __init__(self, end: int = 0) -> None:
        self.end = end
        #: Ends of the ranges that were written beyond a gap, by their starts.
        self._beyond: dict[int, int] = {}

    def add(self, offset: int, length: int) -> None:
        """Record a write."""
        self._beyond[offset] = offset + length
        while (end := self._beyond.pop(self.end, 0)) > self.end:
            self.end = end


def stage(
    directory: str, object_id: str, nonce: str, name_max: int = NAME_MAX
) -> tuple[Descriptor, str]:
    """Create and lock a staged file; return its descriptor and path.

    The file's mode is 0600, so that no other user can open it and keep a descriptor of the later
    object.

    :raises OSError: the file cannot be created; nothing is left
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            nonce = secrets.token_hex(16)
        path = f"{directory}/{staged_name(object_id, nonce, name_max)}"
        file = Descriptor()
        try:
            file.open(path, _CREATE)
            if _lock(file, path):
                return file, path
            try_remove(path)
        except FileExistsError:
            continue
        except BaseException:
            # This call has created the file, even if an interrupt has lost the descriptor.
            try_remove(path)
            file.close()
            raise
        file.close()
    raise BackendException(
        f"Cannot lock a new file in {directory}: something locks every one first. Find what does "
        "(a backup, a scanner, a sweep that never ends) and keep it out of the directory.",
        status=ErrorStatus.TEMPORARY,
    )


def _lock(file: Descriptor, path: str) -> bool:
    """Lock a new staged file; return false if a sweep has locked or removed it."""
    with file as fd:
        if syscalls.lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is False:
            return False
        # The link count would not show a removal: the NFS client keeps an open file that a sweep on
        # this host has removed, under another name.
        return syscalls.same_file(path, os.fstat(fd))


def reopen(path: str) -> Descriptor:
    """Open and lock the staged file of an upload whose process has ended.

    :raises NotFound: the file no longer exists
    :raises InUseByStore: an upload or a sweep has locked the file (temporary), the file has a
        second name, or files cannot be locked there
    """
    file = Descriptor()
    try:
        with translated(Action.READ, path):
            file.open(path, _REOPEN)
            with file as fd:
                locked = syscalls.lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode) or not syscalls.same_file(path, status):
                    raise not_found(path)
        if not locked:
            raise InUseByStore(
                f"Expected {path} to be left by an upload that has ended, but it is locked, or "
                "cannot be: its upload may still be running. Wait for its end.",
                status=ErrorStatus.TEMPORARY if locked is False else None,
            )
        if status.st_nlink > 1:
            raise InUseByStore(
                f"Expected {path} to be an unfinished upload, but the file has another name as "
                "well, under which it may be an object. Sweep the store."
            )
        return file
    except BaseException:
        file.close()
        raise


def clock(directory: str) -> float:
    """Return the time by the file system's clock, which may be a server's.

    :raises OSError: no file can be created there
    """
    file, path = stage(directory, "clock", secrets.token_hex(16))
    try:
        with file as fd:
            os.write(fd, b"x")  # some clients get the server's time only after a write
            syscalls.fsync(fd)
            return os.fstat(fd).st_mtime
    finally:
        file.close()
        try_remove(path)


def usual_mode(directory: str) -> int:
    """Return the permissions of a new file in a directory, by umask, default ACL or mount options.

    :raises OSError: no file can be created there
    """
    path = f"{directory}/{staged_name('mode', secrets.token_hex(16))}"
    fd = os.open(path, _CREATE, 0o666)
    try:
        return stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
        try_remove(path)


def try_remove(path: str) -> None:
    """Remove a private file, or leave it to a sweep if that fails."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def leftovers(directory: str, retry: Repeater) -> Iterator[Incomplete]:
    """Yield the private files of running and dead uploads in ``directory``.

    :param retry: makes the calls to the file system, and repeats them
    :raises StoreError: the directory cannot be read
    """
    paths = retry(functools.partial(_paths, directory))
    now = retry(functools.partial(_now, directory)) if paths else None
    for start in range(0, len(paths), _PAGE):
        yield from retry(functools.partial(_inspect, paths[start : start + _PAGE], now))


def _paths(directory: str) -> list[str]:
    with translated(Action.LIST, directory), os.scandir(directory) as entries:
        return [entry.path for entry in entries if is_leftover(entry.name)]


def _now(directory: str) -> float | None:
    """Return the time by the file system's clock, or ``None`` if no file can be created there."""
    try:
        return clock(directory)
    except OSError as error:
        LOG.debug("Ages in %s go by this machine's clock: %s", directory, error)
        return None


def _inspect(paths: Sequence[str], now: float | None) -> list[Incomplete]:
    uploads = []
    for path in paths:
        with translated(Action.LIST, path):
            try:
                status = os.stat(path, follow_symlinks=False)
                live = stat.S_ISREG(status.st_mode) and _is_locked(path)
            except FileNotFoundError:
                continue  # it has just been published or removed
        if stat.S_ISREG(status.st_mode):
            upload = Incomplete(
                key=path,
                object_id=staged_object_id(path.rpartition("/")[2]),
                size=status.st_blocks * 512,
                modified=status.st_mtime,
                live=live,
                now=now,
            )
            uploads.append(upload)
    return uploads


def _is_locked(path: str) -> bool:
    """Return whether an upload has locked the file; ``False`` if unknown."""
    try:
        with opened(path, _INSPECT) as fd:
            return syscalls.lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB) is False
    except PermissionError:
        return False


def discard(path: str, modified: float, checkpoint: Callable[[], None] = do_nothing) -> bool:
    """Remove a leftover, unless its upload is running; return whether it was removed.

    :param modified: the file's modification time in the listing
    :param checkpoint: called before the file is removed
    :raises StoreError: the file may not be opened or removed
    """
    with (
        translated(Action.DELETE, path),
        contextlib.suppress(FileNotFoundError),
        opened(path, _INSPECT) as fd,
    ):
        if syscalls.lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB) is False:
            return False
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mtime > modified:
            return False
        if not syscalls.same_file(path, status):
            return False
        checkpoint()
        os.unlink(path)
        return True
    return False
