"""Tests of the source that is made of a WSGI request, also under two servers of pure Python."""

import contextlib
import http.client
import io
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import waitress

from store_lib import Stores
from store_lib.exceptions import Invalid, LengthRequired, SizeMismatch
from store_lib.wsgi import request_body


class Endless(io.RawIOBase):
    """An input that waits for ever where nothing may be read: here that is an error."""

    def __init__(self, content: bytes) -> None:
        self.content = io.BytesIO(content)

    def read(self, amount: int = -1) -> bytes:
        piece = self.content.read(amount)
        assert amount >= 0, "read to the end of an input that has none"
        assert not amount or piece, "read beyond the declared length"
        return piece


def environ(content: io.IOBase | bytes = b"", **values: Any) -> dict[str, Any]:
    """Return a request's environment."""
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    return {"wsgi.input": source, **values}


def test_declared_length_is_never_passed() -> None:
    """Exactly the declared bytes are read of an input that does not end by itself."""
    body = request_body(environ(Endless(b"0123456789next request"), CONTENT_LENGTH="10"))
    assert body.size == 10
    assert [body.read(4), body.read(4), body.read(4), body.read(4)] == [
        b"0123",
        b"4567",
        b"89",
        b"",
    ]


def test_reads_all() -> None:
    """Without an amount everything is read."""
    body = request_body(environ(Endless(b"0123456789next"), CONTENT_LENGTH="10"))
    assert body.read() == b"0123456789"


@pytest.mark.parametrize("terminated", [False, True])
def test_short_input_is_an_error(terminated: bool) -> None:
    """An input that ends before its declared length is no end, whoever asks for the size."""
    values = {"CONTENT_LENGTH": "10", "wsgi.input_terminated": terminated}
    body = request_body(environ(b"01234", **values))
    assert body.read(5) == b"01234"
    with pytest.raises(SizeMismatch, match="Expected 10 bytes, got 5"):
        body.read(5)


def test_terminated_input() -> None:
    """An input that the server ends is read to its end without a length."""
    body = request_body(
        environ(b"abc", **{"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"})
    )
    assert body.size is None
    assert body.read() == b"abc"


@pytest.mark.parametrize("coding", [None, "chunked"])
def test_no_length_is_refused(coding: str | None) -> None:
    """Where neither the length nor the end is known the request is refused, and not read."""
    values = {"CONTENT_LENGTH": ""} | ({"HTTP_TRANSFER_ENCODING": coding} if coding else {})
    with pytest.raises(LengthRequired, match="Send the length"):
        request_body(environ(Endless(b""), **values))


@pytest.mark.parametrize("length", ["-1", "+1", "1.5", "1_0", "٣", "0x10", "9" * 5000])
def test_malformed_length(length: str) -> None:
    """A length that is no plain number is refused, and not quoted whole."""
    with pytest.raises(Invalid, match="Expected Content-Length") as caught:
        request_body(environ(b"", CONTENT_LENGTH=length))
    assert len(str(caught.value)) < 200


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Stand in for uWSGI's module; gives these chunks."""
    chunks: list[bytes] = []
    module = types.ModuleType("uwsgi")
    module.chunked_read = lambda: chunks.pop(0) if chunks else b""  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    return chunks


def test_chunks_of_uwsgi(uwsgi: list[bytes]) -> None:
    """Under uWSGI chunks are read by its own function, and cut to what is asked for."""
    uwsgi += [b"01234567", b"89"]
    values = {"HTTP_TRANSFER_ENCODING": "Chunked", "uwsgi.version": b"2.0"}
    body = request_body(environ(Endless(b""), **values))
    assert body.size is None
    assert [body.read(5), body.read(5), body.read(5), body.read(5)] == [
        b"01234",
        b"567",
        b"89",
        b"",
    ]


@pytest.mark.parametrize(
    "server", [{"uwsgi.version": b"2.0"}, {"wsgi.input_terminated": True}, {}], ids=str
)
def test_both_length_and_chunks(uwsgi: list[bytes], server: dict[str, Any]) -> None:
    """Which of the two is true differs by server, and the wrong one would store other bytes."""
    values = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "3", **server}
    with pytest.raises(Invalid, match="got both"):
        request_body(environ(b"abc", **values))


@pytest.mark.parametrize("terminated", [False, True])
def test_chunks_in_http_1_0(terminated: bool) -> None:
    """Some servers do not read them there, and give an empty body that ends: it is refused."""
    values = {
        "HTTP_TRANSFER_ENCODING": "Chunked",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "wsgi.input_terminated": terminated,
    }
    with pytest.raises(LengthRequired, match="chunks in HTTP"):
        request_body(environ(b"", **values))


def test_drain() -> None:
    """What is left is read and dropped, up to a limit, and a client that is gone is no error."""
    source = io.BytesIO(b"x" * 100)
    body = request_body(environ(source, CONTENT_LENGTH="100"))
    body.read(10)
    body.drain()
    assert source.tell() == 100
    source = io.BytesIO(b"x" * 3_000_000)
    request_body(environ(source, CONTENT_LENGTH="3000000")).drain(1_000_000)
    assert source.tell() < 2_000_000
    request_body(environ(b"cut", CONTENT_LENGTH="5")).drain()


# Under servers.

Served = Callable[[Any], int]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture(params=["wsgiref", "waitress"])
def serve(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Serve an application in a thread and return the port."""
    stops: list[Callable[[], object]] = []

    def wsgiref(application: Any) -> int:
        server = make_server("127.0.0.1", 0, application, handler_class=_Quiet)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        stops.extend((server.shutdown, thread.join, server.server_close))
        return int(server.server_port)

    def with_waitress(application: Any) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        made = waitress.create_server(
            application, sockets=[listening], threads=2, clear_untrusted_proxy_headers=True
        )
        thread = threading.Thread(target=made.run)
        thread.start()
        stops.extend((made.trigger.pull_trigger, lambda: made.asyncore.close_all(made._map)))
        stops.extend((made.task_dispatcher.shutdown, thread.join))
        return int(listening.getsockname()[1])

    yield wsgiref if request.param == "wsgiref" else with_waitress
    for stop in stops:
        stop()


def test_under_servers(serve: Served, tmp_path: Path) -> None:
    """An upload by length is stored whole; one in chunks is stored whole or refused with 411."""
    stores = Stores.from_mapping(
        {
            "DEFAULT": {"enabled_backends": "fast:file"},
            "fast": {"filesystem_store_datadir": str(tmp_path)},
        }
    )

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            body = request_body(environ)
        except LengthRequired:
            start_response("411 Length Required", [("Content-Length", "0")])
            return [b""]
        stores.add(environ["PATH_INFO"].strip("/"), body, body.size)
        start_response("201 Created", [("Content-Length", "0")])
        return [b""]

    port = serve(application)
    content = bytes(range(256)) * 5000
    statuses = []
    for name, body in (("length", content), ("chunks", iter([content[:70_000], content[70_000:]]))):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            with contextlib.suppress(BrokenPipeError):  # it was refused before its end
                connection.request("PUT", f"/{name}", body)
            statuses.append(connection.getresponse().status)
    stores.close()
    assert statuses[0] == 201
    assert statuses[1] in (201, 411)
    stored = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    assert stored.pop("length") == content
    assert stored == ({"chunks": content} if statuses[1] == 201 else {})
