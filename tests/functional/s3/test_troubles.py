"""Troubles on the way to a real S3 gateway: overcome, or told; nothing is left in any bucket."""

import datetime
import functools
import io
from collections.abc import Callable, Iterator

import pytest

from store_lib import Store
from store_lib.exceptions import AuthorizationFailure, ErrorStatus, RemoteServiceUnavailable
from tests.functional.s3.conftest import LARGE, MIB, MakeStore, assert_nothing_is_left, stream
from tests.functional.s3.places import Place, ceph_http
from tests.functional.s3.spoiled_gateway import SpoiledGateway, spoiled_gateway
from tests.relay import CuttingRelay
from tests.s3_faults import refusal, times
from tests.scripted_server import Reply
from tests.servers.ceph import Ceph

MakeReply = Callable[[], Reply]

#: Every kind of request that an upload in parts is made of, and a put.
REQUESTS = [
    ("POST", "box/id?uploads"),
    ("PUT", "partNumber=2"),
    ("PUT", "claims/id"),
    ("POST", "box/id?uploadId"),
    ("DELETE", "claims/id"),
    ("PUT", "box/small"),
]


def busy() -> Reply:
    """Return S3's word for too many requests."""
    return refusal(503, "SlowDown")


def failed() -> Reply:
    """Return a trouble within the server."""
    return refusal(500, "InternalError")


def failed_late() -> Reply:
    """Return a trouble that came up once a good answer had begun."""
    return refusal(200, "InternalError")


def cut() -> Reply:
    """End the connection in place of an answer."""
    return Reply(raw=b"", then="rst")


def silent() -> Reply:
    """Give no answer until the client goes away."""
    return Reply(raw=b"", then="stall")


@pytest.fixture(params=[False, True], ids=["http", "https"])
def gateway(
    ceph: Ceph, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SpoiledGateway]:
    """Ceph's gateway, so far unspoiled."""
    monkeypatch.setattr("store_lib.transfer.retry.FIRST_PAUSE", 0.001)
    with spoiled_gateway(ceph, tls=request.param) as running:
        yield running


def add_both(store: Store) -> None:
    """Add an object by a put and one in parts, and read them."""
    for name, data in (("small", LARGE[:1000]), ("id", LARGE)):
        with store.get(store.add(name, stream(data), len(data)).uri) as reader:
            assert reader.read() == data


@pytest.mark.parametrize("trouble", [busy, failed, cut])
def test_a_burst_of_trouble_is_overcome(
    gateway: SpoiledGateway, make_store: MakeStore, trouble: MakeReply
) -> None:
    """Two bad answers to every kind of request, and lost good ones after them, do no harm."""
    store = make_store(gateway.place, transfer_attempts=8)
    for each in REQUESTS:
        gateway.before.append(times(2, trouble, *each))
        gateway.after.append(times(1, trouble, *each))
    add_both(store)
    assert_nothing_is_left(store, "id", "small")


@pytest.mark.parametrize("executed", [False, True], ids=["failed", "done all the same"])
def test_an_error_within_a_good_answer_is_seen(
    gateway: SpoiledGateway, make_store: MakeStore, executed: bool
) -> None:
    """A complete that fails after a 200, or seems to, is repeated, or found to be done."""
    store = make_store(gateway.place)
    faults = gateway.after if executed else gateway.before
    faults.append(times(1, failed_late, "POST", "box/id?uploadId"))
    add_both(store)
    assert_nothing_is_left(store, "id", "small")


@pytest.mark.parametrize(("method", "text"), [each for each in REQUESTS if each[0] != "DELETE"])
@pytest.mark.parametrize("trouble", [busy, failed_late])
def test_trouble_without_end_is_told_and_leaves_nothing(
    gateway: SpoiledGateway, make_store: MakeStore, trouble: MakeReply, method: str, text: str
) -> None:
    """A gateway that fails for good is one clear error once the attempts are used up."""
    store = make_store(gateway.place, transfer_attempts=3)
    gateway.before.append(times(999, trouble, method, text))
    name, size = ("small", 1000) if "small" in text else ("id", len(LARGE))
    with pytest.raises(RemoteServiceUnavailable) as caught:
        store.add(name, stream(LARGE[:size]), size)
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert (caught.value.store, caught.value.object_id) == ("it", name)
    # Each part asks for the upload to be begun.
    assert 3 <= len(gateway.made(method, text)) <= (9 if "uploads" in text else 3)
    assert_nothing_is_left(store)


@pytest.mark.parametrize("executed", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize(("method", "text"), [("PUT", "partNumber=2"), ("PUT", "box/small")])
def test_an_answer_that_is_late_once_costs_a_repeat(
    gateway: SpoiledGateway, make_store: MakeStore, executed: bool, method: str, text: str
) -> None:
    """A part, or a put, that is not answered in time is sent again; done twice, it counts once."""
    store = make_store(gateway.place, s3_store_read_timeout=1)
    (gateway.after if executed else gateway.before).append(times(1, silent, method, text))
    add_both(store)
    assert_nothing_is_left(store, "id", "small")


def test_an_answer_that_never_comes_is_told(gateway: SpoiledGateway, make_store: MakeStore) -> None:
    """A part that is never answered ends the add after s3_store_read_timeout, all it took."""
    store = make_store(gateway.place, s3_store_read_timeout=1, transfer_attempts=2)
    gateway.before.append(times(999, silent, "PUT", "partNumber=1"))
    with pytest.raises(RemoteServiceUnavailable, match="s3_store_read_timeout") as caught:
        store.add("id", stream(LARGE), len(LARGE))
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert len(gateway.made("PUT", "partNumber=1")) == 2
    assert_nothing_is_left(store)


@pytest.mark.parametrize("size", [4 * MIB, len(LARGE)])
@pytest.mark.parametrize("told", [True, False], ids=["size told", "size not told"])
def test_what_is_cut_half_way_is_sent_again(
    ceph: Ceph, make_store: MakeStore, size: int, told: bool
) -> None:
    """A connection that ends in the middle of a part, or of a put, costs a repeat of that one."""
    place = ceph_http(ceph)
    with CuttingRelay(int(ceph.s3_endpoint.rpartition(":")[2]), at=size // 2) as relay:
        store = make_store(Place({**place.options, "s3_store_host": relay.url}))
        result = store.add("id", stream(LARGE[:size]), size if told else None)
        assert relay.cuts == 1
        assert result.report.retries == 1
        with store.get(result.uri) as reader:
            assert reader.read() == LARGE[:size]
        assert_nothing_is_left(store, "id")


def test_a_gateway_that_takes_few_requests_at_once_is_waited_for(
    ceph: Ceph, make_store: MakeStore
) -> None:
    """The gateway's own SlowDown, given for more than two requests at once, does no harm."""
    store = make_store(ceph_http(ceph), transfer_attempts=20)
    store.delete(store.add("first", io.BytesIO(b"x"), 1).uri)
    limit = functools.partial(
        ceph.daemon, "rgw", "config", "set", var="rgw_max_concurrent_requests"
    )
    limit(val=["2"])
    try:
        result = store.add("id", stream(LARGE * 3), len(LARGE) * 3)
        assert result.report.retries
    finally:
        limit(val=["1024"])
    with store.get(result.uri) as reader:
        assert reader.read() == LARGE * 3
    assert_nothing_is_left(store, "id")


def test_a_wrong_clock_is_told(
    place: Place, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests signed an hour ago are refused by the gateway, which is told with what to do."""
    store = make_store(place)
    uri = store.add("old", io.BytesIO(b"x"), 1).uri
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    with monkeypatch.context() as patched:
        patched.setattr(
            "botocore.auth.get_current_datetime", lambda *_: now - datetime.timedelta(hours=1)
        )
        calls: list[Callable[[], object]] = [
            lambda: store.add("id", stream(LARGE), len(LARGE)),
            lambda: store.add("id", stream(LARGE)),
            lambda: store.add("id", io.BytesIO(b"x"), 1),
            lambda: store.get(uri),
            lambda: store.stat(uri),
            lambda: store.delete(uri),
        ]
        for call in calls:
            with pytest.raises(AuthorizationFailure, match="clock") as caught:
                call()
            assert caught.value.status is ErrorStatus.PERMANENT
    assert_nothing_is_left(store, "old")
