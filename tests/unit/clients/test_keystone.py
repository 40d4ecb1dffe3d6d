"""Logins to Keystone: what is sent, kept, renewed and closed, and what refusals become."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib.clients.decoding import text
from store_lib.clients.keystone import (
    ConnectionSettings,
    ContextLogin,
    Credentials,
    KeystoneLogin,
    find_endpoint,
)
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    BadStoreConfiguration,
    ErrorStatus,
    Forbidden,
    NotAuthenticated,
    RemoteServiceUnavailable,
    StoreError,
)
from tests.scripted_server import Reply, Request, ScriptedServer

CATALOG = [
    {"type": "identity", "endpoints": []},
    {
        "type": "object-store",
        "endpoints": [
            {"interface": "admin", "region": "one", "region_id": "one", "url": "http://admin"},
            {"interface": "public", "region": "one", "region_id": "one", "url": "http://one"},
            {"interface": "public", "region": "two", "region_id": "two", "url": "http://two"},
        ],
    },
]


class Tokens:
    """Answers logins with one token after the other."""

    def __init__(self, expires: str = "2999-01-01T00:00:00.000000Z") -> None:
        self.made = 0
        self.expires = expires

    def __call__(self, request: Request) -> Reply:
        self.made += 1
        token = {
            "methods": ["password"],
            "expires_at": self.expires,
            "issued_at": "2020-01-01T00:00:00.000000Z",
            "user": {"id": "uid", "name": "u", "domain": {"id": "default", "name": "Default"}},
            "catalog": CATALOG,
        }
        return Reply(
            201,
            json.dumps({"token": token}).encode(),
            {"X-Subject-Token": f"token-{self.made}", "Content-Type": "application/json"},
        )


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A Keystone that gives tokens."""
    with ScriptedServer(Tokens()) as running:
        yield running


@pytest.fixture
def login(server: ScriptedServer) -> Iterator[KeystoneLogin]:
    """A login by a password."""
    made = KeystoneLogin(_credentials(server.url), ConnectionSettings())
    yield made
    made.close()


def _credentials(url: str, **more: Any) -> Credentials:
    return Credentials(auth_url=url, username="u", password="key-5eCr", project_name="p", **more)


def test_one_token_is_kept_and_renewed_when_refused(
    server: ScriptedServer, login: KeystoneLogin
) -> None:
    """A token serves until it is told refused; that an older one was refused is no news."""
    assert [login.token(), login.token()] == ["token-1", "token-1"]
    assert len(server.requests) == 1
    assert server.requests[0].target == "/v3/auth/tokens"
    login.renew("an older one")
    assert login.token() == "token-1"
    login.renew("token-1")
    assert [login.token(), login.token()] == ["token-2", "token-2"]
    assert login.user_id() == "uid"


def test_a_token_near_its_end_is_not_used(server: ScriptedServer) -> None:
    """A token that ends within the given time is replaced, and one that does not is kept."""
    server.handler = Tokens("2021-01-01T00:00:00.000000Z")
    early = KeystoneLogin(_credentials(server.url), ConnectionSettings(renew_before=60))
    assert [early.token(), early.token()] == ["token-1", "token-2"]
    early.close()


def test_a_forked_child_logs_in_by_itself(server: ScriptedServer, login: KeystoneLogin) -> None:
    """After a fork the child makes its own session, and leaves the parent's alone."""
    session = login.session
    assert login.token() == "token-1"
    child = os.fork()
    if not child:
        os._exit(0 if login.session is not session and login.token() == "token-2" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert login.session is session
    assert login.token() == "token-1"


def test_what_each_login_sends(server: ScriptedServer) -> None:
    """A password is sent with its scope, a trust without one, a credential by its id."""
    domains = {"user_domain_id": "default", "project_domain_name": "D"}
    for credentials in (
        _credentials(server.url, **domains),
        _credentials(server.url, user_domain_id="default", trust_id="t"),
        Credentials(
            auth_url=server.url, application_credential_id="i", application_credential_secret="s"
        ),
    ):
        login = KeystoneLogin(credentials, ConnectionSettings())
        login.token()
        login.close()
    password, trust, credential = (json.loads(each.body)["auth"] for each in server.requests)
    assert password["scope"] == {"project": {"name": "p", "domain": {"name": "D"}}}
    assert password["identity"]["password"]["user"]["domain"] == {"id": "default"}
    assert trust["scope"] == {"OS-TRUST:trust": {"id": "t"}}
    assert credential["identity"]["application_credential"] == {"id": "i", "secret": "s"}


@pytest.mark.parametrize(
    ("reply", "error", "status"),
    [
        (Reply(401), AuthorizationFailure, ErrorStatus.PERMANENT),
        (Reply(403), Forbidden, ErrorStatus.PERMANENT),
        (Reply(404), BackendException, ErrorStatus.PERMANENT),
        (Reply(200, b"<html>"), BackendException, ErrorStatus.PERMANENT),
        (Reply(429), RemoteServiceUnavailable, ErrorStatus.TEMPORARY),
        (Reply(500), RemoteServiceUnavailable, ErrorStatus.TEMPORARY),
        (
            Reply(503, headers={"Retry-After": "7"}),
            RemoteServiceUnavailable,
            ErrorStatus.TEMPORARY,
        ),
        (Reply(raw=b"", then="rst"), RemoteServiceUnavailable, ErrorStatus.TEMPORARY),
    ],
)
def test_refusals_become_the_librarys_errors(
    server: ScriptedServer,
    login: KeystoneLogin,
    reply: Reply,
    error: type[StoreError],
    status: ErrorStatus,
) -> None:
    """Each failure of a login is the library's own error with a true status and no secret."""
    server.handler = lambda _: reply
    with pytest.raises(error, match="Keystone at http") as caught:
        login.token()
    assert type(caught.value) is error
    assert caught.value.status is status
    assert caught.value.retry_after == (7 if "Retry-After" in reply.headers else None)
    assert "key-5eCr" not in str(caught.value) + repr(login.credentials)


def test_a_server_that_is_not_trusted(server: ScriptedServer) -> None:
    """A certificate that cannot be verified is told, and is not tried again."""
    import ssl

    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with ScriptedServer(Tokens(), tls=context, name="localhost") as secure:
        login = KeystoneLogin(_credentials(secure.url), ConnectionSettings())
        with pytest.raises(RemoteServiceUnavailable, match=r"self.signed|unable to get") as caught:
            login.token()
        login.close()
    assert caught.value.status is ErrorStatus.PERMANENT


def test_a_certificate_of_another_host_is_told(tmp_path: Path) -> None:
    """Why the connection was refused is said, and not tried again."""
    import ssl

    import trustme

    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(file := tmp_path / "ca.pem"))
    with ScriptedServer(Tokens(), tls=context, name="localhost") as secure:
        login = KeystoneLogin(_credentials(secure.url), ConnectionSettings(verify=str(file)))
        with pytest.raises(
            RemoteServiceUnavailable, match=r"Keystone at https.*localhost.*by a name that its"
        ) as caught:
            login.token()
        login.close()
    assert caught.value.status is ErrorStatus.PERMANENT


def test_endpoints_of_both_forms_of_catalog(login: KeystoneLogin) -> None:
    """An endpoint is found by type, interface and region, in a catalog of v3 and of v2."""
    assert login.endpoint("object-store", "publicURL", None) == "http://one"
    assert login.endpoint("object-store", "public", "two") == "http://two"
    assert login.endpoint("object-store", "adminURL", None) == "http://admin"
    old = [{"type": "t", "endpoints": [{"region": "r", "publicURL": "http://p"}]}]
    assert find_endpoint(old, "t", "publicURL", "r") == "http://p"
    for service, interface, region in (
        ("object-store", "internalURL", None),
        ("object-store", "publicURL", "three"),
        ("volume", "publicURL", None),
    ):
        with pytest.raises(BadStoreConfiguration, match=service):
            login.endpoint(service, interface, region)


def test_a_requests_context() -> None:
    """A context's token and catalog are used as they are, and what lacks is told."""
    context = SimpleNamespace(auth_token="t", service_catalog=CATALOG)
    login = ContextLogin(context)
    assert login.token() == "t"
    assert login.endpoint("object-store", "public", None) == "http://one"
    with pytest.raises(NotAuthenticated, match="expired or was revoked"):
        login.renew("t")
    with pytest.raises(NotAuthenticated, match="auth_token"):
        ContextLogin(SimpleNamespace(auth_token=None))
    with pytest.raises(BadStoreConfiguration, match="service_catalog"):
        ContextLogin(SimpleNamespace(auth_token="t")).endpoint("x", "public", None)


#: What stands in place of anything in an answer.
WRONG: list[Any] = [None, True, 10**30, "\ud800", "http://[::1", [None], {"a": [1]}]


def _spoiled(value: Any) -> Iterator[Any]:
    """Yield copies of an answer, in each of which one thing is wrong or missing."""
    yield from WRONG
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: value[name] for name in value if name != key}
            for wrong in _spoiled(inner):
                yield {**value, key: wrong}
    if isinstance(value, list) and value:
        for wrong in _spoiled(value[-1]):
            yield [*value[:-1], wrong]


def test_answers_that_make_no_sense(server: ScriptedServer, login: KeystoneLogin) -> None:
    """Whatever a server says in place of a token, what comes of it is right or our own error."""
    good = json.loads(Tokens()(Request("POST", "/", {}, b"", 0)).body)
    answers = [json.dumps(each).encode() for each in _spoiled(good)]
    answers += [b"", b"<html>", b"[" * 100_000, b"\xff\xfe", b'{"token": ' * 2000]

    def ask() -> None:
        login.renew("t")
        assert login.endpoint("object-store", "public", None) == "http://one"
        assert isinstance(login.user_id(), str)

    def decode() -> None:
        assert login.call("GET", "/x", "t", decode=lambda found: text(found["token"]["user"]["id"]))

    failed = 0
    for answer in answers:
        headers: dict[str, str | None] = {"X-Subject-Token": "t"}
        reply = Reply(201, answer, headers)
        server.handler = lambda _, reply=reply: reply  # type: ignore[misc]
        for call in (ask, decode):
            try:
                call()
            except StoreError:
                failed += 1
    assert failed > len(answers) / 2


@pytest.mark.parametrize("catalog", list(_spoiled(CATALOG)), ids=repr)
def test_catalogs_that_make_no_sense(catalog: Any) -> None:
    """A context's catalog is a service's, and may be anything."""
    login = ContextLogin(SimpleNamespace(auth_token="t", service_catalog=catalog))
    with contextlib.suppress(BadStoreConfiguration):
        assert login.endpoint("object-store", "public", "two") == "http://two"
