"""Turns exceptions of client libraries into this library's errors, without their frames.

The frames of client libraries hold passwords and tokens.  Sentry, or :mod:`traceback` with
``capture_locals``, would show them with the local variables of a traceback.
"""

import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from store_lib.exceptions import StoreError

E = TypeVar("E", bound=BaseException)


class LibraryCall:
    """A context manager for calls of a client library; turns errors into a ``StoreError``.

    An error leaves the block without the frames below the block.  So do its causes and contexts
    that were raised in the block.  An exception that is not an ``Exception``, such as
    ``SystemExit``, passes unchanged.

    :param meaning: returns the ``StoreError`` for another exception; ``None`` lets that one pass
    :param kept: types of exceptions that are kept as the cause of the ``StoreError``; others are
        dropped, as their text may show what was sent
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
        #: The exception that the caller is handling, which was raised outside the block.
        self._handled = sys.exception()

    def __exit__(
        self, kind: Any, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if trace is None or not isinstance(error, Exception):
            return
        _frameless(error, self._handled)
        # Keep the frame of the block itself.
        error.__traceback__ = types.TracebackType(
            None, trace.tb_frame, trace.tb_lasti, trace.tb_lineno
        )
        meaning = None if isinstance(error, StoreError) else self._meaning(error)
        if meaning is not None:
            _frameless(meaning, self._handled)  # it may be one that the other had wrapped
            try:
                raise meaning from error if isinstance(error, self._kept) else None
            finally:
                # Break the cycle of the error, its traceback and this frame, which would keep a
                # transfer's memory; `error` may have the text of a request.
                del meaning, error


def _frameless(error: E, outside: BaseException | None) -> E:
    """Clear the tracebacks of an error and of all its causes and contexts, except ``outside``."""
    seen = {id(outside)}
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = None
        # urllib3 and requests also keep inner errors in ``args``.
        inner: Iterable[Any] = (current.__cause__, current.__context__, *current.args)
        waiting += [item for item in inner if isinstance(item, BaseException)]
    return error
