"""What the environment says of proxies, logins and authorities: no client follows it."""

import contextlib
import ssl
from pathlib import Path

import pytest

from store_lib.driver import once
from store_lib.drivers.s3 import S3Driver
from store_lib.drivers.s3.client import Client
from store_lib.drivers.s3.options import settings_of
from store_lib.exceptions import RemoteServiceUnavailable, StoreError
from store_lib.options import StoreOptions
from tests.scripted_server import Reply, ScriptedServer
from tests.unit.clients.asking import CLIENTS, Ask, s3, vmware

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A proxy that all variables name, and a .netrc for every host; nobody may ask the proxy."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login somebody password opensesame\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with ScriptedServer(lambda _: Reply(404)) as server:
        for name in _PROXIES:
            monkeypatch.setenv(name, server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        yield server
        assert server.requests == []
        assert server.connections == 0


@pytest.mark.parametrize("ask", CLIENTS, ids=lambda each: each.__name__)
def test_no_proxy_and_no_login_of_the_environment(
    ask: Ask, authority: tuple[ssl.SSLContext, str], wsdl: Path
) -> None:
    """The server is talked to directly, and gets no login but the store's."""
    context = authority[0] if ask is vmware else None
    with ScriptedServer(lambda _: Reply(404), tls=context) as server:
        with contextlib.suppress(StoreError):
            ask(server.url, authority[1], wsdl)
        assert server.requests
        for request in server.requests:
            assert "opensesame" not in repr(request)
            # base64 of somebody:
            assert "c29tZWJvZHk6" not in repr(request)
            assert "proxy-authorization" not in request.headers


@pytest.mark.parametrize("ask", CLIENTS, ids=lambda each: each.__name__)
def test_no_authorities_of_the_environment(
    ask: Ask,
    authority: tuple[ssl.SSLContext, str],
    wsdl: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file of authorities counts where the store's options name it, and not otherwise."""
    for name in _BUNDLES:
        monkeypatch.setenv(name, authority[1])
    with ScriptedServer(lambda _: Reply(404), tls=authority[0]) as server:
        with pytest.raises(RemoteServiceUnavailable, match="TLS"):
            ask(server.url, "", wsdl)
        assert server.requests == []


@pytest.mark.parametrize(
    "ask", [each for each in CLIENTS if each is not s3], ids=lambda each: each.__name__
)
def test_the_systems_authorities(
    ask: Ask,
    authority: tuple[ssl.SSLContext, str],
    wsdl: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are the same for every client, and are where OpenSSL looks for them."""
    monkeypatch.setenv("SSL_CERT_FILE", authority[1])
    with ScriptedServer(lambda _: Reply(404), tls=authority[0]) as server:
        with pytest.raises(StoreError):
            ask(server.url, "", wsdl)
        assert server.requests


def test_a_proxy_of_the_configuration(caplog: pytest.LogCaptureFixture) -> None:
    """S3 goes through the proxy that its option names; without one the log says so."""
    values = {
        "s3_store_host": "http://storage.invalid",
        "s3_store_bucket": "bucket",
        "s3_store_access_key": "access",
        "s3_store_secret_key": "secret",
    }
    with ScriptedServer(lambda _: Reply(200)) as server:
        through = server.url.replace("://", "://me:c4nary@")
        options = StoreOptions.of(S3Driver.options, **values, s3_store_proxy=through)
        with contextlib.closing(Client(options, settings_of(options), once)) as client:
            client.call("head_object", Bucket="bucket", Key="key")
        [request] = server.requests
        assert request.target == "http://storage.invalid/bucket/key"
        assert "c4nary" not in repr(settings_of(options))
    assert "s3_store_proxy" not in caplog.text
    options = StoreOptions.of(S3Driver.options, **values)
    Client(options, settings_of(options), once)
    assert "the proxies of the environment are not used" in caplog.text


@pytest.mark.parametrize("proxy", ["proxy", "ftp://h:1", "http://u:c4nary@h:1/path", "http://a b"])
def test_proxies_that_are_none(proxy: str) -> None:
    """What is no URL of a host and a port is refused, and not shown."""
    options = StoreOptions.of(
        S3Driver.options, s3_store_host="h", s3_store_bucket="bucket", s3_store_proxy=proxy
    )
    with pytest.raises(ValueError, match="s3_store_proxy: expected") as caught:
        settings_of(options)
    assert "c4nary" not in str(caught.value)
