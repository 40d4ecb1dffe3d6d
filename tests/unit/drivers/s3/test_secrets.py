"""What is left of a failed operation shows no key and no signature, not even in tracebacks."""

import io
import traceback
from collections.abc import Callable, Iterator

import pytest

from store_lib import Store
from store_lib.exceptions import StoreError
from tests.s3_faults import refusal
from tests.scripted_server import Reply
from tests.unit.drivers.s3.conftest import CHUNK, MakeStore
from tests.unit.drivers.s3.server import S3Server, Started

DATA = bytes(20 * CHUNK)

FAULTS: dict[str, Callable[[], Reply]] = {
    "refused": lambda: refusal(403, "SignatureDoesNotMatch"),
    "cut": lambda: Reply(raw=b"HTTP/1.1 200 OK\r\nETag: ", then="fin"),
    "silent": lambda: Reply(raw=b"", then="rst"),
    "nonsense": lambda: Reply(body=b"\0<html>", headers={"ETag": None}),
    "redirect": lambda: Reply(307, headers={"Location": "http://elsewhere.example/"}),
    "busy": lambda: refusal(503, "SlowDown"),
}

CALLS: dict[str, Callable[[Store, str], object]] = {
    "get": lambda store, uri: store.get(uri),
    "stat": lambda store, uri: store.stat(uri),
    "delete": lambda store, uri: store.delete(uri),
    "list": lambda store, uri: list(store.list()),
    "list_incomplete": lambda store, uri: list(store.list_incomplete()),
    "sweep": lambda store, uri: store.sweep(0),
    "add": lambda store, uri: store.add("new", io.BytesIO(b"x"), 1),
    "add in parts": lambda store, uri: store.add("new", io.BytesIO(DATA), len(DATA)),
    "add unknown": lambda store, uri: store.add("new", iter([DATA])),
    "copy": lambda store, uri: store.copy(uri, "new"),
}


def _kept(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield where and what every variable is that an error, and what led to it, keeps alive."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        waiting += [each.__cause__, each.__context__]
        yield "its text", f"{each} {each!r} {getattr(each, '__notes__', '')}"
        for frame, line in traceback.walk_tb(each.__traceback__):
            code = frame.f_code
            if "/tests/" not in code.co_filename:
                for name, value in frame.f_locals.items():
                    yield f"{code.co_filename}:{line} {name}", repr(value)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_no_frame_keeps_a_key_or_a_signature(
    make_store: MakeStore, s3: S3Server, call: str, fault: str, late: bool
) -> None:
    """Whatever shows a traceback with its variables, as Sentry does, shows none of them."""
    store = make_store(transfer_retry_seconds=0)
    s3.store("id", b"x")
    s3.uploads["upload"] = Started("left", {}, {1: b"x"})
    asked = iter(range(1000))
    s3.before = [lambda _: FAULTS[fault]() if next(asked) or not late else None]
    try:
        CALLS[call](store, f"{store.driver.url_prefix}/id")  # type: ignore[union-attr]
    except StoreError as error:
        kept = list(_kept(error))
    else:
        assert late or fault == "nonsense"
        return
    assert len(kept) > 1
    for secret in ("secret-key-of-tests", "access-key-of-tests", "Signature=", "AWS4-HMAC"):
        assert not [place for place, value in kept if secret in value]
