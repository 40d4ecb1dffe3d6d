"""What leaves a client: a StoreError, in whose traceback no frame's variable holds a secret."""

import contextlib
import json
import ssl
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from store_lib.clients.library_calls import LibraryCall
from store_lib.exceptions import Forbidden, NotFound, StoreError
from store_lib.redaction import Secret
from tests.frames import frames
from tests.scripted_server import Reply, Request, ScriptedServer
from tests.unit.clients.asking import (
    CANARY,
    CLIENTS,
    Ask,
    http,
    keystone,
    s3,
    swift,
    trust,
    vmware,
)


def shown(error: BaseException) -> str:
    """Return what a traceback with the variables of its frames shows of an error."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format())


_DEEP = b"[" * 50_000

#: What hostile and broken servers answer.
ANSWERS: dict[str, Callable[[Request], Reply]] = {
    "nothing": lambda _: Reply(raw=b"", then="fin"),
    "a reset": lambda _: Reply(raw=b"", then="rst"),
    "no HTTP": lambda _: Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n", then="fin"),
    "a cut head": lambda _: Reply(raw=b"HTTP/1.1 200 OK\r\nX-Subject-T", then="fin"),
    "a cut body": lambda _: Reply(body=b"{}", headers={"Content-Length": "99"}, then="fin"),
    "a page": lambda _: Reply(body=b"<html>It works!</html>"),
    "an empty object": lambda _: Reply(body=b"{}"),
    "a list": lambda _: Reply(201, b"[1, null]", {"X-Subject-Token": "t"}),
    "null": lambda _: Reply(201, b'{"token": null, "volume": null}', {"X-Subject-Token": "t"}),
    "depth": lambda _: Reply(body=_DEEP),
    "a long number": lambda _: Reply(body=b'{"token": %s}' % (b"9" * 5000)),
    "latin": lambda _: Reply(body=b"\xff\xfe{", headers={"X-Storage-Url": "http://\xff/"}),
    "an echo": lambda request: Reply(
        201,
        json.dumps({"token": {"expires_at": [CANARY], "methods": CANARY}}).encode(),
        {"X-Subject-Token": "t", "X-Storage-Url": CANARY, "X-Auth-Token": CANARY},
    ),
    "a redirect": lambda _: Reply(302, headers={"Location": "http://127.0.0.9:9/other"}),
    "no login": lambda _: Reply(401, b'{"error": {"message": "no", "code": 401}}'),
    "no right": lambda _: Reply(403, b"no"),
    "much": lambda _: Reply(413, b"{}", {"Retry-After": "x"}),
    "many": lambda _: Reply(429, b'{"overLimit": 1}', {"Retry-After": "x"}),
    "trouble": lambda _: Reply(500, b'{"badRequest": ["message"]}', {"Retry-After": "-1"}),
    "a gateway": lambda _: Reply(502, b"<html>", {"Retry-After": "9" * 5000}),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("ask", CLIENTS, ids=lambda each: each.__name__)
def test_a_hostile_answer_is_an_error_without_secrets(
    ask: Ask,
    answer: Callable[[Request], Reply],
    authority: tuple[ssl.SSLContext, str],
    wsdl: Path,
) -> None:
    """Neither a frame nor a text of all that led to the error holds what was sent."""
    context = authority[0] if ask is vmware else None
    with ScriptedServer(answer, tls=context) as server, contextlib.suppress(NotFound):
        try:
            ask(server.url, authority[1], wsdl)
        except StoreError as error:
            kept = dict(frames(error))
            text = str(error)
            chain = "".join(traceback.format_exception(error))
        else:
            # What any web server may say of an object, and what S3 says of one without a body.
            assert ask in (http, s3, swift, trust, keystone)
            return
    leaks = {where: value[:200] for where, value in kept.items() if CANARY in value}
    assert not leaks
    assert CANARY not in text
    assert CANARY not in chain.replace(Path(__file__).name, "")
    assert kept  # our own frames are there


def test_frames_of_the_library_go_and_others_stay() -> None:
    """The block's own frame is kept, and so is all that the caller was handling."""

    def library(password: str) -> None:
        try:
            raise KeyError(len(password))
        except KeyError as error:
            raise OSError("wrapped", ValueError(password[:1])) from error

    def client() -> None:
        with LibraryCall(lambda error: Forbidden(str(error))):
            library(CANARY)

    with pytest.raises(RuntimeError) as mine:  # noqa: PT012
        try:
            raise RuntimeError("the caller's")
        except RuntimeError:
            with pytest.raises(Forbidden) as caught:
                client()
            raise
    assert mine.value.__traceback__ is not None
    assert mine.value.__traceback__.tb_next is None
    assert "the caller's" in shown(caught.value)
    assert CANARY not in shown(caught.value)
    assert "in client" in shown(caught.value)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert "library" not in {each.name for each in traceback.extract_tb(cause.__traceback__)}


def test_an_error_of_ours_passes_without_the_librarys_frames() -> None:
    """What a hook of ours raised within a library is the very error, without what lay between."""
    error = NotFound("gone")

    def library(password: str) -> None:
        raise error

    with pytest.raises(NotFound) as caught, LibraryCall(lambda error: Forbidden()):
        library(CANARY)
    assert caught.value is error
    assert CANARY not in shown(error)


def test_what_is_no_error_keeps_its_frames() -> None:
    """An interrupt shows where the process was."""

    def library() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught, LibraryCall(lambda error: Forbidden()):
        library()
    assert "in library" in shown(caught.value)


def test_a_secret_is_not_represented() -> None:
    """It is the string that it is, but for what shows variables."""
    secret = Secret(CANARY)
    assert secret == CANARY
    assert f"{secret}" == CANARY
    assert CANARY not in repr({"X-Auth-Token": secret})
