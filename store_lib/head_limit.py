"""The limit for the time until a response begins: set by the engine, applied by the clients."""

import contextlib
import contextvars
import math
import time
from types import TracebackType
from typing import NamedTuple

#: The default of the option ``transfer_head_timeout``, in seconds.
DEFAULT_SECONDS = 60


class HeadLimit(NamedTuple):
    """A limit for requests."""

    #: Seconds for connecting, redirects, interim responses and the head of the response together.
    seconds: float = DEFAULT_SECONDS
    #: End of the operation that makes the requests, in seconds of the monotonic clock.
    until: float = math.inf


_DEFAULT = HeadLimit()
_present: contextvars.ContextVar[HeadLimit] = contextvars.ContextVar(
    "store_lib_head_limit", default=_DEFAULT
)


def head_limit() -> HeadLimit:
    """Return the current limit for requests of this thread."""
    return _present.get()


class _Within:
    """Context manager that sets the limit for a block."""

    __slots__ = ("_limit", "_token")

    def __init__(self, limit: HeadLimit) -> None:
        self._limit = limit

    def __enter__(self) -> None:
        self._token = _present.set(self._limit)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _present.reset(self._token)


#: For a block with the current limit: every chunk that is read has a block.
_SAME = contextlib.nullcontext()


def limited_heads(
    seconds: float | None = None, left: float | None = None
) -> contextlib.AbstractContextManager[None]:
    """Return a context manager that limits the requests of this thread.

    :param seconds: for connecting, redirects, interim responses and the head; 0 for no limit
    :param left: seconds from now until all requests must end; a current limit that ends sooner
        remains
    """
    present = _present.get()
    limit, until = present
    if seconds is not None:
        limit = seconds or math.inf
    if left is not None:
        until = min(until, time.monotonic() + left)
    if limit == present.seconds and until == present.until:
        return _SAME
    return _Within(HeadLimit(limit, until))
