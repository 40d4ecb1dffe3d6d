"""Gives every call that the kit makes a caller's context, for stores that want one."""

import functools
import runpy
from collections.abc import Callable, Iterable
from typing import Any

from store_lib import Stores
from store_lib.driver import Driver

_CALLS = (
    "create",
    "read",
    "stat",
    "delete",
    "list",
    "list_incomplete",
    "discard",
    "copy",
    "space",
    "set_acls",
    "url",
)


def open_stores(configs: Iterable[str], context: str | None = None) -> Stores:
    """Return the configured stores.

    :param context: a Python file whose function ``context()`` makes what every call gets
    """
    stores = Stores.from_files(*configs)
    if context:
        make = _maker(context)
        for store in stores:
            if store.driver is not None:
                _supply(store.driver, make)
    return stores


@functools.cache
def _maker(path: str) -> Callable[[], Any]:
    """Run the file once, so that it can keep what it makes."""
    make: Callable[[], Any] = runpy.run_path(path)["context"]
    return make


def _supply(driver: Driver[Any], make: Callable[[], Any]) -> None:
    for name in _CALLS:
        setattr(driver, name, _with_context(getattr(driver, name), make))


def _with_context(call: Callable[..., Any], make: Callable[[], Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def supplied(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **(kwargs | {"context": make()}))

    return supplied
