"""Files on datastores, by the API: moved, deleted, listed, each by a task that is waited for."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from store_lib.clients.decoding import decoding, text
from store_lib.clients.decoding import size as checked_size
from store_lib.drivers.vmware import names
from store_lib.drivers.vmware.inventory import Inventory
from store_lib.drivers.vmware.options import Place
from store_lib.drivers.vmware.session import Session
from store_lib.exceptions import Duplicate, ErrorStatus, NotFound, StoreError, TimeoutError

if TYPE_CHECKING:
    from store_lib.drivers.vmware.soap import Api

#: Seconds before a task is asked about the second time; the pauses double from here on.
_FIRST_PAUSE = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A file that was found on a datastore."""

    name: str
    #: Bytes, where told.
    size: int | None
    #: Seconds since the epoch, where told.
    modified: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """How tasks are waited for."""

    #: Longest pause between two questions, in seconds.
    interval: float
    #: Seconds that a task may take.
    timeout: float
    #: How often in a row a question may get no answer.
    failures: int


class Files:
    """The files of one directory, on any datastore."""

    def __init__(
        self, session: Session, inventory: Inventory, directory: str, patience: Patience
    ) -> None:
        self._session = session
        self._inventory = inventory
        self._directory = directory
        self._patience = patience
        self._made: set[Place] = set()

    def make_directory(self, place: Place) -> None:
        """Make the directory, unless it was seen before."""
        if place in self._made:
            return
        datacenter = self._inventory.datacenter(place)
        path = names.datastore_path(place.datastore, self._directory)
        with contextlib.suppress(Duplicate):
            self._session.call(
                f"making {path}",
                lambda api: api.MakeDirectory(
                    api.service_content.fileManager,
                    name=path,
                    datacenter=datacenter,
                    createParentDirectories=True,
                ),
            )
        self._made.add(place)

    def forget_directory(self, place: Place) -> None:
        """Let the directory be made again: it is not there."""
        self._made.discard(place)

    def move(self, place: Place, name: str, new_name: str) -> None:
        """Rename a file; never onto another one.

        :raises Duplicate: there is a file of the new name; it was not touched
        :raises NotFound: there is no file of the old name
        """
        datacenter = self._inventory.datacenter(place)
        path, new_path = (
            names.datastore_path(place.datastore, self._directory, each)
            for each in (name, new_name)
        )
        self._run(
            f"moving {path} to {new_path}",
            lambda api: api.MoveDatastoreFile_Task(
                api.service_content.fileManager,
                sourceName=path,
                sourceDatacenter=datacenter,
                destinationName=new_path,
                destinationDatacenter=datacenter,
                force=False,
            ),
        )

    def delete(self, place: Place, name: str) -> None:
        """Delete a file.

        :raises NotFound: there is none, or no such datacenter or datastore
        :raises InUseByStore: something still uses it
        """
        datacenter = self._inventory.datacenter(place)
        path = names.datastore_path(place.datastore, self._directory, name)
        self._run(
            f"deleting {path}",
            lambda api: api.DeleteDatastoreFile_Task(
                api.service_content.fileManager, name=path, datacenter=datacenter
            ),
        )

    def search(self, place: Place, pattern: str) -> list[File]:
        """Return the files whose names match ``pattern``, in which ``*`` stands for any text."""
        browser = self._inventory.browser(place)
        path = names.datastore_path(place.datastore, self._directory)

        def begin(api: "Api") -> Any:
            details = api.make("FileQueryFlags", fileType=False, fileSize=True, modification=True)
            spec = api.make(
                "HostDatastoreBrowserSearchSpec", details=details, matchPattern=[pattern]
            )
            return api.SearchDatastore_Task(browser, datastorePath=path, searchSpec=spec)

        try:
            found = self._run(f"listing {path}", begin)
        except NotFound:
            return []  # there is no such directory yet
        with decoding(f"the files of {path} from the vSphere server"):
            return [
                _file(each)
                for each in getattr(found, "file", ())
                if type(each).__name__ != "FolderFileInfo"
            ]

    def _run(self, doing: str, begin: Callable[["Api"], Any]) -> Any:
        """Begin a task, wait for its end, and return its result."""
        return self._wait(doing, self._session.call(doing, begin))

    def _wait(self, doing: str, task: Any) -> Any:
        deadline = time.monotonic() + self._patience.timeout
        pause, failures = _FIRST_PAUSE, 0
        while True:
            try:
                info = self._info(task)
                failures = 0
            except StoreError as error:
                failures += 1
                temporary = error.status is ErrorStatus.TEMPORARY
                if not temporary or failures > self._patience.failures:
                    raise
                info = None
            if info is not None and info.state == "success":
                return info.result
            if info is not None and info.state == "error":
                raise self._session.fault(info.fault, doing)
            if time.monotonic() + pause > deadline:
                raise TimeoutError(
                    f"Expected {doing} to end within {self._patience.timeout:g} s "
                    "(vmware_task_timeout), and it did not. It may end later; look at the "
                    "server's recent tasks."
                )
            time.sleep(pause)  # the API tells of a task's end only when it is asked
            pause = min(2 * pause, self._patience.interval)

    def _info(self, task: Any) -> "_Info":
        def ask(api: "Api") -> _Info:
            (properties,) = api.properties("Task", [task], ["info"]).values()
            info = properties["info"]
            return _Info(
                str(info.state), getattr(info, "result", None), getattr(info, "error", None)
            )

        return self._session.call("the state of a task", ask)


@dataclasses.dataclass(frozen=True, slots=True)
class _Info:
    """What a task is at."""

    state: str
    result: Any
    fault: Any


def _file(told: Any) -> File:
    size, modified = (getattr(told, name, None) for name in ("fileSize", "modification"))
    return File(
        text(str(told.path)),
        None if size is None else checked_size(int(size)),
        None if modified is None else modified.timestamp(),
    )
