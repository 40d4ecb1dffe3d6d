"""Large objects on real Swift: nested and dynamic manifests, glance_store's, and many segments."""

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from store_lib import Store
from store_lib.exceptions import BackendException, Duplicate, NotFound
from tests.functional.swift.accounts import Raw, v1
from tests.servers.swift import Swift

SEGMENT = 1000 * 1024
LARGE = os.urandom(4 * SEGMENT + 5)


@pytest.fixture
def make(
    swift: Swift, container: str, open_store: Callable[[dict[str, Any]], Store]
) -> Callable[..., Store]:
    """Make a store in the test's container."""
    return lambda **more: open_store(v1(swift, container, **more))


@pytest.mark.parametrize("size", [None, len(LARGE)])
def test_nested_manifests(
    make: Callable[..., Store], raw: Raw, container: str, size: int | None
) -> None:
    """Of more segments than a manifest may list, manifests of manifests make one object."""
    store = make(swift_store_manifest_entries=2)
    uri = store.add("deep", [LARGE], size).uri
    names = raw.names(container)
    assert [each.rpartition("/")[2] for each in names if "/" in each] == [
        *(f"{number:08}" for number in range(1, 6)),
        *(f"m1-{number:06}" for number in range(1, 4)),
        *(f"m2-{number:06}" for number in range(1, 3)),
    ]
    assert store.stat(uri).size == len(LARGE)
    with store.get(uri) as reader:
        assert reader.read() == LARGE
    with store.get(uri, 2 * SEGMENT - 3, 7) as reader:
        assert reader.read() == LARGE[2 * SEGMENT - 3 :][:7]
    copied = store.copy(uri, "flat").uri
    assert list(store.list_incomplete()) == []
    store.delete(uri)
    with store.get(copied) as reader:
        assert reader.read() == LARGE
    store.delete(copied)
    assert raw.names(container) == []


def test_dynamic_manifests(make: Callable[..., Store], raw: Raw, container: str) -> None:
    """By option an object is what lies under its own prefix, and no other id gets in."""
    store = make(swift_store_manifest="dynamic")
    uri = store.add("img", [LARGE]).uri
    other = store.add("img-copy", [LARGE[::-1]]).uri
    assert "X-Object-Manifest" in raw("HEAD", f"/{container}/img").headers
    for each, data in ((uri, LARGE), (other, LARGE[::-1])):
        assert store.stat(each).size == len(LARGE)
        with store.get(each) as reader:
            assert reader.read() == data
    with pytest.raises(Duplicate):
        store.add("img", [LARGE])
    assert {(each.object_id, each.size) for each in store.list()} == {
        ("img", len(LARGE)),
        ("img-copy", len(LARGE)),
    }
    copied = store.copy(uri, "third").uri
    assert list(store.list_incomplete()) == []
    for each in (uri, other, copied):
        store.delete(each)
    assert raw.names(container) == []


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_post_of_metadata_costs_nothing(
    make: Callable[..., Store], raw: Raw, container: str, kind: str
) -> None:
    """Whatever a POST sets or takes away, a sweep spares the segments of a finished object."""
    store = make(swift_store_manifest=kind)
    uri = store.add("img", [LARGE]).uri
    path = f"/{container}/img"
    manifest = raw("HEAD", path).headers.get("X-Object-Manifest")
    kept = {"X_Object_Manifest": manifest} if manifest else {}
    for metadata in ({"X_Object_Meta_Note": "x"}, {"X_Delete_After": "9999"}, {}):
        assert raw("POST", path, **metadata, **kept).status == 202
        assert not list(store.list_incomplete())
        assert not store.sweep(0)
        with store.get(uri) as reader:
            assert reader.read() == LARGE
    if manifest:  # Swift takes the header away where it is not sent again
        assert raw("POST", path).status == 202
        assert not store.sweep(0)
        with pytest.raises(BackendException, match=f"X-Object-Manifest: {container}/"):
            store.stat(uri)
        raw("POST", path, **kept)
        with store.get(uri) as reader:
            assert reader.read() == LARGE
    store.delete(uri)
    assert raw.names(container) == []


@pytest.mark.parametrize("versions", [False, True], ids=["plain", "versions"])
def test_symbolic_links(
    make: Callable[..., Store], raw: Raw, container: str, versions: bool
) -> None:
    """Objects are read through links; a delete takes the link alone, and one that dangles too."""
    raw("PUT", f"/{container}", **({"X_Versions_Enabled": "true"} if versions else {}))
    data = {"static": LARGE, "dynamic": LARGE[::-1], "small": b"x"}
    uris = {
        name: make(swift_store_manifest=name if name != "small" else "static").add(name, [it]).uri
        for name, it in data.items()
    }
    store = make()
    for name, it in data.items():
        link = uris[name].replace(name, f"link-{name}")
        raw("PUT", f"/{container}/link-{name}", X_Symlink_Target=f"{container}/{name}")
        assert store.stat(link).size == len(it)
        listed = {each.object_id: each.size for each in store.list()}
        assert listed[f"link-{name}"] == listed[name] == len(it)
        copied = store.copy(link, "copied").uri
        with store.get(link) as reader, store.get(copied) as copy:
            assert reader.read() == copy.read() == it
        store.delete(copied)
        store.delete(link)
        with store.get(uris[name]) as reader:
            assert reader.read() == it
        raw("PUT", f"/{container}/dangling", X_Symlink_Target=f"{container}/gone")
        dangling = uris[name].replace(name, "dangling")
        with pytest.raises(NotFound, match="symbolic link"):
            store.stat(dangling)
        with pytest.raises(Duplicate):
            store.add("dangling", [LARGE])
        assert (None, "dangling") in [(each.size, each.object_id) for each in store.list()]
        store.delete(dangling)
    for uri in uris.values():
        store.delete(uri)
    assert raw.names(container) == []


def _as_glance_store(raw: Raw, container: str, name: str, data: bytes) -> None:
    """Store an object in segments as glance_store does."""
    for number in range(0, len(data), SEGMENT):
        piece = data[number : number + SEGMENT]
        raw("PUT", f"/{container}/{name}-{number // SEGMENT + 1:05}", piece)
    raw("PUT", f"/{container}/{name}", X_Object_Manifest=f"{container}/{name}-")


def test_what_glance_store_wrote(make: Callable[..., Store], raw: Raw, container: str) -> None:
    """Its objects in segments are listed once, sized, read, copied and deleted, and no others."""
    store = make()
    raw("PUT", f"/{container}")
    _as_glance_store(raw, container, "img", LARGE)
    raw("PUT", f"/{container}/img-plain", b"another")
    raw("PUT", f"/{container}/img-2x", b"")
    assert {(each.object_id, each.size) for each in store.list()} == {
        ("img", len(LARGE)),
        ("img-2x", 0),
        ("img-plain", 7),
    }
    uri = f"swift+config://ref1/{container}/img"
    store.delete(f"swift+config://ref1/{container}/img-plain")
    assert store.stat(uri).size == len(LARGE)
    with store.get(uri) as reader:
        assert reader.read() == LARGE
    copied = store.copy(uri, "copy").uri
    store.delete(uri)
    assert [each for each in raw.names(container) if "segments" not in each] == ["copy", "img-2x"]
    with store.get(copied) as reader:
        assert reader.read() == LARGE
    with pytest.raises(NotFound):
        store.delete(uri)


def test_a_delete_of_more_segments_than_a_page(
    make: Callable[..., Store], raw: Raw, container: str
) -> None:
    """An object of 11,000 segments in nested manifests, too many for one request, goes whole."""
    store = make()
    raw("PUT", f"/{container}")
    raw("PUT", f"/{container}/s", b"x")
    tag = hashlib.md5(b"x").hexdigest()
    entry = {"path": f"/{container}/s", "etag": tag, "size_bytes": 1}
    manifests = []
    for number in range(11):
        path = f"/{container}/m{number}"
        body = json.dumps([entry] * 1000).encode()
        reply = raw("PUT", f"{path}?multipart-manifest=put", body)
        assert reply.status == 201, reply.data
        etag = reply.headers["Etag"].strip('"')
        manifests.append({"path": path, "etag": etag, "size_bytes": 1000})
    body = json.dumps(manifests).encode()
    assert raw("PUT", f"/{container}/huge?multipart-manifest=put", body).status == 201
    uri = f"swift+config://ref1/{container}/huge"
    assert store.stat(uri).size == 11_000
    store.delete(uri)
    assert raw.names(container) == []


def test_containers_by_the_first_characters_of_ids(
    make: Callable[..., Store], raw: Raw, container: str
) -> None:
    """With a seed objects are spread, read, listed, swept and deleted in all their containers."""
    store = make(swift_store_multiple_containers_seed=3)
    ids = ["fdae39a1-bac5-4238-aba4-69bcc726e848", "0a", "0ab-c"]
    uris = {each: store.add(each, [LARGE if each == "0a" else b"x"]).uri for each in ids}
    assert f"/{container}_fda/" in uris[ids[0]]
    raw("PUT", f"/{container}_other")
    raw("PUT", f"/{container}_other/stranger", b"x")
    assert {each.object_id for each in store.list()} == set(ids)
    assert {each.location.uri for each in store.list()} == set(uris.values())
    assert list(store.list_incomplete()) == []
    for uri in uris.values():
        store.delete(uri)
    assert list(store.list()) == []
    raw("DELETE", f"/{container}_other/stranger")
