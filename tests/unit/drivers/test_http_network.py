"""Redirects, address lists, TLS, proxies, the environment, fork and secrets of the http driver."""

import logging
import os
import pickle
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from store_lib.drivers.http import HttpDriver, HttpLocation
from store_lib.exceptions import (
    BackendException,
    BadStoreUri,
    ErrorStatus,
    Forbidden,
    MaxRedirectsExceeded,
    NotAuthenticated,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.options import StoreOptions
from tests.scripted_server import Reply, ScriptedServer, serve
from tests.unit.reading import begun

DATA = b"an object" * 1000
SECRET = "canary0815"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.handler = lambda request: serve(request, DATA)
        yield server


@pytest.fixture
def other() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.handler = lambda request: serve(request, DATA)
        yield server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def authority_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[ScriptedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    with ScriptedServer(tls=context) as server:
        server.handler = lambda request: serve(request, DATA)
        yield server


@pytest.fixture
def make() -> Iterator[Any]:
    made = []

    def make(**options: Any) -> HttpDriver:
        driver = HttpDriver("web", StoreOptions.of(HttpDriver.options, **options))
        driver.configure()
        made.append(driver)
        return driver

    yield make
    for driver in made:
        driver.close()


def get(driver: HttpDriver, uri: str, offset: int = 0, length: int | None = None) -> bytes:
    reader = driver.read(HttpLocation.parse(uri), offset, length, context=None)
    try:
        return b"".join(begun(reader, offset, length))
    finally:
        reader.close()


def redirect(to: str, status: int = 302) -> Reply:
    return Reply(status, b"elsewhere", {"Location": to})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(
    make: Any, server: ScriptedServer, other: ScriptedServer, status: int
) -> None:
    """Each kind of redirect leads on, with method and range kept; a fragment is dropped."""
    server.handler = lambda request: redirect(f"{other.url}/there?x=1#part", status)
    driver = make()
    assert get(driver, f"{server.url}/here", 9, 9) == DATA[9:18]
    assert driver.stat(HttpLocation.parse(f"{server.url}/here"), context=None).size == len(DATA)
    assert [(each.method, each.target) for each in other.requests] == [
        ("GET", "/there?x=1"),
        ("HEAD", "/there?x=1"),
    ]
    assert other.requests[0].headers["range"] == "bytes=9-17"


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("next", "/a/next"),
        ("/next?q", "/next?q"),
        (" \t/next \t ", "/next"),
        ("?q", "/a/b?q"),
        ("../../../next", "/next"),
        ("/\u00e9".encode().decode("latin-1"), "/%C3%A9"),
    ],
)
def test_relative_redirects(make: Any, server: ScriptedServer, given: str, target: str) -> None:
    """A target may be relative to where the redirect came from."""
    server.reply(redirect(given))
    assert get(make(), f"{server.url}/a/b") == DATA
    assert server.requests[1].target == target


def test_a_redirect_of_the_rest_is_looked_up_anew(
    make: Any, server: ScriptedServer, other: ScriptedServer
) -> None:
    """Resuming begins at the object's own URI, as a target may have been good only once."""
    server.handler = lambda request: redirect(f"{other.url}/{len(server.requests)}")
    reader = make().read(HttpLocation.parse(f"{server.url}/a"), 0, None, context=None)
    next(begun(reader, 0, None))
    assert b"".join(begun(reader, 9, None)) == DATA[9:]
    reader.close()
    assert [each.target for each in other.requests] == ["/1", "/2"]
    assert other.requests[1].headers["if-range"] == '"v1"'


def test_too_many_redirects(make: Any, server: ScriptedServer) -> None:
    """The limit is the number of redirects followed; a loop ends there, for good."""
    server.handler = lambda request: redirect("/again")
    with pytest.raises(MaxRedirectsExceeded, match=r"More than 5 redirects") as caught:
        get(make(), f"{server.url}/a")
    assert caught.value.status is ErrorStatus.PERMANENT
    assert len(server.requests) == 6
    with pytest.raises(MaxRedirectsExceeded):
        get(make(http_max_redirects=0), f"{server.url}/a")
    server.reply(redirect("/1"), redirect("/2"), Reply(body=b"end"))
    assert get(make(http_max_redirects=2), f"{server.url}/a") == b"end"


@pytest.mark.parametrize(
    "to",
    [
        "file:///etc/passwd",
        "ftp://host/a",
        "https://",
        "http://host:99999/",
        "http://[::1",
        f"http://user:{SECRET}@127.0.0.1/",
        f"http://user:'{SECRET}@127.0.0.1/",
        f"http://user:{SECRET}#@127.0.0.1/",
        "http://allowed\\@127.0.0.1/",
        f"ftp://host/?{SECRET}",
        f"http://host:0/?{SECRET}",
        f"http://[::1/?{SECRET}",
        f"http://\xe2\x84\x80/?{SECRET}",  # a/c in one character
        f"other:path?{SECRET}",
        f"other:/u:{SECRET}@h/",
        "//h\u00f6st/",
    ],
)
def test_redirects_that_lead_nowhere_good(make: Any, server: ScriptedServer, to: str) -> None:
    """Another scheme, credentials in a target or a malformed one end in a BadStoreUri."""
    server.reply(redirect(to))
    with pytest.raises(BadStoreUri, match="redirects to") as caught:
        get(make(), f"{server.url}/a")
    assert SECRET not in str(caught.value)
    assert len(server.requests) == 1


def test_a_redirect_to_a_very_long_target(make: Any, server: ScriptedServer) -> None:
    """A Location that is longer than any URI may be is refused, and not printed."""
    server.reply(redirect("/?key" * 4000))
    with pytest.raises(BadStoreUri, match="a URI of 20000 characters") as caught:
        get(make(), f"{server.url}/a")
    assert len(str(caught.value)) < 200


def test_a_redirect_without_a_target(make: Any, server: ScriptedServer) -> None:
    """A redirect without a Location is the server's fault."""
    server.reply(Reply(302))
    with pytest.raises(BackendException, match=r"redirects \(302\) to nowhere"):
        get(make(), f"{server.url}/a")


def test_never_from_https_to_http(
    make: Any, secure: ScriptedServer, server: ScriptedServer, authority_file: str
) -> None:
    """A redirect that would give up TLS is refused; to https it is followed."""
    driver = make(https_ca_certificates_file=authority_file)
    secure.reply(redirect(f"{server.url}/a"))
    with pytest.raises(BadStoreUri, match="from https to http"):
        get(driver, f"{secure.url}/a")
    assert server.requests == []
    server.reply(redirect(f"{secure.url}/a"))
    assert get(driver, f"{server.url}/a") == DATA


def test_credentials_stay_at_their_origin(
    make: Any, server: ScriptedServer, other: ScriptedServer
) -> None:
    """A login goes to the scheme, host and port of its URI, and nowhere else; cookies do not."""
    location = f"http://user:p%40ss@127.0.0.1:{server.port}/a"
    server.reply(Reply(302, headers={"Location": "/b", "Set-Cookie": "id=1; Path=/"}))
    server.reply(redirect(f"{other.url}/c"))
    other.reply(redirect(f"{server.url}/d"))
    assert get(make(), location) == DATA
    sent = [each.headers.get("authorization") for each in server.requests]
    assert sent == ["Basic dXNlcjpwQHNz"] * 3
    assert "authorization" not in other.requests[0].headers
    assert not any("cookie" in each.headers for each in server.requests + other.requests)


@pytest.mark.parametrize(
    ("options", "host", "list_name"),
    [
        ({"http_denied_addresses": ["127.0.0.0/8"]}, "127.0.0.1", "http_denied_addresses"),
        ({"http_denied_addresses": ["127.0.0.0/8", "::1"]}, "localhost", "http_denied_addresses"),
        ({"http_denied_addresses": ["localhost"]}, "LocalHost", "http_denied_addresses"),
        ({"http_denied_addresses": ["127.0.0.0/8"]}, "0", "http_denied_addresses"),
        ({"http_denied_addresses": ["127.0.0.0/8"]}, "0.0.0.0", "http_denied_addresses"),
        ({"http_allowed_addresses": ["10.0.0.0/8"]}, "localhost", "http_allowed_addresses"),
        ({"http_allowed_addresses": ["example.org"]}, "localhost", "http_allowed_addresses"),
        ({"http_allowed_addresses": ["127.0.0.1"]}, "localhost", None),
        ({"http_allowed_addresses": ["localhost"]}, "localhost", None),
        ({"http_denied_addresses": ["10.0.0.0/8", "::1"]}, "localhost", None),
    ],
)
def test_address_lists(
    make: Any,
    server: ScriptedServer,
    options: dict[str, list[str]],
    host: str,
    list_name: str | None,
) -> None:
    """A refused host gets no request, whether named in a URI or in a redirect."""
    driver = make(**options)
    uri = f"http://{host}:{server.port}/a"
    if list_name is None:
        assert get(driver, uri) == DATA
        assert get(driver, uri) == DATA
        assert server.connections == 1
        return
    for call in (lambda: get(driver, uri), lambda: driver.stat(driver.parse(uri), context=None)):
        with pytest.raises(Forbidden, match=list_name):
            call()
    assert server.requests == []


def test_a_redirect_to_a_denied_address(
    make: Any, server: ScriptedServer, other: ScriptedServer
) -> None:
    """A redirect's target is held to the lists as the first URI is."""
    server.handler = lambda request: redirect(f"http://localhost:{other.port}/a")
    driver = make(http_allowed_addresses=["127.0.0.1"], http_denied_addresses=["localhost"])
    with pytest.raises(Forbidden, match=r"localhost.*http_denied_addresses"):
        get(driver, f"{server.url}/a")
    assert other.requests == []


def test_a_name_that_changes_its_address(
    make: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is looked up once, and what is connected to is what was checked."""
    answers = [["127.0.0.1"], ["10.255.255.1", "127.0.0.1"], ["10.255.255.1"]]
    true_lookup = socket.getaddrinfo
    lookups: list[str] = []

    def lookup(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "rebound.example":
            return true_lookup(host, *args, **kwargs)
        lookups.append(host)
        found = answers[len(lookups) - 1]
        return [true_lookup(address, *args, **kwargs)[0] for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    uri = f"http://rebound.example:{server.port}/a"
    assert get(make(http_denied_addresses=["10.0.0.0/8"]), uri) == DATA
    assert get(make(http_denied_addresses=["10.0.0.0/8"]), uri) == DATA
    with pytest.raises(Forbidden):
        get(make(http_denied_addresses=["10.0.0.0/8"]), uri)
    assert len(lookups) == 3


def test_who_is_at_the_other_end_counts(make: Any, server: ScriptedServer) -> None:
    """An address that the system takes for another one is checked as what it led to."""
    driver = make(http_allowed_addresses=["0.0.0.0"])
    with pytest.raises(Forbidden):
        get(driver, f"http://0.0.0.0:{server.port}/a")
    assert server.requests == []


def test_nobody_there(make: Any, server: ScriptedServer) -> None:
    """A refused connection, a name unknown and an answer that is none are temporary."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    server.reply(Reply(raw=b"", then="fin"), Reply(raw=b"no http\r\n\r\n", then="fin"))
    for options in ({}, {"http_denied_addresses": ["10.0.0.1"]}):
        for uri in (f"http://127.0.0.1:{port}/", "http://nobody.invalid/", server.url):
            with pytest.raises(RemoteServiceUnavailable, match="No answer from") as caught:
                make(**options).read(HttpLocation.parse(uri), 0, None, context=None)
            assert caught.value.status is ErrorStatus.TEMPORARY


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_with_an_authority(
    make: Any, secure: ScriptedServer, authority_file: str, host: str
) -> None:
    """A server whose certificate the given authority signed is read from, also with lists."""
    uri = f"https://{host}:{secure.port}/a"
    for options in ({}, {"http_allowed_addresses": ["127.0.0.1"]}):
        driver = make(https_ca_certificates_file=authority_file, **options)
        assert get(driver, uri, 9, 9) == DATA[9:18]
        assert get(driver, uri) == DATA
    assert secure.connections == 2


def test_tls_without_the_authority(make: Any, secure: ScriptedServer) -> None:
    """A certificate that cannot be verified is a permanent error that says what to do."""
    for call in (
        lambda: get(make(), f"{secure.url}/a"),
        lambda: make().stat(HttpLocation.parse(secure.url), context=None),
    ):
        with pytest.raises(
            StoreError, match=r"TLS verification.*https_ca_certificates_file"
        ) as caught:
            call()
        assert caught.value.status is ErrorStatus.PERMANENT
    assert secure.requests == []


def test_tls_for_another_host(make: Any, authority: trustme.CA, authority_file: str) -> None:
    """A certificate of another host is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    with ScriptedServer(tls=context) as wrong:
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(StoreError, match="TLS verification"):
                get(
                    make(https_ca_certificates_file=authority_file),
                    f"https://{host}:{wrong.port}/",
                )
    assert wrong.requests == []


def test_tls_to_a_server_without_it(make: Any) -> None:
    """A server that speaks no TLS is a permanent error."""

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RemoteServiceUnavailable, match="speaks TLS") as caught:
            get(make(), f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert caught.value.status is ErrorStatus.PERMANENT


def test_a_handshake_that_does_not_come(make: Any) -> None:
    """A server that takes connections and says nothing is given up by http_connect_timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        driver = make(http_connect_timeout=0.05)
        with pytest.raises(RemoteServiceUnavailable, match="http_connect_timeout") as caught:
            get(driver, f"https://127.0.0.1:{listener.getsockname()[1]}/")
    assert caught.value.status is ErrorStatus.TEMPORARY


def test_insecure(
    make: Any, secure: ScriptedServer, authority_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    """https_insecure reads from anybody, and warns once; with an authority it is ignored."""
    driver = make(https_insecure=True)
    assert get(driver, secure.url) == DATA
    assert get(driver, f"https://localhost:{secure.port}/") == DATA
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "https_insecure" in warning.getMessage()
    other_authority = trustme.CA()
    with other_authority.cert_pem.tempfile() as path:
        driver = make(https_insecure=True, https_ca_certificates_file=path)
    with pytest.raises(StoreError, match="TLS verification"):
        get(driver, secure.url)
    assert get(make(https_insecure=True, https_ca_certificates_file=authority_file), secure.url)


def test_a_cut_tls_body(make: Any, secure: ScriptedServer, authority_file: str) -> None:
    """A body cut below TLS is a cut like any other."""
    secure.reply(Reply(body=DATA, headers={"ETag": '"v1"'}, cut=4000, then="fin"))
    driver = make(https_ca_certificates_file=authority_file)
    reader = driver.read(HttpLocation.parse(secure.url), 0, None, context=None)
    got: list[bytes] = []
    with pytest.raises(RemoteServiceUnavailable) as caught:
        got.extend(begun(reader, 0, None))
    assert caught.value.status is ErrorStatus.TEMPORARY
    assert b"".join([*got, *begun(reader, 4000, None)]) == DATA
    reader.close()


def test_the_environment_is_not_asked(
    make: Any, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither proxies of the environment nor a .netrc have any effect."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, nobody)
        monkeypatch.setenv(name.upper(), nobody)
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    assert get(make(), server.url) == DATA
    assert "authorization" not in server.requests[0].headers


def test_a_proxy_for_http(make: Any, server: ScriptedServer) -> None:
    """A proxy is asked by the whole URL, with its own login; what is for the server stays so."""
    proxy = {"http": f"user:p%40ss@127.0.0.1:{server.port}"}
    driver = make(http_proxy_information=proxy)
    server.reply(redirect("http://two.invalid:81/b?q=1"))
    assert get(driver, "http://u:p@one.invalid/a") == DATA
    first, second = server.requests
    assert (first.target, first.headers["host"]) == ("http://one.invalid/a", "one.invalid")
    assert (second.target, second.headers["host"]) == (
        "http://two.invalid:81/b?q=1",
        "two.invalid:81",
    )
    assert first.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
    assert first.headers["authorization"] == "Basic dTpw"
    assert "authorization" not in second.headers
    server.reply(Reply(407))
    with pytest.raises(NotAuthenticated, match="proxy"):
        get(driver, "http://one.invalid/a")


def test_a_proxy_for_https(
    make: Any, server: ScriptedServer, secure: ScriptedServer, authority_file: str
) -> None:
    """For https the proxy is asked for a tunnel, through which the server is verified."""
    server.handler = lambda request: Reply(tunnel=True)
    driver = make(
        https_ca_certificates_file=authority_file,
        http_proxy_information={"https": f"http://user:{SECRET}@127.0.0.1:{server.port}"},
    )
    assert get(driver, f"https://u:p@localhost:{secure.port}/a") == DATA
    (asked,) = server.requests
    assert (asked.method, asked.target) == ("CONNECT", f"localhost:{secure.port}")
    assert "proxy-authorization" in asked.headers
    assert "authorization" not in asked.headers
    assert "proxy-authorization" not in secure.requests[0].headers
    assert secure.requests[0].headers["authorization"] == "Basic dTpw"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(407, NotAuthenticated), (403, Forbidden), (502, RemoteServiceUnavailable)],
)
def test_a_proxy_that_refuses(
    make: Any, server: ScriptedServer, status: int, kind: type[StoreError]
) -> None:
    """A tunnel refused is told by its status."""
    server.handler = lambda request: Reply(status)
    driver = make(http_proxy_information={"https": f"127.0.0.1:{server.port}"})
    with pytest.raises(kind, match=f"proxy.*{status}"):
        get(driver, "https://one.invalid/a")


def test_lists_behind_a_proxy(make: Any, server: ScriptedServer) -> None:
    """Behind a proxy names and written addresses are checked; the proxy itself need not be."""
    driver = make(
        http_proxy_information={"http": f"127.0.0.1:{server.port}"},
        http_denied_addresses=["127.0.0.0/8", "denied.invalid"],
    )
    assert get(driver, "http://one.invalid/") == DATA
    for host in ("denied.invalid", "127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]"):
        with pytest.raises(Forbidden, match="http_denied_addresses"):
            get(driver, f"http://{host}/")
    assert len(server.requests) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork(make: Any, server: ScriptedServer) -> None:
    """The child makes its own connection; the parent goes on with the one it has."""
    driver = make()
    assert get(driver, server.url) == DATA
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if get(driver, server.url) == DATA else 2
            driver.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert get(driver, server.url) == DATA
    assert [each.connection for each in server.requests] == [1, 2, 1]


def test_close_ends_idle_connections(make: Any, server: ScriptedServer) -> None:
    """Closing the driver closes what it kept; it may be closed twice."""
    driver = make()
    get(driver, server.url)
    get(driver, server.url)
    driver.close()
    driver.close()
    get(driver, server.url)
    assert [each.connection for each in server.requests] == [1, 1, 2]


def test_secrets_show_nowhere(
    make: Any, server: ScriptedServer, other: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No credential gets into a log, a message, a representation or a pickle of an error."""
    caplog.set_level(logging.DEBUG)
    driver = make(http_proxy_information={"https": f"http://u:{SECRET}@127.0.0.1:{other.port}"})
    query = f"auth={SECRET}&X-Amz-Signature={SECRET}"
    uri = f"http://user:{SECRET}@127.0.0.1:{server.port}/a?{query}"
    location = driver.parse(uri)

    texts = [repr(driver), repr(driver.conf), repr(driver._client)]

    def fails(uri: str, *replies: Reply) -> None:
        server.reply(*replies)
        with pytest.raises(StoreError) as caught:
            get(driver, uri)
        error: BaseException | None = caught.value
        texts.append(repr(pickle.loads(pickle.dumps(error))))
        while error is not None:
            texts.extend((str(error), repr(error)))
            error = error.__cause__

    server.reply(redirect(f"/b?{query}"))
    reader = driver.read(location, 0, None, context=None)
    texts.append(repr(reader))
    next(begun(reader, 0, None))
    reader.close()
    for status in (302, 400, 401, 403, 404, 407, 416, 500):
        fails(uri, Reply(status))
    for to in (f"file://u:{SECRET}@h/", f"ftp://u:{SECRET}@h/?{query}", f"http://u:{SECRET}@h/"):
        fails(uri, redirect(to))
    fails(uri, *[redirect(f"/c?{query}") for _ in range(6)])
    fails(uri, Reply(headers={"Content-Encoding": "gzip"}))
    fails(uri, Reply(headers={"Content-Length": "1, 2"}))
    fails(uri, Reply(raw=b"", then="fin"))
    fails(uri, Reply(raw=b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", then="fin"))
    fails(uri, Reply(body=DATA, cut=5, then="fin"))
    fails(f"http://user:{SECRET}@nobody.invalid/?{query}")
    fails(f"https://user:{SECRET}@one.invalid/?{query}")
    assert any("redirects" in record.getMessage() for record in caplog.records)
    assert any(record.name.startswith("urllib3") for record in caplog.records)
    for text in (*texts, caplog.text):
        assert SECRET not in text
        assert "Y2FuYXJ5" not in text  # the beginning of it in base64
