"""Sessions of keystoneauth: to which servers passwords and tokens follow a redirect."""

import gzip
import json

import pytest

from store_lib.clients import sessions
from store_lib.clients.keystone import ConnectionSettings, Credentials, KeystoneLogin
from store_lib.clients.sessions import _redirected, open_session
from store_lib.exceptions import BackendException, ErrorStatus
from tests.scripted_server import Reply, Request, ScriptedServer

SECRET = "pass-5eCr"


def _login(url: str) -> KeystoneLogin:
    return KeystoneLogin(
        Credentials(
            auth_url=f"{url}/v3",
            username="u",
            password=SECRET,
            user_domain_id="default",
            project_name="p",
            project_domain_id="default",
        ),
        ConnectionSettings(),
    )


def _keystone(request: Request) -> Reply:
    body = {"token": {"expires_at": "2099-01-01T00:00:00Z", "issued_at": "2020-01-01T00:00:00Z"}}
    if request.method == "POST":
        return Reply(201, json.dumps(body).encode(), {"X-Subject-Token": "the-token"})
    return Reply(404)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_login_follows_no_redirect_to_another_server(status: int) -> None:
    """Neither another port nor another name of the host gets the password; the error says which."""
    with ScriptedServer() as near, ScriptedServer(_keystone) as far:
        other = near.url.replace("127.0.0.1", "localhost")
        for base in (far.url, other, far.url.removeprefix("http:"), "https://[::1"):
            target = f"{base}/v3/auth/tokens"
            near.handler = lambda _, target=target: Reply(  # type: ignore[misc]
                status, headers={"Location": target}
            )
            login = _login(near.url)
            with pytest.raises(BackendException, match="are not sent to another server") as caught:
                login.token()
            login.close()
            assert caught.value.status is ErrorStatus.PERMANENT
            assert base.rpartition("/")[2] in str(caught.value) or "malformed" in str(caught.value)
            assert SECRET not in str(caught.value)
        assert not far.requests
        hosts = {each.headers["host"] for each in near.requests}
        assert hosts == {near.url.removeprefix("http://")}


def test_a_login_follows_a_redirect_within_its_server() -> None:
    """A server may move its own paths."""

    def answer(request: Request) -> Reply:
        if request.target == "/v3/auth/tokens":
            return Reply(307, headers={"Location": "/moved/auth/tokens"})
        return _keystone(request)

    with ScriptedServer(answer) as near:
        login = _login(near.url)
        assert login.token() == "the-token"
        login.close()


def test_a_token_follows_no_redirect_from_https_to_http() -> None:
    """The other way is safer, and is followed."""
    assert _redirected("http://h:5000/v3", "https://h:5443/v3") == "https://h:5443/v3"
    assert (
        _redirected("https://h/v3", "/a") == _redirected("https://h/v3/b", "../a") == "https://h/a"
    )
    for target in ("http://h/v3", "https://h:1/v3", "https://h.example/v3", "https://u:p@i/v3"):
        with pytest.raises(BackendException) as caught:
            _redirected("https://h/v3", target)
        assert "u:p" not in str(caught.value)


def test_a_session_sends_no_token_elsewhere() -> None:
    """So it is with whatever a session asks for."""
    with ScriptedServer() as near, ScriptedServer() as far:
        near.handler = lambda _: Reply(302, headers={"Location": f"{far.url}/x"})
        session = open_session(verify=True, timeout=5)
        with pytest.raises(BackendException, match="redirects to"):
            session.get(f"{near.url}/x", headers={"X-Auth-Token": "t"})
        session.session.close()
        assert not far.requests


def test_an_answer_has_a_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on and on, or grows as it is decompressed, does not fill the memory."""
    monkeypatch.setattr(sessions, "_LONGEST", 1000)
    packed = gzip.compress(b" " * 1001)
    for reply in (
        Reply(201, b" " * 1001),
        Reply(201, b" " * 1001, chunked=100),
        Reply(201, packed, {"Content-Encoding": "gzip"}),
    ):
        with ScriptedServer(lambda _, reply=reply: reply) as server:  # type: ignore[misc]
            login = _login(server.url)
            with pytest.raises(BackendException, match="at most 1000 bytes"):
                login.token()
            login.close()
