"""Reading from a web server: ranges, sizes, statuses, cut bodies and resuming, on real sockets."""

import dataclasses
import gc
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib import Stores
from store_lib.driver import capabilities
from store_lib.drivers.http import HttpDriver, HttpLocation
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    Forbidden,
    InvalidRange,
    NotAuthenticated,
    NotFound,
    ObjectChanged,
    RemoteServiceUnavailable,
    StoreAddDisabled,
    StoreDeleteNotSupported,
    StoreError,
    StoreRandomGetNotSupported,
    TransferStalled,
)
from store_lib.options import StoreOptions
from tests.clock import SkippingClock
from tests.scripted_server import Reply, Request, ScriptedServer, script, serve
from tests.unit.reading import begun

DATA = hashlib.shake_128(b"an object").digest(3_000_000)
SMALL = DATA[:1000]
OLD = {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT", "Date": "Mon, 02 Nov 2026 10:00:01 GMT"}
FRESH = {**OLD, "Date": OLD["Last-Modified"]}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(scope="module")
def driver() -> Iterator[HttpDriver]:
    driver = make()
    yield driver
    driver.close()


def make(**options: Any) -> HttpDriver:
    driver = HttpDriver("web", StoreOptions.of(HttpDriver.options, **options))
    driver.configure()
    return driver


def place(server: ScriptedServer, path: str = "/object") -> HttpLocation:
    return HttpLocation.parse(server.url + path)


def get(
    driver: HttpDriver, location: HttpLocation, offset: int = 0, length: int | None = None
) -> bytes:
    reader = driver.read(location, offset, length, context=None)
    try:
        return b"".join(begun(reader, offset, length))
    finally:
        reader.close()


def until_cut(stream: Iterator[bytes]) -> tuple[bytes, StoreError]:
    """Read ``stream`` up to its error, and return what came and the error."""
    got: list[bytes] = []
    with pytest.raises(StoreError) as caught:
        got.extend(stream)
    return b"".join(got), caught.value


def test_it_is_read_only(driver: HttpDriver, server: ScriptedServer) -> None:
    """Ranges are all that it can beyond get and stat; adding and deleting are refused."""
    assert capabilities(driver) == {"ranges"}
    assert driver.url_prefix == "http"
    with pytest.raises(StoreAddDisabled):
        driver.create("id", 1, nonce="0" * 32, context=None)
    with pytest.raises(StoreDeleteNotSupported):
        driver.delete(place(server), context=None)
    assert driver.parse("https://host/x") == HttpLocation.parse("https://host/x")


def test_a_whole_object(driver: HttpDriver, server: ScriptedServer) -> None:
    """One request without a Range brings the whole object, in pieces, and nothing of ours."""
    server.handler = lambda request: serve(request, DATA)
    reader = driver.read(place(server, "/a%20b?c=d"), 0, None, context=None)
    assert (reader.size, reader.validator, reader.fileno()) == (len(DATA), '"v1"', None)
    pieces = list(begun(reader, 0, len(DATA)))
    reader.close()
    assert b"".join(pieces) == DATA
    assert max(map(len, pieces)) <= 1024 * 1024
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/a%20b?c=d")
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "user-agent": "store_lib",
    }


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (0, 1000), (0, 2000), (1, None), (999, None), (999, 5), (400, 200), (0, 0), (500, 0)],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_ranges(
    driver: HttpDriver, server: ScriptedServer, offset: int, length: int | None, chunked: bool
) -> None:
    """A part of an object is asked for by Range, and is exactly what comes."""

    def handler(request: Request) -> Reply:
        reply = serve(request, SMALL)
        reply.chunked = 300 if chunked else None
        return reply

    server.handler = handler
    reader = driver.read(place(server), offset, length, context=None)
    assert reader.size == 1000
    end = None if length is None else offset + length
    assert b"".join(begun(reader, offset, length)) == SMALL[offset:end]
    reader.close()
    assert [bool(request.headers.get("range")) for request in server.requests] == [True]


@pytest.mark.parametrize(("offset", "length"), [(1000, None), (1000, 7), (1000, 0)])
def test_the_end_is_an_empty_read(
    driver: HttpDriver, server: ScriptedServer, offset: int, length: int | None
) -> None:
    """An offset at the end of the object reads as nothing; the size is known from the 416."""
    server.handler = lambda request: serve(request, SMALL)
    reader = driver.read(place(server), offset, length, context=None)
    assert reader.size == 1000
    assert list(begun(reader, offset, 0)) == []
    reader.close()


@pytest.mark.parametrize("length", [None, 7, 0])
@pytest.mark.parametrize("ranges", [True, False])
def test_past_the_end(
    driver: HttpDriver, server: ScriptedServer, length: int | None, ranges: bool
) -> None:
    """An offset past the end is an InvalidRange with the size, whatever the server does."""
    server.handler = lambda request: serve(request, SMALL, ranges=ranges)
    with pytest.raises(InvalidRange, match="1000"):
        driver.read(place(server), 1001, length, context=None)


def test_pieces_are_as_small_as_memory_is_short(driver: HttpDriver, server: ScriptedServer) -> None:
    """No piece is larger than the engine has set, which is asked anew for each."""
    server.handler = lambda request: serve(request, DATA)
    reader = driver.read(place(server), 0, None, context=None)
    got = []
    for piece in begun(reader, 0, None):
        assert len(piece) <= reader.piece_size
        got.append(piece)
        reader.piece_size = 60_000 if len(got) % 2 else 70_000
    assert b"".join(got) == DATA
    reader.close()


def test_416_without_a_size(driver: HttpDriver, server: ScriptedServer) -> None:
    """A 416 that tells no size is the empty object's at 0, and an InvalidRange elsewhere."""
    server.handler = lambda request: Reply(416)
    with pytest.raises(InvalidRange):
        driver.read(place(server), 5, 5, context=None)
    reader = driver.read(place(server), 0, 5, context=None)
    assert reader.size == 0
    assert list(begun(reader, 0, 0)) == []
    reader.close()


def test_a_416_that_is_wrong(driver: HttpDriver, server: ScriptedServer) -> None:
    """A 416 for a range that is within the object is the server's fault, not the caller's."""
    server.handler = lambda request: Reply(416, headers={"Content-Range": "bytes */1000"})
    with pytest.raises(BackendException, match="416"):
        driver.read(place(server), 5, 5, context=None)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("length", [None, 0, 10])
def test_an_empty_object(
    driver: HttpDriver, server: ScriptedServer, length: int | None, ranges: bool
) -> None:
    """An object of no bytes is no error, whether the server answers 200 or 416."""
    server.handler = lambda request: serve(request, b"", ranges=ranges)
    reader = driver.read(place(server), 0, length, context=None)
    assert reader.size == 0
    assert list(begun(reader, 0, 0)) == []
    reader.close()


def test_a_server_without_ranges(driver: HttpDriver, server: ScriptedServer) -> None:
    """The start of an object is served from the whole; its middle is refused without reading."""
    server.handler = lambda request: serve(request, DATA, ranges=False)
    assert get(driver, place(server), 0, 10) == DATA[:10]
    assert get(driver, place(server), len(DATA), None) == b""
    assert get(driver, place(server), 10, 0) == b""
    with pytest.raises(StoreRandomGetNotSupported, match=r"10.*20"):
        driver.read(place(server), 10, 20, context=None)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": None},
        {"Content-Range": "bytes 9-19/1000"},
        {"Content-Range": "bytes 11-19/1000"},
        {"Content-Range": "bytes 10-29/1000", "Content-Length": None},
        {"Content-Range": "bytes 10-9/1000"},
        {"Content-Range": "bytes 10-19/19"},
        {"Content-Range": "bytes 10-18/1000"},
        {"Content-Range": "bytes */1000"},
        {"Content-Range": "items 10-19/1000"},
        {"Content-Length": "11"},
        {"Content-Length": "-10"},
        {"Content-Length": "10, 11"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "GZIP, br"},
        {"Transfer-Encoding": "gzip, chunked"},
    ],
)
def test_answers_that_cannot_be_right(
    driver: HttpDriver, server: ScriptedServer, headers: dict[str, str | None]
) -> None:
    """A 206 whose head contradicts the request or itself gives no byte."""
    sent = {"Content-Range": "bytes 10-19/1000", **headers}
    server.reply(Reply(206, SMALL[10:20], sent))
    with pytest.raises(BackendException) as caught:
        driver.read(place(server), 10, 10, context=None)
    assert caught.value.status is ErrorStatus.PERMANENT


def test_an_encoded_whole(driver: HttpDriver, server: ScriptedServer) -> None:
    """A body that the server encoded though asked not to is refused; identity is no encoding."""
    server.reply(Reply(body=SMALL, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(BackendException, match=r"Content-Encoding 'gzip'.*server"):
        driver.read(place(server), 0, None, context=None)
    server.reply(Reply(body=SMALL, headers={"Content-Encoding": "identity"}))
    assert get(driver, place(server)) == SMALL


def test_206_to_a_plain_get(driver: HttpDriver, server: ScriptedServer) -> None:
    """A part that nobody asked for is not taken for the whole."""
    server.reply(Reply(206, SMALL[:10], {"Content-Range": "bytes 0-9/1000"}))
    with pytest.raises(BackendException, match="206"):
        driver.read(place(server), 0, None, context=None)


@pytest.mark.parametrize(
    ("status", "kind", "temporary"),
    [
        (204, BackendException, False),
        (300, BackendException, False),
        (400, BackendException, False),
        (401, NotAuthenticated, False),
        (403, Forbidden, False),
        (404, NotFound, False),
        (405, BackendException, False),
        (407, NotAuthenticated, False),
        (408, RemoteServiceUnavailable, True),
        (410, NotFound, False),
        (416, BackendException, False),
        (425, RemoteServiceUnavailable, True),
        (429, RemoteServiceUnavailable, True),
        (500, RemoteServiceUnavailable, True),
        (501, BackendException, False),
        (502, RemoteServiceUnavailable, True),
        (503, RemoteServiceUnavailable, True),
        (504, RemoteServiceUnavailable, True),
    ],
)
def test_statuses(
    driver: HttpDriver, server: ScriptedServer, status: int, kind: type[StoreError], temporary: bool
) -> None:
    """Each status is the error that it means, raised by read and stat, and told if temporary."""
    server.handler = lambda request: Reply(status)
    for call in (
        lambda: driver.read(place(server), 0, None, context=None),
        lambda: driver.stat(place(server), context=None),
    ):
        with pytest.raises(StoreError, match=str(status)) as caught:
            call()
        assert type(caught.value) is kind
        assert (caught.value.status is ErrorStatus.TEMPORARY) is temporary


def test_when_to_come_again(driver: HttpDriver, server: ScriptedServer) -> None:
    """A busy server's Retry-After comes with the error."""
    server.reply(Reply(503, headers={"Retry-After": "7"}))
    with pytest.raises(RemoteServiceUnavailable) as caught:
        driver.read(place(server), 0, None, context=None)
    assert caught.value.retry_after == 7


def test_a_piece_of_an_error_body(driver: HttpDriver, server: ScriptedServer) -> None:
    """The message quotes the beginning of the body, printable and redacted, and no more."""
    body = b"Teapot\x1b[1m\r\nhttp://u:canary@h/?token=canary " + b"x" * 1_000_000
    server.reply(Reply(418, body, then="stall"))
    with pytest.raises(BackendException, match=r"418: 'Teapot \[1m http://\*\*\*@h/") as caught:
        driver.read(place(server), 0, None, context=None)
    assert len(str(caught.value)) < 400
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 1000, 100_000])
def test_a_chunked_object_has_no_size(
    driver: HttpDriver, server: ScriptedServer, chunk: int
) -> None:
    """Without a Content-Length the size is unknown, and the bytes come all the same."""
    data = DATA[: chunk * 20]
    server.handler = lambda request: Reply(body=data, chunked=chunk)
    reader = driver.read(place(server), 0, None, context=None)
    assert (reader.size, reader.validator) == (None, None)
    assert b"".join(begun(reader, 0, None)) == data
    reader.close()
    assert get(driver, place(server), 0, 7) == data[:7]
    assert get(driver, place(server), 0, 9_999_999) == data


def test_a_body_that_ends_with_the_connection(driver: HttpDriver, server: ScriptedServer) -> None:
    """The oldest form of HTTP, where only the connection's end tells the body's, is read too."""
    server.reply(Reply(raw=b"HTTP/1.0 200 OK\r\n\r\n" + SMALL, then="fin"))
    assert get(driver, place(server)) == SMALL


def test_a_total_that_is_not_told(driver: HttpDriver, server: ScriptedServer) -> None:
    """A 206 may leave the total open; then the span counts, and less than asked is a cut."""
    server.handler = lambda request: Reply(206, SMALL[5:], {"Content-Range": "bytes 5-999/*"})
    reader = driver.read(place(server), 5, None, context=None)
    assert reader.size is None
    assert b"".join(begun(reader, 5, None)) == SMALL[5:]
    assert get(driver, place(server), 5, 995) == SMALL[5:]
    got, error = until_cut(begun(driver.read(place(server), 5, 1000, context=None), 5, 1000))
    assert (got, error.status) == (SMALL[5:], ErrorStatus.TEMPORARY)


@pytest.mark.parametrize("then", ["fin", "rst"])
@pytest.mark.parametrize("chunked", [None, 50_000])
@pytest.mark.parametrize(("offset", "length"), [(0, None), (100_000, 2_500_000)])
def test_a_cut_body_is_resumed(
    driver: HttpDriver,
    server: ScriptedServer,
    then: Any,
    chunked: int | None,
    offset: int,
    length: int | None,
) -> None:
    """What came before the cut is delivered; the rest is asked for with If-Range and joins it."""

    def broken(request: Request) -> Reply:
        reply = serve(request, DATA)
        reply.cut, reply.then, reply.chunked = 1_500_000, then, chunked
        return reply

    server.handler = script([broken, lambda request: serve(request, DATA)])
    reader = driver.read(place(server), offset, length, context=None)
    got, error = until_cut(begun(reader, offset, length))
    assert isinstance(error, RemoteServiceUnavailable)
    assert error.status is ErrorStatus.TEMPORARY
    assert then == "rst" or len(got) == 1_500_000
    assert DATA[offset:].startswith(got)
    rest = None if length is None else length - len(got)
    end = None if length is None else offset + length
    assert got + b"".join(begun(reader, offset + len(got), rest)) == DATA[offset:end]
    reader.close()
    last = server.requests[-1].headers
    assert last.get("range", "bytes=0-").startswith(f"bytes={offset + len(got)}-")
    assert last.get("if-range", '"v1"') == '"v1"'


def test_a_cut_in_a_chunk_head(driver: HttpDriver, server: ScriptedServer) -> None:
    """A chunked body that lacks only its end is cut, not complete."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for tail in (b"", b"\r\n", b"\r\n5\r\nab", b"\r\nzz\r\n"):
        server.reply(Reply(raw=head + b"3\r\nabc" + tail, then="fin"))
        reader = driver.read(place(server), 0, None, context=None)
        got, error = until_cut(begun(reader, 0, None))
        assert got == (b"abcab" if b"ab" in tail else b"abc")
        assert error.status is ErrorStatus.TEMPORARY
        reader.close()


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nETag: x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nno header\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n continued: 1\r\nContent-Length: 3\r\n\r\nabc",
        b"SSH-2.0\r\n\r\n",
    ],
)
def test_a_cut_head_is_no_empty_object(
    driver: HttpDriver, server: ScriptedServer, head: bytes
) -> None:
    """An answer cut in its head, or with a malformed one, is an error and no empty object."""
    server.handler = lambda request: Reply(raw=head, then="fin")
    with pytest.raises(RemoteServiceUnavailable, match="No answer") as caught:
        driver.read(place(server), 0, None, context=None)
    assert caught.value.status is ErrorStatus.TEMPORARY
    with pytest.raises(RemoteServiceUnavailable):
        driver.stat(place(server), context=None)


def test_a_content_length_that_is_too_big(driver: HttpDriver, server: ScriptedServer) -> None:
    """A body shorter than its Content-Length never passes for the whole object."""
    server.reply(Reply(body=SMALL, headers={"Content-Length": "1001"}, then="fin"))
    reader = driver.read(place(server), 0, None, context=None)
    assert reader.size == 1001
    got, error = until_cut(begun(reader, 0, None))
    assert (got, error.status) == (SMALL, ErrorStatus.TEMPORARY)
    reader.close()


def test_a_content_length_that_is_too_small(driver: HttpDriver, server: ScriptedServer) -> None:
    """What follows the declared end is no part of the object, nor of the next answer."""
    server.reply(Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef"))
    server.reply(Reply(body=b"next"))
    assert get(driver, place(server)) == b"abc"
    try:
        assert get(driver, place(server)) == b"next"
    except RemoteServiceUnavailable:
        assert get(driver, place(server)) == b"next"


def test_a_stall_ends_in_a_timeout(server: ScriptedServer) -> None:
    """A server that says nothing, at the head or in the body, is given up; it is temporary."""
    driver = make(http_read_timeout=0.05)
    server.reply(Reply(raw=b"", then="stall"))
    with pytest.raises(RemoteServiceUnavailable, match="http_read_timeout") as caught:
        driver.read(place(server), 0, None, context=None)
    assert caught.value.status is ErrorStatus.TEMPORARY
    driver.close()
    driver = make(http_read_timeout=1)  # enough for the head on a busy machine
    server.reply(Reply(body=DATA, cut=70_000, then="stall"))
    reader = driver.read(place(server), 0, None, context=None)
    got, error = until_cut(begun(reader, 0, None))
    assert got == DATA[:70_000]
    assert "http_read_timeout" in str(error)
    assert error.status is ErrorStatus.TEMPORARY
    driver.close()


@pytest.mark.parametrize(
    "second",
    [
        lambda request: serve(request, DATA, tag='"v2"'),
        lambda request: Reply(body=DATA),
        lambda request: Reply(206, DATA[9:], {**_span(9, DATA), "ETag": '"v2"'}),
        lambda request: Reply(206, DATA[9:-1], {**_span(9, DATA[:-1]), "ETag": '"v1"'}),
        lambda request: Reply(206, DATA[9:], {**_span(9, DATA)}),
        lambda request: Reply(206, DATA[9:], {**_span(9, DATA), **OLD}),
        lambda request: Reply(416, headers={"Content-Range": "bytes */9"}),
        lambda request: Reply(416, headers={"Content-Range": "bytes */8"}),
        lambda request: Reply(416),
        lambda request: Reply(404),
        lambda request: Reply(410),
        lambda request: Reply(412),
    ],
    ids=[
        "new tag",
        "whole, no tag",
        "ignores If-Range",
        "other size",
        "no tag",
        "time instead of a tag",
        "now shorter",
        "much shorter",
        "shorter, size not told",
        "not there",
        "gone",
        "condition failed",
    ],
)
def test_a_changed_object_is_not_joined(
    driver: HttpDriver, server: ScriptedServer, second: Any
) -> None:
    """When the object is another one at the second request, no byte of it is delivered."""
    server.handler = script([lambda request: serve(request, DATA), second])
    reader = driver.read(place(server), 0, None, context=None)
    stream = begun(reader, 0, None)
    next(stream)
    with pytest.raises(ObjectChanged):
        next(begun(reader, 9, None))
    reader.close()


def _span(start: int, data: bytes) -> dict[str, str | None]:
    return {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}


def test_no_resume_where_there_are_no_ranges(driver: HttpDriver, server: ScriptedServer) -> None:
    """The same object sent whole in place of its rest is not mistaken for a changed one."""
    server.handler = lambda request: serve(request, DATA, ranges=False)
    reader = driver.read(place(server), 0, None, context=None)
    with pytest.raises(StoreRandomGetNotSupported):
        list(_after_the_first(reader, 9))
    reader.close()


def test_a_time_shows_that_an_object_is_the_same(
    driver: HttpDriver, server: ScriptedServer
) -> None:
    """A server that leaves the tag out of ranges may show by the time that nothing changed."""
    server.handler = script(
        [
            lambda request: serve(request, SMALL, headers={**OLD}),
            lambda request: Reply(206, SMALL[9:], {**_span(9, SMALL), **OLD}),
        ]
    )
    reader = driver.read(place(server), 0, None, context=None)
    assert b"".join(_after_the_first(reader, 9)) == SMALL[9:]
    reader.close()


def test_resuming_at_the_end(driver: HttpDriver, server: ScriptedServer) -> None:
    """When only the end of a chunked body was lost, the rest is nothing."""
    whole = {"Transfer-Encoding": "chunked", "Content-Length": None}
    server.handler = script(
        [
            lambda request: Reply(body=b"", headers={"ETag": '"v1"', **whole}, then="fin"),
            lambda request: serve(request, SMALL),
        ]
    )
    reader = driver.read(place(server), 0, None, context=None)
    until_cut(begun(reader, 0, None))
    assert list(begun(reader, 1000, None)) == []
    reader.close()


def _after_the_first(reader: Any, offset: int) -> Iterator[bytes]:
    next(begun(reader, 0, None))
    yield from begun(reader, offset, None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ETag": '"v1"'}, '"v1"'),
        ({"ETag": 'W/"v1"'}, None),
        ({"ETag": "v1"}, None),
        ({"ETag": '""'}, None),
        ({"ETag": '"v1"', "Accept-Ranges": "none"}, None),
        ({"ETag": '"v1"', **OLD}, '"v1"'),
        ({"ETag": 'W/"v1"', **OLD}, None),
        (OLD, OLD["Last-Modified"]),
        (FRESH, None),
        ({"Last-Modified": OLD["Last-Modified"]}, None),
        ({**OLD, "Last-Modified": "yesterday"}, None),
        ({**OLD, "Date": "Mon, 02 Nov 99999999 10:00:01 GMT"}, None),
        ({}, None),
    ],
)
def test_validators(
    driver: HttpDriver, server: ScriptedServer, headers: dict[str, str], expected: str | None
) -> None:
    """Only what identifies the very bytes allows a resume: a strong tag, or an old enough date."""
    server.reply(Reply(body=SMALL, headers={**headers}))
    reader = driver.read(place(server), 0, None, context=None)
    assert reader.validator == expected
    reader.close()


@pytest.mark.parametrize("changed", [False, True])
def test_resuming_by_date(driver: HttpDriver, server: ScriptedServer, changed: bool) -> None:
    """A Last-Modified serves as If-Range where there is no tag."""
    later = {**OLD, "Last-Modified": OLD["Date"], "Date": "Mon, 02 Nov 2026 11:00:00 GMT"}
    server.handler = script(
        [
            lambda request: serve(request, SMALL, tag=None, headers={**OLD}),
            lambda request: serve(
                request, SMALL, tag=None, headers={**(later if changed else OLD)}
            ),
        ]
    )
    reader = driver.read(place(server), 0, None, context=None)
    stream = _after_the_first(reader, 9)
    if changed:
        with pytest.raises(ObjectChanged):
            next(stream)
    else:
        assert b"".join(stream) == SMALL[9:]
    reader.close()
    assert server.requests[-1].headers["if-range"] == OLD["Last-Modified"]


def test_stat(driver: HttpDriver, server: ScriptedServer) -> None:
    """A HEAD tells size and time; no body moves, and the connection is used again."""
    server.handler = lambda request: serve(request, DATA, headers={**OLD})
    stat = driver.stat(place(server), context=None)
    assert (stat.size, stat.modified) == (len(DATA), 1793613600.0)
    driver.stat(place(server), context=None)
    assert [(each.method, each.connection) for each in server.requests] == [("HEAD", 1)] * 2


@pytest.mark.parametrize(
    "reply",
    [
        *map(Reply, (204, 206, 304, 400, 403, 404, 405, 406, 410, 500, 501, 502)),
        Reply(),
        Reply(headers={"Content-Length": "10", "Content-Encoding": "gzip"}),
        Reply(headers={"Content-Length": None}),
        Reply(headers={"Content-Length": "many"}),
        Reply(headers={"Content-Length": "1, 2"}),
    ],
    ids=[
        *("204", "206", "304", "400", "403", "404", "405", "406", "410", "500", "501", "502"),
        *("empty", "encoded", "no length", "bad length", "two lengths"),
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_stat_where_a_head_is_not_as_good_as_a_get(
    driver: HttpDriver, server: ScriptedServer, reply: Reply, ranges: bool
) -> None:
    """Where a HEAD is refused, or tells no size or 0, a GET of the first byte tells the size."""

    def handler(request: Request) -> Reply:
        if request.method == "HEAD":
            return reply
        return serve(request, SMALL, ranges=ranges, headers={**OLD})

    server.handler = handler
    stat = driver.stat(place(server), context=None)
    assert (stat.size, stat.modified) == (1000, 1793613600.0)
    assert server.requests[-1].headers["range"] == "bytes=0-0"


@pytest.mark.parametrize("status", [401, 407, 408, 425, 429, 503, 504])
def test_stat_where_a_get_would_do_no_better(
    driver: HttpDriver, server: ScriptedServer, status: int
) -> None:
    """A server that is busy or asks for a login ends the call at once."""
    server.handler = lambda request: Reply(status)
    with pytest.raises((NotAuthenticated, RemoteServiceUnavailable)):
        driver.stat(place(server), context=None)
    assert [each.method for each in server.requests] == ["HEAD"]


def test_stat_of_what_is_not_told(driver: HttpDriver, server: ScriptedServer) -> None:
    """A size that the server does not tell is None, not 0; an empty object's is 0."""
    server.handler = lambda request: Reply(chunked=5)
    assert driver.stat(place(server), context=None).size is None
    server.handler = lambda request: Reply()
    assert driver.stat(place(server), context=None).size == 0


@pytest.mark.parametrize("status", [500, 502])
def test_stat_where_a_get_fails_too(
    driver: HttpDriver, server: ScriptedServer, status: int
) -> None:
    """What fails at a GET as well is a temporary error."""
    server.handler = lambda request: Reply(status)
    with pytest.raises(RemoteServiceUnavailable) as caught:
        driver.stat(place(server), context=None)
    assert caught.value.status is ErrorStatus.TEMPORARY
    assert [each.method for each in server.requests] == ["HEAD", "GET"]


def test_stat_of_what_is_not_there(driver: HttpDriver, server: ScriptedServer) -> None:
    """What neither a HEAD nor a GET finds is NotFound."""
    server.handler = lambda request: Reply(404)
    with pytest.raises(NotFound):
        driver.stat(place(server), context=None)


def test_connections_are_used_again(driver: HttpDriver, server: ScriptedServer) -> None:
    """A body read whole gives its connection back; one left in the middle closes it."""
    server.handler = lambda request: serve(request, DATA)
    for offset, length in ((0, None), (5, None), (5, 100_000)):
        get(driver, place(server), offset, length)
    assert server.connections == 1
    server.handler = lambda request: Reply(body=DATA, chunked=65536)
    get(driver, place(server))
    assert get(driver, place(server), 0, 10) == DATA[:10]
    assert server.connections == 1
    get(driver, place(server))
    assert server.connections == 2


def test_a_reader_left_anywhere_leaks_nothing(driver: HttpDriver, server: ScriptedServer) -> None:
    """Closed or dropped, unread or half read, a reader leaves no descriptor open."""
    server.handler = lambda request: serve(request, DATA)
    get(driver, place(server))
    before = _descriptors()
    for way in range(12):
        reader = driver.read(place(server), 0, None, context=None)
        if way % 2:
            stream = begun(reader, 0, None)
            next(stream)
        if way % 3 == 0:
            reader.close()
            reader.close()
        elif way % 3 == 1 and way % 2:
            stream.close()  # type: ignore[attr-defined]
        del reader
        stream = iter(())
    gc.collect()
    assert get(driver, place(server), 0, 1) == DATA[:1]
    server.close()
    assert _descriptors() <= before


def _descriptors() -> int:
    return len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))


def test_a_closed_reader_does_not_end_cleanly(driver: HttpDriver, server: ScriptedServer) -> None:
    """Going on with a reader that was closed is an error, never a short end."""
    server.handler = lambda request: Reply(body=DATA, chunked=65536)
    reader = driver.read(place(server), 0, None, context=None)
    stream = begun(reader, 0, None)
    next(stream)
    reader.close()
    with pytest.raises(BackendException, match="closed"):
        next(stream)
    with pytest.raises(BackendException, match="closed"):
        next(begun(reader, 0, None))


def test_close_wakes_a_waiting_reader(driver: HttpDriver, server: ScriptedServer) -> None:
    """Closing from another thread ends a read that waits for a stalled server."""
    server.reply(Reply(body=DATA, cut=0, then="stall"))
    reader = driver.read(place(server), 0, None, context=None)
    errors: list[StoreError] = []
    waiting = threading.Thread(
        target=lambda: errors.append(until_cut(begun(reader, 0, None))[1]), daemon=True
    )
    waiting.start()
    while not _waits_for_bytes(waiting):
        time.sleep(0.001)
    closing = threading.Thread(target=reader.close, daemon=True)
    closing.start()
    for thread in (closing, waiting):
        thread.join(30)  # half of http_read_timeout, which would end it too
        assert not thread.is_alive()
    assert "closed" in str(errors[0])


def _waits_for_bytes(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name in ("readinto", "recv_into")


def test_many_threads(driver: HttpDriver, server: ScriptedServer) -> None:
    """Threads share a driver; each gets its own bytes."""
    server.handler = lambda request: serve(request, DATA)
    wrong: list[int] = []

    def reads(number: int) -> None:
        for offset in range(number, 20_000, 5_000):
            if get(driver, place(server), offset, 100) != DATA[offset : offset + 100]:
                wrong.append(offset)

    threads = [threading.Thread(target=reads, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert server.connections <= 12


def test_a_server_that_is_busy_for_a_second(server: ScriptedServer, clock: SkippingClock) -> None:
    """An object is read whole though each try for a second meets 503 or is cut half-way."""
    stores = Stores.from_mapping({"DEFAULT": {"enabled_backends": "web:http"}}, strict=True)
    began: list[float] = []

    def handler(request: Request) -> Reply:
        began.append(clock.now())
        if clock.now() - began[0] < 1:
            return Reply(503)
        reply = serve(request, DATA)
        if clock.now() - began[0] < 2:
            return dataclasses.replace(reply, cut=len(reply.body) // 2, then="fin")
        return reply

    server.handler = handler
    with stores, stores.get(server.url + "/object") as reader:
        assert reader.read() == DATA
    assert len(began) > 3
    assert max(clock.pauses) < 2


def test_a_stream_that_hangs_ends_with_the_stall_limit(server: ScriptedServer) -> None:
    """The stall limit ends a get whose only stream hangs, before the client's own time-out does."""
    server.handler = lambda request: dataclasses.replace(
        serve(request, DATA), cut=1000, then="stall"
    )
    values = {"transfer_stall_timeout": 1, "http_read_timeout": 30}
    stores = Stores.from_mapping(
        {"DEFAULT": {"enabled_backends": "web:http"}, "web": values}, strict=True
    )
    with stores, stores.get(server.url + "/object") as reader:
        began = time.monotonic()
        with pytest.raises(TransferStalled):
            reader.read()
    assert time.monotonic() - began < 20
