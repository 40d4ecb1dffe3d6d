"""Calls of client libraries: what they raise becomes the library's errors, without their frames.

Their frames hold passwords and tokens, which whatever shows a traceback with the variables of its
frames would show: Sentry does, and so does ``capture_locals`` of :mod:`traceback`.
"""

import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from store_lib.exceptions import StoreError

E = TypeVar("E", bound=BaseException)


class LibraryCall:
    """A block that calls a client library, and turns its errors into a StoreError.

    An error leaves the block without the frames below it; so do its causes and contexts that were
    raised within the block.  What is not an ``Exception``, such as the end of the process, passes
    unchanged.

    :param meaning: returns the StoreError for another error; ``None`` lets that one pass
    :param kept: types of errors that stay as the cause; the text of others may show what was sent
    """

    __slots__ = ("_handled", "_kept", "_meaning")

    def __init__(
        self,
        meaning: Callable[[Exception], StoreError | None],
        *,
        kept: tuple[type[Exception], ...] = (Exception,),
    ) -> None:
        self._meaning = meaning
        self._kept = kept

    def __enter__(self) -> None:
        #: What the caller is handling now, which was raised outside.
        self._handled = sys.exception()

    def __exit__(
        self, kind: Any, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if trace is None or not isinstance(error, Exception):
            return
        _frameless(error, self._handled)
        # Where the block is.
        error.__traceback__ = types.TracebackType(
            None, trace.tb_frame, trace.tb_lasti, trace.tb_lineno
        )
        meaning = None if isinstance(error, StoreError) else self._meaning(error)
        if meaning is not None:
            _frameless(meaning, self._handled)  # it may be an error that was wrapped
            try:
                raise meaning from error if isinstance(error, self._kept) else None
            finally:
                # With its traceback it would keep this frame, and a transfer's memory; the text of
                # the other may hold what was sent.
                del meaning, error


def _frameless(error: E, outside: BaseException | None) -> E:
    """Take the frames from an error and from all that led to it, but for one from outside."""
    seen = {id(outside)}
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = None
        # urllib3 and requests keep errors in their arguments.
        inner: Iterable[Any] = (current.__cause__, current.__context__, *current.args)
        waiting += [item for item in inner if isinstance(item, BaseException)]
    return error
