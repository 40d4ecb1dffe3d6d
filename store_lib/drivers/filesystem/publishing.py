"""Giving a finished file its final name, such that the file system lets only one ever have it."""

import contextlib
import enum
import fcntl
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator

from store_lib.drivers.filesystem import names, syscalls
from store_lib.drivers.filesystem.descriptor import Descriptor
from store_lib.drivers.filesystem.errors import FULL
from store_lib.drivers.filesystem.staging import stage
from store_lib.exceptions import BackendException, StoreClosed

LOG = logging.getLogger(__name__)

_LOCK_FILE = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class Publishing(enum.Enum):
    """How a file gets its final name without ever replacing one that is there."""

    #: ``renameat2(RENAME_NOREPLACE)``: one step.
    RENAME = "rename"
    #: ``link``, which never replaces, and ``unlink`` of the staged name.
    LINK = "link"


class CannotPublish(BackendException):
    """The file system offers no way to give a name to one file only."""


def publish(how: Publishing, staged: str, final: str) -> None:
    """Give the staged file its final name.

    :raises FileExistsError: the name is taken; perhaps, where a network file system repeated
        the request, by this very file
    :raises OSError: anything else
    """
    if how is Publishing.RENAME:
        syscalls.rename_noreplace(staged, final)
        return
    os.link(staged, final)
    try:
        os.unlink(staged)
    except OSError as error:
        # The object is there and whole.  A sweep removes the other name one day.
        LOG.warning("Cannot remove %s after publishing %s: %s", staged, final, error)


def probe(directory: str) -> tuple[Publishing, bool]:
    """Try out on empty files how to publish in ``directory``; return it, and whether it locks.

    :raises CannotPublish: there is no way
    :raises OSError: files cannot be made there
    """
    for how in Publishing:
        works, locks = _try(how, directory)
        if works:
            return how, locks
    raise CannotPublish(
        f"The file system under {directory} has neither renameat2(RENAME_NOREPLACE) nor hard "
        "links, so two uploads of one id could not be kept apart. Use a directory on another "
        "file system."
    )


def _try(how: Publishing, directory: str) -> tuple[bool, bool]:
    """Return whether ``how`` works in ``directory``, and whether files can be locked there.

    A rename flag that is accepted and then ignored would overwrite objects, so ``how`` works
    only if it refuses a name that is taken, too.
    """
    with contextlib.ExitStack() as undo:
        paths = []
        for _ in range(2):
            file, path = stage(directory, "probe", secrets.token_hex(16))
            undo.callback(file.close)
            undo.callback(_remove, path)
            paths.append(path)
        source, taken = paths
        free = f"{directory}/{names.staged_name('probe', secrets.token_hex(16))}"
        undo.callback(_remove, free)
        with file as fd:
            locks = syscalls.lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is True
        try:
            publish(how, source, taken)
        except FileExistsError:
            pass
        except OSError as error:
            return _unsupported(error), locks
        else:
            return False, locks
        try:
            publish(how, source, free)
        except OSError as error:
            return _unsupported(error), locks
        return True, locks


def _unsupported(error: OSError) -> bool:
    """Return ``False``: this way does not work; a full disk says nothing of it."""
    if error.errno in FULL:
        raise error
    return False


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


@contextlib.contextmanager
def sole_publisher(directory: str, object_id: str) -> Iterator[None]:
    """Keep every other process from publishing this id while the block runs.

    Needed where a store has several data directories: a file system keeps a name to one file in
    one directory, not across two.  ``directory`` is the same one for all, and holds the lock
    file for that moment.  Whoever got the lock looks whether the file still has its name; its
    last holder, or a sweep, may have removed it.

    :raises OSError: the lock file cannot be made
    """
    # The digest is only a short name for an id of any length.
    digest = hashlib.sha256(os.fsencode(object_id), usedforsecurity=False).hexdigest()
    path = f"{directory}/{names.lock_name(digest)}"
    file = Descriptor()
    try:
        file.open(path, _LOCK_FILE)
        while not _wait_for_lock(file, path):
            file.close()
            file = Descriptor()
            file.open(path, _LOCK_FILE)
        yield
    finally:
        _release_lock(file, path)


def _wait_for_lock(file: Descriptor, path: str) -> bool:
    """Lock a lock file, and return whether it still has its name."""
    with file as fd:
        syscalls.lock(fd, fcntl.LOCK_EX)
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
