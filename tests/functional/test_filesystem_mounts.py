"""The filesystem driver on other file systems: exFAT, bindfs, a disk that takes nothing."""

import concurrent.futures
import contextlib
import functools
import io
import itertools
import os
import secrets
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.driver import CreateOnly
from store_lib.exceptions import Duplicate, SizeMismatch, StoreAddDisabled, TimeoutError
from tests.functional.conformance import passed, run_kit, write_config
from tests.functional.conftest import served
from tests.servers.mounts import bindfs, exfat, tmpfs, xfs

MIB = 1024 * 1024


def store_in(*directories: Path | str, **options: Any) -> Store:
    """Return a store in these directories."""
    section: dict[str, Any] = {"filesystem_store_datadirs": [str(each) for each in directories]}
    section.update(options)
    values = {"DEFAULT": {"enabled_backends": {"it": "file"}}, "it": section}
    return Stores.from_mapping(values)["it"]


def ids(store: Store) -> set[str]:
    return {each.object_id for each in store.list()}


@pytest.fixture(scope="module")
def on_exfat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on exFAT."""
    with served(exfat(tmp_path_factory.mktemp("exfat") / "disk")) as path:
        yield path


@pytest.fixture
def on_fuse(tmp_path: Path) -> Iterator[Path]:
    """A directory that is reached through FUSE; what lies in it lies in ``below``, too."""
    (tmp_path / "below").mkdir()
    with served(bindfs(tmp_path / "fuse", tmp_path / "below")) as path:
        yield path


def test_races_without_links_and_flags(on_exfat: Path, tmp_path: Path) -> None:
    """Where no step of the file system keeps a name to one file, racing adds have one winner."""
    config = write_config(
        tmp_path,
        "file",
        f"filesystem_store_datadir = {on_exfat}/raced",
        "filesystem_store_checked_publish = true",
    )
    chosen = ("-k", "racing_processes or racing_threads or second_add")
    result = run_kit(tmp_path, "--store-config", config, "--store", "it", *chosen)
    assert passed(result) == 4


def test_a_file_system_without_links_and_flags(on_exfat: Path, caplog: Any) -> None:
    """Such a file system is refused, or works with one warning and a smaller claim."""
    refused = store_in(on_exfat / "data")
    assert "filesystem_store_checked_publish" in str(refused.error)
    caplog.clear()
    store = store_in(on_exfat / "data", filesystem_store_checked_publish=True)
    assert len(caplog.records) == 1
    assert store.driver is not None
    assert store.driver.create_only is CreateOnly.CHECKED
    data = os.urandom(3 * MIB)
    uri = store.add("a", data).uri
    with pytest.raises(Duplicate):
        store.add("a", b"again")
    with pytest.raises(SizeMismatch):
        store.add("b", io.BytesIO(b"x"), 2)
    store.copy(uri, "c")
    assert ids(store) == {"a", "c"}
    assert store.get(uri).read() == data
    assert sorted(os.listdir(on_exfat / "data")) == ["a", "c"]


def test_claims_where_nothing_locks(on_exfat: Path, monkeypatch: Any) -> None:
    """Claims work on exFAT, and one that a dead process left is taken away."""
    monkeypatch.setattr("store_lib.drivers.filesystem.syscalls.lock", lambda fd, how: None)
    directory = on_exfat / "claimed"
    store = store_in(directory, filesystem_store_checked_publish=True, transfer_attempts=1)
    real = os.rename
    met: list[str] = []

    def rename(source: str, target: str) -> None:
        if target.endswith("/a"):
            (claim,) = [each for each in os.listdir(directory) if "-claim-" in each]
            met.append(claim)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    uri = store.add("a", b"x").uri
    assert os.listdir(directory) == ["a"]
    store.delete(uri)
    left = directory / met[0]
    left.touch()
    with pytest.raises(Duplicate, match="being added right now"):
        store.add("a", b"y")
    os.utime(left, (0, left.stat().st_mtime - 100))
    store.add("a", b"z")
    assert os.listdir(directory) == ["a"]


def test_removed_files_that_are_open(on_fuse: Path) -> None:
    """What FUSE keeps of a removed file that is open is not listed, nor is it in the way."""
    store = store_in(on_fuse)
    for number in range(5):
        store.add(f"good-{number}", os.urandom(2 * MIB))
        with pytest.raises(SizeMismatch):
            store.add(f"bad-{number}", io.BytesIO(bytes(2 * MIB)), 3 * MIB)
        assert not [name for name in os.listdir(on_fuse) if name.startswith(".")]
    for each in list(store.list()):
        with store.get(each.location.uri) as reader:
            begun = reader.read(1)
            store.delete(each.location.uri)
            assert each.object_id not in os.listdir(on_fuse)
            assert [name for name in os.listdir(on_fuse) if name.startswith(".fuse_hidden")]
            assert each.object_id not in ids(store)
            assert all(id.startswith("good-") for id in ids(store))
            assert len(begun + reader.read()) == 2 * MIB
    assert os.listdir(on_fuse) == []


def test_holes_on_fuse(on_fuse: Path) -> None:
    """A copy on a file system that does not tell where holes are has them all the same."""
    store = store_in(on_fuse, filesystem_thin_provisioning=True)
    data = bytes(4 * MIB) + os.urandom(MIB) + bytes(8 * MIB)
    made = store.add("a", data)
    copied = store.copy(made.uri, "b")
    assert store.get(copied.uri).read() == data
    assert os.stat(on_fuse / "b").st_blocks * 512 <= os.stat(on_fuse / "a").st_blocks * 512
    assert os.stat(on_fuse / "b").st_blocks * 512 < 2 * MIB


@pytest.fixture(params=["no inodes", "read-only", "XFS", "FUSE"])
def bad(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that takes nothing."""
    path = tmp_path / "a-bad"
    if request.param == "no inodes":
        with served(tmpfs(path, "size=64m", "nr_inodes=4")) as disk:
            for number in range(3):
                (disk / f"full-{number}").touch()
            yield disk
    elif request.param == "read-only":
        with served(tmpfs(path, "size=64m")) as disk:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            yield disk
    elif request.param == "XFS":
        with served(xfs(path)) as disk:
            fill(disk)
            yield disk
    else:
        (tmp_path / "below").mkdir()
        with served(bindfs(path, tmp_path / "below")) as disk:
            kill_bindfs(disk)
            yield disk


def daemon_of(disk: Path) -> int:
    """Return the process behind a mount of bindfs."""
    for each in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path("/proc", each, "cmdline").read_bytes().split(b"\0")
            if words[0] == b"bindfs" and os.fsencode(disk) in words:
                return int(each)
    raise AssertionError(f"Nothing serves {disk}.")


def kill_bindfs(disk: Path) -> None:
    """End the process behind a mount, so that every call to it fails."""
    process = daemon_of(disk)
    pidfd = os.pidfd_open(process)
    os.kill(process, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)
    with pytest.raises(OSError, match="not connected"):
        os.stat(disk)


def fill(disk: Path) -> None:
    """Use up a disk, to the last inode that it would make."""
    with (disk / "full").open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            until_full(functools.partial(file.write, b"x" * size))
    numbers = itertools.count()
    until_full(lambda: (disk / f"{next(numbers)}").touch())


def until_full(write: Callable[[], object]) -> None:
    def write_on() -> None:
        while True:
            write()

    with pytest.raises(OSError, match="No space left"):
        write_on()


def test_one_bad_directory_among_two(bad: Path, tmp_path: Path) -> None:
    """Adds and copies go to the other directory, though the bad one is the first of all."""
    good = tmp_path / "b-good"
    store = store_in(f"{bad}:9", good)
    assert store.error is None
    for size in (0, MIB, 2 * MIB):
        made = store.add(f"a{size}", os.urandom(size), size)
        store.copy(made.uri, f"b{size}")
    with pytest.raises(Duplicate):
        store.add("a0", secrets.token_bytes(5))
    assert set(os.listdir(good)) == {f"{each}{size}" for each in "ab" for size in (0, MIB, 2 * MIB)}


def test_a_hung_mount(on_fuse: Path) -> None:
    """On a mount that does not answer every call is given up in time, the making of stores too."""
    options = {"filesystem_store_timeout": 1, "transfer_stall_timeout": 60, "transfer_attempts": 1}
    store = store_in(on_fuse, **options)
    uri = store.add("a", b"x").uri
    deleted = store.add("deleted", b"x").uri
    calls: list[Callable[[], Any]] = [
        lambda: list(store.list()),
        lambda: list(store.list_incomplete()),
        lambda: store.sweep(0),
        lambda: store.copy(uri, "b"),
        lambda: store.add("c", b"x"),
        lambda: store.get(uri).read(),
        lambda: store.delete(deleted),
        store.space,
        lambda: store_in(on_fuse, **options).add("d", b"x"),
    ]
    process = daemon_of(on_fuse)
    os.kill(process, signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
            running = [pool.submit(call) for call in calls]
            errors = [each.exception(30) for each in running]
    finally:
        os.kill(process, signal.SIGCONT)
    made = errors.pop()
    assert isinstance(made, StoreAddDisabled)
    assert "did not answer" in str(made)
    assert {type(each) for each in errors} == {TimeoutError}
    # What was given up does nothing once the mount is well again; but a delete that the system
    # was at already takes place.
    assert store_in(on_fuse).get(uri).read() == b"x"
    assert ids(store_in(on_fuse)) <= {"a", "deleted"}
