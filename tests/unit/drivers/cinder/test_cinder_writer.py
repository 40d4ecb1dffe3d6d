"""The order of what a writer asks of Cinder, and how it goes on where an answer was lost."""

import dataclasses
import pathlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store_lib.drivers.cinder import writer as module
from store_lib.drivers.cinder.driver import _size
from store_lib.drivers.cinder.leftovers import remove
from store_lib.drivers.cinder.locks import LockFile
from store_lib.drivers.cinder.uploads import DEAD, HOST, OBJECT, Upload, describe
from store_lib.drivers.cinder.volume import GIB
from store_lib.drivers.cinder.writer import VolumeWriter, clone, make_volume
from store_lib.exceptions import RemoteServiceUnavailable, StorageFull, StoreError
from tests.unit.drivers.cinder.small_cinder import SmallAttachment, SmallCinder, grant_of

_NONCE = "0123456789abcdef" * 2


class _Host:
    """A host's name and locks."""

    def __init__(self, directory: pathlib.Path, name: str = "here") -> None:
        self.name = name
        self._directory = str(directory)

    def lock(self, name: str) -> LockFile:
        return LockFile(self._directory, name)

    def volume_lock(self, volume_id: str) -> LockFile:
        return self.lock(volume_id)


@pytest.fixture
def upload(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Upload:
    """An upload on a host without storage."""
    monkeypatch.setattr(module, "Attachment", SmallAttachment)
    host: Any = _Host(tmp_path)
    return Upload("the id", _NONCE, "the owner", host)


def _writer(cinder: Any, upload: Upload, *, attached: bool = False, size: int = 1) -> VolumeWriter:
    upload.begin()
    volume = make_volume(cinder, upload, size, None)
    return VolumeWriter(cinder, upload, volume, store_id="it", patience=0, grow_attached=attached)


def test_a_volume_becomes_the_object_last_of_all(upload: Upload) -> None:
    """It is filled under another name, flushed, detached, protected, and named in one step."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    [volume] = cinder.volumes.values()
    assert volume.metadata[OBJECT] == "the id"
    assert "glance_image_id" not in volume.metadata
    assert writer.resolve() is None
    writer.write_at(0, b"bytes")
    location = writer.commit(5)
    assert cinder.asked == [
        *("create 1", "attach", "write 0", "flush", "detach"),
        *("protect", "publish image-the id"),
    ]
    [volume] = cinder.volumes.values()
    assert volume.metadata == {
        "glance_image_id": "the id",
        "image_size": "5",
        "image_owner": "the owner",
        "store_lib_nonce": _NONCE,
    }
    assert location.uri == f"cinder://it/{volume.id}"
    assert writer.resolve() == location


def test_a_hundred_gibibytes_take_seven_extensions(upload: Upload) -> None:
    """A stream of unknown length finds its volume doubled each time."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    room = writer.reserved
    while room < 100 * GIB:
        writer.write_at(room - 1, b"a")
        room = writer.reserve(room + 1)
    writer.write_at(room - 1, b"a")
    extended = [each for each in cinder.asked if each.startswith("extend")]
    assert extended == [f"extend {2**step}" for step in range(1, 8)]
    assert cinder.asked.count("attach") == 8


def test_attached_growth_detaches_nothing(upload: Upload) -> None:
    """The device is told of its new size instead."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload, attached=True)
    assert not writer.quiesce_to_grow
    writer.reserve(GIB + 1)  # not attached yet
    writer.write_at(GIB, b"a")
    writer.reserve(2 * GIB + 1)
    assert cinder.asked == [
        *("create 1", "extend 2", "attach", f"write {GIB}", "extend 4", "grown"),
    ]


def test_a_small_quota_is_used_up(upload: Upload) -> None:
    """Refused steps are halved, down to what is needed; then there is no room."""
    cinder = SmallCinder(quota=11)
    writer = _writer(cinder, upload, size=8)
    assert writer.reserve(8 * GIB + 1) == 10 * GIB
    assert writer.reserve(10 * GIB + 1) == 11 * GIB
    with pytest.raises(StorageFull):
        writer.reserve(11 * GIB + 1)
    assert [each for each in cinder.asked if "refused" in each or "extend" in each] == [
        *("refused 16", "refused 12", "extend 10"),
        *("refused 20", "refused 15", "refused 12", "extend 11"),
        *("refused 22", "refused 16", "refused 13", "refused 12"),
    ]


def test_an_extension_whose_answer_was_lost_is_made_once(upload: Upload) -> None:
    """The second try sees what the first has done."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    cinder.lose = {"extend"}
    with pytest.raises(RemoteServiceUnavailable):
        writer.reserve(GIB + 1)
    assert writer.reserve(GIB + 1) == 2 * GIB
    assert cinder.asked.count("extend 2") == 1


@pytest.mark.parametrize("lost", ["protect", "publish"])
def test_a_commit_can_be_made_again(lost: str, upload: Upload) -> None:
    """Whatever had no answer is repeated, or found to be done."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    writer.write_at(0, b"bytes")
    cinder.lose = {lost}
    with pytest.raises(RemoteServiceUnavailable):
        writer.commit(5)
    found = writer.resolve()
    assert (found is not None) == (lost == "publish")
    assert writer.commit(5).uri == "cinder://it/volume-0"
    assert cinder.asked.count("detach") == 1


def test_a_creation_whose_answer_was_lost_is_found(upload: Upload) -> None:
    """The volume of this upload's name is taken, and no second one made."""
    cinder = SmallCinder()
    cinder.lose = {"create"}
    writer = _writer(cinder, upload)
    assert cinder.asked == ["create 1", "named"]
    writer.abort()
    assert cinder.volumes == {}
    writer.abort()  # as after an error on the way


def test_a_volume_that_ends_in_error_is_removed(upload: Upload) -> None:
    """The error tells its state."""
    cinder = SmallCinder()
    cinder.ends_in = "error"
    with pytest.raises(StorageFull, match="'error'"):
        make_volume(cinder, upload, 1, "fast")  # type: ignore[arg-type]
    assert cinder.volumes == {}


def test_a_volume_is_attached_with_its_first_byte(
    upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, by one of the writing threads; an empty one never is, and an error leaves nothing."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: writer.write_at(each, b"a"), range(8)))
    assert cinder.asked.count("attach") == 1
    writer.commit(8)
    empty = SmallCinder()
    _writer(empty, upload).commit(0)
    assert empty.asked == ["create 1", "protect", "publish image-the id"]

    def refuse(*_: Any, **__: Any) -> None:
        raise StoreError("no way")

    monkeypatch.setattr(module, "Attachment", refuse)
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    with pytest.raises(StoreError, match="no way"):
        writer.write_at(0, b"a")
    writer.abort()
    assert cinder.volumes == {}


def test_a_clone_is_named_when_it_is_there(upload: Upload) -> None:
    """It has its source's size, as an object and as a volume."""
    cinder = SmallCinder()
    source = cinder.create("source", 3, None, {})
    made = clone(cinder, upload, source, 5, None)  # type: ignore[arg-type]
    assert cinder.volumes[made].size == 3 * GIB
    assert cinder.volumes[made].metadata["image_size"] == "5"


def test_an_upload_shows_life_now_and_then(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each write, and an error with that harms nothing."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    writer.write_at(0, b"a")
    assert "describe" not in cinder.asked
    monkeypatch.setattr(writer, "_beat_at", time.monotonic())
    cinder.lose = {"describe"}
    writer.write_at(1, b"a")
    writer.write_at(2, b"a")
    assert cinder.asked.count("describe") == 1


def test_who_is_alive_is_told(upload: Upload, tmp_path: pathlib.Path) -> None:
    """On this host by a lock, on another one by the last sign of life."""
    cinder = SmallCinder()
    cinder.clock = 1000.0
    writer = _writer(cinder, upload)
    here: Any = _Host(tmp_path)
    there: Any = _Host(tmp_path, "there")
    [volume] = cinder.volumes.values()
    assert volume.metadata[HOST] == "here"
    for host in (here, there):
        told = describe(host, volume, 1000.0)
        assert (told.key, told.object_id, told.live) == (volume.id, "the id", True)
        assert told.age == 0
    writer.abort()
    assert not describe(here, volume, 1000.0).live
    assert describe(there, volume, 1000.0).live


def test_signs_of_life_are_by_cinders_clock(upload: Upload, tmp_path: pathlib.Path) -> None:
    """A machine whose own clock is hours off takes no upload on another one for dead."""
    cinder = SmallCinder()
    cinder.clock = 1000.0
    there: Any = _Host(tmp_path, "there")
    writer = _writer(cinder, upload)
    [volume] = cinder.volumes.values()
    assert not describe(there, volume, 1000.0 + DEAD).live
    cinder.clock += DEAD
    writer._beat_at = time.monotonic()
    writer.write_at(0, b"a")
    [volume] = cinder.volumes.values()
    told = describe(there, volume, cinder.clock + 1)
    assert (told.live, told.age) == (True, 1)
    assert describe(there, volume, cinder.clock - 0.5).age == 0  # Dates are in whole seconds


def test_what_is_attached_is_detached_before_it_is_removed(tmp_path: pathlib.Path) -> None:
    """Every attachment of it is ended, whoever made it; what is not attached is only deleted."""
    cinder = SmallCinder()
    host: Any = _Host(tmp_path)
    for attached in ([], ["one", "other"]):
        volume = cinder.create("it", 1, None, {HOST: "elsewhere"})
        if attached:
            cinder.volumes[volume.id] = dataclasses.replace(volume, status="in-use")
            cinder.attached[volume.id] = [grant_of(each) for each in attached]
        cinder.asked.clear()
        remove(cinder, host, volume.id)  # type: ignore[arg-type]
        assert cinder.asked == [*(f"release {each}" for each in attached), "delete"]
        assert cinder.volumes == {}
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("told", "size"), [("5", 5), ("", GIB), ("-5", GIB), ("x", GIB), ("9" * 5000, GIB)]
)
def test_what_metadata_says_of_the_size(told: str, size: int) -> None:
    """A user may write anything there: what is no size is that of the volume."""
    volume = SmallCinder().create("name", 1, None, {"image_size": told})
    assert _size(volume) == size
