"""The contract that a backend fulfils: Driver, the two shapes of writer, and Reader.

Everything a driver author needs is in this module, :mod:`store_lib.location`,
:mod:`store_lib.exceptions` and :mod:`store_lib.options`.  A driver moves bytes to and from one
kind of backend, and reports truly what happened.  It never hashes, never compares the number of
bytes with the expected size, never starts a thread and never sleeps to retry: the transfer engine
does that for all drivers.  It never logs a secret.

What the engine guarantees to every driver:

* ``object_id`` is a ``str`` that :func:`~store_lib.arguments.check_portable` and
  :meth:`Driver.id_problem` have no objection to.
* ``offset`` is 0 or more; ``length`` is ``None`` (to the end) or 0 or more.
* In one process, only one writer at a time is open for an id of a store.
* Every writer ends with ``commit`` or ``abort``, every reader with ``close``.
* ``configure`` is called once, before anything else, in the process that made the driver.  After
  a fork, the child may use the driver without a new ``configure``.

What a driver guarantees:

* Many threads may use it at once, and it holds no transfer's state.
* Everything it raises on purpose is a :class:`~store_lib.exceptions.StoreError`, whose ``status``
  says truly whether trying again can help.
"""

import abc
import dataclasses
import enum
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar

from oslo_config import cfg

from store_lib.exceptions import (
    BadStoreConfiguration,
    Invalid,
    NotSupported,
    StoreAddDisabled,
    StoreDeleteNotSupported,
)
from store_lib.location import Location
from store_lib.options import StoreOptions

R = TypeVar("R")
#: The class of a driver's locations.
L = TypeVar("L", bound=Location)

#: The type of a chunk: a ``memoryview`` of bytes, or ``bytes``.  It is valid only during the call
#: that it is an argument of; copy it to keep it.
Chunk: TypeAlias = memoryview | bytes


#: Makes calls, at most the given number at a time, and returns when all have ended.  After the
#: first failure no further call is started, running ones are waited for, and the error is raised.
RunConcurrently: TypeAlias = Callable[[Sequence[Callable[[], object]], int], None]


def run_sequentially(calls: Sequence[Callable[[], object]], concurrency: int) -> None:
    """Make calls one after the other."""
    for call in calls:
        call()


#: Bytes that a reader may have fetched when :meth:`Driver.read` returns it: as many as a
#: connection has in its buffers.  They do not count against the memory limit.
FIRST_PIECE = 64 * 1024


class RequestContext(Protocol):
    """The user for whom a call is made, such as oslo.context's class of the same name.

    Drivers that act for a user read it; ``user_id`` and ``service_catalog`` too, if it has them.
    """

    @property
    def auth_token(self) -> str | None:
        """The user's token."""

    @property
    def project_id(self) -> str | None:
        """Id of the user's project (tenant)."""


class Verifier(Protocol):
    """Checks the bytes of an object while they are added, such as a signature's verification.

    A ``verify`` method, if there is one, is called after the last byte and before the object is
    published; what it raises ends the add.
    """

    def update(self, data: Chunk, /) -> object:
        """Take the next bytes."""


class Repeater(Protocol):
    """Makes a call, and repeats it after temporary errors, with growing pauses.

    It gives up after the time that ``transfer_retry_seconds`` allows.  The last error is then
    raised with the status EXHAUSTED, so that no outer loop repeats it again.
    """

    def __call__(self, call: Callable[[], R], /) -> R:
        """Return what ``call`` returns."""


def once(call: Callable[[], R], /) -> R:
    """Make a call once."""
    return call()


def do_nothing() -> None:
    """Do nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class HangPolicy:
    """When to give up calls that can block without end below Python, as on a dead network mount.

    A call that is given up goes on in a thread of its own for as long as it hangs: see
    :attr:`Driver.checkpoint`.
    """

    #: Seconds that one call may take without a checkpoint; 0 for no limit.
    timeout: float = 0
    #: How many calls may hang at the same time; further ones are refused without trying.
    limit: int = 10
    #: Percentage of :attr:`limit` from which on hanging calls are logged as a warning.
    warning: int = 75


class CreateOnly(enum.Enum):
    """How far a store guarantees that an object of a given id is never overwritten."""

    #: One winner, whatever races.
    ATOMIC = "atomic"
    #: A second add after a finished one is Duplicate; in a race an add may be lost, never mixed.
    CHECKED = "checked"
    #: Each add makes an object of its own, at a location of its own.
    NEW_LOCATION = "new_location"


@dataclasses.dataclass(frozen=True, slots=True)
class Stat:
    """An object's size and metadata."""

    #: Bytes; ``None`` if the backend does not know (a web server without Content-Length).
    size: int | None
    #: Time of the last change in seconds since the epoch, if known.
    modified: float | None = None
    #: Metadata that the driver keeps with the object; printable, without secrets.
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One object in a listing."""

    object_id: str
    location: Location
    size: int | None = None
    #: Seconds since the epoch, if known.
    modified: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Incomplete:
    """An incomplete upload: what an unfinished add has left, or a running one has stored so far."""

    #: The driver's name for it, to be passed to :meth:`Driver.discard`.
    key: str
    #: The id that the object was to have, if known.
    object_id: str | None
    #: Bytes stored, if known.
    size: int | None
    #: Time of the last sign of life in seconds since the epoch, by the backend's clock.
    modified: float
    #: Whether the backend shows that the upload is still running (a lock, a watcher).  ``False``
    #: if the backend cannot show it; then the age alone decides.
    live: bool = False
    #: Time of the listing by the clock that gave :attr:`modified`: the Date of a server's
    #: response, the time of a new file.  If left out or ``None``, this machine's time, which is
    #: right only if this machine's clock gave ``modified``.
    now: float | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.now is None:
            object.__setattr__(self, "now", time.time())

    @property
    def age(self) -> float:
        """Seconds from the last sign of life to the listing, both by the backend's clock.

        Negative if the sign of life lies ahead of that clock.
        """
        assert self.now is not None  # since __post_init__
        return self.now - self.modified


@dataclasses.dataclass(frozen=True, slots=True)
class Space:
    """Space in a store, in bytes; ``None`` if the backend has no limit or does not report it."""

    total: int | None
    free: int | None


class Body(Protocol):
    """The body of one request: the engine supplies the bytes, a client library reads them.

    It has what HTTP clients need of a file: ``read``, iteration, and ``seek`` and ``tell`` if it
    is :attr:`rewindable`.  If a read raises, the request must end without publishing anything.
    """

    #: Bytes in total; ``None`` if the source's length is unknown.
    size: int | None
    #: Whether it can be sent again from the start (``seek(0)``).
    rewindable: bool

    def read(self, amount: int = -1, /) -> bytes:
        """Return up to ``amount`` bytes, all remaining ones for -1, ``b""`` at the end."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes in pieces of any size."""

    def views(self) -> Iterator[memoryview]:
        """Yield the remaining bytes without copying; a view is valid until the next one."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Set the position; raises ``io.UnsupportedOperation`` unless :attr:`rewindable`."""

    def tell(self) -> int:
        """Return the position: the number of bytes read since the start."""


class Writer(abc.ABC):
    """The upload of one object; what both shapes of writer have.

    The object is not visible in the store before :meth:`PositionWriter.commit`,
    :meth:`PartWriter.commit`, :meth:`PartWriter.write_once` or :meth:`copy_from` publishes it.
    After :meth:`abort` nothing is left.  An exception that leaves a ``with`` block aborts.
    """

    #: Bytes of a chunk that suits the backend; the engine reads, hashes and buffers such chunks.
    chunk_size: int = 1024 * 1024
    #: How many writes or parts the engine may have in flight at once.
    concurrency: int = 1
    #: Bytes that the client library takes for each upload beside the chunks, from the first write
    #: on; they count against the memory limit.
    client_memory: int = 0

    @abc.abstractmethod
    def abort(self) -> None:
        """Remove everything that this writer has stored.

        Called at most once, or again after a temporary error; never after a commit that
        succeeded; with no write in flight, except for one that hung and was given up.  Such a
        request may come back to life later.  It must publish nothing then; if it has stored
        something, this is called once more and removes it.
        """

    @abc.abstractmethod
    def resolve(self) -> Location | None:
        """Return the object's location if this very upload (its nonce) is stored, else ``None``.

        Called after a commit, ``write_once`` or ``copy_from`` whose outcome is unknown: a temporary
        error may mean that only the reply was lost, a Duplicate that a repeated request has met
        the object of the first one.
        """

    def copy_from(self, location: Any) -> Location:
        """Copy an object of the same backend, publish the copy, and return its location.

        Called only if the driver has :attr:`Driver.copies`, once, in place of all other writes.
        After an error the engine calls :meth:`resolve` and :meth:`abort`, as after a commit; to
        repeat the copy after a temporary error, it makes a new writer.

        :param location: of the object to copy
        :raises NotFound: there is no object at ``location``
        :raises Duplicate: an object with this id is there; it was not touched
        """
        raise NotImplementedError

    def state(self) -> Mapping[str, Any] | None:
        """Return what :meth:`Driver.resume` needs to continue this upload in another process.

        JSON can represent it.  It says which upload this is, and how much of it is stored and will
        outlive this process.  ``None`` if the upload cannot be continued.
        """
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.abort()


class PositionWriter(Writer):
    """A writer for backends that take bytes at any position: a file, an rbd image, a volume."""

    #: Bytes of the smallest hole worth making; a divisor of :attr:`chunk_size`.  ``None`` if the
    #: store is not thin: zeros are then written like any other bytes.
    hole_size: int | None = None
    #: Whether :meth:`reserve` needs that no write is in flight (a volume that has to be detached).
    quiesce_to_grow: bool = False
    #: Position up to which bytes may be written without :meth:`reserve`.
    reserved: int = 0

    @abc.abstractmethod
    def write_at(self, offset: int, data: Chunk) -> None:
        """Write all of ``data`` at ``offset``.

        Called from several threads at once, for ranges that never overlap.  Each position is
        written once, or again after a temporary error.
        """

    def zero(self, offset: int, length: int) -> None:
        """Make a hole that reads as zeros.

        Called only if :attr:`hole_size` is set, for positions that were never written.
        """
        raise NotImplementedError

    def reserve(self, end: int) -> int:
        """Allocate space up to at least ``end``; return the position up to which there is space.

        Called by the thread that reads the source, before bytes past :attr:`reserved` are written.
        :raises StorageFull: there is no space
        """
        return end

    @abc.abstractmethod
    def commit(self, size: int) -> Location:
        """Publish the object with its true ``size`` and return its location.

        Called again after a temporary error if :meth:`resolve` has returned ``None``.
        :raises Duplicate: an object with this id is there; it was not touched
        """


class PartWriter(Writer):
    """A writer for backends that take an object in separate parts, or in a single request.

    A backend that takes only a single request has just :meth:`write_once`, and leaves
    :attr:`once_limit` at ``None``.
    """

    #: Bytes of the largest object for :meth:`write_once`; ``None`` if it takes all.
    once_limit: int | None = None

    @abc.abstractmethod
    def write_once(self, body: Body) -> Location:
        """Store and publish the whole object in one request, and return its location.

        The body is rewindable if the engine holds the whole object in memory: it fits in one
        chunk; or, with :attr:`once_limit` set, its size is known and the memory budget has room,
        or its size was unknown and it ended within part 1 and :attr:`once_limit`.  Otherwise its
        bytes come as the source is read.  With a rewindable body, this is called again after a
        temporary error if :meth:`resolve` has returned ``None``.
        :raises Duplicate: an object with this id is there; it was not touched
        """

    def part_size(self, number: int) -> int:
        """Return the bytes of part ``number`` (from 1); the last part may be shorter.

        It may grow with the number, so that a stream of unknown length fits the backend's
        limit on parts.  Asked once for each number, in order.
        """
        raise NotImplementedError

    def put_part(self, number: int, body: Body) -> Any:
        """Store part ``number`` and return the token that :meth:`commit` names it by.

        Called from several threads at once.  Repeated after a temporary error if the body is
        rewindable.
        """
        raise NotImplementedError

    def commit(self, tokens: Sequence[Any]) -> Location:
        """Publish the object made of the parts, in their order, and return its location.

        Called again after a temporary error if :meth:`resolve` has returned ``None``.
        :raises Duplicate: an object with this id is there; it was not touched
        """
        raise NotImplementedError


class Reader(abc.ABC):
    """An open object, made by :meth:`Driver.read`."""

    #: Bytes of the whole object; ``None`` if the backend does not report it.
    size: int | None
    #: The stream of the range that :meth:`Driver.read` was asked for, if its request has been
    #: sent; the engine takes the first bytes from it, and asks :meth:`stream` for all others.
    #: ``None``: :meth:`stream` is asked for these bytes too.
    first: Iterator[bytes] | None = None
    #: Identifies exactly these bytes (an ETag, a file's identity, a snapshot), so that a read that
    #: was cut can be resumed on them and on no others.  ``None``: it cannot be resumed.
    validator: str | None = None
    #: Whether :meth:`stream` may be called several times at once.
    parallel: bool = False
    #: How many times in total the engine resumes a stream that was cut immediately, before it
    #: waits and retries as for any other request; for drivers with an option for that.
    resumes: int = 0
    #: Bytes of a piece of :meth:`stream` that suits the backend.  The engine sets it on the object
    #: to the most that the next piece should have, which is less when memory is short.  Before the
    #: first piece is asked for, a reader fetches at most :data:`FIRST_PIECE` bytes.
    piece_size: int = 1024 * 1024
    #: Whether a small piece costs little more than its share of a large one (a local file).  The
    #: engine then sets :attr:`piece_size` to just what the caller wants, and closes the reader
    #: after the last byte of a known size without checking that :meth:`stream` ends there.
    exact: bool = False

    @abc.abstractmethod
    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        """Yield the bytes from ``offset`` on, ``length`` of them or to the end.

        If the driver has ``ranges``, any range within the object may be asked for.  Without
        :attr:`first`, the first call asks for the range that :meth:`Driver.read` was asked for,
        with the length clipped to the object's end, and yields its first bytes before there is a
        second call.

        Pieces may have any size.  Do not keep a reference to a piece after yielding it: a caller
        may take its time before it asks for the next.  A stream never ends early without an error.

        :raises StoreError: temporary, if the connection was cut
        :raises ObjectChanged: the object is no longer the one that was opened
        """

    def fileno(self) -> int | None:
        """Return a descriptor of a local file that holds exactly this object, or ``None``."""
        return None

    @abc.abstractmethod
    def close(self) -> None:
        """Release what was opened or attached.  May be called at any time, and more than once."""


class Driver(abc.ABC, Generic[L]):
    """One configured store's backend, for locations of the class ``L``.

    Every driver has ``configure``, ``read`` and ``stat``.  It has another operation if it
    overrides its method: see :func:`capabilities`.

    :param store_id: the store's id; for messages
    :param options: the store's options, see :class:`~store_lib.options.StoreOptions`
    """

    #: URI schemes that locations of this driver have.
    schemes: ClassVar[tuple[str, ...]]
    #: The driver's options, read from the store's section or ``[backend_defaults]``.
    options: ClassVar[tuple[cfg.Opt, ...]] = ()
    #: Options that libraries read from sections of their own, by section.  The driver finds them
    #: among its own options, by name; they are not listed as the driver's.
    library_options: ClassVar[Mapping[str, tuple[cfg.Opt, ...]]] = {}
    #: The class that parses this driver's URIs: ``L``.
    location_class: ClassVar[type[Location]]
    #: The extra of the distribution that installs the client library (``store_lib[s3]``), for the
    #: message when :meth:`configure` raises ImportError.
    extra: ClassVar[str] = ""
    #: What an add guarantees, if :meth:`create` is overridden.  A driver whose guarantee depends
    #: on an option sets it on the object in :meth:`configure`.
    create_only: CreateOnly = CreateOnly.CHECKED
    #: Whether part of an object can be read without the rest.
    ranges: bool = False
    #: Whether its writers have :meth:`Writer.copy_from`.
    copies: bool = False
    #: Capabilities of the class (see :func:`capabilities`) that this store lacks because of its
    #: configuration; set on the object in :meth:`configure`.
    disabled: frozenset[str] = frozenset()
    #: How many ranges of one object the engine may read at once.  More than one needs
    #: :attr:`ranges` and readers that are ``parallel`` and always know their size.
    read_concurrency: int = 1
    #: Bytes of one range when several are read at once; :meth:`read` is then asked for the
    #: first of them only, unless there is a :attr:`single_stream_rate`.
    read_size: int = 8 * 1024 * 1024
    #: If a single stream is at least this fast, in bytes per second, the engine reads no ranges in
    #: parallel, which would cost more processor time; :meth:`read` is then asked for everything.
    #: 0: it always reads in parallel.
    single_stream_rate: float = 0
    #: For backends whose calls can hang.  Set on the object in ``__init__``, so that it holds for
    #: :meth:`configure` too.
    hang_policy: HangPolicy = HangPolicy()

    def __init__(self, store_id: str, options: StoreOptions) -> None:
        self.store_id = store_id
        self.conf = options
        #: Makes many short requests concurrently; the engine puts its own here.
        self.run_concurrently: RunConcurrently = run_sequentially
        #: Repeats one short request after a temporary error; the engine puts its own here.  A
        #: driver uses it for each page of a listing and each request that cleans up, since the
        #: engine could only repeat the whole operation.  The engine itself repeats :meth:`read`,
        #: :meth:`stat` and a writer's methods.
        self.retry: Repeater = once
        #: Ends the call if it hung and was given up; the engine puts its own here.  A driver with a
        #: :attr:`hang_policy` calls it between the steps of a long call, such as the chunks of a
        #: copy, so that each step has the whole time limit, and before a step that publishes or
        #: deletes.  It raises :class:`~store_lib.exceptions.TimeoutError`.
        self.checkpoint: Callable[[], None] = do_nothing

    @abc.abstractmethod
    def configure(self) -> None:
        """Check the options and what they name, and import the client library.

        An ImportError may pass: the engine then names the :attr:`extra` to install.
        :raises BadStoreConfiguration: see :meth:`misconfigured`
        """

    def misconfigured(self, reason: str, *, readable: bool = False) -> BadStoreConfiguration:
        """Return the error for options that cannot be used.

        :param reason: the option's name, what was expected, and what was got
        :param readable: whether objects already in the store can be read all the same
        """
        return BadStoreConfiguration(
            store_name=self.store_id, reason=reason, readable=readable, store=self.store_id
        )

    def unknown_upload(self, key: str) -> Invalid:
        """Return the error for a key that :meth:`list_incomplete` has not yielded."""
        return Invalid(
            f"Expected the key of an incomplete upload of store {self.store_id}, got {key!a}. Take "
            "it from a listing of this store."
        )

    def id_problem(self, object_id: str) -> str | None:
        """Return why the backend cannot hold this id as it stands, or ``None`` if it can.

        Only for the backend's own limits; :func:`~store_lib.arguments.check_portable` has been
        asked before.  The reason is a sentence: "it has more than 80 bytes."
        """
        return None

    def parse(self, uri: str) -> L:
        """Parse a URI.  A driver whose URIs need its options (a reference) overrides this.

        :raises BadStoreUri: it is malformed
        """
        return self.location_class.parse(uri)  # type: ignore[return-value]

    @property
    def url_prefix(self) -> str:
        """The beginning of this store's URIs, as glance_store reports it."""
        return f"{self.schemes[0]}://"

    def owns(self, location: L) -> bool:
        """Return whether ``location`` can be on this store's server, by the configuration alone.

        Asked before every call with a URI, even if the caller names the store.  A URI that is not
        owned is :class:`~store_lib.exceptions.BadStoreUri`.  A store owns its server's other
        buckets or pools, and what ``former_places`` lists: see
        :meth:`~store_lib.options.StoreOptions.moved_from`.  A driver that knows its server only
        once it is connected raises that error in its methods instead.
        """
        return True

    def holds(self, location: L) -> bool:
        """Return whether ``location`` is in the place where this store puts new objects.

        Decides which store is asked if several have the scheme and the caller names none.  Only
        the configuration is consulted.
        """
        return self.owns(location)

    def create(
        self, object_id: str, size: int | None, *, nonce: str, context: RequestContext | None
    ) -> PartWriter | PositionWriter:
        """Begin an upload.

        :param size: bytes to come; ``None`` if unknown, 0 for an empty object or a copy
        :param nonce: 32 hexadecimal digits that identify this very upload, to be stored with it
        :param context: the caller's request context, or ``None``
        :raises Duplicate: an object with this id is there (if that is cheap to find out now)
        :raises StorageFull: ``size`` does not fit
        """
        raise StoreAddDisabled(
            f"Store {self.store_id} is read-only: adding is not supported. Add to another store."
        )

    def resume(
        self, state: Mapping[str, Any], *, context: RequestContext | None
    ) -> PartWriter | PositionWriter:
        """Return a writer that continues an upload, possibly of another process.

        :param state: from :meth:`Writer.state`
        :raises NotFound: the upload is gone
        :raises Invalid: ``state`` is not one of this driver
        """
        raise self._unsupported("continue an upload")

    @abc.abstractmethod
    def read(
        self, location: L, offset: int, length: int | None, *, context: RequestContext | None
    ) -> Reader:
        """Open an object.

        This sends the first request for data, so that its errors are raised here.  Without
        :attr:`ranges` the engine asks only for the whole object.
        :raises NotFound: there is no such object
        :raises InvalidRange: ``offset`` is past the end (at the end is an empty read)
        """

    @abc.abstractmethod
    def stat(self, location: L, *, context: RequestContext | None) -> Stat:
        """Return an object's size and metadata without reading its bytes.

        :raises NotFound: there is no such object
        """

    def metadata(self, location: L) -> dict[str, Any]:
        """Return metadata that a caller should keep with a new object's URI (JSON's types)."""
        return {}

    def delete(self, location: L, *, context: RequestContext | None) -> None:
        """Remove an object.

        :raises NotFound: there is no such object
        """
        raise StoreDeleteNotSupported(
            f"Store {self.store_id} cannot delete. Remove the object where it is served from."
        )

    def list(self, *, context: RequestContext | None) -> Iterator[Entry]:
        """Yield every complete object, in no order."""
        raise self._unsupported("list its objects")

    def list_incomplete(self, *, context: RequestContext | None) -> Iterator[Incomplete]:
        """Yield incomplete uploads: what adds left or have so far."""
        raise self._unsupported("list incomplete uploads")

    def discard(self, incomplete: Incomplete, *, context: RequestContext | None) -> bool:
        """Remove an incomplete upload; return whether it was removed.

        Never removes what a running upload still uses, if the backend shows that, nor an object
        that has been published meanwhile.
        """
        raise self._unsupported("discard incomplete uploads")

    def space(self, *, context: RequestContext | None) -> Space:
        """Return the total and the free space."""
        raise self._unsupported("report its free space")

    def set_acls(
        self,
        location: L,
        *,
        public: bool,
        read_tenants: Sequence[str],
        write_tenants: Sequence[str],
        context: RequestContext | None,
    ) -> None:
        """Set who else may read or write the object in the backend."""
        raise self._unsupported("set access control lists")

    def url(self, location: L, *, expires: int, context: RequestContext | None) -> str:
        """Return a URL that reads the object without further credentials for ``expires`` s."""
        raise self._unsupported("make temporary URLs")

    def close(self) -> None:
        """Release what the driver holds.  Called once, when no transfer is running."""

    def _unsupported(self, what: str) -> NotSupported:
        return NotSupported(store_id=self.store_id, what=what, store=self.store_id)


#: Capability names and the Driver methods whose overriding declares them.
_OPTIONAL = {
    "add": "create",
    "resume": "resume",
    "delete": "delete",
    "list": "list",
    "list_incomplete": "list_incomplete",
    "discard": "discard",
    "space": "space",
    "set_acls": "set_acls",
    "url": "url",
}


def capabilities(driver: Driver[Any] | type[Driver[Any]]) -> frozenset[str]:
    """Return what a driver can do beyond get and stat.

    The names are ``add``, ``resume``, ``delete``, ``list``, ``list_incomplete``, ``discard``,
    ``space``, ``set_acls``, ``url`` (for each the driver overrides a method), ``ranges`` and
    ``copy`` (attributes).
    """
    cls = driver if isinstance(driver, type) else type(driver)
    found = {
        name
        for name, method in _OPTIONAL.items()
        if getattr(cls, method) is not getattr(Driver, method)
    }
    if driver.ranges:
        found.add("ranges")
    if driver.copies:
        found.add("copy")
    return frozenset(found - driver.disabled)
