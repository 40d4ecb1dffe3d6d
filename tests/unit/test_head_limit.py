"""Servers that take their time: the head of an answer has a limit, in all the clients of HTTP."""

import socket
import ssl
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.clients import _urllib3
from store_lib.clients._urllib3 import DirectManager
from store_lib.exceptions import DeadlineExceeded, StoreError
from store_lib.head_limit import head_limit, limited_heads
from store_lib.transfer.timeouts import Limits
from tests.scripted_server import Reply, Request, ScriptedServer

#: Seconds that an answer may take to begin here, and for which a server may be silent.
HEAD, SILENCE = 0.2, 20.0

#: Opens a store of a driver on a server.
Open = Callable[..., Store]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def open_store(server: ScriptedServer) -> Iterator[Open]:
    """Makes stores on the server, whose answers must begin soon."""
    made: list[Stores] = []
    sections: dict[str, dict[str, Any]] = {
        "http": {"http_read_timeout": SILENCE},
        "s3": {
            "s3_store_host": server.url,
            "s3_store_bucket": "box",
            "s3_store_access_key": "a",
            "s3_store_secret_key": "s",
            "s3_store_read_timeout": SILENCE,
        },
        "swift": {
            "swift_store_auth_version": "1",
            "swift_store_auth_address": f"{server.url}/auth",
            "swift_store_user": "u:u",
            "swift_store_key": "k",
            "swift_store_read_timeout": SILENCE,
        },
    }

    def make(driver: str, **options: Any) -> Store:
        section = {
            "transfer_head_timeout": HEAD,
            "transfer_attempts": 1,
            **sections[driver],
            **options,
        }
        stores = Stores.from_mapping(
            {"DEFAULT": {"enabled_backends": f"it:{driver}"}, "it": section}, strict=True
        )
        made.append(stores)
        return stores["it"]

    yield make
    for stores in made:
        stores.close()


@pytest.mark.parametrize("driver", ["http", "s3", "swift"])
@pytest.mark.parametrize(
    "reply",
    [
        Reply(raw=b"", then="stall"),
        Reply(raw=b"HTTP/1.1 200 OK\r\n", then="stall"),
        Reply(raw=b"", then="drip"),
        Reply(raw=b"HTTP/1.1 200 OK\r\nA: ", then="drip"),
        Reply(raw=b"HTTP/1.1 103 Early Hints\r\n", then="drip", drop=b"A: b\r\n"),
    ],
    ids=["silent", "half a head", "status line", "field", "hints"],
)
def test_an_answer_begins_in_time(
    open_store: Open, server: ScriptedServer, driver: str, reply: Reply
) -> None:
    """Whether a server says nothing, or a little now and then, it is given up all the same."""
    server.handler = lambda _: reply
    store = open_store(driver)
    calls = {
        "http": lambda: store.get(f"{server.url}/it"),
        "s3": lambda: store.get(f"{server.url.replace('http', 's3+http', 1)}/box/it"),
        "swift": lambda: store.add("it", b""),  # and its login before
    }
    with pytest.raises(StoreError, match=r"transfer_head_timeout|interim response"):
        calls[driver]()


def test_redirects_share_the_limit(open_store: Open, server: ScriptedServer) -> None:
    """Five redirects, each of which comes in time, take too long together."""
    server.handler = lambda _: Reply(302, headers={"Location": "/it"}, interim=(103,))
    with pytest.raises(StoreError, match="transfer_head_timeout"):
        open_store("http", http_max_redirects=100).get(f"{server.url}/it")
    assert len(server.requests) < 10


@pytest.mark.parametrize(
    "body",
    [
        Reply(raw=b"", drop=b"0"),
        Reply(raw=b"", drop=b"A"),
        Reply(raw=b"4\r\nbody\r\n0\r\n", drop=b"A"),
        Reply(raw=b"4\r\nbody\r\n0\r\n", drop=b"A: b\r\n"),
    ],
    ids=["zeros", "no size", "trailer", "trailers"],
)
def test_what_stands_around_chunks_is_bounded(
    open_store: Open, server: ScriptedServer, body: Reply
) -> None:
    """The line before a chunk and the trailers are to come in the time of one silence."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.reply(Reply(raw=head + (body.raw or b""), then="drip", drop=body.drop))
    store = open_store("http", http_read_timeout=0.5)
    with pytest.raises(StoreError), store.get(f"{server.url}/it") as reader:
        reader.read()


def test_the_deadline_holds_before_the_first_byte(open_store: Open, server: ScriptedServer) -> None:
    """A transfer ends in time although no answer has begun."""
    server.handler = lambda _: Reply(raw=b"", then="stall")
    store = open_store("http", transfer_head_timeout=0, transfer_attempts=None)
    store._limits = Limits(deadline=HEAD)  # type: ignore[assignment]
    with pytest.raises(DeadlineExceeded):
        store.get(f"{server.url}/it")


def test_a_write_may_be_answered_as_late_as_a_server_may_be_silent(
    open_store: Open, server: ScriptedServer
) -> None:
    """The limit for heads does not end what the server is rightly at work on."""

    def handler(request: Request) -> Reply:
        slow = request.method == "PUT" and "claims" not in request.target
        return Reply(headers={"ETag": '"x"'}, interim=(102,) * 8 if slow else ())

    server.handler = handler
    store = open_store("s3", transfer_head_timeout=0.04, s3_store_create_only="atomic")
    assert store.add("it", b"data", size=4).size == 4


def test_all_addresses_share_the_time_for_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with many addresses that do not answer is given up after one time limit."""
    clock = [0.0]
    monkeypatch.setattr(_urllib3, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    addresses = [(socket.AF_INET, 1, 6, "", (f"192.0.2.{last}", 80)) for last in range(1, 26)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: addresses)

    def connect(address: object, timeout: float, **_: object) -> None:
        clock[0] += min(timeout, 0.5)
        raise TimeoutError

    monkeypatch.setattr(_urllib3, "create_connection", connect)
    manager = DirectManager(context=ssl.create_default_context)
    with pytest.raises(Exception, match="timed out"):
        manager.request("GET", "http://many.example/", retries=False, timeout=2.0)
    assert clock[0] == 2.0


def test_limits_nest() -> None:
    """The sooner end counts within a block, and the former one again behind it."""
    before = head_limit()
    with limited_heads(5, left=100):
        outer = head_limit()
        with limited_heads(0, left=1000):
            assert head_limit().until == outer.until
            assert head_limit().seconds == float("inf")
        with limited_heads(left=1):
            assert head_limit().until < outer.until
            assert head_limit().seconds == 5
    assert head_limit() is before
