"""A hostile S3 server under whole operations of a store: only the library's errors come out.

No socket is between: what botocore would send is answered at once, from the answers of a good
server, of which one kind is spoiled.
"""

import contextlib
import dataclasses
import functools
import io
import math
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from urllib3 import HTTPHeaderDict, HTTPResponse

from store_lib import Store, Stores
from store_lib.drivers.s3 import S3Driver
from store_lib.drivers.s3.connections import _Whole
from store_lib.exceptions import StoreError
from tests.scripted_server import Reply, Request
from tests.unit.drivers.s3.server import S3Server, Started
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.mutation import CANARY, Mutator

DATA = bytes(range(256)) * 8
#: Requests of one call after which it has no end.
_MOST = 200

_STATUSES = [200, 200, 200, 200, 200, 204, 206, 301, 304, 307, 400, 403, 404, 409, 412, 416, 501]
_HEADERS = {
    "ETag": '"0cc175b9c0f1b6a831c399e269772661"',
    "Last-Modified": "Thu, 27 Nov 2025 10:00:00 GMT",
    "Date": "Fri, 28 Nov 2025 10:00:00 GMT",
    "Content-Range": "bytes 0-9/2048",
    "Content-Length": "2048",
    "Retry-After": "0",
    "Location": "http://elsewhere.example/box/id",
    "x-amz-bucket-region": "eu-west-1",
    "x-amz-meta-store-lib-nonce": "0" * 32,
    "x-amz-meta-store-lib-life": "30",
    "x-amz-version-id": "null",
    "x-amz-checksum-crc32": "AAAAAA==",
    "x-amz-request-id": "tx1",
}
_PIECES = ["<Key>", "</Key>", "<X/>", "<Error>", "</X>", "<Size>-1</Size>", "<Key></Key>", "true"]


class _Endless(BaseException):
    """A call made too many requests; no ``except Exception`` is to stop this."""


class _Line:
    """What stands in for the network: a good server, with one kind of answer spoiled."""

    def __init__(self) -> None:
        self.s3 = S3Server(SimpleNamespace(handler=None, requests=[]))  # type: ignore[arg-type]
        self.spoiled: tuple[str, Reply] | None = None
        #: What was asked for, by name, with the good answers.
        self.seen: list[tuple[str, Reply]] = []

    def fill(self) -> None:
        """Forget everything, and have the server hold an object, a claim and an upload."""
        self.s3.reset()
        self.s3.page = 1
        for key in ("id", "other", ".store_lib/claims/x"):
            self.s3.store(key, DATA)
        self.s3.uploads["upload"] = Started("left", {}, {1: DATA})
        self.seen.clear()

    def answer(self, request: Any, event_name: str, **_: Any) -> AWSResponse:
        """Answer a request in the network's place."""
        operation = event_name.rpartition(".")[2]
        if len(self.seen) == _MOST:
            raise _Endless(operation)
        parts = urllib.parse.urlsplit(request.url)
        body = request.body or b""
        asked = Request(
            request.method,
            f"{parts.path}?{parts.query}" if parts.query else parts.path,
            {name.lower(): _text(value) for name, value in request.headers.items()},
            body if isinstance(body, bytes) else b"".join(iter(body.read, b"")),
            1,
        )
        reply = self.s3.handle(asked)
        self.seen.append((operation, reply))
        if self.spoiled is not None and self.spoiled[0] == operation:
            reply = self.spoiled[1]
        headers = HTTPHeaderDict({"Content-Length": str(len(reply.body))})
        headers.update({name: value for name, value in reply.headers.items() if value is not None})
        sent = b"" if request.method == "HEAD" else reply.body
        response: Any = HTTPResponse(
            io.BytesIO(sent), headers, reply.status, preload_content=False, decode_content=False
        )
        if reply.status >= 300 or operation != "GetObject":
            response = _Whole(response)
        return AWSResponse(request.url, reply.status, headers, response)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _read(store: Store, uri: str, *span: int) -> object:
    with store.get(uri, *span) as reader:
        return reader.read()


def _uri(store: Store) -> str:
    assert store.driver is not None
    return f"{store.driver.url_prefix}/id"


CALLS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: _read(store, _uri(store)),
    "get of a range": lambda store: _read(store, _uri(store), 7, 100),
    "get of nothing": lambda store: _read(store, _uri(store), 2048),
    "stat": lambda store: store.stat(_uri(store)),
    "delete": lambda store: store.delete(_uri(store)),
    "delete elsewhere": lambda store: store.delete(_uri(store).replace("/box/", "/twin/")),
    "list": lambda store: list(store.list()),
    "list_incomplete": lambda store: list(store.list_incomplete()),
    "sweep": lambda store: store.sweep(0),
    "add": lambda store: store.add("new", io.BytesIO(DATA), len(DATA)),
    "add in parts": lambda store: store.add("new", io.BytesIO(DATA), len(DATA)),
    "copy": lambda store: store.copy(_uri(store), "new"),
    "copy in parts": lambda store: store.copy(_uri(store), "new"),
}


@functools.cache
def _line() -> _Line:
    return _Line()


@functools.cache
def _store(parts: bool, mode: str) -> Store:
    """Return the store for calls in parts, or for others."""
    section: dict[str, Any] = {
        "s3_store_host": "http://s3.example",
        "s3_store_access_key": "key",
        "s3_store_secret_key": CANARY,
        "s3_store_bucket": "box",
        "s3_store_create_only": mode,
        "s3_store_thread_pools": 1,
        "transfer_retry_seconds": 0,
    }
    conf: dict[str, dict[str, Any]] = {"DEFAULT": {"enabled_backends": "it:s3"}, "it": section}
    store = Stores.from_mapping(conf, strict=True)["it"]
    driver = store.driver
    assert isinstance(driver, S3Driver)
    if parts:
        driver._settings = dataclasses.replace(driver._settings, large=0, part=500)
        driver.copy_limit, driver.copy_part = 500, 600
    driver._client.open().meta.events.register("before-send.s3", _line().answer)
    return store


def _made(name: str, mode: str, spoiled: tuple[str, Reply] | None) -> Any:
    """Make a call on a server of its own, and return what came of it."""
    line, store = _line(), _store(name.endswith("in parts"), mode)
    line.fill()
    line.s3.twin = "twin"
    line.spoiled = spoiled
    store.driver._proof._passed.clear()  # type: ignore[union-attr]
    return CALLS[name](store)


@functools.cache
def _good(name: str, mode: str) -> dict[str, list[bytes]]:
    """Return the bodies of a call's good answers, by what was asked for."""
    with contextlib.suppress(StoreError):
        _made(name, mode, None)
    found = defaultdict(list)
    for operation, reply in _line().seen:
        found[operation].append(reply.body)
    return found


def _make(name: str, mutator: Mutator) -> dict[str, Any]:
    mode = mutator.one(["checked", "atomic", "look"])
    good = _good(name, mode)
    operation = mutator.one(sorted(good))
    bodies = good[operation]
    body = mutator.data(bodies, _PIECES) if mutator.below(4) else mutator.one(bodies)
    fields = mutator.fields(_HEADERS) if mutator.below(3) else {}
    return {
        "mode": mode,
        "operation": operation,
        "status": mutator.one(_STATUSES),
        "fields": {each: fields[each] for each in fields if mutator.below(3)},
        "body": body,
    }


def _parse(name: str, given: dict[str, Any]) -> bool:
    reply = Reply(given["status"], given["body"], dict(given["fields"]))
    found = _made(name, given["mode"], (given["operation"], reply))
    if name == "stat":
        assert found.size is None or 0 <= found.size < 2**63
        assert found.modified is None or math.isfinite(found.modified)
    if name in ("list", "list_incomplete", "sweep"):
        for each in found:
            assert each.size is None or each.size >= 0
            assert each.modified is None or math.isfinite(each.modified)
            assert each.object_id
    return True


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    _store.cache_clear()
    _good.cache_clear()


PARSERS = [
    Parser(
        f"S3 under {name}",
        functools.partial(_make, name),
        functools.partial(_parse, name),
        (StoreError,),
        share=0.01,
        why="whole operations, with botocore",
    )
    for name in CALLS
]


def test_s3(parser: Parser, batches: range, record_property: Any) -> None:
    """What comes of a call is what was asked for, or a documented error, after few requests."""
    feed(parser, batches, record_property)
