"""Decodes what servers answer, and checks every type and bound."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from store_lib.exceptions import BackendException, StoreError

#: More than any object has.
_MOST_BYTES = 2**63


@contextlib.contextmanager
def decoding(what: str) -> Iterator[None]:
    """Take an answer apart within the block: whatever goes wrong there is the answer's fault.

    :param what: what was expected, and from whom
    :raises BackendException: the answer is something else
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # Not chained: the frames below may hold what was sent, with its secrets.
        raise BackendException(
            f"Expected {what}, got something else ({type(error).__name__}). Check the address, "
            "and what is between."
        ) from None


def text(value: Any) -> str:
    """Return a string.

    :raises ValueError: it is none, or holds half a character
    """
    if not isinstance(value, str):
        raise ValueError(f"Expected a string, got {type(value).__name__}.")
    value.encode()
    return value


def size(value: Any) -> int:
    """Return a number of bytes.

    :raises ValueError: it is none
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST_BYTES:
        raise ValueError("Expected a number of bytes.")
    return value


def entries(value: Any) -> list[Mapping[str, Any]]:
    """Return a list of objects with named fields.

    :raises ValueError: it is none
    """
    if not isinstance(value, list | tuple) or not all(isinstance(each, Mapping) for each in value):
        raise ValueError("Expected a list of objects.")
    return list(value)


def url(value: Any) -> str:
    """Return an http or https URL.

    :raises ValueError: it is none
    """
    parts = urlsplit(text(value))
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError("Expected an http or https URL.")
    _ = parts.port  # which is looked at only now
    return str(value)
