"""The data directories: which one takes a new object, and what lies in them."""

import contextlib
import dataclasses
import logging
import os
import stat
import sys
from collections.abc import Iterator, Sequence

from store_lib.driver import Entry, Space
from store_lib.drivers.filesystem import names, syscalls
from store_lib.drivers.filesystem.errors import FULL, Action, bad_configuration, translate
from store_lib.drivers.filesystem.location import FileLocation
from store_lib.drivers.filesystem.publishing import CannotPublish, Publishing, probe
from store_lib.exceptions import BadStoreUri, StorageFull

LOG = logging.getLogger(__name__)

#: Objects up to this size go without a look at the free space when there is no choice anyway.
SMALL = 1024 * 1024


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
    #: ``None`` until it could be tried out.
    publishing: Publishing | None = None
    name_max: int = names.NAME_MAX
    #: Whether reserving a file's blocks beforehand is worth it: not in memory, where it would
    #: only clear every page that is then written.
    preallocates: bool = True
    #: Whether an error of a write may come out only when the file is closed.
    tells_late: bool = True

    def __post_init__(self) -> None:
        self.real = os.path.realpath(self.path)

    def how_to_publish(self) -> Publishing:
        """Return how to publish here, and try it out first where that could not be done yet.

        :raises CannotPublish: there is no way
        :raises OSError: files cannot be made here
        """
        how = self.publishing
        if how is None:
            how = self.publishing = probe(self.path)[0]
        return how

    def try_publishing(self) -> bool:
        """Find out how to publish here, and return whether files can be locked.

        :raises CannotPublish: there is no way
        :raises OSError: files cannot be made here
        """
        self.publishing, locks = probe(self.path)
        return locks


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
        #: Where the lock lies under which an id is published; the same for every process.
        self.lock_directory = min(self.paths, default="")

    def prepare(
        self, store_id: str, dir_perm: int | None, file_perm: int | None, durable: bool
    ) -> bool:
        """Make the directories that are missing and try out that objects can be added.

        :param dir_perm: mode of directories that are made; ``None`` leaves it to the umask
        :param file_perm: mode of the files; where there is no ``dir_perm``, whoever is to reach
            the files may search the directories
        :returns: whether files can be locked in each
        :raises BadStoreConfiguration: readable if any of the directories is there
        """
        locks = True
        for each in self._all:
            try:
                _make(each.path, dir_perm)
                if not os.path.isdir(each.path):
                    reason = f"{each.path} is not a directory. Remove it, or name another."
                    break
                if file_perm is not None and dir_perm is None:
                    _open_for(file_perm, each.path)
                if durable:
                    _sync_with_parents(each.path)
                each.name_max = min(names.NAME_MAX, os.pathconf(each.path, "PC_NAME_MAX"))
                each.preallocates = not syscalls.in_memory(each.path)
                each.tells_late = syscalls.tells_late(each.path)
                can_lock = _try_publishing(each)
            except CannotPublish as error:
                reason = str(error)
                break
            except OSError as error:
                reason = str(translate(error, Action.ADD, error.filename or each.path))
                break
            if not can_lock:
                LOG.warning(
                    "Files in %s cannot be locked: a sweep cannot tell an upload at work from a "
                    "leftover and goes by age alone",
                    each.path,
                )
            locks = locks and can_lock
        else:
            return locks
        readable = any(os.path.isdir(path) for path in self.paths)
        raise bad_configuration(store_id, reason, readable=readable)

    def path_of(self, location: FileLocation) -> str:
        """Return the path under which to open what ``location`` names.

        The last component is never resolved: who opens it does not follow a symbolic link.
        :raises BadStoreUri: it lies in none of the directories, or is no object's name
        """
        path = location.path
        parent, _, name = path.rpartition("/")
        if names.is_private(name):
            raise BadStoreUri(
                "%(uri)s names the file of an upload under way, not an object.", uri=location.uri
            )
        if parent in self._parents:
            return path
        real = os.path.realpath(parent or "/")
        for each in self._all:
            if real == each.real or real.startswith(each.real.rstrip("/") + "/"):
                return f"{real}/{name}"
        raise BadStoreUri(
            "%(uri)s lies outside this store's directories: " + ", ".join(self.paths),
            uri=location.uri,
        )

    def may_be_leftover(self, path: str) -> bool:
        """Whether an upload may have left a file of this path."""
        parent, _, name = path.rpartition("/")
        return names.is_private(name) and parent in self._parents

    def holder_of(self, object_id: str) -> str | None:
        """Return the path of whatever has this object's name in any of the directories.

        :raises OSError: that cannot be looked up
        """
        for each in self._all:
            path = f"{each.path}/{object_id}"
            try:
                os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                continue
            return path
        return None

    def choose(self, size: int | None, *, thin: bool = False) -> DataDir:
        """Return the directory for a new object: highest priority, then most free space.

        :param size: bytes that it needs; ``None`` when unknown
        :param thin: ``size`` is the most that it can need, and it may well turn out smaller
        :raises StorageFull: ``size`` fits in none of them
        """
        if len(self._ranked) == 1 and (thin or size is None or size <= SMALL):
            return self._ranked[0]
        needed = max(size or 0, 1)
        roomiest, most, last_error = None, 0, None
        best: DataDir | None = None
        best_free = 0
        for each in self._ranked:
            if best is not None and each.priority != best.priority:
                break
            try:
                free = _room(each.path)[1]
            except OSError as error:
                LOG.warning("Passing over data directory %s: %s", each.path, error)
                last_error = translate(error, Action.ADD, each.path)
                continue
            if free is None:
                free = sys.maxsize
            if free > most:
                roomiest, most = each, free
            if free >= needed and free > best_free:
                best, best_free = each, free
        if best is None and thin:
            best = roomiest
        if best is not None:
            return best
        if last_error is not None and roomiest is None:
            raise last_error
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

    def entries(self) -> Iterator[Entry]:
        """Yield every complete object.

        :raises StoreError: a directory cannot be read
        """
        for each in self._all:
            try:
                with os.scandir(each.path) as found:
                    for entry in found:
                        if names.refusal(entry.name) or not entry.is_file(follow_symlinks=False):
                            continue
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue  # deleted just now
                        if stat.S_ISREG(status.st_mode):
                            location = FileLocation(f"{each.path}/{entry.name}")
                            yield Entry(entry.name, location, status.st_size, status.st_mtime)
            except OSError as error:
                raise translate(error, Action.SURVEY, each.path) from error


def _try_publishing(directory: DataDir) -> bool:
    """Find out how to publish there, unless the disk is full; return whether files can be locked.

    Deleting must stay possible on a full disk, so that alone is no error; the next add tries.
    """
    try:
        return directory.try_publishing()
    except OSError as error:
        if error.errno not in FULL:
            raise
        LOG.warning("%s is full: how to publish there will be tried later", directory.path)
        return True


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
        os.mkdir(path)
    except FileExistsError:
        return
    if dir_perm is not None:
        os.chmod(path, dir_perm)


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
