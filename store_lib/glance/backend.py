"""glance_store's functions for the old single-store form: all options in one section."""

from collections.abc import KeysView, Sequence
from typing import Any

from oslo_config import cfg

from store_lib.display import get_logger
from store_lib.glance import location
from store_lib.glance.adding import store_add_to_backend, store_add_to_backend_with_multihash
from store_lib.glance.driver import Store
from store_lib.glance.exceptions import UnknownScheme
from store_lib.glance.indexable import Indexable
from store_lib.glance.making import entry_of, make_store, make_stores
from store_lib.glance.metadata import check_location_metadata
from store_lib.glance.options import list_single, register_single

CONF = cfg.CONF
LOG = get_logger(__name__)

#: What oslo-config-generator calls for the namespace ``glance.store``.
_list_opts = list_single
register_opts = register_single


def _load_store(conf: Any, store_entry: str, invoke_load: bool = True) -> Any:
    """Make one store, not configured yet; a service calls this for its staging directory.

    :return: the store, its class when ``invoke_load`` is false, ``None`` without a driver
    """
    store = make_store(conf, store_entry)
    return store if invoke_load or store is None else type(store)


def create_stores(conf: Any = CONF) -> int:
    """Make the stores that ``stores`` in ``[glance_store]`` names; return how many there are."""
    types = {name: name for name in map(str.strip, conf.glance_store.stores) if name}
    made = make_stores(conf, types, single=True)
    for store_id, store in made:
        entry = entry_of(store, types[store_id])
        location.register_scheme_map(dict.fromkeys(store.get_schemes(), entry))
    return len(made)


def verify_default_store() -> None:
    """Check that the default store is there.

    :raises RuntimeError: it is not
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

    :raises UnknownScheme: there is none
    """
    try:
        store: Store = location.SCHEME_TO_CLS_MAP[scheme]["store"]
    except KeyError:
        raise UnknownScheme(scheme=scheme) from None
    return store


def get_store_from_uri(uri: str) -> Store:
    """Return the store that a URI belongs to.

    :raises UnknownScheme: there is none
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
    """Return the bytes of an object or a range of it, and how many they are; 0: not known.

    :raises NotFound: there is no such object
    """
    loc = location.get_location_from_uri(uri, conf=CONF)
    store = get_store_from_uri(uri)
    return store.get(loc, offset=offset, chunk_size=chunk_size, context=context)


def get_size_from_backend(uri: str, context: Any = None) -> int:
    """Return how many bytes an object has; 0: not known.

    :raises NotFound: there is no such object
    """
    loc = location.get_location_from_uri(uri, conf=CONF)
    return get_store_from_uri(uri).get_size(loc, context=context)


def delete_from_backend(uri: str, context: Any = None) -> None:
    """Remove an object.

    :raises NotFound: there is no such object
    :raises StoreDeleteNotSupported: the store is read-only
    """
    loc = location.get_location_from_uri(uri, conf=CONF)
    return get_store_from_uri(uri).delete(loc, context=context)


def add_to_backend(
    conf: Any,
    image_id: str,
    data: Any,
    size: int,
    scheme: str | None = None,
    context: Any = None,
    verifier: Any = None,
) -> tuple[str, int, str, dict[str, Any]]:
    """Store an object in the store of a scheme, or the default one: four values."""
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
    """Store an object in the store of a scheme, or the default one: five values."""
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
    """Set who else may read or write an object, where the backend has such a thing."""
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
