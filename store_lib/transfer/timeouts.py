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

#: Maximum seconds of a wait; the system does not accept much more.
LONGEST = 1e9

#: Seconds to wait for hanging calls at the end of a transfer that has exceeded a time limit.
GRACE = 5.0

#: Maximum number of entries of a listing that one guarded call fetches.
BATCH = 1000


class Clock:
    """The clock for limits and pauses; tests replace :data:`CLOCK` by their own."""

    #: Returns a time in seconds that never goes back.
    now = staticmethod(time.monotonic)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for ``seconds`` or until ``event`` is set; return whether it is set."""
        return event.wait(seconds)


CLOCK = Clock()


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The time limits of a transfer; 0 for no limit."""

    #: Maximum seconds without progress.
    stall: float = 0
    #: Maximum seconds in total.
    deadline: float = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stall", min(self.stall, LONGEST))
        object.__setattr__(self, "deadline", min(self.deadline, LONGEST))

    @classmethod
    def of(cls, options: StoreOptions, hang_timeout: float) -> "Limits":
        """Return a store's limits.

        :param hang_timeout: seconds after which calls to the driver are given up; 0 for never
        """
        stalls = [seconds for seconds in (options.transfer_stall_timeout, hang_timeout) if seconds]
        return cls(min(stalls, default=0), options.transfer_deadline)


class TransferClock:
    """Measures the time of one transfer against its stall limit and its deadline."""

    __slots__ = ("_last", "done", "limits", "started")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.started = self._last = CLOCK.now()
        self.done = 0

    def progress(self) -> None:
        """Record that the transfer has made progress."""
        self._last = CLOCK.now()

    def remaining(self, *, stall: bool = True) -> float | None:
        """Return the seconds that a wait may take now, or ``None`` if there is no limit."""
        limits = self.limits
        end = self._last + limits.stall if stall and limits.stall else math.inf
        if limits.deadline:
            end = min(end, self.started + limits.deadline)
        return None if end == math.inf else max(0.0, end - CLOCK.now())

    def check(self, *, stall: bool = True) -> None:
        """Check the limits.

        :raises TransferStalled: there was no progress for too long
        :raises DeadlineExceeded: the deadline has passed
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
    """One call, which runs in its own thread."""

    def __init__(
        self, function: Callable[[], Any], on_late_result: Callable[[Any], object] | None
    ) -> None:
        self.function = function
        self.on_late_result = on_late_result
        self.begun = False
        self.done = threading.Event()
        #: Whether the call was given up; if it has not begun by then, it is never made.
        self.given_up = False
        #: Time of its beginning, or of its last checkpoint.
        self.last = time.monotonic()
        self.result: Any = None
        self.error: BaseException | None = None


class HangGuard:
    """Makes calls that may hang in the operating system, and gives them up after a time.

    A thread that hangs in a dead network mount cannot be ended, only abandoned.  So the number of
    such threads is limited, and further calls are refused at once.

    Without a timeout in the policy, :meth:`call` is a plain call.
    """

    def __init__(self, policy: HangPolicy) -> None:
        #: Seconds that a call may take without a :func:`checkpoint`; 0 for no limit.
        self.timeout = min(policy.timeout, LONGEST)
        self._policy = policy
        self._hanging = 0
        self._lock = threading.Lock()

    def renewed(self) -> "HangGuard":
        """Return a guard of the same policy without running calls, for the child after a fork."""
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

        :param on_late_result: called with the result if ``function`` returns after it was given up
        :param timeout: seconds for this call, if other than the guard's
        :param clock: the transfer's clock, whose deadline also limits the call
        :raises TimeoutError: ``function`` did not return in time, or too many calls hang already
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
                # Meanwhile the call may have passed a checkpoint, or have ended.
                if self._left(call, patience, clock) <= 0 and self._give_up(call):
                    break
            if not call.given_up and call.error is None:
                result: R = call.result
                return result
        except BaseException:  # after an interrupt nothing will use the result
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
            _current.call = None  # checkpoints of the clean-up must not raise TimeoutError
        with self._lock:
            call.done.set()
            if not call.given_up:
                return
            self._hanging -= 1
        _release(call)

    def _begins(self, call: _GuardedCall) -> bool:
        """Mark a call as begun; return false if it was given up before."""
        with self._lock:
            call.begun = not call.given_up
        return call.begun

    def _left(self, call: _GuardedCall, patience: float, clock: TransferClock | None) -> float:
        left = call.last + patience - time.monotonic()
        due = clock.remaining(stall=False) if clock is not None else None
        return max(0.0, left if due is None else min(left, due))

    def _give_up(self, call: _GuardedCall) -> bool:
        """Abandon a call unless it has just ended; return whether it was abandoned."""
        with self._lock:
            if call.done.is_set():
                return False
            call.given_up = True
            if not call.begun:  # an interrupt may have come before its thread was started
                return True
            self._hanging += 1
            limit = self._policy.limit
            if self._hanging * 100 >= limit * self._policy.warning:
                LOG.warning("%d calls to the storage hang (limit %d)", self._hanging, limit)
            return True

    def iterate(self, results: Iterator[R]) -> Iterator[R]:
        """Yield the items of a driver's iterator, with the guard's time limit for every step."""
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
    """Pass the result of a call that was given up to its ``on_late_result``."""
    if call.error is not None or call.on_late_result is None:
        return
    try:
        call.on_late_result(call.result)
    except Exception as error:
        LOG.warning("Cleaning up after a call that was given up failed: %s", error)


def checkpoint() -> None:
    """Record progress of the guarded call that runs in this thread, if there is one.

    :raises TimeoutError: the call was given up, and must do nothing more
    """
    call: _GuardedCall | None = getattr(_current, "call", None)
    if call is not None:
        if call.given_up:
            raise TimeoutError("The call was given up, and ends before its next step.")
        call.last = time.monotonic()


def _some(items: Iterator[R], seconds: float) -> tuple[list[R], BaseException | None]:
    """Return the items that an iterator yields within about ``seconds``, and its error if any.

    At least one item is waited for.  Several are returned at once, as one thread per item would
    cost more than the listing.
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
