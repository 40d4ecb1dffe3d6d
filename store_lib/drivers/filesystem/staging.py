"""Staged files: where an upload collects its bytes, how it shows that it lives, what a crash left.

An upload holds an exclusive flock(2) lock on its staged file for as long as it lives; the system
drops the lock with the process, however that ends.  So a leftover is a staged file on which a
shared lock can be had.  Process ids would tell nothing across hosts or containers.

How a sweep can never take a live upload's file:

* From the moment the lock is held, a sweep is refused the shared lock and does not touch the
  file.
* Between making the file and locking it, a sweep may get its shared lock first.  Then the
  upload is either refused the exclusive one, or gets it on a file whose name the sweep has
  removed meanwhile; it looks for both, leaves that file and begins again, with nothing lost
  since nothing was written.
* The upload begins again under a fresh random name and never under the same, since the sweep may
  still be about to remove the first name.  For the same reason a sweep needs no lock against
  other sweeps: a name once gone is never used again.
* A sweep looks whether the name still is the file it has locked, so an upload that published by
  renaming in between is not taken for its leftover.  Where publishing is by link, a crash
  between ``link`` and ``unlink`` leaves the staged name on a finished object; removing it leaves
  the object.

A shared lock is enough for a sweep, and it needs no permission to write, which NFS asks for an
exclusive one.  Where the file system has no locks, age alone decides, and a file that was written
since it was listed is left alone.
"""

import contextlib
import fcntl
import functools
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence

from store_lib.display import get_logger
from store_lib.driver import Incomplete, Repeater, do_nothing
from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.errors import Action, translate
from store_lib.drivers.filesystem.location import (
    NAME_MAX,
    is_leftover,
    staged_name,
    staged_object_id,
)
from store_lib.drivers.filesystem.syscalls import Descriptor, opened
from store_lib.exceptions import BackendException, ErrorStatus

LOG = get_logger(__name__)

_CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
#: Not to wait at a pipe that somebody named like a staged file.
_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_ATTEMPTS = 20
#: Files that are looked at in one call, which is given up or repeated as a whole.
_PAGE = 100


def stage(
    directory: str, object_id: str, nonce: str, name_max: int = NAME_MAX
) -> tuple[Descriptor, str]:
    """Make and lock a staged file, and return its descriptor and path.

    Nobody else may open it: whoever could would keep a descriptor of the object to be.
    :raises OSError: it cannot be made; nothing is left
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
            _remove(path)
        except FileExistsError:
            continue
        except BaseException:
            # The name is ours even where the interrupt came before the descriptor was kept.
            _remove(path)
            file.close()
            raise
        file.close()
    raise BackendException(
        f"Cannot lock a new file in {directory}: something locks each one first. Find what does "
        "(a backup, a scanner, a sweep that never ends) and keep it out of the directory.",
        status=ErrorStatus.TEMPORARY,
    )


def _lock(file: Descriptor, path: str) -> bool:
    """Lock a new staged file; return whether that was possible and it still has its name."""
    with file as fd:
        if syscalls.lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is False:
            return False
        # Not by the number of links: an NFS client keeps a file that a sweep here removed.
        return syscalls.same_file(path, os.fstat(fd))


def clock(directory: str) -> float:
    """Return the time by the clock of the file system, which may be a server's.

    :raises OSError: no file can be made there
    """
    file, path = stage(directory, "clock", secrets.token_hex(16))
    try:
        with file as fd:
            os.write(fd, b"x")  # some clients ask the server for the time only then
            syscalls.fsync(fd)
            return os.fstat(fd).st_mtime
    finally:
        file.close()
        _remove(path)


def usual_mode(directory: str) -> int:
    """Return the permissions that a new file gets there by itself: by umask, list or mount.

    :raises OSError: no file can be made there
    """
    path = f"{directory}/{staged_name('mode', secrets.token_hex(16))}"
    fd = os.open(path, _CREATE, 0o666)
    try:
        return stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
        _remove(path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # a sweep removes it one day
        os.unlink(path)


def leftovers(directory: str, retry: Repeater) -> Iterator[Incomplete]:
    """Yield what uploads at work or long dead have in ``directory``.

    :param retry: makes each call to the file system, and repeats it
    :raises StoreError: the directory cannot be read
    """
    found = retry(functools.partial(_paths, directory))
    now = retry(functools.partial(_now, directory)) if found else None
    for start in range(0, len(found), _PAGE):
        yield from retry(functools.partial(_look_at, found[start : start + _PAGE], now))


def _paths(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if is_leftover(entry.name)]
    except OSError as error:
        raise translate(error, Action.SURVEY, directory) from error


def _now(directory: str) -> float | None:
    """Return the time by the file system's clock, ``None`` where no file can be made there."""
    try:
        return clock(directory)
    except OSError as error:
        LOG.debug("Ages in %s go by this machine's clock: %s", directory, error)
        return None


def _look_at(paths: Sequence[str], now: float | None) -> list[Incomplete]:
    seen = []
    for path in paths:
        try:
            status = os.stat(path, follow_symlinks=False)
            live = stat.S_ISREG(status.st_mode) and _is_locked(path)
        except FileNotFoundError:
            continue  # it was published or given up just now
        except OSError as error:
            raise translate(error, Action.SURVEY, path) from error
        if stat.S_ISREG(status.st_mode):
            found = Incomplete(
                key=path,
                object_id=staged_object_id(path.rpartition("/")[2]),
                size=status.st_blocks * 512,
                modified=status.st_mtime,
                live=live,
                now=now,
            )
            seen.append(found)
    return seen


def _is_locked(path: str) -> bool:
    """Whether an upload holds its lock on the file; ``False`` where that cannot be told."""
    try:
        with opened(path, _LOOK) as fd:
            return syscalls.lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB) is False
    except PermissionError:
        return False


def discard(path: str, modified: float, checkpoint: Callable[[], None] = do_nothing) -> bool:
    """Remove a leftover, unless an upload is at work on it; return whether it was removed.

    :param modified: when it was last changed, as it was listed
    :param checkpoint: called before it is removed
    :raises StoreError: it may not be opened or removed
    """
    try:
        with opened(path, _LOOK) as fd:
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
    except FileNotFoundError:
        return False
    except OSError as error:
        raise translate(error, Action.DELETE, path) from error
