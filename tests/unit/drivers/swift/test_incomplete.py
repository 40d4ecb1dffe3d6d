"""What a sweep may remove: segments that no object goes by, whatever became of its metadata."""

import os
from collections.abc import Callable

import pytest

from store_lib import Store
from store_lib.driver import Incomplete
from store_lib.exceptions import BackendException, Invalid, RemoteServiceUnavailable
from tests.scripted_server import Reply, Request
from tests.unit.drivers.swift.small_swift import SmallSwift

SEGMENT = 1000 * 1024
LARGE = os.urandom(2 * SEGMENT + 5)
NONCE = "x-object-meta-store-lib-nonce"
URI = "swift+config://ref1/glance/id"


def _post(small: SmallSwift, path: str, **headers: str) -> None:
    """Replace an object's metadata, as operators and tools do."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    token = {"x-auth-token": next(iter(small.tokens))}
    target = f"/v1/TEMP_test/{path}"
    assert small.usual(Request("POST", target, {**token, **sent}, b"", 0)).status == 202


def _read(store: Store, uri: str = URI) -> bytes:
    with store.get(uri) as reader:
        return bytes(reader.read())


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize(
    "metadata",
    [{"x_object_meta_note": "x"}, {"x_delete_at": "9999999999"}, {"content_type": "a/b"}, {}],
    ids=["note", "expiry", "type", "nothing"],
)
def test_a_sweep_spares_an_object_whose_metadata_were_replaced(
    small: SmallSwift, open_store: Callable[..., Store], kind: str, metadata: dict[str, str]
) -> None:
    """A POST takes the nonce away, and the manifest still says whose segments they are."""
    store = open_store(**small.options(swift_store_manifest=kind))
    store.add("id", [LARGE])
    dynamic = small.objects["glance/id"][1].get("x-object-manifest")
    _post(small, "glance/id", **metadata, **({"x_object_manifest": dynamic} if dynamic else {}))
    assert NONCE not in small.objects["glance/id"][1]
    assert not list(store.list_incomplete())
    assert not store.sweep(0)
    assert _read(store) == LARGE


def test_a_dynamic_manifest_that_was_lost_is_told_and_can_be_set_again(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """A POST without X-Object-Manifest empties the object for Swift; its segments stay."""
    store = open_store(**small.options(swift_store_manifest="dynamic"))
    store.add("id", [LARGE])
    manifest = small.objects["glance/id"][1]["x-object-manifest"]
    _post(small, "glance/id", x_object_meta_note="x")
    for call in (store.get, store.stat, lambda uri: store.copy(uri, "other")):
        with pytest.raises(BackendException, match=r"X-Object-Manifest: glance/\.segments/id/"):
            call(URI)
    assert [(each.object_id, each.size) for each in store.list()] == [("id", None)]
    assert not store.sweep(0)
    _post(small, "glance/id", x_object_manifest=manifest)
    assert _read(store) == LARGE


def test_a_manifest_of_glance_store_that_was_lost_is_told(small: SmallSwift, store: Store) -> None:
    """So it is where glance_store laid the segments out."""
    small.containers.add("glance")
    small.objects["glance/id-00001"] = LARGE, {}
    small.objects["glance/id"] = b"", {}
    small.objects["glance/empty"] = b"", {}
    with pytest.raises(BackendException, match="X-Object-Manifest: glance/id-'"):
        store.get(URI)
    assert _read(store, "swift+config://ref1/glance/empty") == b""
    assert store.stat("swift+config://ref1/glance/empty").size == 0


@pytest.mark.parametrize("then", ["list", "discard"])
@pytest.mark.parametrize("refused", [Reply(409), Reply(200, b"[]"), Reply(200, b"{}"), Reply(404)])
def test_a_manifest_that_cannot_be_read_is_a_doubt(
    small: SmallSwift, store: Store, then: str, refused: Reply
) -> None:
    """In doubt segments stay, and the rest of the listing comes all the same."""
    store.add("id", [LARGE])
    store.add("other", [LARGE])
    del small.objects["glance/other"]
    _post(small, "glance/id")
    if then == "discard":  # it was not yet published when it was listed
        head = small.objects.pop("glance/id")
        found = list(store.list_incomplete())
        small.objects["glance/id"] = head
    small.fail(r"^GET .*/glance/id\?", refused)
    if then == "discard":
        assert store.driver is not None
        assert [store.driver.discard(each, context=None) for each in found] == [False, True]
    else:
        assert [each.object_id for each in store.sweep(0)] == ["other"]
    small.faults.clear()
    assert _read(store) == LARGE


@pytest.mark.parametrize("object_id", ["", "..", "a%zz", "\ud800", "%ff"])
def test_keys_that_no_listing_has(store: Store, object_id: str) -> None:
    """What is no key of a leftover is refused, whatever characters it has."""
    key = f"glance/.segments/{object_id}/{'0' * 32}/"
    assert store.driver is not None
    with pytest.raises(Invalid, match="Expected the key of an incomplete upload"):
        store.driver.discard(Incomplete(key, None, 0, 0.0), context=None)


def test_a_busy_server_is_no_doubt(small: SmallSwift, store: Store) -> None:
    """What may be told later is an error, and nothing is removed."""
    store.add("id", [LARGE])
    _post(small, "glance/id")
    small.fail(r"^GET .*/glance/id\?", Reply(503))
    with pytest.raises(RemoteServiceUnavailable):
        store.sweep(0)
    small.faults.clear()
    assert _read(store) == LARGE


def test_an_object_that_is_listed_and_not_shown_keeps_its_segments(
    small: SmallSwift, store: Store
) -> None:
    """One that has expired, or whose servers are down, may come back."""
    store.add("id", [LARGE])
    small.fail(r"^HEAD .*/glance/id(\?|$)", Reply(404))
    assert not store.sweep(0)
    small.faults.clear()
    assert _read(store) == LARGE


def test_what_the_manifest_does_not_name_is_a_leftover(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """Segments of another upload than the object's go, whether that has its nonce or not."""
    for kind in ("static", "dynamic"):
        store = open_store(**small.options(swift_store_manifest=kind, swift_store_container=kind))
        other = "f" * 32
        store.add("id", [LARGE])
        store.add("small", [b"x"])
        for each in ("id", "small"):
            small.objects[f"{kind}/.segments/{each}/{other}/00000001"] = b"left", {}
        _post(small, f"{kind}/small")
        assert [each.object_id for each in store.sweep(0)] == ["id", "small"]
        assert _read(store, f"swift+config://ref1/{kind}/id") == LARGE


def test_a_segment_of_no_upload_is_nobodys(small: SmallSwift, store: Store) -> None:
    """Names that this library does not write are neither listed nor removed, nor followed."""
    nonce = "a" * 32
    small.containers.add("glance")
    for name in ("..", "a%2f", "%ff", "a%20b/c", "a b", "%2E%2E", "a%2F..%2Fb"):
        small.objects[f"glance/.segments/{name}/{nonce}/00000001"] = b"x", {}
    for name in ("..", "1", "a/00000001", "m1", "mine"):
        small.objects[f"glance/.segments/id/{nonce}/{name}"] = b"x", {}
    before = small.names
    assert not list(store.list_incomplete())
    assert not store.sweep(0)
    assert small.names == before


def test_a_numbered_object_beside_no_other_is_an_object(small: SmallSwift, store: Store) -> None:
    """It may be a leftover of glance_store, or be called so: it is listed and never swept."""
    small.containers.add("glance")
    small.objects["glance/img-00007"] = b"x", {}
    assert [each.object_id for each in store.list()] == ["img-00007"]
    assert not list(store.list_incomplete())
    assert not store.sweep(0)
    assert small.names == ["glance/img-00007"]


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_post_right_after_the_publishing_is_no_duplicate(
    small: SmallSwift, open_store: Callable[..., Store], data: bytes, kind: str
) -> None:
    """A tool that tags each new object at once does not make its add fail, nor lose its bytes."""
    store = open_store(**small.options(swift_store_manifest=kind))

    def tagged(request: Request) -> Reply:
        reply = small.usual(request)
        manifest = request.headers.get("x-object-manifest")
        _post(small, "glance/id", **({"x_object_manifest": manifest} if manifest else {}))
        return reply

    small.fail(r"^PUT .*/glance/id(\?|$)", tagged, times=1)
    assert _read(store, store.add("id", [data]).uri) == data


def test_a_post_after_a_lost_answer_does_not_hide_the_object(
    small: SmallSwift, store: Store
) -> None:
    """What was stored is known by its segments too."""

    def lost(request: Request) -> Reply:
        small.usual(request)
        _post(small, "glance/id")
        return Reply(503)

    small.fail(r"^PUT .*/glance/id\?", lost, times=1)
    assert _read(store, store.add("id", [LARGE]).uri) == LARGE


@pytest.mark.parametrize("doubt", [False, True])
def test_a_clean_up_knows_its_object_without_the_nonce(
    small: SmallSwift, store: Store, doubt: bool
) -> None:
    """An add that fails in its last step takes the object with its segments, in doubt neither."""

    def stored(request: Request) -> Reply:
        small.usual(request)
        _post(small, "glance/id")
        return Reply(400)

    small.fail(r"^PUT .*/glance/id\?", stored, times=1)
    small.fail(r"^GET .*/glance/id\?", Reply(400), times=int(doubt))
    with pytest.raises(BackendException) as caught:
        store.add("id", [LARGE])
    if doubt:
        assert "is not known whether" in caught.value.__notes__[0]
        assert _read(store) == LARGE
    else:
        assert not small.names
