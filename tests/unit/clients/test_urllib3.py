"""Answers below urllib3: their heads, the lengths that they declare, and the chunks of bodies."""

import contextlib
import itertools
import ssl
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from store_lib.clients import _responses
from store_lib.clients._urllib3 import DirectManager, close_manager
from tests.scripted_server import Reply, ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda _: Reply(body=b"good")) as server:
        yield server


@pytest.fixture
def manager() -> Iterator[DirectManager]:
    manager = DirectManager(context=ssl.create_default_context)
    yield manager
    close_manager(manager)


def ask(manager: DirectManager, server: ScriptedServer, method: str = "GET") -> bytes:
    return manager.request(method, server.url, retries=False, timeout=5).data


def raw(head: str, body: bytes = b"") -> Reply:
    return Reply(raw=f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body, then="keep")


@pytest.mark.parametrize("before", ["", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"])
def test_a_head_has_one_time_limit(
    manager: DirectManager,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
) -> None:
    """A head that comes bit by bit, each in time, is given up when all of it takes too long."""
    clock = itertools.count(step=2.0)
    monkeypatch.setattr(_responses, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    server.reply(
        Reply(raw=f"{before}HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 1\r\n\r\nx".encode())
    )
    with pytest.raises(ReadTimeoutError):
        ask(manager, server)


def test_blanks_are_no_part_of_a_value(manager: DirectManager, server: ScriptedServer) -> None:
    """Whatever blanks stand around a value are taken away, and repeated fields stay."""
    server.reply(raw('ETag: \t"a" \t \r\nA: one \r\nA: two\r\nContent-Length: 4 ', b"body"))
    response = manager.request("GET", server.url, retries=False, timeout=5)
    assert (response.headers["ETag"], response.data) == ('"a"', b"body")
    assert response.headers.getlist("A") == ["one", "two"]


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        ("Transfer-Encoding: chunked \r\nContent-Length: 3", False),
        ("Transfer-Encoding: Chunked\r\nContent-Length: 4", False),
        ("Transfer-Encoding: chunked ", False),
        ("Content-Length: 4, 4", False),
        ("Content-Length: 4\r\nContent-Length: 4", True),
    ],
)
def test_a_length_that_is_told_twice(
    manager: DirectManager, server: ScriptedServer, head: str, kept: bool
) -> None:
    """Chunks count more than a length, and equal lengths are one."""
    server.reply(raw(head, b"4\r\nbody\r\n0\r\n\r\n" if "chunk" in head.lower() else b"body"))
    assert ask(manager, server) == b"body"
    assert ask(manager, server) == b"good"
    assert server.connections == (1 if kept else 2)


@pytest.mark.parametrize(
    "length", ["4\r\nContent-Length: 5", "4, 5", "+4", "-4", "4_0", "x", "9" * 20]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_connection_of_an_unclear_length_is_not_used_again(
    manager: DirectManager, server: ScriptedServer, length: str, method: str
) -> None:
    """Where the length is contradicted or none, the body ends with its connection."""
    reply = raw(f"Content-Length: {length}", b"" if method == "HEAD" else b"body")
    reply.then = "keep" if method == "HEAD" else "fin"
    server.reply(reply)
    with contextlib.suppress(HTTPError):  # urllib3 refuses some by itself
        assert ask(manager, server, method) == (b"" if method == "HEAD" else b"body")
    assert ask(manager, server) == b"good"
    assert server.connections == 2


@pytest.mark.parametrize("size", ["-1", "+4", "0x4", "4_0", "", "1" * 17, "4" + " " * 70_000])
def test_a_chunk_of_no_size_is_an_error(
    manager: DirectManager, server: ScriptedServer, size: str
) -> None:
    """What Python takes for a number is not always the size of a chunk."""
    server.reply(raw("Transfer-Encoding: chunked", f"{size}\r\nbody\r\n0\r\n\r\n".encode()))
    with pytest.raises(ProtocolError):
        ask(manager, server)
    assert ask(manager, server) == b"good"


def test_an_extension_of_a_chunk_is_left_out(
    manager: DirectManager, server: ScriptedServer
) -> None:
    """A size may be followed by blanks and by an extension."""
    body = b"4;a=b\r\nmore\r\n2 \r\nof\r\n000\r\nTrailer: x\r\n\r\n"
    server.reply(raw("Transfer-Encoding: chunked", body))
    assert ask(manager, server) == b"moreof"
    assert ask(manager, server) == b"good"
    assert server.connections == 1


@pytest.mark.parametrize("fields", [101, 1], ids=["many", "long"])
def test_an_interim_answer_is_bounded(
    manager: DirectManager, server: ScriptedServer, fields: int
) -> None:
    """One of too many fields, or of a line without an end, is given up."""
    line = b"A: " + b"b" * (70_000 if fields == 1 else 1) + b"\r\n"
    server.reply(Reply(raw=b"HTTP/1.1 103 Early Hints\r\n" + line * fields + b"\r\n"))
    with pytest.raises(ProtocolError, match="interim"):
        ask(manager, server)


@pytest.mark.parametrize("head", [f"Content-Length: {10**18}", "Transfer-Encoding: chunked"])
def test_memory_is_taken_for_what_came(
    manager: DirectManager, server: ScriptedServer, head: str
) -> None:
    """A server that announces more than any memory holds is one that ended too early."""
    reply = raw(head, b"f" * 15 + b"\r\nbody" if "chunked" in head else b"body")
    reply.then = "fin"
    server.reply(reply)
    with pytest.raises(ProtocolError):
        ask(manager, server)


def test_an_answer_that_is_read_whole_has_a_longest(
    manager: DirectManager, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is longer than any listing is given up, and not held in memory first."""
    monkeypatch.setattr(_responses, "_WHOLE", 3)
    server.reply(raw("Content-Length: 4", b"body"))
    with pytest.raises(ProtocolError, match="more than 3 bytes"):
        ask(manager, server)
