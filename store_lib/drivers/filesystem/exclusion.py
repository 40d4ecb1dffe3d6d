"""Keeping every other process from publishing an id: by a lock file, or by a claim.

Needed where a store has several data directories, since a file system keeps a name to one file
in one directory and not across two; and where the file system has no step that gives a name to
one file only.

A *lock file* is locked with flock(2).  Whoever has the lock looks whether the file still has its
name: its last holder, or a sweep, may have removed it.

A *claim* stands in where files cannot be locked: a file that only one process can make
(``O_EXCL``).  What a dead process left is known by its age, and is never simply unlinked: between
the look and the unlink the claim may have become another process's.  It is renamed to a name of
one's own; the renamed file shows whose it was, and if it was not the dead one's it goes back.
Whoever holds a claim looks once more whether it still is his just before he publishes.
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
from store_lib.exceptions import Duplicate, ErrorStatus, StoreClosed

LOG = get_logger(__name__)

#: Seconds after which a claim counts as that of a dead process.  Publishing takes milliseconds.
CLAIM_LIFE = 60.0
#: What a claim holds once it is given back; until then it is empty.
_DONE = b"done"

_LOCK_FILE = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_CLAIM_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@contextlib.contextmanager
def sole_publisher(
    directories: Iterable[str], object_id: str, needed: str | None = None
) -> Iterator[Callable[[], None]]:
    """Keep every other process from publishing this id while the block runs.

    The id is locked in every directory that can be written, in the order of their paths.  So two
    processes that do not see the same directories still exclude each other wherever there is
    one that both can write.

    The block gets a function to call just before it publishes: it raises Duplicate where the
    right to publish has been lost.

    :param needed: the directory to publish in, where nothing else keeps a name to one file
    :raises Duplicate: another process is publishing the id; temporary
    :raises OSError: the id cannot be locked in any directory, or in the one where it has to be
    """
    # The digest is only a short name for an id of any length.
    digest = hashlib.sha256(_folded(object_id), usedforsecurity=False).hexdigest()
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
            del problem  # with its traceback it would keep this frame, and the callers' memory

        def check() -> None:
            for each in checks:
                each()

        yield check


def _folded(object_id: str) -> bytes:
    """Return what all ids have in common that may be one name to a file system.

    Of two that differ only in case, or in how letters and accents are put together, each would
    else be locked for itself, and replace the other where names are compared without that.
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
    """Hold the lock on a lock file while the block runs; it gets whether files can be locked."""
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
    """Lock a lock file; return whether it still has its name, ``None`` where nothing locks."""
    with file as fd:
        if syscalls.lock(fd, fcntl.LOCK_EX) is None:
            return None
        return syscalls.same_file(path, os.fstat(fd))


def _release_lock(file: Descriptor, path: str) -> None:
    """Remove a lock file and let go of the lock, if it is ours.

    An interrupt may have come while it was waited for; whoever has a lock gets it once more.
    """
    with contextlib.suppress(OSError, StoreClosed), file as fd:
        held = syscalls.lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is not False
        if held and syscalls.same_file(path, os.fstat(fd)):
            os.unlink(path)
        # Closing is not enough: a child forked at this moment still has the file open.
        syscalls.lock(fd, fcntl.LOCK_UN)
    file.close()


@contextlib.contextmanager
def _claimed(directory: str, digest: str, object_id: str) -> Iterator[Callable[[], None]]:
    """Hold the claim on an id while the block runs; it gets a check that it still is ours.

    The file stays open all the while: some FUSE file systems keep a file's inode number only
    for as long.
    """
    path = f"{directory}/{claim_name(digest)}"
    busy = f"Object {object_id} is being added by somebody else right now. Try again."

    def is_ours() -> bool:
        with file as fd:
            return syscalls.same_file(path, os.fstat(fd))

    def check() -> None:
        if not is_ours():
            raise Duplicate(busy, status=ErrorStatus.TEMPORARY)

    file = Descriptor()
    try:
        for again in (True, False):
            try:
                file.open(path, _CLAIM_FILE)
                break
            except FileExistsError:
                if not again or not _take_away(directory, path):
                    raise Duplicate(busy, status=ErrorStatus.TEMPORARY) from None
        check()
        yield check
    finally:
        _give_back(file, directory, path)


def _give_back(file: Descriptor, directory: str, path: str) -> None:
    """Remove a claim, if it is ours.

    It is marked first: where another process has just renamed it, and puts it back when it sees
    that it is a living one's, the next one takes it for what it is by then.
    """
    with contextlib.suppress(OSError, StoreClosed):
        with file as fd:
            os.pwrite(fd, _DONE, 0)
            spare = _rename_away(directory, path, os.fstat(fd))
        file.close()  # before it is removed: NFS and FUSE would rename it
        if spare is not None:
            os.unlink(spare)
    file.close()


def _take_away(directory: str, path: str) -> bool:
    """Move a dead process's claim out of the way; return whether there is none any more."""
    try:
        with opened(path, _LOOK) as fd:
            found = os.fstat(fd)
            age = clock(directory) - found.st_mtime
            if not found.st_size and age < CLAIM_LIFE:
                return False
            spare = _rename_away(directory, path, found)
        if spare is None:
            return False
        os.unlink(spare)
        if not found.st_size:
            LOG.warning("Took away the claim %s, which is %d s old: its add has died", path, age)
    except FileNotFoundError:
        pass
    return True


def _rename_away(directory: str, path: str, wanted: os.stat_result) -> str | None:
    """Rename a claim to a name of our own, and return that.

    :returns: ``None`` where it has become another one, which got its name back
    :raises FileNotFoundError: there is none any more
    """
    spare = f"{directory}/{staged_name('claim', secrets.token_hex(16))}"
    os.rename(path, spare)
    if syscalls.same_file(spare, wanted):
        return spare
    os.rename(spare, path)
    return None
