"""The filesystem driver: objects are files in a directory, named by their id."""

import dataclasses
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from store_lib.driver import (
    CreateOnly,
    Driver,
    Entry,
    HangPolicy,
    Incomplete,
    RequestContext,
    Space,
    Stat,
)
from store_lib.drivers.filesystem.datadirs import DataDirs
from store_lib.drivers.filesystem.errors import Action, symbolic_link, translate
from store_lib.drivers.filesystem.location import FileLocation, Place, id_problem
from store_lib.drivers.filesystem.options import (
    OPTIONS,
    MountMetadata,
    UploadSettings,
    data_directories,
    permissions,
)
from store_lib.drivers.filesystem.reader import FileReader
from store_lib.drivers.filesystem.staging import UploadState, discard, invalid_state, leftovers
from store_lib.drivers.filesystem.writer import FileWriter
from store_lib.exceptions import BadStoreUri, not_found
from store_lib.options import StoreOptions


class FilesystemDriver(Driver[FileLocation]):
    """Objects are files in one or several directories; see :doc:`/drivers/filesystem`."""

    schemes = FileLocation.schemes
    options = OPTIONS
    location_class = FileLocation
    create_only = CreateOnly.ATOMIC
    ranges = True
    copies = True

    _directories = DataDirs(())
    _settings: UploadSettings
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
        self._settings = UploadSettings.of(conf)
        self._directories = DataDirs(data_directories(conf, self.misconfigured))
        # From here on the driver can read objects, even if configure fails.
        file_perm = permissions(
            conf, "filesystem_store_file_perm", stat.S_IRUSR, self.misconfigured
        )
        dir_perm = permissions(conf, "filesystem_store_dir_perm", stat.S_IRWXU, self.misconfigured)
        self._settings = dataclasses.replace(self._settings, file_perm=file_perm)
        self._metadata = MountMetadata(conf, self.misconfigured)
        self._directories.prepare(
            self.misconfigured,
            dir_perm=dir_perm,
            file_perm=file_perm,
            durable=self._settings.durable,
        )
        if not self._directories.atomic:
            self.create_only = CreateOnly.CHECKED

    @property
    def url_prefix(self) -> str:
        if not self._directories.paths:
            return super().url_prefix
        return f"file://{self._directories.paths[0]}"

    def id_problem(self, object_id: str) -> str | None:
        return id_problem(object_id)

    def holds(self, location: FileLocation) -> bool:
        try:
            self._directories.locate(location)
        except BadStoreUri:
            return False
        return True

    def create(
        self, object_id: str, size: int | None, *, nonce: str, context: RequestContext | None
    ) -> FileWriter:
        self._directories.check_free(object_id)
        with self._writer(object_id, nonce) as writer:
            # An object without a known size may need no space, as a copy can be a reflink.
            at_most = self._settings.thin or size is None
            self._directories.try_each(
                lambda directory: writer.stage(directory, size), size, at_most=at_most
            )
            return writer

    def resume(self, state: Mapping[str, Any], *, context: RequestContext | None) -> FileWriter:
        """Continue an upload whose process has ended: see :meth:`FileWriter.state`.

        Its bytes up to ``writer.written`` are kept.  A running upload is never taken over.

        :raises NotFound: the upload no longer exists: it was swept or aborted, or its object was
            published and deleted
        :raises Duplicate: an object with this id exists, which this upload may have published
        :raises InUseByStore: the upload may still be running, or may have published its object
        :raises Invalid: no upload to this store has returned such a state
        """
        upload = UploadState.parse(state)
        directory = self._directories.named(upload.directory)
        if directory is None:
            raise invalid_state(f"{upload.directory} is none of the store's directories")
        self._directories.check_free(upload.object_id)
        writer = self._writer(upload.object_id, upload.nonce)
        writer.take_up(directory, upload)
        return writer

    def read(
        self,
        location: FileLocation,
        offset: int,
        length: int | None,
        *,
        context: RequestContext | None,
    ) -> FileReader:
        place = self._directories.locate(location)
        return FileReader(place, offset, length, self._settings.chunk_size)

    def stat(self, location: FileLocation, *, context: RequestContext | None) -> Stat:
        place = self._directories.locate(location)
        try:
            with place.reached() as (name, directory):
                status = _status(place, name, directory)
        except OSError as error:
            raise translate(error, Action.READ, place.path) from error
        return Stat(status.st_size, status.st_mtime)

    def metadata(self, location: FileLocation) -> dict[str, Any]:
        if not self._metadata:
            return {}
        return self._metadata.of(self._directories.locate(location).path)

    def delete(self, location: FileLocation, *, context: RequestContext | None) -> None:
        place = self._directories.locate(location)
        try:
            with place.reached() as (name, directory):
                _status(place, name, directory)
                self.checkpoint()  # if this call was given up, the name may be another object's now
                os.unlink(name, dir_fd=directory)
        except OSError as error:
            raise translate(error, Action.DELETE, place.path) from error

    def list(self, *, context: RequestContext | None) -> Iterator[Entry]:
        return self._directories.entries(self.retry)

    def list_incomplete(self, *, context: RequestContext | None) -> Iterator[Incomplete]:
        for directory in self._directories.paths:
            yield from leftovers(directory, self.retry)

    def discard(self, incomplete: Incomplete, *, context: RequestContext | None) -> bool:
        if not self._directories.may_be_leftover(incomplete.key):
            raise self.unknown_upload(incomplete.key)
        return discard(incomplete.key, incomplete.modified, self.checkpoint)

    def space(self, *, context: RequestContext | None) -> Space:
        return self._directories.space()

    def _writer(self, object_id: str, nonce: str) -> FileWriter:
        return FileWriter(
            self._directories, self._settings, object_id, nonce, checkpoint=self.checkpoint
        )


def _status(place: Place, name: str, directory: int | None) -> os.stat_result:
    """Return the status of an object's file.

    :raises NotFound: ``name`` is not a file
    :raises Forbidden: ``name`` is a symbolic link
    :raises OSError: the status cannot be read
    """
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise symbolic_link(place.path)
    if not stat.S_ISREG(status.st_mode):
        raise not_found(place.path)
    return status
