"""Retries: whether, when and for how long a failed request is repeated."""

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

#: Pauses between tries in seconds; they double from the first to the longest.  Up to half of a
#: pause is subtracted at random, so that clients that failed together do not retry together.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0

#: Seconds for which a request is retried while its object is in use.  A short use has ended by
#: then; any other may last for hours.
IN_USE = 2.0


_most_seconds: contextvars.ContextVar[float] = contextvars.ContextVar(
    "store_lib_retry_at_most", default=math.inf
)


@contextlib.contextmanager
def retry_at_most(seconds: float) -> Iterator[None]:
    """Retry for at most ``seconds`` within a ``with`` block, for a health check for example.

    This applies to calls that this thread makes, and to those that other threads make on its
    behalf.  With 0 nothing is retried.

    :raises Invalid: ``seconds`` is not a number of at least 0
    """
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise Invalid(f"Expected a number of seconds of 0 or more, got {shown(seconds)}.")
    token = _most_seconds.set(min(seconds, _most_seconds.get()))
    try:
        yield
    finally:
        _most_seconds.reset(token)


def is_temporary(error: BaseException) -> bool:
    """Return whether the request may succeed if it is repeated."""
    return isinstance(error, StoreError) and error.status is ErrorStatus.TEMPORARY


@dataclasses.dataclass(slots=True)
class Retry:
    """How long and how often the requests of one operation are tried.

    A request is tried again after a temporary error until ``seconds`` have passed since its first
    try began.  This includes the time of the tries themselves, but if the first try took longer, it
    is repeated once.  The last error is raised with the status EXHAUSTED, so that no outer loop
    multiplies the tries.
    """

    #: Seconds from the first try to the last; with 0 nothing is retried.
    seconds: float = 0.0
    #: Maximum number of tries of one request; ``None`` if only ``seconds`` limits them.
    attempts: int | None = None
    #: The store's id, for the log.
    store: str = ""
    #: The operation that the requests are for, and its target; for the log.
    operation: str = ""
    subject: object = None
    #: Seconds within which the response to a request must begin; 0 for no limit.
    head: float = DEFAULT_SECONDS
    #: When ``seconds`` began; ``None`` if they begin with the first try of each request.
    began: float | None = None
    #: The clock of the transfer that the requests belong to; its limits end the tries.
    clock: TransferClock | None = None

    @classmethod
    def of(cls, store: str, options: StoreOptions) -> "Retry":
        """Return the retries that the options of a store describe."""
        return cls(
            options.transfer_retry_seconds,
            options.transfer_attempts,
            store,
            head=options.transfer_head_timeout,
        )

    def for_operation(
        self, operation: str, subject: object = None, clock: TransferClock | None = None
    ) -> "Retry":
        """Return a copy for an operation, which is named in the log.

        :param clock: the operation's clock if it is a transfer; its limits apply between tries too
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
        """Return a copy to which the transfer's limits do not apply, for cleaning up."""
        copy = self._copy()
        copy.clock = None
        return copy

    def since(self, began: float | None = None) -> "Retry":
        """Return a copy whose ``seconds`` have begun, so that several requests share them.

        :param began: a time of :meth:`now`; ``None`` for the current time
        """
        copy = self._copy()
        copy.began = self.now() if began is None else began
        return copy

    def once(self) -> "Retry":
        """Return a copy that retries nothing, for a request that cannot be sent again."""
        copy = self._copy()
        copy.attempts = 1
        return copy

    @staticmethod
    def now() -> float:
        """Return the current time in seconds, for :meth:`since`."""
        return timeouts.CLOCK.now()

    def _copy(self) -> "Retry":
        return self.for_operation(self.operation, self.subject, self.clock)

    def limited(self) -> contextlib.AbstractContextManager[None]:
        """Return a context manager that applies the operation's time limits to requests."""
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
        """Call ``call`` and return its result; repeat it after temporary errors.

        :param request: what the call does, for the log
        :param stop: when set, ends the pauses, and the last error is raised
        :param on_retry: called before every further try
        :param rescue: called with every error; returns the result if the call succeeded despite the
            error, else ``None``
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
    """The pauses between the tries of one request, after the first one has failed.

    :param request: what the request does, for the log
    :param stop: when set, ends the pauses
    :param began: when the first try began; ``None`` for the current time
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
        """Pause after a failed try, and return whether to try again.

        :raises TimeoutError: a limit of the transfer has been reached, or the call was given up
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
        # A single long try may have used up the time; allow one more, unless retry_at_most applies.
        hurried = self._seconds < self._retry.seconds
        return left > 0 or (self._tries == 1 and self._seconds > 0 and not hurried)

    def _pause(self, error: StoreError, left: float) -> float:
        """Return the seconds to wait.  The last pause ends exactly when the time is up."""
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
