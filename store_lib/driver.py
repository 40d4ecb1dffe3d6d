"""The contract that a backend fulfils: Driver, the two shapes of writer, and Reader.

Everything a driver author needs is in this module, :mod:`store_lib.location`,
:mod:`store_lib.exceptions` and :mod:`store_lib.options`.  A driver moves bytes at a place and
says truly what happened.  It never hashes, never counts against the expected size, never starts a
thread, never sleeps to retry and never logs a secret: the transfer engine does that for all.

What the engine guarantees to every driver:

* ``object_id`` is a ``str`` that :func:`~store_lib.arguments.check_portable` and
  :meth:`Driver.id_problem` have no objection to.
* ``offset`` is 0 or more; ``length`` is ``None`` (to the end) or 0 or more.
* In one process no two writers are at work for one id of one store.
* Every writer and every reader it was given ends in exactly one ``commit`` or ``abort``, or in
  ``close``.
* ``configure`` has run before anything else, once, in the process that made the driver.  After a
  fork the child may use the driver without a new ``configure``.

What a driver guarantees: it may be used by many threads at once, and holds no transfer's state;
everything it raises on purpose is a :class:`~store_lib.exceptions.StoreError` whose ``status``
says truly whether trying again can help.
"""

import abc
import dataclasses
import enum
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar, cast

from oslo_config import cfg

from store_lib.arguments import invalid_id
from store_lib.exceptions import (
    BadStoreConfiguration,
    NotSupported,
    StoreAddDisabled,
    StoreDeleteNotSupported,
)
from store_lib.location import Location
from store_lib.options import StoreOptions

R = TypeVar("R")
#: The class of a driver's locations.
L = TypeVar("L", bound=Location)

#: What chunks are handed about as: a ``memoryview`` of bytes, or ``bytes``.  Valid only during
#: the call that it is handed to; whoever wants to keep it copies it.
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
    """On whose behalf a call is made, such as oslo.context's class of the same name.

    Only drivers that act for a user read it.  They also use ``user_id`` and ``service_catalog``
    where it has them.
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

    def update(self, data: bytes, /) -> object:
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
    #: Seconds since the epoch, where known.
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
    """The bytes of one request, fed by the engine and pulled by a client library.

    File-like as far as HTTP clients ask: ``read``, iteration, and ``seek``/``tell`` where
    :attr:`rewindable`.  A read that raises must end the request without publishing anything.
    """

    #: Bytes in all; ``None`` when the source's length is unknown.
    size: int | None
    #: Whether it may be sent again from the start (``seek(0)``).
    rewindable: bool

    def read(self, amount: int = -1, /) -> bytes:
        """Return up to ``amount`` bytes, all that is left for -1, ``b""`` at the end."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes in pieces of the engine's choosing."""

    def views(self) -> Iterator[memoryview]:
        """Yield the bytes that are left as they lie in memory, uncopied; each until the next."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move; raises ``io.UnsupportedOperation`` unless :attr:`rewindable`."""

    def tell(self) -> int:
        """Return the number of bytes read so far, or the position."""


class Writer(abc.ABC):
    """What the two shapes of writer share.

    Nothing shows in the store before :meth:`PositionWriter.commit`,
    :meth:`PartWriter.commit` or :meth:`PartWriter.write_once` returns, and after :meth:`abort`
    nothing is left.  Leaving a ``with`` block by an exception aborts.
    """

    #: Bytes of a chunk that suits the backend; what the engine reads, hashes and buffers in.
    chunk_size: int = 1024 * 1024
    #: How many writes (or parts) the engine may have in flight at once.
    concurrency: int = 1
    #: Bytes that the client library takes for each upload beside the chunks, from the first write
    #: on; they count against the memory limit.
    client_memory: int = 0

    @abc.abstractmethod
    def abort(self) -> None:
        """Remove everything that this writer made.  Called at most once (but again after a
        temporary error), never after a commit that succeeded, with no write in flight (but for
        one that a time limit gave up).

        A request that was given up may come back to life after this.  It must publish nothing
        then; where it has made something all the same, this is called once more, and removes it.
        """

    @abc.abstractmethod
    def resolve(self) -> Location | None:
        """After a lost reply: look whether this very upload (its nonce) is what is stored.

        Called when a commit, ``write_once`` or ``copy_from`` failed in a way that leaves it open
        (a temporary error) or that could be an answer to a repeated request (Duplicate).  Returns
        the object's location, or ``None`` if this upload is not what is stored.
        """

    def copy_from(self, location: Any) -> Location:
        """Fill the new object from another one of the same backend, publish it, and return where
        it lies.

        Called only if the driver has :attr:`Driver.copies`, once, in place of all other writes.
        The engine follows it with :meth:`resolve` and :meth:`abort` as it does a commit; to
        repeat a copy after a temporary error it makes a new writer.
        :raises NotFound: there is no object at ``location``
        :raises Duplicate: an object of this id is there; it was not touched
        """
        raise NotImplementedError

    def state(self) -> Mapping[str, Any] | None:
        """Return what :meth:`Driver.resume` needs to continue this upload in another process.

        The values are JSON's: which upload it is, and what of it is stored for good.  ``None`` if
        the upload cannot be continued.
        """
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.abort()


class PositionWriter(Writer):
    """A writer for backends that take bytes at any position: a file, an rbd image, a volume."""

    #: Bytes of the smallest hole worth making, or ``None`` when the store is not thin: then
    #: zeros are written like anything else.  Divides :attr:`chunk_size`.
    hole_size: int | None = None
    #: The engine calls :meth:`reserve` with no write in flight (a detached volume to extend).
    quiesce_to_grow: bool = False
    #: Position up to which bytes may be written without :meth:`reserve`.
    reserved: int = 0

    @abc.abstractmethod
    def write_at(self, offset: int, data: Chunk) -> None:
        """Write all of ``data`` at ``offset``; from several threads at once, never overlapping.
        Each position is written at most once, but for a repeat after a temporary error."""

    def zero(self, offset: int, length: int) -> None:
        """Make a hole that reads as zeros.  Called only where :attr:`hole_size` is set, for
        positions never written before."""
        raise NotImplementedError

    def reserve(self, end: int) -> int:
        """Make room up to ``end`` at least, and return up to where there is room now.

        Called by the thread that reads the source, before bytes past :attr:`reserved`.
        :raises StorageFull: there is no room
        """
        return end

    @abc.abstractmethod
    def commit(self, size: int) -> Location:
        """Publish the object with its true ``size`` and return where it lies.  May be called
        again after a temporary error, once :meth:`resolve` has said ``None``.

        :raises Duplicate: an object of this id is there; it was not touched
        """


class PartWriter(Writer):
    """A writer for backends that store parts by themselves, or take one request for the whole.

    A backend with one upload stream only has :meth:`write_once` and leaves
    :attr:`once_limit` at ``None``.
    """

    #: The largest object in bytes that goes by :meth:`write_once`; ``None``: all do.
    once_limit: int | None = None

    @abc.abstractmethod
    def write_once(self, body: Body) -> Location:
        """Store and publish the whole object in one request and return where it lies.

        When ``body.rewindable``, it may be called again after a temporary error, once
        :meth:`resolve` has said ``None``.
        It is where the object fits the memory budget and has a known size, or where it turned
        out to fit a part; else the bytes come as they are read from the source.
        :raises Duplicate: an object of this id is there; it was not touched
        """

    def part_size(self, number: int) -> int:
        """Return the bytes of part ``number`` (from 1); the last part may be shorter.

        It may grow with the number, so that a stream of unknown length fits the backend's
        limit on parts.  Asked once for each number, in order.
        """
        raise NotImplementedError

    def put_part(self, number: int, body: Body) -> Any:
        """Store part ``number`` and return what :meth:`commit` needs to name it.

        Called from several threads at once.  When ``body.rewindable``, it is repeated after a
        temporary error.
        """
        raise NotImplementedError

    def commit(self, tokens: Sequence[Any]) -> Location:
        """Publish the object made of the parts, in order, and return where it lies.

        May be called again after a temporary error, once :meth:`resolve` has said ``None``.
        :raises Duplicate: an object of this id is there; it was not touched
        """
        raise NotImplementedError


class Reader(abc.ABC):
    """An open object.  Made by :meth:`Driver.read`, which has sent the first request."""

    #: Bytes of the whole object; ``None`` if the backend does not report it.
    size: int | None
    #: The stream of the range that :meth:`Driver.read` was asked for, if its request has been
    #: sent; the engine takes the first bytes from it, and asks :meth:`stream` for all others.
    #: ``None``: :meth:`stream` is asked for these bytes too.
    first: Iterator[bytes] | None = None
    #: What identifies these very bytes (an ETag, a file's identity, a snapshot), so that a cut
    #: read can be resumed on them and on no others; ``None``: no resume.
    validator: str | None = None
    #: Whether :meth:`stream` may be called several times at once.
    parallel: bool = False
    #: How often in all the engine asks for the rest of a cut stream at once, before it repeats that
    #: as any other request; where an operator can say so.
    resumes: int = 0
    #: Bytes of a piece of :meth:`stream` that suits the backend.  The engine sets it on the object
    #: to what the next piece should have at most: less when memory is short.  What a reader
    #: fetches before it is first asked for a piece is no more than :data:`FIRST_PIECE`.
    piece_size: int = 1024 * 1024
    #: Whether a small piece costs little more than its share of a large one (a local file).
    #: Then :attr:`piece_size` becomes just what the caller wants, and the reader is closed with
    #: the last byte of a known size, without a look at whether :meth:`stream` ends there.
    exact: bool = False

    @abc.abstractmethod
    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        """Yield the bytes from ``offset`` on, ``length`` of them or to the end.

        If the driver has ``ranges``, it may be asked for any range within the object.  Without
        :attr:`first`, the first call asks for the range that :meth:`Driver.read` was asked for,
        with the length clipped to the object's end, and has got its first bytes before there is a
        second call.
        Pieces may have any size; one that is given is not to be held any longer, since a caller
        may take its time before it asks for the next.  A connection cut in the middle is raised
        as a temporary error; an object that is no longer the same one as
        :class:`~store_lib.exceptions.ObjectChanged`; never a short end without a word.
        """

    def fileno(self) -> int | None:
        """Return a descriptor of a local file that holds exactly this object, or ``None``."""
        return None

    @abc.abstractmethod
    def close(self) -> None:
        """Release what was opened or attached.  Idempotent, and safe however the reading ended."""


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
    #: Options that libraries in use have in sections of their own, by section.  The driver finds
    #: them among its own by name; they are not listed as the driver's.
    library_options: ClassVar[Mapping[str, tuple[cfg.Opt, ...]]] = {}
    #: The class that parses this driver's URIs: ``L``.
    location_class: ClassVar[type[Location]]
    #: The extra of the distribution that installs the client library (``store_lib[s3]``), for the
    #: message when :meth:`configure` raises ImportError.
    extra: ClassVar[str] = ""
    #: What an add guarantees; irrelevant where :meth:`create` is not overridden.  A driver
    #: whose guarantee hangs on an option may set it on the object in :meth:`configure`.
    create_only: CreateOnly = CreateOnly.CHECKED
    #: Whether part of an object can be read without the rest.
    ranges: bool = False
    #: Whether its writers have :meth:`Writer.copy_from`.
    copies: bool = False
    #: Capabilities (see :func:`capabilities`) that the class has and the store, as it is
    #: configured, has not; set on the object in :meth:`configure`.
    disabled: frozenset[str] = frozenset()
    #: How many ranges of one object the engine may read at once; more than one needs
    #: :attr:`ranges`, readers that are ``parallel``, and readers that always know their size.
    read_concurrency: int = 1
    #: Bytes of one range when several are read at once; :meth:`read` is then asked for the
    #: first of them only, unless there is a :attr:`single_stream_rate`.
    read_size: int = 8 * 1024 * 1024
    #: Bytes per second from which on one stream does as well as several ranges at once, which
    #: cost more processor time; :meth:`read` is asked for all, and only once the engine has waited
    #: for fewer are several read.  0: several are better at any rate.
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
        #: driver wraps in it each page of a listing, and each request that cleans up: what the
        #: engine could only repeat together with all that went before.  What the engine repeats
        #: itself (a writer's methods but for the requests inside ``abort``, :meth:`read`,
        #: :meth:`stat`) needs no wrapping.
        self.retry: Repeater = once
        #: For drivers with a :attr:`hang_policy`: called between two steps of a call, such as
        #: the chunks of a copy; the engine puts its own here.  Each step then has the whole
        #: time, and a call that was given up and comes back to life ends here, with a
        #: :class:`~store_lib.exceptions.TimeoutError`, before it does anything more: call it before
        #: a step that publishes or deletes.
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

    def id_problem(self, object_id: str) -> str | None:
        """Return why the backend cannot hold this id as it stands, or ``None`` if it can.

        Only for the backend's own limits; :func:`~store_lib.arguments.check_portable` has been
        asked before.  The reason is a sentence: "it has more than 80 bytes."
        """
        return None

    def check_object_id(self, object_id: str) -> None:
        """Refuse an id that :meth:`id_problem` has an objection to, before any byte moves.

        :raises InvalidObjectId: with the reason
        """
        reason = self.id_problem(object_id)
        if reason is not None:
            raise invalid_id(object_id, reason)

    def parse(self, uri: str) -> L:
        """Parse a URI.  A driver whose URIs need its options (a reference) overrides this.

        :raises BadStoreUri: it is malformed
        """
        return cast(L, self.location_class.parse(uri))

    @property
    def url_prefix(self) -> str:
        """The beginning of this store's URIs, as glance_store reports it."""
        return f"{self.schemes[0]}://"

    def owns(self, location: L) -> bool:
        """Tell from the configuration alone whether ``location`` can be on this store's server.

        Asked before every call with a URI, also where the caller names the store: a URI that says
        no is :class:`~store_lib.exceptions.BadStoreUri`.  Another place on the same server (a
        bucket, a pool) is owned, and so is what ``former_places`` lists (see
        :meth:`~store_lib.options.StoreOptions.moved_from`).  A driver that knows its server only
        once it is connected, or that has more to say, raises that error in its methods instead.
        """
        return True

    def holds(self, location: L) -> bool:
        """Tell from the configuration alone whether new objects of this store lie there, too.

        Decides which store is asked when several have the scheme and the caller named none.
        """
        return self.owns(location)

    def create(
        self, object_id: str, size: int | None, *, nonce: str, context: RequestContext | None
    ) -> PartWriter | PositionWriter:
        """Begin an upload.

        :param size: bytes to come; ``None`` when unknown, 0 for an empty object
        :param nonce: 32 hexadecimal digits that name this very upload, to be stored with it
        :param context: the caller's request context, or ``None``
        :raises Duplicate: an object of this id is there (where that is cheap to know now)
        :raises StorageFull: ``size`` does not fit
        """
        raise StoreAddDisabled(
            f"Store {self.store_id} is read-only: adding is not supported. Add to another store."
        )

    def resume(
        self, state: Mapping[str, Any], *, context: RequestContext | None
    ) -> PartWriter | PositionWriter:
        """Make a writer that continues the upload of a :meth:`Writer.state`, in any process.

        :raises NotFound: the upload is gone
        :raises Invalid: this driver has made no such state
        """
        raise self._unsupported("continue an upload")

    @abc.abstractmethod
    def read(
        self, location: L, offset: int, length: int | None, *, context: RequestContext | None
    ) -> Reader:
        """Open an object and send the first data request, so that its errors come from here.

        Without ``ranges`` the engine asks only for the whole object.
        :raises NotFound: there is no such object
        :raises InvalidRange: ``offset`` is past the end (at the end is an empty read)
        """

    @abc.abstractmethod
    def stat(self, location: L, *, context: RequestContext | None) -> Stat:
        """Return an object's size and metadata without reading its bytes.

        :raises NotFound: there is no such object
        """

    def metadata(self, location: L) -> dict[str, Any]:
        """Return what a caller should keep beside the URI of a new object: str, list and dict."""
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

    def copy(
        self, location: L, object_id: str, *, nonce: str, context: RequestContext | None
    ) -> Location:
        """Make a new object from one in the same backend, without moving bytes through here.

        Create-only, and nothing half-made shows, as with :meth:`create`.
        """
        raise self._unsupported("copy by itself")

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
        """Release what the driver holds.  Called once, with no transfer under way."""

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
    "copy": "copy",
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
