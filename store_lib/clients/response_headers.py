"""Parses headers of a web server's responses: an object's size, time and ETag, and Retry-After."""

import email.utils
import re
import time
from collections.abc import Mapping

from urllib3.response import BaseHTTPResponse

from store_lib.clients.decoding import decoding, digits
from store_lib.exceptions import BackendException

_CONTENT_RANGE = re.compile(r"bytes\s+(?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)", re.I)

#: A strong ETag.  An empty ETag is valid in HTTP but identifies no object, so it does not match.
_TAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]+"')


def content_length(response: BaseHTTPResponse) -> int | None:
    """Return the Content-Length in bytes, or ``None`` if the server does not send it.

    :raises BackendException: the header is malformed
    """
    text = response.headers.get("Content-Length")
    if text is None or response.headers.get("Transfer-Encoding"):
        return None
    values = {value.strip() for value in text.split(",")}
    with decoding("a Content-Length"):
        return digits(values.pop() if len(values) == 1 else text)


def content_range(text: str) -> tuple[int, int, int | None] | None:
    """Parse a Content-Range header.

    :returns: the offsets of the first and the last byte, and the object's size or ``None``; if the
        range is empty, the last offset is below the first; ``None`` if ``text`` is malformed
    """
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last = (0, -1) if match[1] is None else (int(match[1]), int(match[2]))
    return first, last, None if match[3] == "*" else int(match[3])


def check_encoding(response: BaseHTTPResponse, shown: str) -> None:
    """Check that the body has no Content-Encoding.

    :param shown: the object's name for the message
    :raises BackendException: the server has encoded the body, although the request forbade it
    """
    for header, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        coding = response.headers.get(header, plain).strip().lower()
        if coding != plain:
            raise BackendException(
                f"Expected the bytes of {shown} as they are, got {header} {coding!r}. "
                "Switch encoding off for it on the server."
            )


def last_modified(response: BaseHTTPResponse) -> float | None:
    """Return the Last-Modified time as seconds since the epoch; ``None`` if missing or invalid."""
    return parse_http_date(response.headers.get("Last-Modified"))


def validator(response: BaseHTTPResponse) -> str | None:
    """Return a value for If-Range that identifies exactly these bytes, or ``None``.

    The value is a strong ETag, or a Last-Modified time that is at least a second old by the
    server's clock: within the same second the object could change twice (RFC 9110, 8.8.2.2).
    """
    if response.headers.get("Accept-Ranges", "").strip().lower() == "none":
        return None
    tag = response.headers.get("ETag")
    if tag is not None:
        return tag if _TAG.fullmatch(tag) else None
    date = response.headers.get("Last-Modified", "")
    changed, now = parse_http_date(date), parse_http_date(response.headers.get("Date"))
    if changed is None or now is None or now - changed < 1:
        return None
    return date if date.isprintable() else None  # a value with a line break cannot be sent back


def parse_http_date(date: str | None) -> float | None:
    """Return a header's date as seconds since the epoch; ``None`` if missing or invalid."""
    try:
        return None if date is None else email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the number of seconds of Retry-After; ``None`` if missing or invalid.

    :param headers: a mapping that ignores the case of names
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    then = parse_http_date(text)
    if then is None:
        return None
    now = parse_http_date(headers.get("Date"))
    return max(0.0, then - (time.time() if now is None else now))
