"""Opens the stores under test, with request contexts for every call if the store wants them."""

import functools
import runpy
from collections.abc import Callable, Iterable

from store_lib import Stores
from store_lib.driver import RequestContext


def open_stores(configs: Iterable[str], context: str | None = None) -> Stores:
    """Return the configured stores.

    :param context: a Python file whose function ``context()`` returns a new request context
    """
    return Stores.from_files(*configs, context=_factory(context) if context else None)


@functools.cache
def _factory(path: str) -> Callable[[], RequestContext]:
    """Return the function ``context`` of a Python file.

    The file is run only once, so that it can keep state.
    """
    make: Callable[[], RequestContext] = runpy.run_path(path)["context"]
    return make
