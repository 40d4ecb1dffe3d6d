"""An object being read over HTTP: the open answer, and further ranges of the very same object."""

import dataclasses
import http.client
import os
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from store_lib.clients.connections import abort_response
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
_PATIENCE = 0.5

#: Statuses that a further request for an object gets when it is no longer there, or is another.
_GONE = frozenset({404, 410, 412})


class RemoteObject(Protocol):
    """What a reader asks for bytes: an object on a web server."""

    #: What it is called in messages, without credentials.
    display_name: str
    server: Server

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET with these headers besides its own; the answer may have any status."""

    def error_for_response(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error that an answer means which does not give the object."""


@dataclasses.dataclass(slots=True)
class RangeResponse:
    """The answer to a request for a range, up to where its bytes begin."""

    #: ``None`` when there is nothing to read: it has been closed.
    response: BaseHTTPResponse | None
    #: Bytes of the whole object, where known.
    size: int | None
    validator: str | None = None
    tag: str | None = None
    #: Last-Modified, in seconds since the epoch.
    modified: float | None = None
    #: Bytes after which to stop reading; ``None``: at the end.
    limit: int | None = None
    #: Bytes without which the body was cut; ``None`` where only its end tells.
    needed: int | None = None


def open_range(
    source: RemoteObject,
    offset: int,
    length: int | None,
    same_as: RangeResponse | None = None,
) -> RangeResponse:
    """Ask for bytes of an object and judge the head of the answer.

    :param same_as: an earlier answer, of whose object this must be more
    """
    headers = {}
    if offset or length is not None:
        # Of no bytes the first one is asked for, and not read: there is no empty range in HTTP.
        last = "" if length is None else str(offset + max(length, 1) - 1)
        headers["Range"] = f"bytes={offset}-{last}"
        if same_as is not None and same_as.validator is not None:
            headers["If-Range"] = same_as.validator
    response = source.get(headers)
    try:
        if same_as is not None and response.status in _GONE:
            raise _changed(source)
        answer = _check_response(response, source, offset, length, bool(headers))
        if same_as is not None:
            whole = bool(headers) and response.status == 200
            _check_same(answer, same_as, source, whole)
        if length == 0 and (answer.size is not None or not offset):
            answer.response = None
        if answer.response is not None and response.status == 200 and offset:
            raise StoreRandomGetNotSupported(offset=offset, chunk_size=_told(length))
        if answer.response is None:
            response.close()
        return answer
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
    answer = RangeResponse(
        response,
        None,
        validator(response),
        response.headers.get("ETag"),
        last_modified(response),
    )
    if response.status == 416 and ranged:
        found = content_range(response.headers.get("Content-Range", ""))
        answer.size = found[2] if found is not None else None
        # An empty object has no range at all; not every server tells the size then.
        if offset == (answer.size or 0):
            answer.size, answer.response = offset, None
            return answer
        if answer.size is None or offset > answer.size:
            raise InvalidRange(size=_told(answer.size), offset=offset, length=_told(length))
    if response.status not in ((200, 206) if ranged else (200,)):
        raise source.error_for_response(response)
    check_encoding(response, source.display_name)
    body = content_length(response)
    if response.status == 200:
        answer.size = body
        if body is not None and offset > body:
            raise InvalidRange(size=body, offset=offset, length=_told(length))
        if offset and offset == body:
            answer.response = None
        answer.limit = _least(length, body)
        answer.needed = None if body is None else answer.limit
        return answer
    found = content_range(response.headers.get("Content-Range", ""))
    if found is None:
        raise BackendException(
            f"Expected a Content-Range with the bytes of {source.display_name}, got "
            f"{response.headers.get('Content-Range', '')[:80]!r}"
        )
    start, end, answer.size = found
    span = end - start + 1
    asked = None if length is None else offset + max(length, 1) - 1
    good = start == offset and start <= end and (answer.size is None or end < answer.size)
    if not good or (asked is not None and end > asked) or (body is not None and body != span):
        raise BackendException(
            f"Expected bytes from {offset} of {source.display_name}, got Content-Range "
            f"{response.headers['Content-Range'][:80]!r} with Content-Length {_told(body)}."
        )
    left = None if answer.size is None else answer.size - offset
    answer.limit = _least(length, span)
    # A server may send less than it was asked for; that ends as a cut, to be resumed.
    answer.needed = _least(length, left) if (length, left) != (None, None) else span
    return answer


def _check_same(
    answer: RangeResponse, before: RangeResponse, source: RemoteObject, whole: bool
) -> None:
    """Hold an answer against the first one: If-Range is a request that a server may ignore."""
    marks = [(answer.tag, before.tag), (answer.modified, before.modified)]
    pairs = [(answer.size, before.size), *marks]
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise _changed(source)
    if answer.response is None:
        return  # of no bytes
    # The whole object in place of a range says that If-Range no longer holds, unless the same
    # validator says that it does: then the server has no ranges.
    if whole and (answer.validator is None or answer.validator != before.validator):
        raise _changed(source)
    if any(mark is not None for _, mark in marks) and not any(
        mark is not None and mark == mark_before for mark, mark_before in marks
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


def _told(value: int | None) -> object:
    return "(not told)" if value is None else value


class RangedReader(Reader):
    """An object on a web server, opened."""

    # In the class, as an object that could not be made is closed too, when it is collected.
    _closed = False
    _current: BaseHTTPResponse | None = None
    _unread: RangeResponse | None = None

    def __init__(
        self,
        source: RemoteObject,
        offset: int,
        length: int | None,
    ) -> None:
        self._process = os.getpid()
        #: Whether the last piece came so fast that the next can be waited for whole.
        self._fast = False
        self._source = source
        self._asked = (offset, length)
        self._first = open_range(source, offset, length)
        self._unread = self._first
        self._current = self._first.response
        self.size = self._first.size
        self.validator = self._first.validator

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        """Yield the bytes from ``offset`` on; the first call reads the answer that is open.

        :raises RemoteServiceUnavailable: the connection was cut; what had come was yielded before
        :raises ObjectChanged: a further call met another object
        """
        self._check_open()
        answer, self._unread = self._unread, None
        if answer is None or not self._covers(offset, length):
            if length == 0:
                return
            if self._current is not None:
                abort_response(self._current)
            answer = open_range(self._source, offset, length, self._first)
            self._current = answer.response
        response = answer.response
        if response is None:
            return
        limit = _least(answer.limit, length)
        needed = None if answer.needed is None else _least(answer.needed, length)
        got = 0
        while limit is None or got < limit:
            most = self.piece_size
            piece, error = self._piece(response, most if limit is None else min(most, limit - got))
            got += len(piece)
            ended, hand = not piece, [piece]
            del piece  # a generator that waits is to hold nothing of what it gave
            if not ended:
                yield hand.pop()
            self._check_open()
            if error is not None:
                raise truncated(error, self._source.server, got) from error
            if ended:
                break
        if needed is not None and got < needed:
            raise truncated(None, self._source.server, got)

    def _covers(self, offset: int, length: int | None) -> bool:
        """Whether the answer that is open has these bytes, and they are the first it has."""
        first, asked = self._asked
        return offset == first and (asked is None or (length is not None and length <= asked))

    def _check_open(self) -> None:
        if self._closed:
            raise BackendException("The reader was closed while it was being read.")

    def _piece(self, response: BaseHTTPResponse, most: int) -> tuple[bytes, Exception | None]:
        """Gather a piece of up to ``most`` bytes; an error comes beside what arrived before it."""
        parts: list[bytes] = []
        size = 0
        began = time.monotonic()
        try:
            if self._fast:
                # In one go: over TLS the other way is one call for each 16 KiB.
                parts.append(response.read(most, decode_content=False))
            while not self._fast and size < most and time.monotonic() - began < _PATIENCE:
                part = response.read1(min(_READ, most - size), decode_content=False)
                if not part:
                    break
                parts.append(part)
                size += len(part)
            plain = "Transfer-Encoding" not in response.headers  # or a cut would lose a piece
            self._fast = (
                plain and most == self.piece_size and time.monotonic() - began < _PATIENCE / 2
            )
        except (HTTPError, OSError, http.client.HTTPException) as error:
            return b"".join(parts), error
        except (ValueError, AttributeError):
            # What http.client says when another thread has closed the response.
            if not self._closed:
                raise
        return parts[0] if len(parts) == 1 else b"".join(parts), None

    def close(self) -> None:
        """Close the open answer, if any; wakes a thread that waits for its bytes.

        Where it was read whole, its connection has gone back to the pool already.
        """
        self._closed = True
        self._unread = None
        if self._current is not None:
            abort_response(self._current)
            self._current = None

    def __del__(self) -> None:
        # In a child, closing would end the connection for the parent too.
        if os.getpid() == getattr(self, "_process", None):
            self.close()
