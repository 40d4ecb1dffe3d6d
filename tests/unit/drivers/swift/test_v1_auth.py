"""The login of version 1: its answers, whatever they are, and where its key goes."""

import contextlib
from collections.abc import Callable

import pytest

from store_lib import Store
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    RemoteServiceUnavailable,
    StoreError,
)
from tests.scripted_server import Reply, Request, ScriptedServer
from tests.unit.drivers.swift.small_swift import KEY, SmallSwift

Open = Callable[..., Store]


def test_an_interim_answer_is_no_refusal(small: SmallSwift, store: Store) -> None:
    """The token of the final answer is waited for."""

    def later(request: Request) -> Reply:
        reply = small.usual(request)
        reply.interim = (103, 102)
        return reply

    small.fail("GET /auth", later)
    store.add("an-id", b"data")
    assert small.names == ["glance/an-id"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(small: SmallSwift, open_store: Open, status: int) -> None:
    """A login that is redirected is refused, and the other server is not asked."""
    with ScriptedServer() as other:
        small.fail("GET /auth", Reply(status, headers={"Location": f"{other.url}/auth/v1.0"}))
        store = open_store(**small.options())
        with pytest.raises(BackendException, match=f"got status {status}"):
            store.add("an-id", b"data")
        assert other.requests == []


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(raw=b"HTTP/1.1 200 OK\r\nX-Storage-Url: http://h/v1", then="fin"), None),
        (Reply(body=b"x", headers={"Content-Length": "9"}, then="fin"), None),
        (Reply(raw=b"", then="rst"), None),
        (Reply(503), None),
        (Reply(401), AuthorizationFailure),
        (Reply(403), AuthorizationFailure),
        (Reply(200), BackendException),
        (Reply(200, headers={"X-Storage-Url": "http://h/v1"}), BackendException),
        (Reply(404), BackendException),
    ],
)
def test_answers_that_hold_no_login(
    small: SmallSwift, open_store: Open, reply: Reply, error: type[StoreError] | None
) -> None:
    """A truncated answer and a busy server are retried; any other error is raised."""
    small.fail("GET /auth", reply, times=1 if error is None else 9)
    store = open_store(**small.options())
    with pytest.raises(error, match="/auth/v1") if error else contextlib.nullcontext() as caught:
        store.add("an-id", b"data")
    if error:
        assert caught is not None
        assert KEY not in str(caught.value)


def test_a_busy_login_says_when_to_come_again(small: SmallSwift, open_store: Open) -> None:
    """Its Retry-After comes with the error."""
    small.fail("GET /auth", Reply(503, headers={"Retry-After": "7"}))
    store = open_store(**small.options(transfer_attempts=1))
    with pytest.raises(RemoteServiceUnavailable) as caught:
        store.add("an-id", b"data")
    assert caught.value.retry_after == 7
