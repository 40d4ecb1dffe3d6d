"""glance_store's functions for a service with several stores, a section for each."""

from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from typing import Any, TypeVar

from oslo_config import cfg

from store_lib.display import get_logger
from store_lib.glance import location
from store_lib.glance._impl.factory import make_stores, map_entry
from store_lib.glance._impl.options import (
    list_multi,
    register_reserved,
    register_set,
    register_store,
)
from store_lib.glance._impl.registry import canonical
from store_lib.glance.backend import (
    check_location_metadata,
    store_add_to_backend,
    store_add_to_backend_with_multihash,
)
from store_lib.glance.driver import Store
from store_lib.glance.exceptions import BadStoreUri, NotFound, UnknownScheme

CONF = cfg.CONF
LOG = get_logger(__name__)

T = TypeVar("T")

#: The types of the service's reserved stores, by id.
_RESERVED_STORES: dict[str, str] = {}

#: oslo-config-generator calls it for the namespace ``glance.multi_store``.
_list_config_opts = list_multi


def register_store_opts(conf: Any, reserved_stores: Mapping[str, str] | None = None) -> None:
    """Register the options of the stores in ``enabled_backends`` and of the reserved stores.

    :param reserved_stores: types by id of stores that the service uses internally; they are
        added to ``conf.enabled_backends``
    """
    _RESERVED_STORES.update(reserved_stores or {})
    register_set(conf)
    for store_id, store_type in _types(conf, reserved_stores).items():
        if store_id in _RESERVED_STORES:
            register_reserved(conf, store_id, store_type)
        else:
            register_store(conf, store_id, store_type)
    _show_reserved(conf, reserved_stores)


def _types(conf: Any, reserved_stores: Mapping[str, str] | None) -> dict[str, str]:
    """Return the types of all stores by id, under Glance's names."""
    enabled: dict[str, str] = conf.enabled_backends
    known = {store_id: canonical(store_type) for store_id, store_type in enabled.items()}
    if known != enabled:
        conf.set_override("enabled_backends", known)
    return known | dict(reserved_stores or {})


def _show_reserved(conf: Any, reserved_stores: Mapping[str, str] | None) -> None:
    """Add the reserved stores to ``enabled_backends``; registering options removes them."""
    conf.enabled_backends.update(reserved_stores or {})


def create_multi_stores(conf: Any = CONF, reserved_stores: Mapping[str, str] | None = None) -> int:
    """Make the stores in ``enabled_backends`` and the reserved stores.

    A misconfigured store is kept, read-only if possible, and does not prevent the others.

    :param reserved_stores: as for :func:`register_store_opts`
    :return: the number of schemes, counted once for each store
    """
    register_store_opts(conf, reserved_stores)
    types = _types(conf, reserved_stores)
    for scheme, stores in list(location.SCHEME_TO_CLS_BACKEND_MAP.items()):
        for store_id in types:
            stores.pop(store_id, None)  # an earlier store of this id may have had other schemes
        if not stores:
            del location.SCHEME_TO_CLS_BACKEND_MAP[scheme]
    count = 0
    for store_id, store in make_stores(conf, types, single=False, reserved=_RESERVED_STORES):
        entry = map_entry(store, types[store_id])
        for scheme in store.get_schemes():
            location.register_scheme_backend_map({scheme: {store_id: entry}})
            count += 1
    _show_reserved(conf, reserved_stores)
    return count


def verify_store() -> None:
    """Check that a default store is configured and exists.

    :raises RuntimeError: it is missing
    """
    store_id = CONF.glance_store.default_backend
    if not store_id:
        raise RuntimeError("'default_backend' config option is not set.")
    try:
        get_store_from_store_identifier(store_id)
    except UnknownScheme:
        raise RuntimeError(f"Store for identifier {store_id} not found") from None


def get_store_from_store_identifier(store_identifier: str) -> Store:
    """Return a store by its id.

    :raises UnknownScheme: no store has this id
    """
    for stores in location.SCHEME_TO_CLS_BACKEND_MAP.values():
        if store_identifier in stores:
            store: Store = stores[store_identifier]["store"]
            return store
    raise UnknownScheme(f"Store for identifier {store_identifier} not found")


def get_store_weight(store_identifier: str) -> int:
    """Return a store's weight; stores of a higher weight are preferred.

    :raises UnknownScheme: no store has this id
    """
    return get_store_from_store_identifier(store_identifier).weight


def add(
    conf: Any,
    image_id: str,
    data: Any,
    size: int,
    backend: str | None,
    context: Any = None,
    verifier: Any = None,
) -> tuple[str, int, str, dict[str, Any]]:
    """Add an object to a store, or to the default store.

    :return: as :func:`store_add_to_backend`
    """
    store = get_store_from_store_identifier(backend or conf.glance_store.default_backend)
    return store_add_to_backend(image_id, data, size, store, context, verifier)


def add_with_multihash(
    conf: Any,
    image_id: str,
    data: Any,
    size: int,
    backend: str | None,
    hashing_algo: str,
    scheme: str | None = None,
    context: Any = None,
    verifier: Any = None,
) -> tuple[str, int, str, str, dict[str, Any]]:
    """Add an object to a store, or to the default store.

    :param scheme: not used
    :return: as :func:`store_add_to_backend_with_multihash`
    """
    store = get_store_from_store_identifier(backend or conf.glance_store.default_backend)
    return store_add_to_backend_with_multihash(
        image_id, data, size, hashing_algo, store, context, verifier
    )


def get(
    uri: str,
    backend: str | None,
    offset: int = 0,
    chunk_size: int | None = None,
    context: Any = None,
) -> tuple[Any, int]:
    """Return the bytes of an object, or of a range of it, and their number.

    The number is 0 if unknown.

    :param backend: the store's id; ``None`` tries every store that has this scheme
    :raises NotFound: the object does not exist
    """
    options = {"offset": offset, "chunk_size": chunk_size, "context": context}
    return _first_result(uri, backend, lambda store, loc: store.get(loc, **options))


def delete(uri: str, backend: str | None, context: Any = None) -> None:
    """Delete an object.

    :param backend: the store's id; ``None`` tries every store that has this scheme
    :raises NotFound: the object does not exist
    """
    return _first_result(uri, backend, lambda store, loc: store.delete(loc, context=context))


def _first_result(
    uri: str, backend: str | None, call: Callable[[Store, location.Location], T]
) -> T:
    """Return the result of ``call`` for the store, or for the first one that has the object."""
    for store, loc in _candidates(uri, backend):
        try:
            return call(store, loc)
        except (NotFound, UnknownScheme, BadStoreUri):
            if backend:
                raise
    raise NotFound("Image not found in any configured backend")


def _candidates(uri: str, backend: str | None) -> Iterator[tuple[Store, location.Location]]:
    """Yield the stores to try for a URI, with the URI as the store's location."""
    if backend:
        yield _locate(uri, backend)
        return
    LOG.warning("Backend is not set to image, searching all backends based on location URI.")
    for store_id in list(location.SCHEME_TO_CLS_BACKEND_MAP.get(location.scheme_of(uri), ())):
        try:
            candidate = _locate(uri, store_id)
        except BadStoreUri:
            continue
        yield candidate


def _locate(uri: str, backend: str) -> tuple[Store, location.Location]:
    """Return a store by its id, and a URI as its location.

    :raises UnknownScheme: no such store, or it does not have the URI's scheme
    """
    loc = location.get_location_from_uri_and_backend(uri, backend, conf=CONF)
    return location.SCHEME_TO_CLS_BACKEND_MAP[loc.store_name][backend]["store"], loc


def set_acls_for_multi_store(
    location_uri: str,
    backend: str,
    public: bool = False,
    read_tenants: Sequence[str] = (),
    write_tenants: Sequence[str] | None = None,
    context: Any = None,
) -> None:
    """Set who else may read or write an object, if the backend has access lists."""
    store, loc = _locate(location_uri, backend)
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


def get_known_schemes_for_multi_store() -> KeysView[str]:
    """Return the URI schemes of the stores."""
    return location.SCHEME_TO_CLS_BACKEND_MAP.keys()


def get_size_from_uri_and_backend(uri: str, backend: str, context: Any = None) -> int:
    """Return the size of an object in bytes, 0 if unknown.

    :raises NotFound: the object does not exist
    """
    store, loc = _locate(uri, backend)
    return store.get_size(loc, context=context)


__all__ = [
    "CONF",
    "add",
    "add_with_multihash",
    "check_location_metadata",
    "create_multi_stores",
    "delete",
    "get",
    "get_known_schemes_for_multi_store",
    "get_size_from_uri_and_backend",
    "get_store_from_store_identifier",
    "get_store_weight",
    "register_store_opts",
    "set_acls_for_multi_store",
    "store_add_to_backend",
    "store_add_to_backend_with_multihash",
    "verify_store",
]
