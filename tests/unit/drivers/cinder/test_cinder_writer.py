"""The order of what a writer asks of Cinder, and how it goes on where an answer was lost."""

import dataclasses
import pathlib
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib.driver import Incomplete
from store_lib.drivers.cinder import writer as module
from store_lib.drivers.cinder.incomplete import Cleanup
from store_lib.drivers.cinder.location import CinderLocation
from store_lib.drivers.cinder.options import Settings
from store_lib.drivers.cinder.volume import GIB, HEARTBEAT_TIMEOUT, HOST, UPLOAD, Volume
from store_lib.drivers.cinder.writer import Upload, VolumeWriter
from store_lib.exceptions import (
    NotFound,
    NotSupported,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
)
from tests.unit.drivers.cinder.small_cinder import (
    SmallAttachment,
    SmallCinder,
    SmallHost,
    attachment_of,
)

_NONCE = "0123456789abcdef" * 2


@pytest.fixture
def upload(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Upload:
    """An upload on a host without storage."""
    monkeypatch.setattr(module, "Attachment", SmallAttachment)
    return Upload("the id", _NONCE, "the owner", SmallHost(tmp_path))


def _new_writer(
    cinder: Any, upload: Upload, *, attached: bool = False, size: int = 0, kind: str | None = None
) -> VolumeWriter:
    return VolumeWriter(cinder, upload, size, Settings("it", "it", kind, 0, attached))


def _writer(cinder: Any, upload: Upload, *, attached: bool = False, size: int = 1) -> VolumeWriter:
    """Return a writer whose volume has been created."""
    writer = _new_writer(cinder, upload, attached=attached, size=size * GIB)
    assert writer.reserved == 0
    assert writer.reserve(1) == size * GIB
    return writer


def test_a_volume_becomes_the_object_last_of_all(upload: Upload) -> None:
    """It is filled under another name, flushed, detached, protected, and named in one step."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    [volume] = cinder.volumes.values()
    assert volume.metadata[UPLOAD] == "the id"
    assert "glance_image_id" not in volume.metadata
    assert writer.resolve() is None
    writer.write_at(0, b"bytes")
    location = writer.commit(5)
    assert cinder.asked == [
        *("create 1", "attach", "write 0", "flush", "detach"),
        *("set_readonly", "update image-the id"),
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
        *("create 1", "extend 2", "attach", f"write {GIB}", "extend 4", "grow"),
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


@pytest.mark.parametrize("lost", ["set_readonly", "update"])
def test_a_commit_can_be_made_again(lost: str, upload: Upload) -> None:
    """Whatever had no answer is repeated, or found to be done."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    writer.write_at(0, b"bytes")
    cinder.lose = {lost}
    with pytest.raises(RemoteServiceUnavailable):
        writer.commit(5)
    found = writer.resolve()
    assert (found is not None) == (lost == "update")
    assert writer.commit(5).uri == "cinder://it/volume-0"
    assert cinder.asked.count("detach") == 1


def test_a_creation_whose_answer_was_lost_is_found(upload: Upload) -> None:
    """The volume of this upload's name is taken, and no second one made."""
    cinder = SmallCinder()
    cinder.lose = {"create"}
    writer = _writer(cinder, upload)
    assert cinder.asked == ["create 1", "find"]
    writer.abort()
    assert cinder.volumes == {}
    writer.abort()  # as after an error on the way


def test_a_volume_that_ends_in_error_is_removed(upload: Upload) -> None:
    """The error tells its state."""
    cinder = SmallCinder()
    cinder.ends_in = "error"
    writer = _new_writer(cinder, upload, kind="fast")
    for _ in range(2):  # as after a temporary error: no second one is made
        with pytest.raises(StorageFull, match="'error'"):
            writer.reserve(1)
    assert len(cinder.volumes) == 1
    writer.abort()
    assert cinder.volumes == {}


def test_a_volume_is_attached_with_its_first_byte(upload: Upload) -> None:
    """Once, by one of the writing threads."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    assert "attach" not in cinder.asked
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: writer.write_at(each, b"a"), range(8)))
    assert cinder.asked.count("attach") == 1
    writer.commit(8)


def test_an_empty_object_is_never_attached(upload: Upload) -> None:
    """Its volume is created by the commit."""
    cinder = SmallCinder()
    writer = _new_writer(cinder, upload)
    assert cinder.asked == []
    writer.commit(0)
    assert cinder.asked == ["create 1", "set_readonly", "update image-the id"]


def test_a_volume_that_cannot_be_attached_leaves_nothing(
    upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write raises the error, and the abort removes the volume."""

    def refuse(*_: Any) -> None:
        raise StoreError("no way")

    monkeypatch.setattr(SmallAttachment, "attach", refuse)
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
    source = dataclasses.replace(source, metadata={"image_size": "5"}, volume_type="default")
    cinder.volumes[source.id] = source
    location = _new_writer(cinder, upload).copy_from(CinderLocation(source.id))
    assert location.volume_id != source.id
    assert cinder.volumes[location.volume_id].size == 3 * GIB
    assert cinder.volumes[location.volume_id].metadata["image_size"] == "5"
    assert cinder.asked[1:] == [f"clone {source.id} 3", "set_readonly", "update image-the id"]


def test_what_cannot_be_cloned_leaves_nothing(upload: Upload) -> None:
    """Neither a volume of another type, nor one that is no object, nor one that is not there."""
    cinder = SmallCinder()
    other = cinder.create("other", 1, "slow", {})
    unfinished = cinder.create("unfinished", 1, None, {UPLOAD: "it"})
    errors: list[tuple[str, type[StoreError]]]
    errors = [(other.id, NotSupported), (unfinished.id, NotFound), ("gone", NotFound)]
    for volume_id, error in errors:
        writer = _new_writer(cinder, upload)
        with pytest.raises(error):
            writer.copy_from(CinderLocation(volume_id))
        assert writer.resolve() is None
        writer.abort()
    assert set(cinder.volumes) == {other.id, unfinished.id}


@pytest.mark.parametrize("lost", ["clone", "set_readonly", "update"])
def test_a_clone_whose_answer_was_lost(lost: str, upload: Upload) -> None:
    """It is found by its name, or aborted, or resolved."""
    cinder = SmallCinder()
    source = dataclasses.replace(cinder.create("source", 1, None, {}), volume_type="default")
    cinder.volumes[source.id] = source
    cinder.lose = {lost}
    writer = _new_writer(cinder, upload)
    if lost == "clone":
        assert writer.copy_from(CinderLocation(source.id)) == writer.resolve()
        return
    with pytest.raises(RemoteServiceUnavailable):
        writer.copy_from(CinderLocation(source.id))
    assert (writer.resolve() is not None) == (lost == "update")
    if lost == "set_readonly":
        writer.abort()
        assert set(cinder.volumes) == {source.id}


def test_an_upload_shows_life_now_and_then(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each write, and an error with that harms nothing."""
    cinder = SmallCinder()
    writer = _writer(cinder, upload)
    writer.write_at(0, b"a")
    assert "set_description" not in cinder.asked
    monkeypatch.setattr(writer, "_next_heartbeat", time.monotonic())
    cinder.lose = {"set_description"}
    writer.write_at(1, b"a")
    writer.write_at(2, b"a")
    assert cinder.asked.count("set_description") == 1


def _describe(volume: Volume, host: Any, now: float) -> Incomplete:
    """Describe an unfinished volume, at a time by Cinder's clock."""
    cinder: Any = SimpleNamespace(now=lambda: now)
    return Cleanup(cinder, host).describe(volume)


def test_who_is_alive_is_told(upload: Upload, tmp_path: pathlib.Path) -> None:
    """On this host by a lock, on another one by the last sign of life."""
    cinder = SmallCinder()
    cinder.clock = 1000.0
    writer = _writer(cinder, upload)
    here, there = SmallHost(tmp_path), SmallHost(tmp_path, "there")
    [volume] = cinder.volumes.values()
    assert volume.metadata[HOST] == "here"
    for host in (here, there):
        told = _describe(volume, host, 1000.0)
        assert (told.key, told.object_id, told.live) == (volume.id, "the id", True)
        assert told.age == 0
    writer.abort()
    assert not _describe(volume, here, 1000.0).live
    assert _describe(volume, there, 1000.0).live


def test_signs_of_life_are_by_cinders_clock(upload: Upload, tmp_path: pathlib.Path) -> None:
    """A machine whose own clock is hours off takes no upload on another one for dead."""
    cinder = SmallCinder()
    cinder.clock = 1000.0
    there = SmallHost(tmp_path, "there")
    writer = _writer(cinder, upload)
    [volume] = cinder.volumes.values()
    assert not _describe(volume, there, 1000.0 + HEARTBEAT_TIMEOUT).live
    cinder.clock += HEARTBEAT_TIMEOUT
    writer._next_heartbeat = time.monotonic()
    writer.write_at(0, b"a")
    [volume] = cinder.volumes.values()
    told = _describe(volume, there, cinder.clock + 1)
    assert (told.live, told.age) == (True, 1)
    assert _describe(volume, there, cinder.clock - 0.5).age == 0  # Dates are in whole seconds


def test_what_is_attached_is_detached_before_it_is_removed(tmp_path: pathlib.Path) -> None:
    """Every attachment of it is ended, whoever made it; what is not attached is only deleted."""
    cinder = SmallCinder()
    host = SmallHost(tmp_path)
    for attached in ([], ["one", "other"]):
        volume = cinder.create("it", 1, None, {HOST: "elsewhere"})
        if attached:
            cinder.volumes[volume.id] = dataclasses.replace(volume, status="in-use")
            cinder.attached[volume.id] = [attachment_of(each) for each in attached]
        cinder.asked.clear()
        Cleanup(cinder, host).remove(volume.id)  # type: ignore[arg-type]
        assert cinder.asked == [*(f"delete_attachment {each}" for each in attached), "delete"]
        assert cinder.volumes == {}
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("told", "size"), [("5", 5), ("", GIB), ("-5", GIB), ("x", GIB), ("9" * 5000, GIB)]
)
def test_what_metadata_says_of_the_size(told: str, size: int) -> None:
    """A user may write anything there: what is no size is that of the volume."""
    volume = SmallCinder().create("name", 1, None, {"image_size": told})
    assert volume.object_size == size
