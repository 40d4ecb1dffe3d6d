"""Excluding other processes from publishing an id: by a lock file or a claim.

This is needed for a store with several data directories, since a file system makes names unique
within one directory only.  It is also needed if the file system has no operation that gives a name
to one file only.

A *lock file* is locked with flock(2).  The process that gets the lock checks that the file still
has its name: the previous holder, or a sweep, may have removed it.

A *claim* is used if files cannot be locked: a file that only one process can create (``O_EXCL``).
The claim of a dead process is recognised by its age.  It is not simply unlinked, since another
process may have replaced it by its own claim after the check.  Instead it is renamed to a private
name.  The renamed file shows whose claim it was; the claim of a live process is renamed back.  Just
before the holder of a claim publishes, it checks that it still holds the claim.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from store_lib.display import get_logger
from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.errors import OWN_LIMITS
from store_lib.drivers.filesystem.location import claim_name, lock_name, staged_name
from store_lib.drivers.filesystem.staging import clock
from store_lib.drivers.filesystem.syscalls import Descriptor, opened
from store_lib.exceptions import ErrorStatus, StoreClosed, being_added

LOG = get_logger(__name__)

#: Age in seconds at which a claim counts as that of a dead process.  Publishing takes milliseconds.
CLAIM_LIFE = 60.0
#: Content of a claim that is no longer needed; before, a claim is empty.
_DONE = b"done"

_LOCK_FILE = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_CLAIM_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_INSPECT = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextlib.contextmanager
def sole_publisher(
    directories: Iterable[str], object_id: str, needed: str | None = None
) -> Iterator[Callable[[], None]]:
    """Exclude other processes from publishing this id during a ``with`` block.

    The id is locked in every directory that can be written, in the order of their paths.  So two
    processes with different directories exclude each other if both can write one of them.

    Yields a function to call just before publishing.  It raises Duplicate if the exclusion has been
    lost.

    :param needed: the directory to publish in, if nothing else keeps names unique there
    :raises Duplicate: another process is publishing the id; temporary
    :raises OSError: the id cannot be locked in any directory, or not in ``needed``
    """
    # The digest is a short name for an id of any length.
    digest = hashlib.sha256(_canonical_id(object_id), usedforsecurity=False).hexdigest()
    checks: list[Callable[[], None]] = []
    locked = False
    problem: OSError | None = None
    with contextlib.ExitStack() as held:
        for directory in sorted(directories):
            try:
                _exclude(held, directory, digest, object_id, checks)
                locked = True
            except OSError as error:
                if directory == needed or error.errno in OWN_LIMITS:
                    raise
                LOG.debug("Not locking an id in %s: %s", directory, error)
                problem = problem or error
        try:
            if problem is not None and not locked:
                raise problem
        finally:
            del problem  # its traceback would keep this frame, and so the callers' memory

        def check() -> None:
            for check_one in checks:
                check_one()

        yield check


def _canonical_id(object_id: str) -> bytes:
    """Return the same bytes for all ids that may be the same name to a file system.

    Some file systems ignore case, or the composition of accented letters.  Without this, ids that
    differ only in these would have different locks, and one object could replace the other.
    """
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", object_id).casefold())
    return folded.encode(errors="surrogateescape")


def _exclude(
    held: contextlib.ExitStack,
    directory: str,
    digest: str,
    object_id: str,
    checks: list[Callable[[], None]],
) -> None:
    with contextlib.ExitStack() as trial:
        if trial.enter_context(_locked(f"{directory}/{lock_name(digest)}")):
            held.push(trial.pop_all())
            return
    checks.append(held.enter_context(_claimed(directory, digest, object_id)))


@contextlib.contextmanager
def _locked(path: str) -> Iterator[bool]:
    """Hold a lock file during a ``with`` block; yields whether files can be locked at all."""
    file = Descriptor()
    try:
        file.open(path, _LOCK_FILE)
        while (works := _wait_for_lock(file, path)) is False:
            file.close()
            file = Descriptor()
            file.open(path, _LOCK_FILE)
        yield bool(works)
    finally:
        _release_lock(file, path)


def _wait_for_lock(file: Descriptor, path: str) -> bool | None:
    """Lock a lock file; return whether ``path`` is still this file.

    The last holder of the lock may have removed it.  Return ``None`` if the file system has no
    locks.
    """
    with file as fd:
        if syscalls.lock(fd, fcntl.LOCK_EX) is None:
            return None
        return syscalls.same_file(path, os.fstat(fd))


def _release_lock(file: Descriptor, path: str) -> None:
    """Remove a lock file and release the lock, if this process holds it.

    It may not, as an interrupt may have ended the wait.  If it does, it can acquire the lock again,
    which is how this is checked.
    """
    with contextlib.suppress(OSError, StoreClosed), file as fd:
        held = syscalls.lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is not False
        if held and syscalls.same_file(path, os.fstat(fd)):
            os.unlink(path)
        # Closing the file is not enough, as a child that was just forked still has it open.
        syscalls.lock(fd, fcntl.LOCK_UN)
    file.close()


@contextlib.contextmanager
def _claimed(directory: str, digest: str, object_id: str) -> Iterator[Callable[[], None]]:
    """Hold the claim on an id during a ``with`` block; yields a check that it is still held.

    The file stays open during the block, as some FUSE file systems keep the inode number only of
    an open file.
    """
    path = f"{directory}/{claim_name(digest)}"

    def is_ours() -> bool:
        with file as fd:
            return syscalls.same_file(path, os.fstat(fd))

    def check() -> None:
        if not is_ours():
            raise being_added(object_id, status=ErrorStatus.TEMPORARY)

    file = Descriptor()
    try:
        for again in (True, False):
            try:
                file.open(path, _CLAIM_FILE)
                break
            except FileExistsError:
                if not again or not _remove_dead(directory, path):
                    raise being_added(object_id, status=ErrorStatus.TEMPORARY) from None
        check()
        yield check
    finally:
        _release(file, directory, path)


def _release(file: Descriptor, directory: str, path: str) -> None:
    """Remove a claim, if this process still holds it.

    The claim is first marked as no longer needed.  Another process may have just renamed it, and
    may rename it back as the claim of a live process; the mark then shows that it can be removed.
    """
    with contextlib.suppress(OSError, StoreClosed):
        with file as fd:
            os.pwrite(fd, _DONE, 0)
            spare = _rename_away(directory, path, os.fstat(fd))
        file.close()  # NFS and FUSE would rename an open file instead of removing it
        if spare is not None:
            os.unlink(spare)
    file.close()


def _remove_dead(directory: str, path: str) -> bool:
    """Remove the claim of a dead process; return whether the id has no claim any more."""
    try:
        with opened(path, _INSPECT) as fd:
            status = os.fstat(fd)
            age = clock(directory) - status.st_mtime
            if not status.st_size and age < CLAIM_LIFE:
                return False
            spare = _rename_away(directory, path, status)
        if spare is None:
            return False
        os.unlink(spare)
        if not status.st_size:
            LOG.warning("Removed the claim %s, which is %d s old: its add has died", path, age)
    except FileNotFoundError:
        pass
    return True


def _rename_away(directory: str, path: str, wanted: os.stat_result) -> str | None:
    """Rename a claim to a private name, and return that name.

    :param wanted: the claim's status
    :returns: the name, or ``None`` if ``path`` was another claim by then, which is renamed back
    :raises FileNotFoundError: there is no claim any more
    """
    spare = f"{directory}/{staged_name('claim', secrets.token_hex(16))}"
    os.rename(path, spare)
    if syscalls.same_file(spare, wanted):
        return spare
    os.rename(spare, path)
    return None
