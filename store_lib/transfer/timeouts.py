"""Timeouts: the stall limit and the deadline of a transfer, and calls that may hang."""

import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from store_lib.display import get_logger
from store_lib.driver import HangPolicy
from store_lib.exceptions import DeadlineExceeded, TimeoutError, TransferStalled
from store_lib.options import StoreOptions
from store_lib.transfer.threads import new_thread

LOG = get_logger(__name__)
R = TypeVar("R")

#: Seconds of the longest wait; the system cannot count much further.
LONGEST = 1e9

#: Seconds that calls which hang are waited for once a time limit has given them up.
GRACE = 5.0

#: Number of entries of a listing that one guarded call fetches at most.
BATCH = 1000


class Clock:
    """The time that limits and pauses go by; a test puts one of its own into :data:`CLOCK`."""

    #: Returns a time in seconds, which never goes back.
    now = staticmethod(time.monotonic)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for ``seconds`` or until ``event`` is set; return whether it is set."""
        return event.wait(seconds)


CLOCK = Clock()


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a transfer; 0 is none."""

    #: Seconds without progress.
    stall: float = 0
    #: Seconds in all.
    deadline: float = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stall", min(self.stall, LONGEST))
        object.__setattr__(self, "deadline", min(self.deadline, LONGEST))

    @classmethod
    def of(cls, options: StoreOptions, hang_timeout: float) -> "Limits":
        """Return a store's limits.

        :param hang_timeout: seconds after which its driver's calls are given up, 0 for never
        """
        stalls = [seconds for seconds in (options.transfer_stall_timeout, hang_timeout) if seconds]
        return cls(min(stalls, default=0), options.transfer_deadline)


class TransferClock:
    """The stall and deadline clock of one transfer."""

    __slots__ = ("_last", "done", "limits", "started")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.started = self._last = CLOCK.now()
        self.done = 0

    def progress(self) -> None:
        """Note that something moved."""
        self._last = CLOCK.now()

    def remaining(self, *, stall: bool = True) -> float | None:
        """Return the seconds that a wait may last now, ``None`` for as long as it takes."""
        limits = self.limits
        end = self._last + limits.stall if stall and limits.stall else math.inf
        if limits.deadline:
            end = min(end, self.started + limits.deadline)
        return None if end == math.inf else max(0.0, end - CLOCK.now())

    def check(self, *, stall: bool = True) -> None:
        """Raise if a limit has run out.

        :raises TransferStalled: no progress for too long
        :raises DeadlineExceeded: the whole takes too long
        """
        limits = self.limits
        if not (limits.deadline or (stall and limits.stall)):
            return
        now = CLOCK.now()
        if limits.deadline and now >= self.started + limits.deadline:
            raise DeadlineExceeded(timeout=limits.deadline, done=self.done)
        if stall and limits.stall and now >= self._last + limits.stall:
            raise TransferStalled(timeout=limits.stall, done=self.done)

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return CLOCK.now() - self.started


class _GuardedCall:
    """One call, which runs in a thread of its own."""

    def __init__(
        self, function: Callable[[], Any], on_late_result: Callable[[Any], object] | None
    ) -> None:
        self.function = function
        self.on_late_result = on_late_result
        self.begun = False
        self.done = threading.Event()
        #: Whether it was given up; if it has not begun by then, it never does.
        self.given_up = False
        #: When it began, or was at a checkpoint.
        self.last = time.monotonic()
        self.result: Any = None
        self.error: BaseException | None = None


class HangGuard:
    """Makes calls that may hang below Python, and gives them up after a time.

    A thread that is stuck in a dead network mount cannot be ended, only left behind.  So their
    number is bounded, and further calls are refused at once instead of hanging one more thread.

    Without a time-out in the policy :meth:`call` is a plain call.
    """

    def __init__(self, policy: HangPolicy) -> None:
        #: Seconds that a call may take without a :func:`checkpoint`; 0 for no limit.
        self.timeout = min(policy.timeout, LONGEST)
        self._policy = policy
        self._hanging = 0
        self._lock = threading.Lock()

    def renewed(self) -> "HangGuard":
        """Return one like this without running calls, for the child after a fork."""
        return HangGuard(self._policy)

    def call(
        self,
        function: Callable[[], R],
        *,
        on_late_result: Callable[[R], object] | None = None,
        timeout: float | None = None,
        clock: TransferClock | None = None,
    ) -> R:
        """Call ``function`` and return what it returns, or raise what it raises.

        :param on_late_result: gets the result of a call that returns after it was given up
        :param timeout: seconds for this call, where they differ from the guard's
        :param clock: its deadline bounds the call too
        :raises TimeoutError: it did not return in time, or too many calls hang already
        """
        if not self.timeout:
            return function()
        with self._lock:
            if self._hanging >= self._policy.limit:
                raise TimeoutError(
                    f"{self._hanging} calls to the storage hang already; not trying one more. "
                    "Check storage health and connectivity."
                )
        call = _GuardedCall(function, on_late_result)
        patience = self.timeout if timeout is None else timeout
        thread = new_thread("guard", self._run, call)
        try:
            thread.start()
            while not call.done.wait(self._left(call, patience, clock)):
                # It may have been at a checkpoint, or have ended, meanwhile.
                if self._left(call, patience, clock) <= 0 and self._give_up(call):
                    break
            if not call.given_up and call.error is None:
                result: R = call.result
                return result
        except BaseException:  # an interrupt: the result has no taker any more
            if not self._give_up(call):
                _release(call)
            raise
        if call.error is not None and not call.given_up:
            raise call.error
        if clock is not None:
            clock.check(stall=False)
        raise TimeoutError(timeout=patience)

    def _run(self, call: _GuardedCall) -> None:
        """Make the call; the body of a thread."""
        if not self._begins(call):
            return
        _current.call = call
        try:
            call.result = call.function()
        except BaseException as error:
            call.error = error
        finally:
            _current.call = None  # what cleans up after it is to go on
        with self._lock:
            call.done.set()
            if not call.given_up:
                return
            self._hanging -= 1
        _release(call)

    def _begins(self, call: _GuardedCall) -> bool:
        """Return whether to make a call, which may have been given up meanwhile."""
        with self._lock:
            call.begun = not call.given_up
        return call.begun

    def _left(self, call: _GuardedCall, patience: float, clock: TransferClock | None) -> float:
        left = call.last + patience - time.monotonic()
        due = clock.remaining(stall=False) if clock is not None else None
        return max(0.0, left if due is None else min(left, due))

    def _give_up(self, call: _GuardedCall) -> bool:
        """Leave a call behind, unless it has just ended; return whether it was left."""
        with self._lock:
            if call.done.is_set():
                return False
            call.given_up = True
            if not call.begun:  # an interrupt may have come while its thread was being started
                return True
            self._hanging += 1
            limit = self._policy.limit
            if self._hanging * 100 >= limit * self._policy.warning:
                LOG.warning("%d calls to the storage hang (limit %d)", self._hanging, limit)
            return True

    def iterate(self, results: Iterator[R]) -> Iterator[R]:
        """Yield what a driver's iterator yields, with every step bounded as a call is."""
        if not self.timeout:
            yield from results
            return
        step = functools.partial(_some, results, min(1.0, self.timeout / 4))
        while True:
            batch, error = self.call(step)
            yield from batch
            if error is not None:
                raise error
            if not batch:
                return


_current = threading.local()


def _release(call: _GuardedCall) -> None:
    """Hand over the result of a call that was given up."""
    if call.error is not None or call.on_late_result is None:
        return
    try:
        call.on_late_result(call.result)
    except Exception as error:
        LOG.warning("Cleaning up after a call that was given up failed: %s", error)


def checkpoint() -> None:
    """Mark progress of the guarded call that this thread makes, if any.

    :raises TimeoutError: the call was given up, and must do nothing more
    """
    call: _GuardedCall | None = getattr(_current, "call", None)
    if call is not None:
        if call.given_up:
            raise TimeoutError("The call was given up, and ends before its next step.")
        call.last = time.monotonic()


def _some(items: Iterator[R], seconds: float) -> tuple[list[R], BaseException | None]:
    """Return what an iterator yields within about ``seconds``, at least one item, and its error.

    A thread for every item would cost more than the listing.
    """
    end = time.monotonic() + seconds
    batch: list[R] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) >= BATCH or time.monotonic() >= end:
                break
    except Exception as error:
        return batch, error
    return batch, None
