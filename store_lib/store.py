"""One configured store: add, get, stat, delete and the rest, through the engine and a driver."""

import builtins
import contextlib
import dataclasses
import functools
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from store_lib.arguments import (
    check_expiry,
    check_helpers,
    check_id,
    check_range,
    check_seconds,
    check_size,
    check_tenants,
)
from store_lib.display import shown
from store_lib.driver import (
    Driver,
    Entry,
    Incomplete,
    Space,
    Stat,
    capabilities,
)
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    Invalid,
    NotFound,
    NotSupported,
    StoreAddDisabled,
    StoreClosed,
    StoreDeleteNotSupported,
    StoreError,
    StoreGetNotSupported,
    StoreRandomGetNotSupported,
)
from store_lib.location import Location, scheme_of
from store_lib.options import StoreOptions
from store_lib.transfer.budget import MIB, PROCESS_BUDGET
from store_lib.transfer.calls import Call, Calls
from store_lib.transfer.digest import check_names
from store_lib.transfer.prefetch import ReadSpec
from store_lib.transfer.reader import ObjectReader, open_reader
from store_lib.transfer.report import TransferReport
from store_lib.transfer.retry import Retry
from store_lib.transfer.source import Source, open_source
from store_lib.transfer.timeouts import HangGuard, Limits, TransferClock
from store_lib.transfer.upload import Progress, UploadResult, UploadSpec, upload

R = TypeVar("R")

#: The digests that are made when the caller asks for none in particular.
DEFAULT_DIGESTS = ("sha512",)


@dataclasses.dataclass(frozen=True, slots=True)
class AddResult:
    """What an add came to."""

    #: Where the object lies; keep it to get, stat or delete the object.
    uri: str
    #: Bytes stored.
    size: int
    #: Hexadecimal digests by algorithm.
    digests: Mapping[str, str]
    #: Id of the store.
    store: str
    #: What the driver wants kept beside the URI: str, list and dict.
    metadata: Mapping[str, Any]
    #: Where the time went.
    report: TransferReport


class Store:
    """One configured store; made by :class:`~store_lib.stores.Stores`.

    :param store_id: its id in the configuration
    :param driver_name: the entry point's name
    :param driver: ``None`` when it could not be made
    :param options: ``None`` when they could not be read
    :param error: why it cannot be used, or only be read
    """

    def __init__(
        self,
        store_id: str,
        driver_name: str,
        driver: Driver[Any] | None,
        options: StoreOptions | None,
        error: BadStoreConfiguration | None = None,
    ) -> None:
        self.id = store_id
        self.driver_name = driver_name
        self.driver = driver
        self.options = options
        #: Why the store cannot be used, or can only be read; ``None`` when all is well.
        self.error = error
        #: Whether an add that names no store comes here.
        self.is_default = False
        self._calls = Calls(store_id, self._close_driver)
        self._guard = HangGuard(
            *(dataclasses.astuple(driver.hang_policy) if driver else (0, 0, 0)),
        )
        get: Callable[[str], Any] = options.__getitem__ if options is not None else lambda _: 0
        self._limits = Limits(
            stall=get("transfer_stall_timeout"),
            deadline=get("transfer_deadline"),
        )
        self._retry = Retry.of(store_id, options) if options is not None else Retry()
        if self._guard.timeout:
            stalls = [each for each in (self._limits.stall, self._guard.timeout) if each]
            self._limits = dataclasses.replace(self._limits, stall=min(stalls))
        _ALL.add(self)

    # What it is.

    @property
    def weight(self) -> int:
        """Preference among stores, the highest first."""
        return int(self.options.weight) if self.options is not None else 0

    @property
    def description(self) -> str | None:
        """What the operator calls it."""
        if self.options is None:
            return None
        found: str | None = self.options.store_description or self.options.description
        return found

    @property
    def readable(self) -> bool:
        """Whether objects can be read."""
        return self.driver is not None and (self.error is None or self.error.readable)

    @property
    def writable(self) -> bool:
        """Whether objects can be added."""
        return self.error is None and "add" in self.capabilities

    @property
    def capabilities(self) -> frozenset[str]:
        """What the driver can do beyond get and stat; see :func:`~store_lib.capabilities`."""
        return capabilities(self.driver) if self.driver is not None else frozenset()

    def __repr__(self) -> str:
        state = "" if self.error is None else ", misconfigured"
        return f"<Store {self.id}: {self.driver_name}{state}>"

    # What it does.

    def add(
        self,
        object_id: str,
        data: Any,
        size: int | None = None,
        *,
        digests: Iterable[str] = DEFAULT_DIGESTS,
        expected: Mapping[str, str] | None = None,
        verifier: Any = None,
        context: Any = None,
        progress: Progress | None = None,
    ) -> AddResult:
        """Store an object under an id that is not taken yet.

        Nothing shows before everything is right, and nothing is left when something is not.

        :param object_id: any string that the backend can hold
        :param data: has ``read`` or ``readinto``, or is an iterable of bytes-likes, bytes, or an
            ``os.PathLike``; read to its end
        :param size: bytes to come; ``None`` when unknown, 0 for an empty object
        :param digests: names of hashlib digests to make on the way
        :param expected: hexadecimal digests by name that the bytes must have
        :param verifier: gets every byte once and in order by ``update``, in a thread of its
            own; its ``verify``, if it has one, is called before the object is published
        :param context: the caller's request context, for backends that act for a user
        :param progress: called with the bytes done and the bytes in all, in this thread
        :raises Duplicate: an object of this id is there, or is being added
        :raises SizeMismatch: the data is longer or shorter than ``size``
        :raises DigestMismatch: the data does not have an ``expected`` digest
        :raises StorageFull: there is no room
        """
        return self._receive(
            data,
            object_id,
            size,
            digests=digests,
            expected=expected,
            verifier=verifier,
            context=context,
            progress=progress,
        )

    def add_copy(
        self,
        reader: ObjectReader,
        object_id: str,
        *,
        digests: Iterable[str] = DEFAULT_DIGESTS,
        expected: Mapping[str, str] | None = None,
        context: Any = None,
        progress: Progress | None = None,
    ) -> AddResult:
        """Store what a reader, of this store or another one, has left to give.

        As :meth:`add`; memory for both ends is reserved together.
        """
        if not isinstance(reader, ObjectReader):
            raise self._at(Invalid(f"Expected a reader of a store, got {shown(reader)}."), "add")
        return self._receive(
            iter(reader),
            object_id,
            reader.length,
            digests=digests,
            expected=expected,
            context=context,
            progress=progress,
            extra_memory=MIB,
        )

    def _receive(
        self,
        data: Any,
        object_id: str,
        size: Any,
        *,
        digests: Iterable[str],
        expected: Mapping[str, str] | None,
        verifier: Any = None,
        context: Any = None,
        progress: Progress | None = None,
        extra_memory: int = 0,
    ) -> AddResult:
        source: Source | None = None
        result: UploadResult | None = None
        try:
            source = open_source(data, size)
            with contextlib.closing(source):
                driver = self._usable("add")
                names = check_names(digests, expected)
                check_helpers(verifier, progress)
                size = source.size if size is None else size
                check_size(size)
                check_id(object_id)
                driver.check_object_id(object_id)
                withdraw = functools.partial(self._withdraw, driver, context)
                clock = TransferClock(self._limits)
                spec = UploadSpec(
                    size=size,
                    digests=names,
                    expected=expected,
                    verifier=verifier,
                    progress=progress,
                    clock=clock,
                    retry=self._retry.to("add", object_id, clock),
                    guard=self._guard,
                    budget=PROCESS_BUDGET,
                    withdraw=withdraw,
                    extra_memory=extra_memory,
                )
                create = functools.partial(
                    driver.create, object_id, size, nonce=os.urandom(16).hex(), context=context
                )
                with self._call(object_id):
                    result = upload(create, source, spec)
            return AddResult(
                uri=result.location.uri,
                size=result.size,
                digests=result.digests,
                store=self.id,
                metadata=driver.metadata(result.location),
                report=result.report,
            )
        except BaseException as error:
            if result is not None:
                withdraw(result.location, error)
            if isinstance(error, StoreError) and (source is None or error is not source.error):
                self._at(error, "add", _printable(object_id))
            raise

    def _withdraw(
        self, driver: Driver[Any], context: Any, location: Location, error: BaseException
    ) -> None:
        """Remove an object that was published by an add or copy that raises all the same."""
        delete = functools.partial(driver.delete, location, context=context)
        try:
            self._retry.to("cleaning up", location).call(
                functools.partial(self._guard.call, delete)
            )
        except StoreError as trouble:
            error.add_note(
                f"It was stored all the same, as {location.uri}, and could not be removed: "
                f"{trouble}"
            )

    def get(
        self,
        uri: str,
        offset: int = 0,
        length: int | None = None,
        *,
        expected: Mapping[str, str] | None = None,
        context: Any = None,
    ) -> ObjectReader:
        """Open an object, or a range of it, for reading.

        :param offset: bytes to leave out at the start
        :param length: bytes to read, clipped at the end of the object; ``None`` for the rest
        :param expected: digests of the whole object to hold its bytes against; a reader of a
            wrong one raises DigestMismatch instead of coming to its end
        :raises NotFound: there is no such object
        :raises InvalidRange: a negative number, or ``offset`` beyond the object's end
        :raises StoreRandomGetNotSupported: a range of a store that cannot do ranges
        """
        driver = self._usable("get")
        whole, length = check_range(offset, length)
        if not whole and not driver.ranges:
            raise self._at(StoreRandomGetNotSupported(offset=offset, chunk_size=length), "get")
        if expected:
            if not whole:
                raise self._at(
                    Invalid("Expected digests can only be held against a whole object."), "get"
                )
            check_names((), expected)
        location = self._locate(driver, uri, "get")
        clock = TransferClock(self._limits)
        spec = ReadSpec(
            driver=driver,
            offset=offset,
            length=length,
            expected=expected or {},
            clock=clock,
            retry=self._retry.to("get", location, clock),
            guard=self._guard,
            budget=PROCESS_BUDGET,
        )
        read = functools.partial(driver.read, location, offset, spec.first_length, context=context)
        try:
            return open_reader(read, spec, self._call())
        except StoreError as error:
            self._at(error, "get")
            raise

    def stat(self, uri: str, *, context: Any = None) -> Stat:
        """Tell of an object without reading it.

        :raises NotFound: there is no such object
        """
        driver = self._usable("stat")
        location = self._locate(driver, uri, "stat")
        return self._do("stat", functools.partial(driver.stat, location, context=context))

    def delete(self, uri: str, *, context: Any = None) -> None:
        """Remove an object.

        :raises NotFound: there is no such object
        :raises InUseByStore: another consumer of the backend uses it
        """
        driver = self._usable("delete")
        location = self._locate(driver, uri, "delete")
        tried = False

        def delete() -> None:
            nonlocal tried
            again, tried = tried, True
            try:
                driver.delete(location, context=context)
            except NotFound:
                if not again:
                    raise
                # The reply to the first request was lost, but not the request.

        self._do("delete", delete)

    def list(self, *, context: Any = None) -> Iterator[Entry]:
        """Yield every complete object, in no order.

        :raises NotSupported: the store cannot list
        """
        driver = self._usable("list")
        list_all = functools.partial(driver.list, context=context)
        return self._each("list", self._guard.call(list_all))

    def list_incomplete(self, *, context: Any = None) -> Iterator[Incomplete]:
        """Yield what adds that never finished have left, and what adds at work have so far.

        :raises NotSupported: the store cannot tell
        """
        driver = self._usable("list_incomplete")
        list_all = functools.partial(driver.list_incomplete, context=context)
        return self._each("list_incomplete", self._guard.call(list_all))

    def sweep(
        self,
        older_than: float,
        *,
        object_id: str | None = None,
        dry_run: bool = False,
        context: Any = None,
    ) -> builtins.list[Incomplete]:
        """Remove what adds that never finished have left, and return what was removed.

        What shows a live upload stays, whatever its age.

        :param older_than: seconds without a sign of life; 0 for any
        :param object_id: only what adds of this id have left; ``None`` for all
        :param dry_run: remove nothing, and return what would be
        :raises NotSupported: the store cannot tell
        :raises StoreError: the first reason why one could not be removed; the others were
        """
        self._check("sweep", check_seconds, older_than)
        driver = self._usable("discard")
        removed = []
        problem: StoreError | None = None
        for each in self.list_incomplete(context=context):
            # A server's clock may tell whole seconds, and so an age below 0.
            if each.live or max(each.age, 0.0) < older_than:
                continue
            if object_id is not None and each.object_id != object_id:
                continue
            discard = functools.partial(driver.discard, each, context=context)
            try:
                if dry_run or self._do("sweep", discard):
                    removed.append(each)
            except StoreError as error:
                problem = problem or error
        if problem is not None:
            problem.add_note(f"{len(removed)} other leftovers were removed.")
            raise problem
        return removed

    def copy(
        self,
        uri: str,
        object_id: str,
        *,
        context: Any = None,
    ) -> AddResult:
        """Make a new object from one of this store, in the backend itself.

        No byte passes through here, so the result has no digests.

        :raises NotSupported: the store cannot copy by itself
        :raises NotFound: there is no such object
        :raises Duplicate: an object of this id is there, or is being added
        """
        driver = self._usable("copy")
        began = time.perf_counter()
        made: list[Location] = []  # who takes it out removes it, once

        def copy() -> Location:
            # An interrupt on the way back would lose what is only returned.
            made.append(driver.copy(location, object_id, nonce=nonce, context=context))
            return made[-1]

        def withdraw(remove: Callable[[Location], object]) -> None:
            try:
                place = made.pop()
            except IndexError:
                return
            remove(place)

        try:
            check_id(object_id)
            driver.check_object_id(object_id)
            location = self._locate(driver, uri, "copy")
            nonce = os.urandom(16).hex()
            with self._call(object_id):
                clock = TransferClock(self._limits)
                retry = self._retry.to("copy", location)
                delete = functools.partial(driver.delete, context=context)
                call = functools.partial(
                    self._guard.call,
                    copy,
                    on_late_result=lambda _: withdraw(delete),
                    watch=clock,  # bounded by its progress: it may take as long as an upload
                )
                found = retry.call(call)
                stat = functools.partial(driver.stat, found, context=context)
                looking = functools.partial(self._guard.call, stat)
                size = retry.call(looking, "looking at what is stored").size or 0
            spent = time.perf_counter() - began
            report = TransferReport(size, spent, 0.0, 0.0, spent, 0.0, 0, 1, 0)
            return AddResult(found.uri, size, {}, self.id, driver.metadata(found), report)
        except BaseException as error:
            withdraw(functools.partial(self._withdraw, driver, context, error=error))
            if isinstance(error, StoreError):
                self._at(error, "copy", _printable(object_id))
            raise

    def space(self, *, context: Any = None) -> Space:
        """Tell how much room there is.

        :raises NotSupported: the store cannot tell
        """
        driver = self._usable("space")
        return self._do("space", functools.partial(driver.space, context=context))

    def set_acls(
        self,
        uri: str,
        *,
        public: bool = False,
        read_tenants: Sequence[str] = (),
        write_tenants: Sequence[str] = (),
        context: Any = None,
    ) -> None:
        """Set who else may read or write an object in the backend.

        :raises NotSupported: the store has no access control lists
        """
        self._check("set_acls", check_tenants, read_tenants)
        self._check("set_acls", check_tenants, write_tenants)
        driver = self._usable("set_acls")
        location = self._locate(driver, uri, "set_acls")
        self._do(
            "set_acls",
            lambda: driver.set_acls(
                location,
                public=public,
                read_tenants=read_tenants,
                write_tenants=write_tenants,
                context=context,
            ),
        )

    def url(self, uri: str, *, expires: int = 3600, context: Any = None) -> str:
        """Return a URL that reads the object without further credentials.

        :param expires: seconds that it is good for
        :raises NotSupported: the store has no such URLs
        """
        self._check("url", check_expiry, expires)
        driver = self._usable("url")
        location = self._locate(driver, uri, "url")
        return self._do("url", lambda: driver.url(location, expires=expires, context=context))

    def close(self) -> None:
        """Refuse new work, and release the driver once what is under way has ended."""
        self._calls.close()

    # What these have in common.

    def _usable(self, operation: str) -> Driver[Any]:
        """Return the driver, when the store can do ``operation`` at all."""
        if self.driver is not None and self.error is None and not self._calls.closed:
            return self.driver
        if self._calls.closed:
            raise StoreClosed(store=self.id, operation=operation)
        reading = operation in ("get", "stat", "list", "list_incomplete", "space", "url")
        if self.driver is None or (self.error and not (reading and self.error.readable)):
            kind: type[NotSupported] = {
                "add": StoreAddDisabled,
                "copy": StoreAddDisabled,
                "delete": StoreDeleteNotSupported,
                "get": StoreGetNotSupported,
                "stat": StoreGetNotSupported,
            }.get(operation, NotSupported)
            raise kind(
                f"Store {self.id} is not usable for {operation}: {self.error}",
                store=self.id,
                operation=operation,
            )
        return self.driver

    def _check(self, operation: str, check: Callable[[Any], object], value: Any) -> None:
        try:
            check(value)
        except StoreError as error:
            self._at(error, operation)
            raise

    def _locate(self, driver: Driver[Any], uri: str, operation: str) -> Location:
        try:
            scheme_of(uri)
            location: Location = driver.parse(uri)
            if not driver.owns(location):
                raise BadStoreUri(
                    f"Expected a URI of store {self.id}, such as one that begins with "
                    f"{driver.url_prefix}, got %(uri)s. Nothing is asked of other servers. If the "
                    "store has moved from there, list that place in its option former_places.",
                    uri=uri,
                )
            return location
        except StoreError as error:
            self._at(error, operation)
            raise

    def _at(self, error: StoreError, operation: str, object_id: str | None = None) -> StoreError:
        return error.annotate(store=self.id, operation=operation, object_id=object_id)

    def _do(self, operation: str, call: Callable[[], R]) -> R:
        """Make a call that moves no object: counted, bounded, repeated, its errors located."""
        try:
            with self._call():
                return self._retry.to(operation).call(functools.partial(self._guard.call, call))
        except StoreError as error:
            self._at(error, operation)
            raise

    def _each(self, operation: str, found: Iterator[R]) -> Iterator[R]:
        try:
            with self._call():
                yield from self._guard.iterate(found)
        except StoreError as error:
            self._at(error, operation)
            raise

    def _call(self, object_id: str | None = None) -> Call:
        """Return a call, to be begun; of two that add the same object at a time one is refused."""
        return Call(self._calls, object_id)

    def _close_driver(self) -> None:
        if self.driver is not None:
            self.driver.close()

    def _after_fork(self) -> None:
        """In the child: the parent's transfers are not ours, and its locks may be held."""
        self._calls.forget()
        self._guard = self._guard.renewed()


def _printable(object_id: Any) -> str | None:
    return object_id[:255] if isinstance(object_id, str) else None


_ALL: "weakref.WeakSet[Store]" = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_ALL):
        store._after_fork()


os.register_at_fork(after_in_child=_after_fork)
