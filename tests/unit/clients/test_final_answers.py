"""Answers that are not final, or not all that comes: every client of HTTP waits, and mixes nothing.

The clients: urllib3 on connections of ours (http, Swift, VMware), botocore (S3), and keystoneauth,
which Keystone and Cinder are asked by.
"""

import contextlib
import functools
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from store_lib.clients.http import HttpClient
from store_lib.clients.keystone import ConnectionSettings, Credentials, KeystoneLogin
from store_lib.clients.network_errors import OptionNames
from store_lib.clients.sessions import open_session
from store_lib.clients.tls import Tls
from store_lib.driver import once
from store_lib.drivers.cinder.client import Cinder
from store_lib.drivers.http import HttpDriver
from store_lib.drivers.s3 import S3Driver
from store_lib.drivers.swift import SwiftDriver
from store_lib.drivers.vmware.options import OPTIONS as VMWARE
from store_lib.exceptions import RemoteServiceUnavailable, StoreError
from store_lib.options import StoreOptions
from tests.scripted_server import Reply, Request, ScriptedServer
from tests.unit.reading import begun

#: Asks for what lies under a name, by a method, and returns the name that the answer has in it.
Ask = Callable[[str, str], str]


@contextlib.contextmanager
def http(url: str, authorities: str) -> Iterator[Ask]:
    """The http driver."""
    options = {"https_ca_certificates_file": authorities, "http_read_timeout": 5.0}
    driver = HttpDriver("web", StoreOptions.of(HttpDriver.options, **options))
    driver.configure()

    def ask(name: str, method: str = "GET") -> str:
        place = driver.parse(f"{url}/{name}")
        if method == "HEAD":
            return str(driver.stat(place, context=None).size)
        with contextlib.closing(driver.read(place, 0, None, context=None)) as reader:
            return _name(b"".join(begun(reader, 0, None)))

    yield ask
    driver.close()


@contextlib.contextmanager
def s3(url: str, authorities: str) -> Iterator[Ask]:
    """The S3 driver, on botocore."""
    options = {
        "s3_store_host": url,
        "s3_store_bucket": "box",
        "s3_store_access_key": "a",
        "s3_store_secret_key": "s",
        "s3_store_cacert": authorities,
        "s3_store_read_timeout": 5,
    }
    driver = S3Driver("it", StoreOptions.of(S3Driver.options, **options))
    driver.configure()

    def ask(name: str, method: str = "GET") -> str:
        place = driver.parse(f"{url.replace('http', 's3+http', 1)}/box/{name}")
        if method == "HEAD":
            return str(driver.stat(place, context=None).size)
        with contextlib.closing(driver.read(place, 0, None, context=None)) as reader:
            return _name(b"".join(begun(reader, 0, None)))

    yield ask
    driver.close()


@contextlib.contextmanager
def swift(url: str, authorities: str) -> Iterator[Ask]:
    """Requests to an account of Swift."""
    options = {
        "swift_store_multi_tenant": True,
        "swift_store_endpoint": url,
        "swift_store_cacert": authorities,
    }
    driver = SwiftDriver("it", StoreOptions.of(SwiftDriver.options, **options))
    driver.configure()
    account = driver._tenancy.own(SimpleNamespace(auth_token="t", service_catalog=[]))

    def ask(name: str, method: str = "GET") -> str:
        answer = account.ask(method, f"/{name}")
        return answer.headers["Content-Length"] if method == "HEAD" else _name(answer.body)

    yield ask
    driver.close()


@contextlib.contextmanager
def keystone(url: str, authorities: str) -> Iterator[Ask]:
    """Requests to Keystone."""
    how = ConnectionSettings(verify=authorities, timeout=5)
    login = KeystoneLogin(Credentials(auth_url=url), how)

    def ask(name: str, method: str = "GET") -> str:
        if method == "HEAD":
            head = login.session.head(f"{url}/{name}", authenticated=False)
            return str(head.headers["Content-Length"])
        return str(login.call(method, f"/{name}", "token")["volume"]["id"])

    yield ask
    login.close()


@contextlib.contextmanager
def cinder(url: str, authorities: str) -> Iterator[Ask]:
    """Requests to Cinder."""
    from keystoneauth1.token_endpoint import Token

    session = open_session(verify=authorities, timeout=5)
    asked = Cinder(session, Token(url, "token"), url, timeout=5, retry=once)

    def ask(name: str, method: str = "GET") -> str:
        if method == "HEAD":
            return str(session.head(f"{url}/{name}").headers["Content-Length"])
        return asked.get(name).id

    yield ask
    session.session.close()


@contextlib.contextmanager
def vmware(url: str, authorities: str) -> Iterator[Ask]:
    """Requests to a vSphere server, to which there are only those by TLS."""
    options = StoreOptions.of(VMWARE, vmware_ca_file=authorities)
    tls = Tls("it", options, authorities="vmware_ca_file", insecure="vmware_insecure", peers="it")
    client = HttpClient(tls, OptionNames("a", "b", "c"), connect_timeout=5, read_timeout=5)

    def ask(name: str, method: str = "GET") -> str:
        response = client.fetch(method, f"{url}/{name}")
        if response.status != 200:
            raise StoreError(f"status {response.status}")
        return response.headers["Content-Length"] if method == "HEAD" else _name(response.body)

    yield ask
    client.close()


CLIENTS = [
    *((client, scheme) for client in (http, s3, swift, keystone, cinder) for scheme in ("", "s")),
    (vmware, "s"),
]


def _body(name: str) -> bytes:
    """What all of these clients take for the answer about an object or a volume of a name."""
    return (
        f'{{"volume": {{"id": "{name}", "status": "available", "size": 1, "metadata": {{}}, '
        '"attachments": [], "volume_type": "x", "multiattach": false, "encrypted": false}}'
    ).encode()


def _name(body: bytes) -> str:
    return body.partition(b'"id": "')[2].partition(b'"')[0].decode()


def _good(request: Request) -> Reply:
    name = request.target.partition("?")[0].rpartition("/")[2]
    headers: dict[str, str | None] = {
        "Content-Type": "application/json",
        "ETag": '"tag"',
        "Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT",
    }
    return Reply(body=_body(name), headers=headers)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, str]:
    """An authority, and the file with its certificate."""
    made = trustme.CA()
    path: Path = tmp_path_factory.mktemp("authority") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    return made, str(path)


@pytest.fixture(params=CLIENTS, ids=lambda each: f"{each[0].__name__}-http{each[1]}")
def client(
    request: pytest.FixtureRequest, authority: tuple[trustme.CA, str]
) -> Iterator[tuple[Ask, ScriptedServer]]:
    """A client, and the server that it asks."""
    make, scheme = request.param
    context = None
    if scheme:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority[0].issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedServer(_good, tls=context) as server, make(server.url, authority[1]) as ask:
        yield ask, server


def _first(server: ScriptedServer, **different: Any) -> None:
    """Have the first answer of a server be different from the good ones."""
    waiting = [different]

    def handler(request: Request) -> Reply:
        reply = _good(request)
        for name, value in (waiting.pop() if waiting else {}).items():
            setattr(reply, name, value)
        return reply

    server.handler = handler


@pytest.mark.parametrize("interim", [(103,), (102, 100, 103, 102)], ids=["one", "several"])
def test_interim_answers_are_skipped(
    client: tuple[Ask, ScriptedServer], interim: Sequence[int]
) -> None:
    """The final answer is waited for, and the connection is good for the next request."""
    ask, server = client
    _first(server, interim=interim)
    assert [ask("A", "GET"), ask("B", "GET")] == ["A", "B"]
    assert server.connections == 1


@pytest.mark.parametrize("interim", [(101,), (103,) * 17], ids=["switched", "endless"])
def test_an_answer_that_never_becomes_final_is_an_error(
    client: tuple[Ask, ScriptedServer], interim: Sequence[int]
) -> None:
    """Another protocol, or interim answers without an end, fail; the next answer is right."""
    ask, server = client
    _first(server, interim=interim)
    with pytest.raises(RemoteServiceUnavailable):
        ask("A", "GET")
    assert ask("B", "GET") == "B"
    assert server.connections == 2


@pytest.mark.parametrize("size", [1, 100, 100_000], ids=str)
def test_what_follows_an_answer_is_not_the_next_one(
    client: tuple[Ask, ScriptedServer], size: int
) -> None:
    """Bytes behind the body, here an answer, are dropped with their connection."""
    ask, server = client
    wrong = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
    _first(server, surplus=wrong.ljust(size)[:size])
    assert [ask("A", "GET"), ask("B", "GET"), ask("C", "GET")] == ["A", "B", "C"]
    assert server.connections == 2


@pytest.mark.parametrize("size", [1, 500, 100_000], ids=str)
def test_a_body_after_a_head_is_not_the_next_answer(
    client: tuple[Ask, ScriptedServer], size: int
) -> None:
    """A server that sends a body where none may be does not shift what follows."""
    ask, server = client
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong".ljust(size)[:size]
    _first(server, surplus=body)
    assert ask("A", "HEAD") == str(len(_body("A")))
    assert [ask("B", "GET"), ask("C", "GET")] == ["B", "C"]
    assert server.connections == 2


def test_a_cut_head_is_no_answer(client: tuple[Ask, ScriptedServer]) -> None:
    """Wherever the head of an answer is cut, it is a temporary error, whatever stood in it."""
    ask, server = client
    reply = _good(Request("HEAD", "/A", {}, b"", 0))
    fields = {**reply.headers, "Content-Length": "10000"}
    head = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {fields[name]}\r\n" for name in fields)
    for position in range(0, len(head) + 2, 7):
        server.reply(Reply(raw=(head + "\r\n")[:position].encode(), then="fin"))
        with pytest.raises(RemoteServiceUnavailable):
            _translated(functools.partial(ask, "A", "HEAD"))


def _translated(call: Callable[[], object]) -> None:
    """Call a session of keystoneauth itself, whose errors are not the library's."""
    from keystoneauth1.exceptions import ConnectFailure

    try:
        call()
    except ConnectFailure as error:
        raise RemoteServiceUnavailable(str(error)) from error
