"""botocore on our connections: bodies that are sent once the server says so, answers cut short."""

import io
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from store_lib import Store
from store_lib.drivers.s3 import S3Driver, connections
from store_lib.drivers.s3.client import Client
from store_lib.drivers.s3.errors import ConditionFailed
from store_lib.exceptions import RemoteServiceUnavailable
from store_lib.options import StoreOptions
from tests.s3_faults import refusal, times, xml_answer
from tests.scripted_server import Reply, Request, ScriptedServer
from tests.unit.drivers.s3.server import S3Server

BODY = bytes(range(256)) * 8192
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
WAIT = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.fixture(params=["http", "https"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Client, S3Server]]:
    """A client, and the server that it asks."""
    authority, context = trustme.CA(), None
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedServer(tls=context) as server:
        options = {
            "s3_store_host": server.url,
            "s3_store_bucket": "box",
            "s3_store_access_key": "a",
            "s3_store_secret_key": "s",
            "s3_store_cacert": str(path),
            "s3_store_payload_signing": "never",
        }
        driver = S3Driver("it", StoreOptions.of(S3Driver.options, **options))
        driver.configure()
        yield driver._client, S3Server(server)
        driver.close()


def put(client: Client, body: bytes = BODY) -> None:
    """Put an object from a file, as the parts of an upload are."""
    client.call("put_object", Bucket="box", Key="k", Body=io.BytesIO(body), ContentLength=len(body))


@pytest.mark.parametrize(
    "told",
    [GO_ON, WAIT + GO_ON, WAIT * 3 + GO_ON, GO_ON + WAIT, b"", WAIT],
    ids=["at-once", "later", "much-later", "hints-after", "never", "hints-alone"],
)
def test_a_large_body_follows_the_answer_that_asks_for_it(
    asked: tuple[Client, S3Server], told: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent after 100 Continue, or when the server has been silent for long, and once."""
    if GO_ON not in told:
        monkeypatch.setattr(connections, "_CONTINUE_TIMEOUT", 0.01)
    if not told:  # botocore's own patience, of a second
        monkeypatch.setattr("urllib3.util.wait_for_read", lambda *_: False)
    client, s3 = asked
    s3.server.expectation = told
    put(client)
    assert s3.objects["k"].data == BODY
    assert s3.server.requests[0].headers["expect"] == "100-continue"
    put(client, b"then this")
    assert s3.objects["k"].data == b"then this"
    assert s3.server.connections == 1


def test_a_body_that_is_refused_is_not_sent(asked: tuple[Client, S3Server]) -> None:
    """A final answer in place of 100 is the answer; the connection may wait for a body, so goes."""
    client, s3 = asked
    reply = refusal(412, "PreconditionFailed")
    reply.interim = (103,)
    s3.server.refusal = lambda request: reply
    with pytest.raises(ConditionFailed, match="told by the server"):
        put(client)
    assert s3.server.requests[0].body == b""
    put(client, b"then this")
    assert s3.objects["k"].data == b"then this"
    assert s3.server.connections == 2


def test_another_protocol_is_no_leave_to_go_on(asked: tuple[Client, S3Server]) -> None:
    """101 in place of 100 is an error, and the body is not sent."""
    client, s3 = asked
    s3.server.expectation = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    with pytest.raises(RemoteServiceUnavailable):
        put(client)
    assert "k" not in s3.objects


@pytest.mark.parametrize(("size", "asks"), [(0, False), (1 << 20, False), ((1 << 20) + 1, True)])
def test_small_bodies_are_sent_at_once(
    asked: tuple[Client, S3Server], size: int, asks: bool
) -> None:
    """Whether to send a body of one chunk is not asked: that costs a round trip, or a second."""
    client, s3 = asked
    put(client, bytes(size))
    assert ("expect" in s3.server.requests[0].headers) is asks


def test_the_last_part_of_an_upload_is_sent_at_once(store: Store, s3: S3Server) -> None:
    """No request of an add in parts of a few KiB asks first."""
    store.add("an-id", io.BytesIO(BODY[:200_000]), size=200_000)
    assert s3.objects["an-id"].data == BODY[:200_000]
    assert len(s3.made("PUT", "partNumber")) == 3
    assert not [each for each in s3.server.requests if "expect" in each.headers]


@pytest.mark.parametrize("interim", [(103,), (102, 102)], ids=["hints", "processing"])
@pytest.mark.parametrize("size", [100, 200_000], ids=["put", "parts"])
def test_an_add_is_not_done_by_an_interim_answer(
    store: Store, s3: S3Server, interim: tuple[int, ...], size: int
) -> None:
    """Every request answered with hints first, then with 503, is made again: the object is there.

    Only the final answer counts, of the put, of a part, and of what joins the parts.
    """
    failed: set[str] = set()

    def busy(request: Request) -> Reply | None:
        if request.method not in ("PUT", "POST") or request.target in failed:
            return None
        failed.add(request.target)
        reply = refusal(503, "SlowDown")
        reply.interim = interim
        return reply

    s3.before.append(busy)
    store.add("an-id", io.BytesIO(BODY[:size]), size=size)
    assert s3.objects["an-id"].data == BODY[:size]
    assert len(failed) >= 2


def test_a_listing_that_ends_early_is_not_an_empty_one(store: Store, s3: S3Server) -> None:
    """An answer that ends before its length, with no byte or in its head, is an error."""
    s3.store("an-id", b"data")
    text = xml_answer("<X><IsTruncated>false</IsTruncated></X>")
    text.cut, text.then = 0, "fin"
    for reply in (
        text,
        Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n", then="fin"),
    ):
        s3.before.append(times(999, lambda reply=reply: reply, "GET", "list-type"))
        with pytest.raises(RemoteServiceUnavailable):
            list(store.list())
        s3.before.clear()
    assert [each.object_id for each in store.list()] == ["an-id"]
