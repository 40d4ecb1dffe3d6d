"""Moves, deletes and lists files on datastores by tasks of the API, and waits for the tasks."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from store_lib.clients.decoding import decoding, text
from store_lib.clients.decoding import size as checked_size
from store_lib.clients.polling import Clock, poll
from store_lib.drivers.vmware.client import Session
from store_lib.drivers.vmware.inventory import Inventory
from store_lib.drivers.vmware.location import datastore_path
from store_lib.drivers.vmware.options import Datastore
from store_lib.exceptions import Duplicate, ErrorStatus, NotFound, StoreError, TimeoutError

if TYPE_CHECKING:
    from store_lib.drivers.vmware.soap import Api

#: Seconds before a task is polled the second time; the intervals double from then on.
_FIRST_INTERVAL = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A file in a listing of a datastore."""

    name: str
    #: Size in bytes; ``None`` if the server does not send it.
    size: int | None
    #: Time in seconds since the epoch; ``None`` if the server does not send it.
    modified: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class TaskTimeouts:
    """How long to wait for a task."""

    #: Longest interval between two polls, in seconds.
    interval: float
    #: Seconds that a task may take.
    timeout: float
    #: The number of consecutive polls that may fail.
    failures: int


class DatastoreFiles:
    """The files of the store's directory on all its datastores."""

    def __init__(
        self,
        session: Session,
        inventory: Inventory,
        directory: str,
        timeouts: TaskTimeouts,
        clock: Clock = time,
    ) -> None:
        self._session = session
        self._inventory = inventory
        self._directory = directory
        self._timeouts = timeouts
        self._clock = clock
        self._existing: set[Datastore] = set()

    @property
    def now(self) -> float:
        """The server's time in seconds since the epoch; this machine's before a response."""
        return self._session.now

    def create_directory(self, datastore: Datastore) -> None:
        """Create the directory, unless it is known to exist."""
        if datastore in self._existing:
            return
        datacenter = self._inventory.datacenter(datastore)
        path = datastore_path(datastore.name, self._directory)
        with contextlib.suppress(Duplicate):
            self._session.call(
                f"creating {path}",
                lambda api: api.MakeDirectory(
                    api.service_content.fileManager,
                    name=path,
                    datacenter=datacenter,
                    createParentDirectories=True,
                ),
            )
        self._existing.add(datastore)

    def forget_directory(self, datastore: Datastore) -> None:
        """Forget that the directory exists, so that it is created again when needed."""
        self._existing.discard(datastore)

    def move(self, datastore: Datastore, name: str, new_name: str) -> None:
        """Rename a file; an existing file is never overwritten.

        :raises Duplicate: a file with the new name exists; it was not changed
        :raises NotFound: no file has the old name
        """
        datacenter = self._inventory.datacenter(datastore)
        path, new_path = (
            datastore_path(datastore.name, self._directory, file_name)
            for file_name in (name, new_name)
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

    def delete(self, datastore: Datastore, name: str) -> None:
        """Delete a file.

        :raises NotFound: the file, the datacenter or the datastore does not exist
        :raises InUseByStore: the file is still in use
        """
        datacenter = self._inventory.datacenter(datastore)
        path = datastore_path(datastore.name, self._directory, name)
        self._run(
            f"deleting {path}",
            lambda api: api.DeleteDatastoreFile_Task(
                api.service_content.fileManager, name=path, datacenter=datacenter
            ),
        )

    def search(self, datastore: Datastore, pattern: str) -> list[File]:
        """Return the files whose names match ``pattern``, in which ``*`` matches any text."""
        browser = self._inventory.browser(datastore)
        path = datastore_path(datastore.name, self._directory)

        def start(api: "Api") -> Any:
            details = api.make("FileQueryFlags", fileType=False, fileSize=True, modification=True)
            spec = api.make(
                "HostDatastoreBrowserSearchSpec", details=details, matchPattern=[pattern]
            )
            return api.SearchDatastore_Task(browser, datastorePath=path, searchSpec=spec)

        try:
            result = self._run(f"listing {path}", start)
        except NotFound:
            return []  # the directory does not exist yet
        with decoding(f"the files of {path} from the vSphere server"):
            return [
                _file(info)
                for info in getattr(result, "file", ())
                if type(info).__name__ != "FolderFileInfo"
            ]

    def _run(self, doing: str, start: Callable[["Api"], Any]) -> Any:
        """Start a task, wait for its end, and return its result."""
        return self._wait(doing, self._session.call(doing, start))

    def _wait(self, doing: str, task: Any) -> Any:
        failures = 0

        def ended() -> "_Info | None":
            nonlocal failures
            try:
                info = self._info(task)
            except StoreError as error:
                failures += 1
                temporary = error.status is ErrorStatus.TEMPORARY
                if not temporary or failures > self._timeouts.failures:
                    raise
                return None
            failures = 0
            return info if info.state in ("success", "error") else None

        info = poll(
            ended,
            self._timeouts.timeout,
            interval=_FIRST_INTERVAL,
            longest=self._timeouts.interval,
            growth=2,
            clock=self._clock,
        )
        if info is None:
            raise TimeoutError(
                f"Expected {doing} to end within {self._timeouts.timeout:g} s "
                "(vmware_task_timeout), but it did not. It may end later: see the server's "
                "recent tasks."
            )
        if info.state == "error":
            raise self._session.task_error(info.fault, doing)
        return info.result

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
    """A task's state, its result, and the fault that ended it."""

    state: str
    result: Any
    fault: Any


def _file(info: Any) -> File:
    size, modified = (getattr(info, name, None) for name in ("fileSize", "modification"))
    return File(
        text(str(info.path)),
        None if size is None else checked_size(int(size)),
        None if modified is None else modified.timestamp(),
    )
