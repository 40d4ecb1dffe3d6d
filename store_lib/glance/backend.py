"""glance_store's functions for a service with a single store: all options in one section."""

from collections.abc import Iterator, KeysView, Sequence
from typing import Any

from oslo_config import cfg

from store_lib.display import get_logger
from store_lib.glance import location
from store_lib.glance._impl.factory import make_store, make_stores, map_entry
from store_lib.glance._impl.options import list_single, register_single
from store_lib.glance.driver import Store
from store_lib.glance.exceptions import BackendException, UnknownScheme
from store_lib.transfer.digest import check_names

CONF = cfg.CONF
LOG = get_logger(__name__)

#: oslo-config-generator calls it for the namespace ``glance.store``.
_list_opts = list_single
register_opts = register_single


def _load_store(conf: Any, store_entry: str, invoke_load: bool = True) -> Any:
    """Make a store without configuring it, as Glance does for its staging directory.

    :return: the store, or its class if ``invoke_load`` is false; ``None`` without a driver
    """
    store = make_store(conf, store_entry)
    return store if invoke_load or store is None else type(store)


def create_stores(conf: Any = CONF) -> int:
    """Make the stores named by ``stores`` in ``[glance_store]`` and return their number."""
    types = {name: name for name in map(str.strip, conf.glance_store.stores) if name}
    stores = make_stores(conf, types, single=True)
    for store_id, store in stores:
        entry = map_entry(store, types[store_id])
        location.register_scheme_map(dict.fromkeys(store.get_schemes(), entry))
    return len(stores)


def verify_default_store() -> None:
    """Check that the default store exists.

    :raises RuntimeError: it does not exist
    """
    scheme = CONF.glance_store.default_store
    try:
        get_store_from_scheme(scheme)
    except UnknownScheme:
        raise RuntimeError(f"Store for scheme {scheme} not found") from None


def get_known_schemes() -> KeysView[str]:
    """Return the URI schemes of the stores."""
    return location.SCHEME_TO_CLS_MAP.keys()


def get_store_from_scheme(scheme: str) -> Store:
    """Return the store whose URIs have this scheme.

    :raises UnknownScheme: no store has it
    """
    try:
        store: Store = location.SCHEME_TO_CLS_MAP[scheme]["store"]
    except KeyError:
        raise UnknownScheme(scheme=scheme) from None
    return store


def get_store_from_uri(uri: str) -> Store:
    """Return the store that a URI belongs to.

    :raises UnknownScheme: no store has its scheme
    """
    return get_store_from_scheme(location.scheme_of(uri))


def get_store_from_location(uri: str) -> str:
    """Return the scheme of a URI.

    :raises UnknownScheme: no store has it
    """
    return location.get_location_from_uri(uri, conf=CONF).store_name


def get_from_backend(
    uri: str, offset: int = 0, chunk_size: int | None = None, context: Any = None
) -> tuple[Any, int]:
    """Return the bytes of an object, or of a range of it, and their number.

    The number is 0 if unknown.

    :raises NotFound: the object does not exist
    """
    loc = location.get_location_from_uri(uri, conf=CONF)
    store = get_store_from_uri(uri)
    return store.get(loc, offset=offset, chunk_size=chunk_size, context=context)


def get_size_from_backend(uri: str, context: Any = None) -> int:
    """Return the size of an object in bytes, 0 if unknown.

    :raises NotFound: the object does not exist
    """
    loc = location.get_location_from_uri(uri, conf=CONF)
    return get_store_from_uri(uri).get_size(loc, context=context)


def delete_from_backend(uri: str, context: Any = None) -> None:
    """Delete an object.

    :raises NotFound: the object does not exist
    :raises StoreDeleteNotSupported: the store is read-only
    """
    loc = location.get_location_from_uri(uri, conf=CONF)
    return get_store_from_uri(uri).delete(loc, context=context)


def check_location_metadata(val: Any, key: str = "") -> None:
    """Check that ``val`` consists of dict, list and str only.

    :raises BackendException: it contains another type
    """
    if isinstance(val, dict):
        for name, value in val.items():
            check_location_metadata(value, key=name)
    elif isinstance(val, list):
        for number, item in enumerate(val):
            check_location_metadata(item, key=f"{key}[{number}]")
    elif not isinstance(val, str):
        raise BackendException(
            f"The image metadata key {key} has an invalid type of {type(val)}. Only dict, list, "
            "and unicode are supported."
        )


def _check_metadata(store: object, metadata: Any) -> None:
    """Check the metadata that a store's ``add`` returned, which a service writes to its database.

    :raises BackendException: a service cannot keep the metadata
    """
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise BackendException(
            f"The storage driver {store} returned invalid metadata {metadata}. This must be a "
            "dictionary type"
        )
    try:
        check_location_metadata(metadata)
    except BackendException as error:
        raise BackendException(
            f"A bad metadata structure was returned from the {store} storage driver: {metadata}. "
            f"{error}."
        ) from error


def store_add_to_backend(
    image_id: str, data: Any, size: int, store: Any, context: Any = None, verifier: Any = None
) -> tuple[str, int, str, dict[str, Any]]:
    """Add an object and return its URI, size, md5 and metadata.

    :param size: bytes, 0 if unknown
    :raises BackendException: the store returned metadata that a service cannot keep
    """
    uri, stored, checksum, metadata = store.add(
        image_id, data, size, context=context, verifier=verifier
    )
    _check_metadata(store, metadata)
    return uri, stored, checksum, metadata


def store_add_to_backend_with_multihash(
    image_id: str,
    data: Any,
    size: int,
    hashing_algo: str,
    store: Any,
    context: Any = None,
    verifier: Any = None,
) -> tuple[str, int, str, str, dict[str, Any]]:
    """Add an object and return its URI, size, md5, digest and metadata.

    :param size: bytes, 0 if unknown
    :raises UnknownHashingAlgo: ``hashing_algo`` is unknown; nothing was read
    :raises BackendException: the store returned metadata that a service cannot keep
    """
    check_names((hashing_algo,), None)
    uri, stored, checksum, multihash, metadata = store.add(
        image_id, data, size, hashing_algo, context=context, verifier=verifier
    )
    _check_metadata(store, metadata)
    return uri, stored, checksum, multihash, metadata


def add_to_backend(
    conf: Any,
    image_id: str,
    data: Any,
    size: int,
    scheme: str | None = None,
    context: Any = None,
    verifier: Any = None,
) -> tuple[str, int, str, dict[str, Any]]:
    """Add an object to the store of a scheme, or to the default store.

    :return: as :func:`store_add_to_backend`
    """
    store = get_store_from_scheme(scheme or conf.glance_store.default_store)
    return store_add_to_backend(image_id, data, size, store, context, verifier)


def add_to_backend_with_multihash(
    conf: Any,
    image_id: str,
    data: Any,
    size: int,
    hashing_algo: str,
    scheme: str | None = None,
    context: Any = None,
    verifier: Any = None,
) -> tuple[str, int, str, str, dict[str, Any]]:
    """Add an object to the store of a scheme, or to the default store.

    :return: as :func:`store_add_to_backend_with_multihash`
    """
    store = get_store_from_scheme(scheme or conf.glance_store.default_store)
    return store_add_to_backend_with_multihash(
        image_id, data, size, hashing_algo, store, context, verifier
    )


def set_acls(
    location_uri: str,
    public: bool = False,
    read_tenants: Sequence[str] = (),
    write_tenants: Sequence[str] | None = None,
    context: Any = None,
) -> None:
    """Set who else may read or write an object, if the backend has access lists."""
    loc = location.get_location_from_uri(location_uri, conf=CONF)
    store = get_store_from_scheme(loc.store_name)
    try:
        store.set_acls(
            loc,
            public=public,
            read_tenants=list(read_tenants),
            write_tenants=list(write_tenants or ()),
            context=context,
        )
    except NotImplementedError:
        LOG.debug("Skipping store.set_acls... not implemented")


class Indexable:
    """Makes the chunks of an iterator available to a client library by slicing.

    Only the latest chunk can be read again.

    :param size: total bytes; with 0, ``wrapped.len`` if there is one
    """

    def __init__(self, wrapped: Any, size: Any) -> None:
        self.wrapped = wrapped
        self.size = int(size) if size else int(getattr(wrapped, "len", 0))
        self.cursor = 0
        self.chunk: Any = None

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.wrapped:
            self.chunk = chunk
            yield chunk

    def __getitem__(self, i: "slice | int") -> Any:
        start: int = (i.start or 0) if isinstance(i, slice) else i
        if start < self.cursor:
            return self.chunk[start - self.cursor :]
        self.chunk = self.another()
        if self.chunk:
            self.cursor += len(self.chunk)
        return self.chunk

    def another(self) -> Any:
        """Return the next chunk; subclasses implement it."""
        raise NotImplementedError

    def getvalue(self) -> Any:
        """Return what ``getvalue`` of the wrapped object returns."""
        return self.wrapped.getvalue()

    def __len__(self) -> int:
        return self.size


__all__ = [
    "CONF",
    "Indexable",
    "add_to_backend",
    "add_to_backend_with_multihash",
    "check_location_metadata",
    "create_stores",
    "delete_from_backend",
    "get_from_backend",
    "get_known_schemes",
    "get_size_from_backend",
    "get_store_from_location",
    "get_store_from_scheme",
    "get_store_from_uri",
    "register_opts",
    "set_acls",
    "store_add_to_backend",
    "store_add_to_backend_with_multihash",
    "verify_default_store",
]
