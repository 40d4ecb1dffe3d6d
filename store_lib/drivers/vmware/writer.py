"""An upload: into a file of its own, which is renamed once all of it is there."""

import contextlib
import dataclasses
from collections.abc import Sequence

from store_lib.driver import Body, PartWriter, Stat
from store_lib.drivers.vmware.folder import Folder
from store_lib.drivers.vmware.location import VmwareLocation
from store_lib.drivers.vmware.options import Place
from store_lib.drivers.vmware.tasks import Files
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    InUseByStore,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
    TimeoutError,
)


class Upload(PartWriter):
    """One object on its way to a datastore.

    :param location: where it is to lie
    :param name: the file that collects its bytes, in the same directory
    :param others: further datastores on which an object of this id may lie
    """

    def __init__(
        self,
        folder: Folder,
        files: Files,
        location: VmwareLocation,
        name: str,
        others: Sequence[Place],
    ) -> None:
        self._folder = folder
        self._files = files
        self._location = location
        self._upload = dataclasses.replace(location, name=name)
        self._others = others
        #: Whether bytes may lie in the file.
        self._begun = False
        #: Bytes that were sent, once the server has said that it has them.
        self._sent: int | None = None
        #: What the server tells of the file once it is known to be complete.
        self._complete: Stat | None = None
        #: Whether a rename was asked for of which no answer came.
        self._in_doubt = False
        self._moved = False
        self._refused = False

    def write_once(self, body: Body) -> VmwareLocation:
        """Send everything, look that all of it arrived, and rename the file."""
        place = self._location.place
        self._files.make_directory(place)  # asked for once, unless it went away again
        self._begun = True
        self._sent = self._complete = None
        try:
            self._folder.put(self._upload.target, body)
        except NotFound as error:
            self._files.forget_directory(place)
            raise RemoteServiceUnavailable(
                f"{error} Expected the directory {self._location.directory!r} on {place.shown}; "
                "it is made anew when the object is added again."
            ) from None
        self._sent = body.tell()
        return self._publish()

    def resolve(self) -> VmwareLocation | None:
        """Bring the renaming to its end, where only the last small requests were in trouble.

        All bytes are there and judged then; the engine repeats this, as it cannot a long upload.
        """
        if self._sent is None or self._refused:
            return None
        try:
            return self._publish()
        except Duplicate:
            return None

    def abort(self) -> None:
        """Delete whatever of this upload is there, under either name."""
        published = self._moved or (self._in_doubt and self._is_ours())
        if not published and not self._begun:
            return
        name = self._location.name if published else self._upload.name
        try:
            with contextlib.suppress(NotFound):  # the server kept nothing of it
                self._files.delete(self._location.place, name)
        except InUseByStore as error:
            error.status = ErrorStatus.TEMPORARY  # the server is not done with the upload yet
            raise

    def _publish(self) -> VmwareLocation:
        """Rename the file; may be called again after a temporary error."""
        if self._complete is None:
            self._complete = self._look()
        if not self._moved:
            self._check_others()
            self._move()
        try:
            self._check_others()
        except Duplicate:
            self._withdraw()
            raise
        return self._location

    def _look(self) -> Stat:
        """Return what the server tells of the file, when all bytes are in it as far as it tells."""
        stored = self._folder.stat(self._upload.target)
        if stored is None or stored.size not in (None, self._sent):
            got = "nothing" if stored is None else f"{stored.size} bytes"
            raise BackendException(
                f"Expected {self._sent} bytes on {self._location.place.shown}, where the server "
                f"said it had stored them, got {got}. Check the datastore's free space and health."
            )
        return stored

    def _move(self) -> None:
        place, name = self._location.place, self._location.name
        try:
            self._files.move(place, self._upload.name, name)
        except (Duplicate, NotFound) as error:
            if not (self._in_doubt and self._is_ours()):
                self._refused = True
                raise self._refusal(error) from None
        except InUseByStore as error:
            # The server is not done with the upload yet.
            error.status = ErrorStatus.TEMPORARY
            raise
        except BaseException as error:
            if not isinstance(error, StoreError) or _leaves_open(error):
                self._in_doubt = True  # an interrupt too may come before the answer
            raise
        self._moved = True

    def _refusal(self, error: StoreError) -> StoreError:
        if isinstance(error, Duplicate):
            return duplicate(self._location)
        return BackendException(
            f"The upload to {self._location.place.shown} was gone before it could be published: "
            "expected nobody to remove it. Sweep only what is older than the longest upload."
        )

    def _is_ours(self) -> bool:
        """Whether what has the object's name is this upload: its own file is then gone."""
        return (
            self._folder.stat(self._upload.target) is None
            and self._folder.stat(self._location.target) == self._complete
        )

    def _check_others(self) -> None:
        for place in self._others:
            other = dataclasses.replace(self._location, place=place)
            if self._folder.stat(other.target) is not None:
                self._refused = True
                raise duplicate(other)

    def _withdraw(self) -> None:
        """Take back what another add, of the same id on another datastore, was as fast as."""
        self._files.delete(self._location.place, self._location.name)
        self._moved = self._begun = self._in_doubt = False


def _leaves_open(error: StoreError) -> bool:
    return error.status is ErrorStatus.TEMPORARY or isinstance(error, TimeoutError)


def duplicate(location: VmwareLocation) -> Duplicate:
    """Return the error for an object that is there already."""
    return Duplicate(
        f"Object {location.name} already exists on {location.place.shown}; it was not touched."
    )
