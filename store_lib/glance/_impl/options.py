"""The options that a service registers, and their listings for oslo-config-generator."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from oslo_config import cfg

from store_lib.config import RESERVED_DATADIR
from store_lib.glance._impl.registry import (
    canonical,
    driver_class,
    driver_names,
    legacy_class,
    legacy_names,
)
from store_lib.glance.driver import SHARED_CONF_GROUP, register
from store_lib.options import SET_OPTIONS, STORE_OPTIONS

_GROUP = "glance_store"
_SINGLE_STORE_OPTIONS = ("stores", "default_store")


def options_of(store_type: str) -> Sequence[cfg.Opt]:
    """Return the options of a store type."""
    name = canonical(store_type)
    driver = driver_class(name)
    if driver is not None:
        # glance_store also adds to file systems that cannot publish a name exclusively.
        return _with_defaults(driver.options, {"filesystem_store_checked_publish": True})
    legacy = legacy_class(name)
    return (legacy.OPTIONS or ()) if legacy is not None else ()


def register_single(conf: Any) -> None:
    """Register the options of the old single-store form, all in one section."""
    register(conf, (*SET_OPTIONS, *STORE_OPTIONS), _GROUP)
    for name in (*driver_names(), *legacy_names()):
        register(conf, options_of(name), _GROUP)


def register_set(conf: Any) -> None:
    """Register the options that concern all stores together."""
    register(conf, SET_OPTIONS, _GROUP)


def register_store(conf: Any, store_id: str, store_type: str) -> None:
    """Register the options of one store in the section of its id."""
    register(conf, (*STORE_OPTIONS, *options_of(store_type)), store_id)


def register_reserved(conf: Any, store_id: str, store_type: str) -> None:
    """Register the options of a reserved store, two of them with other defaults.

    The service reads the directory from the same option.  Reserved stores hold temporary files,
    which need not survive a power cut, so they are not synced.
    """
    defaults = {
        "filesystem_store_datadir": RESERVED_DATADIR.format(store_id),
        "filesystem_store_durable": False,
    }
    options = _with_defaults(options_of(store_type), defaults)
    register(conf, (*STORE_OPTIONS, *options), store_id)


def _with_defaults(options: Sequence[cfg.Opt], defaults: Mapping[str, Any]) -> list[cfg.Opt]:
    """Return options with other defaults; options that change are copied."""
    changed = []
    for option in options:
        if option.dest in defaults:
            option = copy.copy(option)
            option.default = defaults[option.dest]
        changed.append(option)
    return changed


def list_single() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options of the old single-store form, for the namespace ``glance.store``."""
    drivers: list[cfg.Opt] = []
    for name in (*driver_names(), *legacy_names()):
        drivers += options_of(name)
    shared = [opt for opt in SET_OPTIONS if opt.dest != "default_backend"]
    return [(_GROUP, [*shared, *STORE_OPTIONS]), (_GROUP, drivers)]


def list_multi() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options of several stores, for the namespace ``glance.multi_store``.

    The sample has a section for every store type; in a configuration, the section of a store is
    named after its id.
    """
    shared = [opt for opt in SET_OPTIONS if opt.dest not in _SINGLE_STORE_OPTIONS]
    groups = [(_GROUP, shared), (SHARED_CONF_GROUP, list(STORE_OPTIONS))]
    for name in (*driver_names(), *legacy_names()):
        groups.append((name, list(options_of(name))))
    return groups
