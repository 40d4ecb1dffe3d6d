"""Values and objects of one process: created anew after a fork, closed at exit, thread-safe."""

import atexit
import contextlib
import copy
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from store_lib.display import get_logger
from store_lib.exceptions import StoreError

_LOG = get_logger(__name__)

T = TypeVar("T")

#: Identifies this process.  A child gets another object, so that it does not find, use or close the
#: values that it inherited.
_process = object()


def _after_fork() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_after_fork)


class PerProcess(Generic[T]):
    """A value that each process creates when it first needs it.

    A child leaves its parent's value alone: closing it would disturb the parent's connections.

    :param make: creates the value; may be called by several threads at once, of whose results all
        but one are dropped unused
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[object, T] = {}

    def get(self) -> T:
        """Return this process's value."""
        value = self._values.get(_process)
        if value is None:
            # A lock could be left locked by a fork, so there is none: the first value is kept.
            value = self._values.setdefault(_process, self._make())
        return value

    def take(self) -> T | None:
        """Remove and return this process's value; ``None`` if it was never created."""
        return self._values.pop(_process, None)


class LiveObjects(Generic[T]):
    """The living objects of one kind, to call a function with each after a fork or at exit.

    The objects are held by weak references.  An exception of a call is logged, and the function is
    still called with the other objects.

    :param in_child: called with each object in a forked child
    :param at_exit: called with each object when the interpreter exits, while threads still run
    """

    def __init__(
        self,
        *,
        in_child: Callable[[T], object] | None = None,
        at_exit: Callable[[T], object] | None = None,
    ) -> None:
        self._references: set[weakref.ref[Any]] = set()
        # A WeakSet would run Python code twice for each short-lived object.
        self._discard = self._references.discard
        if in_child is not None:
            os.register_at_fork(after_in_child=lambda: self._call(in_child))
        if at_exit is not None:
            atexit.register(self._call, at_exit)

    def add(self, value: T) -> None:
        """Add an object; it is removed when it is garbage-collected."""
        self._references.add(weakref.ref(value, self._discard))

    def __iter__(self) -> Iterator[T]:
        for reference in self._references.copy():
            if (value := reference()) is not None:
                yield value

    def _call(self, function: Callable[[T], object]) -> None:
        for value in self:
            try:
                function(value)
            except Exception:
                _LOG.exception("At a fork or at the end of the process")


class SingleFlight:
    """Runs one attempt at a time, whose outcome all threads share that waited for it.

    So several threads wait for a dead server once, and not one after the other.

    :ivar lock: held during an attempt; acquire it to prevent attempts
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._attempts = 0
        self._failure: StoreError | None = None

    def run(self, current: Callable[[], T | None], attempt: Callable[[], T]) -> T:
        """Return the result of ``current()`` or, if that is ``None``, of ``attempt()``.

        :param current: returns the result of an earlier attempt, or ``None``
        :param attempt: called with :attr:`lock` held
        :raises StoreError: the error of the attempt that this thread ran or waited for
        """
        value = current()
        if value is not None:
            return value
        attempts = self._attempts
        with self.lock:
            value = current()
            if value is not None:
                return value
            if self._attempts > attempts and self._failure is not None:
                raise copy.copy(self._failure)  # without the other thread's traceback
            self._attempts += 1
            self._failure = None
            try:
                return attempt()
            except StoreError as error:
                self._failure = copy.copy(error)
                raise


class DeferredClose:
    """Counts the users of a resource, and closes it when it has no user any more.

    :meth:`close` closes the resource at once if it has no user, and otherwise when the last user
    leaves.  A lock could be left locked by a fork or an interrupt, so there is none.  Instead a
    user is added before it checks for closing, and closing is marked before users are counted.

    :param close: closes the resource; called once; ``None`` in a subclass that overrides
        :meth:`_close_once`
    """

    __slots__ = ("__weakref__", "_close", "_users", "closing")

    def __init__(self, close: Callable[[], object] | None = None) -> None:
        #: The function to call, in a list: one line pops and calls it, so that an interrupt can
        #: neither lose it nor make it run twice.
        self._close = [] if close is None else [close]
        #: One entry per user.
        self._users: list[None] = []
        #: Whether :meth:`close` was called.
        self.closing = False

    @property
    def used(self) -> bool:
        """Whether there is a user."""
        return bool(self._users)

    def enter(self) -> bool:
        """Add a user; return ``False`` if it must not use the resource, as it is closing."""
        self._users.append(None)
        if not self.closing:
            return True
        self.leave()
        return False

    def leave(self) -> None:
        """Remove a user; the last one closes the resource if :meth:`close` was called."""
        if self._users:  # empty in a child that one of the users has forked
            self._users.pop()
        if self.closing and not self._users:
            self._close_once()

    def close(self) -> None:
        """Close the resource now, or when the last user leaves.  Idempotent."""
        self.closing = True
        if not self._users:
            self._close_once()

    def forget(self) -> None:
        """Forget the users, and never close: for a child, which must not touch the resource."""
        self.closing = True
        self._close.clear()
        self._users.clear()

    def _close_once(self) -> None:
        """Close the resource unless it is closed; two threads may call this at the same time."""
        with contextlib.suppress(IndexError):  # closed by another thread
            self._close.pop()()
