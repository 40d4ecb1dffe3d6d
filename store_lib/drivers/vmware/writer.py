"""Writes an object into a temporary file, which is renamed when it is complete."""

import contextlib
import dataclasses
from collections.abc import Sequence

from store_lib.driver import Body, PartWriter, Stat
from store_lib.drivers.vmware.folder import Folder
from store_lib.drivers.vmware.location import VmwareLocation
from store_lib.drivers.vmware.options import Datastore
from store_lib.drivers.vmware.tasks import DatastoreFiles
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    InUseByStore,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
    TimeoutError,
    duplicate,
)


class VmwareWriter(PartWriter):
    """The upload of one object.

    :param location: the object's location
    :param name: the name of the upload's file, in the same directory
    :param others: the other datastores, on which an object with this id may exist
    """

    def __init__(
        self,
        folder: Folder,
        files: DatastoreFiles,
        location: VmwareLocation,
        name: str,
        others: Sequence[Datastore],
    ) -> None:
        self._folder = folder
        self._files = files
        self._location = location
        self._upload = dataclasses.replace(location, name=name)
        self._others = others
        #: Whether the upload's file may exist.
        self._file_may_exist = False
        #: The number of bytes sent; ``None`` until the server has confirmed them.
        self._sent: int | None = None
        #: Size and time of the upload's file; ``None`` until it is known to be complete.
        self._complete: Stat | None = None
        #: Whether a rename was requested whose outcome is unknown.
        self._in_doubt = False
        self._moved = False
        self._refused = False

    def write_once(self, body: Body) -> VmwareLocation:
        """Send all bytes, check that they have arrived, and rename the file."""
        datastore = self._location.datastore
        self._files.create_directory(datastore)  # a request only if it may not exist
        self._file_may_exist = True
        self._sent = self._complete = None
        try:
            self._folder.put(self._upload.target, body)
        except NotFound as error:
            self._files.forget_directory(datastore)
            raise RemoteServiceUnavailable(
                f"{error}. Expected the directory {self._location.directory!r} on "
                f"{datastore.display_name}; it is created when the object is added again."
            ) from None
        self._sent = body.tell()
        return self._publish()

    def resolve(self) -> VmwareLocation | None:
        """Complete the rename, if only the small requests after the upload failed.

        The server has confirmed all bytes then.  The engine can repeat this method, but not the
        upload itself.
        """
        if self._sent is None or self._refused:
            return None
        try:
            return self._publish()
        except Duplicate:
            return None

    def abort(self) -> None:
        """Delete the file, which has the upload's name or already the object's."""
        published = self._moved or (self._in_doubt and self._is_ours())
        if not published and not self._file_may_exist:
            return
        name = self._location.name if published else self._upload.name
        try:
            with contextlib.suppress(NotFound):  # the server has not kept the file
                self._files.delete(self._location.datastore, name)
        except InUseByStore as error:
            error.status = ErrorStatus.TEMPORARY  # the server still processes the upload
            raise

    def _publish(self) -> VmwareLocation:
        """Rename the file; may be called again after a temporary error."""
        if self._complete is None:
            self._complete = self._check_complete()
        if not self._moved:
            self._check_others()
            self._move()
        try:
            self._check_others()
        except Duplicate:
            self._withdraw()
            raise
        return self._location

    def _check_complete(self) -> Stat:
        """Check that the file has as many bytes as were sent, and return its size and time."""
        stored = self._folder.stat(self._upload.target)
        if stored is None or stored.size not in (None, self._sent):
            got = "nothing" if stored is None else f"{stored.size} bytes"
            raise BackendException(
                f"Expected {self._sent} bytes on {self._location.datastore.display_name}, as the "
                f"server confirmed, got {got}. Check the datastore's free space and health."
            )
        return stored

    def _move(self) -> None:
        datastore, name = self._location.datastore, self._location.name
        try:
            self._files.move(datastore, self._upload.name, name)
        except (Duplicate, NotFound) as error:
            if not (self._in_doubt and self._is_ours()):
                self._refused = True
                raise self._publish_error(error) from None
        except InUseByStore as error:
            # The server still processes the upload.
            error.status = ErrorStatus.TEMPORARY
            raise
        except BaseException as error:
            if not isinstance(error, StoreError) or _is_ambiguous(error):
                self._in_doubt = True  # this may also be an interrupt before the response
            raise
        self._moved = True

    def _publish_error(self, error: StoreError) -> StoreError:
        if isinstance(error, Duplicate):
            return duplicate_at(self._location)
        return BackendException(
            f"The upload to {self._location.datastore.display_name} was removed before it could be "
            "published. Sweep only what is older than the longest upload."
        )

    def _is_ours(self) -> bool:
        """Return whether this upload's file now has the object's name, and the old name is free."""
        return (
            self._folder.stat(self._upload.target) is None
            and self._folder.stat(self._location.target) == self._complete
        )

    def _check_others(self) -> None:
        for datastore in self._others:
            other = dataclasses.replace(self._location, datastore=datastore)
            if self._folder.stat(other.target) is not None:
                self._refused = True
                raise duplicate_at(other)

    def _withdraw(self) -> None:
        """Delete the renamed file: a concurrent add of the same id won on another datastore."""
        self._files.delete(self._location.datastore, self._location.name)
        self._moved = self._file_may_exist = self._in_doubt = False


def _is_ambiguous(error: StoreError) -> bool:
    return error.status is ErrorStatus.TEMPORARY or isinstance(error, TimeoutError)


def duplicate_at(location: VmwareLocation) -> Duplicate:
    """Return the error for an object that already exists at ``location``."""
    return duplicate(location.name, f"on {location.datastore.display_name}")
