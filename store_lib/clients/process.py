"""What every process makes for itself: connections and sessions do not outlive a fork."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: What stands for this process.  A child gets its own, so that it does not find, use or close
#: what it inherited.
_process = object()


def _forked() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_forked)


class PerProcess(Generic[T]):
    """A thing that each process makes when it first needs it.

    What a child inherits stays untouched: closing it would talk over the parent's connections.

    :param make: must not begin anything that hurts when it is thrown away unused
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[object, T] = {}

    def get(self) -> T:
        """Return this process's."""
        made = self._made.get(_process)
        if made is None:
            # Without a lock, which a fork could leave locked: the first one in stays.
            made = self._made.setdefault(_process, self._make())
        return made

    def take(self) -> T | None:
        """Return this process's, if it has made one, and forget it."""
        return self._made.pop(_process, None)
