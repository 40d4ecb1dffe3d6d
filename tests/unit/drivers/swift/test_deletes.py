"""Deletes and listings of which single requests fail: what is repeated, and what is left."""

import json
import os
import threading
from collections.abc import Callable

import pytest

from store_lib import Store
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    NotFound,
    NotSupported,
    RemoteServiceUnavailable,
)
from tests.clock import SkippingClock
from tests.scripted_server import Reply, Request
from tests.unit.drivers.swift.small_swift import SmallSwift

SEGMENT = 1000 * 1024
LARGE = os.urandom(2 * SEGMENT + 5)
SMALL = b"small"


def test_many_pages(small: SmallSwift, store: Store) -> None:
    """Listings of many pages are read to the end; two names for a page stand for ten thousand."""
    small.page = 2
    for number in range(3):
        store.add(f"id{number}", [LARGE])
    assert [each.object_id for each in store.list()] == [f"id{number}" for number in range(3)]
    for number in range(3):
        del small.objects[f"glance/id{number}"]
    assert len(list(store.list_incomplete())) == 3
    assert len(store.sweep(0)) == 3
    assert not small.names


def test_segments_are_deleted_side_by_side(small: SmallSwift, store: Store) -> None:
    """The deletes of all segments are at work at the same time; manifests wait for them."""
    uri = store.add("id", [LARGE]).uri
    barrier = threading.Barrier(3)

    def meet(_: Request) -> None:
        barrier.wait(60)

    small.fail(r"^DELETE .*/\.segments/", meet)
    store.delete(uri)
    assert not small.names
    assert small.sent("DELETE")[-1].endswith("/glance/id")


def test_segments_that_cannot_be_deleted_for_a_while(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """Failures that pass cost a repeat of what failed, and never the manifest before the rest."""
    store = open_store(**small.options(transfer_attempts=2))
    uri = store.add("id", [LARGE]).uri
    small.fail(r"^DELETE .*/0000000[12]$", Reply(503), times=2)
    store.delete(uri)
    assert not small.names
    uri = store.add("id", [LARGE]).uri
    small.fail(r"^DELETE .*/00000002$", Reply(503))
    with pytest.raises(RemoteServiceUnavailable, match="503"):
        store.delete(uri)
    assert [each.rpartition("/")[2] for each in small.names] == ["00000002", "id"]


def test_nested_manifests_that_cannot_be_deleted_for_a_while(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """A repeated delete finds some of the nested manifests gone, and still takes the object."""
    store = open_store(**small.options(swift_store_manifest_entries=2))
    uri = store.add("id", [LARGE + LARGE]).uri
    small.fail(r"^DELETE .*/m1-000002$", Reply(503), times=1)
    store.delete(uri)
    assert not small.names


def test_segments_of_a_dynamic_object_that_stay_are_told(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """A repeated delete would not find the object any more: what is left is named, and swept."""
    store = open_store(**small.options(swift_store_manifest="dynamic"))
    uri = store.add("id", [LARGE]).uri
    small.fail(r"^DELETE .*/00000002$", Reply(503))
    with pytest.raises(BackendException, match=r"glance/\.segments/id/.*503.*sweep") as caught:
        store.delete(uri)
    assert caught.value.status is ErrorStatus.PERMANENT
    assert [each.rpartition("/")[2] for each in small.names] == ["00000002"]
    small.faults.clear()
    assert len(store.sweep(0)) == 1
    assert not small.names


def test_a_segment_of_glance_store_that_cannot_be_deleted_for_a_while(
    small: SmallSwift, store: Store
) -> None:
    """Once its manifest is gone nobody would find a segment again: its delete is repeated."""
    small.containers.add("glance")
    small.objects["glance/img"] = b"", {"x-object-manifest": "glance/img-"}
    for number in range(1, 31):
        small.objects[f"glance/img-{number:05}"] = b"x", {}
    small.fail(r"^DELETE .*/img-000(07|30)$", Reply(503), times=2)
    store.delete("swift+config://ref1/glance/img")
    assert not small.names


def test_a_busy_segment_does_not_keep_the_others(small: SmallSwift, store: Store) -> None:
    """Every segment that can be deleted goes, and the error tells which stay."""
    small.containers.add("glance")
    small.objects["glance/img"] = b"", {"x-object-manifest": "glance/img-"}
    for number in range(1, 31):
        small.objects[f"glance/img-{number:05}"] = b"x", {}
    small.fail(r"^DELETE .*/img-000(01|07)$", Reply(503))
    small.fail(r"^DELETE .*/img-00009$", Reply(403))
    with pytest.raises(BackendException, match="glance/img-:") as caught:
        store.delete("swift+config://ref1/glance/img")
    left = [f"glance/img-0000{each}" for each in (1, 7, 9)]
    assert caught.value.__notes__ == [f"Not deleted: /{', /'.join(left)}"]
    assert small.names == left


def test_a_delete_whose_answer_was_lost_is_done(small: SmallSwift, store: Store) -> None:
    """The object itself goes last, and is not looked for again when it is gone by then."""
    uri = store.add("id", [LARGE]).uri

    def lose(request: Request) -> Reply:
        small.usual(request)
        return Reply(503)

    small.fail(r"^DELETE .*/glance/id$", lose, times=1)
    before = len(small.sent("DELETE"))
    store.delete(uri)
    assert not small.names
    assert len(small.sent("DELETE")) == before + 5
    with pytest.raises(NotFound):
        store.delete(uri)


@pytest.mark.parametrize("fault", [Reply(503), Reply(raw=b"", then="rst")], ids=["503", "cut"])
def test_every_page_of_a_listing_is_repeated(small: SmallSwift, store: Store, fault: Reply) -> None:
    """A server that cannot answer for a while ends neither a list nor a sweep."""
    small.page = 2
    for number in range(3):
        store.add(f"id{number}", [LARGE])
    seen: dict[str, int] = {}

    def burst(request: Request) -> Reply | None:
        seen[request.target] = seen.get(request.target, 0) + 1
        return fault if seen[request.target] == 1 else None

    small.fail(r"^GET .*/glance\?", burst)
    assert len(list(store.list())) == 3
    seen.clear()
    for number in range(3):
        del small.objects[f"glance/id{number}"]
    assert len(list(store.list_incomplete())) == 3
    seen.clear()
    assert len(store.sweep(0)) == 3


def test_a_busy_server_says_when_to_come_back(
    small: SmallSwift, store: Store, clock: SkippingClock
) -> None:
    """Retry-After of any refusal is the least pause before the next try."""
    uri = store.add("id", [LARGE]).uri
    for pattern in (r"^HEAD .*/glance/id", r"^DELETE .*/00000001$", r"^GET .*/glance\?"):
        small.fail(pattern, Reply(429, headers={"Retry-After": "7"}), times=1)
    list(store.list())
    store.delete(uri)
    assert clock.pauses == [7.0, 7.0, 7.0]


def test_a_listing_that_stays_away_is_told_once(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """A page is tried as often as is allowed, and nobody repeats the whole once more."""
    store = open_store(**small.options(transfer_attempts=3))
    store.add("id", [SMALL])
    small.fail(r"^GET .*/glance\?", Reply(503))
    with pytest.raises(RemoteServiceUnavailable) as caught:
        list(store.list())
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert len(small.sent("GET")) - small.logins == 3


def test_ages_are_told_by_the_servers_clock(small: SmallSwift, store: Store) -> None:
    """Neither a server that is behind nor one that is ahead makes a live upload old."""
    small.containers.add("glance")
    small.objects[f"glance/.segments/id/{'a' * 32}/00000001"] = b"x", {}
    small.modified = "2001-01-01T00:00:00.000000"
    for date, age in (("00:00:01", 1.0), ("02:00:00", 7200.0)):
        small.date = f"Mon, 01 Jan 2001 {date} GMT"
        (found,) = store.list_incomplete()
        assert found.age == age
        assert bool(store.sweep(3600, dry_run=True)) == (age > 3600)


def test_a_manifest_that_others_made(small: SmallSwift, store: Store) -> None:
    """Data and ranges in a manifest do not keep it from being deleted, but from being copied."""
    uri = store.add("id", [LARGE]).uri
    entries = small._manifest("glance/id")
    entries = [{"data": "eA=="}, {**entries[0], "range": "0-9"}, *entries]
    small.fail(r"multipart-manifest=get", Reply(200, json.dumps(entries).encode()))
    with pytest.raises(NotSupported, match="has ranges or data"):
        store.copy(uri, "copy")
    store.delete(uri)
    assert not small.names
