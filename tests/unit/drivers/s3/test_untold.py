"""S3 servers that leave fields out of their answers: what they do not tell is not known."""

import io
from collections.abc import Callable

import pytest

from store_lib import Store
from store_lib.drivers.s3 import S3Driver
from store_lib.exceptions import RemoteServiceUnavailable
from tests.scripted_server import Reply, Request
from tests.unit.drivers.s3.conftest import MakeStore
from tests.unit.drivers.s3.server import S3Server

DATA = bytes(range(256)) * 1000

#: What a server may leave out, or spoil.
FIELDS = {
    "no-etag": {"ETag": None},
    "blank-etag": {"ETag": ""},
    "empty-etag": {"ETag": '""'},
    "no-time": {"Last-Modified": None},
    "no-length": {"Content-Length": None},
    "no-date": {"Date": None},
    "nothing": dict.fromkeys(("ETag", "Last-Modified", "Date", "Content-Length")),
    "bad-date": {"Date": "2020-01-01T00:00:00Z"},
    "worse-date": {"Date": "Mon, 02 Nov 99999999 10:00:00 GMT"},
    "bad-time": {"Last-Modified": "yesterday"},
    "bad-length": {"Content-Length": "many"},
}


@pytest.fixture(params=FIELDS)
def untold(request: pytest.FixtureRequest, s3: S3Server) -> Callable[[], dict[str, str | None]]:
    """The server's answers about objects lack or spoil fields, once this is called."""
    fields: dict[str, str | None] = FIELDS[request.param]

    def spoil() -> dict[str, str | None]:
        whole = s3.server.handler
        assert whole is not None

        def handler(request: Request) -> Reply:
            reply = whole(request)
            of_object = request.target.startswith("/box/") and "uploadId" not in request.target
            if reply.status >= 300 or not of_object:
                return reply
            for name, value in fields.items():
                reply.headers = {
                    given: reply.headers[given]
                    for given in reply.headers
                    if given.lower() != name.lower()
                }
                if name == "Content-Length" and request.method == "GET":
                    reply.chunked = 1000
                elif name != "Content-Length" or request.method == "HEAD":
                    reply.headers[name] = value
            return reply

        s3.server.handler = handler
        return fields

    return spoil


@pytest.mark.parametrize("rate", [1, 1e15], ids=["fast", "slow"])
def test_what_is_not_told_is_not_known(
    store: Store,
    s3: S3Server,
    untold: Callable[[], dict[str, str | None]],
    rate: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Size, time and ETag are there as far as the server tells them, and the bytes are right."""
    monkeypatch.setattr(S3Driver, "read_size", 50_000)
    monkeypatch.setattr(S3Driver, "single_stream_rate", rate)
    s3.store("id", DATA)
    fields = untold()
    uri = f"{store.driver.url_prefix}/id"  # type: ignore[union-attr]
    found = store.stat(uri)
    assert found.size == (None if "Content-Length" in fields else len(DATA))
    assert (found.modified is None) == ("Last-Modified" in fields)
    assert ("etag" in found.metadata) == ("ETag" not in fields)
    with store.get(uri) as reader:
        assert reader.read() == DATA
    for offset, length in (
        (7, 100),
        (255_999, 1),
        (255_990, None),
        (0, 0),
        (7, 0),
        (256_000, None),
    ):
        with store.get(uri, offset, length) as reader:
            assert reader.read() == DATA[offset : None if length is None else offset + length]


@pytest.mark.parametrize("mode", ["checked", "atomic"])
@pytest.mark.parametrize("size", [100, 200_000], ids=["put", "parts"])
def test_objects_are_added_all_the_same(
    make_store: MakeStore,
    s3: S3Server,
    untold: Callable[[], dict[str, str | None]],
    mode: str,
    size: int,
) -> None:
    """An add, a copy and a delete need none of these fields; no claim is left."""
    store = make_store(s3_store_create_only=mode)
    untold()
    added = store.add("id", io.BytesIO(DATA[:size]), size=size)
    store.copy(added.uri, "other")
    assert {name: each.data for name, each in s3.objects.items()} == dict.fromkeys(
        ("id", "other"), DATA[:size]
    )
    store.delete(added.uri)
    assert set(s3.objects) == {"other"}


def test_an_empty_etag_of_a_part_is_handed_back(store: Store, s3: S3Server) -> None:
    """What a server calls a part is its own affair."""
    whole = s3.server.handler
    assert whole is not None

    def handler(request: Request) -> Reply:
        reply = whole(request)
        if "partNumber" in request.target:
            reply.headers["ETag"] = '""'
        return reply

    s3.server.handler = handler
    assert store.add("id", io.BytesIO(DATA)).size == len(DATA)
    assert s3.objects["id"].data == DATA


def test_without_an_etag_there_is_one_answer(
    store: Store, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing identifies the bytes, they are neither read in ranges nor resumed."""
    monkeypatch.setattr(S3Driver, "read_size", 50_000)
    monkeypatch.setattr(S3Driver, "single_stream_rate", 1e15)
    s3.store("id", DATA)
    whole = s3.server.handler
    assert whole is not None
    cut: list[int | None] = [None, 20_000]

    def handler(request: Request) -> Reply:
        reply = whole(request)
        reply.headers["ETag"] = None
        reply.cut = cut.pop(0)
        reply.then = "keep" if reply.cut is None else "fin"
        return reply

    s3.server.handler = handler
    uri = f"{store.driver.url_prefix}/id"  # type: ignore[union-attr]
    with store.get(uri) as reader:
        assert reader.read() == DATA
    with store.get(uri) as reader, pytest.raises(RemoteServiceUnavailable):
        reader.read()
    assert not cut
