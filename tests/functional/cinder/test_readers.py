"""Readers share an attachment, do not wait for each other, and give it back however they end."""

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from store_lib import Stores
from store_lib.exceptions import (
    BackendException,
    HasSnapshot,
    InUseByStore,
    InvalidRange,
    NotFound,
    StoreError,
)
from tests.functional.cinder.conftest import Deployment
from tests.servers.process import eventually

Open = Callable[..., Stores]

_MIB = 1024 * 1024
_DATA = bytes(range(256)) * (3 * _MIB // 256) + b"the end"

#: Reads an object in a process of its own: begins, waits to be told, and ends.
_READ = """
import hashlib, json, sys, warnings
warnings.simplefilter("ignore")
from store_lib import Stores
config, uri = json.loads(sys.argv[1])
with Stores.from_files(config) as stores, stores.get(uri) as reader:
    first = reader.read(1)
    print("open", flush=True)
    sys.stdin.readline()
    print(hashlib.sha256(first + reader.read()).hexdigest(), flush=True)
"""


def _start_reader(config: str, uri: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _READ, json.dumps([config, uri])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kind", ["fast", "file", "nfs", "rbd"])
def test_readers_of_one_process_share_an_attachment(
    kind: str, deployment: Deployment, opened: Open
) -> None:
    """Several readers at once need no multi-attach volume, and the last one's end detaches it."""
    if kind not in deployment.cinder.types:
        pytest.skip("volumes in Ceph need Ceph: see the skipped tests of rbd")
    store = opened(it=deployment.lines(kind))["it"]
    made = store.add("read", _DATA)
    readers = [store.get(made.uri, offset) for offset in (0, 1, 2 * _MIB)]
    assert len(deployment.cinder.attachments()) == 1
    with pytest.raises(InUseByStore, match="in-use"):
        store.delete(made.uri)
    assert readers[0].read() == _DATA
    readers[1].close()
    assert len(deployment.cinder.attachments()) == 1
    assert readers[2].read() == _DATA[2 * _MIB :]
    assert deployment.cinder.attachments() == []
    store.delete(made.uri)


def test_processes_read_a_multi_attach_volume_at_once(deployment: Deployment, opened: Open) -> None:
    """Three processes that begin together all read, and the first to end disturbs no other."""
    stores = opened(it=deployment.lines("multi"))
    made = stores.add("read", _DATA, digests=("sha256",))
    config = str(deployment.directory / "stores.conf")
    readers = [_start_reader(config, made.uri) for _ in range(3)]
    for each in readers:
        assert each.stdout is not None
        assert each.stdout.readline() == "open\n"
    assert len(deployment.cinder.attachments()) == 3
    assert len(deployment.cinder.loops()) == 1
    for number, each in enumerate(readers):
        told, _ = each.communicate("go on\n")
        assert told.strip() == made.digests["sha256"]
        assert each.returncode == 0
        assert len(deployment.cinder.attachments()) == 2 - number
    stores.delete(made.uri)


def test_a_volume_that_another_process_has_is_told_in_time(
    deployment: Deployment, opened: Open
) -> None:
    """Without multi-attach the second process waits as long as configured, and says what to do."""
    stores = opened(it=deployment.lines("fast", "cinder_attachment_retry_attempts = 1"))
    made = stores.add("read", _DATA)
    other = _start_reader(str(deployment.directory / "stores.conf"), made.uri)
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    with pytest.raises(BackendException, match="multiattach"):
        stores.get(made.uri)
    other.communicate("go on\n")
    with stores.get(made.uri) as reader:
        assert reader.read() == _DATA
    stores.delete(made.uri)


def test_ranges_and_their_bounds(deployment: Deployment, opened: Open) -> None:
    """Any range comes back; one that begins past the object's end is refused."""
    store = opened(it=deployment.lines("fast"))["it"]
    made = store.add("read", _DATA)
    for offset, length in ((0, 1), (_MIB - 1, 2), (5, 2 * _MIB), (len(_DATA) - 3, 100)):
        with store.get(made.uri, offset, length) as reader:
            assert reader.read() == _DATA[offset : offset + length]
    with store.get(made.uri, len(_DATA)) as reader:
        assert reader.read() == b""
    with pytest.raises(InvalidRange, match=f"{len(_DATA)} bytes"):
        store.get(made.uri, len(_DATA) + 1)
    assert deployment.cinder.attachments() == []
    store.delete(made.uri)


def test_dropped_readers_detach(deployment: Deployment, opened: Open) -> None:
    """A reader that is forgotten half way, or whose stores are closed under it, detaches."""
    stores = opened(it=deployment.lines("fast"))
    made = stores.add("read", _DATA)
    reader = stores.get(made.uri)
    reader.read(1)
    del reader
    gc.collect()
    assert deployment.cinder.attachments() == []
    reader = stores.get(made.uri)
    stores.close()
    assert reader.read() == _DATA
    assert deployment.cinder.attachments() == []
    with Stores.from_files(str(deployment.directory / "stores.conf")) as again:
        again.delete(made.uri)


def test_an_object_that_is_not_there_is_not_found(deployment: Deployment, opened: Open) -> None:
    """To every call alike: after a delete, for a strange volume id, and for an unfinished add."""
    store = opened(it=deployment.lines("fast"))["it"]
    made = store.add("gone", b"bytes")
    store.delete(made.uri)
    writer = store.driver.create("begun", 5, nonce="0" * 32, context=None)
    writer.reserve(1)
    [volume] = deployment.cinder.volumes()
    for uri in (
        made.uri,
        f"cinder://it/{volume['id']}",
        "cinder://it/00000000-0000-0000-0000-000000000000",
    ):
        for call in (store.get, store.stat, store.delete):
            with pytest.raises(NotFound):
                call(uri)
    writer.abort()


def test_a_volume_with_snapshots_is_kept(deployment: Deployment, opened: Open) -> None:
    """Delete says so, and works once they are gone."""
    store = opened(it=deployment.lines("file"))["it"]
    made = store.add("it", b"bytes")
    body = {"snapshot": {"volume_id": made.uri.rpartition("/")[2]}}
    snapshot = deployment.cinder.call("POST", "/snapshots", body)["snapshot"]["id"]

    def state() -> str:
        told: str
        told = deployment.cinder.call("GET", f"/snapshots/{snapshot}")["snapshot"]["status"]
        return told

    eventually(lambda: state() == "available", "a snapshot")
    with pytest.raises(HasSnapshot, match="Delete them first"):
        store.delete(made.uri)
    deployment.cinder.call("DELETE", f"/snapshots/{snapshot}")
    listed = lambda: deployment.cinder.call("GET", "/snapshots")["snapshots"]  # noqa: E731
    eventually(lambda: not listed(), "the snapshot gone")
    store.delete(made.uri)


def test_a_volume_in_a_state_of_error_is_told(deployment: Deployment, opened: Open) -> None:
    """Reading it says its state; once that is mended the bytes are there."""
    store = opened(it=deployment.lines("file"))["it"]
    made = store.add("it", b"bytes")
    path = f"/volumes/{made.uri.rpartition('/')[2]}/action"
    deployment.cinder.call("POST", path, {"os-reset_status": {"status": "error"}})
    with pytest.raises(BackendException, match="'error'"):
        store.get(made.uri)
    deployment.cinder.call("POST", path, {"os-reset_status": {"status": "available"}})
    with store.get(made.uri) as reader:
        assert reader.read() == b"bytes"
    store.delete(made.uri)


def test_a_short_volume_is_an_error_and_no_short_object(
    deployment: Deployment, opened: Open
) -> None:
    """A device that ends before the object does is raised, from get and in the middle."""
    store = opened(it=deployment.lines("file"))["it"]
    made = store.add("it", _DATA)
    volume = deployment.cinder.directory / "plain" / f"volume-{made.uri.rpartition('/')[2]}"
    reader = store.get(made.uri)
    with open(volume, "r+b") as file:
        file.truncate(2 * _MIB)
        with pytest.raises(BackendException, match="device ends at"):
            reader.read()
        file.truncate(5)
    with pytest.raises(BackendException, match="device ends at"):
        store.get(made.uri)
    assert deployment.cinder.attachments() == []
    store.delete(made.uri)


def test_a_clone_is_an_object_of_its_own(deployment: Deployment, opened: Open) -> None:
    """Cinder copies it; the copy stays when the first one goes."""
    store = opened(it=deployment.lines("file"))["it"]
    made = store.add("first", _DATA)
    copied = store.copy(made.uri, "second")
    assert copied.uri != made.uri
    store.delete(made.uri)
    with store.get(copied.uri) as reader:
        assert reader.read() == _DATA
    assert [(each.object_id, each.size) for each in store.list()] == [("second", len(_DATA))]
    with pytest.raises(NotFound):
        store.copy(made.uri, "third")
    store.delete(copied.uri)


def test_a_volume_of_another_type_is_copied_through_here(
    deployment: Deployment, opened: Open
) -> None:
    """Cinder does not clone it, so its bytes are moved: the copy is of the store's own type."""
    stores = opened(fast=deployment.lines("fast"), slow=deployment.lines("slow"))
    made = stores["slow"].add("first", _DATA)
    old_uri = f"cinder://{made.uri.rpartition('/')[2]}"
    copied = stores.copy(old_uri, "second", store="fast", to="fast")
    with stores.get(copied.uri) as reader:
        assert reader.read() == _DATA
    types = {each["name"]: each["volume_type"] for each in deployment.cinder.volumes()}
    assert types == {"image-first": "slow", "image-second": "fast"}
    for uri in (made.uri, copied.uri):
        stores.delete(uri)


def test_many_threads_read_one_volume(deployment: Deployment, opened: Open) -> None:
    """Threads that open and close at once never meet a closed device."""
    store = opened(it=deployment.lines("fast"))["it"]
    made = store.add("read", _DATA)
    wrong: list[object] = []

    def read() -> None:
        try:
            for _ in range(3):
                with store.get(made.uri) as reader:
                    if reader.read() != _DATA:
                        wrong.append("other bytes")
        except StoreError as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
    store.delete(made.uri)
