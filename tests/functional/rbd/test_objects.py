"""What an object is in a pool, for us and for everybody else who uses it."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from store_lib import Store
from store_lib.drivers.rbd.images import Images
from store_lib.exceptions import (
    BadStoreUri,
    Duplicate,
    Forbidden,
    HasSnapshot,
    InUseByStore,
    InvalidObjectId,
    InvalidRange,
    NotFound,
    NotSupported,
    StorageFull,
)
from store_lib.testing.pace import slowness
from tests.functional.rbd.behind import Behind, MakeStore, content, read
from tests.servers.ceph import IMAGES, VOLUMES, Ceph
from tests.servers.process import eventually

MIB = 1024 * 1024


def test_an_object_is_an_image_with_a_protected_snapshot(
    ceph: Ceph, store: Store, behind: Behind, object_id: str
) -> None:
    """What is stored has its exact size, the cluster's features, objects as configured, a
    protected snapshot, and the URI that Nova and Cinder take apart."""
    data = content(9 * MIB + 5)
    result = store.add(object_id, io.BytesIO(data), len(data))
    assert store.driver is not None
    assert store.driver.url_prefix == f"rbd://{ceph.fsid}/{IMAGES}/"
    assert result.uri == f"{store.driver.url_prefix}{object_id}/snap"
    with behind.opened(object_id) as image:
        assert (image.size(), image.features(), image.stat()["order"]) == (len(data), 61, 23)
        assert [each["name"] for each in image.list_snaps()] == ["snap"]
        assert image.is_protected_snap("snap")
        assert list(image.watchers_list()) == []
    assert read(store, result.uri) == data
    store.delete(result.uri)


@pytest.mark.parametrize("features", [1, 5])
def test_an_image_has_the_features_that_the_cluster_gives(
    ceph: Ceph, make_store: MakeStore, behind: Behind, object_id: str, tmp_path: Path, features: int
) -> None:
    """Where images get no exclusive lock by default, an object has none in the end, and small
    objects are cut as configured."""
    conf = tmp_path / "ceph.conf"
    conf.write_text(f"{ceph.conf.read_text()}\n[client.glance]\nrbd default features={features}\n")
    store = make_store(rbd_store_ceph_conf=conf, rbd_store_chunk_size=1)
    data = content(3 * MIB)
    result = store.add(object_id, io.BytesIO(data))
    with behind.opened(object_id) as image:
        assert (image.features(), image.stat()["order"]) == (features, 20)
    assert read(store, result.uri) == data
    copy = store.copy(result.uri, f"{object_id}-copy")
    with behind.opened(f"{object_id}-copy") as image:
        assert image.features() == features
    assert read(store, copy.uri) == data
    store.delete(copy.uri)
    store.delete(result.uri)


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 40 * MIB + 3])
@pytest.mark.parametrize("declared", [True, False])
def test_an_image_ends_with_its_last_byte(
    store: Store, behind: Behind, object_id: str, size: int, declared: bool
) -> None:
    """However long the source turns out, the image is trimmed to it."""
    data = content(size)
    result = store.add(object_id, iter([data] if data else []), size if declared else None)
    with behind.opened(object_id, "snap") as image:
        assert image.size() == size
    assert read(store, result.uri) == data
    assert store.stat(result.uri).size == size
    store.delete(result.uri)


def test_adds_of_unknown_size_at_once_keep_apart(
    store: Store, behind: Behind, object_id: str
) -> None:
    """Two adds of unknown size on one store object at the same time store the right bytes."""
    contents = {f"{object_id}-{number}": content(20 * MIB + number, number) for number in (1, 2)}
    meeting = threading.Barrier(2, timeout=60 * slowness())
    uris: dict[str, str] = {}

    def pieces(data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), 7 * MIB):
            meeting.wait()
            yield data[start : start + 7 * MIB]

    def add(name: str, data: bytes) -> None:
        uris[name] = store.add(name, pieces(data)).uri

    threads = [threading.Thread(target=add, args=item) for item in contents.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, data in contents.items():
        assert read(store, uris[name]) == data
        store.delete(uris[name])


def test_zeros_take_no_room(make_store: MakeStore, behind: Behind, object_id: str) -> None:
    """With thin provisioning only what is not zero is written, and all of it is read."""
    store = make_store(rbd_thin_provisioning=True)
    data = bytes(16 * MIB) + content(MIB) + bytes(31 * MIB) + content(5)
    result = store.add(object_id, io.BytesIO(data))
    with behind.opened(object_id, "snap") as image:
        extents: list[tuple[int, int]] = []
        image.diff_iterate(0, len(data), None, lambda *each: extents.append(each[:2]))
        assert extents == [(16 * MIB, MIB), (48 * MIB, 5)]
    assert len(behind.objects()) == 2
    assert read(store, result.uri) == data
    assert read(store, result.uri, 16 * MIB - 1, MIB + 2) == data[16 * MIB - 1 : 17 * MIB + 1]
    store.delete(result.uri)


def test_holes_are_not_asked_for(
    ceph: Ceph, make_store: MakeStore, behind: Behind, object_id: str
) -> None:
    """Reading a sparse image moves what it holds and no more, and asks for no hole."""
    store = make_store(rbd_thin_provisioning=True)
    data = bytes(200 * MIB) + content(2 * MIB) + bytes(200 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri

    def moved() -> tuple[int, int]:
        osd = ceph.daemon("osd.0", "perf", "dump")["osd"]
        return osd["op_r_out_bytes"], osd["op_r"]

    bytes_before, requests_before = moved()
    assert read(store, uri) == data
    bytes_after, requests_after = moved()
    assert 2 * MIB <= bytes_after - bytes_before < 3 * MIB
    # Opening the image, twice, takes some; of its 101 pieces one has data.
    assert requests_after - requests_before < 100
    store.delete(uri)


def test_ranges(store: Store, behind: Behind, object_id: str) -> None:
    """Any range is read exactly; past the end is refused."""
    data = content(20 * MIB + 1)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    for offset, length in (
        (0, 5),
        (8 * MIB - 1, 2),
        (5, 17 * MIB),
        (20 * MIB, None),
        (len(data), 1),
    ):
        end = None if length is None else offset + length
        assert read(store, uri, offset, length) == data[offset:end]
    with pytest.raises(InvalidRange):
        store.get(uri, len(data) + 1)
    store.delete(uri)


@pytest.mark.parametrize("form", ["rbd://{fsid}/images/{name}/snap", "rbd://{name}"])
def test_what_other_software_stored(
    ceph: Ceph, store: Store, behind: Behind, object_id: str, form: str
) -> None:
    """An image with a protected snapshot that bears no mark of ours is an object like any."""
    data = content(5 * MIB)
    behind.make(object_id, data)
    uri = form.format(fsid=ceph.fsid, name=object_id)
    assert read(store, uri) == data
    assert store.stat(uri).size == len(data)
    assert [each.object_id for each in store.list()] == [object_id]
    with pytest.raises(Duplicate):
        store.add(object_id, io.BytesIO(b"other"), 5)
    assert store.sweep(0) == []
    copy = store.copy(uri, f"{object_id}-copy").uri
    store.delete(uri)
    assert read(store, copy) == data
    store.delete(copy)


def test_an_old_image_without_a_snapshot(store: Store, behind: Behind, object_id: str) -> None:
    """A URI of one part reads an image without a snapshot; such an image is never removed."""
    data = content(5 * MIB)
    behind.make(object_id, data, snapshot=None)
    assert read(store, f"rbd://{object_id}") == data
    assert store.stat(f"rbd://{object_id}").size == len(data)
    assert (list(store.list()), list(store.list_incomplete())) == ([], [])
    with pytest.raises(Duplicate):
        store.add(object_id, io.BytesIO(b"other"), 5)
    with pytest.raises(Forbidden, match="snapshot 'snap'"):
        store.delete(f"rbd://{object_id}")
    assert read(store, f"rbd://{object_id}") == data
    behind.remove(object_id)


def test_a_volume_in_the_same_pool_is_not_deleted(
    ceph: Ceph, store: Store, behind: Behind, object_id: str
) -> None:
    """A URI may name any image and any snapshot: only what a store has published goes."""
    data = content(MIB)
    behind.make(object_id, data, snapshot="snapshot-of-cinder")
    for uri in (f"rbd://{object_id}", f"rbd://{ceph.fsid}/{IMAGES}/{object_id}/snapshot-of-cinder"):
        assert read(store, uri) == data
        with pytest.raises(Forbidden, match="rbd rm"):
            store.delete(uri)
        assert read(store, uri) == data
    behind.remove(object_id)


def test_what_is_not_there(ceph: Ceph, store: Store, behind: Behind, object_id: str) -> None:
    """A missing image, snapshot or pool is NotFound, and another cluster's URI is refused."""
    data = content(10)
    uri = store.add(object_id, io.BytesIO(data), 10).uri
    base = f"rbd://{ceph.fsid}"
    for missing in (
        f"{base}/images/{object_id}x/snap",
        f"{base}/images/{object_id}/other",
        f"{base}/nopool/{object_id}/snap",
        f"rbd://{object_id}x",
    ):
        for call in (store.get, store.stat, store.delete):
            with pytest.raises(NotFound):
                call(missing)
    for call in (store.get, store.stat, store.delete):
        with pytest.raises(BadStoreUri, match=ceph.fsid):
            call(f"rbd://other/images/{object_id}/snap")
    assert read(store, uri) == data
    store.delete(uri)
    with pytest.raises(NotFound):
        store.delete(uri)


@pytest.mark.parametrize("kind", ["1", "2"])
def test_an_object_with_clones_stays(
    ceph: Ceph, store: Store, behind: Behind, object_id: str, kind: str
) -> None:
    """An image that volumes were cloned from, in either of Ceph's ways, is in use, and intact
    after the refusal."""
    import rbd

    data = content(3 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    with ceph.admin.open_ioctx(VOLUMES) as volumes:
        ceph.admin.conf_set("rbd_default_clone_format", kind)
        try:
            rbd.RBD().clone(behind.ioctx, object_id, "snap", volumes, "volume")
        finally:
            ceph.admin.conf_set("rbd_default_clone_format", "auto")
        try:
            with pytest.raises(InUseByStore, match="clones"):
                store.delete(uri)
            with behind.opened(object_id) as image:
                assert image.is_protected_snap("snap")
            assert read(store, uri) == data
        finally:
            rbd.RBD().remove(volumes, "volume")
    store.delete(uri)


def test_an_object_that_is_open_stays(store: Store, behind: Behind, object_id: str) -> None:
    """An image that is being read is in use: deleted, it would read as zeros."""
    data = content(20 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    with store.get(uri) as reader:
        begun = reader.read(MIB)
        with pytest.raises(InUseByStore, match="open"):
            store.delete(uri)
        assert begun + reader.read() == data
    store.delete(uri)


def test_an_object_with_other_snapshots_stays(store: Store, behind: Behind, object_id: str) -> None:
    """Snapshots of others are never removed, and keep the object whole."""
    import rbd

    data = content(MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    with rbd.Image(behind.ioctx, object_id) as image:
        image.create_snap("theirs")
    with pytest.raises(HasSnapshot, match="theirs"):
        store.delete(uri)
    assert read(store, uri) == data
    with rbd.Image(behind.ioctx, object_id) as image:
        image.remove_snap("theirs")
    store.delete(uri)


def test_what_is_restored_bears_no_mark(
    ceph: Ceph, store: Store, behind: Behind, object_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of other software that could not be removed after all is as it was: it is not
    taken for a leftover should somebody take its snapshot away later."""
    data = content(MIB)
    behind.make(object_id, data)
    uri = f"rbd://{ceph.fsid}/{IMAGES}/{object_id}/snap"

    def busy(*_: object) -> None:
        raise InUseByStore("opened in the last moment")

    with monkeypatch.context() as patch:
        patch.setattr(Images, "_remove", busy)
        with pytest.raises(InUseByStore, match="last moment"):
            store.delete(uri)
    with behind.opened(object_id) as image:
        assert image.is_protected_snap("snap")
        assert list(image.metadata_list()) == []
    assert read(store, uri) == data
    store.delete(uri)


@pytest.mark.parametrize("size", [0, 1, 20 * MIB + 1])
def test_copies_are_independent(store: Store, behind: Behind, object_id: str, size: int) -> None:
    """A copy is a whole object of its own, made once, whatever becomes of the first."""
    data = content(size)
    uri = store.add(object_id, io.BytesIO(data), size).uri
    copy = store.copy(uri, f"{object_id}-copy").uri
    with pytest.raises(Duplicate):
        store.copy(uri, f"{object_id}-copy")
    store.delete(uri)
    assert read(store, copy) == data
    with behind.opened(f"{object_id}-copy") as image:
        assert image.is_protected_snap("snap")
        assert size == 0 or image.parent_id is not None
    with pytest.raises(NotFound):
        store.copy(uri, f"{object_id}-again")
    store.delete(copy)


@pytest.mark.parametrize("bad", ["a/b", "a@b", "a\nb", "\ud800", "x" * 256, "\u00e4" * 128])
def test_ids_that_no_image_can_have(store: Store, behind: Behind, bad: str) -> None:
    """An id that Ceph's tools could not name is refused before anything is read."""
    with pytest.raises(InvalidObjectId):
        store.add(bad, io.BytesIO(b"x"), 1)


@pytest.mark.parametrize("name", ["x" * 255, "\u00e4 b:c%25?#&=~", "-", "..a", "rbd_id"])
def test_odd_ids(store: Store, behind: Behind, name: str) -> None:
    """Any other id comes back as it is."""
    uri = store.add(name, io.BytesIO(b"data"), 4).uri
    assert read(store, uri) == b"data"
    assert [(each.object_id, each.location.uri) for each in store.list()] == [(name, uri)]
    store.delete(uri)


def test_room(ceph: Ceph, store: Store, behind: Behind, object_id: str) -> None:
    """The room in the pool is what the cluster has, or what the quota leaves."""
    ceph.set_quota(IMAGES, 100 * MIB)
    try:
        space = store.space()
        assert space.total == 100 * MIB
        assert space.free is not None
        assert 0 < space.free <= 100 * MIB
    finally:
        ceph.set_quota(IMAGES, 0)
    free = store.space().free
    assert free is not None
    assert free > 1024 * MIB


@pytest.mark.parametrize("where", ["configuration", "pool"])
def test_room_in_a_pool_for_data(
    ceph: Ceph,
    make_store: MakeStore,
    behind: Behind,
    object_id: str,
    tmp_path: Path,
    where: str,
) -> None:
    """Where images' data goes to another pool, that one's room counts, and not their own pool's."""
    import rbd

    conf, key = tmp_path / "ceph.conf", "rbd_default_data_pool"
    data_pool = ceph.add_pool(f"data-{where}")
    ceph.allow("client.glance", IMAGES, data_pool)
    setting = f"\n[client.glance]\n{key} = {data_pool}\n" if where == "configuration" else ""
    conf.write_text(ceph.conf.read_text() + setting)
    if where == "pool":
        rbd.RBD().pool_metadata_set(behind.ioctx, f"conf_{key}", data_pool)
    try:
        store = make_store(rbd_store_ceph_conf=conf)
        ceph.set_quota(IMAGES, MIB)
        data = content(9 * MIB)
        uri = store.add(object_id, io.BytesIO(data), len(data)).uri
        with behind.opened(object_id) as image:
            assert image.data_pool_id() == ceph.admin.pool_lookup(data_pool)
        assert read(store, uri) == data
        ceph.set_quota(data_pool, 20 * MIB)
        eventually(lambda: store.space().total == 20 * MIB, "the monitors know the new pool")
        with pytest.raises(StorageFull, match=data_pool):
            store.add(f"{object_id}-2", io.BytesIO(bytes(21 * MIB)), 21 * MIB)
        store.delete(uri)
    finally:
        ceph.set_quota(IMAGES, 0)
        if where == "pool":
            rbd.RBD().pool_metadata_remove(behind.ioctx, f"conf_{key}")
        ceph.allow("client.glance", IMAGES)
        ceph.remove_pool(data_pool)


def test_an_image_without_a_snapshot_is_copied_through_here(
    store: Store, behind: Behind, object_id: str
) -> None:
    """Ceph clones snapshots alone, which the store says; a set of stores moves the bytes then."""
    data = content(5 * MIB)
    behind.make(object_id, data, snapshot=None)
    with pytest.raises(NotSupported, match="no snapshot 'snap'"):
        store.copy(f"rbd://{object_id}", f"{object_id}-copy")
    with pytest.raises(NotFound):
        store.copy(f"rbd://{object_id}-missing", f"{object_id}-copy")
    behind.remove(object_id)
