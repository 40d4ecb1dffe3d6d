"""An upload: a staged file that is filled at any position and then given its final name."""

import contextlib
import dataclasses
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator

from store_lib.display import get_logger
from store_lib.driver import Chunk, PositionWriter, do_nothing
from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.datadirs import SMALL, DataDir, DataDirs
from store_lib.drivers.filesystem.errors import Action, translate
from store_lib.drivers.filesystem.location import FileLocation
from store_lib.drivers.filesystem.publishing import Publishing, publish
from store_lib.drivers.filesystem.staging import stage
from store_lib.exceptions import Duplicate, ErrorStatus, ObjectChanged, StoreClosed, StoreError

LOG = get_logger(__name__)

#: Smallest hole worth making: smaller ones would break a file into crumbs and save little.
HOLE_SIZE = 64 * 1024

#: Bytes that the kernel is asked to copy in one call: seldom enough, and still interruptible.
_KERNEL_PIECE = 64 * 1024 * 1024
_PIECE = 1024 * 1024
#: Bytes of the holes that are looked for.
_HOLE = 64 * 1024
_ZEROS = bytes(_HOLE)
#: What copy_file_range answers where it cannot do it between these two files.
_NOT_BETWEEN = syscalls.UNSUPPORTED | {errno.EXDEV, errno.EBADF, errno.EPERM, errno.EACCES}

_GIVEN_UP = "The upload was given up."


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What the options say of every upload."""

    chunk_size: int
    thin: bool
    durable: bool
    file_perm: int | None = None


class FileWriter(PositionWriter):
    """Fills a staged file and publishes it.

    :param size: bytes to come; ``None`` when unknown
    :param checkpoint: called between two steps that may hang; see :attr:`Driver.checkpoint`
    :raises OSError: the staged file cannot be made or has no room; nothing is left
    """

    #: The staged file; a closed one until it is there.
    _file = syscalls.closed()

    concurrency = 1  # the kernel lets one write at a time into a file anyway
    reserved = sys.maxsize  # a file grows by itself

    def __init__(
        self,
        directories: DataDirs,
        directory: DataDir,
        settings: Settings,
        object_id: str,
        size: int | None,
        nonce: str,
        *,
        checkpoint: Callable[[], None] = do_nothing,
    ) -> None:
        self.chunk_size = settings.chunk_size
        self.hole_size = HOLE_SIZE if settings.thin else None
        self._directories = directories
        self._directory = directory
        self._publishing = directory.how_to_publish()
        self._settings = settings
        self._object_id = object_id
        self._final = f"{directory.path}/{object_id}"
        #: Whether the file's size may differ from the object's until commit.
        self._resize = settings.thin
        #: Whether a write failed: then only fsync tells whether earlier ones are sound.
        self._doubtful = False
        self._checkpoint = checkpoint
        self._aborted = False
        #: The last status of the file.  It shows whether the final name is ours, also once the
        #: file is closed.
        self._status: os.stat_result | None = None
        self._staged = ""
        try:
            self._file, self._staged = stage(directory.path, object_id, nonce, directory.name_max)
            if size and (size > SMALL or len(directories.paths) > 1):
                self._make_room(size, directory.preallocates)
        except BaseException:
            if self._staged:
                self.abort()
            raise

    def _make_room(self, size: int, preallocates: bool) -> None:
        with self._file as fd:
            if self._settings.thin:
                # Told the size, XFS does not allocate ahead of each write into the holes.
                os.ftruncate(fd, size)
            elif preallocates:
                self._resize = syscalls.preallocate(fd, size)

    def write_at(self, offset: int, data: Chunk) -> None:
        with self._file as fd:
            try:
                syscalls.write_all(fd, data, offset)
            except OSError as error:
                self._doubtful = True
                raise translate(error, Action.ADD, self._staged) from error
            if self._settings.durable:
                syscalls.pace_writeback(fd, offset, offset + len(data))

    def zero(self, offset: int, length: int) -> None:
        """Leave the hole that is there: :meth:`commit` sets the size, whatever was written."""

    def fill_from(self, source: int, status: os.stat_result) -> None:
        """Fill the file from another one's descriptor, holes and all.

        :param status: the source's, as it was when it was opened
        :raises ObjectChanged: the source is not what it was
        """
        self._resize = True
        with self._file as fd:
            try:
                copy_contents(
                    source, fd, status, durable=self._settings.durable, step=self._checkpoint
                )
            except OSError as error:
                raise translate(error, Action.ADD, self._staged) from error

    def commit(self, size: int) -> FileLocation:
        with self._file as fd:
            self._settle(fd, size)
            self._checkpoint()
            try:
                self._status = os.fstat(fd)
                self._publish()
            except OSError as error:
                raise self._translated(error) from error
        self._checkpoint()
        try:
            self._finish()
        except OSError as error:
            raise self._translated(error) from error
        self._checkpoint()  # who takes it back here knows whether the name still is this file's
        return FileLocation(self._final)

    def _translated(self, error: OSError) -> StoreError:
        return translate(error, Action.ADD, self._final, object_id=self._object_id)

    def _settle(self, fd: int, size: int) -> None:
        """Make the staged file what the object is to be, and know that its bytes are safe."""
        settings = self._settings
        try:
            if self._resize:
                os.ftruncate(fd, size)
            self._set_permissions(fd)
            if settings.durable or self._doubtful:
                syscalls.fsync(fd)
            elif self._directory.reports_errors_on_close:
                # A network file system may hold back an error until the file is closed.  Closing
                # a duplicate brings it out now, while nothing is published.
                os.close(os.dup(fd))
        except OSError as error:
            # After a failed fsync the system takes the lost pages for written, and a second one
            # would succeed: so this is final, whatever the error number.
            raise translate(
                error, Action.ADD, self._staged, status=ErrorStatus.PERMANENT
            ) from error

    def _set_permissions(self, fd: int) -> None:
        """Open the file to whom it is for; until now it was this user's alone."""
        wanted = self._settings.file_perm
        if wanted is None:
            wanted = self._directory.file_mode
        try:
            os.fchmod(fd, wanted)
        except OSError as error:
            if stat.S_IMODE(os.fstat(fd).st_mode) == wanted:
                return
            LOG.warning(
                "Cannot set the permissions of %s to %o, keeping what they are: %s",
                self._final,
                wanted,
                error,
            )

    def _publish(self) -> None:
        """Give the file its final name, if no other has it.

        :raises Duplicate: another one has it, or is about to get it (then temporary)
        """
        directories = self._directories
        with directories.sole_publisher(self._directory, self._object_id) as check:
            if check is not None:
                holder = directories.holder_of(self._object_id)
                if holder is not None and not (holder == self._final and self._is_ours()):
                    raise Duplicate(image=self._object_id)
                check()
            self._give_name()
            if check is not None:
                self._look_again()
        if self._aborted:  # while the call hung
            self._withdraw()
            raise StoreClosed(_GIVEN_UP)

    def _give_name(self) -> None:
        if self._aborted:  # this call hung, was given up, and has come back to life
            raise StoreClosed(_GIVEN_UP)
        try:
            publish(self._publishing, self._staged, self._final)
        except (FileExistsError, FileNotFoundError) as error:
            # A network file system repeats a request whose answer was lost, and then finds
            # that the name is taken, or that the staged one is gone: by this very file.
            if self._is_ours():
                return
            if isinstance(error, FileExistsError):
                raise Duplicate(image=self._object_id) from error
            raise

    def _look_again(self) -> None:
        """Take back what was published beside another one.

        Two processes that see different directories may have locked the id in different ones.
        """
        other = self._directories.holder_of(self._object_id, other_than=self._directory.path)
        if other is None and self._publishing is Publishing.CHECKED and not self._is_ours():
            other = self._directories.holder_of(self._object_id)
        if other is not None:
            self._withdraw()
            raise Duplicate(image=self._object_id)

    def _is_ours(self) -> bool:
        """Whether the file of the final name is this upload's."""
        return self._status is not None and syscalls.same_file(self._final, self._status)

    def _finish(self) -> None:
        """Do what is left to do once the file has its final name.

        It is closed first: NFS and FUSE would rename a name that is removed while it is open.
        """
        self._file.close()
        if self._publishing is Publishing.LINK:
            try:
                _unlink(self._staged)
            except OSError as error:
                # The object is there and whole.  A sweep removes the other name one day.
                LOG.warning(
                    "Cannot remove %s after publishing %s: %s", self._staged, self._final, error
                )
        if self._settings.durable:
            syscalls.fsync_directory(self._directory.path)

    def abort(self) -> None:
        # First of all: a commit that was given up looks at it after it has published.
        self._aborted = True
        try:
            try:
                self._withdraw()
            finally:
                self._file.close()  # see _finish
                _unlink(self._staged)
        except OSError as error:
            raise translate(error, Action.DELETE, self._staged) from error
        finally:
            self._file.close()

    def __del__(self) -> None:
        # An interrupt may lose a writer between its making and whoever would abort it.  In a
        # child the file is closed, so the parent's stays.
        if getattr(self, "_staged", "") and not self._file.closed:
            with contextlib.suppress(StoreError):
                self.abort()

    def _withdraw(self) -> None:
        """Take back what a commit has published."""
        if not self._is_ours():
            return
        if self._file.closed:
            # Its inode may have been freed, and become another object's.
            assert self._status is not None
            if not syscalls.unchanged(self._status, os.stat(self._final, follow_symlinks=False)):
                return
        _unlink(self._final)

    def resolve(self) -> FileLocation | None:
        try:
            if not self._is_ours():
                return None
            self._finish()
        except OSError as error:
            raise translate(error, Action.ADD, self._final) from error
        return FileLocation(self._final)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def copy_contents(
    source: int,
    target: int,
    status: os.stat_result,
    *,
    durable: bool,
    step: Callable[[], None] = do_nothing,
) -> None:
    """Copy all of one file to another, empty one, holes as holes.

    :param status: the source's, as it was when it was opened
    :param durable: set the disk to work on what has been copied at once
    :param step: called between the pieces
    :raises ObjectChanged: the source is not what it was
    :raises OSError: reading or writing failed
    """
    if not syscalls.clone(source, target):
        os.ftruncate(target, status.st_size)
        _copy_data(source, target, status, durable, step)
    elif os.fstat(target).st_size != status.st_size:
        raise ObjectChanged
    if not syscalls.unchanged(status, os.fstat(source)):
        raise ObjectChanged


def _copy_data(
    source: int, target: int, status: os.stat_result, durable: bool, step: Callable[[], None]
) -> None:
    look = _hides_holes(source, status)
    in_kernel = not look
    for start, end in _data(source, status.st_size):
        while start < end:
            if in_kernel:
                copied = _copy_in_kernel(source, target, start, min(end - start, _KERNEL_PIECE))
                in_kernel = copied > 0
            if not in_kernel:
                copied = _copy_piece(source, target, start, min(end - start, _PIECE), look)
            if durable:
                syscalls.pace_writeback(target, start, start + copied)
            start += copied
            step()


def _hides_holes(fd: int, status: os.stat_result) -> bool:
    """Whether the file has holes that the file system does not show, as with FUSE.

    They are then looked for in what is read; the kernel would copy them as zeros.
    """
    if not 0 <= status.st_blocks * 512 < status.st_size:
        return False
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) >= status.st_size
    except OSError as error:
        if error.errno not in syscalls.UNSUPPORTED:
            raise
        return True


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each stretch between holes; all of it where holes do not show."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole is left
            if error.errno not in syscalls.UNSUPPORTED:
                raise
            start, end = end, size
        if start < end:
            yield start, end


def _copy_in_kernel(source: int, target: int, start: int, length: int) -> int:
    """Return the bytes copied; 0 where it cannot be done in the kernel."""
    try:
        return os.copy_file_range(source, target, length, start, start)
    except OSError as error:
        if error.errno not in _NOT_BETWEEN:
            raise
        return 0


def _copy_piece(source: int, target: int, start: int, length: int, look: bool) -> int:
    """Return the bytes copied.

    :param look: leave out blocks of zeros
    """
    data = os.pread(source, length, start)
    if not data:
        raise ObjectChanged
    if not look:
        return os.pwrite(target, data, start)
    for position in range(0, len(data), _HOLE):
        block = data[position : position + _HOLE]
        if block != _ZEROS[: len(block)]:
            syscalls.write_all(target, block, start + position)
    return len(data)
