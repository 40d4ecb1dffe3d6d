"""What belongs to one process: made anew after a fork, ended at exit, shared by its threads."""

import atexit
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

#: Stands for this process.  A child gets another one, so that it does not find, use or close what
#: it inherited.
_process = object()


def _after_fork() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_after_fork)


class PerProcess(Generic[T]):
    """A value that each process makes when it first needs it.

    What a child inherits stays untouched: closing it would disturb the parent's connections.

    :param make: may be called by several threads at once; all but one result are dropped unused
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[object, T] = {}

    def get(self) -> T:
        """Return this process's value."""
        value = self._values.get(_process)
        if value is None:
            # Without a lock, which a fork could leave locked: the first value stays.
            value = self._values.setdefault(_process, self._make())
        return value

    def take(self) -> T | None:
        """Remove and return this process's value, ``None`` if there is none."""
        return self._values.pop(_process, None)


class LiveObjects(Generic[T]):
    """The objects of a kind that are alive, for what a fork or the end of the process does to them.

    They are held weakly.  What a function raises is logged and does not keep the others from it.

    :param in_child: called with each object in a forked child
    :param at_exit: called with each object at the interpreter's end, while threads still work
    """

    def __init__(
        self,
        *,
        in_child: Callable[[T], object] | None = None,
        at_exit: Callable[[T], object] | None = None,
    ) -> None:
        self._references: set[weakref.ref[Any]] = set()
        # Not a WeakSet, whose Python code would run twice for each short-lived object.
        self._discard = self._references.discard
        if in_child is not None:
            os.register_at_fork(after_in_child=lambda: self._call(in_child))
        if at_exit is not None:
            atexit.register(self._call, at_exit)

    def add(self, value: T) -> None:
        """Add an object, which stays until it dies."""
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
    """One attempt at a time: a thread that waits for another's attempt shares its outcome.

    So threads that meet a dead server wait once for it, and not one after the other.

    :ivar lock: held during an attempt; hold it to keep attempts away
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._attempts = 0
        self._failure: StoreError | None = None

    def run(self, current: Callable[[], T | None], attempt: Callable[[], T]) -> T:
        """Return what ``current`` returns, or what ``attempt`` returns if that is ``None``.

        :param current: returns the outcome of an earlier attempt; ``None`` if there is none
        :param attempt: called with :attr:`lock` held
        :raises StoreError: what the attempt raised that this thread made or waited for
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
    """Something that several threads use, closed once the last of them has left.

    :meth:`close` closes at once if nobody uses it, and else when the last user leaves.  There is no
    lock, which a fork or an interrupt could leave locked: a user is entered before it checks
    whether the thing is closing, and the thing is marked as closing before it is checked for users.

    :param close: called once; ``None`` in a subclass with a :meth:`_close_once` of its own
    """

    __slots__ = ("__weakref__", "_close", "_users", "closing")

    def __init__(self, close: Callable[[], object] | None = None) -> None:
        #: In a list: it is removed and called on one line, so that an interrupt cannot lose it, nor
        #: have it called twice.
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
        """Add a user; return whether it may use the thing, which is not so after :meth:`close`."""
        self._users.append(None)
        if not self.closing:
            return True
        self.leave()
        return False

    def leave(self) -> None:
        """Remove a user; the last one closes the thing if :meth:`close` was called."""
        if self._users:  # empty in a child that a user has forked
            self._users.pop()
        if self.closing and not self._users:
            self._close_once()

    def close(self) -> None:
        """Close the thing now, or when the last user leaves.  Idempotent."""
        self.closing = True
        if not self._users:
            self._close_once()

    def forget(self) -> None:
        """Forget the users and never call ``close``: in a child that must not touch the thing."""
        self.closing = True
        self._close.clear()
        self._users.clear()

    def _close_once(self) -> None:
        """Close the thing, unless that was done; two threads may call this at a time."""
        try:
            close = self._close.pop()
        except IndexError:  # closed by another thread
            return
        close()
