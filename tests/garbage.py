"""Finds what only the cyclic garbage collector would free, which may come late."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Give a list, which after the block has the objects of the library left in cycles."""
    left: list[str] = []
    gc.collect()
    gc.disable()
    try:
        yield left
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [type(each) for each in gc.garbage]
        left += sorted(f"{each.__name__}" for each in kinds if "store_lib" in each.__module__)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
