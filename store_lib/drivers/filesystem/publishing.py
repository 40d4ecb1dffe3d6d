"""Publishing: a finished file gets its final name, which only one file can ever have."""

import contextlib
import enum
import fcntl
import os
import secrets

from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.errors import FULL
from store_lib.drivers.filesystem.location import staged_name
from store_lib.drivers.filesystem.staging import stage, try_remove
from store_lib.exceptions import BackendException


class Publishing(enum.Enum):
    """How a file gets its final name without replacing an existing file."""

    #: ``renameat2(RENAME_NOREPLACE)``: one step.
    RENAME = "rename"
    #: ``link``, which never replaces; the staged name is removed afterwards.
    LINK = "link"
    #: ``rename``, which replaces an existing file.  It is used only after a check, and while other
    #: processes are excluded from publishing the id (see
    #: :mod:`~store_lib.drivers.filesystem.exclusion`).
    CHECKED = "checked"

    def give_name(self, staged: str, final: str) -> None:
        """Give the staged file its final name.

        :raises FileExistsError: the name is taken, perhaps by this file itself, if a network file
            system has repeated the request
        :raises OSError: any other failure
        """
        if self is Publishing.RENAME:
            syscalls.rename_noreplace(staged, final)
        elif self is Publishing.LINK:
            os.link(staged, final)
        else:
            os.rename(staged, final)


class CannotPublish(BackendException):
    """The file system has no operation that gives a name to one file only."""


def probe(directory: str, *, checked: bool) -> tuple[Publishing, bool]:
    """Test with empty files how to publish in ``directory``, and whether files can be locked there.

    :param checked: whether :attr:`Publishing.CHECKED` may be used
    :raises CannotPublish: no way of :class:`Publishing` works
    :raises OSError: files cannot be created there
    """
    for how in Publishing:
        if how is Publishing.CHECKED and not checked:
            continue
        works, locks = _try(how, directory)
        if works:
            return how, locks
    raise CannotPublish(
        f"The file system under {directory} has neither renameat2(RENAME_NOREPLACE) nor hard "
        "links, so nothing there ensures that only one file gets a name. Use a directory on "
        "another file system, or let the store's processes exclude each other by locks: set "
        "filesystem_store_checked_publish."
    )


def _try(how: Publishing, directory: str) -> tuple[bool, bool]:
    """Return whether ``how`` works in ``directory``, and whether files can be locked there.

    A rename flag that is accepted but ignored would overwrite objects.  So ``how`` must also refuse
    a name that is taken, except for CHECKED, where the caller checks.
    """
    # Files are closed before they are removed: NFS and FUSE would rename an open file.
    with contextlib.ExitStack() as names_made, contextlib.ExitStack() as files_open:
        paths = []
        for _ in range(2):
            file, path = stage(directory, "probe", secrets.token_hex(16))
            names_made.callback(try_remove, path)
            files_open.callback(file.close)
            paths.append(path)
        source, taken = paths
        free = f"{directory}/{staged_name('probe', secrets.token_hex(16))}"
        names_made.callback(try_remove, free)
        with file as fd:
            locks = syscalls.lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is True
        try:
            if how is not Publishing.CHECKED and not _refuses(how, source, taken):
                return False, locks
            how.give_name(source, free)
        except OSError as error:
            if error.errno in FULL:  # this does not show whether ``how`` works
                raise
            return False, locks
        return True, locks


def _refuses(how: Publishing, source: str, taken: str) -> bool:
    """Return whether ``how`` refuses a name that is taken."""
    try:
        how.give_name(source, taken)
    except FileExistsError:
        return True
    return False
