"""What a real S3 gateway refuses, and how that is told; nothing is left in any bucket."""

import io
import json
import os
import urllib.request
import uuid
from collections.abc import Iterator

import pytest

from store_lib import Store
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
from tests.functional.s3.conftest import MakeStore
from tests.functional.s3.places import Place, ceph_http
from tests.servers.ceph import Ceph
from tests.servers.process import free_ports

MIB = 1024 * 1024
LARGE = os.urandom(MIB) * 12 + b"end"


def stream(data: bytes) -> Iterator[bytes]:
    """Return a source that does not tell its length."""
    return (data[at : at + MIB] for at in range(0, len(data), MIB))


def assert_nothing_is_left(store: Store) -> None:
    """The bucket holds neither an object, nor a claim, nor an upload in parts."""
    assert list(store.list()) == []
    assert list(store.list_incomplete()) == []


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


def test_a_large_copy_is_made_in_parts(place: Place, make_store: MakeStore) -> None:
    """Above a limit (5 GiB; lowered here) the server copies part by part, all or nothing."""
    store = make_store(place)
    driver = store.driver
    driver.copy_limit, driver.copy_part = 6 * MIB, 5 * MIB  # type: ignore[union-attr]
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
    uri = make_store(place, s3_store_bucket="taken-bucket").add(str(uuid.uuid4()), LARGE[:3], 3).uri
    store = make_store(place, s3_store_bucket="taken-bucket", **options)
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


def test_nobody_there_is_told(ceph: Ceph, make_store: MakeStore) -> None:
    """A host that does not answer is RemoteServiceUnavailable once the attempts are used up."""
    (port,) = free_ports(1)
    for host in (f"http://127.0.0.1:{port}", "http://nowhere.invalid"):
        store = make_store(
            ceph_http(ceph), s3_store_host=host, transfer_attempts=2, s3_store_connect_timeout=2
        )
        with pytest.raises(RemoteServiceUnavailable, match="No answer from") as caught:
            store.add("id", stream(LARGE), len(LARGE))
        assert caught.value.status is ErrorStatus.EXHAUSTED


def test_an_untrusted_certificate_is_told(ceph: Ceph, make_store: MakeStore) -> None:
    """A certificate that nobody vouches for is refused at once, and the option is named."""
    place = ceph_http(ceph)
    store = make_store(place, s3_store_host=ceph.s3_tls_endpoint)
    with pytest.raises(RemoteServiceUnavailable, match="s3_store_cacert") as caught:
        store.add("id", stream(LARGE), len(LARGE))
    assert caught.value.status is ErrorStatus.PERMANENT
    broken = make_store(place, s3_store_host=ceph.s3_tls_endpoint, s3_store_cacert=__file__)
    with pytest.raises(StoreError):
        broken.add("id", io.BytesIO(b"x"), 1)


def test_credentials_come_from_boto3s_chain(
    ceph: Ceph, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keys in the configuration, those of the environment are used; or none is told."""
    none = {"s3_store_access_key": None, "s3_store_secret_key": None}
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = make_store(ceph_http(ceph), **none)
    with pytest.raises(MissingCredentialError, match="Set s3_store_access_key"):
        store.add("id", io.BytesIO(b"x"), 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ceph.s3_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ceph.s3_secret_key)
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

    def add_until_full() -> None:
        while len(kept) < 9:
            kept.append(store.add(f"id-{len(kept)}", stream(LARGE), len(LARGE)).uri)

    with pytest.raises(StorageFull, match="QuotaExceeded") as caught:
        add_until_full()
    assert caught.value.status is ErrorStatus.PERMANENT
    assert len(list(store.list())) == len(kept)
    assert list(store.list_incomplete()) == []


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
        s3_store_bucket=owner.driver._settings.bucket,  # type: ignore[union-attr]
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
