"""How long: the two time limits of a transfer, and calls that may hang."""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from store_lib.exceptions import DeadlineExceeded, TimeoutError, TransferStalled

LOG = logging.getLogger(__name__)
R = TypeVar("R")


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a transfer; 0 is none."""

    #: Seconds without progress.
    stall: float = 0
    #: Seconds in all.
    deadline: float = 0


class Watch:
    """Keeps a transfer's time: every part of it tells of progress, and who waits asks how long."""

    __slots__ = ("_last", "done", "limits", "started")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.started = self._last = time.monotonic()
        self.done = 0

    def progress(self) -> None:
        """Something moved."""
        self._last = time.monotonic()

    def patience(self, *, stall: bool = True) -> float | None:
        """Return how many seconds a wait may last now, ``None`` for as long as it takes."""
        now = time.monotonic()
        ends = []
        if stall and self.limits.stall:
            ends.append(self._last + self.limits.stall)
        if self.limits.deadline:
            ends.append(self.started + self.limits.deadline)
        return max(0.0, min(ends) - now) if ends else None

    def check(self, *, stall: bool = True) -> None:
        """Raise when a limit has run out.

        :raises TransferStalled: no progress for too long
        :raises DeadlineExceeded: the whole takes too long
        """
        now = time.monotonic()
        limits = self.limits
        if limits.deadline and now >= self.started + limits.deadline:
            raise DeadlineExceeded(timeout=limits.deadline, done=self.done)
        if stall and limits.stall and now >= self._last + limits.stall:
            raise TransferStalled(timeout=limits.stall, done=self.done)

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started


class Guard:
    """Runs calls that may hang below Python, and gives them up after a time.

    A thread stuck in a dead network mount cannot be ended, only left behind; so the number left
    behind is bounded, and past it calls are refused at once instead of hanging one more thread.

    :param timeout: seconds; 0 makes :meth:`call` a plain call
    :param limit: how many calls may hang at once
    :param warning: share of ``limit`` in per cent from which on a warning is logged
    """

    def __init__(self, timeout: float, limit: int, warning: int) -> None:
        self.timeout = timeout
        self._limit = limit
        self._warning = warning
        self._hanging = 0
        self._lock = threading.Lock()

    def call(
        self,
        function: Callable[[], R],
        *,
        late: Callable[[R], None] | None = None,
        timeout: float | None = None,
    ) -> R:
        """Call ``function`` and return what it returns, or raise what it raises.

        :param late: what to do with a result that comes after it was given up
        :param timeout: seconds for this call, where they differ from the guard's
        :raises TimeoutError: it did not return in time, or too many calls hang already
        """
        if not self.timeout:
            return function()
        with self._lock:
            if self._hanging >= self._limit:
                raise TimeoutError(
                    f"{self._hanging} calls to the storage hang already; not trying one more. "
                    "Check storage health and connectivity."
                )
        patience = self.timeout if timeout is None else timeout
        outcome: list[tuple[Any, BaseException | None]] = []
        done = threading.Event()
        given_up = False

        def run() -> None:
            try:
                result: tuple[Any, BaseException | None] = (function(), None)
            except BaseException as error:
                result = (None, error)
            with self._lock:
                outcome.append(result)
                done.set()
                if not given_up:
                    return
                self._hanging -= 1
            if result[1] is None and late is not None:
                late(result[0])

        threading.Thread(target=run, name="store_lib-guard", daemon=True).start()
        if not done.wait(patience):
            with self._lock:
                if not done.is_set():
                    given_up = True
                    self._hanging += 1
                    if self._hanging * 100 >= self._limit * self._warning:
                        LOG.warning(
                            "%d calls to the storage hang (limit %d)", self._hanging, self._limit
                        )
                    raise TimeoutError(timeout=patience)
        value, error = outcome[0]
        if error is not None:
            raise error
        answer: R = value
        return answer
