"""The installed drivers: store_lib's, and third-party ones written for glance_store."""

import functools
from importlib.metadata import entry_points
from typing import Any

from store_lib.display import get_logger
from store_lib.driver import Driver
from store_lib.glance.driver import Store
from store_lib.options import NAMESPACE

LOG = get_logger(__name__)

#: Entry points of drivers written for glance_store.
LEGACY_NAMESPACE = "glance_store.drivers"

#: The prefix of glance_store's own entry points that old configuration files may name.
_LEGACY_PREFIX = "glance.store."

#: Glance's names of store types, by names that old configuration files and store_lib use.
_CANONICAL_NAMES = {
    "filesystem": "file",
    f"{_LEGACY_PREFIX}cinder.Store": "cinder",
    f"{_LEGACY_PREFIX}filesystem.Store": "file",
    f"{_LEGACY_PREFIX}http.Store": "http",
    f"{_LEGACY_PREFIX}rbd.Store": "rbd",
    f"{_LEGACY_PREFIX}s3.Store": "s3",
    f"{_LEGACY_PREFIX}swift.Store": "swift",
    f"{_LEGACY_PREFIX}vmware_datastore.Store": "vmware",
}


def canonical(store_type: str) -> str:
    """Return Glance's name of a store type."""
    name = str(store_type).strip()
    return _CANONICAL_NAMES.get(name, name)


def driver_class(store_type: str) -> type[Driver[Any]] | None:
    """Return store_lib's driver of this name, ``None`` if there is none or it does not load."""
    driver: type[Driver[Any]] | None = _load_or_warn(NAMESPACE, store_type)
    return driver


def legacy_class(store_type: str) -> type[Store] | None:
    """Return the third-party driver of this name, ``None`` if there is none or it does not load."""
    driver: type[Store] | None = _load_or_warn(LEGACY_NAMESPACE, store_type)
    return driver


def _load_or_warn(group: str, name: str) -> Any:
    try:
        return _load(group, name)
    except Exception as error:  # the import of a third-party package may raise anything
        LOG.warning(
            "Failed to load driver %s of %s. The driver will be disabled: %s", name, group, error
        )
        return None


@functools.cache
def _load(group: str, name: str) -> Any:
    for point in entry_points(group=group, name=name):
        return point.load()
    return None


def driver_names() -> list[str]:
    """Return the names of store_lib's drivers, sorted, without aliases."""
    names: dict[str, str] = {}
    for point in sorted(entry_points(group=NAMESPACE), key=lambda point: point.name):
        names.setdefault(point.value, point.name)
    return sorted(names.values())


def legacy_names() -> list[str]:
    """Return the names of third-party drivers written for glance_store, sorted."""
    # If the real glance_store is installed too, its own drivers are among the entry points.
    ours = {point.name for point in entry_points(group=NAMESPACE)} | {"no_conf"}
    names = {point.name for point in entry_points(group=LEGACY_NAMESPACE)}
    return sorted(name for name in names - ours if not name.startswith(_LEGACY_PREFIX))
