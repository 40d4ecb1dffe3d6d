"""How long the answer to a request may take to begin: the engine says it, the clients obey."""

import contextlib
import contextvars
import dataclasses
import math
import time
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True, slots=True)
class HeadLimit:
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


@contextlib.contextmanager
def limited_heads(seconds: float | None = None, left: float | None = None) -> Iterator[None]:
    """Within the block, have the requests that this thread makes be limited.

    :param seconds: for connecting, redirects, interim answers and the head; 0 for no limit
    :param left: seconds from now after which no request may go on, where that is sooner than the
        end that holds already
    """
    limit = _present.get()
    if seconds is not None:
        limit = dataclasses.replace(limit, seconds=seconds or math.inf)
    if left is not None:
        limit = dataclasses.replace(limit, until=min(limit.until, time.monotonic() + left))
    token = _present.set(limit)
    try:
        yield
    finally:
        _present.reset(token)
