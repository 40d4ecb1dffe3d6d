"""The filesystem driver: each object is one file in a directory, named by the object's id."""

import contextlib
import dataclasses
import functools
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from store_lib.display import get_logger
from store_lib.driver import CreateOnly, Driver, Entry, HangPolicy, Incomplete, Space, Stat
from store_lib.drivers.filesystem.datadirs import DataDir, DataDirs
from store_lib.drivers.filesystem.errors import Action, symbolic_link, translate
from store_lib.drivers.filesystem.location import FileLocation, Place, id_problem
from store_lib.drivers.filesystem.options import (
    OPTIONS,
    MountMetadata,
    data_directories,
    permissions,
)
from store_lib.drivers.filesystem.reader import FileReader, open_object
from store_lib.drivers.filesystem.staging import discard, leftovers
from store_lib.drivers.filesystem.writer import HOLE_SIZE, FileWriter, Settings
from store_lib.exceptions import (
    BackendException,
    BadStoreUri,
    Duplicate,
    Invalid,
    InvalidObjectId,
    NotFound,
    StorageFull,
    StorageWriteDenied,
    StoreError,
)
from store_lib.location import Location
from store_lib.options import StoreOptions

LOG = get_logger(__name__)
R = TypeVar("R")


class FilesystemDriver(Driver[FileLocation]):
    """Objects are files in one or several directories; see :doc:`/drivers/filesystem`."""

    schemes = FileLocation.schemes
    options = OPTIONS
    location_class = FileLocation
    create_only = CreateOnly.ATOMIC
    ranges = True

    _directories = DataDirs(())
    _settings: Settings
    _metadata: MountMetadata

    def __init__(self, store_id: str, options: StoreOptions) -> None:
        super().__init__(store_id, options)
        self.hang_policy = HangPolicy(
            options.filesystem_store_timeout,
            options.filesystem_store_thread_pool_size,
            options.filesystem_store_threadpool_threshold,
        )

    def configure(self) -> None:
        conf = self.conf
        self._settings = Settings(
            chunk_size=-(-conf.filesystem_store_chunk_size // HOLE_SIZE) * HOLE_SIZE,
            thin=conf.filesystem_thin_provisioning,
            durable=conf.filesystem_store_durable,
        )
        self._directories = DataDirs(data_directories(conf, self.store_id))
        # From here on objects can be read, whatever else is wrong.
        file_perm = permissions(conf, "filesystem_store_file_perm", stat.S_IRUSR, self.store_id)
        dir_perm = permissions(conf, "filesystem_store_dir_perm", stat.S_IRWXU, self.store_id)
        self._settings = dataclasses.replace(self._settings, file_perm=file_perm)
        self._metadata = MountMetadata(conf, self.store_id)
        self._directories.prepare(self.store_id, dir_perm, file_perm, self._settings.durable)
        if not self._directories.atomic:
            self.create_only = CreateOnly.CHECKED

    @property
    def url_prefix(self) -> str:
        if not self._directories.paths:
            return super().url_prefix
        return f"file://{self._directories.paths[0]}"

    def id_problem(self, object_id: str) -> str | None:
        return id_problem(object_id)

    def holds(self, location: Location) -> bool:
        try:
            self._place(location)
        except BadStoreUri:
            return False
        return True

    def _place(self, location: Location) -> Place:
        if not isinstance(location, FileLocation):
            raise BadStoreUri("Expected a file:// URI, got %(uri)s", uri=location.uri)
        return self._directories.place_of(location)

    def create(self, object_id: str, size: int | None, *, nonce: str, context: Any) -> FileWriter:
        self._refuse_if_taken(object_id)
        begin = functools.partial(self._begin, object_id=object_id, size=size, nonce=nonce)
        return self._in_a_directory(begin, size, at_most=self._settings.thin)

    def _refuse_if_taken(self, object_id: str) -> None:
        try:
            holder = self._directories.holder_of(object_id)
        except OSError as error:
            path = str(error.filename or object_id)
            raise translate(error, Action.ADD, path, object_id=object_id) from error
        if holder is not None:
            raise Duplicate(image=object_id)

    def _begin(
        self, directory: DataDir, *, object_id: str, size: int | None, nonce: str
    ) -> FileWriter:
        try:
            return FileWriter(
                self._directories,
                directory,
                self._settings,
                object_id,
                size,
                nonce,
                checkpoint=self.checkpoint,
            )
        except OSError as error:
            path = str(error.filename or f"{directory.path}/{object_id}")
            raise translate(error, Action.ADD, path, object_id=object_id) from error

    def _in_a_directory(
        self, attempt: Callable[[DataDir], R], size: int | None, *, at_most: bool
    ) -> R:
        """Make an attempt in the best directory, and in the next where that one fails.

        What is free is only a forecast: quotas do not show in it, and a disk may be broken.
        """
        problem: StoreError | None = None
        try:
            for directory in self._directories.candidates(size, at_most=at_most):
                try:
                    return attempt(directory)
                except (
                    BackendException,
                    InvalidObjectId,
                    StorageFull,
                    StorageWriteDenied,
                ) as error:
                    if len(self._directories.paths) > 1:
                        LOG.warning("Passing over data directory %s: %s", directory.path, error)
                    problem = problem or error
            assert problem is not None  # there is one candidate at least
            raise problem
        finally:
            del problem  # with its traceback it would keep this frame, and the callers' memory

    def read(
        self, location: Location, offset: int, length: int | None, *, context: Any
    ) -> FileReader:
        return FileReader(self._place(location), offset, length, self._settings.chunk_size)

    def stat(self, location: Location, *, context: Any) -> Stat:
        place = self._place(location)
        try:
            with place.reached() as (name, directory):
                status = _status(place, name, directory)
        except OSError as error:
            raise translate(error, Action.READ, place.path) from error
        return Stat(status.st_size, status.st_mtime)

    def metadata(self, location: Location) -> dict[str, Any]:
        return self._metadata.of(self._place(location).path) if self._metadata else {}

    def delete(self, location: Location, *, context: Any) -> None:
        place = self._place(location)
        try:
            with place.reached() as (name, directory):
                _status(place, name, directory)
                self.checkpoint()  # what has the name after a long time may be another object
                os.unlink(name, dir_fd=directory)
        except OSError as error:
            raise translate(error, Action.DELETE, place.path) from error

    def list(self, *, context: Any) -> Iterator[Entry]:
        return self._directories.entries(self.retry)

    def list_incomplete(self, *, context: Any) -> Iterator[Incomplete]:
        for directory in self._directories.paths:
            yield from leftovers(directory, self.retry)

    def discard(self, incomplete: Incomplete, *, context: Any) -> bool:
        if not self._directories.may_be_leftover(incomplete.key):
            raise Invalid(
                f"Expected the key of a leftover in {', '.join(self._directories.paths)}, got "
                f"{incomplete.key!a}. Take it from a listing of this store."
            )
        return discard(incomplete.key, incomplete.modified, self.checkpoint)

    def copy(self, location: Location, object_id: str, *, nonce: str, context: Any) -> FileLocation:
        writers: list[FileWriter] = []
        try:
            source, status = open_object(self._place(location))
            with contextlib.closing(source), source as fd:
                self._refuse_if_taken(object_id)

                def attempt(directory: DataDir) -> FileLocation:
                    writers.append(
                        self._begin(directory, object_id=object_id, size=None, nonce=nonce)
                    )
                    with writers[-1] as writer:
                        writer.fill_from(fd, status)
                        return writer.commit(status.st_size)

                # Holes take no room; and a clone takes none at all: a full directory is tried too.
                needed = min(status.st_size, status.st_blocks * 512)
                return self._in_a_directory(attempt, needed, at_most=True)
        except StoreError:
            raise
        except BaseException:  # an interrupt, perhaps after the object was published
            for each in writers:
                each.abort()
            raise

    def space(self, *, context: Any) -> Space:
        return self._directories.space()


def _status(place: Place, name: str, directory: int | None) -> os.stat_result:
    """Return the status of an object's file.

    :raises NotFound: it is something else than a file
    :raises Forbidden: it is a symbolic link
    :raises OSError: it cannot be looked at
    """
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise symbolic_link(place.path)
    if not stat.S_ISREG(status.st_mode):
        raise NotFound(image=place.path)
    return status
