"""An upload: a staged file that is filled at any position and then given its final name."""

import contextlib
import dataclasses
import logging
import os
import sys

from store_lib.driver import Chunk, PositionWriter
from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.copying import copy_contents
from store_lib.drivers.filesystem.datadirs import SMALL, DataDir, DataDirs
from store_lib.drivers.filesystem.descriptor import Descriptor
from store_lib.drivers.filesystem.errors import Action, translate
from store_lib.drivers.filesystem.location import FileLocation
from store_lib.drivers.filesystem.publishing import publish, sole_publisher
from store_lib.drivers.filesystem.staging import stage
from store_lib.exceptions import Duplicate, ErrorStatus, StoreClosed, StoreError

LOG = logging.getLogger(__name__)

#: Smallest hole worth making: smaller ones would break a file into crumbs and save little.
HOLE_SIZE = 64 * 1024


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
    :raises OSError: the staged file cannot be made or has no room; nothing is left
    """

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
        self._aborted = False
        self._staged = ""
        self._file = Descriptor()
        try:
            self._file, self._staged = stage(directory.path, object_id, nonce, directory.name_max)
            if size is not None and size > SMALL:
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

    def copy_from(self, source: int, status: os.stat_result) -> None:
        """Fill the file from another one's descriptor, holes and all.

        :param status: the source's, as it was when it was opened
        :raises ObjectChanged: the source is not what it was
        """
        self._resize = True
        with self._file as fd:
            try:
                copy_contents(source, fd, status, durable=self._settings.durable)
            except OSError as error:
                raise translate(error, Action.ADD, self._staged) from error

    def commit(self, size: int) -> FileLocation:
        with self._file as fd:
            self._settle(fd, size)
            try:
                self._publish(fd)
                if self._settings.durable:
                    syscalls.fsync_directory(self._directory.path)
            except OSError as error:
                raise translate(
                    error, Action.ADD, self._final, object_id=self._object_id
                ) from error
        self._file.close()
        return FileLocation(self._final)

    def _settle(self, fd: int, size: int) -> None:
        """Make the staged file what the object is to be, and know that its bytes are safe."""
        settings = self._settings
        try:
            if self._resize:
                os.ftruncate(fd, size)
            if settings.file_perm is not None:
                try:
                    os.fchmod(fd, settings.file_perm)
                except OSError as error:
                    LOG.warning(
                        "Cannot set the permissions of %s to %o, keeping what they are: %s",
                        self._final,
                        settings.file_perm,
                        error,
                    )
            if settings.durable or self._doubtful:
                syscalls.fsync(fd)
            elif self._directory.tells_late:
                # A network file system may hold back an error until the file is closed.  Closing
                # a duplicate brings it out now, while nothing is published.
                os.close(os.dup(fd))
        except OSError as error:
            # After a failed fsync the system takes the lost pages for written, and a second one
            # would succeed: so this is final, whatever the error number.
            raise translate(
                error, Action.ADD, self._staged, status=ErrorStatus.PERMANENT
            ) from error

    def _publish(self, fd: int) -> None:
        if len(self._directories.paths) == 1:
            self._give_name(fd)
            return
        with sole_publisher(self._directories.lock_directory, self._object_id):
            if self._directories.holder_of(self._object_id) not in (None, self._final):
                raise Duplicate(image=self._object_id)
            self._give_name(fd)

    def _give_name(self, fd: int) -> None:
        if self._aborted:  # this call hung, was given up, and has come back to life
            raise StoreClosed("The upload was given up.")
        try:
            publish(self._publishing, self._staged, self._final)
        except (FileExistsError, FileNotFoundError) as error:
            # A network file system repeats a request whose answer was lost, and then finds
            # that the name is taken, or that the staged one is gone: by this very file.
            if not syscalls.same_file(self._final, os.fstat(fd)):
                if isinstance(error, FileExistsError):
                    raise Duplicate(image=self._object_id) from error
                raise
            _unlink(self._staged)

    def abort(self) -> None:
        # In this order: once the staged name is gone, no commit that was given up can publish.
        self._aborted = True
        try:
            _unlink(self._staged)
            if not self._file.closed:
                self._withdraw()
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
        """Take back what a commit published before it failed."""
        with self._file as fd:
            if syscalls.same_file(self._final, os.fstat(fd)):
                _unlink(self._final)

    def resolve(self) -> FileLocation | None:
        try:
            with self._file as fd:
                if not syscalls.same_file(self._final, os.fstat(fd)):
                    return None
            if self._settings.durable:
                syscalls.fsync_directory(self._directory.path)
            _unlink(self._staged)
        except OSError as error:
            raise translate(error, Action.ADD, self._final) from error
        self._file.close()
        return FileLocation(self._final)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
