"""Giving a finished file its final name, such that only one file ever has it."""

import contextlib
import enum
import fcntl
import os
import secrets

from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.errors import FULL
from store_lib.drivers.filesystem.location import staged_name
from store_lib.drivers.filesystem.staging import stage
from store_lib.exceptions import BackendException


class Publishing(enum.Enum):
    """How a file gets its final name without ever replacing one that is there."""

    #: ``renameat2(RENAME_NOREPLACE)``: one step.
    RENAME = "rename"
    #: ``link``, which never replaces; the staged name is removed afterwards.
    LINK = "link"
    #: ``rename``, which would replace: only while every other process is kept from publishing
    #: the id (see :mod:`~store_lib.drivers.filesystem.exclusion`), and after a look.
    CHECKED = "checked"


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
    elif how is Publishing.LINK:
        os.link(staged, final)
    else:
        os.rename(staged, final)


def probe(directory: str, *, checked: bool) -> tuple[Publishing, bool]:
    """Try out on empty files how to publish in ``directory``; return it, and whether it locks.

    :param checked: whether :attr:`Publishing.CHECKED` may be used
    :raises CannotPublish: there is no way
    :raises OSError: files cannot be made there
    """
    for how in Publishing:
        if how is Publishing.CHECKED and not checked:
            continue
        works, locks = _try(how, directory)
        if works:
            return how, locks
    raise CannotPublish(
        f"The file system under {directory} has neither renameat2(RENAME_NOREPLACE) nor hard "
        "links, so it cannot keep a name to one file by itself. Use a directory on another file "
        "system, or let the store's processes keep each other from it: set "
        "filesystem_store_checked_publish."
    )


def _try(how: Publishing, directory: str) -> tuple[bool, bool]:
    """Return whether ``how`` works in ``directory``, and whether files can be locked there.

    A rename flag that is accepted and then ignored would overwrite objects, so ``how`` works
    only if it refuses a name that is taken, too; but for CHECKED, which looks by itself.
    """
    # Closed before they are removed: NFS and FUSE rename a file that is open.
    with contextlib.ExitStack() as names_made, contextlib.ExitStack() as files_open:
        paths = []
        for _ in range(2):
            file, path = stage(directory, "probe", secrets.token_hex(16))
            names_made.callback(_remove, path)
            files_open.callback(file.close)
            paths.append(path)
        source, taken = paths
        free = f"{directory}/{staged_name('probe', secrets.token_hex(16))}"
        names_made.callback(_remove, free)
        with file as fd:
            locks = syscalls.lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is True
        try:
            if how is not Publishing.CHECKED and not _refuses(how, source, taken):
                return False, locks
            publish(how, source, free)
        except OSError as error:
            if error.errno in FULL:  # which says nothing of how to publish
                raise
            return False, locks
        return True, locks


def _refuses(how: Publishing, source: str, taken: str) -> bool:
    """Return whether a name that is taken is refused."""
    try:
        publish(how, source, taken)
    except FileExistsError:
        return True
    return False


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
