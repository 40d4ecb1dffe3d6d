"""Repeats: whether a request that failed is made again, after which pause, and for how long."""

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
from store_lib.head_limit import limited_heads
from store_lib.options import StoreOptions
from store_lib.transfer import timeouts
from store_lib.transfer.timeouts import Clock, TransferClock, checkpoint

LOG = get_logger(__name__)
R = TypeVar("R")

#: Pauses between tries, in seconds: they double from the first to the longest.  Up to half of
#: each is taken off at random, so that clients that failed together do not come back together.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0

#: Seconds for which what is in use is tried: who is about to let go of it does so at once, and who
#: is not may use it for hours.
IN_USE = 2.0


_at_most: contextvars.ContextVar[float] = contextvars.ContextVar(
    "store_lib_retry_at_most", default=math.inf
)


@contextlib.contextmanager
def retry_at_most(seconds: float) -> Iterator[None]:
    """Within the block, repeat for ``seconds`` at most: for what must answer soon, such as a probe.

    It holds for the calls that this thread makes, and those that it has others make for it; 0
    repeats nothing.

    :raises Invalid: it is not a number of 0 or more
    """
    if not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise Invalid(f"Expected a number of seconds of 0 or more, got {shown(seconds)}.")
    token = _at_most.set(min(seconds, _at_most.get()))
    try:
        yield
    finally:
        _at_most.reset(token)


def is_temporary(error: BaseException) -> bool:
    """Whether trying again may help."""
    return isinstance(error, StoreError) and error.status is ErrorStatus.TEMPORARY


@dataclasses.dataclass(slots=True)
class Retry:
    """How long and how often the requests of one operation are tried.

    A request is tried again after a temporary error until ``seconds`` have passed since its first
    try began.  The time that the tries themselves take counts, but a first try that took longer is
    repeated once.  The last error comes out with the status EXHAUSTED, so that an outer loop does
    not multiply.
    """

    #: Seconds from the first try to the last; 0 repeats nothing.
    seconds: float = 0.0
    #: How often one request is tried at most; ``None`` for as often as ``seconds`` allow.
    attempts: int | None = None
    #: The store's id, for the log.
    store: str = ""
    #: What the requests are for, for the log: an operation, and what it is about.
    operation: str = ""
    subject: object = None
    #: ``None`` for the one of all.
    clock: Clock | None = None
    #: Seconds for the answer to a request to begin; 0 for no limit.
    head: float = 60.0
    #: When the time began; ``None``: each request has its own, from its first try.
    began: float | None = None
    #: The limits of the transfer that the requests belong to; they end it, whatever is repeated.
    watch: TransferClock | None = None

    @classmethod
    def of(cls, store: str, options: StoreOptions) -> "Retry":
        """Return what the options of a store say."""
        return cls(
            options.transfer_retry_seconds,
            options.transfer_attempts,
            store,
            head=options.transfer_head_timeout,
        )

    def to(
        self, operation: str, subject: object = None, watch: TransferClock | None = None
    ) -> "Retry":
        """Return the same for an operation, which the log then names.

        :param watch: of the transfer that it is, whose limits hold while something is repeated
        """
        made = self._copy()
        made.operation, made.subject, made.watch = operation, subject, watch
        return made

    def beyond(self) -> "Retry":
        """Return the same for what goes on whatever the limits of the transfer."""
        made = self._copy()
        made.watch = None
        return made

    def since(self, began: float | None = None) -> "Retry":
        """Return the same with the time begun, by :meth:`now`: requests that belong together share
        it.

        :param began: ``None``: now
        """
        made = self._copy()
        made.began = self.now() if began is None else began
        return made

    def now(self) -> float:
        """Return the time by which this goes."""
        return (self.clock or timeouts.CLOCK).now()

    def once(self) -> "Retry":
        """Return one that repeats nothing, for what cannot be sent again."""
        made = self._copy()
        made.attempts = 1
        return made

    def _copy(self) -> "Retry":
        # Several are made for each small object; dataclasses.replace takes three times as long.
        return Retry(
            self.seconds,
            self.attempts,
            self.store,
            self.operation,
            self.subject,
            self.clock,
            self.head,
            self.began,
            self.watch,
        )

    def limited(self) -> contextlib.AbstractContextManager[None]:
        """Return a block in which requests keep to the time limits of this operation."""
        watch, left = self.watch, None
        if watch is not None and watch.limits.deadline:
            left = watch.remaining(stall=False)
        return limited_heads(self.head, left)

    def call(
        self,
        call: Callable[[], R],
        request: str = "",
        *,
        stop: threading.Event | None = None,
        on_repeat: Callable[[], None] | None = None,
        rescue: Callable[[StoreError], R | None] | None = None,
    ) -> R:
        """Make ``call``, again after each temporary error for as long as is allowed.

        :param request: what the call does, for the log
        :param stop: ends the pauses when set; the error at hand is then raised
        :param on_repeat: called before each repeat
        :param rescue: looks at each error first, and may know that the call succeeded all the same
        """
        tries, began = None, (self.clock or timeouts.CLOCK).now()
        while True:
            try:
                with self.limited():
                    return call()
            except StoreError as error:
                if rescue is not None and (found := rescue(error)) is not None:
                    return found
                if tries is None:
                    tries = Tries(self, request, stop, began)
                if not tries.again(error):
                    raise
            if on_repeat is not None:
                on_repeat()


class Tries:
    """The tries of one request, of which the first has failed.

    :param request: what it does, for the log
    :param stop: ends the pauses when set
    :param began: when the first try did; ``None``: now
    """

    __slots__ = ("_began", "_clock", "_made", "_request", "_retry", "_seconds", "_stop")

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
        self._clock = retry.clock or timeouts.CLOCK
        self._seconds = min(retry.seconds, _at_most.get())
        if retry.began is not None:
            began = retry.began
        self._began = self._clock.now() if began is None else began
        self._made = 1

    def again(self, error: StoreError) -> bool:
        """Say whether to try again after ``error``, once the pause before that is over.

        :raises TimeoutError: a limit of the transfer has run out, or the call was given up
        """
        if not is_temporary(error):
            return False
        allowed = min(self._seconds, IN_USE) if isinstance(error, InUseByStore) else self._seconds
        left = allowed - (self._clock.now() - self._began)
        watch = self._retry.watch
        if self._may_repeat(left):
            pause = self._pause(error, left)
            if watch is not None and (patience := watch.remaining()) is not None:
                watch.check()
                pause = min(pause, patience)
            checkpoint()
            self._log(error, pause, left)
            if not self._clock.wait(self._stop or threading.Event(), pause):
                if watch is not None:
                    watch.check()
                checkpoint()
                self._made += 1
                return True
        error.status = ErrorStatus.EXHAUSTED
        return False

    def _may_repeat(self, left: float) -> bool:
        if self._retry.attempts is not None and self._made >= self._retry.attempts:
            return False
        # One long try may be all that the time was for: one more, unless an answer is due soon.
        hurried = self._seconds < self._retry.seconds
        return left > 0 or (self._made == 1 and self._seconds > 0 and not hurried)

    def _pause(self, error: StoreError, left: float) -> float:
        """Return how long to wait: the last try comes when the time is up, not before."""
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._made - 1, 32))
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
            self._made + 1,
            max(0.0, left),
        )
