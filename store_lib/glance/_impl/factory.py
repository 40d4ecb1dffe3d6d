"""Makes the stores of a configuration: adapters, and third-party glance_store drivers."""

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

from store_lib.config import Selection, StoreSection
from store_lib.display import get_logger
from store_lib.glance._impl.adapter import StoreAdapter
from store_lib.glance._impl.registry import canonical, driver_class, legacy_class
from store_lib.glance.driver import Store
from store_lib.glance.exceptions import BackendException, BadStoreConfiguration
from store_lib.stores import Stores

LOG = get_logger(__name__)

#: Modules of :mod:`store_lib.glance._drivers` with a subclass of the adapter, by driver name.
_ADAPTERS = {
    "cinder": "cinder",
    "file": "filesystem",
    "http": "http",
    "rbd": "rbd",
    "s3": "s3",
    "swift": "swift",
    "vmware": "vmware_datastore",
}


def make_store(conf: Any, store_type: str, backend: str | None = None) -> Store | None:
    """Make a store without configuring it; return ``None`` if no driver of its type loads.

    :param backend: the store's id; ``None`` in the old single-store form
    """
    name = canonical(store_type)
    if driver_class(name) is not None:
        adapter: type[StoreAdapter] = StoreAdapter
        if name in _ADAPTERS:
            adapter = import_module(f"store_lib.glance._drivers.{_ADAPTERS[name]}").Store
        return adapter(conf, backend=backend, driver_name=name)
    legacy = legacy_class(name)
    if legacy is None:
        LOG.warning("No driver %s is installed. The store will be disabled.", store_type)
        return None
    try:
        return legacy(conf, backend=backend)
    except BadStoreConfiguration as error:
        LOG.warning("Store %s is left out: %s", backend or name, error)
        return None


def make_stores(
    conf: Any, types: Mapping[str, str], *, single: bool, reserved: Collection[str] = ()
) -> list[tuple[str, Store]]:
    """Make and configure stores; skip those without a driver, with a warning.

    :param types: store types by store id; in the old single-store form by store type
    :param reserved: ids of the service's reserved stores
    :return: pairs of a store's id and the store
    """
    made = []
    for store_id, store_type in types.items():
        store = make_store(conf, store_type, None if single else store_id)
        if store is not None:
            made.append((store_id, store))
    # All in one, so that the configuration files are read once.
    adapters = {store_id: store for store_id, store in made if isinstance(store, StoreAdapter)}
    sections = [
        StoreSection(store_id, store.driver_name, "glance_store" if single else store_id)
        for store_id, store in adapters.items()
    ]
    for backing in Stores(Selection(conf, sections, reserved)):
        adapters[backing.id].backing = backing
        adapters[backing.id].reserved = backing.id in reserved
    return [(store_id, store) for store_id, store in made if _configure(store_id, store)]


def _configure(store_id: str, store: Store) -> bool:
    """Configure a store and return whether it can be used.

    :raises BackendException: the store has no URI scheme
    """
    try:
        schemes = store.get_schemes()
        store.configure(re_raise_bsc=False)
    except NotImplementedError:
        return False
    except BadStoreConfiguration as error:
        LOG.warning("Store %s is left out: %s", store_id, error)
        return False
    if not schemes:
        raise BackendException(
            f"Unable to register store {store_id}. No schemes associated with it."
        )
    return True


def map_entry(store: Store, store_type: str) -> dict[str, Any]:
    """Return a store's entry for the maps of :mod:`store_lib.glance.location`."""
    return {
        "store": store,
        "location_class": store.get_store_location_class(),
        "store_entry": store_type,
    }
