"""A configured store, whose operations use the engine and a driver."""

import builtins
import dataclasses
import functools
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from store_lib.arguments import (
    LONGEST_ID,
    check_expiry,
    check_helpers,
    check_id,
    check_range,
    check_seconds,
    check_size,
    check_tenants,
    invalid_id,
)
from store_lib.clients.process import LiveObjects
from store_lib.display import shown
from store_lib.driver import (
    Driver,
    Entry,
    HangPolicy,
    Incomplete,
    PartWriter,
    PositionWriter,
    RequestContext,
    Space,
    Stat,
    Verifier,
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
from store_lib.transfer.budget import MIB, PROCESS_BUDGET, Budget
from store_lib.transfer.calls import Call, Calls
from store_lib.transfer.digest import check_names
from store_lib.transfer.prefetch import ReadSpec
from store_lib.transfer.reader import ObjectReader, ReadLayer, open_reader
from store_lib.transfer.report import TransferReport
from store_lib.transfer.retry import Retry
from store_lib.transfer.source import Source, open_source
from store_lib.transfer.timeouts import HangGuard, Limits, TransferClock
from store_lib.transfer.upload import Progress, UploadResult, UploadSpec, copy, upload

R = TypeVar("R")

#: The digests that are computed unless the caller asks for others.
DEFAULT_DIGESTS = ("sha512",)

#: The operations that a misconfigured store can still do if it is readable.
_READING = frozenset({"get", "stat", "list", "list_incomplete", "space", "url"})
#: The errors of operations that a misconfigured store cannot do; NotSupported for all others.
_UNUSABLE: Mapping[str, type[NotSupported]] = {
    "add": StoreAddDisabled,
    "copy": StoreAddDisabled,
    "delete": StoreDeleteNotSupported,
    "get": StoreGetNotSupported,
    "stat": StoreGetNotSupported,
}


@dataclasses.dataclass(frozen=True, slots=True)
class AddResult:
    """The result of an add."""

    #: The object's location; keep it to get, stat or delete the object.
    uri: str
    #: Size of the object in bytes.
    size: int
    #: Hexadecimal digests by algorithm.
    digests: Mapping[str, str]
    #: Id of the store.
    store: str
    #: Metadata of the driver, to be kept with the URI: values are str, list and dict.
    metadata: Mapping[str, Any]
    #: Numbers and times of the transfer.
    report: TransferReport


@dataclasses.dataclass(slots=True)
class AddOptions:
    """The parameters of an add other than the data and its size."""

    digests: Iterable[str]
    expected: Mapping[str, str] | None
    context: RequestContext | None
    progress: Progress | None
    verifier: Verifier | None = None
    #: Bytes of memory for the reading side of a copy; reserved together with the add's own.
    extra_memory: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Runtime:
    """Parameters of a store that a service passes in addition to the configuration."""

    #: Memory for the transfers.
    budget: Budget = PROCESS_BUDGET
    #: Returns the request context for a call without one.
    context: Callable[[], RequestContext | None] | None = None
    #: The layer between engine and driver for reads.
    read_layer: ReadLayer | None = None


_DEFAULT_RUNTIME = Runtime()


class Store:
    """A configured store; created by :class:`~store_lib.stores.Stores`.

    :param store_id: the store's id in the configuration
    :param driver_name: the name of the driver's entry point
    :param driver: the driver, or ``None`` if it could not be created
    :param options: the store's options, or ``None`` if they could not be read
    :param error: why the store cannot be used, or can only be read
    """

    def __init__(
        self,
        store_id: str,
        driver_name: str,
        driver: Driver[Any] | None,
        options: StoreOptions | None,
        error: BadStoreConfiguration | None = None,
        runtime: Runtime = _DEFAULT_RUNTIME,
    ) -> None:
        self.id = store_id
        self.driver_name = driver_name
        self.driver = driver
        self.options = options
        #: Why the store cannot be used, or can only be read; ``None`` if there is no problem.
        self.error = error
        #: Whether this is the store of adds that name no store.
        self.is_default = False
        self._runtime = runtime
        self._calls = Calls(store_id, self._close_driver)
        self._settings = StoreOptions.of(()) if options is None else options
        self._guard = HangGuard(HangPolicy() if driver is None else driver.hang_policy)
        self._limits = Limits.of(self._settings, self._guard.timeout)
        self._retry = Retry.of(store_id, self._settings)
        _STORES.add(self)

    # Properties

    @property
    def weight(self) -> int:
        """The store's preference; stores with a higher weight come first."""
        return int(self._settings.weight)

    @property
    def description(self) -> str | None:
        """The operator's description of the store."""
        text: str | None = self._settings.store_description or self._settings.description
        return text

    @property
    def readable(self) -> bool:
        """Whether objects can be read."""
        return self.error is None or self.error.readable

    @property
    def writable(self) -> bool:
        """Whether objects can be added."""
        return self.error is None and "add" in self.capabilities

    @property
    def capabilities(self) -> frozenset[str]:
        """The driver's operations besides get and stat; see :func:`~store_lib.capabilities`."""
        return frozenset() if self.driver is None else capabilities(self.driver)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The URI schemes of the store's locations; empty if there is no driver."""
        return () if self.driver is None else self.driver.schemes

    def holds(self, uri: str) -> bool:
        """Return whether ``uri`` is in the place where this store puts new objects.

        Only the configuration is consulted.

        :raises BadStoreUri: ``uri`` is not a URI of this kind of store
        """
        return self.driver is not None and self.driver.holds(self.driver.parse(uri))

    def make_context(self, context: RequestContext | None = None) -> RequestContext | None:
        """Return the request context for a call: ``context``, or else the factory's result."""
        make = self._runtime.context
        return context if context is not None or make is None else make()

    def __repr__(self) -> str:
        state = "" if self.error is None else ", misconfigured"
        return f"<Store {self.id}: {self.driver_name}{state}>"

    # Operations

    def add(
        self,
        object_id: str,
        data: Any,
        size: int | None = None,
        *,
        digests: Iterable[str] = DEFAULT_DIGESTS,
        expected: Mapping[str, str] | None = None,
        verifier: Verifier | None = None,
        context: RequestContext | None = None,
        progress: Progress | None = None,
    ) -> AddResult:
        """Store an object under an id that is not taken yet.

        The object appears in the store only if the whole add succeeds; a failed add leaves nothing
        behind.

        :param object_id: any string that the backend can hold
        :param data: an object with ``read`` or ``readinto``, an iterable of bytes-like objects,
            bytes, or an ``os.PathLike``; it is read to its end
        :param size: size of the data in bytes; ``None`` if unknown, 0 for an empty object
        :param digests: names of the hashlib digests to compute
        :param expected: hexadecimal digests, by name, that the data must have
        :param verifier: its ``update`` is called with all bytes in order, in a separate thread; its
            ``verify``, if it has one, is called before the object is published
        :param context: the caller's request context, for backends that act for a user
        :param progress: called in this thread with the number of bytes done and the total
        :raises Duplicate: an object with this id exists, or is being added
        :raises SizeMismatch: the data is longer or shorter than ``size``
        :raises DigestMismatch: the data does not have an ``expected`` digest
        :raises StorageFull: there is no room
        """
        options = AddOptions(digests, expected, context, progress, verifier)
        return self._upload(object_id, data, size, options)

    def add_copy(
        self,
        reader: ObjectReader,
        object_id: str,
        *,
        digests: Iterable[str] = DEFAULT_DIGESTS,
        expected: Mapping[str, str] | None = None,
        context: RequestContext | None = None,
        progress: Progress | None = None,
    ) -> AddResult:
        """Store the remaining bytes of an open object of this store or another one.

        This works as :meth:`add`, but memory for reading and writing is reserved together.
        """
        with _Annotating(self, "add"):
            if not isinstance(reader, ObjectReader):
                raise Invalid(f"Expected a reader of a store, got {shown(reader)}.")
        options = AddOptions(digests, expected, context, progress, extra_memory=MIB)
        return self._upload(object_id, iter(reader), reader.length, options)

    def _upload(self, object_id: str, data: Any, size: Any, options: AddOptions) -> AddResult:
        source: Source | None = None
        result: UploadResult | None = None
        try:
            source = open_source(data, size)
            with source:
                driver = self._require("add")
                names = check_names(options.digests, options.expected)
                check_helpers(options.verifier, options.progress)
                size = source.size if size is None else size
                check_size(size)
                self._check_id(driver, object_id)
                context = self.make_context(options.context)
                spec = self._upload_spec("add", object_id, driver, context)
                spec.size, spec.digests, spec.expected = size, names, options.expected
                spec.verifier, spec.progress = options.verifier, options.progress
                spec.extra_memory = options.extra_memory
                with Call(self._calls, object_id):
                    result = upload(_creating(driver, object_id, size, context), source, spec)
            return self._result(driver, result)
        except BaseException as error:
            if result is not None:
                spec.withdraw(result.location, error)
            if isinstance(error, StoreError) and (source is None or error is not source.error):
                self._annotate(error, "add", object_id)
            raise

    def _upload_spec(
        self, operation: str, subject: object, driver: Driver[Any], context: RequestContext | None
    ) -> UploadSpec:
        clock = TransferClock(self._limits)
        return UploadSpec(
            clock=clock,
            retry=self._retry.for_operation(operation, subject, clock),
            guard=self._guard,
            budget=self._runtime.budget,
            withdraw=functools.partial(self._withdraw, driver, context),
        )

    def _result(self, driver: Driver[Any], result: UploadResult) -> AddResult:
        return AddResult(
            uri=result.location.uri,
            size=result.size,
            digests=result.digests,
            store=self.id,
            metadata=driver.metadata(result.location),
            report=result.report,
        )

    def _withdraw(
        self,
        driver: Driver[Any],
        context: RequestContext | None,
        location: Location,
        error: BaseException,
    ) -> None:
        """Remove an object that was published by an add or copy, which has failed after that."""
        delete = functools.partial(driver.delete, location, context=context)
        guarded = functools.partial(self._guard.call, delete)
        try:
            self._retry.for_operation("cleaning up", location).call(guarded)
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
        context: RequestContext | None = None,
    ) -> ObjectReader:
        """Open an object, or a range of it, for reading.

        :param offset: bytes to skip at the start
        :param length: bytes to read, clipped at the end of the object; ``None`` for the rest
        :param expected: hexadecimal digests that the whole object must have; if one differs, the
            reader raises DigestMismatch at the end
        :raises NotFound: there is no such object
        :raises InvalidRange: a number is negative, or ``offset`` is beyond the object's end
        :raises StoreRandomGetNotSupported: the store cannot read ranges
        """
        try:
            driver = self._require("get")
            whole, length = check_range(offset, length)
            if not whole and not driver.ranges:
                raise StoreRandomGetNotSupported(offset=offset, chunk_size=length)
            if expected and not whole:
                raise Invalid("Expected digests can only be held against a whole object.")
            if expected:
                check_names((), expected)
            location = self._parse(driver, uri)
            clock = TransferClock(self._limits)
            spec = ReadSpec(
                driver=driver,
                offset=offset,
                length=length,
                expected=expected or {},
                clock=clock,
                retry=self._retry.for_operation("get", location, clock),
                guard=self._guard,
                budget=self._runtime.budget,
            )
            layer = self._runtime.read_layer
            read = driver.read if layer is None else functools.partial(layer.read, driver.read)
            context = self.make_context(context)
            opening = functools.partial(read, location, offset, spec.first_length, context=context)
            return open_reader(opening, spec, Call(self._calls))
        except StoreError as error:  # as _Annotating does, which would cost every call more
            self._annotate(error, "get")
            raise

    def stat(self, uri: str, *, context: RequestContext | None = None) -> Stat:
        """Return an object's size and metadata without reading it.

        :raises NotFound: there is no such object
        """
        context = self.make_context(context)
        return self._call(
            "stat", lambda driver: driver.stat(self._parse(driver, uri), context=context)
        )

    def delete(self, uri: str, *, context: RequestContext | None = None) -> None:
        """Remove an object.

        :raises NotFound: there is no such object
        :raises InUseByStore: another consumer of the backend uses it
        """
        context = self.make_context(context)
        tried = False

        def delete(driver: "Driver[Any]") -> None:  # without quotes evaluated by every call
            nonlocal tried
            again, tried = tried, True
            try:
                driver.delete(self._parse(driver, uri), context=context)
            except NotFound:
                if not again:
                    raise
                # The first request has deleted the object, but its response was lost.

        self._call("delete", delete)

    def list(self, *, context: RequestContext | None = None) -> Iterator[Entry]:
        """Yield every complete object, in no order.

        :raises NotSupported: the store cannot list
        """
        context = self.make_context(context)
        return self._iterate("list", lambda driver: driver.list(context=context))

    def list_incomplete(self, *, context: RequestContext | None = None) -> Iterator[Incomplete]:
        """Yield the incomplete uploads: those that failed adds have left, and those in progress.

        :raises NotSupported: the store cannot list them
        """
        context = self.make_context(context)
        return self._iterate(
            "list_incomplete", lambda driver: driver.list_incomplete(context=context)
        )

    def sweep(
        self,
        older_than: float,
        *,
        object_id: str | None = None,
        dry_run: bool = False,
        context: RequestContext | None = None,
    ) -> builtins.list[Incomplete]:
        """Remove incomplete uploads, and return those that were removed.

        An upload that the backend knows to be still running is kept, whatever its age.

        :param older_than: minimum seconds since the upload's last activity; 0 for any
        :param object_id: sweep only uploads with this id; ``None`` for all
        :param dry_run: remove nothing, and return the uploads that would be removed
        :raises NotSupported: the store cannot list or discard incomplete uploads
        :raises StoreError: some uploads could not be removed (this is the first error); the others
            were
        """
        with _Annotating(self, "sweep"):
            check_seconds(older_than)
            self._require("sweep")
        context = self.make_context(context)
        removed = []
        problem: StoreError | None = None
        for incomplete in self.list_incomplete(context=context):
            # The age may be negative, as a server's clock may count whole seconds only.
            if incomplete.live or max(incomplete.age, 0.0) < older_than:
                continue
            if object_id is not None and incomplete.object_id != object_id:
                continue
            try:
                discard = operator.methodcaller("discard", incomplete, context=context)
                if dry_run or self._call("sweep", discard):
                    removed.append(incomplete)
            except StoreError as error:
                problem = problem or error
        if problem is not None:
            problem.add_note(f"{len(removed)} other leftovers were removed.")
            raise problem
        return removed

    def copy(self, uri: str, object_id: str, *, context: RequestContext | None = None) -> AddResult:
        """Copy an object of this store to a new one, within the backend.

        No bytes pass through this process, so the result has no digests.

        :raises NotSupported: the backend cannot copy
        :raises NotFound: there is no such object
        :raises Duplicate: an object with this id exists, or is being added
        """
        result: UploadResult | None = None
        try:
            driver = self._require("copy")
            if not driver.copies:
                raise NotSupported(store_id=self.id, what="copy objects")
            self._check_id(driver, object_id)
            location = self._parse(driver, uri)
            context = self.make_context(context)
            spec = self._upload_spec("copy", location, driver, context)
            create = _creating(driver, object_id, 0, context)
            stat = functools.partial(driver.stat, context=context)
            with Call(self._calls, object_id):
                result = copy(create, location, stat, spec)
            return self._result(driver, result)
        except BaseException as error:
            if result is not None:
                spec.withdraw(result.location, error)
            if isinstance(error, StoreError):
                self._annotate(error, "copy", object_id)
            raise

    def space(self, *, context: RequestContext | None = None) -> Space:
        """Return the total and free space of the store.

        :raises NotSupported: the backend does not report it
        """
        context = self.make_context(context)
        return self._call("space", lambda driver: driver.space(context=context))

    def set_acls(
        self,
        uri: str,
        *,
        public: bool = False,
        read_tenants: Sequence[str] = (),
        write_tenants: Sequence[str] = (),
        context: RequestContext | None = None,
    ) -> None:
        """Set which other tenants may read or write an object in the backend.

        :raises NotSupported: the store has no access control lists
        """
        with _Annotating(self, "set_acls"):
            check_tenants(read_tenants)
            check_tenants(write_tenants)
        context = self.make_context(context)
        self._call(
            "set_acls",
            lambda driver: driver.set_acls(
                self._parse(driver, uri),
                public=public,
                read_tenants=read_tenants,
                write_tenants=write_tenants,
                context=context,
            ),
        )

    def url(self, uri: str, *, expires: int = 3600, context: RequestContext | None = None) -> str:
        """Return a URL from which the object can be read without further credentials.

        :param expires: lifetime of the URL in seconds
        :raises NotSupported: the store has no such URLs
        """
        with _Annotating(self, "url"):
            check_expiry(expires)
        context = self.make_context(context)
        return self._call(
            "url",
            lambda driver: driver.url(self._parse(driver, uri), expires=expires, context=context),
        )

    def close(self) -> None:
        """Refuse new calls, and close the driver when all running calls have ended."""
        self._calls.close()

    # Common parts of the operations

    def _require(self, operation: str) -> Driver[Any]:
        """Return the driver, after a check that the store supports ``operation``."""
        if self._calls.closed:
            raise StoreClosed(store=self.id, operation=operation)
        error, driver = self.error, self.driver
        if driver is None or not (error is None or (error.readable and operation in _READING)):
            raise _UNUSABLE.get(operation, NotSupported)(
                f"Store {self.id} is not usable for {operation}: {error}",
                store=self.id,
                operation=operation,
            )
        return driver

    def _check_id(self, driver: Driver[Any], object_id: str) -> None:
        check_id(object_id)
        reason = driver.id_problem(object_id)
        if reason is not None:
            raise invalid_id(object_id, reason)

    def _parse(self, driver: Driver[Any], uri: str) -> Location:
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

    def _call(self, operation: str, function: Callable[[Driver[Any]], R]) -> R:
        """Make a call that transfers no object, with retries and a time limit."""
        try:
            call = functools.partial(function, self._require(operation))
            with Call(self._calls):
                return self._retry.for_operation(operation).call(
                    functools.partial(self._guard.call, call)
                )
        except StoreError as error:  # as in get
            self._annotate(error, operation)
            raise

    def _iterate(
        self, operation: str, function: Callable[[Driver[Any]], Iterator[R]]
    ) -> Iterator[R]:
        """Call the driver for an iterator, and yield its items with a time limit for each step."""
        with _Annotating(self, operation):
            call = functools.partial(function, self._require(operation))
            return self._steps(operation, self._guard.call(call))

    def _steps(self, operation: str, items: Iterator[R]) -> Iterator[R]:
        with _Annotating(self, operation), Call(self._calls):
            yield from self._guard.iterate(items)

    def _annotate(self, error: StoreError, operation: str, object_id: object = None) -> None:
        """Add the store, the operation and the object's id to an error."""
        named = object_id[:LONGEST_ID] if isinstance(object_id, str) else None
        error.annotate(store=self.id, operation=operation, object_id=named)

    def _close_driver(self) -> None:
        if self.driver is not None:
            self.driver.close()

    def _after_fork(self) -> None:
        """Forget the parent's calls, in the child: their locks may stay locked."""
        self._calls.forget()
        self._guard = self._guard.renewed()


def _creating(
    driver: Driver[Any], object_id: str, size: int | None, context: RequestContext | None
) -> Callable[[], PartWriter | PositionWriter]:
    """Return a function that creates the writers of one upload, all with the same nonce."""
    return functools.partial(
        driver.create, object_id, size, nonce=os.urandom(16).hex(), context=context
    )


class _Annotating:
    """Context manager that adds the store's id and the operation to errors."""

    __slots__ = ("_operation", "_store")

    def __init__(self, store: Store, operation: str) -> None:
        self._store = store
        self._operation = operation

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, StoreError):
            self._store._annotate(error, self._operation)


_STORES = LiveObjects(in_child=Store._after_fork)
