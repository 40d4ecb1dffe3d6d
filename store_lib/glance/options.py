"""The options that a service registers, and their listings for oslo-config-generator."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from oslo_config import cfg

from store_lib.config import RESERVED_DATADIR
from store_lib.glance.driver import SHARED_CONF_GROUP, register
from store_lib.glance.installed import (
    canonical,
    driver_class,
    driver_names,
    old_class,
    old_names,
)
from store_lib.options import SET_OPTIONS, STORE_OPTIONS

_GROUP = "glance_store"
_OF_THE_SINGLE_FORM = ("stores", "default_store")


def options_of(store_type: str) -> Sequence[cfg.Opt]:
    """Return the options of a type of store."""
    name = canonical(store_type)
    ours = driver_class(name)
    if ours is not None:
        # glance_store adds to file systems that do not keep a name to one file, too.
        return _with_defaults(ours.options, {"filesystem_store_checked_publish": True})
    old = old_class(name)
    return (old.OPTIONS or ()) if old is not None else ()


def register_single(conf: Any) -> None:
    """Register what the old single-store form has, all in one section."""
    register(conf, (*SET_OPTIONS, *STORE_OPTIONS), _GROUP)
    for name in (*driver_names(), *old_names()):
        register(conf, options_of(name), _GROUP)


def register_set(conf: Any) -> None:
    """Register what is said of all stores together."""
    register(conf, SET_OPTIONS, _GROUP)


def register_store(conf: Any, store_id: str, store_type: str) -> None:
    """Register the options of one store in the section of its id."""
    register(conf, (*STORE_OPTIONS, *options_of(store_type)), store_id)


def register_reserved(conf: Any, store_id: str, store_type: str) -> None:
    """Register the options of a store that the service keeps for itself.

    Two of them have defaults of their own.  The service reads the directory too.  And what is kept
    for a while only need not survive a power cut, so it is not synced.
    """
    defaults = {
        "filesystem_store_datadir": RESERVED_DATADIR.format(store_id),
        "filesystem_store_durable": False,
    }
    options = _with_defaults(options_of(store_type), defaults)
    register(conf, (*STORE_OPTIONS, *options), store_id)


def _with_defaults(options: Sequence[cfg.Opt], defaults: Mapping[str, Any]) -> list[cfg.Opt]:
    """Return options, copies of those that have a default of their own here."""
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
    for name in (*driver_names(), *old_names()):
        drivers += options_of(name)
    shared = [opt for opt in SET_OPTIONS if opt.dest != "default_backend"]
    return [(_GROUP, [*shared, *STORE_OPTIONS]), (_GROUP, drivers)]


def list_multi() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options of several stores, for the namespace ``glance.multi_store``.

    A store's options are shown in a section named by its type; the operator writes them in the
    section named by the store's id.
    """
    shared = [opt for opt in SET_OPTIONS if opt.dest not in _OF_THE_SINGLE_FORM]
    found = [(_GROUP, shared), (SHARED_CONF_GROUP, list(STORE_OPTIONS))]
    for name in (*driver_names(), *old_names()):
        found.append((name, list(options_of(name))))
    return found
