"""Bodies on our connections: chunks that are sent as they lie in memory."""

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from store_lib.clients._urllib3 import Chunks, DirectManager, close_manager
from tests.scripted_server import Reply, ScriptedServer

PIECES = [bytes(range(256)) * 4096, b"", b"abc", b"x" * 70_000]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[ScriptedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedServer(lambda _: Reply(), tls=context) as server:
        yield server


@pytest.fixture
def manager(authority: trustme.CA) -> Iterator[DirectManager]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    manager = DirectManager(context=lambda: context, send_timeout=10)
    yield manager
    close_manager(manager)


def send(manager: DirectManager, server: ScriptedServer, pieces: Iterator[memoryview]) -> int:
    body: Any = Chunks(pieces)
    headers = {"Transfer-Encoding": "chunked"}
    response = manager.request("PUT", f"{server.url}/it", body=body, headers=headers, retries=False)
    return response.status


@pytest.mark.parametrize("pieces", [PIECES, []], ids=["some", "none"])
def test_chunks_arrive_as_they_were(
    manager: DirectManager, server: ScriptedServer, pieces: list[bytes]
) -> None:
    """All bytes come, an empty piece does not end them, and the connection is good for more."""
    for _ in range(2):
        assert send(manager, server, (memoryview(each) for each in pieces)) == 200
    assert [each.body for each in server.requests] == [b"".join(pieces)] * 2
    assert server.connections == 1


def test_chunks_that_raise_do_not_end_the_body(
    manager: DirectManager, server: ScriptedServer
) -> None:
    """An error of the source comes out as it is, and the server does not see a whole body."""

    def pieces() -> Iterator[memoryview]:
        yield memoryview(PIECES[0])
        raise KeyError("the source broke")

    with pytest.raises(KeyError, match="the source broke"):
        send(manager, server, pieces())
    assert server.connections == 1
    assert server.requests == []  # only whole ones are there
