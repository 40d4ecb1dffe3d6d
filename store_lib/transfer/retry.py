"""Retry: whether, when and for how long a failed request is repeated."""

import contextlib
import contextvars
import dataclasses
import math
import random
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from store_lib.display import get_logger, shown
from store_lib.exceptions import ErrorStatus, InUseByStore, Invalid, StoreError
from store_lib.head_limit import DEFAULT_SECONDS, limited_heads
from store_lib.options import StoreOptions
from store_lib.transfer import timeouts
from store_lib.transfer.timeouts import TransferClock, checkpoint

LOG = get_logger(__name__)
R = TypeVar("R")

#: Pauses between tries, in seconds: they double from the first to the longest.  Up to half of a
#: pause is taken off at random, so that clients that failed together do not come back together.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0

#: Seconds for which an object that is in use is retried: a short use ends within them, and any
#: other may last for hours.
IN_USE = 2.0


_most_seconds: contextvars.ContextVar[float] = contextvars.ContextVar(
    "store_lib_retry_at_most", default=math.inf
)


@contextlib.contextmanager
def retry_at_most(seconds: float) -> Iterator[None]:
    """Within the block, retry for ``seconds`` at most: for what must answer soon, such as a probe.

    It holds for the calls that this thread makes, and for those that others make on its behalf; 0
    retries nothing.

    :raises Invalid: it is not a number of 0 or more
    """
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise Invalid(f"Expected a number of seconds of 0 or more, got {shown(seconds)}.")
    token = _most_seconds.set(min(seconds, _most_seconds.get()))
    try:
        yield
    finally:
        _most_seconds.reset(token)


def is_temporary(error: BaseException) -> bool:
    """Return whether trying again may help."""
    return isinstance(error, StoreError) and error.status is ErrorStatus.TEMPORARY


@dataclasses.dataclass(slots=True)
class Retry:
    """How long and how often the requests of one operation are tried.

    A request is tried again after a temporary error until ``seconds`` have passed since its first
    try began.  The time that the tries themselves take counts, but a first try that took longer is
    repeated once.  The last error is raised with the status EXHAUSTED, so that no outer loop
    multiplies the tries.
    """

    #: Seconds from the first try to the last; 0 retries nothing.
    seconds: float = 0.0
    #: Number of tries of one request at most; ``None`` for as many as ``seconds`` allow.
    attempts: int | None = None
    #: The store's id, for the log.
    store: str = ""
    #: What the requests are for, for the log: an operation, and what it is about.
    operation: str = ""
    subject: object = None
    #: Seconds within which the response to a request has to begin; 0 for no limit.
    head: float = DEFAULT_SECONDS
    #: When the time began; ``None``: every request has its own, from its first try.
    began: float | None = None
    #: The clock of the transfer that the requests belong to; its limits end them.
    clock: TransferClock | None = None

    @classmethod
    def of(cls, store: str, options: StoreOptions) -> "Retry":
        """Return what the options of a store say."""
        return cls(
            options.transfer_retry_seconds,
            options.transfer_attempts,
            store,
            head=options.transfer_head_timeout,
        )

    def for_operation(
        self, operation: str, subject: object = None, clock: TransferClock | None = None
    ) -> "Retry":
        """Return a copy for an operation, which the log then names.

        :param clock: of the operation, if it is a transfer: its limits hold between tries too
        """
        # One is made for every small object; dataclasses.replace takes three times as long.
        return Retry(
            self.seconds,
            self.attempts,
            self.store,
            operation,
            subject,
            self.head,
            self.began,
            clock,
        )

    def without_limits(self) -> "Retry":
        """Return a copy that does not keep to the limits of the transfer, for cleaning up."""
        copy = self._copy()
        copy.clock = None
        return copy

    def since(self, began: float | None = None) -> "Retry":
        """Return a copy whose time has begun, so that several requests share it.

        :param began: a time of :meth:`now`; ``None``: now
        """
        copy = self._copy()
        copy.began = self.now() if began is None else began
        return copy

    def once(self) -> "Retry":
        """Return a copy that retries nothing, for what cannot be sent again."""
        copy = self._copy()
        copy.attempts = 1
        return copy

    @staticmethod
    def now() -> float:
        """Return the time in seconds, for :meth:`since`."""
        return timeouts.CLOCK.now()

    def _copy(self) -> "Retry":
        return self.for_operation(self.operation, self.subject, self.clock)

    def limited(self) -> contextlib.AbstractContextManager[None]:
        """Return a block in which requests keep to the time limits of this operation."""
        clock, left = self.clock, None
        if clock is not None and clock.limits.deadline:
            left = clock.remaining(stall=False)
        return limited_heads(self.head, left)

    def call(
        self,
        call: Callable[[], R],
        request: str = "",
        *,
        stop: threading.Event | None = None,
        on_retry: Callable[[], None] | None = None,
        rescue: Callable[[StoreError], R | None] | None = None,
    ) -> R:
        """Make ``call``, again after every temporary error for as long as is allowed.

        :param request: what the call does, for the log
        :param stop: ends the pauses when set; the last error is then raised
        :param on_retry: called before every further try
        :param rescue: gets every error first; returns the result if the call succeeded after all
        """
        backoff, began = None, timeouts.CLOCK.now()
        while True:
            try:
                with self.limited():
                    return call()
            except StoreError as error:
                if rescue is not None and (result := rescue(error)) is not None:
                    return result
                if backoff is None:
                    backoff = Backoff(self, request, stop, began)
                if not backoff.wait(error):
                    raise
            if on_retry is not None:
                on_retry()


class Backoff:
    """The pauses between the tries of one request, the first of which has failed.

    :param request: what it does, for the log
    :param stop: ends the pauses when set
    :param began: when the first try did; ``None``: now
    """

    __slots__ = ("_began", "_request", "_retry", "_seconds", "_stop", "_tries")

    def __init__(
        self,
        retry: Retry,
        request: str = "",
        stop: threading.Event | None = None,
        began: float | None = None,
    ) -> None:
        self._retry = retry
        self._request = request
        self._stop = stop
        self._seconds = min(retry.seconds, _most_seconds.get())
        if retry.began is not None:
            began = retry.began
        self._began = timeouts.CLOCK.now() if began is None else began
        self._tries = 1

    def wait(self, error: StoreError) -> bool:
        """Pause after a try that failed, and return whether to try again.

        :raises TimeoutError: a limit of the transfer has run out, or the call was given up
        """
        if not is_temporary(error):
            return False
        allowed = min(self._seconds, IN_USE) if isinstance(error, InUseByStore) else self._seconds
        left = allowed - (timeouts.CLOCK.now() - self._began)
        clock = self._retry.clock
        if self._may_retry(left):
            pause = self._pause(error, left)
            if clock is not None and (remaining := clock.remaining()) is not None:
                clock.check()
                pause = min(pause, remaining)
            checkpoint()
            self._log(error, pause, left)
            if not timeouts.CLOCK.wait(self._stop or threading.Event(), pause):
                if clock is not None:
                    clock.check()
                checkpoint()
                self._tries += 1
                return True
        error.status = ErrorStatus.EXHAUSTED
        return False

    def _may_retry(self, left: float) -> bool:
        if self._retry.attempts is not None and self._tries >= self._retry.attempts:
            return False
        # A single long try may have used up the time: one more, unless a result is due soon.
        hurried = self._seconds < self._retry.seconds
        return left > 0 or (self._tries == 1 and self._seconds > 0 and not hurried)

    def _pause(self, error: StoreError, left: float) -> float:
        """Return the seconds to wait: the last try comes when the time is up, not before."""
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._tries - 1, 32))
        pause = longest * random.uniform(0.5, 1.0)
        if error.retry_after is not None:
            pause = max(pause, error.retry_after)
        return min(pause, left if left > 0 else FIRST_PAUSE)

    def _log(self, error: StoreError, pause: float, left: float) -> None:
        retry = self._retry
        about = f"{retry.operation} of {retry.subject}" if retry.subject else retry.operation
        LOG.warning(
            "Store %s: %s failed (%s: %s); trying again in %.1f s (try %d, for %.0f s more)",
            retry.store,
            ": ".join(filter(None, (about, self._request))) or "a request",
            type(error).__name__,
            error,
            pause,
            self._tries + 1,
            max(0.0, left),
        )
