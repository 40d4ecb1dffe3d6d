"""Reads ranges of an object over HTTP, and checks that all are from the same unchanged object."""

import dataclasses
import http.client
import os
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from store_lib.clients._urllib3 import abort_response
from store_lib.clients.network_errors import Server, truncated
from store_lib.clients.response_headers import (
    check_encoding,
    content_length,
    content_range,
    last_modified,
    validator,
)
from store_lib.driver import Reader
from store_lib.exceptions import (
    BackendException,
    InvalidRange,
    ObjectChanged,
    StoreError,
    StoreRandomGetNotSupported,
)

#: The number of bytes to read from the socket at once.
_READ = 256 * 1024
#: Seconds after which a piece is yielded even if it is not full, so that progress is visible.
_GATHERING = 0.5

#: Statuses of a later request for an object that was deleted or replaced in the meantime.
_GONE = frozenset({404, 410, 412})


class RemoteObject(Protocol):
    """An object on a web server."""

    #: The object's name in error messages, without credentials.
    display_name: str
    server: Server

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET with additional headers; return a response of any status."""

    def error_for_response(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error for a response without the object."""


@dataclasses.dataclass(slots=True)
class RangeResponse:
    """The response to a request for a range, before its body is read."""

    #: ``None`` if there is nothing to read; the response has then been closed.
    response: BaseHTTPResponse | None
    #: Size of the whole object in bytes; ``None`` if unknown.
    size: int | None
    validator: str | None = None
    tag: str | None = None
    #: The Last-Modified time in seconds since the epoch.
    modified: float | None = None
    #: The largest number of bytes to read; ``None`` to read to the end of the body.
    limit: int | None = None
    #: The number of bytes below which the body was cut short; ``None`` if unknown.
    needed: int | None = None


def open_range(
    source: RemoteObject,
    offset: int,
    length: int | None,
    same_as: RangeResponse | None = None,
) -> RangeResponse:
    """Request bytes of an object, and check the head of the response.

    :param same_as: an earlier response; this one must come from the same unchanged object
    :raises InvalidRange: ``offset`` is beyond the object's end
    :raises ObjectChanged: the object is not the one of ``same_as``
    :raises StoreRandomGetNotSupported: the server does not support ranges
    """
    headers = {}
    if offset or length is not None:
        # HTTP has no empty range: if no bytes are wanted, one is requested and not read.
        last = "" if length is None else str(offset + max(length, 1) - 1)
        headers["Range"] = f"bytes={offset}-{last}"
        if same_as is not None and same_as.validator is not None:
            headers["If-Range"] = same_as.validator
    response = source.get(headers)
    try:
        if same_as is not None and response.status in _GONE:
            raise _changed(source)
        result = _check_response(response, source, offset, length, bool(headers))
        if same_as is not None:
            whole = bool(headers) and response.status == 200
            _check_same(result, same_as, source, whole)
        if length == 0 and (result.size is not None or not offset):
            result.response = None
        if result.response is not None and response.status == 200 and offset:
            raise StoreRandomGetNotSupported(offset=offset, chunk_size=_shown(length))
        if result.response is None:
            response.close()
        return result
    except InvalidRange as error:
        response.close()
        if same_as is None or (same_as.size is not None and offset > same_as.size):
            raise
        raise _changed(source) from error  # the object is shorter now
    except BaseException:
        response.close()
        raise


def _check_response(
    response: BaseHTTPResponse,
    source: RemoteObject,
    offset: int,
    length: int | None,
    ranged: bool,
) -> RangeResponse:
    result = RangeResponse(
        response,
        None,
        validator(response),
        response.headers.get("ETag"),
        last_modified(response),
    )
    if response.status == 416 and ranged:
        sent = content_range(response.headers.get("Content-Range", ""))
        result.size = None if sent is None else sent[2]
        # No range of an empty object can be satisfied; not every server then sends the size.
        if offset == (result.size or 0):
            result.size, result.response = offset, None
            return result
        if result.size is None or offset > result.size:
            raise InvalidRange(size=_shown(result.size), offset=offset, length=_shown(length))
    if response.status not in ((200, 206) if ranged else (200,)):
        raise source.error_for_response(response)
    check_encoding(response, source.display_name)
    body = content_length(response)
    if response.status == 200:
        result.size = body
        if body is not None and offset > body:
            raise InvalidRange(size=body, offset=offset, length=_shown(length))
        if offset and offset == body:
            result.response = None
        result.limit = _least(length, body)
        result.needed = None if body is None else result.limit
        return result
    sent = content_range(response.headers.get("Content-Range", ""))
    if sent is None:
        raise BackendException(
            f"Expected a Content-Range with the bytes of {source.display_name}, got "
            f"{response.headers.get('Content-Range', '')[:80]!r}"
        )
    start, end, result.size = sent
    span = end - start + 1
    last = None if length is None else offset + max(length, 1) - 1
    good = start == offset and start <= end and (result.size is None or end < result.size)
    if not good or (last is not None and end > last) or (body is not None and body != span):
        raise BackendException(
            f"Expected bytes from {offset} of {source.display_name}, got Content-Range "
            f"{response.headers['Content-Range'][:80]!r} with Content-Length {_shown(body)}."
        )
    left = None if result.size is None else result.size - offset
    result.limit = _least(length, span)
    # A server may send less than was requested; the stream then raises, and the caller resumes.
    result.needed = _least(length, left) if (length, left) != (None, None) else span
    return result


def _check_same(
    result: RangeResponse, before: RangeResponse, source: RemoteObject, whole: bool
) -> None:
    """Check that a response is of the first one's object, as a server may ignore If-Range."""
    marks = [(result.tag, before.tag), (result.modified, before.modified)]
    pairs = [(result.size, before.size), *marks]
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise _changed(source)
    if result.response is None:
        return  # there are no bytes to compare
    # If the whole object comes in place of a range, If-Range did not match: the object changed.  If
    # the validator is nevertheless the same, the server does not support ranges.
    if whole and (result.validator is None or result.validator != before.validator):
        raise _changed(source)
    if any(mark is not None for _, mark in marks) and not any(
        mark is not None and mark == earlier for mark, earlier in marks
    ):
        raise ObjectChanged(
            f"Expected the ETag or the Last-Modified time of {source.display_name} with every "
            "range of it, got a range without. Whether the object is still the same cannot be told."
        )


def _changed(source: RemoteObject) -> ObjectChanged:
    return ObjectChanged(
        f"The object at {source.display_name} changed while it was being read. Read it again from "
        "the start."
    )


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _shown(value: int | None) -> object:
    return "(unknown)" if value is None else value


class RangedReader(Reader):
    """An open object on a web server; a new stream ends the one before."""

    # Class attributes, as __del__ closes a reader even if its __init__ raised.
    _closed = False
    _response: BaseHTTPResponse | None = None

    def __init__(self, source: RemoteObject, offset: int, length: int | None) -> None:
        self._process = os.getpid()
        #: Whether the last piece came so fast that the next one can be read in a single call.
        self._fast = False
        self._source = source
        self._opened = open_range(source, offset, length)
        self._response = self._opened.response
        self.first = self._read(self._opened)
        self.size = self._opened.size
        self.validator = self._opened.validator

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        self._check_open()
        if length == 0:
            return
        if self._response is not None:
            abort_response(self._response)
        opened = open_range(self._source, offset, length, self._opened)
        self._response = opened.response
        yield from self._read(opened)

    def _read(self, opened: RangeResponse) -> Iterator[bytes]:
        """Yield the bytes of a response.

        :raises RemoteServiceUnavailable: the connection broke; the bytes received before that have
            been yielded
        """
        response, limit = opened.response, opened.limit
        if response is None:
            return
        self._check_open()
        got = 0
        while limit is None or got < limit:
            most = self.piece_size
            piece, error = self._piece(response, most if limit is None else min(most, limit - got))
            got += len(piece)
            ended, hand = not piece, [piece]
            del piece  # while suspended, this generator must not keep the memory of a yielded piece
            if not ended:
                yield hand.pop()
            self._check_open()
            if error is not None:
                raise truncated(error, self._source.server, got) from error
            if ended:
                break
        if opened.needed is not None and got < opened.needed:
            raise truncated(None, self._source.server, got)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendException("The reader was closed while it was being read.")

    def _piece(self, response: BaseHTTPResponse, most: int) -> tuple[bytes, Exception | None]:
        """Return up to ``most`` bytes, and the error that ended reading, or ``None``."""
        parts: list[bytes] = []
        size = 0
        began = time.monotonic()
        try:
            if self._fast:
                # In a single call: read1 over TLS needs one call for every 16 KiB.
                parts.append(response.read(most, decode_content=False))
            while not self._fast and size < most and time.monotonic() - began < _GATHERING:
                part = response.read1(min(_READ, most - size), decode_content=False)
                if not part:
                    break
                parts.append(part)
                size += len(part)
            # read() loses the bytes before a cut in a chunked body.
            plain = "Transfer-Encoding" not in response.headers
            self._fast = (
                plain and most == self.piece_size and time.monotonic() - began < _GATHERING / 2
            )
        except (HTTPError, OSError, http.client.HTTPException) as error:
            return b"".join(parts), error
        except (ValueError, AttributeError):
            # http.client raises these if another thread has closed the response.
            if not self._closed:
                raise
        return parts[0] if len(parts) == 1 else b"".join(parts), None

    def close(self) -> None:
        """Close the open response, if any, and wake a thread that waits for its bytes."""
        self._closed = True
        self.first = None
        response, self._response = self._response, None
        if response is not None:
            abort_response(response)

    def __del__(self) -> None:
        # A forked child must not close the parent's connection.
        if os.getpid() == getattr(self, "_process", None):
            self.close()
