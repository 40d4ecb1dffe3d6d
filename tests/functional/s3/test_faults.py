"""What a real S3 gateway refuses, and how that is told; nothing is left in any bucket."""

import contextlib
import io
import json
import logging
import os
import pathlib
import signal
import socket
import urllib.request
import uuid
from collections.abc import Callable, Iterator

import pytest

from store_lib.drivers.s3.writer import S3Writer
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    BadStoreConfiguration,
    Duplicate,
    ErrorStatus,
    Forbidden,
    MissingCredentialError,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
)
from tests.functional.s3.conftest import (
    LARGE,
    MIB,
    MakeStore,
    assert_nothing_is_left,
    bucket_of,
    stream,
)
from tests.functional.s3.places import Place, ceph_http
from tests.scripted_server import Reply, ScriptedServer
from tests.servers.ceph import Ceph
from tests.servers.process import free_ports


@pytest.mark.parametrize("size", [0, 1000, 5 * MIB, len(LARGE)])
@pytest.mark.parametrize("told", [True, False], ids=["size told", "size not told"])
def test_objects_come_back_as_they_were(
    place: Place, make_store: MakeStore, size: int, told: bool
) -> None:
    """What was put, in one request or in parts, is read whole, in ranges, and by its URL."""
    store = make_store(place)
    data = LARGE[:size]
    uri = store.add("id", stream(data), size if told else None).uri
    with store.get(uri) as reader:
        assert reader.read() == data
    with store.get(uri, size // 3, size // 2) as reader:
        assert reader.read() == data[size // 3 : size // 3 + size // 2]
    assert store.stat(uri).size == size
    copied = store.copy(uri, "copied").uri
    if uri.startswith("s3:"):
        with urllib.request.urlopen(store.url(uri, expires=60)) as answer:
            assert answer.read() == data
    store.delete(uri)
    with store.get(copied) as reader:
        assert reader.read() == data
    store.delete(copied)
    assert_nothing_is_left(store)


@pytest.mark.parametrize("rate", [0, 1, 1e15], ids=["ranges", "one stream", "slow stream"])
def test_objects_are_read_by_one_stream_and_by_ranges(
    place: Place, make_store: MakeStore, rate: float
) -> None:
    """However fast the server is taken to be, the same bytes come."""
    store = make_store(place)
    driver = store.driver
    assert driver is not None
    driver.single_stream_rate, driver.read_size = rate, MIB
    uri = store.add("id", stream(LARGE), len(LARGE)).uri
    with store.get(uri) as reader:
        assert reader.read() == LARGE
    with store.get(uri, 7, len(LARGE) - 20) as reader:
        assert reader.read() == LARGE[7:-13]
    assert_nothing_is_left(store, "id")


@pytest.mark.parametrize("signing", ["always", "never"])
def test_the_gateway_takes_signed_and_unsigned_bytes(
    place: Place, make_store: MakeStore, signing: str
) -> None:
    """Whether a signature covers the bytes is the option's to say, by http and by https."""
    store = make_store(place, s3_store_payload_signing=signing)
    for name, size in (("small", 1000), ("put", 4 * MIB), ("parts", len(LARGE))):
        with store.get(store.add(name, stream(LARGE[:size]), size).uri) as reader:
            assert reader.read() == LARGE[:size]
    assert_nothing_is_left(store, "parts", "put", "small")


def test_the_gateway_and_boto3s_checksums(ceph: Ceph, make_store: MakeStore) -> None:
    """By http it takes them; by https, where boto3 sends them after the bytes, it does not."""
    options = {
        "s3_store_enable_data_integrity_protection": True,
        "s3_store_request_checksum_calculation": "when_supported",
        "s3_store_response_checksum_validation": "when_supported",
    }
    store = make_store(ceph_http(ceph), **options)
    for name, size in (("small", 1000), ("put", 4 * MIB), ("parts", len(LARGE))):
        with store.get(store.add(name, stream(LARGE[:size]), size).uri) as reader:
            assert reader.read() == LARGE[:size]
    assert_nothing_is_left(store, "parts", "put", "small")
    tls = {"s3_store_host": ceph.s3_tls_endpoint, "s3_store_cacert": str(ceph.s3_ca)}
    refused = make_store(ceph_http(ceph), **bucket_of(store), **options, **tls)
    with pytest.raises(BackendException, match="MissingContentLength"):
        refused.add("refused", stream(LARGE), len(LARGE))
    assert_nothing_is_left(store, "parts", "put", "small")


def test_a_large_copy_is_made_in_parts(
    place: Place, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above a limit (5 GiB; lowered here) the server copies part by part, all or nothing."""
    store = make_store(place)
    monkeypatch.setattr(S3Writer, "copy_limit", 6 * MIB)
    monkeypatch.setattr(S3Writer, "copy_part", 5 * MIB)
    uri = store.add("id", stream(LARGE), len(LARGE)).uri
    copied = store.copy(uri, "copied").uri
    assert store.stat(copied).metadata["etag"].endswith("-3")
    with store.get(copied) as reader:
        assert reader.read() == LARGE
    with pytest.raises(Duplicate):
        store.copy(uri, "copied")
    store.delete(copied)
    store.delete(uri)
    with pytest.raises(NotFound):
        store.copy(uri, "copied")
    assert_nothing_is_left(store)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"s3_store_secret_key": "wrong"}, AuthorizationFailure, "Check s3_store_access_key"),
        ({"s3_store_access_key": "nobody"}, AuthorizationFailure, "does not know the access key"),
    ],
    ids=["wrong key", "unknown key"],
)
def test_wrong_keys_are_told(
    place: Place,
    make_store: MakeStore,
    options: dict[str, str],
    kind: type[StoreError],
    text: str,
) -> None:
    """A key that is wrong or not known is AuthorizationFailure for everything, and not shown."""
    owner = make_store(place)
    uri = owner.add("old", LARGE[:3], 3).uri
    store = make_store(place, **bucket_of(owner), **options)
    calls = [
        lambda: store.add("id", io.BytesIO(b"x"), 1),
        lambda: store.add("id", stream(LARGE)),
        lambda: store.get(uri),
        lambda: store.stat(uri),
        lambda: store.delete(uri),
        lambda: list(store.list()),
    ]
    for call in calls:
        with pytest.raises(kind, match=text) as caught:
            call()
        assert caught.value.status is ErrorStatus.PERMANENT
        for secret in options.values():
            assert secret not in str(caught.value)
    assert_nothing_is_left(owner, "old")


def test_a_missing_bucket_is_told(place: Place, make_store: MakeStore) -> None:
    """Without create-on-put an add into a missing bucket says what to do; a get finds nothing."""
    store = make_store(place, s3_store_create_bucket_on_put=False)
    for size in (1, 5 * MIB, len(LARGE)):
        for told in (size, None):
            with pytest.raises(BackendException, match="set s3_store_create_bucket_on_put"):
                store.add("id", stream(LARGE[:size]), told)
    uri = f"{store.driver.url_prefix}/id"  # type: ignore[union-attr]
    for call in (store.get, store.stat, store.delete):
        with pytest.raises(NotFound):
            call(uri)
    with pytest.raises(NotFound, match="NoSuchBucket"):
        list(store.list())


def test_a_bad_bucket_name_is_told(ceph: Ceph, make_store: MakeStore) -> None:
    """A name that cannot be one disables the store; one the server refuses fails the add."""
    store = make_store(ceph_http(ceph), s3_store_bucket="no bucket/at all")
    assert isinstance(store.error, BadStoreConfiguration)
    assert "s3_store_bucket" in str(store.error)
    refused = make_store(ceph_http(ceph), s3_store_bucket="192.168.5.4")
    with pytest.raises(BackendException, match="InvalidBucketName"):
        refused.add("id", io.BytesIO(b"x"), 1)


def nobody_at_the_port() -> Iterator[str]:
    """A host that refuses connections."""
    yield f"http://127.0.0.1:{free_ports(1)[0]}"


def nobody_of_the_name() -> Iterator[str]:
    """A host that does not exist."""
    yield "http://nowhere.invalid"


def nobody_who_answers() -> Iterator[str]:
    """A host that lets connections wait: its queue of them is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("nobody", "text"),
    [
        (nobody_at_the_port, "Connection refused"),
        (nobody_of_the_name, "name cannot be looked up"),
        (nobody_who_answers, "did not connect within s3_store_connect_timeout"),
    ],
)
def test_nobody_there_is_told(
    ceph: Ceph, make_store: MakeStore, nobody: Callable[[], Iterator[str]], text: str
) -> None:
    """A host that does not answer is RemoteServiceUnavailable once the attempts are used up."""
    with contextlib.contextmanager(nobody)() as host:
        options = {"s3_store_host": host, "transfer_attempts": 2, "s3_store_connect_timeout": 1}
        store = make_store(ceph_http(ceph), **options)
        calls: list[Callable[[], object]] = [
            lambda: store.add("id", stream(LARGE), len(LARGE)),
            lambda: store.get(f"{store.driver.url_prefix}/id"),  # type: ignore[union-attr]
        ]
        for call in calls:
            with pytest.raises(RemoteServiceUnavailable, match=f"No answer from.*{text}") as caught:
                call()
            assert caught.value.status is ErrorStatus.EXHAUSTED


def test_an_untrusted_certificate_is_told(ceph: Ceph, make_store: MakeStore) -> None:
    """A certificate that nobody vouches for is refused at once, and the option is named."""
    place = ceph_http(ceph)
    owner = make_store(place)
    owner.add("old", io.BytesIO(b"x"), 1)
    store = make_store(place, s3_store_host=ceph.s3_tls_endpoint, **bucket_of(owner))
    with pytest.raises(RemoteServiceUnavailable, match="s3_store_cacert") as caught:
        store.add("id", stream(LARGE), len(LARGE))
    assert caught.value.status is ErrorStatus.PERMANENT
    broken = make_store(place, s3_store_host=ceph.s3_tls_endpoint, s3_store_cacert=__file__)
    with pytest.raises(StoreError):
        broken.add("id", io.BytesIO(b"x"), 1)
    with pytest.raises(RemoteServiceUnavailable, match="s3_store_cacert"):
        store.get(f"{store.driver.url_prefix}/old")  # type: ignore[union-attr]
    assert_nothing_is_left(owner, "old")


def from_environment(ceph: Ceph, directory: pathlib.Path) -> Iterator[dict[str, str]]:
    """Credentials in the environment itself."""
    yield {
        "AWS_ACCESS_KEY_ID": ceph.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": ceph.s3_secret_key,
    }


def from_profile(ceph: Ceph, directory: pathlib.Path) -> Iterator[dict[str, str]]:
    """Credentials in a profile of boto3's file."""
    file = directory / "credentials"
    file.write_text(
        f"[ours]\naws_access_key_id = {ceph.s3_access_key}\n"
        f"aws_secret_access_key = {ceph.s3_secret_key}\n"
    )
    yield {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "ours"}


def from_role(ceph: Ceph, directory: pathlib.Path) -> Iterator[dict[str, str]]:
    """Credentials of the machine's role, which a server tells that only the machine reaches."""
    keys = {"AccessKeyId": ceph.s3_access_key, "SecretAccessKey": ceph.s3_secret_key}
    role = {"Code": "Success", **keys, "Token": "", "Expiration": "2999-01-01T00:00:00Z"}
    answers = {
        "/latest/api/token": "token",
        "/latest/meta-data/iam/security-credentials/": "ours",
        "/latest/meta-data/iam/security-credentials/ours": json.dumps(role),
    }
    with ScriptedServer(lambda request: Reply(body=answers[request.target].encode())) as server:
        yield {
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url,
        }


@pytest.mark.parametrize("source", [from_environment, from_profile, from_role])
def test_credentials_come_from_boto3s_chain(
    ceph: Ceph,
    make_store: MakeStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    source: Callable[[Ceph, pathlib.Path], Iterator[dict[str, str]]],
) -> None:
    """Without keys in the configuration they are found where boto3 looks; or none is told."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "missing"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    none = {"s3_store_access_key": None, "s3_store_secret_key": None}
    store = make_store(ceph_http(ceph), **none)
    with pytest.raises(MissingCredentialError, match="Set s3_store_access_key"):
        store.add("id", io.BytesIO(b"x"), 1)
    with contextlib.contextmanager(source)(ceph, tmp_path) as found:
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        store = make_store(ceph_http(ceph), **none)
        store.delete(store.add("id", io.BytesIO(b"x"), 1).uri)
        assert_nothing_is_left(store)


def test_a_used_up_quota_is_told(ceph: Ceph, make_store: MakeStore) -> None:
    """An upload beyond the user's quota is StorageFull, and nothing of it stays."""
    name = f"limited-{uuid.uuid4().hex[:8]}"
    admin = ("radosgw-admin", "-n", "client.rgw.a")
    keys = json.loads(ceph.run(*admin, "user", "create", "--uid", name, "--display-name", name))[
        "keys"
    ][0]
    limit = ("--uid", name, "--quota-scope=user", "--max-objects=3")
    ceph.run(*admin, "quota", "set", *limit)
    ceph.run(*admin, "quota", "enable", *limit[:3])
    store = make_store(
        ceph_http(ceph),
        s3_store_access_key=keys["access_key"],
        s3_store_secret_key=keys["secret_key"],
    )
    kept: list[str] = []

    def add_until_full(size: int) -> None:
        while len(kept) < 9:
            kept.append(store.add(f"id-{len(kept)}", stream(LARGE[:size]), size).uri)

    # A claim that is gone leaves room, once the gateway has seen that it is.
    for size in (len(LARGE), 1):
        with pytest.raises(StorageFull, match="QuotaExceeded") as caught:
            add_until_full(size)
        assert caught.value.status is ErrorStatus.PERMANENT
    assert_nothing_is_left(store, *(uri.rpartition("/")[2] for uri in kept))


def test_a_forbidden_bucket_is_told(ceph: Ceph, make_store: MakeStore) -> None:
    """Somebody else's bucket is Forbidden."""
    owner = make_store(ceph_http(ceph))
    uri = owner.add("id", io.BytesIO(b"x"), 1).uri
    name = f"other-{uuid.uuid4().hex[:8]}"
    admin = ("radosgw-admin", "-n", "client.rgw.a", "user", "create")
    keys = json.loads(ceph.run(*admin, "--uid", name, "--display-name", name))["keys"][0]
    store = make_store(
        ceph_http(ceph),
        s3_store_access_key=keys["access_key"],
        s3_store_secret_key=keys["secret_key"],
        **bucket_of(owner),
        s3_store_create_bucket_on_put=False,
    )
    for call in (
        lambda: store.stat(uri),
        lambda: store.get(uri),
        lambda: store.delete(uri),
        lambda: store.add("new", stream(LARGE)),
    ):
        with pytest.raises(Forbidden, match="AccessDenied"):
            call()
    owner.delete(uri)
    assert_nothing_is_left(owner)


def test_a_gateway_that_comes_back_is_waited_for(ceph: Ceph, make_store: MakeStore) -> None:
    """A gateway that is restarted in the middle of an add does not end it."""
    store = make_store(ceph_http(ceph), transfer_attempts=8)
    store.add("first", io.BytesIO(b"x"), 1)

    def source() -> Iterator[bytes]:
        for number, piece in enumerate(stream(LARGE)):
            if number == 6:
                ceph.processes["rgw"].stop(kill=True)
                ceph.start_gateway()
            yield piece

    uri = store.add("id", source(), len(LARGE)).uri
    with store.get(uri) as reader:
        assert reader.read() == LARGE


def test_a_gateway_that_stood_still_keeps_no_empty_uploads(
    ceph: Ceph, make_store: MakeStore
) -> None:
    """All that was asked of it meanwhile it does afterwards: our repeats leave nothing."""
    store = make_store(ceph_http(ceph), s3_store_read_timeout=0.5)
    store.add("first", io.BytesIO(b"x"), 1)
    process = ceph.processes["rgw"].pid

    class GoOn(logging.Handler):
        """Lets the gateway go on once two requests have been repeated."""

        seen = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.seen += 1
            if self.seen == 2:
                os.kill(process, signal.SIGCONT)

    def source() -> Iterator[bytes]:
        os.kill(process, signal.SIGSTOP)
        yield from stream(LARGE)

    repeats = logging.getLogger("store_lib.transfer.retry")
    handler = GoOn()
    repeats.addHandler(handler)
    try:
        store.add("id", source(), len(LARGE))
    finally:
        repeats.removeHandler(handler)
        os.kill(process, signal.SIGCONT)
    assert handler.seen >= 2
    assert_nothing_is_left(store, "first", "id")
