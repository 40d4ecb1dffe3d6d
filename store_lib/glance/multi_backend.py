"""glance_store's functions for several stores, each with a section of its own."""

from collections.abc import Iterator, KeysView, Mapping, Sequence
from typing import Any

from oslo_config import cfg

from store_lib.display import get_logger
from store_lib.glance import location
from store_lib.glance.adding import store_add_to_backend, store_add_to_backend_with_multihash
from store_lib.glance.driver import Store
from store_lib.glance.exceptions import BadStoreUri, NotFound, UnknownScheme
from store_lib.glance.installed import canonical
from store_lib.glance.making import entry_of, make_stores
from store_lib.glance.metadata import check_location_metadata
from store_lib.glance.options import (
    list_multi,
    register_reserved,
    register_set,
    register_store,
)

CONF = cfg.CONF
LOG = get_logger(__name__)

#: The types of the stores that a service has said it keeps for itself, by id.
_RESERVED_STORES: dict[str, str] = {}

#: What oslo-config-generator calls for the namespace ``glance.multi_store``.
_list_config_opts = list_multi


def register_store_opts(conf: Any, reserved_stores: Mapping[str, str] | None = None) -> None:
    """Register the options of every store in ``enabled_backends``, and of the reserved ones.

    :param reserved_stores: types by id of the stores that the service keeps for itself; they
        are put into ``conf.enabled_backends``
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
    """Return the types of all stores by id, by the names that the service knows."""
    enabled: dict[str, str] = conf.enabled_backends
    known = {store_id: canonical(store_type) for store_id, store_type in enabled.items()}
    if known != enabled:
        conf.set_override("enabled_backends", known)
    return known | dict(reserved_stores or {})


def _show_reserved(conf: Any, reserved_stores: Mapping[str, str] | None) -> None:
    """Put the reserved stores where a service expects them; registering options undoes it."""
    conf.enabled_backends.update(reserved_stores or {})


def create_multi_stores(conf: Any = CONF, reserved_stores: Mapping[str, str] | None = None) -> int:
    """Make the stores that ``enabled_backends`` names, and the reserved ones.

    A store that is misconfigured is kept for what can be read from it, and does not stop the
    others.

    :param reserved_stores: as for :func:`register_store_opts`
    :return: how many schemes of stores there are
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
        entry = entry_of(store, types[store_id])
        for scheme in store.get_schemes():
            location.register_scheme_backend_map({scheme: {store_id: entry}})
            count += 1
    _show_reserved(conf, reserved_stores)
    return count


def verify_store() -> None:
    """Check that the default store is named, and there.

    :raises RuntimeError: it is not
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

    :raises UnknownScheme: there is none
    """
    for stores in location.SCHEME_TO_CLS_BACKEND_MAP.values():
        if store_identifier in stores:
            store: Store = stores[store_identifier]["store"]
            return store
    raise UnknownScheme(f"Store for identifier {store_identifier} not found")


def get_store_weight(store_identifier: str) -> int:
    """Return a store's preference among the stores, the highest first.

    :raises UnknownScheme: there is none of this id
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
    """Store an object in a store, or the default one: four values."""
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
    """Store an object in a store, or the default one: five values.

    :param scheme: not used
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
    """Return the bytes of an object or a range of it, and how many they are; 0: not known.

    :param backend: the store's id; ``None`` to ask every store that has such URIs
    :raises NotFound: there is no such object
    """
    for store, loc in _asked(uri, backend):
        try:
            return store.get(loc, offset=offset, chunk_size=chunk_size, context=context)
        except (NotFound, UnknownScheme, BadStoreUri):
            if backend:
                raise
    raise NotFound("Image not found in any configured backend")


def delete(uri: str, backend: str | None, context: Any = None) -> None:
    """Remove an object.

    :param backend: the store's id; ``None`` to ask every store that has such URIs
    :raises NotFound: there is no such object
    """
    for store, loc in _asked(uri, backend):
        try:
            return store.delete(loc, context=context)
        except (NotFound, UnknownScheme, BadStoreUri):
            if backend:
                raise
    raise NotFound("Image not found in any configured backend")


def _asked(uri: str, backend: str | None) -> Iterator[tuple[Store, location.Location]]:
    """Yield the stores to ask for a URI, each with the place that it names there."""
    if backend:
        yield _place(uri, backend)
        return
    LOG.warning("Backend is not set to image, searching all backends based on location URI.")
    for each in list(location.SCHEME_TO_CLS_BACKEND_MAP.get(location.scheme_of(uri), ())):
        try:
            found = _place(uri, each)
        except BadStoreUri:
            continue
        yield found


def _place(uri: str, backend: str) -> tuple[Store, location.Location]:
    """Return a store by its id, and the place that a URI names there.

    :raises UnknownScheme: there is no such store, or it has no such URIs
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
    """Set who else may read or write an object, where the backend has such a thing."""
    store, loc = _place(location_uri, backend)
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
    """Return how many bytes an object has; 0: not known.

    :raises NotFound: there is no such object
    """
    store, loc = _place(uri, backend)
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
