"""The running calls of one store, counted so that the driver is closed after the last one."""

import threading
from collections.abc import Callable
from typing import Self

from store_lib.exceptions import StoreClosed, being_added


class Calls:
    """The running calls of one store, and the ids of the objects that they add.

    :param on_end: called once, after :meth:`close` and the end of the last call
    """

    def __init__(self, store_id: str, on_end: Callable[[], object]) -> None:
        self.closed = False
        self._store_id = store_id
        self._on_end = on_end
        self._ended = False
        self._running: set[int] = set()
        #: The calls that add an object, by its id.
        self._adding: dict[str, int] = {}
        self._lock = threading.RLock()

    def close(self) -> None:
        """Refuse further calls."""
        with self._lock:
            self.closed = True
            self._end_if_idle()

    def forget(self) -> None:
        """Forget all calls, in the child after a fork: a call in the parent may hold the lock."""
        self._lock = threading.RLock()
        self._running = set()
        self._adding = {}

    def begin(self, call: "Call") -> None:
        """Count a call.

        :raises Duplicate: another call is adding an object of the same id
        :raises StoreClosed: :meth:`close` was called
        """
        name, key = call.object_id, id(call)
        with self._lock:
            if name is not None and name in self._adding:
                raise being_added(name, f"to store {self._store_id}")
            if self.closed:
                raise StoreClosed(store=self._store_id)
            self._running.add(key)
            if name is not None:
                self._adding[name] = key

    def end(self, call: "Call") -> None:
        """Stop counting a call; further calls do nothing."""
        name, key = call.object_id, id(call)
        with self._lock:
            if name is not None and self._adding.get(name) == key:
                del self._adding[name]
            self._running.discard(key)
            if self.closed:
                self._end_if_idle()

    def has(self, call: "Call") -> bool:
        """Return whether a call has begun but not ended."""
        return id(call) in self._running

    def _end_if_idle(self) -> None:
        """Call ``on_end`` if this is closed and no call is running; under the lock."""
        if not self._running and not self._ended:
            self._ended = True
            self._on_end()


class Call:
    """One call, which runs until its ``with`` block ends.

    If an interrupt prevents that, it runs until this object is collected.

    :param object_id: id of the object that the call adds, or ``None``
    """

    __slots__ = ("_calls", "object_id")

    def __init__(self, calls: Calls, object_id: str | None = None) -> None:
        self._calls = calls
        self.object_id = object_id

    def begin(self) -> None:
        """Begin the call, without a ``with`` block.

        :raises Duplicate: another call is adding an object of the same id
        :raises StoreClosed: the store was closed
        """
        self._calls.begin(self)

    def end(self) -> None:
        """End the call; further calls do nothing."""
        self._calls.end(self)

    def __enter__(self) -> Self:
        self._calls.begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.end(self)

    def __del__(self) -> None:
        calls = getattr(self, "_calls", None)  # an interrupt may have ended __init__
        if calls is not None and calls.has(self):
            self.end()
