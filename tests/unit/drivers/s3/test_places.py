"""Which URIs a store obeys: those of its own server, and deletes only of what stores have added."""

from collections.abc import Callable

import pytest

from store_lib import Store, Stores
from store_lib.drivers.s3.location import S3Location
from store_lib.exceptions import BadStoreUri, Forbidden
from tests.unit.drivers.s3.conftest import MakeStore
from tests.unit.drivers.s3.server import S3Server


def _read(store: Store, uri: str) -> bytes:
    with store.get(uri) as reader:
        return bytes(reader.read())


def _calls(store: Store) -> list[Callable[[str], object]]:
    return [store.get, store.stat, store.delete, store.url, lambda uri: store.copy(uri, "new")]


@pytest.mark.parametrize(
    "place",
    ["other.example/box", "KEY:SECRET@other.example/box", "127.0.0.1:1/box", "HOST/path/box"],
)
def test_nothing_is_asked_for_a_uri_of_another_server(
    store: Store, s3: S3Server, place: str
) -> None:
    """Also where the store is named; what to do is said, and no secret."""
    s3.store("key", b"own")
    host = s3.server.url.partition("://")[2]
    for call in _calls(store):
        with pytest.raises(BadStoreUri, match="option former_places") as caught:
            call(f"s3://{place.replace('HOST', host)}/key")
        assert "SECRET" not in str(caught.value)
        assert caught.value.store == "it"
    assert "key" in s3.objects
    assert not s3.server.requests


@pytest.mark.parametrize(
    "uri",
    [
        "s3://HOST/../key",
        "s3://HOST/./key",
        "s3://HOST/box/..",
        "s3://HOST/box/.",
        "s3://HOST/arn:aws:s3:eu-west-1:123456789012:accesspoint:mine/key",
        "s3://HOST/evil.example?/key",
        "s3://HOST/a b/key",
        "s3://HOST/é/key",
    ],
)
def test_a_bucket_or_a_key_that_leads_elsewhere_is_none(
    store: Store, s3: S3Server, uri: str
) -> None:
    """Neither dots, which a path loses, nor an ARN, for which botocore asks another server."""
    uri = uri.replace("HOST", s3.server.url.partition("://")[2])
    for call in _calls(store):
        with pytest.raises(BadStoreUri, match="Expected s3://host/bucket/key"):
            call(uri)
    assert not s3.server.requests


def test_another_bucket_is_read_and_only_what_a_store_added_is_deleted(
    store: Store, make_store: MakeStore, s3: S3Server
) -> None:
    """S3 has no marks but ours: what glance_store wrote looks like anybody's."""
    s3.twin = "twin"
    s3.store("anybodys", b"theirs")
    ours = store.add("ours", [b"ours"]).uri.replace("/box/", "/twin/")
    theirs = ours.replace("/ours", "/anybodys")
    assert (_read(store, ours), _read(store, theirs)) == (b"ours", b"theirs")
    assert store.stat(theirs).size == 6
    s3.server.requests.clear()
    with pytest.raises(Forbidden, match=r"list 127\.0\.0\.1:[0-9]+/twin in former_places"):
        store.delete(theirs)
    assert [each.method for each in s3.server.requests] == ["HEAD"]
    store.delete(ours)
    assert set(s3.objects) == {"anybodys"}
    host = s3.server.url.partition("://")[2]
    make_store(former_places=[f"{host}/twin"]).delete(theirs)
    assert not s3.objects


def test_in_its_own_bucket_everything_is_the_stores(store: Store, s3: S3Server) -> None:
    """What glance_store has written there has no mark, and is deleted."""
    s3.store("old", b"x")
    store.delete(f"{store.driver.url_prefix}/old")  # type: ignore[union-attr]
    assert not s3.objects


def test_a_server_that_the_store_has_left_is_named_by_an_option(
    make_store: MakeStore, s3: S3Server
) -> None:
    """Its URIs mean the same bucket and key on the server that is configured now."""
    store = make_store(former_places=["s3+https://Old.example:8080/", "older.example/gone/box"])
    s3.store("key", b"moved")
    for place in ("s3://old.example:8080", "s3+https://K:S@OLD.example:8080"):
        assert _read(store, f"{place}/box/key") == b"moved"
    assert _read(store, "s3://older.example/gone/box/key") == b"moved"
    for place in ("old.example", "older.example", "older.example/gone/else", "old.example:8080/x"):
        with pytest.raises(BadStoreUri):
            store.stat(f"s3://{place}/box/key")
    copied = store.copy("s3://old.example:8080/box/key", "copy").uri
    assert copied == f"{store.driver.url_prefix}/copy"  # type: ignore[union-attr]
    store.delete("s3://old.example:8080/box/key")
    assert set(s3.objects) == {"copy"}


def test_of_several_stores_the_one_that_was_there_is_asked(s3: S3Server) -> None:
    """Nobody has to name it."""
    s3.store("key", b"moved")
    options = {
        "s3_store_host": s3.server.url,
        "s3_store_access_key": "access-key-of-tests",
        "s3_store_secret_key": "secret-key-of-tests",
    }
    conf = {
        "DEFAULT": {"enabled_backends": "a:s3, b:s3"},
        "glance_store": {"default_backend": "a"},
        "a": {**options, "s3_store_bucket": "twin"},
        "b": {**options, "s3_store_bucket": "box", "former_places": "old.example, o.example/gone"},
    }
    s3.twin = "gone"
    with Stores.from_mapping(conf, strict=True) as stores:
        for uri in ("s3://old.example/box/key", "s3://o.example/gone/key"):
            assert stores.stat(uri).size == 5
        with pytest.raises(BadStoreUri, match="outside of every configured store"):
            stores.stat("s3://o.example/box/key")
        stores.delete("s3://o.example/gone/key")
    assert not s3.objects


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3.example.org", "S3.example.org:443", True),
        ("s3.example.org:80", "s3.example.org", True),
        ("s3.example.org:8080", "s3.example.org", False),
        ("s3.example.org/a", "s3.example.org", False),
        ("s3.example.org/A", "s3.example.org/a", False),
        ("s3.amazonaws.com", "s3.eu-west-1.amazonaws.com", True),
        ("s3.dualstack.us-east-2.amazonaws.com", "s3-us-west-2.amazonaws.com", True),
        ("s3.amazonaws.com", "s3.cn-north-1.amazonaws.com.cn", False),
        ("s3.amazonaws.com", "ec2-1-2-3-4.compute.amazonaws.com", False),
        ("s3.amazonaws.com.evil.example", "s3.amazonaws.com", False),
    ],
)
def test_names_of_one_server(one: str, other: str, same: bool) -> None:
    """A usual port does not count, nor case, nor by which name Amazon is asked."""
    servers = {S3Location.parse(f"s3://{host}/bucket/key").server for host in (one, other)}
    assert (len(servers) == 1) is same
