"""What the kit is told of the store under test, and what it finds out for itself."""

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

#: MiB that all transfers of the measured process may hold (transfer_memory_limit) ...
MEMORY_LIMIT = 16
#: ... and that Python, threads and client libraries may take beside.
_SLACK = 32
#: Gets at once whose memory is measured.
MEMORY_GETS = 4

#: A transfer of more than this is made only where a check is about size.
_AFFORDABLE = 64 * _MIB


class SetupError(Exception):
    """The kit cannot run against what it was given; the text says why."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the kit is told."""

    #: Configuration files, later ones winning.
    configs: tuple[str, ...]
    store_id: str
    #: For a store that cannot be added to: the URI of an object in it, ...
    known_uri: str | None = None
    #: ... and a file that holds the same bytes.
    known_file: str | None = None
    #: Bytes of the transfers whose memory is measured.
    big_size: int = 256 * _MIB
    #: Seconds that one check may take.
    check_timeout: float = 120
    #: Seconds within which what a killed process held must be free again.
    settle: float = 60
    #: Seconds for the backend to show or drop something that it shows a little late.
    patience: float = 10
    #: Descriptors and threads that the driver may keep once it has been used.
    allow_fds: int = 0
    allow_threads: int = 0
    #: A Python file whose function ``context()`` makes the context that every call gets.
    context: str | None = None
    #: A Python file whose function ``inventory()`` returns the names of all that is in the backend,
    #: found by other means than the store's.
    inventory: str | None = None
    #: Make every check, but with fewer sizes, rounds and kills.
    short: bool = False

    def open(self) -> Stores:
        """Return the configured stores, made anew."""
        return open_stores(self.configs, self.context)


class Profile:
    """The store under test: what it claims, and (after :meth:`prepare`) how it behaves.

    :raises SetupError: there is no such store, its configuration failed, or it cannot be added
        to and no known object was given
    """

    #: Capabilities that the store claims and its server does not have, each with the reason.
    #: Known after :meth:`prepare`; no check is made of them.
    withheld: dict[str, str]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.known: FileContent | None = None
        self.withheld = {}
        try:
            stores = settings.open()
        except Exception as error:
            raise SetupError(f"The configuration cannot be used: {_describe(error)}") from error
        try:
            self._look(stores)
        finally:
            stores.close()
        #: Bytes of the chunks that the engine hands to the driver.
        self.chunk_size = _MIB
        #: Sizes at which the driver changes its ways: of a part, of the largest single request.
        self.steps: tuple[int, ...] = ()
        #: Seconds that an add, a get and a delete of a small object take together.
        self.pace = 0.0
        self._prepared = False
        #: What the process holds once the store has been used and closed again; ``None`` when
        #: that is to be counted anew.
        self.base: Resources | None = None
        self._pattern: tuple[str, str] | None = None
        self._failed: str | None = None

    def _look(self, stores: Stores) -> None:
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
            self._look_at_known(store)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the store claims to be able to do, but for what its server withholds."""
        return self._claimed - self.withheld.keys()

    @property
    def traits(self) -> frozenset[str]:
        """Everything that checks are chosen by.

        The store's capabilities, ``by_id`` or ``new_location`` (what an add of a known id means),
        and ``secrets`` (some are configured).
        """
        traits = set(self.capabilities)
        if "add" in traits:
            own = self.create_only is CreateOnly.NEW_LOCATION
            traits.add("new_location" if own else "by_id")
        if self.secrets:
            traits.add("secrets")
        return frozenset(traits)

    def _look_at_known(self, store: Store) -> None:
        uri, path = self.settings.known_uri, self.settings.known_file
        if not uri or not path:
            raise SetupError(
                f"Store {store.id} cannot be added to: give an object that is in it with "
                "--store-uri URI, and a file of the same bytes with --store-file FILE."
            )
        if not os.path.isfile(path):
            raise SetupError(f"Expected a file for --store-file, got {path}")
        try:
            stat = store.stat(uri)
        except StoreError as error:
            raise SetupError(f"The object of --store-uri cannot be found: {error}") from error
        self.known = FileContent(path)
        if stat.size not in (None, self.known.size):
            raise SetupError(
                f"The object of --store-uri has {stat.size} bytes, the file {path} has "
                f"{self.known.size}: they must be the same."
            )

    def prepare(self) -> None:
        """Use the store once, so that what it keeps for good is there, and learn its sizes.

        What it withholds is found out here too.

        :raises SetupError: that failed
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
                    self.pace = time.monotonic() - began
                    self._look_for_withheld(store)
            self.inventory()
        except Exception as error:
            self._failed = str(error) if isinstance(error, SetupError) else self._explain(error)
            raise SetupError(self._failed) from error
        self._prepared = True

    def _explain(self, error: Exception) -> str:
        return (
            f"Store {self.settings.store_id} cannot be used: an object was added, read and deleted "
            f"to try it, and what came was {_describe(error)}"
        )

    def _look_for_withheld(self, store: Store) -> None:
        """Ask once for what every check asks for; a server may lack what its driver claims."""
        listings: dict[str, tuple[Callable[[], Iterable[object]], str]] = {
            "list": (store.list, "list objects, so what an add leaves is not seen in a listing"),
            "list_incomplete": (
                store.list_incomplete,
                "list incomplete uploads; sweep cannot work",
            ),
        }
        for name, (listing, meaning) in listings.items():
            if name not in self._claimed or name in self.withheld:
                continue
            try:
                for _ in listing():
                    break
            except StoreError as error:
                if error.status is not ErrorStatus.PERMANENT:
                    raise
                self.withheld[name] = f"this server cannot {meaning} (got {_describe(error)})"

    def inventory(self) -> frozenset[str]:
        """Return the names of all that is in the backend; none where nobody can tell."""
        if self.settings.inventory is None:
            return frozenset()
        return frozenset(map(str, _inventory(self.settings.inventory)()))

    def _check_big_size(self, chunk_size: int) -> None:
        """Refuse a size of big transfers that would tell nothing of a bound of memory."""
        least = max(allowed_memory(chunk_size).values())
        if self.settings.big_size <= least:
            raise SetupError(
                f"Expected --store-big-size above {least // _MIB} MiB for chunks of "
                f"{chunk_size} bytes, got {self.settings.big_size // _MIB}: a transfer that fits "
                "into what may be held at once tells nothing."
            )

    def _try(self, store: Store) -> None:
        uri = self.settings.known_uri
        content: Content | FileContent
        if "add" in self.capabilities:
            self._learn_sizes(store)
            content = Content(2 * self.chunk_size + 1)
            object_id = str(uuid.uuid4())
            uri = store.add(object_id, content.pieces()).uri
            self._pattern = (uri, object_id) if object_id in uri else None
        elif self.known is not None:
            content = self.known
            self.chunk_size = max(1, min(_MIB, content.size // 4))
        assert uri is not None
        with store.get(uri) as reader:
            same = all(
                piece == content.slice(offset, len(piece)) for offset, piece in _placed(reader)
            )
        if not same and uri == self.settings.known_uri:
            raise SetupError("The object of --store-uri does not hold the bytes of --store-file.")
        if "add" in self.capabilities and "delete" in self.capabilities:
            store.delete(uri)

    def _learn_sizes(self, store: Store) -> None:
        driver = store.driver
        assert driver is not None
        writer = driver.create(str(uuid.uuid4()), None, nonce=secrets.token_hex(16), context=None)
        steps = []
        try:
            self.chunk_size = writer.chunk_size
            self._check_big_size(self.chunk_size)
            if isinstance(writer, PartWriter) and writer.once_limit is not None:
                steps = [writer.once_limit, writer.part_size(1)]
        finally:
            writer.abort()
        self.steps = tuple(sorted({step for step in steps if 0 < step <= _AFFORDABLE // 4}))

    def uri_of(self, object_id: str) -> str | None:
        """Return the URI that an object of this id would have, where ids show in URIs.

        Only for ids that :meth:`Target.new_id` made: others may be quoted in a URI.
        """
        if self._pattern is None or len(object_id) != len(self._pattern[1]):
            return None
        if not set(object_id) <= set("0123456789abcdef-"):
            return None
        uri, sample = self._pattern
        return uri.replace(sample, object_id)

    @property
    def long_size(self) -> int:
        """Bytes of an object of several chunks and, where that is affordable, several parts."""
        return max([3 * self.chunk_size, *(2 * step for step in self.steps)]) + 7


@functools.cache
def _inventory(path: str) -> Callable[[], Iterable[str]]:
    """Run the file once, so that it can keep what it makes."""
    try:
        inventory: Callable[[], Iterable[str]] = runpy.run_path(path)["inventory"]
    except KeyError:
        raise SetupError(f"Expected a function inventory() in {path}, found none") from None
    return inventory


def allowed_memory(chunk_size: int) -> dict[str, int]:
    """Return by how many bytes the memory of a process may rise in ``adds`` and in ``gets``."""
    chunk = -(-chunk_size // _MIB)
    # A part of the backend's own making may be larger than the limit; then it goes alone.  The
    # piece that a reader's caller is at, and those on their way to him, are beside the limit.
    return {
        "adds": (MEMORY_LIMIT + _SLACK + 4 * chunk) * _MIB,
        "gets": (MEMORY_LIMIT + _SLACK + 4 * chunk * MEMORY_GETS) * _MIB,
    }


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _placed(reader: object) -> "list[tuple[int, bytes]]":
    placed = []
    offset = 0
    for piece in reader:  # type: ignore[attr-defined]
        placed.append((offset, piece))
        offset += len(piece)
    return placed


def _secret_values(store: Store) -> tuple[str, ...]:
    """Return the values of the store's secret options but for those too short to be told apart."""
    driver = store.driver
    assert driver is not None
    found: list[str] = []
    for option in driver.options:
        if option.secret:
            value = driver.conf[option.dest]
            if isinstance(value, dict):
                value = list(value.values())
            for each in value if isinstance(value, list | tuple) else [value]:
                if isinstance(each, str):
                    # In a URL with a login it is the password that must not show.
                    found += _PASSWORD.findall(each) or [each]
    return tuple(each for each in found if len(each) >= 4)
