"""The one HTTP client: requests, whole responses, connections, and statuses as errors."""

import io
import os
from collections.abc import Iterator
from typing import Any

import pytest

from store_lib.clients.http import HttpClient, error_for_response, error_for_status
from store_lib.clients.network_errors import OptionNames
from store_lib.clients.tls import Tls
from store_lib.drivers.http import HttpDriver
from store_lib.exceptions import (
    BackendException,
    Forbidden,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
)
from store_lib.options import StoreOptions
from tests.scripted_server import Reply, ScriptedServer

NAMES = OptionNames("the_ca_file", "the_connect_timeout", "the_read_timeout")


def make(**settings: Any) -> HttpClient:
    tls = Tls(
        "it",
        StoreOptions.of(HttpDriver.options),
        authorities="https_ca_certificates_file",
        insecure="https_insecure",
        peers="servers",
    )
    return HttpClient(tls, NAMES, **{"connect_timeout": 5, "read_timeout": 5, **settings})


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(lambda request: Reply(body=b"body")) as server:
        yield server


@pytest.fixture
def client() -> Iterator[HttpClient]:
    client = make()
    yield client
    client.close()


class Body(io.BytesIO):
    """A body of a request."""

    rewindable = True

    def __init__(self, data: bytes, size: int | None) -> None:
        super().__init__(data)
        self.size = size

    def views(self) -> Iterator[memoryview]:
        yield memoryview(self.read())


def test_a_whole_response(client: HttpClient, server: ScriptedServer) -> None:
    """A response is fetched with its body, and its connection serves the next request."""
    for _ in range(2):
        response = client.fetch("GET", f"{server.url}/it?a=b", {"X-Field": "value"})
        assert (response.status, response.body) == (200, b"body")
        assert response.headers["content-length"] == "4"
    assert server.connections == 1
    assert server.requests[0].target == "/it?a=b"
    assert server.requests[0].headers["x-field"] == "value"


@pytest.mark.parametrize("size", [9, None])
def test_a_body_is_framed(client: HttpClient, server: ScriptedServer, size: int | None) -> None:
    """A body of known size has a Content-Length, another is sent in chunks; both arrive whole."""
    client.fetch("PUT", server.url, body=Body(b"some data", size))  # type: ignore[arg-type]
    (request,) = server.requests
    assert request.body == b"some data"
    assert request.headers.get("content-length") == (None if size is None else "9")


def test_a_fresh_connection(client: HttpClient, server: ScriptedServer) -> None:
    """A request that cannot be sent again does not get a connection that was used before."""
    client.fetch("GET", server.url)
    response = client.open("PUT", server.url, body=b"data", fresh=True)
    assert client.read(response, server.url) == b"body"
    client.fetch("GET", server.url)
    assert server.connections == 2
    assert server.requests[1].headers["connection"] == "close"


def test_a_redirect_is_not_followed(client: HttpClient, server: ScriptedServer) -> None:
    """What a redirect means is for the driver to say: nothing is sent to its target."""
    server.reply(Reply(302, headers={"Location": f"{server.url}/elsewhere"}))
    assert client.fetch("GET", server.url, {"Cookie": "secret"}).status == 302
    assert len(server.requests) == 1


def test_a_response_that_is_refused_is_not_read(client: HttpClient, server: ScriptedServer) -> None:
    """What the check raises comes out, with the beginning of the body quoted."""

    def check(response: Any) -> None:
        raise error_for_response(response, "Reading", "the object")

    server.reply(Reply(400, b"no\nsuch parameter"))
    with pytest.raises(BackendException, match=r"^Reading the object failed: .* 400: 'no such par"):
        client.fetch("GET", server.url, check=check)
    assert client.fetch("GET", server.url).status == 200


@pytest.mark.parametrize(
    "reply",
    [Reply(raw=b"", then="fin"), Reply(body=b"body", cut=2, then="fin")],
    ids=["head", "body"],
)
def test_a_cut_response(client: HttpClient, server: ScriptedServer, reply: Reply) -> None:
    """A connection that ends early is a temporary error that names the server."""
    server.reply(reply)
    with pytest.raises(RemoteServiceUnavailable, match=f"No answer from {server.url}: "):
        client.fetch("GET", f"{server.url}/it")


def test_a_silent_server(server: ScriptedServer) -> None:
    """The read timeout holds, of the client or of one request; a cap makes it shorter for all."""
    server.handler = lambda request: Reply(raw=b"", then="stall")
    client = make(read_timeout=0.05)
    with pytest.raises(RemoteServiceUnavailable, match="the_read_timeout"):
        client.fetch("GET", server.url)
    client = make()
    with pytest.raises(RemoteServiceUnavailable, match="the_read_timeout"):
        client.fetch("GET", server.url, read_timeout=0.05)
    client.cap_timeouts(0.05)
    with pytest.raises(RemoteServiceUnavailable, match="the_read_timeout"):
        client.fetch("GET", server.url)


def test_addresses_are_checked(server: ScriptedServer) -> None:
    """The check gets the name and the address, and what it raises comes out unchanged."""
    checked: list[tuple[str, str]] = []

    def refuse(host: str, address: str) -> None:
        checked.append((host, address))
        raise Forbidden("not there")

    client = make(check_address=refuse)
    with pytest.raises(Forbidden, match="not there"):
        client.fetch("GET", server.url)
    assert checked == [("127.0.0.1", "127.0.0.1")]
    assert server.connections == 0


def test_each_process_has_its_own_connections(client: HttpClient, server: ScriptedServer) -> None:
    """A child does not use its parent's connection, and a closed client makes a new one."""
    client.fetch("GET", server.url)
    if (pid := os.fork()) == 0:
        client.fetch("GET", server.url)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    client.fetch("GET", server.url)
    assert server.connections == 2
    client.close()
    client.fetch("GET", server.url)
    assert server.connections == 3


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (401, NotAuthenticated, "the login is refused (401)"),
        (403, Forbidden, "it is forbidden (403)"),
        (407, NotAuthenticated, "the proxy asks for a login (407)"),
        (413, StorageFull, "exceeds a quota (413: 'said')"),
        (507, StorageFull, "there is no space left (507: 'said')"),
        (503, RemoteServiceUnavailable, "the server cannot serve now (503: 'said')"),
        (307, BackendException, "redirects it (307), which is not followed"),
        (418, BackendException, "the server answered 418: 'said'"),
    ],
)
def test_statuses(status: int, kind: type[StoreError], text: str) -> None:
    """Each status has its error; the message says what failed, why, and what to do."""
    advice = {status: "Do this."}
    error = error_for_status(status, "Reading", "an object", quote=": 'said'", advice=advice)
    assert type(error) is kind
    assert str(error).startswith("Reading an object failed: ")
    assert str(error).endswith(f"{text}. Do this.")


def test_what_a_backend_says_differently() -> None:
    """Statuses of its own may be temporary; Retry-After counts for those alone."""
    headers = {"Retry-After": "7"}
    error = error_for_status(498, "Reading", "it", headers=headers, busy=frozenset({498}))
    assert (type(error), error.retry_after) == (RemoteServiceUnavailable, 7)
    assert error_for_status(503, "Reading", "it", headers=headers).retry_after == 7
    assert error_for_status(400, "Reading", "it", headers=headers).retry_after is None


@pytest.mark.parametrize("status", [404, 410])
def test_a_missing_object(status: int) -> None:
    """A missing object has the text of all drivers."""
    error = error_for_status(status, "Reading", "swift://c/o")
    assert type(error) is NotFound
    assert str(error) == f"Object swift://c/o not found (the server answered {status})"
