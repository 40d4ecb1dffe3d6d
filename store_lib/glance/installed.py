"""Which drivers are installed: store_lib's, and others' that were written for glance_store."""

import functools
from importlib.metadata import entry_points
from typing import Any

from store_lib.display import get_logger
from store_lib.driver import Driver
from store_lib.glance.driver import Store
from store_lib.stores import NAMESPACE

LOG = get_logger(__name__)

#: Where drivers written for glance_store are found.
OLD_NAMESPACE = "glance_store.drivers"

#: How glance_store's own entry points begin that old configuration files name.
_OLD_PREFIX = "glance.store."

#: What a type is called by old configuration files, or by store_lib alone, and by Glance.
_OTHER_NAMES = {
    "filesystem": "file",
    f"{_OLD_PREFIX}cinder.Store": "cinder",
    f"{_OLD_PREFIX}filesystem.Store": "file",
    f"{_OLD_PREFIX}http.Store": "http",
    f"{_OLD_PREFIX}rbd.Store": "rbd",
    f"{_OLD_PREFIX}s3.Store": "s3",
    f"{_OLD_PREFIX}swift.Store": "swift",
    f"{_OLD_PREFIX}vmware_datastore.Store": "vmware",
}


def canonical(store_type: str) -> str:
    """Return the name by which Glance knows a type of store."""
    name = str(store_type).strip()
    return _OTHER_NAMES.get(name, name)


def driver_class(store_type: str) -> type[Driver] | None:
    """Return store_lib's driver of this name, or ``None`` when there is none that loads."""
    found: type[Driver] | None = _tried(NAMESPACE, store_type)
    return found


def old_class(store_type: str) -> type[Store] | None:
    """Return the driver of this name that was written for glance_store, or ``None``."""
    found: type[Store] | None = _tried(OLD_NAMESPACE, store_type)
    return found


def _tried(group: str, name: str) -> Any:
    try:
        return _load(group, name)
    except Exception as error:  # whatever the import of somebody's package may raise
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
    """Return the names of store_lib's drivers, one for each, sorted."""
    found: dict[str, str] = {}
    for point in sorted(entry_points(group=NAMESPACE), key=lambda each: each.name):
        found.setdefault(point.value, point.name)
    return sorted(found.values())


def old_names() -> list[str]:
    """Return the names of others' drivers that were written for glance_store, sorted."""
    # With the real glance_store beside us, its own entry points are there too.
    ours = {point.name for point in entry_points(group=NAMESPACE)} | {"no_conf"}
    found = {point.name for point in entry_points(group=OLD_NAMESPACE)}
    return sorted(name for name in found - ours if not name.startswith(_OLD_PREFIX))
