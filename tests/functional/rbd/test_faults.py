"""What a store says, and what it leaves, when the cluster or its configuration is no good."""

import concurrent.futures
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store_lib import Store
from store_lib.drivers.rbd.images import Images
from store_lib.exceptions import (
    AuthorizationFailure,
    BadStoreConfiguration,
    ErrorStatus,
    Forbidden,
    MissingCredentialError,
    NotFound,
    ObjectChanged,
    RemoteServiceUnavailable,
    StorageFull,
    StoreAddDisabled,
    StoreError,
    TimeoutError,
)
from tests.functional.rbd.behind import Behind, MakeStore, content, read
from tests.servers.ceph import IMAGES, VOLUMES, Ceph
from tests.servers.process import eventually, free_ports

MIB = 1024 * 1024

#: A well-formed key that no cluster gave out.
_WRONG_KEY = "AQBgRjVnAAAAABAAzX3OgRcm1kY1oVJ6Qk3vsg=="


def _conf(ceph: Ceph, directory: Path, *lines: str) -> Path:
    """Return the cluster's configuration file with more lines for ``client.glance``."""
    path = directory / "ceph.conf"
    path.write_text("\n".join([ceph.conf.read_text(), "[client.glance]", *lines, ""]))
    return path


def _uri(ceph: Ceph, name: str = "image") -> str:
    return f"rbd://{ceph.fsid}/images/{name}/snap"


def _uses(store: Store, uri: str) -> list[Callable[[], object]]:
    return [
        lambda: store.add("image", io.BytesIO(b"data"), 4),
        lambda: store.get(uri),
        lambda: store.stat(uri),
        lambda: store.delete(uri),
        lambda: list(store.list()),
        lambda: list(store.list_incomplete()),
    ]


def test_a_wrong_key(ceph: Ceph, make_store: MakeStore, tmp_path: Path) -> None:
    """A key that the cluster refuses is AuthorizationFailure, and stays unsaid."""
    keyring = tmp_path / "keyring"
    keyring.write_text(f"[client.glance]\n\tkey = {_WRONG_KEY}\n")
    store = make_store(rbd_store_ceph_conf=_conf(ceph, tmp_path, f"keyring = {keyring}"))
    for use in _uses(store, _uri(ceph)):
        with pytest.raises(AuthorizationFailure, match=r"client\.glance") as raised:
            use()
        assert raised.value.status is ErrorStatus.PERMANENT
        assert _WRONG_KEY not in str(raised.value)


@pytest.mark.parametrize("text", [None, "", "[client.other]\n\tkey = x\n", "[client.glance]\nx"])
def test_no_usable_keyring(
    ceph: Ceph, make_store: MakeStore, tmp_path: Path, text: str | None
) -> None:
    """A keyring that is missing, malformed, or without a key of the user is named."""
    keyring = tmp_path / "keyring"
    if text is not None:
        keyring.write_text(text)
    store = make_store(rbd_store_ceph_conf=_conf(ceph, tmp_path, f"keyring = {keyring}"))
    with pytest.raises(Forbidden, match=str(keyring)) as raised:
        store.stat(_uri(ceph))
    if text is None:
        assert isinstance(raised.value, MissingCredentialError)


@pytest.mark.parametrize("text", [None, "no configuration {"])
def test_no_usable_configuration_file(
    make_store: MakeStore, tmp_path: Path, text: str | None
) -> None:
    """A Ceph configuration file that is missing or malformed makes the store unusable at once."""
    conf = tmp_path / "ceph.conf"
    if text is not None:
        conf.write_text(text)
    store = make_store(rbd_store_ceph_conf=conf)
    assert isinstance(store.error, BadStoreConfiguration)
    assert str(conf) in str(store.error)
    with pytest.raises(StoreAddDisabled):
        store.add("image", io.BytesIO(b""), 0)


def test_a_bad_chunk_size(ceph: Ceph, store: Store, make_store: MakeStore, behind: Behind) -> None:
    """Objects of a size that Ceph has not are refused with the reason; reading goes on."""
    uri = store.add("image", io.BytesIO(b"data"), 4).uri
    for chunk in (3, 12, 64):
        bad = make_store(rbd_store_chunk_size=chunk)
        assert "power of two" in str(bad.error)
        with pytest.raises(StoreAddDisabled, match="power of two"):
            bad.add("other", io.BytesIO(b""), 0)
        assert read(bad, uri) == b"data"
    store.delete(uri)


def test_a_missing_pool(ceph: Ceph, make_store: MakeStore) -> None:
    """A store whose pool is missing says so, and never that an object is not there."""
    store = make_store(rbd_store_pool="nowhere")
    uri = f"rbd://{ceph.fsid}/nowhere/image/snap"
    for use in _uses(store, uri):
        with pytest.raises(BadStoreConfiguration, match="nowhere"):
            use()


def test_a_pool_without_permission(ceph: Ceph, make_store: MakeStore) -> None:
    """A pool that the user may not use is Forbidden, naming the capabilities it takes."""
    store = make_store(rbd_store_pool=VOLUMES)
    uri = f"rbd://{ceph.fsid}/{VOLUMES}/image/snap"
    for use in _uses(store, uri):
        with pytest.raises(Forbidden, match="profile rbd"):
            use()


def test_a_user_that_may_only_read(
    ceph: Ceph, store: Store, make_store: MakeStore, behind: Behind, object_id: str
) -> None:
    """A user with read-only capabilities reads, and is told that it may not write."""
    ceph.add_user("client.reader", mon="profile rbd", osd=f"profile rbd-read-only pool={IMAGES}")
    data = content(20 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    reader = make_store(rbd_store_user="reader")
    assert read(reader, uri) == data
    assert reader.stat(uri).size == len(data)
    assert [each.object_id for each in reader.list()] == [object_id]
    for use in (
        lambda: reader.add("other", io.BytesIO(b"data"), 4),
        lambda: reader.delete(uri),
        lambda: reader.copy(uri, "other"),
    ):
        with pytest.raises(Forbidden):
            use()
    assert read(store, uri) == data
    store.delete(uri)


@pytest.mark.parametrize("data", [content(48 * MIB), bytes(48 * MIB)], ids=["data", "zeros"])
def test_an_object_that_is_deleted_while_it_is_read(
    ceph: Ceph,
    store: Store,
    make_store: MakeStore,
    behind: Behind,
    object_id: str,
    data: bytes,
) -> None:
    """What is deleted reads as zeros; a reader without a watcher notices, and tells."""
    ceph.add_user("client.reader", mon="profile rbd", osd=f"profile rbd-read-only pool={IMAGES}")
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    with make_store(rbd_store_user="reader").get(uri) as reader:
        assert reader.read(MIB) == data[:MIB]
        store.delete(uri)
        with pytest.raises(ObjectChanged, match="deleted"):
            reader.read()


def test_unset_user_and_configuration_file(
    ceph: Ceph, make_store: MakeStore, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without options librados finds its configuration itself and logs in as client.admin."""
    monkeypatch.setenv("CEPH_CONF", str(ceph.conf))
    store = make_store(rbd_store_user=None, rbd_store_ceph_conf=None)
    assert store.driver is not None
    assert store.driver.url_prefix == f"rbd://{ceph.fsid}/images/"
    assert list(store.list()) == []
    (session,) = [
        each
        for each in ceph.daemon("mon.a", "sessions")
        if each["entity_name"] == "client.admin" and each["con_type"] == "client"
    ][-1:]
    assert session["open"]


def test_no_monitor_answers(ceph: Ceph, make_store: MakeStore, tmp_path: Path) -> None:
    """Monitors that cannot be reached are given up in time, and by all who wait together."""
    conf = tmp_path / "ceph.conf"
    (port,) = free_ports(1)
    conf.write_text(ceph.conf.read_text().replace(ceph.monitor, f"[v2:127.0.0.1:{port}]"))
    store = make_store(rbd_store_ceph_conf=conf, rados_connect_timeout=1)
    errors: list[BaseException] = []

    def use() -> None:
        try:
            store.stat(_uri(ceph))
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 30  # one after the other it would take 8 at least
    assert [type(error) for error in errors] == [TimeoutError] * 8
    assert "rados_connect_timeout" in str(errors[0])
    assert str(port) in str(errors[0])


def _pieces(ceph: Ceph, number: int) -> Iterator[bytes]:
    """Yield chunks, and stop the OSD after the second."""
    for index in range(number):
        if index == 2:
            ceph.processes["osd"].signal(signal.SIGSTOP)
        yield content(8 * MIB, index)


def test_a_frozen_osd(
    ceph: Ceph, store: Store, make_store: MakeStore, behind: Behind, object_id: str
) -> None:
    """An OSD that stops answering ends every call in time; what an upload left can be swept, and
    all is well once it answers again."""
    limited = make_store(transfer_stall_timeout=2)
    data = content(48 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    try:
        with limited.get(uri) as reader:
            reader.read(1)
            with pytest.raises(TimeoutError):
                limited.add(f"{object_id}-2", _pieces(ceph, 6))
            with pytest.raises(TimeoutError):
                reader.read()
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(len(calls := _calls(limited, uri))) as pool:
            for each in [pool.submit(call) for call in calls]:
                with pytest.raises(TimeoutError):
                    each.result()
        assert time.monotonic() - began < 20  # each of them is one limit long, or a few
    finally:
        ceph.processes["osd"].signal(signal.SIGCONT)
    eventually(lambda: read(store, uri) == data, "the OSD answers again")
    eventually(
        lambda: store.sweep(0) is not None and list(store.list_incomplete()) == [],
        "what is left is swept",
    )
    assert [each.object_id for each in store.list()] == [object_id]
    eventually(lambda: _delete(store, uri), "the object is deleted")


def test_a_limit_in_the_configuration_of_ceph(
    ceph: Ceph, make_store: MakeStore, tmp_path: Path
) -> None:
    """What is set there is kept: it ends what hangs before the store's own limit would."""
    limited = make_store(rbd_store_ceph_conf=_conf(ceph, tmp_path, "rados osd op timeout = 1"))
    limited.space()
    with ceph.frozen(), pytest.raises(TimeoutError):
        limited.stat(_uri(ceph))


def _calls(store: Store, uri: str) -> list[Callable[[], object]]:
    """Return every call of a store, the copy and the add with names of their own."""
    return [
        lambda: store.get(uri),
        lambda: store.stat(uri),
        lambda: store.delete(uri),
        lambda: store.copy(uri, f"{uri[-20:-5]}-copy"),
        lambda: store.add(f"{uri[-20:-5]}-add", io.BytesIO(b"data"), 4),
        lambda: list(store.list()),
        lambda: list(store.list_incomplete()),
        lambda: store.sweep(0),
        store.space,
    ]


def test_a_listing_is_repeated(
    ceph: Ceph,
    store: Store,
    behind: Behind,
    object_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One temporary error on the way ends no listing."""
    uri = store.add(object_id, io.BytesIO(b"data"), 4).uri
    looked: list[str] = []
    inspect = Images.inspect

    def shut_out_once(images: Images, name: str, *own: str) -> object:
        looked.append(name)
        if len(looked) == 1:
            raise RemoteServiceUnavailable("shut out")
        return inspect(images, name, *own)

    with monkeypatch.context() as patch:
        patch.setattr(Images, "inspect", shut_out_once)
        assert [each.object_id for each in store.list()] == [object_id]
        looked.clear()
        assert store.sweep(0) == []
    store.delete(uri)


def test_a_delete_that_timed_out_is_finished_by_the_next(
    ceph: Ceph,
    store: Store,
    make_store: MakeStore,
    behind: Behind,
    object_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An OSD that freezes once the snapshot has gone, in the last step, leaves the rest of the
    image to the deletion that is tried again, whichever process tries it."""
    limited = make_store(transfer_stall_timeout=2)
    data = content(9 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    remove = Images._remove

    def frozen(images: Images, name: str) -> None:
        with ceph.frozen():
            remove(images, name)

    with monkeypatch.context() as patch:
        patch.setattr(Images, "_remove", frozen)
        with pytest.raises(TimeoutError):
            limited.delete(uri)
    eventually(lambda: _delete(store, uri), "the deletion is finished")
    with pytest.raises(NotFound):
        store.delete(uri)


def _delete(store: Store, uri: str) -> bool:
    """Delete, unless a watcher of before is still there."""
    try:
        store.delete(uri)
    except StoreError:
        return False
    return True


def test_a_pool_over_its_quota(ceph: Ceph, store: Store, behind: Behind, object_id: str) -> None:
    """A pool over its quota is StorageFull at once, also in the middle of an upload; what is
    there can be read, and deleted to make room."""
    # Ceph removes by way of the pool's trash, which the first removal makes.
    store.delete(store.add(object_id, io.BytesIO(b"data"), 4).uri)
    data = content(16 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri

    def pieces() -> Iterator[bytes]:
        yield content(9 * MIB)
        ceph.set_quota(IMAGES, 8 * MIB)
        eventually(lambda: "POOL_FULL" in ceph.command("health")["checks"], "the pool is full")
        yield content(40 * MIB)

    try:
        with pytest.raises(StorageFull, match="quota"):
            store.add(f"{object_id}-2", pieces())
        with pytest.raises(StorageFull, match="room"):
            store.add(f"{object_id}-3", io.BytesIO(content(9 * MIB)), 9 * MIB)
        with pytest.raises(StorageFull, match="quota"):
            store.add(f"{object_id}-4", io.BytesIO(b"data"), 4)
        assert behind.names() == [object_id]
        assert read(store, uri) == data
        store.delete(uri)
    finally:
        ceph.set_quota(IMAGES, 0)
        eventually(lambda: "POOL_FULL" not in ceph.command("health")["checks"], "there is room")


def test_a_connection_that_died(ceph: Ceph, store: Store, behind: Behind, object_id: str) -> None:
    """A client that the cluster shuts out makes a new connection, and its work goes on."""
    data = content(10 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    (address,) = {
        each["addrs"]["addrvec"][0]["addr"] + "/" + str(each["addrs"]["addrvec"][0]["nonce"])
        for each in ceph.daemon("mon.a", "sessions")
        if each["entity_name"] == "client.glance"
    }
    ceph.command("osd blocklist", blocklistop="add", addr=address)
    eventually(lambda: _shut_out(store, uri), "the cluster shuts the client out", 10)
    assert read(store, uri) == data
    again = store.add(f"{object_id}-2", io.BytesIO(data), len(data)).uri
    store.delete(again)
    store.delete(uri)


def _shut_out(store: Store, uri: str) -> bool:
    """Say whether the store has made a new connection."""
    assert store.driver is not None
    before = store.driver._cluster._rados  # type: ignore[attr-defined]
    store.stat(uri)
    return store.driver._cluster._rados is not before  # type: ignore[attr-defined]
