"""What Ceph's gateway makes of If-None-Match in each kind of bucket, and what a store then does."""

import concurrent.futures
import io

import pytest

from store_lib import Store
from store_lib.drivers.s3 import S3Driver
from store_lib.exceptions import BackendException, Duplicate, NotFound, StoreError
from tests.functional.s3.conftest import (
    LARGE,
    MakeStore,
    assert_nothing_is_left,
    bucket_of,
    stream,
)
from tests.functional.s3.places import ceph_http
from tests.servers.ceph import Ceph

#: How many add one id at the same time, and how often.
_RACERS = 6
_RACES = 6


def versioned(ceph: Ceph, make_store: MakeStore, status: str) -> Store:
    """Return a store in a bucket that is there, and whose versioning has this status."""
    store = make_store(ceph_http(ceph))
    assert isinstance(store.driver, S3Driver)
    client, bucket = store.driver._client.open(), store.driver._settings.bucket
    client.create_bucket(Bucket=bucket)
    if status:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
    return store


@pytest.mark.parametrize("status", ["", "Enabled", "Suspended"])
@pytest.mark.parametrize("size", [1000, len(LARGE)])
def test_no_race_has_two_winners(ceph: Ceph, make_store: MakeStore, status: str, size: int) -> None:
    """Of adds that race one at most succeeds, and it is what is read; or all are refused."""
    first = versioned(ceph, make_store, status)
    stores = [make_store(ceph_http(ceph), **bucket_of(first)) for _ in range(_RACERS)]
    contents = [bytes([number]) * size for number in range(_RACERS)]

    def add(number: int, name: str) -> str | StoreError:
        try:
            return stores[number].add(name, io.BytesIO(contents[number]), size).uri
        except StoreError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(_RACERS) as pool:
        for race in range(_RACES if size == 1000 else 1):
            name = f"id-{race}"
            results = list(pool.map(add, range(_RACERS), [name] * _RACERS))
            winners = [number for number in range(_RACERS) if isinstance(results[number], str)]
            if status == "Enabled":
                assert not winners
                assert {type(each) for each in results} == {BackendException}
                continue
            assert len(winners) <= 1
            assert {type(each) for each in results} <= {str, Duplicate, BackendException}
            for number in winners:
                with first.get(str(results[number])) as reader:
                    assert reader.read() == contents[number]


def test_a_versioned_bucket_is_refused_or_looked_at(ceph: Ceph, make_store: MakeStore) -> None:
    """The gateway ignores the header there; the error says so, and what accepts the risk."""
    store = versioned(ceph, make_store, "Enabled")
    for size in (1000, len(LARGE)):
        with pytest.raises(BackendException, match=r"ignores If-None-Match.*versioning.*to look"):
            store.add("id", stream(LARGE[:size]), size)
    assert_nothing_is_left(store)
    looking = make_store(ceph_http(ceph), **bucket_of(store), s3_store_create_only="look")
    _add_again(looking)


def test_versioning_that_is_switched_on_later_is_noticed(ceph: Ceph, make_store: MakeStore) -> None:
    """The gateway's answers show it, to a process that has added objects before."""
    store = versioned(ceph, make_store, "")
    store.add("before", io.BytesIO(b"x"), 1)
    driver = store.driver
    assert isinstance(driver, S3Driver)
    driver._client.open().put_bucket_versioning(
        Bucket=driver._settings.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    for size in (1000, len(LARGE)):
        with pytest.raises(BackendException, match="ignores If-None-Match"):
            store.add("id", stream(LARGE[:size]), size)
    assert_nothing_is_left(store, "before")


def test_a_bucket_of_suspended_versioning_is_told(ceph: Ceph, make_store: MakeStore) -> None:
    """The gateway counts what was deleted as there; the error says so, and what helps."""
    store = versioned(ceph, make_store, "Suspended")
    for size in (1000, len(LARGE)):
        uri = store.add(f"id-{size}", stream(LARGE[:size]), size).uri
        store.delete(uri)
        with pytest.raises(BackendException, match=r"Suspended.*to look"):
            store.add(f"id-{size}", stream(LARGE[:size]), size)
    assert_nothing_is_left(store)
    _add_again(make_store(ceph_http(ceph), **bucket_of(store), s3_store_create_only="look"))


def _add_again(store: Store) -> None:
    """Add, be refused, delete and add again, and copy."""
    for size in (1000, len(LARGE)):
        name = f"again-{size}"
        for _ in range(2):
            uri = store.add(name, stream(LARGE[:size]), size).uri
            with pytest.raises(Duplicate):
                store.add(name, stream(LARGE[:size]), size)
            copied = store.copy(uri, f"{name}-copy").uri
            store.delete(uri)
            with pytest.raises(NotFound):
                store.stat(uri)
            with store.get(copied) as reader:
                assert reader.read() == LARGE[:size]
            store.delete(copied)
    assert_nothing_is_left(store)
