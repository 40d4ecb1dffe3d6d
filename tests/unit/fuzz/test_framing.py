"""The bytes of an answer: interim answers, head, body in chunks or not, and trailers."""

import contextlib
import http.client
import socket
from typing import Any

import pytest
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from store_lib.clients._responses import Response
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.mutation import Mutator

_BODY = b"0123456789" * 5
_CORPUS = [
    b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\nETag: "a"\r\n\r\n' + _BODY,
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-49/90\r\nContent-Length: 50\r\n\r\n"
    + _BODY,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n"
    b"a;x=y\r\n" + _BODY[:10] + b"\r\n28\r\n" + _BODY[10:] + b"\r\n0\r\nX-A: b\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\n" + _BODY,
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 50\r\n\r\n" + _BODY,
    b"HTTP/1.1 204 No Content\r\nDate: Fri, 20 Nov 2026 16:30:27 GMT\r\n\r\n",
]
_PIECES = [
    *("\r\n", "\n", "\r\n\r\n", " ", ":", ": ", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 \r\n\r\n"),
    *("Content-Length: 50\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "0\r\n"),
    *("ffffffffffffffff\r\n", "-1\r\n", "0x5\r\n", "5 ;a\r\n", "1_0\r\n", "gzip, chunked", "\r"),
    *(" folded: x\r\n", "HTTP/2 200\r\n", "HTTP/1.1 101 Switching\r\n\r\n", "+5\r\n", "\n\n"),
]


def _answer(given: tuple[bytes, str, int]) -> bool:
    """Read an answer to its end, and take it for whole only where it was."""
    raw, method, amount = given
    ours, theirs = socket.socketpair()
    try:
        theirs.sendall(raw)
        theirs.shutdown(socket.SHUT_WR)
        ours.settimeout(5)
        response = Response(ours, method=method)
        with contextlib.closing(response):
            response.begin()
            length, chunked = response.length, response.chunked
            wrapped = HTTPResponse(
                response,
                headers=dict(response.headers.items()),
                status=response.status,
                preload_content=False,
                decode_content=False,
                request_method=method,
            )
            data = wrapped.read(decode_content=False) if amount < 0 else _pieces(wrapped, amount)
    finally:
        ours.close()
        theirs.close()
    if method == "HEAD":
        assert data == b""
    elif length is not None and not chunked and wrapped.length_remaining is not None:
        assert len(data) == length
    assert len(data) <= len(raw)
    return True


def _pieces(response: Any, amount: int) -> bytes:
    return b"".join(iter(lambda: response.read(amount, decode_content=False), b""))


def _make(mutator: Mutator) -> tuple[bytes, str, int]:
    raw = mutator.data(_CORPUS, _PIECES)
    return raw, mutator.one(["GET", "GET", "GET", "HEAD", "PUT"]), mutator.one([-1, 7, 1000])


def _cut(given: tuple[int, int, int]) -> bool:
    """Cut an answer whose length is known: what is left is never taken for all of it."""
    number, at, amount = given
    raw = _CORPUS[number]
    whole = at >= len(raw)
    # Some servers end without the empty line behind the trailers.
    near = b"chunked" in raw and at >= raw.index(b"\r\n0\r\n") + 5
    taken = _answer((raw[:at], "GET", amount))
    assert whole or near, "a cut answer was believed"
    return taken


def _a_cut(mutator: Mutator) -> tuple[int, int, int]:
    number = mutator.below(3)
    return number, mutator.below(len(_CORPUS[number]) + 1), mutator.one([-1, 7, 1000])


#: What the clients turn into errors of the library.
_ERRORS = (HTTPError, http.client.HTTPException, OSError)

pytestmark = pytest.mark.deep("fuzz", always=True)

PARSERS = [
    Parser("answers in bytes", _make, _answer, _ERRORS),
    Parser("answers that are cut", _a_cut, _cut, _ERRORS, 0.1),
]


def test_framing(parser: Parser, batches: range, record_property: Any) -> None:
    """An answer is read whole, or an error that the clients know says that it was not."""
    feed(parser, batches, record_property)
