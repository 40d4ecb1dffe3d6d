"""Trusts: where Keystone's answers are no good, the user's own token has to do."""

import contextlib
import json
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib.clients.keystone import ConnectionSettings, Credentials, KeystoneLogin
from store_lib.drivers.swift import SwiftDriver
from store_lib.drivers.swift.trusts import Trustee, UploadLogin
from store_lib.options import StoreOptions
from tests.scripted_server import Reply, Request, ScriptedServer

_USER = {"user": {"id": "user"}, "project": {"id": "project"}, "roles": [{"id": "role"}]}
_LOGIN = {
    "methods": ["password"],
    "expires_at": "2999-01-01T00:00:00.000000Z",
    "issued_at": "2020-01-01T00:00:00.000000Z",
    "user": {"id": "trustee", "name": "u", "domain": {"id": "d", "name": "D"}},
}


def _json(answer: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})


_NONE = [
    Reply(),
    Reply(body=b"<html>"),
    Reply(body=b"{}", headers={"Content-Length": "99"}, then="fin"),
    Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Le", then="fin"),
    Reply(body=b"[" * 50_000),
    *map(_json, (None, [], 1, {}, {"token": None}, {"trust": []}, {"trust": {"id": ["c4nary"]}})),
    *(_json({"token": {**_USER, name: None}}) for name in _USER),
    _json({"token": {**_USER, "roles": ["role"]}}),
    _json({"token": {**_USER, "user": {"id": 1}}}),
]


@pytest.mark.parametrize("answer", range(len(_NONE)))
@pytest.mark.parametrize("asked", ["GET", "POST"])
def test_answers_that_are_none(answer: int, asked: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever the token is said to be, and whatever the trust: a warning, and no error."""

    def keystone(request: Request) -> Reply:
        if request.method == "POST" and request.target == "/v3/auth/tokens":
            reply = _json({"token": _LOGIN}, 201)
            reply.headers["X-Subject-Token"] = "ours"
            return reply
        return _NONE[answer] if request.method == asked else _json({"token": _USER})

    with ScriptedServer(keystone) as server:
        credentials = Credentials(auth_url=server.url, username="u", password="p", project_id="p")
        login = KeystoneLogin(credentials, ConnectionSettings(timeout=5))
        trustee = Trustee(
            login, ConnectionSettings(timeout=5), StoreOptions.of(SwiftDriver.options)
        )
        account: Any = SimpleNamespace(login=SimpleNamespace(token=lambda: "c4nary"))
        with contextlib.closing(login):
            upload = UploadLogin(account, trustee)
            upload.extend()
            assert upload.account is account
            upload.end()
    assert "No trust for an upload in segments" in caplog.text
    assert "c4nary" not in caplog.text
