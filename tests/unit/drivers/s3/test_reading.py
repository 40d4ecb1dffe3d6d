"""Reads from an S3 server in memory: ranges, resume after cuts, and refusals by their kind."""

import functools
import logging
import os
import time
from collections.abc import Callable, Iterator

import pytest

from store_lib import Store, Stores
from store_lib.drivers.s3 import S3Driver
from store_lib.drivers.s3.publishing import PREFIX
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    ErrorStatus,
    Forbidden,
    Invalid,
    InvalidRange,
    MissingCredentialError,
    NotAuthenticated,
    NotFound,
    ObjectChanged,
    RemoteServiceUnavailable,
    StoreError,
)
from tests.s3_faults import refusal, times, xml_answer
from tests.scripted_server import Reply, Request
from tests.unit.drivers.s3.conftest import MakeStore
from tests.unit.drivers.s3.server import S3Server, Started

DATA = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of these tests is read in several ranges at once."""
    monkeypatch.setattr(S3Driver, "read_size", 50_000)
    monkeypatch.setattr(S3Driver, "single_stream_rate", 0)


@pytest.fixture
def uri(store: Store, s3: S3Server) -> str:
    """An object that is there."""
    s3.store("id", DATA)
    driver = store.driver
    assert driver is not None
    return f"{driver.url_prefix}/id"


def test_ranges_are_read_at_once_and_of_one_object(store: Store, s3: S3Server, uri: str) -> None:
    """Every range but the first asks for the very object that the first one met."""
    with store.get(uri) as reader:
        assert reader.read() == DATA
    first, *rest = s3.made("GET", "/box/id")
    assert first.headers["range"] == "bytes=0-49999"
    assert "if-match" not in first.headers
    assert len(rest) == 5
    assert {each.headers["if-match"] for each in rest} == {s3.objects["id"].tag}


def test_a_server_near_by_is_asked_once(
    store: Store, s3: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as one answer comes fast enough it is read to its end; a slow one is given up."""
    # So that what has come when the first piece is taken is never the whole object.
    monkeypatch.setattr("store_lib.driver.Reader.piece_size", 50_000)
    for rate in (1, 1e15):
        monkeypatch.setattr(S3Driver, "single_stream_rate", rate)
        s3.server.requests.clear()
        with store.get(uri) as reader:
            assert reader.read() == DATA
        first, *rest = s3.made("GET", "/box/id")
        assert "range" not in first.headers
        assert bool(rest) == (rate > 1)
        assert all(each.headers["if-match"] == s3.objects["id"].tag for each in rest)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 1), (7, 100), (49_999, 2), (255_999, 5), (256_000, None)]
)
def test_any_range_is_read(store: Store, uri: str, offset: int, length: int | None) -> None:
    """A range is clipped at the object's end, and at the very end is empty."""
    end = None if length is None else offset + length
    with store.get(uri, offset, length) as reader:
        assert reader.size == len(DATA)
        assert reader.read() == DATA[offset:end]


def test_a_range_beyond_the_end_is_refused(store: Store, uri: str) -> None:
    """An offset past the end is InvalidRange with the true size."""
    for length in (0, 1, None):
        with pytest.raises(InvalidRange, match="256000 bytes, got offset 256001"):
            store.get(uri, 256_001, length)


def test_an_empty_object_is_read(store: Store, s3: S3Server, uri: str) -> None:
    """An empty object, of which no range is good, is an empty read."""
    s3.store("id", b"")
    with store.get(uri) as reader:
        assert reader.size == 0
        assert reader.read() == b""
    with pytest.raises(InvalidRange):
        store.get(uri, 1)


@pytest.mark.parametrize("then", ["fin", "rst"])
def test_a_cut_read_goes_on(store: Store, s3: S3Server, uri: str, then: str) -> None:
    """Cut connections are resumed where they ended."""
    answer = s3.server.handler
    assert answer is not None
    left = [4]

    def cutting(request: Request) -> Reply:
        reply = answer(request)
        if left[0] and request.method == "GET":
            left[0] -= 1
            reply.cut, reply.then = 20_000, then  # type: ignore[assignment]
        return reply

    s3.server.handler = cutting
    with store.get(uri) as reader:
        assert reader.read() == DATA
        # A reset may overtake the head: then the first request itself was repeated.
        assert reader.report.retries in ((4,) if then == "fin" else (3, 4))


def test_a_cut_head_is_no_short_object(store: Store, s3: S3Server, uri: str) -> None:
    """An answer whose head ends too early is asked for again, and never taken for an object."""
    half = b"HTTP/1.1 200 OK\r\nETag: x\r\n"
    s3.before.append(times(2, lambda: Reply(raw=half, then="fin"), "GET"))
    with store.get(uri) as reader:
        assert reader.read() == DATA
    s3.before.append(times(2, lambda: Reply(raw=half, then="fin"), "HEAD"))
    assert store.stat(uri).size == len(DATA)


def test_a_stalled_read_ends_with_the_read_timeout(
    make_store: MakeStore, s3: S3Server, uri: str
) -> None:
    """A server that sends no byte is given up after s3_store_read_timeout."""
    store = make_store(s3_store_read_timeout=0.1, transfer_attempts=2)
    s3.before.append(times(99, lambda: Reply(raw=b"", then="stall")))
    with pytest.raises(RemoteServiceUnavailable, match="s3_store_read_timeout"):
        store.get(uri)


@pytest.mark.parametrize("matches", [True, False], ids=["If-Match obeyed", "ignored"])
@pytest.mark.parametrize(
    "other",
    [None, DATA[::-1], DATA[:50_000], DATA[:100_000], DATA[:10], DATA + b"more"],
    ids=["gone", "same size", "ends here", "shorter", "short", "longer"],
)
def test_another_object_is_not_joined_to_the_first(
    store: Store, s3: S3Server, uri: str, other: bytes | None, matches: bool
) -> None:
    """An object that is replaced or deleted while it is read is ObjectChanged on every server."""
    s3.matches = matches

    def change(request: Request) -> None:
        if request.method == "GET" and "if-match" not in request.headers:
            del s3.objects["id"]
            if other is not None:
                s3.store("id", other)
            s3.after.clear()

    s3.after.append(change)
    with store.get(uri) as reader, pytest.raises(ObjectChanged):
        reader.read()


@pytest.mark.parametrize("then", ["fin", "rst"])
def test_a_read_is_not_resumed_on_another_object(
    store: Store, s3: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """A cut read goes on with the same bytes or not at all, where If-Match is ignored too."""
    monkeypatch.setattr(S3Driver, "single_stream_rate", 1)
    s3.matches = False
    answer = s3.server.handler
    assert answer is not None

    def cutting(request: Request) -> Reply:
        reply = answer(request)
        if request.method == "GET" and "if-match" not in request.headers:
            s3.store("id", DATA[::-1])
            reply.cut, reply.then = 20_000, then  # type: ignore[assignment]
        return reply

    s3.server.handler = cutting
    with store.get(uri) as reader, pytest.raises(ObjectChanged):
        reader.read()


def test_the_wrong_bytes_are_not_given(store: Store, s3: S3Server, uri: str) -> None:
    """A range that begins elsewhere than was asked is refused."""
    wrong = Reply(
        206,
        b"abc",
        {
            "Content-Range": "bytes 5-7/256000",
            "ETag": '"x"',
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        },
    )
    s3.before.append(times(99, lambda: wrong, "GET"))
    with pytest.raises(BackendException, match="Expected 3 bytes from 0, got 3 from 5"):
        store.get(uri, 0, 3)


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (403, "AccessDenied", Forbidden, "policies"),
        (403, "SignatureDoesNotMatch", AuthorizationFailure, "Check s3_store_access_key"),
        (403, "InvalidAccessKeyId", AuthorizationFailure, "does not know the access key"),
        (403, "RequestTimeTooSkewed", AuthorizationFailure, "clock"),
        (400, "ExpiredToken", NotAuthenticated, "have expired"),
        (400, "AuthorizationHeaderMalformed", BackendException, "Set s3_store_region_name"),
        (404, "NoSuchKey", NotFound, "NoSuchKey"),
        (404, "NoSuchBucket", NotFound, "NoSuchBucket"),
        (405, "MethodNotAllowed", BackendException, r"MethodNotAllowed \(405\)"),
        (501, "NotImplemented", BackendException, r"NotImplemented \(501\)"),
        (418, "Odd", BackendException, "'told by the server', request tx1"),
    ],
)
def test_a_refusal_is_told_for_what_it_is(
    store: Store, s3: S3Server, uri: str, status: int, code: str, kind: type[StoreError], text: str
) -> None:
    """Each code is its own kind of error, tried once, for a HEAD too, whose answer has no code."""
    s3.before.append(times(999, lambda: refusal(status, code)))
    for call in (store.get, store.stat, store.delete):
        with pytest.raises(kind) as caught:
            call(uri)
        assert caught.value.status is ErrorStatus.PERMANENT
        assert caught.value.store == "it"
    with pytest.raises(kind, match=text) as caught:
        store.get(uri)
    assert "-of-tests" not in str(caught.value)


def test_no_credentials_at_all_is_told(
    make_store: MakeStore, s3: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the options nor where boto3 looks: that is MissingCredentialError."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    store = make_store(s3_store_access_key=None, s3_store_secret_key=None, weight=1)
    with pytest.raises(MissingCredentialError):
        store.stat(uri)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    options = {"s3_store_host": "h", "s3_store_bucket": "box"}
    with Stores.from_mapping({"DEFAULT": {"enabled_backends": "it:s3"}, "it": options}) as stores:
        assert "nobody" in str(stores["it"].error)


def test_a_delete_tells_what_was_not_there(store: Store, s3: S3Server, uri: str) -> None:
    """S3 deletes what is not there without a word; here it is NotFound."""
    store.delete(uri)
    assert s3.objects == {}
    with pytest.raises(NotFound):
        store.delete(uri)


def test_leftovers_are_told_by_their_last_sign_of_life(store: Store, s3: S3Server) -> None:
    """An upload is as old as its newest part; a sweep takes all but a live claim."""
    day = 24 * 3600
    begun = time.time() - 2 * day
    s3.uploads["upload-1"] = Started("id", {}, {1: b"abc", 2: b"de"}, begun, begun + day)
    s3.uploads["upload-2"] = Started("other", begun=begun)
    s3.uploads["upload-3"] = Started("some/bodys", begun=begun)
    s3.store(PREFIX + "live", b"")
    s3.store(PREFIX + "dead", b"")
    s3.objects[PREFIX + "dead"].modified -= 100
    s3.store("done", b"")
    found = {each.key: each for each in store.list_incomplete()}
    assert {key: (each.object_id, each.size, each.live) for key, each in found.items()} == {
        "id/upload-1": ("id", 5, False),
        "other/upload-2": ("other", 0, False),
        PREFIX + "live": ("live", 0, True),
        PREFIX + "dead": ("dead", 0, False),
    }
    assert found["id/upload-1"].modified - found["other/upload-2"].modified == day
    assert [each.object_id for each in store.list()] == ["done"]
    driver = store.driver
    assert driver is not None
    assert not driver.discard(found[PREFIX + "live"], context=None)
    removed = {each.key for each in store.sweep(0)}
    assert removed == {"id/upload-1", "other/upload-2", PREFIX + "dead"}
    assert set(s3.objects) == {PREFIX + "live", "done"}
    assert set(s3.uploads) == {"upload-3"}
    assert not driver.discard(found["id/upload-1"], context=None)


@pytest.mark.parametrize("ahead", [-3 * 3600.0, 0.0, 3 * 3600.0])
def test_ages_are_told_by_the_servers_clock(store: Store, s3: S3Server, ahead: float) -> None:
    """Whichever clock is wrong, an upload that was at work a minute ago is not an hour old."""
    s3.ahead = ahead
    minute, hours = time.time() - 60, time.time() - 7200
    s3.uploads["live"] = Started("a", {}, {1: b"abc"}, hours, minute)
    s3.uploads["begun"] = Started("b", begun=minute)
    s3.uploads["dead"] = Started("c", begun=hours)
    s3.store(PREFIX + "d", b"0123456789abcdef0123456789abcdef 30\n")
    s3.objects[PREFIX + "d"].modified = minute
    ages = {each.object_id: round(each.age / 60) for each in store.list_incomplete()}
    assert ages == {"a": 1, "b": 1, "c": 120, "d": 1}
    assert [each.object_id for each in store.sweep(3600)] == ["c"]


@pytest.mark.parametrize(
    "trouble", [lambda: refusal(503, "SlowDown"), lambda: Reply(raw=b"", then="rst")]
)
def test_each_page_of_a_listing_is_repeated(
    store: Store, s3: S3Server, trouble: Callable[[], Reply]
) -> None:
    """A busy server costs a repeat of one page; no entry is given twice, and none is missing."""
    s3.page = 2
    for number in range(5):
        s3.store(f"{number}", b"x")
        s3.store(f"{PREFIX}{number}", b"")
        s3.uploads[f"upload-{number}"] = Started(f"{number}", parts={1: b"x"})

    def every_second(request: Request) -> Reply | None:
        return trouble() if len(s3.server.requests) % 2 else None

    s3.before.append(every_second)
    assert [each.object_id for each in store.list()] == list("01234")
    assert [each.object_id for each in store.list_incomplete()] == list("01234") * 2
    s3.before[:] = [times(999, trouble)]
    with pytest.raises(RemoteServiceUnavailable) as caught:
        list(store.list())
    assert caught.value.status is ErrorStatus.EXHAUSTED


def test_a_listing_that_does_not_end_is_told(store: Store, s3: S3Server) -> None:
    """A server that says there is more, and not where, or always the same, ends it."""
    for token in ("", "<NextContinuationToken>x</NextContinuationToken>"):
        page = xml_answer(f"<X><IsTruncated>true</IsTruncated>{token}</X>")
        s3.before[:] = [times(9, functools.partial(lambda reply: reply, page), "GET")]
        with pytest.raises(BackendException, match="but not where it continues"):
            list(store.list())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("soon", None),
        (None, None),
    ],
)
def test_a_busy_server_says_when_to_come_back(
    store: Store, s3: S3Server, uri: str, text: str | None, seconds: float | None
) -> None:
    """Retry-After, in seconds or as a date by the server's clock, goes with the error."""
    busy = refusal(503, "SlowDown")
    busy.headers["Retry-After"] = text
    busy.headers["Date"] = "Thu, 01 Jan 2026 00:00:00 GMT"
    s3.before.append(times(999, lambda: busy))
    driver = store.driver
    assert driver is not None
    with pytest.raises(RemoteServiceUnavailable) as caught:
        driver.stat(driver.parse(uri), context=None)
    assert caught.value.retry_after == seconds


def test_presigned_urls_last_a_week_at_most(store: Store, uri: str) -> None:
    """A presigned URL names bucket and key and never the secret; longer than a week is Invalid."""
    url = store.url(uri, expires=60)
    assert "/box/id?X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert "X-Amz-Expires=60" in url
    assert "secret-key-of-tests" not in url
    with pytest.raises(Invalid, match="a week"):
        store.url(uri, expires=7 * 24 * 3600 + 1)
    with pytest.raises(Invalid, match="1 or more seconds"):
        store.url(uri, expires=0)


def test_old_uris_with_credentials_are_read(store: Store, uri: str) -> None:
    """What glance_store wrote years ago is found, with the credentials of today."""
    old = uri.replace("://", "://OLD:KEY/IN+URI@")
    with store.get(old) as reader:
        assert reader.read() == DATA
    with pytest.raises(NotFound) as caught:
        store.stat(old + "-nothing")
    assert "KEY" not in str(caught.value)


def test_checksums_are_verified_where_both_options_say_so(
    make_store: MakeStore, s3: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that the server's own checksum does not fit are told of, and not read again."""
    monkeypatch.setattr(S3Driver, "single_stream_rate", 1)
    supported = {"s3_store_response_checksum_validation": "when_supported"}
    store = make_store(s3_store_enable_data_integrity_protection=True, **supported)
    with store.get(uri) as reader:
        assert reader.read() == DATA
    right = s3.objects["id"]
    s3.store("id", DATA[:-1] + b"?")
    s3.objects["id"].crc = right.crc
    with store.get(uri) as reader, pytest.raises(BackendException, match="checksum") as caught:
        reader.read()
    assert caught.value.status is ErrorStatus.PERMANENT
    with store.get(uri, offset=5) as reader:  # which has none
        assert reader.read() == DATA[5:-1] + b"?"
    with make_store(**supported).get(uri) as reader:
        assert reader.read() == DATA[:-1] + b"?"


@pytest.fixture
def debug_lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that is logged, at DEBUG."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_no_debug_line_shows_a_key(
    debug_lines: pytest.LogCaptureFixture,
    make_store: MakeStore,
    s3: S3Server,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """botocore tells a lot at DEBUG; keys, tokens and signatures are taken out of it."""
    make_store().stat(uri)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "chain-key-of-tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "chain-secret-of-tests")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "chain-token-of-tests/chain-token-of-tests+x==")
    chained = make_store(s3_store_access_key=None, s3_store_secret_key=None)
    chained.stat(uri)
    chained.url(uri)
    s3.before.append(times(9, lambda: refusal(403, "AccessDenied")))
    with pytest.raises(Forbidden):
        chained.stat(uri)
    text = debug_lines.text
    assert "botocore.auth" in text
    for word in ("access-key", "secret-key", "chain-key", "chain-secret", "chain-token"):
        assert f"{word}-of-tests" not in text, word


@pytest.mark.parametrize(
    "line",
    [
        b"<AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>",
        b"<SessionToken>{}</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration>",
        b'{"roleCredentials":{"accessKeyId":"{}","secretAccessKey": "{}","sessionToken":"{}"}}',
        {"headers": {"x-amz-sso_bearer_token": "{}"}, "body": {"WebIdentityToken": "{}"}},
        "GET\n/box/id\nX-Amz-Credential=hush%2F2030&X-Amz-Security-Token={}&X-Amz-Signature={}\n",
        "x-amz-security-token:{}\n\nhost;x-amz-date",
        b"<Error><AWSAccessKeyId>{}</AWSAccessKeyId><SignatureProvided>{}</SignatureProvided>",
    ],
    ids=repr,
)
def test_what_gives_credentials_shows_none(
    debug_lines: pytest.LogCaptureFixture, store: Store, line: object
) -> None:
    """Neither do the lines about a role's, which boto3 fetches: as it prints requests and answers.

    Each ``{}`` stands for a secret that has the characters of base64.
    """
    del store  # whose client hides them
    for name in ("botocore.endpoint", "botocore.auth", "botocore.parsers"):
        text = repr(line) if not isinstance(line, str) else line
        logging.getLogger(name).debug("It was: %s", text.replace("{}", "hush/hush+hush=="))
    assert debug_lines.text.count("It was: ") == 3
    assert "hush" not in debug_lines.text


def test_requests_are_signed_for_the_region_that_is_known(
    make_store: MakeStore, s3: S3Server, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option's, else the environment's, else the first of all."""
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    for option, environment, region in (
        ("mars-2", "moon-2", "mars-2"),
        ("", "moon-2", "moon-2"),
        ("", None, "us-east-1"),
    ):
        if environment is None:
            monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        else:
            monkeypatch.setenv("AWS_DEFAULT_REGION", environment)
        # A bucket of its own name, as clients are shared by what has the same options.
        make_store(s3_store_region_name=option, s3_store_bucket=f"for-{region}").stat(uri)
        assert f"/{region}/s3/aws4_request" in s3.made()[-1].headers["authorization"]


def test_there_are_connections_for_all_threads(make_store: MakeStore) -> None:
    """Two transfers at once with all their threads keep every connection."""
    for threads, connections in ((3, 64), (200, 400)):
        driver = make_store(s3_store_thread_pools=threads).driver
        assert isinstance(driver, S3Driver)
        assert driver._client.open().meta.config.max_pool_connections == connections


def test_connections_are_used_again(store: Store, s3: S3Server, uri: str) -> None:
    """Reads that come to their end leave their connections for the next ones."""
    before = s3.server.connections
    for _ in range(10):
        with store.get(uri) as reader:
            assert reader.read() == DATA
    assert s3.server.connections <= before + 4
