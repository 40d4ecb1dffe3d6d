"""The data directories: which one gets a new object, and what is in them."""

import contextlib
import dataclasses
import functools
import itertools
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias, TypeVar

from store_lib.display import get_logger
from store_lib.driver import Entry, Repeater, Space
from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.errors import FULL, Action, translate, translated
from store_lib.drivers.filesystem.exclusion import sole_publisher
from store_lib.drivers.filesystem.location import (
    NAME_MAX,
    FileLocation,
    Place,
    id_problem,
    is_leftover,
    is_private,
)
from store_lib.drivers.filesystem.publishing import CannotPublish, Publishing, probe
from store_lib.drivers.filesystem.staging import usual_mode
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    BadStoreUri,
    ErrorStatus,
    InvalidObjectId,
    StorageFull,
    StorageWriteDenied,
    StoreError,
    duplicate,
)

LOG = get_logger(__name__)

R = TypeVar("R")

#: Objects up to this size are added without a check of the free space if there is one directory.
SMALL = 1024 * 1024
#: Number of files of a listing that are inspected in one call; a call is given up or repeated as a
#: whole.
_PAGE = 1000
#: Maximum bytes of a path that the system accepts.
_PATH_MAX = 4096


@dataclasses.dataclass
class DataDir:
    """One data directory."""

    #: Normalised absolute path, with which the URIs of new objects begin.
    path: str
    #: The path as the operator wrote it.
    spelling: str
    priority: int = 0
    #: The path without symbolic links.
    real: str = ""
    #: Whether :attr:`Publishing.CHECKED` may be used.
    checked: bool = False
    #: ``None`` until :meth:`examine` has succeeded.
    publishing: Publishing | None = None
    #: Whether files can be locked.
    locks: bool = True
    #: Permissions that a new file gets here by default.
    file_mode: int = 0o600
    name_max: int = NAME_MAX
    #: Whether to preallocate a file's blocks.  On a file system in memory this would only clear
    #: pages that are written after that.
    preallocates: bool = True
    #: Whether a failed write may be reported only when the file is closed.
    reports_errors_on_close: bool = True

    def __post_init__(self) -> None:
        self.real = os.path.realpath(self.path)

    def how_to_publish(self) -> Publishing:
        """Return how to publish in this directory; examine it first if that has not succeeded yet.

        :raises CannotPublish: the file system has no operation for it
        :raises OSError: files cannot be created here
        """
        if self.publishing is None:
            self.examine()
        assert self.publishing is not None
        return self.publishing

    def examine(self) -> None:
        """Find out what the file system can do.

        :raises CannotPublish: the file system has no operation that gives a name to one file only
        :raises OSError: files cannot be created here
        """
        self.name_max = min(NAME_MAX, os.pathconf(self.path, "PC_NAME_MAX"))
        self.preallocates = not syscalls.in_memory(self.path)
        self.reports_errors_on_close = syscalls.reports_errors_on_close(self.path)
        self.file_mode = usual_mode(self.path)
        publishing, self.locks = probe(self.path, checked=self.checked)
        if publishing is Publishing.CHECKED:
            LOG.warning(
                "The file system under %s has neither renameat2(RENAME_NOREPLACE) nor hard links: "
                "that an id is used once holds only among processes of this library that share "
                "its locks",
                self.path,
            )
        if not self.locks:
            LOG.warning(
                "Files in %s cannot be locked: a sweep cannot distinguish a running upload from a "
                "leftover and goes by age alone",
                self.path,
            )
        self.publishing = publishing


class Misconfigured(Protocol):
    """:meth:`store_lib.driver.Driver.misconfigured`."""

    def __call__(self, reason: str, *, readable: bool = False) -> BadStoreConfiguration: ...


class DataDirs:
    """The directories of one store, in the order of the configuration."""

    def __init__(self, directories: Sequence[DataDir]) -> None:
        self._all = tuple(directories)
        self.paths = tuple(directory.path for directory in self._all)
        self._ranked = sorted(self._all, key=lambda directory: -directory.priority)
        #: Spellings of the directories; a path that begins with one need not be resolved.
        self._parents = frozenset(
            spelling.rstrip("/")
            for directory in self._all
            for spelling in (directory.path, directory.spelling, directory.real)
        )

    def prepare(
        self,
        misconfigured: Misconfigured,
        *,
        dir_perm: int | None,
        file_perm: int | None,
        durable: bool,
    ) -> None:
        """Create missing directories and check that objects can be added.

        If there are several directories, one that cannot be used is logged, and every add tries it
        again.

        :param dir_perm: mode of directories that are created; ``None`` leaves it to the umask
        :param file_perm: mode of the files; without ``dir_perm``, their users also get permission
            to search the directories
        :raises BadStoreConfiguration: no directory can be used, or one is not a directory; the
            store is readable if any directory exists
        """
        reasons = []
        not_directory = None
        for directory in self._all:
            path = directory.path
            try:
                _make_directories(path, dir_perm)
                if not stat.S_ISDIR(os.stat(path).st_mode):
                    not_directory = f"{path} is not a directory. Remove it, or name another."
                    break
                _prepare(directory, dir_perm, file_perm, durable)
            except CannotPublish as error:
                reasons.append(str(error))
            except OSError as error:
                reasons.append(str(translate(error, Action.ADD, error.filename or path)))
        if not_directory or len(reasons) == len(self._all):
            readable = any(os.path.isdir(path) for path in self.paths)
            raise misconfigured(not_directory or reasons[0], readable=readable)
        for reason in reasons:
            LOG.warning("One of several data directories cannot be used. %s", reason)

    @property
    def atomic(self) -> bool:
        """Whether exactly one of several adds of an id wins in any race."""
        if any(directory.publishing is Publishing.CHECKED for directory in self._all):
            return False
        return len(self._all) == 1 or all(directory.locks for directory in self._all)

    def named(self, path: str) -> DataDir | None:
        """Return the directory of this path, or ``None`` if the store has no such directory."""
        return next((directory for directory in self._all if directory.path == path), None)

    def locate(self, location: FileLocation) -> Place:
        """Return the place of the file at ``location``.

        :raises BadStoreUri: the file is in none of the directories, or its name is not an object's
        """
        path = location.path
        parent, _, name = path.rpartition("/")
        if is_private(name):
            raise BadStoreUri(
                "%(uri)s names the file of an unfinished upload, not an object.", uri=location.uri
            )
        if parent in self._parents:
            return Place(path)
        real = _real(parent)
        for directory in self._all:
            if real == directory.real:
                return Place(f"{real}/{name}")
            if real is not None and real.startswith(directory.real.rstrip("/") + "/"):
                return Place(f"{real}/{name}", directory.real)
        raise BadStoreUri(
            "%(uri)s lies outside this store's directories: " + ", ".join(self.paths),
            uri=location.uri,
        )

    def may_be_leftover(self, path: str) -> bool:
        """Return whether an upload may have left a file of this path."""
        parent, _, name = path.rpartition("/")
        return is_leftover(name) and parent in self._parents

    def find_existing(self, object_id: str, *, other_than: str | None = None) -> str | None:
        """Return the path of any file with this object's name, or ``None`` if there is none.

        If there are several directories, one that cannot be read is skipped.

        :param other_than: path of a directory to leave out
        :raises StoreError: the only directory cannot be read
        """
        for directory in self._all:
            if directory.path == other_than:
                continue
            path = f"{directory.path}/{object_id}"
            try:
                os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                if len(self._all) == 1:
                    raise translate(error, Action.ADD, path, object_id=object_id) from error
                LOG.warning("Skipping data directory %s: %s", directory.path, error)
                continue
            return path
        return None

    def check_free(self, object_id: str) -> None:
        """Check that no file has this object's name.

        :raises Duplicate: a file has it
        """
        if self.find_existing(object_id) is not None:
            raise duplicate(object_id)

    def sole_publisher(
        self, directory: DataDir, object_id: str
    ) -> contextlib.AbstractContextManager[Callable[[], None] | None]:
        """Return a context manager that excludes other processes from publishing this id.

        It yields a function to call just before publishing, or ``None`` if the file system alone
        ensures that one process wins.

        :param directory: the directory to publish in
        :raises Duplicate: another process is publishing the id; temporary
        :raises OSError: the id cannot be locked
        """
        checked = directory.publishing is Publishing.CHECKED
        if len(self._all) == 1 and not checked:
            return contextlib.nullcontext()
        needed = directory.path if checked else None
        return sole_publisher(self.paths, object_id, needed)

    def try_each(
        self, attempt: Callable[[DataDir], R], size: int | None, *, at_most: bool = False
    ) -> R:
        """Return what ``attempt`` returns for the first of the :meth:`candidates` without an error.

        The free space is only a forecast: it does not include quotas, and a disk may be broken.

        :raises StoreError: the first error, if all attempts have failed
        """
        problem: StoreError | None = None
        try:
            for directory in self.candidates(size, at_most=at_most):
                try:
                    return attempt(directory)
                except (
                    BackendException,
                    InvalidObjectId,
                    StorageFull,
                    StorageWriteDenied,
                ) as error:
                    if len(self._all) > 1:
                        LOG.warning("Skipping data directory %s: %s", directory.path, error)
                    problem = problem or error
            assert problem is not None  # there is at least one candidate
            raise problem
        finally:
            del problem  # its traceback refers to this frame: the cycle would keep memory

    def candidates(self, size: int | None, *, at_most: bool = False) -> Iterator[DataDir]:
        """Yield the directories to try for a new object: by priority, then by free space.

        :param size: bytes that the object needs; ``None`` if unknown
        :param at_most: whether the object may need less; then directories without enough room are
            yielded last
        :raises StorageFull: no directory has room for ``size`` bytes
        """
        if len(self._all) == 1 and (at_most or size is None or size <= SMALL):
            yield self._all[0]
            return
        needed = max(size or 0, 1)
        short: list[tuple[int, DataDir]] = []
        last_error = None
        any_candidate = False
        for _, group in itertools.groupby(self._ranked, key=lambda directory: directory.priority):
            roomy: list[tuple[int, DataDir]] = []
            for directory in group:
                try:
                    free = _free(directory.path)
                except OSError as error:
                    LOG.warning("Skipping data directory %s: %s", directory.path, error)
                    last_error = translate(error, Action.ADD, directory.path)
                    continue
                (roomy if free >= needed else short).append((free, directory))
            for _, directory in sorted(roomy, key=_by_room):
                any_candidate = True
                yield directory
        short.sort(key=_by_room)
        if at_most:
            for _, directory in short:
                any_candidate = True
                yield directory
        if any_candidate:
            return
        if last_error is not None and not short:
            raise last_error
        most = short[0][0] if short else 0
        raise StorageFull(
            f"Expected room for {needed} bytes in {', '.join(self.paths)}, got at most {most}. "
            "Free some space, or add to another store."
        )

    def space(self) -> Space:
        """Return the space on the directories' file systems, each file system counted once.

        :raises StoreError: a directory cannot be read
        """
        totals: list[int | None] = []
        frees: list[int | None] = []
        devices: set[int] = set()
        for directory in self._all:
            with translated(Action.LIST, directory.path):
                device = os.stat(directory.path).st_dev
                total, free = _space(directory.path)
            if device not in devices:
                devices.add(device)
                totals.append(total)
                frees.append(free)
        return Space(_sum(totals), _sum(frees))

    def entries(self, retry: Repeater) -> Iterator[Entry]:
        """Yield every complete object.

        :param retry: makes the calls to the file system, and repeats them
        :raises StoreError: a directory cannot be read
        """
        for path in self.paths:
            with retry(functools.partial(_scan, path)) as scan:
                while page := retry(functools.partial(_page, scan, path)):
                    yield from retry(functools.partial(_entries, page, path))


def _real(path: str) -> str | None:
    """Return a directory's path without symbolic links, or ``None`` if it cannot be resolved."""
    if len(path) > _PATH_MAX:
        return None  # the system cannot open such a long path, and resolving it takes long
    try:
        return os.path.realpath(path or "/")
    except OSError:
        return None  # it is being changed


_Scan: TypeAlias = "contextlib.AbstractContextManager[Iterator[os.DirEntry[str]]]"


def _scan(path: str) -> _Scan:
    with translated(Action.LIST, path):
        return os.scandir(path)


def _page(scan: Iterator[os.DirEntry[str]], path: str) -> list[os.DirEntry[str]]:
    """Return the next entries of a directory; an empty list at its end."""
    # An error is permanent: the iterator is then at its end, so that a retry would cut the listing.
    with translated(Action.LIST, path, status=ErrorStatus.PERMANENT):
        return list(itertools.islice(scan, _PAGE))


def _entries(page: Sequence[os.DirEntry[str]], path: str) -> list[Entry]:
    """Return the objects among the entries of a directory."""
    objects = []
    for entry in page:
        with translated(Action.LIST, path):
            try:
                if id_problem(entry.name) or not entry.is_file(follow_symlinks=False):
                    continue
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # deleted just now
        if stat.S_ISREG(status.st_mode):
            location = FileLocation(f"{path}/{entry.name}")
            objects.append(Entry(entry.name, location, status.st_size, status.st_mtime))
    return objects


def _prepare(
    directory: DataDir, dir_perm: int | None, file_perm: int | None, durable: bool
) -> None:
    """Examine a directory and set its permissions; see :meth:`DataDirs.prepare`.

    :raises CannotPublish: the file system has no operation to publish with
    :raises OSError: the directory cannot be used
    """
    path = directory.path
    if os.stat(path).st_mode & stat.S_IWOTH:
        LOG.warning(
            "Every user of this machine may write in %s and so alter the store's objects. Remove "
            "that permission (chmod o-w).",
            path,
        )
    if file_perm is not None and dir_perm is None:
        _allow_search(file_perm, path)
    if durable:
        _sync_with_parents(path)
    _examine(directory)


def _examine(directory: DataDir) -> None:
    """Find out what the file system can do, unless the disk is full.

    A full disk is no error, since deleting must be possible; the next add tries again.
    """
    try:
        directory.examine()
    except OSError as error:
        if error.errno not in FULL:
            raise
        LOG.warning("%s is full: how to publish there will be found out later", directory.path)


def _free(path: str) -> int:
    """Return the bytes that a new file in a directory can have; 0 if no file can be created."""
    status = os.statvfs(path)
    if status.f_files and not status.f_favail:
        return 0
    return status.f_frsize * status.f_bavail if status.f_blocks else sys.maxsize


def _by_room(candidate: tuple[int, DataDir]) -> int:
    return -candidate[0]


def _space(path: str) -> tuple[int | None, int | None]:
    """Return the total and free bytes, ``None`` if the file system has no limit."""
    status = os.statvfs(path)
    if not status.f_blocks:
        return None, None
    return status.f_frsize * status.f_blocks, status.f_frsize * status.f_bavail


def _sum(amounts: Sequence[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def _make_directories(path: str, dir_perm: int | None) -> None:
    """Create a directory and its parents if they are missing."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        _make_directories(parent, dir_perm)
    try:
        os.mkdir(path, 0o777 if dir_perm is None else dir_perm & 0o700)
    except FileExistsError:
        return
    if dir_perm is not None:
        os.chmod(path, dir_perm)  # overrides the umask and the parent's set-group-id bit


def _sync_with_parents(path: str) -> None:
    """Sync a directory and its parents, so that their names are on the disk.

    The process that created them may have died before it synced them.
    """
    syscalls.fsync_directory(path)
    device = os.stat(path).st_dev
    while (parent := os.path.dirname(path)) != path and os.stat(parent).st_dev == device:
        # This user may be permitted to create a directory there, but not to read the parent.
        with contextlib.suppress(PermissionError):
            syscalls.fsync_directory(parent)
        path = parent


def _allow_search(file_perm: int, path: str) -> None:
    """Let the users with permissions on the files search the directory, as glance_store does."""
    wanted = mode = stat.S_IMODE(os.stat(path).st_mode)
    for who, search in ((stat.S_IRWXG, stat.S_IXGRP), (stat.S_IRWXO, stat.S_IXOTH)):
        if file_perm & who:
            wanted |= search
    if wanted == mode:
        return
    try:
        os.chmod(path, wanted)
    except OSError as error:
        LOG.warning(
            "Cannot set the permissions of %s to %o, so that others reach the files in it: %s",
            path,
            wanted,
            error,
        )
