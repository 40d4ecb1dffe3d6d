"""Decodes responses and checks every type and bound: JSON, numbers, times and URLs.

Each function takes one value and returns it checked, else raises :class:`Unexpected`; a block of
:func:`decoding` makes one documented error of that and of whatever else goes wrong there.
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

#: More than any object has.
_MOST_BYTES = 2**63
#: Characters of a time or a number.
_LONGEST = 64
_DIGITS = re.compile(rf"[0-9]{{1,{_LONGEST}}}")
#: Characters of a value that a message shows, and that are looked at for secrets: one that begins
#: within the first is whole within the second.
_SHOWN, _READ = 200, 16384

_ADVICE = "Check the address, and what is between."


class Unexpected(ValueError):
    """A value is not what was expected."""

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
    """Return a block in which a response is decoded: any error in it means a malformed response.

    :param what: what was expected, and from whom
    :param secrets: what was sent: the response may quote it and no message may show it
    :param raising: makes the error from its text
    :param advice: what to do about it
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
    """Return the error for a malformed response; the other parameters are those of `decoding`.

    :param error: what was raised while it was decoded
    """
    got = f"got something else ({type(error).__name__})"
    if isinstance(error, Unexpected):
        got = f"got {display(error.got, secrets)} where {error.expected} belongs"
    elif isinstance(error, KeyError) and error.args:
        got = f"got none with {display(error.args[0], secrets)} in it"
    return raising(f"Expected {what}, {got}. {advice}")


def display(value: Any, secrets: Collection[str] = ()) -> str:
    """Return a value of a response for a message: in ASCII, shortened, without logins of URIs.

    :param secrets: what was sent, which the value may quote
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

    :raises Unexpected: it is malformed, or nested too deeply
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Unexpected("JSON", body) from None


def text(value: Any) -> str:
    """Return a string.

    :raises Unexpected: it is not a string, or has half a character
    """
    try:
        if isinstance(value, str) and value.encode() is not None:
            return value
    except UnicodeError:
        pass
    raise Unexpected("a string", value)


def optional_text(value: Any) -> str | None:
    """Return a string, or ``None`` as it is.

    :raises Unexpected: it is neither
    """
    return None if value is None else text(value)


def boolean(value: Any) -> bool:
    """Return a boolean.

    :raises Unexpected: it is not one
    """
    if not isinstance(value, bool):
        raise Unexpected("true or false", value)
    return value


def size(value: Any, unit: str = "bytes", most: int = _MOST_BYTES) -> int:
    """Return a number of bytes, or of another unit.

    :param most: the number must be smaller
    :raises Unexpected: it is not such a number
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < most:
        raise Unexpected(f"a number of {unit}", value)
    return int(value)  # of a library's own class of numbers, too


def digits(value: Any) -> int:
    """Return a number of bytes written in decimal digits, as in a header.

    :raises Unexpected: it is not such a number
    """
    if not isinstance(value, str) or not _DIGITS.fullmatch(value):
        raise Unexpected("a number of bytes", value)
    return size(int(value))


def timestamp(value: Any) -> float:
    """Return an ISO 8601 time as seconds since the epoch; without a zone it is UTC.

    :raises Unexpected: it is not a time
    """
    try:
        time = datetime.datetime.fromisoformat(text(value)[:_LONGEST])
        return time.replace(tzinfo=time.tzinfo or datetime.UTC).timestamp()
    except (ValueError, OverflowError):
        raise Unexpected("a time", value) from None


def fields(value: Any) -> Mapping[str, Any]:
    """Return an object with named fields.

    :raises Unexpected: it is not one
    """
    if not isinstance(value, Mapping):
        raise Unexpected("an object", value)
    return value


def entries(value: Any) -> list[Mapping[str, Any]]:
    """Return a list of objects with named fields.

    :raises Unexpected: it is not one
    """
    if not isinstance(value, list | tuple):
        raise Unexpected("a list of objects", value)
    return [fields(entry) for entry in value]


def url(value: Any) -> str:
    """Return an http or https URL without a login in it.

    :raises Unexpected: it is not one
    """
    try:
        parts = urlsplit(text(value))
        good = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # which urlsplit has not checked
        if good and value.isprintable() and " " not in value and "@" not in parts.netloc:
            return str(value)
    except ValueError:
        pass
    raise Unexpected("an http or https URL without a login", value)
