"""The calls at work on one store: counted, so that its driver is closed after the last of them."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from store_lib.exceptions import Duplicate, StoreClosed


class Calls:
    """The calls at work on one store, and the ids that some of them add.

    :param at_end: called once, after :meth:`close` and the end of the last call
    """

    def __init__(self, store_id: str, at_end: Callable[[], object]) -> None:
        self.closed = False
        self._store_id = store_id
        self._at_end = at_end
        self._ended = False
        self._at_work: set[int] = set()
        #: By which call each id is being added.
        self._adding: dict[str, int] = {}
        self._lock = threading.RLock()

    def close(self) -> None:
        """Refuse further calls."""
        with self._lock:
            self.closed = True
            self._look()

    def forget(self) -> None:
        """In the child after a fork: the parent's calls are not ours, and may hold the lock."""
        self._lock = threading.RLock()
        self._at_work = set()
        self._adding = {}

    def begin(self, call: "Call") -> None:
        """Count a call.

        :raises Duplicate: its object is being added by another one
        :raises StoreClosed: :meth:`close` was called
        """
        name, key = call.object_id, id(call)
        with self._lock:
            if name is not None and name in self._adding:
                raise Duplicate(
                    f"Object {name} is being added to store {self._store_id} right now."
                )
            if self.closed:
                raise StoreClosed(store=self._store_id)
            self._at_work.add(key)
            if name is not None:
                self._adding[name] = key

    def end(self, call: "Call") -> None:
        """Count a call no longer; idempotent."""
        name, key = call.object_id, id(call)
        with self._lock:
            if name is not None and self._adding.get(name) == key:
                del self._adding[name]
            self._at_work.discard(key)
            if self.closed:
                self._look()

    def has(self, call: "Call") -> bool:
        """Whether a call has begun and not ended."""
        return id(call) in self._at_work

    def _look(self) -> None:
        """End, where a closed store has no call at work any more."""
        if not self._at_work and not self._ended:
            self._ended = True
            self._at_end()


class Call:
    """One call at work: until its block ends, or an interrupt has lost it.

    :param object_id: what it adds
    """

    __slots__ = ("_calls", "object_id")

    def __init__(self, calls: Calls, object_id: str | None = None) -> None:
        self._calls = calls
        self.object_id = object_id

    def begin(self) -> None:
        """Begin, without a block.

        :raises Duplicate: its object is being added by another call
        :raises StoreClosed: the store was closed
        """
        self._calls.begin(self)

    def end(self) -> None:
        """End; further calls do nothing."""
        self._calls.end(self)

    def __enter__(self) -> Self:
        self._calls.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.end(self)

    def __del__(self) -> None:
        calls = getattr(self, "_calls", None)  # an interrupt may have ended __init__
        if calls is not None and calls.has(self):
            self.end()
