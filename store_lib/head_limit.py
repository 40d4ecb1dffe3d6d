"""How long the answer to a request may take to begin: the engine says it, the clients obey."""

import contextlib
import contextvars
import math
import time
from types import TracebackType
from typing import NamedTuple


class HeadLimit(NamedTuple):
    """A limit for requests; times are of the monotonic clock."""

    #: Seconds for connecting, redirects, interim answers and the head of one answer, together.
    seconds: float = 60.0
    #: When the operation that makes the requests ends, whatever they are doing.
    until: float = math.inf


_DEFAULT = HeadLimit()
_present: contextvars.ContextVar[HeadLimit] = contextvars.ContextVar(
    "store_lib_head_limit", default=_DEFAULT
)


def head_limit() -> HeadLimit:
    """Return the limit for the requests that this thread makes now."""
    return _present.get()


class _Within:
    """A block with another limit."""

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


#: A block with the same limit; there are many, as every piece that is read has one.
_SAME = contextlib.nullcontext()


def limited_heads(
    seconds: float | None = None, left: float | None = None
) -> contextlib.AbstractContextManager[None]:
    """Return a block in which the requests that this thread makes are limited.

    :param seconds: for connecting, redirects, interim answers and the head; 0 for no limit
    :param left: seconds from now after which no request may go on, where that is sooner than the
        end that holds already
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
