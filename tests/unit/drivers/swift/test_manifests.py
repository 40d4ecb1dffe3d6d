"""Symbolic links and manifests of others: what they name is looked at, and proves nothing."""

import contextlib
import json
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest

from store_lib import Store
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    InvalidObjectId,
    NotFound,
    NotSupported,
    StoreError,
)
from tests.scripted_server import Reply, Request
from tests.unit.drivers.swift.small_swift import SmallSwift

SEGMENT = 1000 * 1024
LARGE = os.urandom(2 * SEGMENT + 5)
REFERENCE = "swift+config://ref1/glance/"


def _link(small: SmallSwift, name: str, target: str) -> str:
    small.containers.add("glance")
    small.objects[f"glance/{name}"] = b"", {}
    small.links[f"glance/{name}"] = target
    return REFERENCE + name


def _slo(small: SmallSwift, name: str, *entries: str) -> str:
    """Make a static large object as anybody may who can write in the container."""
    small.containers.add("glance")
    small.objects[f"glance/{name}"] = b"", {"x-static-large-object": "True"}
    small.manifests[f"glance/{name}"] = list(entries)
    return REFERENCE + name


def _read(store: Store, uri: str) -> bytes:
    with store.get(uri) as reader:
        return bytes(reader.read())


@pytest.mark.parametrize("kind", ["static", "dynamic", "small"])
def test_of_a_symbolic_link_only_the_link_is_deleted(
    small: SmallSwift, open_store: Callable[..., Store], kind: str
) -> None:
    """What it leads to is read and sized through it, and stays."""
    manifest = {} if kind == "small" else {"swift_store_manifest": kind}
    store = open_store(**small.options(**manifest))
    data = b"small" if kind == "small" else LARGE
    uri = store.add("id", [data]).uri
    link = _link(small, "link", "glance/id")
    assert _read(store, link) == data
    assert store.stat(link).size == len(data)
    sizes = {each.object_id: each.size for each in store.list()}
    assert sizes == {"id": len(data), "link": len(data)}
    with pytest.raises(Duplicate):
        store.add("link", [data])
    store.delete(link)
    assert not small.links
    assert _read(store, uri) == data
    with pytest.raises(NotFound):
        store.delete(link)


@pytest.mark.parametrize("answer", [404, 403, 409])
def test_a_link_that_leads_nowhere_is_listed_and_deleted(
    small: SmallSwift, store: Store, answer: int
) -> None:
    """Its id is taken, so it shows in the listing, and neither stat nor get finds an object."""
    store.add("id", [LARGE])
    link = _link(small, "link", "glance/gone")
    if answer != 404:  # another's account, or a link that asks for another ETag
        small.fail(r"^(GET|HEAD) .*/glance/link$", Reply(answer))
    assert [(each.object_id, each.size) for each in store.list()] == [
        ("id", len(LARGE)),
        ("link", None),
    ]
    for call in (store.stat, store.get, lambda uri: store.copy(uri, "copy")):
        with pytest.raises(StoreError) as caught:
            call(link)
        if answer == 404:
            assert isinstance(caught.value, NotFound)
            assert "symbolic link, and what it leads to is not there" in str(caught.value)
    with pytest.raises(Duplicate):
        store.add("link", [b"x"], 1)
    before = len(small.sent("PUT"))
    with pytest.raises(Duplicate):
        store.add("link", [LARGE])
    assert len(small.sent("PUT")) == before  # it is raised before any byte is sent
    store.delete(link)
    assert [each.object_id for each in store.list()] == ["id"]


def test_a_link_in_place_of_an_object_keeps_its_segments(small: SmallSwift, store: Store) -> None:
    """It may lead to where the manifest was moved to."""
    store.add("id", [LARGE])
    small.objects["glance/moved"] = small.objects["glance/id"]
    small.manifests["glance/moved"] = small.manifests.pop("glance/id")
    link = _link(small, "id", "glance/moved")
    assert not store.sweep(0)
    assert _read(store, link) == LARGE


def test_a_link_in_a_container_with_versions(small: SmallSwift, store: Store) -> None:
    """There every object is a link to its version, and goes with its segments all the same."""
    uri = store.add("id", [LARGE]).uri
    link = _link(small, "link", "glance/id")

    def versions(request: Request) -> Reply | None:
        path, _, query = request.target.partition("?")
        name = path.rpartition("/")[2]
        if "symlink=get" not in query:
            return None
        plain = Request(request.method, path, request.headers, b"", 0)
        if "version-id=5" in query:
            if name == "link":
                plain = Request(request.method, request.target, request.headers, b"", 0)
            reply = small.usual(plain)
        else:
            reply = Reply(200, headers={"X-Symlink-Target": f"glance/{name}?version-id=5"})
        reply.headers["X-Object-Version-Id"] = "5"
        return reply

    small.fail(r"^(HEAD|GET) .*/glance/(id|link)\?", versions)
    small.fail(
        r"^GET .*/glance/id\?.*manifest=get.*version-id=5",
        lambda _: Reply(200, json.dumps(small._manifest("glance/id")).encode()),
    )
    small.faults.reverse()
    store.delete(link)
    assert _read(store, uri) == LARGE
    store.delete(uri)
    assert not small.names


def test_segments_elsewhere_are_left(
    small: SmallSwift, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Only what lies beside an object, and was uploaded for no other, goes with it."""
    uri = store.add("id", [LARGE]).uri
    segments = [each for each in small.names if ".segments" in each]
    small.containers.add("other")
    small.objects["other/victim"] = b"victim", {}
    small.objects["glance/own"] = b"own", {}
    shared = _slo(small, "copy", "other/victim", *segments, "glance/own")
    small.objects["glance/dlo"] = b"", {"x-object-manifest": "other/vict"}
    small.objects["glance/all"] = b"", {"x-object-manifest": "glance/.segments/"}
    for each in (shared, f"{REFERENCE}dlo", f"{REFERENCE}all"):
        with caplog.at_level(logging.WARNING):
            store.delete(each)
    assert "4 segments that its manifest named were left" in caplog.text
    assert small.names == [*segments, "glance/id", "other/victim"]
    assert _read(store, uri) == LARGE


@pytest.mark.parametrize(
    "name", ["/glance/../../AUTH_victim/c/o", "/../AUTH_victim/o", "/glance/./o", "/glance//../o"]
)
@pytest.mark.parametrize("nested", [False, True])
def test_names_with_dots_are_no_paths(
    small: SmallSwift, store: Store, name: str, nested: bool
) -> None:
    """A manifest whose names a client or a proxy would resolve is refused, and nothing is sent."""
    uri = _slo(small, "id", "glance/own")
    small.objects["glance/own"] = b"own", {}
    entry = {"name": name, "bytes": 1, "hash": "x", "sub_slo": nested}
    own = {"name": "/glance/own", "bytes": 3, "hash": "x"}
    body = json.dumps([own, entry]).encode()
    small.fail(r"^GET .*/glance/id\?", Reply(200, body))
    for call in (lambda uri: store.copy(uri, "copy"), store.delete):
        with contextlib.suppress(BackendException, NotSupported):  # or it is left where it lies
            call(uri)
    paths = [each.target.partition("?")[0] for each in small.server.requests]
    assert not [each for each in paths if {".", ".."} & set(each.split("/"))]


def test_a_dynamic_manifest_into_another_account_is_none(small: SmallSwift, store: Store) -> None:
    """Neither its delete nor a sweep sends anything there."""
    small.containers.add("glance")
    for number, value in enumerate(("glance/../../A/c/o-", "../A/c/o-", "./x")):
        small.objects[f"glance/{number}"] = b"", {"x-object-manifest": value}
        small.objects["glance/../../A/c/o-00001"] = b"victim", {}
        list(store.list())
        store.sweep(0)
        if number:
            store.delete(f"{REFERENCE}{number}")
        else:
            with pytest.raises(BackendException, match=r"'\.' or '\.\.'"):
                store.delete(f"{REFERENCE}{number}")
    paths = [each.target.partition("?")[0] for each in small.server.requests]
    assert not [each for each in paths if {".", ".."} & set(each.split("/"))]


def test_manifests_that_list_one_another_end(small: SmallSwift, store: Store) -> None:
    """Each is read once, whoever lists it."""
    names = [f"glance/m{number}" for number in range(5)]
    for each in names:
        small.objects[each] = b"", {"x-static-large-object": "True"}
        small.manifests[each] = names
    _slo(small, "id", *names, "glance/id")
    static = {"x-static-large-object": "True", "Content-Length": "9"}
    small.fail(r"^HEAD .*/glance/id(\?|$)", Reply(200, headers=static))
    small.fail(r"^GET .*/glance/m[0-9]\?", lambda _: Reply(200, json.dumps(entries).encode()))
    entries = [{"name": f"/{each}", "bytes": 9, "hash": "x", "sub_slo": True} for each in names]
    small.fail(r"^GET .*/glance/id\?", lambda _: Reply(200, json.dumps(entries).encode()))
    before = len(small.server.requests)
    with pytest.raises(NotSupported):
        store.copy(f"{REFERENCE}id", "copy")
    store.delete(f"{REFERENCE}id")
    assert not small.names
    assert len(small.server.requests) - before < 60


def test_manifests_nested_too_deep_are_refused(small: SmallSwift, store: Store) -> None:
    """Swift nests ten; of more nothing is deleted."""
    for number in range(12):
        _slo(small, f"m{number}", f"glance/m{number + 1}")
    small.objects["glance/m12"] = b"x", {}
    with pytest.raises(BackendException, match="nested 10 times"):
        store.delete(f"{REFERENCE}m0")
    assert len(small.names) == 13
    store.delete(f"{REFERENCE}m1")
    assert small.names == ["glance/m0"]


@pytest.mark.parametrize("what", ["objects", "containers"])
def test_a_listing_that_does_not_advance_is_told(
    small: SmallSwift, open_store: Callable[..., Store], what: str
) -> None:
    """A server that gives the same page for ever is an error, and no endless loop."""
    seed = 3 if what == "containers" else 0
    store = open_store(**small.options(swift_store_multiple_containers_seed=seed))
    entry = {"name": "glance_a", "bytes": 1, "hash": "x", "last_modified": "2026-01-01T00:00:00"}
    page = Reply(200, json.dumps([entry]).encode())
    small.fail(r"^GET .*(TEMP_test|glance)\?" if seed else r"^GET .*glance\?", page)
    with pytest.raises(BackendException, match="next page behind"):
        list(store.list())


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {"subdir": "a/"},
        {"name": 5},
        {"name": "\ud800"},
        {"bytes": -1},
        {"bytes": 2**70},
        {"bytes": "1"},
        {"bytes": True},
        {"last_modified": "yesterday"},
        {"last_modified": None},
        {"hash": []},
    ],
    ids=str,
)
def test_a_listing_that_is_none_is_told(small: SmallSwift, store: Store, entry: Any) -> None:
    """Types and bounds are checked where the answer is read."""
    good = {"name": "a", "bytes": 1, "hash": "x", "last_modified": "2026-01-01T00:00:00"}
    page = [{**good, **entry} if isinstance(entry, dict) and "subdir" not in entry else entry]
    small.fail(r"^GET .*glance\?", Reply(200, json.dumps(page).encode()))
    with pytest.raises(BackendException, match="Swift, got"):
        list(store.list())


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[5]", b"[" * 100_000, b'[{"name": "/c"}]'])
def test_a_manifest_that_is_none_is_told(small: SmallSwift, store: Store, body: bytes) -> None:
    """So they are of a manifest, and nothing is deleted by one that is none."""
    uri = store.add("id", [LARGE]).uri
    small.fail(r"^GET .*manifest=get", Reply(200, body))
    with pytest.raises(BackendException, match="Swift, got"):
        store.delete(uri)
    small.faults.clear()
    assert _read(store, uri) == LARGE


def test_a_copy_of_other_bytes_than_the_manifest_names_is_refused(
    small: SmallSwift, store: Store
) -> None:
    """What the server copied is held against what the object is made of."""
    uri = store.add("id", [LARGE]).uri
    small.fail(r"^COPY .*/00000002$", Reply(201, headers={"Etag": "0" * 32}))
    small.fail(
        r"^COPY ",
        lambda request: Reply(
            201, headers={"Etag": small.usual(_as_head(request)).headers["ETag"]}
        ),
    )
    with pytest.raises(NotSupported, match="with the ETag"):
        store.copy(uri, "copy")


def _as_head(request: Request) -> Request:
    return Request("HEAD", request.target, request.headers, b"", 0)


def test_a_copy_by_a_link_into_another_account_is_refused(small: SmallSwift, store: Store) -> None:
    """The names in its manifest are those of the other account."""
    store.add("id", [LARGE])
    link = _link(small, "link", "glance/id")

    def led(request: Request) -> Reply:
        reply = small.usual(request)
        reply.headers["Content-Location"] = "/v1/AUTH_other/glance/id"
        return reply

    small.fail(r"^HEAD .*/glance/link$", led)
    with pytest.raises(NotSupported, match="into another one"):
        store.copy(link, "copy")


@pytest.mark.parametrize("data", [b"x", LARGE], ids=["small", "large"])
def test_an_id_like_a_segment_of_a_dynamic_object_is_refused(
    small: SmallSwift, store: Store, data: bytes
) -> None:
    """It would be read as part of that object, and be deleted with it."""
    small.containers.add("glance")
    small.objects["glance/old"] = b"", {"x-object-manifest": "glance/old-"}
    small.objects["glance/old-00001"] = b"segment", {}
    small.objects["glance/new"] = b"", {"x-object-manifest": "glance/new/"}
    for object_id in ("old-00002", "old-7"):
        with pytest.raises(InvalidObjectId, match="a segment of the large object 'old'"):
            store.add(object_id, [data])
    assert not small.sent("PUT")
    for object_id in ("new-00001", "old-a", "none-1", "-1", "old-1-a"):
        store.add(object_id, [data])
    assert {"new-00001", "old", "old-a"} < {each.object_id for each in store.list()}


def test_only_what_glance_store_numbers_is_a_segment(small: SmallSwift, store: Store) -> None:
    """Other ids that begin alike are listed, and do not go with the object."""
    small.containers.add("glance")
    small.objects["glance/img"] = b"", {"x-object-manifest": "glance/img-"}
    others = ["img-2", "img-2024", "img-copy", "img-00001-a"]
    for name in ("img-00001", "img-00002", "img-100000", *others):
        small.objects[f"glance/{name}"] = b"x", {}
    listed = {each.object_id: each.size for each in store.list()}
    assert listed == {"img": 3, **dict.fromkeys(others, 1)}
    store.delete(f"{REFERENCE}img")
    assert small.names == sorted(f"glance/{each}" for each in others)
