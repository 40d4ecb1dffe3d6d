"""Adding an object: a staged file is filled at any position and then given its final name."""

import contextlib
import dataclasses
import os
import secrets
import stat
import sys
from collections.abc import Callable, Mapping
from typing import Any

from store_lib.display import get_logger
from store_lib.driver import Chunk, PositionWriter, do_nothing
from store_lib.drivers.filesystem import syscalls
from store_lib.drivers.filesystem.datadirs import SMALL, DataDir, DataDirs
from store_lib.drivers.filesystem.errors import Action, translate, translated
from store_lib.drivers.filesystem.location import FileLocation
from store_lib.drivers.filesystem.options import HOLE_SIZE, UploadSettings
from store_lib.drivers.filesystem.publishing import Publishing
from store_lib.drivers.filesystem.reader import open_object
from store_lib.drivers.filesystem.staging import (
    UploadState,
    WrittenBytes,
    invalid_state,
    reopen,
    stage,
)
from store_lib.exceptions import ErrorStatus, StoreClosed, StoreError, duplicate

LOG = get_logger(__name__)

_GIVEN_UP = "The upload was given up."


class FileWriter(PositionWriter):
    """Fills a staged file and publishes it.

    :meth:`stage` or :meth:`take_up` must be called first.

    :param checkpoint: called between two steps that may hang; see :attr:`Driver.checkpoint`
    """

    concurrency = 1  # the kernel allows one write at a time to a file anyway
    reserved = sys.maxsize  # a file needs no room reserved in advance

    #: The staged file; closed if there is none.
    _file = syscalls.closed()
    #: The path of the staged file; empty if there is none.
    _staged = ""
    _directory: DataDir
    #: The object's path.
    _final: str

    def __init__(
        self,
        directories: DataDirs,
        settings: UploadSettings,
        object_id: str,
        nonce: str,
        *,
        checkpoint: Callable[[], None] = do_nothing,
    ) -> None:
        self.chunk_size = settings.chunk_size
        self.hole_size = HOLE_SIZE if settings.thin else None
        self._directories = directories
        self._settings = settings
        self._object_id = object_id
        self._nonce = nonce
        #: The nonce for the staged name; ``None`` after its first use, as no name is used twice.
        self._fresh_nonce: str | None = nonce
        self._checkpoint = checkpoint
        self._aborted = False
        #: Whether the file's size may differ from the object's until commit.
        self._resize = settings.thin
        #: Whether a write failed; then only fsync shows whether earlier writes were successful.
        self._write_failed = False
        self._written = WrittenBytes()
        #: The last status of the file.  With it, :meth:`_is_ours` can check the final name even
        #: after the file is closed.
        self._status: os.stat_result | None = None

    def stage(self, directory: DataDir, size: int | None = None) -> None:
        """Create the staged file; remove the one in a directory that was tried before.

        :param size: bytes to come; ``None`` if unknown
        :raises StoreError: the file cannot be created or has no room; nothing is left
        """
        try:
            self._remove()
        except StoreError as error:
            LOG.warning("Leaving %s to a sweep: %s", self._staged, error)
        self._check_not_aborted()
        self._staged = ""
        self._use(directory)
        self._status, self._resize = None, self._settings.thin
        try:
            directory.how_to_publish()
            nonce, self._fresh_nonce = self._fresh_nonce or secrets.token_hex(16), None
            self._file, self._staged = stage(
                directory.path, self._object_id, nonce, directory.name_max
            )
            try:
                if size and (size > SMALL or len(self._directories.paths) > 1):
                    self._allocate(size, directory.preallocates)
                self._check_not_aborted()
            except BaseException:
                self._remove()
                raise
        except OSError as error:
            raise self._translated(error) from error

    def _use(self, directory: DataDir) -> None:
        self._directory = directory
        self._final = f"{directory.path}/{self._object_id}"

    def _translated(self, error: OSError) -> StoreError:
        return translate(error, Action.ADD, self._final, object_id=self._object_id)

    def _allocate(self, size: int, preallocates: bool) -> None:
        with self._file as fd:
            if self._settings.thin:
                # If the file has its size, XFS does not allocate ahead of each write into holes.
                os.ftruncate(fd, size)
            elif preallocates:
                self._resize = syscalls.preallocate(fd, size)

    def _check_not_aborted(self) -> None:
        if self._aborted:  # this call hung, was given up, and has returned only now
            raise StoreClosed(_GIVEN_UP)

    @property
    def written(self) -> int:
        """The number of bytes from the start that have been written without a gap."""
        return self._written.end

    def write_at(self, offset: int, data: Chunk) -> None:
        with self._file as fd:
            try:
                syscalls.write_all(fd, data, offset)
            except OSError as error:
                self._write_failed = True
                raise translate(error, Action.ADD, self._staged) from error
            self._written.add(offset, len(data))
            if self._settings.durable:
                syscalls.pace_writeback(fd, offset, offset + len(data))

    def zero(self, offset: int, length: int) -> None:
        """Write nothing, as :meth:`commit` sets the file's size."""
        self._written.add(offset, length)

    def copy_from(self, location: FileLocation) -> FileLocation:
        source, status = open_object(self._directories.locate(location))
        with contextlib.closing(source), source as fd:

            def copy(directory: DataDir) -> FileLocation:
                if directory is not self._directory:
                    self.stage(directory)
                self._fill(fd, status)
                return self.commit(status.st_size)

            # Full directories are tried too, as holes and a reflink take no space.
            needed = min(status.st_size, status.st_blocks * 512)
            return self._directories.try_each(copy, needed, at_most=True)

    def _fill(self, source: int, status: os.stat_result) -> None:
        self._resize = True
        with translated(Action.ADD, self._staged), self._file as fd:
            durable = self._settings.durable
            syscalls.copy_contents(source, fd, status, durable=durable, step=self._checkpoint)

    def commit(self, size: int) -> FileLocation:
        try:
            with self._file as fd:
                self._sync_contents(fd, size)
                self._checkpoint()
                self._status = os.fstat(fd)
                self._publish()
            self._checkpoint()
            self._sync_name()
        except OSError as error:
            raise self._translated(error) from error
        self._checkpoint()  # an abort after this checks whether the final name is this file's
        return FileLocation(self._final)

    def _sync_contents(self, fd: int, size: int) -> None:
        """Give the staged file its size and permissions, and sync it if the store is durable."""
        try:
            if self._resize:
                os.ftruncate(fd, size)
            self._set_permissions(fd)
            if self._settings.durable or self._write_failed:
                syscalls.fsync(fd)
            elif self._directory.reports_errors_on_close:
                # Closing a duplicate reports deferred errors now, before anything is published.
                os.close(os.dup(fd))
        except OSError as error:
            # After a failed fsync the system regards the lost pages as written, and a second fsync
            # would succeed.  So an error is permanent, whatever its number.
            permanent = ErrorStatus.PERMANENT
            raise translate(error, Action.ADD, self._staged, status=permanent) from error

    def _set_permissions(self, fd: int) -> None:
        """Give the file its final permissions; before, only this user can open it."""
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
        """Give the file its final name, if no other file has it; :meth:`_sync_name` comes next.

        :raises Duplicate: another file has the name, or is about to get it (then temporary)
        """
        directories = self._directories
        with directories.sole_publisher(self._directory, self._object_id) as check:
            if check is not None:
                existing = directories.find_existing(self._object_id)
                if existing is not None and not (existing == self._final and self._is_ours()):
                    raise duplicate(self._object_id)
                check()
            self._check_not_aborted()
            try:
                self._directory.how_to_publish().give_name(self._staged, self._final)
            except (FileExistsError, FileNotFoundError) as error:
                # A network file system repeats a request whose response was lost.  The repeated
                # request then fails, as this file itself has the final name already.
                if not self._is_ours():
                    if isinstance(error, FileExistsError):
                        raise duplicate(self._object_id) from error
                    raise
            if check is not None:
                self._check_for_another()
        if self._aborted:  # while the call hung
            self._withdraw()
            raise StoreClosed(_GIVEN_UP)

    def _check_for_another(self) -> None:
        """Withdraw the file if another one was published at the same time.

        Two processes that can write different directories may have locked the id in different ones.
        """
        other = self._directories.find_existing(self._object_id, other_than=self._directory.path)
        checked = self._directory.publishing is Publishing.CHECKED
        if other is None and checked and not self._is_ours():
            other = self._directories.find_existing(self._object_id)
        if other is not None:
            self._withdraw()
            raise duplicate(self._object_id)

    def _is_ours(self) -> bool:
        """Return whether the file with the final name is this upload's."""
        return self._status is not None and syscalls.same_file(self._final, self._status)

    def _sync_name(self) -> None:
        """Remove the staged name, and make the final one durable if the store is.

        With this a durable object is on the disk.  The file is closed first: NFS and FUSE would
        rename a name that is removed while it is open.
        """
        self._file.close()
        if self._directory.publishing is Publishing.LINK:
            try:
                _remove_if_present(self._staged)
            except OSError as error:
                # The object is published and complete.  A sweep will remove the staged name.
                LOG.warning(
                    "Cannot remove %s after publishing %s: %s", self._staged, self._final, error
                )
        if self._settings.durable:
            syscalls.fsync_directory(self._directory.path)

    def abort(self) -> None:
        # Set this first, as a commit that was given up checks it after publishing.
        self._aborted = True
        self._remove()

    def _remove(self) -> None:
        """Remove the staged file, and the object if it was published."""
        if not self._staged:
            return
        with translated(Action.DELETE, self._staged):
            try:
                try:
                    self._withdraw()
                finally:
                    self._file.close()  # see _sync_name
                    _remove_if_present(self._staged)
            finally:
                self._file.close()

    def __del__(self) -> None:
        # After an interrupt the writer may be collected without having been aborted.  In a forked
        # child its file is closed, so that this does not remove the parent's.
        if self._staged and not self._file.closing:
            with contextlib.suppress(StoreError):
                self.abort()

    def _withdraw(self) -> None:
        """Remove the published object."""
        if not self._is_ours():
            return
        if self._file.closing:
            # The file's inode may have been freed, and reused for another object.
            assert self._status is not None
            if not syscalls.unchanged(self._status, os.stat(self._final, follow_symlinks=False)):
                return
        _remove_if_present(self._final)

    def resolve(self) -> FileLocation | None:
        try:
            if not self._is_ours():
                return None
            self._sync_name()
        except OSError as error:
            raise self._translated(error) from error
        return FileLocation(self._final)

    def state(self) -> Mapping[str, Any] | None:
        """Return the state of the upload, or ``None`` once it has ended.

        ``written`` bytes from the start are kept.  With ``filesystem_store_durable`` they are on
        the disk before this returns, and survive a power failure; without it they survive the
        end of the process.  If files cannot be locked, the state is ``None``, as nothing would
        show that this upload has ended.
        """
        if self._file.closing or not self._directory.locks:
            return None
        # As in _sync_contents: a failed fsync is permanent.
        with (
            translated(Action.ADD, self._staged, status=ErrorStatus.PERMANENT),
            self._file as fd,
        ):
            # If the upload ends with a hole, the file does not reach to its end yet.  The bytes of
            # this hole do not count as written, and are written again.
            written = min(self.written, os.fstat(fd).st_size)
            if self._settings.durable or self._write_failed:
                syscalls.fsync(fd)
            if self._settings.durable:
                syscalls.fsync_directory(self._directory.path)
        name = self._staged.rpartition("/")[2]
        state = UploadState(self._object_id, self._nonce, self._directory.path, name, written)
        return dataclasses.asdict(state)

    def take_up(self, directory: DataDir, state: UploadState) -> None:
        """Continue an upload whose process has ended, in place of :meth:`stage`.

        The staged file is truncated to the bytes of the state.

        :raises NotFound: the staged file no longer exists
        :raises InUseByStore: the upload may still be running
        :raises Invalid: the staged file is shorter than the state requires
        """
        path = f"{directory.path}/{state.name}"
        file = reopen(path)
        try:
            with translated(Action.ADD, path), file as fd:
                size = os.fstat(fd).st_size
                if size < state.written:
                    raise invalid_state(f"{path} has {size} bytes, not {state.written}")
                os.ftruncate(fd, state.written)
        except BaseException:
            file.close()
            raise
        self._use(directory)
        self._file, self._staged, self._fresh_nonce = file, path, None
        self._resize = True
        self._written = WrittenBytes(state.written)


def _remove_if_present(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
