"""The data directories: which one takes a new object, and what lies in them."""

import contextlib
import dataclasses
import functools
import itertools
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from store_lib.display import get_logger
from store_lib.driver import Entry, Repeater, Space
from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.errors import FULL, Action, bad_configuration, translate
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
    BadStoreConfiguration,
    BadStoreUri,
    ErrorStatus,
    StorageFull,
)

LOG = get_logger(__name__)

#: Objects up to this size go without a look at the free space when there is no choice anyway.
SMALL = 1024 * 1024
#: Files of a listing that are looked at in one call, which is given up or repeated as a whole.
_PAGE = 1000
#: Bytes of the longest path that the system takes.
_PATH_MAX = 4096


@dataclasses.dataclass
class DataDir:
    """One data directory."""

    #: Normalised absolute path; what URIs of new objects begin with.
    path: str
    #: As the operator wrote it.
    spelling: str
    priority: int = 0
    #: With no symbolic link in it.
    real: str = ""
    #: Whether :attr:`Publishing.CHECKED` may be used.
    checked: bool = False
    #: ``None`` until it could be tried out.
    publishing: Publishing | None = None
    #: Whether files can be locked.
    locks: bool = True
    #: Permissions that a new file gets here by itself.
    file_mode: int = 0o600
    name_max: int = NAME_MAX
    #: Whether reserving a file's blocks beforehand is worth it: not in memory, where it would
    #: only clear every page that is then written.
    preallocates: bool = True
    #: Whether an error of a write may come out only when the file is closed.
    reports_errors_on_close: bool = True

    def __post_init__(self) -> None:
        self.real = os.path.realpath(self.path)

    def how_to_publish(self) -> Publishing:
        """Return how to publish here, and try it out first where that could not be done yet.

        :raises CannotPublish: there is no way
        :raises OSError: files cannot be made here
        """
        if self.publishing is None:
            self.examine()
        assert self.publishing is not None
        return self.publishing

    def examine(self) -> None:
        """Find out what the file system can do.

        :raises CannotPublish: it cannot keep a name to one file
        :raises OSError: files cannot be made here
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
                "Files in %s cannot be locked: a sweep cannot tell an upload at work from a "
                "leftover and goes by age alone",
                self.path,
            )
        self.publishing = publishing


class DataDirs:
    """The directories of one store, in the order in which they are configured."""

    def __init__(self, directories: Sequence[DataDir]) -> None:
        self._all = tuple(directories)
        self.paths = tuple(each.path for each in self._all)
        self._ranked = sorted(self._all, key=lambda each: -each.priority)
        #: Spellings of each directory after which a path needs no further look.
        self._parents = frozenset(
            spelling.rstrip("/")
            for each in self._all
            for spelling in (each.path, each.spelling, each.real)
        )

    def prepare(
        self, store_id: str, dir_perm: int | None, file_perm: int | None, durable: bool
    ) -> None:
        """Make the directories that are missing and try out that objects can be added.

        Of several, those that cannot be used are warned of and tried again by each add.

        :param dir_perm: mode of directories that are made; ``None`` leaves it to the umask
        :param file_perm: mode of the files; where there is no ``dir_perm``, whoever is to reach
            the files may search the directories
        :raises BadStoreConfiguration: none can be used; readable if any of them is there
        """
        reasons = []
        for each in self._all:
            try:
                _make(each.path, dir_perm)
                mode = os.stat(each.path).st_mode
                if not stat.S_ISDIR(mode):
                    reason = f"{each.path} is not a directory. Remove it, or name another."
                    raise self._bad(store_id, reason)
                if mode & stat.S_IWOTH:
                    LOG.warning(
                        "Every user of this machine may write in %s and so alter what the store "
                        "has there. Take that permission away (chmod o-w).",
                        each.path,
                    )
                if file_perm is not None and dir_perm is None:
                    _open_for(file_perm, each.path)
                if durable:
                    _sync_with_parents(each.path)
                _examine(each)
            except CannotPublish as error:
                reasons.append(str(error))
            except OSError as error:
                reasons.append(str(translate(error, Action.ADD, error.filename or each.path)))
        if len(reasons) == len(self._all):
            raise self._bad(store_id, reasons[0])
        for reason in reasons:
            LOG.warning("Store %s goes on without one of its directories. %s", store_id, reason)

    def _bad(self, store_id: str, reason: str) -> BadStoreConfiguration:
        readable = any(os.path.isdir(path) for path in self.paths)
        return bad_configuration(store_id, reason, readable=readable)

    @property
    def atomic(self) -> bool:
        """Whether one of several adds of an id wins whatever they do."""
        if any(each.publishing is Publishing.CHECKED for each in self._all):
            return False
        return len(self._all) == 1 or all(each.locks for each in self._all)

    def place_of(self, location: FileLocation) -> Place:
        """Return where what ``location`` names lies.

        :raises BadStoreUri: it lies in none of the directories, or is no object's name
        """
        path = location.path
        parent, _, name = path.rpartition("/")
        if is_private(name):
            raise BadStoreUri(
                "%(uri)s names the file of an upload under way, not an object.", uri=location.uri
            )
        if parent in self._parents:
            return Place(path)
        real = _real(parent)
        for each in self._all:
            if real == each.real:
                return Place(f"{real}/{name}")
            if real is not None and real.startswith(each.real.rstrip("/") + "/"):
                return Place(f"{real}/{name}", each.real)
        raise BadStoreUri(
            "%(uri)s lies outside this store's directories: " + ", ".join(self.paths),
            uri=location.uri,
        )

    def may_be_leftover(self, path: str) -> bool:
        """Whether an upload may have left a file of this path."""
        parent, _, name = path.rpartition("/")
        return is_leftover(name) and parent in self._parents

    def holder_of(self, object_id: str, *, other_than: str | None = None) -> str | None:
        """Return the path of whatever has this object's name in any of the directories.

        One of several that cannot be looked at is passed over.

        :param other_than: a directory that is left out
        :raises OSError: that cannot be looked up in the only one
        """
        for each in self._all:
            if each.path == other_than:
                continue
            path = f"{each.path}/{object_id}"
            try:
                os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                if len(self._all) == 1:
                    raise
                LOG.warning("Passing over data directory %s: %s", each.path, error)
                continue
            return path
        return None

    def sole_publisher(
        self, directory: DataDir, object_id: str
    ) -> contextlib.AbstractContextManager[Callable[[], None] | None]:
        """Return a block without other publishers of this id, where the file system lets some be.

        It gets a function to call just before it publishes, ``None`` where none is needed.

        :param directory: the one to publish in
        :raises Duplicate: another process is publishing the id; temporary
        :raises OSError: the id cannot be locked
        """
        checked = directory.publishing is Publishing.CHECKED
        if len(self._all) == 1 and not checked:
            return contextlib.nullcontext()
        needed = directory.path if checked else None
        return sole_publisher(self.paths, object_id, needed)

    def candidates(self, size: int | None, *, at_most: bool = False) -> Iterator[DataDir]:
        """Yield the directories to try for a new object: by priority, then by free space.

        :param size: bytes that it needs; ``None`` when unknown
        :param at_most: it may well turn out smaller, so those without room follow at the end
        :raises StorageFull: ``size`` fits in none of them
        """
        if len(self._all) == 1 and (at_most or size is None or size <= SMALL):
            yield self._all[0]
            return
        needed = max(size or 0, 1)
        short: list[tuple[int, DataDir]] = []
        last_error = None
        found = False
        for _, group in itertools.groupby(self._ranked, key=lambda each: each.priority):
            roomy: list[tuple[int, DataDir]] = []
            for each in group:
                try:
                    free = _free(each.path)
                except OSError as error:
                    LOG.warning("Passing over data directory %s: %s", each.path, error)
                    last_error = translate(error, Action.ADD, each.path)
                    continue
                (roomy if free >= needed else short).append((free, each))
            for _, each in sorted(roomy, key=_by_room):
                found = True
                yield each
        short.sort(key=_by_room)
        if at_most:
            for _, each in short:
                found = True
                yield each
        if found:
            return
        if last_error is not None and not short:
            raise last_error
        most = short[0][0] if short else 0
        raise StorageFull(
            f"Expected room for {needed} bytes in {', '.join(self.paths)}, got at most {most}. "
            "Free some space, or add to another store."
        )

    def space(self) -> Space:
        """Return the room on the file systems that the directories are on, each counted once.

        :raises StoreError: a directory cannot be looked at
        """
        totals: list[int | None] = []
        frees: list[int | None] = []
        devices: set[int] = set()
        for each in self._all:
            try:
                device = os.stat(each.path).st_dev
                total, free = _room(each.path)
            except OSError as error:
                raise translate(error, Action.SURVEY, each.path) from error
            if device not in devices:
                devices.add(device)
                totals.append(total)
                frees.append(free)
        return Space(_sum(totals), _sum(frees))

    def entries(self, retry: Repeater) -> Iterator[Entry]:
        """Yield every complete object.

        :param retry: makes each call to the file system, and repeats it
        :raises StoreError: a directory cannot be read
        """
        for each in self._all:
            with retry(functools.partial(_scan, each.path)) as found:
                while page := retry(functools.partial(_page, found, each.path)):
                    yield from retry(functools.partial(_entries, page, each.path))


def _real(path: str) -> str | None:
    """Return a directory's path without symbolic links; ``None`` where that cannot be told."""
    if len(path) > _PATH_MAX:
        return None  # the system would not open it, and resolving it takes long
    try:
        return os.path.realpath(path or "/")
    except OSError:
        return None  # it changes while it is looked at


_Scan: TypeAlias = "contextlib.AbstractContextManager[Iterator[os.DirEntry[str]]]"


def _scan(path: str) -> _Scan:
    try:
        return os.scandir(path)
    except OSError as error:
        raise translate(error, Action.SURVEY, path) from error


def _page(found: Iterator[os.DirEntry[str]], path: str) -> list[os.DirEntry[str]]:
    """Return what comes next in a directory, nothing at its end."""
    try:
        return list(itertools.islice(found, _PAGE))
    except OSError as error:
        # Once it has failed, the iterator is at its end: another try would cut the listing.
        raise translate(error, Action.SURVEY, path, status=ErrorStatus.PERMANENT) from error


def _entries(page: Sequence[os.DirEntry[str]], path: str) -> list[Entry]:
    """Return the objects among what lies in a directory."""
    seen = []
    for entry in page:
        try:
            if id_problem(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # deleted just now
        except OSError as error:
            raise translate(error, Action.SURVEY, path) from error
        if stat.S_ISREG(status.st_mode):
            location = FileLocation(f"{path}/{entry.name}")
            seen.append(Entry(entry.name, location, status.st_size, status.st_mtime))
    return seen


def _examine(directory: DataDir) -> None:
    """Find out what the file system can do, unless the disk is full.

    Deleting must stay possible on a full disk, so that alone is no error; the next add tries.
    """
    try:
        directory.examine()
    except OSError as error:
        if error.errno not in FULL:
            raise
        LOG.warning("%s is full: how to publish there will be tried later", directory.path)


def _free(path: str) -> int:
    """Return the bytes that one more file can have there, 0 where no file can be made."""
    found = os.statvfs(path)
    if found.f_files and not found.f_favail:
        return 0
    return found.f_frsize * found.f_bavail if found.f_blocks else sys.maxsize


def _by_room(each: tuple[int, DataDir]) -> int:
    return -each[0]


def _room(path: str) -> tuple[int | None, int | None]:
    """Return the total and free bytes; ``None`` where the file system sets no bound."""
    found = os.statvfs(path)
    if not found.f_blocks:
        return None, None
    return found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail


def _sum(amounts: Sequence[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def _make(path: str, dir_perm: int | None) -> None:
    """Make a directory and those above it, where missing."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        _make(parent, dir_perm)
    try:
        os.mkdir(path, 0o777 if dir_perm is None else dir_perm & 0o700)
    except FileExistsError:
        return
    if dir_perm is not None:
        os.chmod(path, dir_perm)  # the umask and the set-group-id bit have no say in it


def _sync_with_parents(path: str) -> None:
    """Have a directory on the disk, and its name, and those of the directories above it.

    Whoever made them may have died, or lost its power, before it had synced them.
    """
    syscalls.fsync_directory(path)
    device = os.stat(path).st_dev
    while (parent := os.path.dirname(path)) != path and os.stat(parent).st_dev == device:
        # One may be allowed to make a directory there and not to read it.
        with contextlib.suppress(PermissionError):
            syscalls.fsync_directory(parent)
        path = parent


def _open_for(file_perm: int, path: str) -> None:
    """Let those whom the files' permissions name search the directory, as glance_store does."""
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
