"""Settings and Profile: what the suite's user configures, and what the suite measures."""

import dataclasses
import functools
import os
import re
import runpy
import secrets
import time
import uuid
from collections.abc import Callable, Iterable

from store_lib import CreateOnly, Store, Stores
from store_lib.driver import PartWriter
from store_lib.exceptions import ErrorStatus, StoreError
from store_lib.testing.content import Content, FileContent
from store_lib.testing.contexts import open_stores
from store_lib.testing.guard import Resources

_MIB = 1024 * 1024

_PASSWORD = re.compile(r"^[^/]*//[^/]*?:(.*)@")

#: MiB that the transfers of the measured process may hold in all (transfer_memory_limit).
MEMORY_LIMIT = 16
#: MiB that Python, threads and client libraries may use in addition.
_SLACK = 32
#: Number of concurrent gets whose memory is measured.
MEMORY_GETS = 4

#: Bytes of the largest transfer in checks that are not about size.
_LARGEST = 64 * _MIB


class SetupError(Exception):
    """The suite cannot check the given store; the text says why."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of the suite."""

    #: Configuration files; later files take precedence.
    configs: tuple[str, ...]
    store_id: str
    #: URI of an object, for a read-only store.
    known_uri: str | None = None
    #: Path of a file with the same bytes as the object.
    known_file: str | None = None
    #: Size in bytes of the transfers whose memory is measured.
    big_size: int = 256 * _MIB
    #: Time limit of a check in seconds.
    check_timeout: float = 120
    #: Seconds for the backend to release what a killed process held.
    settle: float = 60
    #: Seconds for added objects to appear and deleted ones to disappear.
    patience: float = 10
    #: Descriptors and threads that the driver may keep after use.
    allow_fds: int = 0
    allow_threads: int = 0
    #: Path of a Python file whose function ``context()`` returns the context for each call.
    context: str | None = None
    #: Path of a Python file whose function ``inventory()`` returns the names of everything in the
    #: backend, without using the store.
    inventory: str | None = None
    #: Whether to run the checks with fewer sizes, rounds and kills.
    short: bool = False

    def open(self) -> Stores:
        """Open the configured stores anew."""
        return open_stores(self.configs, self.context)


class Profile:
    """The store under test: what it claims and, after :meth:`prepare`, its sizes and speed.

    :raises SetupError: there is no such store, its configuration failed, or it is read-only and
        no known object was given
    """

    #: Reasons by capability that the store claims but its server lacks, set by :meth:`prepare`.
    #: These capabilities are not checked.
    unavailable: dict[str, str]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.known: FileContent | None = None
        self.unavailable = {}
        try:
            stores = settings.open()
        except Exception as error:
            raise SetupError(f"Cannot use the configuration: {_describe(error)}") from error
        try:
            self._read_claims(stores)
        finally:
            stores.close()
        #: Size in bytes of the chunks that the engine passes to the driver.
        self.chunk_size = _MIB
        #: Sizes at which the driver uploads differently: a part, the largest single request.
        self.thresholds: tuple[int, ...] = ()
        #: Seconds that an add, a get and a delete of a small object take together.
        self.cycle_time = 0.0
        self._prepared = False
        #: The resources of the process after the store was used and closed; ``None`` if they must
        #: be counted again.
        self.base: Resources | None = None
        self._pattern: tuple[str, str] | None = None
        self._failed: str | None = None

    def _read_claims(self, stores: Stores) -> None:
        settings = self.settings
        if settings.store_id not in stores:
            known = ", ".join(store.id for store in stores) or "(none)"
            raise SetupError(
                f"Store {settings.store_id} is not configured in {', '.join(settings.configs)}; "
                f"configured are: {known}"
            )
        store = stores[settings.store_id]
        driver = store.driver
        if store.error is not None or driver is None:
            raise SetupError(f"Store {store.id} cannot be used: {store.error}")
        self.driver_name = store.driver_name
        self._claimed = store.capabilities
        self.create_only = driver.create_only
        self.schemes = driver.schemes
        self.secrets = _secret_values(store)
        if "add" in self._claimed:
            self._check_big_size(_MIB)
        else:
            self._check_known_object(store)

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that the store claims, without those that its server lacks."""
        return self._claimed - self.unavailable.keys()

    @property
    def traits(self) -> frozenset[str]:
        """The traits of the store, by which checks are chosen.

        They are its capabilities; ``by_id`` or ``new_location``, for whether a second add of an id
        fails or makes another object; and ``secrets`` if any are configured.
        """
        traits = set(self.capabilities)
        if "add" in traits:
            separate = self.create_only is CreateOnly.NEW_LOCATION
            traits.add("new_location" if separate else "by_id")
        if self.secrets:
            traits.add("secrets")
        return frozenset(traits)

    def _check_known_object(self, store: Store) -> None:
        uri, path = self.settings.known_uri, self.settings.known_file
        if not uri or not path:
            raise SetupError(
                f"Store {store.id} is read-only: name one of its objects with --store-uri URI, and "
                "a file with the same bytes with --store-file FILE."
            )
        if not os.path.isfile(path):
            raise SetupError(f"Expected a file for --store-file, got {path}")
        try:
            stat = store.stat(uri)
        except StoreError as error:
            raise SetupError(f"Cannot find the object of --store-uri: {error}") from error
        self.known = FileContent(path)
        if stat.size not in (None, self.known.size):
            raise SetupError(
                f"Expected the same bytes in --store-uri and --store-file, got {stat.size} bytes "
                f"in the object and {self.known.size} in {path}"
            )

    def prepare(self) -> None:
        """Use the store once and measure it: its sizes, its speed, and what its server lacks.

        Resources that the driver keeps after the first use exist from then on.

        :raises SetupError: the store cannot be used
        """
        if self._failed is not None:
            raise SetupError(self._failed)
        if self._prepared:
            return
        try:
            for _ in range(2):
                with self.settings.open() as stores:
                    store = stores[self.settings.store_id]
                    began = time.monotonic()
                    self._try(store)
                    self.cycle_time = time.monotonic() - began
                    self._probe_listings(store)
            self.inventory()
        except Exception as error:
            self._failed = str(error) if isinstance(error, SetupError) else self._explain(error)
            raise SetupError(self._failed) from error
        self._prepared = True

    def _explain(self, error: Exception) -> str:
        return (
            f"Store {self.settings.store_id} cannot be used: trying to add, read and delete an "
            f"object raised {_describe(error)}"
        )

    def _probe_listings(self, store: Store) -> None:
        """Request each listing once: the server may lack one that its driver claims."""
        listings: dict[str, tuple[Callable[[], Iterable[object]], str]] = {
            "list": (store.list, "list objects, so leftovers of an add are not found in a listing"),
            "list_incomplete": (
                store.list_incomplete,
                "list incomplete uploads; sweep cannot work",
            ),
        }
        for name, (listing, meaning) in listings.items():
            if name not in self._claimed or name in self.unavailable:
                continue
            try:
                for _ in listing():
                    break
            except StoreError as error:
                if error.status is not ErrorStatus.PERMANENT:
                    raise
                self.unavailable[name] = f"this server cannot {meaning} (got {_describe(error)})"

    def inventory(self) -> frozenset[str]:
        """Return the names of everything in the backend, empty without ``settings.inventory``."""
        if self.settings.inventory is None:
            return frozenset()
        return frozenset(map(str, _inventory(self.settings.inventory)()))

    def _check_big_size(self, chunk_size: int) -> None:
        """Check that big transfers do not fit into the allowed memory."""
        least = max(allowed_memory(chunk_size).values())
        if self.settings.big_size <= least:
            raise SetupError(
                f"Expected --store-big-size above {least // _MIB} MiB for chunks of "
                f"{chunk_size} bytes, got {self.settings.big_size // _MIB}: a transfer that fits "
                "into the allowed memory proves nothing."
            )

    def _try(self, store: Store) -> None:
        uri = self.settings.known_uri
        content: Content | FileContent
        if "add" in self.capabilities:
            self._learn_sizes(store)
            content = Content(2 * self.chunk_size + 1)
            object_id = str(uuid.uuid4())
            uri = store.add(object_id, content.chunks()).uri
            self._pattern = (uri, object_id) if object_id in uri else None
        elif self.known is not None:
            content = self.known
            self.chunk_size = max(1, min(_MIB, content.size // 4))
        assert uri is not None
        with store.get(uri) as reader:
            same = all(
                chunk == content.slice(offset, len(chunk))
                for offset, chunk in _with_offsets(reader)
            )
        if not same and uri == self.settings.known_uri:
            raise SetupError("Expected the bytes of --store-file in --store-uri, got others.")
        if "add" in self.capabilities and "delete" in self.capabilities:
            store.delete(uri)

    def _learn_sizes(self, store: Store) -> None:
        driver = store.driver
        assert driver is not None
        context = store.make_context()
        nonce = secrets.token_hex(16)
        writer = driver.create(str(uuid.uuid4()), None, nonce=nonce, context=context)
        sizes = []
        try:
            self.chunk_size = writer.chunk_size
            self._check_big_size(self.chunk_size)
            if isinstance(writer, PartWriter) and writer.once_limit is not None:
                sizes = [writer.once_limit, writer.part_size(1)]
        finally:
            writer.abort()
        self.thresholds = tuple(sorted({size for size in sizes if 0 < size <= _LARGEST // 4}))

    def uri_of(self, object_id: str) -> str | None:
        """Return the URI of an object with this id, ``None`` if URIs do not contain the id.

        Works only for ids from :meth:`Target.new_id`: others may be quoted in a URI.
        """
        if self._pattern is None or len(object_id) != len(self._pattern[1]):
            return None
        if not set(object_id) <= set("0123456789abcdef-"):
            return None
        uri, sample = self._pattern
        return uri.replace(sample, object_id)

    @property
    def long_size(self) -> int:
        """Size in bytes of an object of several chunks and, unless too large, several parts."""
        return max([3 * self.chunk_size, *(2 * size for size in self.thresholds)]) + 7


@functools.cache
def _inventory(path: str) -> Callable[[], Iterable[str]]:
    """Return the function ``inventory`` of a Python file.

    The file is run only once, so that it can keep state.
    """
    try:
        inventory: Callable[[], Iterable[str]] = runpy.run_path(path)["inventory"]
    except KeyError:
        raise SetupError(f"Expected a function inventory() in {path}, got none") from None
    return inventory


def allowed_memory(chunk_size: int) -> dict[str, int]:
    """Return by how many bytes the memory of a process may grow during ``adds`` and ``gets``."""
    chunk = -(-chunk_size // _MIB)
    # A part that is larger than the limit is sent alone.  The limit does not include chunks that a
    # reader has returned to its caller, or is about to return.
    return {
        "adds": (MEMORY_LIMIT + _SLACK + 4 * chunk) * _MIB,
        "gets": (MEMORY_LIMIT + _SLACK + 4 * chunk * MEMORY_GETS) * _MIB,
    }


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _with_offsets(reader: object) -> "list[tuple[int, bytes]]":
    chunks = []
    offset = 0
    for chunk in reader:  # type: ignore[attr-defined]
        chunks.append((offset, chunk))
        offset += len(chunk)
    return chunks


def _secret_values(store: Store) -> tuple[str, ...]:
    """Return the values of the store's secret options, except very short ones."""
    driver = store.driver
    assert driver is not None
    values: list[str] = []
    for option in driver.options:
        if option.secret:
            value = driver.conf[option.dest]
            if isinstance(value, dict):
                value = list(value.values())
            for text in value if isinstance(value, list | tuple) else [value]:
                if isinstance(text, str):
                    # In a URL with a login, the password is the secret.
                    values += _PASSWORD.findall(text) or [text]
    return tuple(secret for secret in values if len(secret) >= 4)
