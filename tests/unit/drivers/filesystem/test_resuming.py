"""An upload whose process was killed is continued by another one, and by no two at once."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib.drivers.filesystem import FilesystemDriver, syscalls
from store_lib.drivers.filesystem.writer import FileWriter
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    Forbidden,
    InUseByStore,
    Invalid,
    NotFound,
)
from tests.unit.drivers.filesystem.conftest import Begin

MIB = 1024 * 1024

#: From Python 3.12 on, forking beside pytest-xdist's thread warns; the children here take no locks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

DATA = os.urandom(3 * MIB)


@contextlib.contextmanager
def uploading(work: Callable[[], FileWriter]) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Upload in another process; yield the state that it reports, and a function that kills it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            writer = work()
            os.write(writing, json.dumps(writer.state()).encode())
            os.close(writing)
            time.sleep(600)
            del writer
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        state = json.loads(pipe.read())
    alive = True

    def kill() -> None:
        nonlocal alive
        if alive:
            alive = False
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    try:
        yield state, kill
    finally:
        kill()


@pytest.fixture
def dead(driver: FilesystemDriver, begin: Begin) -> dict[str, Any]:
    """Return the state of an upload of MIB bytes whose process was killed."""

    def work() -> FileWriter:
        writer = begin(driver, "a")
        writer.write_at(0, DATA[:MIB])
        return writer

    with uploading(work) as (state, _):
        pass
    upload: dict[str, Any] = state
    return upload


def resume(driver: FilesystemDriver, state: Any) -> FileWriter:
    return driver.resume(state, context=None)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("size", [None, len(DATA)])
def test_another_process_goes_on(
    make, begin, contents, data: Path, durable: bool, size: int | None
) -> None:
    """After kill -9 the rest is written by another process, and the object is whole."""
    driver = make(filesystem_store_durable=durable)

    def work() -> FileWriter:
        writer: FileWriter = begin(driver, "a", size)
        writer.write_at(0, DATA[:MIB])
        return writer

    with uploading(work) as (state, kill):
        kill()
    assert state["written"] == MIB
    with resume(driver, state) as writer:
        assert writer.written == MIB
        assert os.listdir(data) == [state["name"]]
        writer.write_at(MIB, DATA[MIB:])
        location = writer.commit(len(DATA))
    assert contents(driver, location) == DATA
    assert os.listdir(data) == ["a"]


def test_a_running_upload_is_not_taken_over(driver, begin, contents, put, data: Path) -> None:
    """As long as its process lives, nobody else gets an upload; nor does a sweep get a resumed
    one."""
    with uploading(lambda: begin(driver, "a")) as (state, kill):
        with pytest.raises(InUseByStore, match="still be running") as caught:
            resume(driver, state)
        assert caught.value.status is ErrorStatus.TEMPORARY
        assert os.listdir(data) == [state["name"]]
        kill()
        writer = resume(driver, state)
        with pytest.raises(InUseByStore):
            resume(driver, state)
    (incomplete,) = driver.list_incomplete(context=None)
    assert incomplete.live
    assert not driver.discard(incomplete, context=None)
    writer.abort()
    assert os.listdir(data) == []
    with pytest.raises(NotFound):
        resume(driver, state)


def test_resumed_twice(driver, dead, contents) -> None:
    """An upload that was resumed, and killed again, goes on from its last state."""

    def work() -> FileWriter:
        writer = resume(driver, dead)
        writer.write_at(MIB, DATA[MIB : 2 * MIB])
        return writer

    with uploading(work) as (state, _):
        pass
    assert state == {**dead, "written": 2 * MIB}
    with resume(driver, state) as writer:
        writer.write_at(2 * MIB, DATA[2 * MIB :])
        location = writer.commit(len(DATA))
    assert contents(driver, location) == DATA


def test_what_the_state_does_not_count_is_cut_off(driver, dead, contents, data: Path) -> None:
    """Bytes that were written after the state cannot show in a hole of the object."""
    with (data / dead["name"]).open("r+b") as file:
        file.seek(MIB)
        file.write(b"x" * MIB)
    with resume(driver, dead) as writer:
        location = writer.commit(2 * MIB)
    assert contents(driver, location) == DATA[:MIB] + bytes(MIB)


def test_only_what_has_no_gap_counts(make, begin) -> None:
    """Writes and holes may be finished in any order; what follows a gap does not count yet."""
    writer = begin(make(), "a")
    for offset, length, counted in (
        (MIB, 10, 0),
        (3 * MIB, 5, 0),
        (0, MIB, MIB + 10),
        (MIB + 10, 0, MIB + 10),
    ):
        writer.write_at(offset, bytes(length))
        assert writer.state()["written"] == counted
    writer.zero(MIB + 10, 2 * MIB - 10)
    assert writer.written == writer.state()["written"] == 3 * MIB + 5
    writer.zero(3 * MIB + 5, MIB)
    assert writer.written == 4 * MIB + 5
    assert writer.state()["written"] == 3 * MIB + 5  # the file does not have that hole yet
    writer.abort()
    assert writer.state() is None


@pytest.mark.parametrize("durable", [True, False])
def test_a_state_is_honest_about_the_disk(make, begin, monkeypatch, durable: bool) -> None:
    """Before a durable store reports bytes as kept, they and the file's name are synced."""
    synced: list[str] = []
    real = syscalls.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2])
        real(fd)

    driver = make(filesystem_store_durable=durable)
    writer = begin(driver, "a")
    writer.write_at(0, b"data")
    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "fsync", fsync)
        state = writer.state()
    assert synced == ([state["name"], "data"] if durable else [])
    writer.abort()


def test_a_state_that_cannot_be_synced(make, begin, monkeypatch) -> None:
    """A failed sync is final, since a second one would succeed: what was lost is not known."""

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(syscalls, "fsync", fail)
    writer = begin(make(), "a")
    writer._write_failed = True
    with pytest.raises(BackendException) as caught:
        writer.state()
    assert caught.value.status is ErrorStatus.PERMANENT
    writer.abort()


def test_where_nothing_can_be_locked(driver, make, begin, dead, monkeypatch) -> None:
    """Where no lock shows that an upload has ended, it has no state and is not taken over."""
    monkeypatch.setattr(syscalls, "lock", lambda fd, how: None)
    other = make()
    writer = begin(other, "b")
    assert writer.state() is None
    writer.abort()
    with pytest.raises(InUseByStore):
        resume(other, dead)


def test_an_upload_that_was_swept(driver, dead) -> None:
    """What a sweep has removed is gone."""
    (incomplete,) = driver.list_incomplete(context=None)
    assert driver.discard(incomplete, context=None)
    with pytest.raises(NotFound):
        resume(driver, dead)


@pytest.mark.parametrize("how", ["rename", "link"])
def test_an_upload_that_was_published(driver, dead, data: Path, how: str) -> None:
    """The state of an upload that has published its object never opens that object."""
    if how == "link":
        os.link(data / dead["name"], data / "a")
    else:
        os.rename(data / dead["name"], data / "a")
    with pytest.raises(Duplicate):
        resume(driver, dead)
    os.rename(data / "a", data / "b")
    with pytest.raises(InUseByStore if how == "link" else NotFound):
        resume(driver, dead)
    assert (data / "b").read_bytes() == DATA[:MIB]


def test_a_staged_file_that_lost_bytes(driver, dead, data: Path) -> None:
    """A file with fewer bytes than the state counts is not filled up with zeros."""
    os.truncate(data / dead["name"], MIB - 1)
    with pytest.raises(Invalid, match="bytes"):
        resume(driver, dead)
    assert (data / dead["name"]).stat().st_size == MIB - 1


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_has_the_name_and_is_no_file(driver, dead, data: Path, tmp_path, kind: str) -> None:
    """A symbolic link is not followed, and nothing but a file is opened."""
    path = data / dead["name"]
    path.unlink()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(MIB))
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(Forbidden if kind == "link" else NotFound):
        resume(driver, dead)
    assert secret.read_bytes() == bytes(MIB)


_MALFORMED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no mapping": lambda state: list(state.items()),
    "empty": lambda state: {},
    "one key missing": lambda state: {key: state[key] for key in state if key != "nonce"},
    "one key more": lambda state: {**state, "upload": "x"},
    "object id of another": lambda state: {**state, "object_id": "b"},
    "object id as a path": lambda state: {**state, "object_id": "../a"},
    "object id no string": lambda state: {**state, "object_id": 1},
    "nonce too short": lambda state: {**state, "nonce": "0"},
    "nonce with a line's end": lambda state: {**state, "nonce": state["nonce"] + "\n"},
    "name of an object": lambda state: {**state, "name": "a"},
    "name elsewhere": lambda state: {**state, "name": f"../elsewhere/{state['name']}"},
    "name that leads out": lambda state: {
        **state,
        "object_id": "x/../../elsewhere/" + state["name"],
        "name": f"{state['name'][:-1]}x/../../elsewhere/{state['name']}",
    },
    "cut name that leads out": lambda state: {
        **state,
        "name": state["name"].replace("-a", "~/../../elsewhere/a"),
    },
    "name with a NUL": lambda state: {**state, "name": state["name"] + "\0"},
    "another directory": lambda state: {**state, "directory": state["directory"] + "/../elsewhere"},
    "no directory": lambda state: {**state, "directory": ""},
    "written negative": lambda state: {**state, "written": -1},
    "written too much": lambda state: {**state, "written": 2**63},
    "written more than there is": lambda state: {**state, "written": state["written"] + 1},
    "written no number": lambda state: {**state, "written": str(state["written"])},
    "written true": lambda state: {**state, "written": True},
    "written a fraction": lambda state: {**state, "written": 1.0},
}


@pytest.mark.parametrize("how", _MALFORMED)
def test_malformed_states(driver, dead, data: Path, tmp_path, how: str) -> None:
    """A state that no upload to the store returned is one error, and touches nothing."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (dead["name"], "a"):
        (elsewhere / name).write_bytes(bytes(2 * MIB))
    with pytest.raises(Invalid, match="state of an upload to this store"):
        resume(driver, _MALFORMED[how](dead))
    for name in (dead["name"], "a"):
        assert (elsewhere / name).read_bytes() == bytes(2 * MIB)
    assert (data / dead["name"]).read_bytes() == DATA[:MIB]
    resume(driver, dead).abort()


def test_a_long_id_is_cut_in_the_name(driver, begin, contents) -> None:
    """An upload whose staged name has only part of its id is found by it."""
    object_id = "\u00e4" * 120

    def work() -> FileWriter:
        writer: FileWriter = begin(driver, object_id)
        writer.write_at(0, b"data")
        return writer

    with uploading(work) as (state, _):
        pass
    with pytest.raises(Invalid):
        resume(driver, {**state, "object_id": "b" + object_id})
    with resume(driver, state) as writer:
        location = writer.commit(4)
    assert location.path.endswith(f"/{object_id}")
    assert contents(driver, location) == b"data"


def test_a_resumed_upload_is_create_only(driver, put, dead, data: Path) -> None:
    """Where another add was quicker, a resumed upload is Duplicate and leaves nothing."""
    writer = resume(driver, dead)
    put(driver, "a", b"other")
    with pytest.raises(Duplicate):
        writer.commit(MIB)
    writer.abort()
    assert (data / "a").read_bytes() == b"other"
    assert os.listdir(data) == ["a"]


def test_in_one_of_several_directories(make, begin, contents, tmp_path: Path) -> None:
    """An upload goes on in the directory where it began, also when the list has changed."""
    places = [f"{tmp_path}/x:1", f"{tmp_path}/y"]
    driver = make(filesystem_store_datadirs=places)

    def work() -> FileWriter:
        writer: FileWriter = begin(driver, "a")
        writer.write_at(0, b"data")
        return writer

    with uploading(work) as (state, _):
        pass
    assert state["directory"] == f"{tmp_path}/x"
    with pytest.raises(Invalid, match="none of the store's directories"):
        resume(make(filesystem_store_datadirs=[f"{tmp_path}/y"]), state)
    other = make(filesystem_store_datadirs=[f"{tmp_path}/z:5", f"{tmp_path}/y:2", f"{tmp_path}/x"])
    with resume(other, state) as writer:
        location = writer.commit(4)
    assert location.path == f"{tmp_path}/x/a"
    assert contents(other, location) == b"data"


def test_a_dropped_writer_leaves_a_running_upload_alone(driver, begin, data: Path) -> None:
    """An attempt to resume that failed removes nothing, however it is dropped."""
    with uploading(lambda: begin(driver, "a")) as (state, _):
        with pytest.raises(InUseByStore):
            resume(driver, state)
        assert os.listdir(data) == [state["name"]]


def test_nonce(driver, dead) -> None:
    """The resumed upload is still the same one."""
    writer = resume(driver, dead)
    state = writer.state()
    assert state is not None
    assert state["nonce"] == dead["nonce"]
    writer.abort()
