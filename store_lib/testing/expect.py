"""Assertions that say what was expected and what happened, without pytest."""

import contextlib
from collections.abc import Iterator
from typing import Any

from store_lib.exceptions import ErrorStatus, StoreError


class NotApplicable(Exception):
    """Raised by a check that cannot be run here; the text says why."""


class Caught:
    """Holds the error that :func:`raises` caught."""

    def __init__(self) -> None:
        self.error: Any = None


def expect(condition: object, message: str) -> None:
    """Fail with ``message`` unless ``condition`` holds."""
    if not condition:
        raise AssertionError(message)


def expect_equal(got: object, expected: object, what: str) -> None:
    """Fail unless ``got`` equals ``expected``."""
    if got != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {got!r}")


def expect_bytes(got: bytes, expected: bytes, what: str) -> None:
    """Fail unless the bytes are equal; the message says where they first differ."""
    if got == expected:
        return
    common = min(len(got), len(expected))
    low, high = 0, common
    while low < high:  # the longest common prefix, by halving
        middle = (low + high + 1) // 2
        if got[:middle] == expected[:middle]:
            low = middle
        else:
            high = middle - 1
    where = f"they differ from byte {low} on" if low < common else "the shorter is a prefix"
    raise AssertionError(f"{what}: expected {len(expected)} bytes, got {len(got)}; {where}")


@contextlib.contextmanager
def raises(*kinds: type[BaseException], doing: str) -> Iterator[Caught]:
    """Fail unless the block raises one of ``kinds``; a StoreError must have a text and status."""
    caught = Caught()
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        yield caught
    except kinds as error:
        caught.error = error
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(
            f"{doing}: expected {names}, got {type(error).__name__}: {error}"
        ) from error
    else:
        raise AssertionError(f"{doing}: expected {names}, got no error")
    if isinstance(caught.error, StoreError):
        text = str(caught.error)
        expect(text.strip(), f"{doing}: expected {names} with a message, got an empty message")
        expect(
            isinstance(caught.error.status, ErrorStatus),
            f"{doing}: expected an ErrorStatus as status, got {caught.error.status!r}",
        )
