"""A store as glance_store's callers know it, over one of store_lib's."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from store_lib.config import Selection, StoreSection
from store_lib.display import get_logger
from store_lib.driver import Driver
from store_lib.glance import capabilities, exceptions, location
from store_lib.glance.driver import Store, back_compat_add
from store_lib.glance.installed import driver_class
from store_lib.location import scheme_of
from store_lib.options import StoreOptions
from store_lib.store import Store as Backing
from store_lib.stores import Stores
from store_lib.transfer.reader import ObjectReader
from store_lib.transfer.retry import retry_at_most

LOG = get_logger(__name__)

#: Bytes that are read of a service at a time.  Each read of Glance's makes it inspect what came
#: and sleep for an instant, so few are good.  But a chunked body, whose size is not known, it puts
#: together for each read by adding chunk to chunk, and copies all it has for each: of 8 MiB, which
#: a store may want at a time, every byte 64 times.
_KNOWN, _UNKNOWN = 1024 * 1024, 256 * 1024

#: Seconds for which the request for a size is repeated: it is made while a user waits, perhaps for
#: each image of a list, and for URIs that somebody has made up.
SOON = 3.0

#: What get_size passes on; anything else that goes wrong there is an unknown size.
_PASSED_ON = (exceptions.NotFound, exceptions.BadStoreUri, exceptions.UnknownScheme)


class BackedStore(Store):
    """Hands each call on, in the form and with the meanings that glance_store gave it.

    :param driver_name: the driver's name
    """

    #: The driver that a store of this class has when nobody names another.
    DRIVER: str = ""

    def __init__(self, conf: Any, backend: str | None = None, driver_name: str = "") -> None:
        super().__init__(conf, backend=backend)
        self.driver_name = driver_name or self.DRIVER
        #: What does the work; there once the store is configured.
        self.backing: Backing | None = None
        #: Whether the service keeps the store for itself, for objects that come and go.
        self.reserved = False

    def configure_add(self) -> None:
        if self.backing is None:
            section = StoreSection(
                self.backend_group or self.driver_name,
                self.driver_name,
                self.backend_group or "glance_store",
            )
            (self.backing,) = Stores(Selection(self.conf, [section]))
        backing = self.configured
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
    def driver(self) -> Driver | None:
        """The driver; ``None`` where it could not be made."""
        return self.backing.driver if self.backing is not None else None

    @property
    def store_conf(self) -> StoreOptions:
        """The store's options, as attributes."""
        options = self.backing.options if self.backing is not None else None
        if options is None:  # not configured yet, or a value is not of its option's type
            found = driver_class(self.driver_name)
            options = StoreOptions.of(found.options if found is not None else ())
        return options

    @property
    def url_prefix(self) -> str | None:
        try:
            return self.driver.url_prefix if self.driver is not None else None
        except exceptions.GlanceStoreException as error:
            # Services compare it with every image's URI, and expect no error.
            LOG.warning("What the URIs of %s begin with is not known for now: %s", self, error)
            return None

    def get_schemes(self) -> Sequence[str]:
        found = type(self.driver) if self.driver is not None else driver_class(self.driver_name)
        return found.schemes if found is not None else ()

    def get_store_location_class(self) -> type[Any]:
        if self.store_location_class is None:
            self.store_location_class = type("StoreLocation", (_BackedLocation,), {"store": self})
        return self.store_location_class

    @property
    def configured(self) -> Backing:
        """What does the work.

        :raises BadStoreConfiguration: the store was not configured
        """
        if self.backing is None:
            raise exceptions.BadStoreConfiguration(
                f"Store {self.backend_group or self.driver_name} was not configured: call "
                "configure() first."
            )
        return self.backing

    def holding(self, uri: str) -> Backing:
        """Return the store that an object at ``uri`` is asked of.

        A service finds the store of an image by what the URI begins with, and so takes what lies
        in images-2 for what lies in images.  glance_store found the object all the same.
        """
        if self.backend_group is not None and not self._holds(uri):
            prefix = self.url_prefix
            if prefix is not None and uri.startswith(prefix):
                for each in self._siblings():
                    if each._holds(uri):
                        return each.configured
        return self.configured

    def _holds(self, uri: str) -> bool:
        return self.driver is not None and self.driver.holds(self.driver.parse(uri))

    def _siblings(self) -> Iterator["BackedStore"]:
        """Yield the stores of several that are of this one's kind."""
        for stores in list(location.SCHEME_TO_CLS_BACKEND_MAP.values()):
            for entry in list(stores.values()):
                if isinstance(entry["store"], type(self)):
                    yield entry["store"]

    def meant(self, uri: str) -> str:
        """Return the URI by which the store finds what a service's URI meant in glance_store."""
        return uri

    def _found(self, location: Any) -> tuple[Backing, str]:
        uri = location.get_store_uri()
        backing = self.holding(uri)
        return backing, self.meant(uri) if backing is self.backing else uri

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
        added = self.configured.add(
            str(image_id),
            _reads_of(image_file, _KNOWN if image_size else _UNKNOWN),
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
        backing, uri = self._found(location)
        reader = backing.get(uri, offset or 0, chunk_size or None, context=context)
        return reader, reader.length or 0

    def get_size(self, location: Any, context: Any = None) -> int:
        try:
            return self._size_of(location, context)
        except _PASSED_ON:
            raise
        except exceptions.GlanceStoreException as error:
            LOG.warning("The size of an object is not known for now: %s", error)
            return 0

    def _size_of(self, location: Any, context: Any) -> int:
        with retry_at_most(SOON):
            backing, uri = self._found(location)
            return backing.stat(uri, context=context).size or 0

    def delete(self, location: Any, context: Any = None) -> None:
        backing, uri = self._found(location)
        backing.delete(uri, context=context)

    def set_acls(
        self,
        location: Any,
        public: bool = False,
        read_tenants: Sequence[str] | None = None,
        write_tenants: Sequence[str] | None = None,
        context: Any = None,
    ) -> None:
        backing, uri = self._found(location)
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


class _BackedLocation(location.StoreLocation):
    """A URI of one store."""

    store: BackedStore
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


def _reads_of(data: Any, limit: int) -> Any:
    """Return a source that reads at most ``limit`` bytes of a service's reader at a time."""
    if not callable(getattr(data, "read", None)) or hasattr(data, "readinto"):
        return data  # an iterable, or a file
    return _Reads(data.read, limit)


class _Reads:
    """A reader whose reads are short ones."""

    def __init__(self, read: Callable[[int], Any], limit: int) -> None:
        self._read = read
        self._limit = limit

    def read(self, amount: int) -> Any:
        return self._read(min(amount, self._limit))


class _UpdateOnly:
    """A verifier without its ``verify``: the service calls that itself, and it can be called once.

    It gets bytes, as it did from glance_store.
    """

    def __init__(self, verifier: Any) -> None:
        self._verifier = verifier

    def update(self, data: memoryview | bytes) -> None:
        self._verifier.update(bytes(data))
