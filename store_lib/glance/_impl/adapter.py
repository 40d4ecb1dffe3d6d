"""StoreAdapter: one of store_lib's stores behind the interface of a glance_store driver."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from store_lib.config import Selection, StoreSection
from store_lib.display import get_logger
from store_lib.driver import Driver
from store_lib.glance import capabilities, exceptions, location
from store_lib.glance._impl.registry import driver_class
from store_lib.glance.driver import Store, back_compat_add
from store_lib.location import scheme_of
from store_lib.options import StoreOptions
from store_lib.store import Store as Backing
from store_lib.stores import Stores
from store_lib.transfer.reader import ObjectReader
from store_lib.transfer.retry import retry_at_most

LOG = get_logger(__name__)

#: Bytes to read from a service at a time.  Glance inspects the data and sleeps for an instant at
#: every read, so large reads are good.  But it concatenates a chunked body, whose size is unknown,
#: chunk by chunk for every read, so there large reads are quadratic: 8 MiB, which a store may ask
#: for at once, would copy every byte 64 times.
_READ_SIZE, _CHUNKED_READ_SIZE = 1024 * 1024, 256 * 1024

#: Seconds for which a request for a size is retried: a user waits for it, perhaps once for every
#: image of a list, and the URI may be made up.
STAT_RETRY_SECONDS = 3.0

#: Errors that get_size raises; any other one makes the size unknown.
_EXPECTED_ERRORS = (exceptions.NotFound, exceptions.BadStoreUri, exceptions.UnknownScheme)


class StoreAdapter(Store):
    """Passes calls on to a store_lib store; arguments and results are glance_store's.

    :param driver_name: the name of store_lib's driver, :attr:`DRIVER` if empty
    """

    #: The default for ``driver_name``.
    DRIVER: str = ""

    def __init__(self, conf: Any, backend: str | None = None, driver_name: str = "") -> None:
        super().__init__(conf, backend=backend)
        self.driver_name = driver_name or self.DRIVER
        #: The store_lib store; ``None`` until the store is configured.
        self.backing: Backing | None = None
        #: Whether this is one of the service's reserved stores, such as Glance's staging area.
        self.reserved = False

    def configure_add(self) -> None:
        if self.backing is None:
            section = StoreSection(
                self.backend_group or self.driver_name,
                self.driver_name,
                self.backend_group or "glance_store",
            )
            (self.backing,) = Stores(Selection(self.conf, [section]))
        backing = self.require_backing()
        bits = capabilities.BitMasks
        self._capabilities = int(bits.DRIVER_REUSABLE)
        if backing.readable:
            self.set_capabilities(bits.READ_ACCESS)
            if "ranges" in backing.capabilities:
                self.set_capabilities(bits.READ_RANDOM)
        if backing.writable:
            self.set_capabilities(bits.WRITE_ACCESS)
        if backing.error is not None:
            raise backing.error

    @property
    def driver(self) -> Driver[Any] | None:
        """The driver, or ``None`` if it could not be created."""
        return self.backing.driver if self.backing is not None else None

    @property
    def store_conf(self) -> StoreOptions:
        """The store's options, as attributes."""
        options = self.backing.options if self.backing is not None else None
        if options is None:  # not configured yet, or a value is not of its option's type
            driver = driver_class(self.driver_name)
            options = StoreOptions.of(driver.options if driver is not None else ())
        return options

    @property
    def url_prefix(self) -> str | None:
        try:
            return self.driver.url_prefix if self.driver is not None else None
        except exceptions.GlanceStoreException as error:
            # Services compare it with every image's URI, and expect no error.
            LOG.warning("The URL prefix of %s is unknown for now: %s", self, error)
            return None

    def get_schemes(self) -> Sequence[str]:
        driver = type(self.driver) if self.driver is not None else driver_class(self.driver_name)
        return driver.schemes if driver is not None else ()

    def get_store_location_class(self) -> type[Any]:
        if self.store_location_class is None:
            self.store_location_class = type("StoreLocation", (_AdapterLocation,), {"store": self})
        return self.store_location_class

    def require_backing(self) -> Backing:
        """Return the store_lib store.

        :raises BadStoreConfiguration: this store was not configured
        """
        if self.backing is None:
            raise exceptions.BadStoreConfiguration(
                f"Store {self.backend_group or self.driver_name} was not configured: call "
                "configure() first."
            )
        return self.backing

    def _backing_for(self, uri: str) -> Backing:
        """Return the store that holds the object at ``uri``.

        A service finds the store of an image by the prefix of its URI.  So it may take an object in
        images-2 for one in images; glance_store would still find that object.
        """
        if self.backend_group is not None and not self._holds(uri):
            prefix = self.url_prefix
            if prefix is not None and uri.startswith(prefix):
                for sibling in self._siblings():
                    if sibling._holds(uri):
                        return sibling.require_backing()
        return self.require_backing()

    def _holds(self, uri: str) -> bool:
        return self.driver is not None and self.driver.holds(self.driver.parse(uri))

    def _siblings(self) -> Iterator["StoreAdapter"]:
        """Yield the configured stores of this one's class, this one included."""
        for stores in list(location.SCHEME_TO_CLS_BACKEND_MAP.values()):
            for entry in list(stores.values()):
                if isinstance(entry["store"], type(self)):
                    yield entry["store"]

    def current_uri(self, uri: str) -> str:
        """Return the URI under which the store finds what glance_store found at ``uri``."""
        return uri

    def _resolve(self, location: Any) -> tuple[Backing, str]:
        uri = location.get_store_uri()
        backing = self._backing_for(uri)
        return backing, self.current_uri(uri) if backing is self.backing else uri

    @back_compat_add
    def add(
        self,
        image_id: str,
        image_file: Any,
        image_size: int,
        hashing_algo: str,
        context: Any = None,
        verifier: Any = None,
    ) -> tuple[str, int, str, str, dict[str, Any]]:
        added = self.require_backing().add(
            str(image_id),
            _limit_reads(image_file, _READ_SIZE if image_size else _CHUNKED_READ_SIZE),
            image_size or None,
            digests=("md5", hashing_algo),
            verifier=None if verifier is None else _UpdateOnly(verifier),
            context=context,
        )
        metadata = dict(added.metadata)
        if self.backend_group:
            metadata["store"] = self.backend_group
        digests = added.digests
        return added.uri, added.size, digests["md5"], digests[hashing_algo], metadata

    def get(
        self, location: Any, offset: int = 0, chunk_size: int | None = None, context: Any = None
    ) -> tuple[ObjectReader, int]:
        backing, uri = self._resolve(location)
        reader = backing.get(uri, offset or 0, chunk_size or None, context=context)
        return reader, reader.length or 0

    def get_size(self, location: Any, context: Any = None) -> int:
        try:
            return self._stat_size(location, context)
        except _EXPECTED_ERRORS:
            raise
        except exceptions.GlanceStoreException as error:
            LOG.warning("The size of an object is unknown for now: %s", error)
            return 0

    def _stat_size(self, location: Any, context: Any) -> int:
        with retry_at_most(STAT_RETRY_SECONDS):
            backing, uri = self._resolve(location)
            return backing.stat(uri, context=context).size or 0

    def delete(self, location: Any, context: Any = None) -> None:
        backing, uri = self._resolve(location)
        backing.delete(uri, context=context)

    def set_acls(
        self,
        location: Any,
        public: bool = False,
        read_tenants: Sequence[str] | None = None,
        write_tenants: Sequence[str] | None = None,
        context: Any = None,
    ) -> None:
        backing, uri = self._resolve(location)
        if "set_acls" not in backing.capabilities:
            raise NotImplementedError
        backing.set_acls(
            uri,
            public=public,
            read_tenants=read_tenants or (),
            write_tenants=write_tenants or (),
            context=context,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.Store {self.backend_group or self.driver_name}>"


class _AdapterLocation(location.StoreLocation):
    """A URI of the adapter's store."""

    store: StoreAdapter
    _uri = ""

    def parse_uri(self, uri: str) -> None:
        driver = self.store.driver
        if driver is None:
            scheme_of(uri)
        else:
            driver.parse(uri)
        self._uri = uri

    def get_uri(self) -> str:
        return self._uri


def _limit_reads(data: Any, limit: int) -> Any:
    """Return a source that reads at most ``limit`` bytes from a service's reader at a time."""
    if not callable(getattr(data, "read", None)) or hasattr(data, "readinto"):
        return data  # an iterable, or a file
    return _LimitedReader(data.read, limit)


class _LimitedReader:
    """A reader that limits the size of a read."""

    def __init__(self, read: Callable[[int], Any], limit: int) -> None:
        self._read = read
        self._limit = limit

    def read(self, amount: int) -> Any:
        return self._read(min(amount, self._limit))


class _UpdateOnly:
    """A verifier without its ``verify``, which can be called only once: the service calls it.

    ``update`` receives bytes, as it did from glance_store.
    """

    def __init__(self, verifier: Any) -> None:
        self._verifier = verifier

    def update(self, data: memoryview | bytes) -> None:
        self._verifier.update(bytes(data))
