"""What uploads leave that never finish: seen by nobody, removable, and in nobody's way."""

import io
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store_lib import Incomplete, Store
from store_lib.drivers.rbd.images import Mark, State
from store_lib.exceptions import Duplicate, Invalid, NotFound, StoreError
from store_lib.testing.pace import slowness
from tests.functional.rbd.behind import Behind, MakeStore, content, no_watcher, read
from tests.servers.ceph import Ceph
from tests.servers.process import eventually

MIB = 1024 * 1024

#: Adds an object, and stops at a byte until it is told to go on.
_ADDER = """
    import sys, store_lib
    config, object_id, total, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

    def pieces():
        yield bytes([1]) * stop
        print("stopped", flush=True)
        sys.stdin.readline()
        yield bytes([2]) * (total - stop)

    with store_lib.Stores.from_files(config) as stores:
        try:
            print(stores["it"].add(object_id, pieces()).uri, flush=True)
        except store_lib.exceptions.StoreError as error:
            print(type(error).__name__, error, flush=True)
"""


class Adder:
    """An add at work in another process."""

    def __init__(self, config: Path, object_id: str, stop: int = 10 * MIB) -> None:
        program = textwrap.dedent(_ADDER)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, config, object_id, str(20 * MIB), str(stop)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "stopped\n"

    def finish(self) -> str:
        """Let it go on, and return what it came to."""
        output, _ = self.process.communicate("go on\n", timeout=60 * slowness())
        return output.strip()

    def kill(self) -> None:
        """End it with no chance to clean up."""
        self.process.kill()
        self.process.communicate()


def test_an_upload_at_work_is_seen_by_nobody(
    ceph: Ceph, store: Store, behind: Behind, config: Path, object_id: str
) -> None:
    """Until it is published an object is absent, its id taken, and no sweep touches it."""
    uri = f"rbd://{ceph.fsid}/images/{object_id}/snap"
    adder = Adder(config, object_id)
    for absent in (uri, f"rbd://{object_id}"):
        for call in (store.get, store.stat, store.delete):
            with pytest.raises(NotFound):
                call(absent)
    assert list(store.list()) == []
    (found,) = store.list_incomplete()
    assert (found.object_id, found.live) == (object_id, True)
    assert found.size is not None
    assert found.size >= 10 * MIB
    assert store.sweep(0) == []
    assert store.driver is not None
    assert not store.driver.discard(found, context=None)
    with pytest.raises(Duplicate, match="right now"):
        store.add(object_id, io.BytesIO(b"other"), 5)
    assert adder.finish() == uri
    assert not store.driver.discard(found, context=None)
    assert read(store, uri) == bytes([1]) * 10 * MIB + bytes([2]) * 10 * MIB
    store.delete(uri)


@pytest.mark.parametrize("way", ["swept", "taken over"])
def test_what_a_killed_process_leaves(
    store: Store, behind: Behind, config: Path, object_id: str, way: str
) -> None:
    """After kill -9 the image is in the way until the cluster sees that its owner is gone; then
    it can be swept, and a new add simply takes its place."""
    adder = Adder(config, object_id)
    adder.kill()
    with pytest.raises(Duplicate, match="half a minute"):
        store.add(object_id, io.BytesIO(b"other"), 5)
    eventually(lambda: no_watcher(behind, object_id), "the dead process's watcher is gone")
    (found,) = store.list_incomplete()
    assert (found.object_id, found.live) == (object_id, False)
    if way == "swept":
        assert [each.object_id for each in store.sweep(0)] == [object_id]
        assert behind.objects() == []
    data = content(9 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    assert store.driver is not None
    assert not store.driver.discard(found, context=None)  # it is another image by now
    assert read(store, uri) == data
    store.delete(uri)


def test_an_owner_that_comes_back_is_shut_out(
    store: Store, behind: Behind, config: Path, object_id: str
) -> None:
    """A process that was stopped for so long that its image was taken over publishes nothing, and
    harms nothing."""
    adder = Adder(config, object_id)
    adder.process.send_signal(19)
    try:
        eventually(lambda: no_watcher(behind, object_id), "the stopped process's watcher is gone")
        data = content(9 * MIB)
        uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    finally:
        adder.process.send_signal(18)
    assert not adder.finish().startswith("rbd://")
    assert read(store, uri) == data
    assert [each.object_id for each in store.list()] == [object_id]
    store.delete(uri)


def test_a_snapshot_that_was_cut_short_counts_for_nothing(
    ceph: Ceph, store: Store, behind: Behind, config: Path, object_id: str
) -> None:
    """Killed in the making of its snapshot, an image can list a snapshot that cannot be opened;
    it is an unfinished one, which sweeps and new adds remove."""
    import rbd

    Adder(config, object_id).kill()
    eventually(lambda: no_watcher(behind, object_id), "the dead process's watcher is gone")
    with rbd.Image(behind.ioctx, object_id) as image:
        image.create_snap("snap")
        number, image_id = image.snap_get_id("snap"), image.id()
    behind.ioctx.remove_object(f"rbd_object_map.{image_id}.{number:016x}")
    uri = f"rbd://{ceph.fsid}/images/{object_id}/snap"
    for call in (store.get, store.stat):
        with pytest.raises(NotFound):
            call(uri)
    assert list(store.list()) == []
    assert [each.object_id for each in store.list_incomplete()] == [object_id]
    data = content(5)
    assert store.add(object_id, io.BytesIO(data), 5).uri == uri
    assert read(store, uri) == data
    store.delete(uri)


def test_a_copy_that_was_cut_short(store: Store, behind: Behind, object_id: str) -> None:
    """What a killed copy leaves is taken over, and keeps no hold on what was to be copied.

    Only a kill right between cloning and marking leaves what nobody can tell from a volume.
    """
    import rbd

    uri = store.add(f"{object_id}-1", io.BytesIO(content(MIB)), MIB).uri
    for way in ("added", "copied"):
        rbd.RBD().clone(behind.ioctx, f"{object_id}-1", "snap", behind.ioctx, object_id)
        with rbd.Image(behind.ioctx, object_id) as image:
            Mark(State.ADDING, "0" * 32).put(image)
        assert [each.object_id for each in store.list_incomplete()] == [object_id]
        data = content(MIB, 1) if way == "added" else content(MIB)
        if way == "added":
            made = store.add(object_id, io.BytesIO(data), MIB).uri
        else:
            made = store.copy(uri, object_id).uri
        assert read(store, made) == data
        if way == "added":
            store.delete(made)
    store.delete(uri)
    assert read(store, made) == data
    store.delete(made)


def test_an_image_that_has_no_nonce_yet(store: Store, behind: Behind, object_id: str) -> None:
    """Killed before anything else, an upload leaves an empty image, which is in nobody's way."""
    import rbd

    rbd.RBD().create(behind.ioctx, object_id, 0, 22, old_format=False)
    assert [each.object_id for each in store.list_incomplete()] == [object_id]
    uri = store.add(object_id, io.BytesIO(b"data"), 4).uri
    assert read(store, uri) == b"data"
    store.delete(uri)
    rbd.RBD().create(behind.ioctx, object_id, 0, 22, old_format=False)
    assert [each.object_id for each in store.sweep(0)] == [object_id]


def _clone(behind: Behind, name: str) -> str:
    import rbd

    rbd.RBD().clone(behind.ioctx, name, "snap", behind.ioctx, f"{name}-volume")
    return f"{name}-volume"


def _copy(behind: Behind, name: str) -> str:
    with behind.opened(name) as image:
        image.copy(behind.ioctx, f"{name}-copy")
    return f"{name}-copy"


def _copy_of_an_upload(behind: Behind, name: str) -> str:
    """Copy an image while its mark says that it is being filled."""
    import rbd

    with rbd.Image(behind.ioctx, name) as image:
        mark = Mark.of(image)
        assert mark is not None
        Mark(State.ADDING, mark.nonce).put(image)
        copied = _copy(behind, name)
        mark.put(image)
    return copied


def _take_the_snapshot(behind: Behind, name: str) -> str:
    import rbd

    with rbd.Image(behind.ioctx, name) as image:
        image.unprotect_snap("snap")
        image.remove_snap("snap")
    return name


def _change_the_mark(behind: Behind, name: str) -> str:
    import rbd

    _take_the_snapshot(behind, name)
    with rbd.Image(behind.ioctx, name) as image:
        image.metadata_set("store_lib.upload", "0" * 32)
    return name


def _empty(behind: Behind, name: str) -> str:
    """Make an image that is empty now, and was not when somebody took a snapshot."""
    import rbd

    _take_the_snapshot(behind, name)
    with rbd.Image(behind.ioctx, name) as image:
        image.create_snap("theirs")
        image.resize(0)
        Mark(State.ADDING, "0" * 32).put(image)
    return name


_LOOKALIKES = {
    "clone": _clone,
    "copy": _copy,
    "copy of an upload": _copy_of_an_upload,
    "without its snapshot": _take_the_snapshot,
    "with another mark": _change_the_mark,
    "with another snapshot": _empty,
}


@pytest.mark.parametrize("other", _LOOKALIKES)
def test_what_only_looks_like_a_leftover(
    store: Store, behind: Behind, object_id: str, other: str
) -> None:
    """A copy of an object by other software, such as a volume, and an object whose snapshot or
    metadata somebody changed: whatever the metadata say, none is swept or taken over."""

    data = content(MIB)
    uri = store.add(object_id, io.BytesIO(data), MIB).uri
    name = _LOOKALIKES[other](behind, object_id)
    with behind.opened(name) as image:
        image_id, before = image.id(), (image.read(0, image.size()), list(image.list_snaps()))
    assert list(store.list_incomplete()) == []
    assert store.sweep(0) == []
    assert store.driver is not None
    assert not store.driver.discard(Incomplete(image_id, name, None, 0.0), context=None)
    with pytest.raises(Duplicate):
        store.add(name, io.BytesIO(b"other"), 5)
    if name != object_id:
        with pytest.raises(Duplicate):
            store.copy(uri, name)
    with behind.opened(name) as image:
        assert (image.read(0, image.size()), list(image.list_snaps())) == before
    for each in dict.fromkeys((name, object_id)):
        behind.remove(each)


def test_a_deletion_that_was_cut_short(
    ceph: Ceph, store: Store, behind: Behind, object_id: str
) -> None:
    """Until the snapshot is gone all of it is there; what is left then is finished by the next
    deletion, by a sweep, and by an add in its place."""
    import rbd

    data = content(MIB)
    for finish in ("delete", "sweep", "add"):
        uri = store.add(object_id, io.BytesIO(data), len(data)).uri
        with rbd.Image(behind.ioctx, object_id) as image:
            image.unprotect_snap("snap")
            mark = Mark.of(image)
            assert mark is not None
            assert mark.state is State.STORED
            Mark(State.DELETING, mark.nonce).put(image)
        assert read(store, uri) == data  # nothing is lost yet
        with rbd.Image(behind.ioctx, object_id) as image:
            image.remove_snap("snap")
        with pytest.raises(NotFound):
            store.stat(uri)
        if finish == "delete":
            store.delete(uri)
        elif finish == "sweep":
            assert [each.object_id for each in store.sweep(0)] == [object_id]
        else:
            store.delete(store.add(object_id, io.BytesIO(data), len(data)).uri)
        with pytest.raises(NotFound):
            store.delete(uri)


_REMOVER = """
    import sys, rados, rbd
    with rados.Rados(conffile=sys.argv[1], rados_id="glance") as cluster:
        with cluster.open_ioctx("images") as ioctx:
            rbd.RBD().remove(ioctx, sys.argv[2])
"""


def test_a_removal_that_was_cut_short(
    ceph: Ceph, store: Store, behind: Behind, object_id: str
) -> None:
    """What is half removed has lost its name and keeps its data; a sweep goes on with it, and
    leaves a new object of the same id alone."""
    import rbd

    # Without an object map every one of these objects is asked for.
    rbd.RBD().create(behind.ioctx, object_id, 512 * MIB, 16, old_format=False, features=1)
    with rbd.Image(behind.ioctx, object_id) as image:
        Mark(State.ADDING, "0" * 32).put(image)
        image.write(b"data", 0)
    program = textwrap.dedent(_REMOVER)
    remover = subprocess.Popen([sys.executable, "-c", program, ceph.conf, object_id])
    eventually(lambda: not _opens(behind, object_id), "the image loses its name")
    remover.kill()
    remover.wait()
    uri = store.add(object_id, io.BytesIO(b"data"), 4).uri
    (found,) = store.list_incomplete()
    assert (found.object_id, found.size) == (object_id, 512 * MIB)
    eventually(
        lambda: store.sweep(0) is not None and not list(store.list_incomplete()),
        "the dead process's watcher is gone, and the rest removed",
    )
    assert read(store, uri) == b"data"
    assert [each.object_id for each in store.list()] == [object_id]
    store.delete(uri)


def _opens(behind: Behind, name: str) -> bool:
    import rbd

    try:
        with behind.opened(name):
            return True
    except rbd.ImageNotFound:
        return False


def test_ages_are_the_clusters(
    store: Store, behind: Behind, object_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock is hours ahead sweeps nothing that is not old by the cluster's."""
    import rbd

    rbd.RBD().create(behind.ioctx, object_id, 0, 22, old_format=False)
    present = time.time()
    monkeypatch.setattr(time, "time", lambda: present + 3 * 3600)
    (found,) = store.list_incomplete()
    assert -1 <= found.age < 60
    assert store.sweep(3600) == []
    assert [each.key for each in behind.ioctx.list_objects() if "clock" in each.key] == []
    assert [each.object_id for each in store.sweep(0)] == [object_id]


def test_a_failed_add_leaves_nothing(store: Store, behind: Behind, object_id: str) -> None:
    """Whatever ends an add, image and data are gone, and its id can be used again."""

    def pieces() -> Iterator[bytes]:
        yield content(20 * MIB)
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="broke"):
        store.add(object_id, pieces())
    assert (behind.names(), behind.objects()) == ([], [])
    store.delete(store.add(object_id, io.BytesIO(b"data"), 4).uri)


def test_what_is_no_leftover(store: Store, behind: Behind) -> None:
    """A leftover that no listing gave is refused, and one that is gone is not removed again."""
    assert store.driver is not None
    with pytest.raises(Invalid):
        store.driver.discard(Incomplete("123", None, None, 0.0), context=None)
    assert not store.driver.discard(Incomplete("123", "gone", None, 0.0), context=None)


def test_racing_to_take_over(
    make_store: MakeStore, behind: Behind, config: Path, object_id: str
) -> None:
    """Of several adds that find the same leftover one wins, and no bytes are mixed."""
    Adder(config, object_id).kill()
    eventually(lambda: no_watcher(behind, object_id), "the dead process's watcher is gone")
    contents = [content(9 * MIB, seed) for seed in range(4)]
    stores = [make_store() for _ in contents]
    start = threading.Barrier(len(stores), timeout=60 * slowness())
    uris: dict[int, str] = {}
    errors: list[BaseException] = []

    def add(number: int) -> None:
        start.wait()
        try:
            uris[number] = stores[number].add(object_id, iter([contents[number]])).uri
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(uris) == 1
    assert [type(error) for error in errors] == [Duplicate] * 3
    ((winner, uri),) = uris.items()
    assert read(stores[0], uri) == contents[winner]
    stores[0].delete(uri)


def test_a_child_uses_a_connection_of_its_own(store: Store, behind: Behind, object_id: str) -> None:
    """After a fork the child lets go of what it inherited, open reader included, and ends."""
    data = content(20 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    reader = store.get(uri)
    begun = reader.read(10)
    code = 1
    pid = os.fork()
    if pid == 0:
        try:
            reader.close()
            code = 0 if read(store, uri) == data else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert begun + reader.read() == data
    eventually(lambda: no_watcher(behind, object_id), "the child's watcher is gone")
    store.delete(uri)
