"""Reads ranges of an object over HTTP, and makes sure that all are of the very same object."""

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

#: Bytes asked from the socket at once.
_READ = 256 * 1024
#: Seconds for which a piece is gathered; then it goes out as it is, so that progress shows.
_GATHERING = 0.5

#: Statuses that a further request for an object gets when it is no longer there, or is another.
_GONE = frozenset({404, 410, 412})


class RemoteObject(Protocol):
    """An object on a web server."""

    #: Its name in error messages, without credentials.
    display_name: str
    server: Server

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET with these headers besides its own; return a response of any status."""

    def error_for_response(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error that a response means which does not have the object."""


@dataclasses.dataclass(slots=True)
class RangeResponse:
    """The response to a request for a range, before its body is read."""

    #: ``None`` if there is nothing to read: it has been closed.
    response: BaseHTTPResponse | None
    #: Bytes of the whole object, where known.
    size: int | None
    validator: str | None = None
    tag: str | None = None
    #: Last-Modified, in seconds since the epoch.
    modified: float | None = None
    #: Bytes after which to stop reading; ``None``: at the end of the body.
    limit: int | None = None
    #: Bytes without which the body was cut short; ``None`` if any number may be right.
    needed: int | None = None


def open_range(
    source: RemoteObject,
    offset: int,
    length: int | None,
    same_as: RangeResponse | None = None,
) -> RangeResponse:
    """Request bytes of an object, and check the head of the response.

    :param same_as: an earlier response; this one must come from the same unchanged object
    :raises InvalidRange: ``offset`` is behind the object's end
    :raises ObjectChanged: it is not the object of ``same_as``
    :raises StoreRandomGetNotSupported: the server sends no ranges
    """
    headers = {}
    if offset or length is not None:
        # HTTP has no empty range: for no bytes, the first one is requested and not read.
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
        raise _changed(source) from error  # it is shorter now
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
        # An empty object has no range at all; not every server sends the size then.
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
    # A server may send less than was requested; the stream then ends as cut, to be resumed.
    result.needed = _least(length, left) if (length, left) != (None, None) else span
    return result


def _check_same(
    result: RangeResponse, before: RangeResponse, source: RemoteObject, whole: bool
) -> None:
    """Compare a response with the first one: a server may ignore If-Range."""
    marks = [(result.tag, before.tag), (result.modified, before.modified)]
    pairs = [(result.size, before.size), *marks]
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise _changed(source)
    if result.response is None:
        return  # of no bytes
    # The whole object in place of a range says that If-Range no longer holds, unless the same
    # validator says that it does: then the server has no ranges.
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
    """An open object on a web server; each stream ends the one before."""

    # In the class, as a reader whose __init__ raised is closed too, when it is collected.
    _closed = False
    _response: BaseHTTPResponse | None = None

    def __init__(self, source: RemoteObject, offset: int, length: int | None) -> None:
        self._process = os.getpid()
        #: Whether the last piece came so fast that the next can be waited for whole.
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

        :raises RemoteServiceUnavailable: the connection was cut; what had come was yielded before
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
            del piece  # a suspended generator must not keep what it has yielded
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
        """Return a piece of up to ``most`` bytes; an error comes beside what arrived before it."""
        parts: list[bytes] = []
        size = 0
        began = time.monotonic()
        try:
            if self._fast:
                # In one go: over TLS the other way is one call for each 16 KiB.
                parts.append(response.read(most, decode_content=False))
            while not self._fast and size < most and time.monotonic() - began < _GATHERING:
                part = response.read1(min(_READ, most - size), decode_content=False)
                if not part:
                    break
                parts.append(part)
                size += len(part)
            plain = "Transfer-Encoding" not in response.headers  # or a cut would lose a piece
            self._fast = (
                plain and most == self.piece_size and time.monotonic() - began < _GATHERING / 2
            )
        except (HTTPError, OSError, http.client.HTTPException) as error:
            return b"".join(parts), error
        except (ValueError, AttributeError):
            # What http.client raises when another thread has closed the response.
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
        # In a child, closing would end the connection for the parent too.
        if os.getpid() == getattr(self, "_process", None):
            self.close()
