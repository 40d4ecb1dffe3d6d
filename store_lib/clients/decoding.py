"""Checks and decodes the values of responses: JSON, numbers, times and URLs.

A function for one kind of value returns the value if it has that type and is in range, and raises
:class:`Unexpected` otherwise.  A block of :func:`decoding` turns this and any other error that is
raised in the block into one documented error.
"""

import datetime
import functools
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from store_lib.clients.library_calls import LibraryCall
from store_lib.exceptions import BackendException, StoreError
from store_lib.redaction import hide, redact

#: A number of bytes larger than any object.
_MOST_BYTES = 2**63
#: The largest number of characters of a time or a number.
_LONGEST = 64
_DIGITS = re.compile(rf"[0-9]{{1,{_LONGEST}}}")
#: The number of characters of a value that a message may quote, and that are searched for secrets:
#: a secret that begins within the first number is complete within the second.
_SHOWN, _READ = 200, 16384

_ADVICE = "Check the address, and what is between."


class Unexpected(ValueError):
    """A value has another type than expected, or is out of range."""

    def __init__(self, expected: str, got: Any) -> None:
        super().__init__(expected)
        self.expected = expected
        self.got = got


def decoding(
    what: str,
    *,
    secrets: Collection[str] = (),
    raising: Callable[[str], StoreError] = BackendException,
    advice: str = _ADVICE,
) -> LibraryCall:
    """Return a context manager for decoding a response; an error in it means a malformed response.

    :param what: what was expected, and from which server
    :param secrets: secrets of the request, which the response may quote and no message may show
    :param raising: returns the error for a message
    :param advice: what to do about a malformed response
    """
    meaning = functools.partial(
        malformed, what=what, secrets=secrets, raising=raising, advice=advice
    )
    return LibraryCall(meaning, kept=())


def malformed(
    error: Exception,
    what: str,
    *,
    secrets: Collection[str] = (),
    raising: Callable[[str], StoreError] = BackendException,
    advice: str = _ADVICE,
) -> StoreError:
    """Return the error for a malformed response; the other parameters are as in :func:`decoding`.

    :param error: the exception that was raised while the response was decoded
    """
    got = f"got something else ({type(error).__name__})"
    if isinstance(error, Unexpected):
        got = f"got {display(error.got, secrets)} where {error.expected} belongs"
    elif isinstance(error, KeyError) and error.args:
        got = f"got none with {display(error.args[0], secrets)} in it"
    return raising(f"Expected {what}, {got}. {advice}")


def display(value: Any, secrets: Collection[str] = ()) -> str:
    """Return a response's value for a message: in ASCII, shortened, URIs without their logins.

    :param secrets: secrets of the request, which the value may quote
    """
    if isinstance(value, str | bytes):
        text = value[:_READ] if isinstance(value, str) else value[:_READ].decode("latin-1")
        cut = len(value) > len(text)
        return ascii(redact(hide(text, secrets, cut=cut), cut=cut))[:_SHOWN]
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if -_MOST_BYTES < value < 2 * _MOST_BYTES else "a larger number"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def parse_json(body: bytes | str) -> Any:
    """Parse JSON.

    :raises Unexpected: the text is malformed, or nested too deeply
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Unexpected("JSON", body) from None


def text(value: Any) -> str:
    """Return ``value`` if it is a string.

    :raises Unexpected: it is not a string, or contains a lone surrogate
    """
    try:
        if isinstance(value, str) and value.encode() is not None:
            return value
    except UnicodeError:
        pass
    raise Unexpected("a string", value)


def optional_text(value: Any) -> str | None:
    """Return ``value`` if it is a string or ``None``.

    :raises Unexpected: it is neither
    """
    return None if value is None else text(value)


def boolean(value: Any) -> bool:
    """Return ``value`` if it is a boolean.

    :raises Unexpected: it is not
    """
    if not isinstance(value, bool):
        raise Unexpected("true or false", value)
    return value


def size(value: Any, unit: str = "bytes", most: int = _MOST_BYTES) -> int:
    """Return ``value`` as an ``int`` if it is a non-negative integer below ``most``.

    :param unit: what the number counts, for the message
    :raises Unexpected: it is not such a number
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < most:
        raise Unexpected(f"a number of {unit}", value)
    return int(value)  # it may be an instance of a client library's subclass


def digits(value: Any) -> int:
    """Parse a number of bytes in decimal digits, as in a header.

    :raises Unexpected: ``value`` is not a string of digits, or the number is too large
    """
    if not isinstance(value, str) or not _DIGITS.fullmatch(value):
        raise Unexpected("a number of bytes", value)
    return size(int(value))


def timestamp(value: Any) -> float:
    """Parse an ISO 8601 time into seconds since the epoch; a time without a zone is UTC.

    :raises Unexpected: ``value`` is not such a time
    """
    try:
        time = datetime.datetime.fromisoformat(text(value)[:_LONGEST])
        return time.replace(tzinfo=time.tzinfo or datetime.UTC).timestamp()
    except (ValueError, OverflowError):
        raise Unexpected("a time", value) from None


def fields(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is a mapping, such as a JSON object.

    :raises Unexpected: it is not
    """
    if not isinstance(value, Mapping):
        raise Unexpected("an object", value)
    return value


def entries(value: Any) -> list[Mapping[str, Any]]:
    """Return ``value`` if it is a list of mappings, such as JSON objects.

    :raises Unexpected: it is not
    """
    if not isinstance(value, list | tuple):
        raise Unexpected("a list of objects", value)
    return [fields(entry) for entry in value]


def url(value: Any) -> str:
    """Return ``value`` if it is an http or https URL without a login.

    :raises Unexpected: it is not
    """
    try:
        parts = urlsplit(text(value))
        good = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # raises ValueError for a bad port, which urlsplit does not check
        if good and value.isprintable() and " " not in value and "@" not in parts.netloc:
            return str(value)
    except ValueError:
        pass
    raise Unexpected("an http or https URL without a login", value)
