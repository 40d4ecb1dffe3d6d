"""Makes the stores of a configuration, each with the class that shows it to a service."""

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

from store_lib.config import Selection, StoreSection
from store_lib.display import get_logger
from store_lib.glance.backed import BackedStore
from store_lib.glance.driver import Store
from store_lib.glance.exceptions import BackendException, BadStoreConfiguration
from store_lib.glance.installed import canonical, driver_class, old_class
from store_lib.stores import Stores

LOG = get_logger(__name__)

#: The modules with what Glance knows of one type only.
_FACES = {
    "cinder": "cinder",
    "file": "filesystem",
    "http": "http",
    "rbd": "rbd",
    "s3": "s3",
    "swift": "swift",
    "vmware": "vmware_datastore",
}


def make_store(conf: Any, store_type: str, backend: str | None = None) -> Store | None:
    """Make one store that is not configured yet; ``None`` when no driver of the type loads.

    :param backend: the store's id; ``None`` in the old single-store form
    """
    name = canonical(store_type)
    if driver_class(name) is not None:
        face: type[BackedStore] = BackedStore
        if name in _FACES:
            face = import_module(f"store_lib.glance._drivers.{_FACES[name]}").Store
        return face(conf, backend=backend, driver_name=name)
    old = old_class(name)
    if old is None:
        LOG.warning("No driver %s is installed. The store will be disabled.", store_type)
        return None
    try:
        return old(conf, backend=backend)
    except BadStoreConfiguration as error:
        LOG.warning("Store %s is left out: %s", backend or name, error)
        return None


def make_stores(
    conf: Any, types: Mapping[str, str], *, single: bool, reserved: Collection[str] = ()
) -> list[tuple[str, Store]]:
    """Make stores and configure them; those without a driver are left out, with a warning.

    :param types: the type of each store by its id, or by itself in the old single-store form
    :param reserved: ids of the stores that the service keeps for itself
    :return: each store with its id
    """
    made = []
    for store_id, store_type in types.items():
        store = make_store(conf, store_type, None if single else store_id)
        if store is not None:
            made.append((store_id, store))
    # One reading of the configuration files for all.
    backed = {store_id: store for store_id, store in made if isinstance(store, BackedStore)}
    sections = [
        StoreSection(store_id, store.driver_name, "glance_store" if single else store_id)
        for store_id, store in backed.items()
    ]
    for backing in Stores(Selection(conf, sections, reserved)):
        backed[backing.id].backing = backing
        backed[backing.id].reserved = backing.id in reserved
    return [(store_id, store) for store_id, store in made if _configured(store_id, store)]


def _configured(store_id: str, store: Store) -> bool:
    """Configure a store; say whether it can be used.

    :raises BackendException: it has no schemes
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


def entry_of(store: Store, store_type: str) -> dict[str, Any]:
    """Return what the maps of :mod:`store_lib.glance.location` hold for a store."""
    return {
        "store": store,
        "location_class": store.get_store_location_class(),
        "store_entry": store_type,
    }
