"""One process at a time publishes an id: by locks, by claims where nothing locks, and by a look."""

import contextlib
import errno
import fcntl
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store_lib.drivers.filesystem import FilesystemDriver, syscalls
from store_lib.drivers.filesystem.exclusion import CLAIM_LIFE, sole_publisher
from store_lib.drivers.filesystem.publishing import Publishing
from store_lib.exceptions import Duplicate, ErrorStatus, StorageFull
from tests.unit.drivers.filesystem.conftest import copy

# Several directories


@pytest.fixture
def both(tmp_path: Path) -> list[str]:
    """Return two directories."""
    for name in "xy":
        (tmp_path / name).mkdir()
    return [f"{tmp_path}/x", f"{tmp_path}/y"]


def locked_in(directories: list[str]) -> list[bool]:
    """Say in which directories somebody holds the lock of an id."""
    found = []
    for directory in directories:
        names = [name for name in os.listdir(directory) if "-lock-" in name]
        found.append(bool(names) and is_locked(f"{directory}/{names[0]}"))
    return found


def is_locked(path: str) -> bool:
    with open(path) as file:
        return syscalls.lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB) is False


def test_locks_in_every_directory(both: list[str]) -> None:
    """An id is locked in all directories, whatever their order, and nothing is left."""
    with sole_publisher(reversed(both), "a"):
        assert locked_in(both) == [True, True]
    assert [os.listdir(each) for each in both] == [[], []]


@pytest.mark.parametrize(
    ("one", "other"), [("Ab", "aB"), ("caf\u00e9", "CAFE\u0301"), ("stra\u00dfe", "STRASSE")]
)
def test_ids_that_may_be_one_name(both: list[str], one: str, other: str, no_locks) -> None:
    """Some file systems compare names without case or form: such ids exclude each other."""
    with sole_publisher(both, one), pytest.raises(Duplicate), sole_publisher(both, other):
        pass


@pytest.mark.parametrize("bad", [0, 1])
def test_a_directory_that_cannot_be_written(both: list[str], bad: int, unwritable) -> None:
    """A directory that cannot be written is left out, and the others lock."""
    unwritable(both[bad])
    with sole_publisher(both, "a"):
        assert locked_in(both) == [bad != 0, bad != 1]
    assert [os.listdir(each) for each in both] == [[], []]


def test_a_lock_where_it_is_needed(both: list[str], unwritable) -> None:
    """Where nothing else keeps a name to one file, the lock must lie in that very directory."""
    unwritable(both[0])
    with pytest.raises(PermissionError), sole_publisher(both, "a", both[0]):
        pass
    assert [os.listdir(each) for each in both] == [[], []]


@pytest.fixture
def unwritable(monkeypatch) -> Callable[[str], None]:
    """Return a function that lets no file be made in a directory any more, root or not."""

    def function(directory: str, number: int = errno.EACCES) -> None:
        real = os.open

        def fail(path: Any, flags: int, *rest: Any, **keywords: Any) -> int:
            if flags & os.O_CREAT and os.fspath(path).startswith(f"{directory}/"):
                raise OSError(number, os.strerror(number), path)
            return real(path, flags, *rest, **keywords)

        monkeypatch.setattr(os, "open", fail)

    return function


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO, errno.ENOTCONN]
)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("size", [0, None, 2**21])
def test_one_bad_directory(
    make, begin, both: list[str], unwritable, caplog, number: int, when: str, size: int | None
) -> None:
    """Where one directory takes nothing, objects go to the other one, whatever its priority."""
    options = {"filesystem_store_datadirs": [f"{both[0]}:9", both[1]]}
    if when == "after":
        driver = make(**options)
        unwritable(both[0], number)
    else:
        unwritable(both[0], number)
        driver = make(**options)
    with begin(driver, "a", size) as writer:
        if size:
            writer.write_at(0, bytes(size))
        location = writer.commit(size or 0)
    assert location.path == f"{both[1]}/a"
    assert both[0] in caplog.text
    copied = copy(driver, location, "b")
    assert copied.path == f"{both[1]}/b"
    assert [sorted(os.listdir(each)) for each in both] == [[], ["a", "b"]]
    with pytest.raises(Duplicate):
        begin(driver, "a")


def test_a_directory_that_is_well_again(
    make, put, both: list[str], unwritable, monkeypatch
) -> None:
    """A directory that could not be used at the start is used once it can be."""
    with monkeypatch.context():
        unwritable(both[0], errno.EROFS)
        driver = make(filesystem_store_datadirs=[f"{both[0]}:9", both[1]])
        monkeypatch.undo()
    assert put(driver, "a", b"x").path == f"{both[0]}/a"


def not_connected(call: Any, directory: str, path: Any, *rest: Any, **keywords: Any) -> Any:
    """Make a call, unless it is about a file in a directory of a FUSE process that has died."""
    if isinstance(path, str) and path.startswith(directory):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), path)
    return call(path, *rest, **keywords)


def test_a_directory_that_cannot_be_looked_at(make, put, begin, both, monkeypatch, caplog) -> None:
    """A directory that answers nothing is passed over by the look for an id, with a warning."""
    driver = make(filesystem_store_datadirs=both)
    put(driver, "a", b"x")

    for name in ("stat", "statvfs", "open"):
        monkeypatch.setattr(os, name, functools.partial(not_connected, getattr(os, name), both[0]))
    assert put(driver, "b", b"x").path == f"{both[1]}/b"
    assert "Transport endpoint" in caplog.text


def test_all_directories_bad(make, begin, both: list[str], unwritable) -> None:
    """If no directory can be written, the error of the first one is raised."""
    driver = make(filesystem_store_datadirs=[f"{both[0]}:9", both[1]])
    unwritable(both[0], errno.ENOSPC)
    unwritable(both[1], errno.EROFS)
    with pytest.raises(StorageFull, match=both[0]):
        begin(driver, "a")


def test_one_that_was_published_elsewhere_meanwhile(make, begin, both, monkeypatch) -> None:
    """After publishing, a look into the other directories finds what no common lock prevented."""
    driver = make(filesystem_store_datadirs=[f"{both[0]}:9", both[1]])
    writer = begin(driver, "a")
    real = Publishing.give_name

    def give_name(self: Publishing, staged: str, final: str) -> None:
        Path(both[1], "a").write_bytes(b"other")
        real(self, staged, final)

    monkeypatch.setattr(Publishing, "give_name", give_name)
    with pytest.raises(Duplicate):
        writer.commit(0)
    assert writer.resolve() is None
    writer.abort()
    assert [os.listdir(each) for each in both] == [[], ["a"]]
    assert Path(both[1], "a").read_bytes() == b"other"


# Claims, where files cannot be locked


@pytest.fixture
def no_locks(monkeypatch) -> None:
    """Let no file be locked."""
    monkeypatch.setattr(syscalls, "lock", lambda fd, how: None)


def claims(directory: Path) -> list[Path]:
    return [each for each in directory.iterdir() if "-claim-" in each.name]


@pytest.fixture
def left(no_locks: None, tmp_path: Path) -> Path:
    """Return the claim that a dead process left."""
    with sole_publisher([str(tmp_path)], "a"):
        (path,) = claims(tmp_path)
    path.write_bytes(b"")
    long_ago = time.time() - CLAIM_LIFE - 5
    os.utime(path, (long_ago, long_ago))
    return path


def test_a_claim_is_held_by_one(no_locks: None, tmp_path: Path) -> None:
    """While one process publishes, another gets a temporary error; nothing is left afterwards."""
    with sole_publisher([str(tmp_path)], "a") as check:
        check()
        with pytest.raises(Duplicate) as caught, sole_publisher([str(tmp_path)], "a"):
            pass
        assert caught.value.status is ErrorStatus.TEMPORARY
        check()
        with sole_publisher([str(tmp_path)], "b"):
            pass
    assert os.listdir(tmp_path) == []


def test_a_claim_that_was_left(left: Path, tmp_path: Path, caplog) -> None:
    """A dead process's claim is taken away, with a warning."""
    with sole_publisher([str(tmp_path)], "a") as check:
        check()
    assert os.listdir(tmp_path) == []
    assert "its add has died" in caplog.text


def test_a_young_claim_stays(left: Path, tmp_path: Path) -> None:
    """A claim is not taken away before its time, by the clock of the file system."""
    recently = time.time() - CLAIM_LIFE + 5
    os.utime(left, (recently, recently))
    with pytest.raises(Duplicate), sole_publisher([str(tmp_path)], "a"):
        pass
    assert os.listdir(tmp_path) == [left.name]


def test_the_age_is_told_by_the_file_system(left: Path, tmp_path: Path, monkeypatch) -> None:
    """This machine's clock has no say in how old a claim is."""
    recently = time.time() - 5
    os.utime(left, (recently, recently))
    monkeypatch.setattr(time, "time", lambda: recently + 10 * CLAIM_LIFE)
    with pytest.raises(Duplicate), sole_publisher([str(tmp_path)], "a"):
        pass


def test_a_claim_that_somebody_else_took_away_first(left, tmp_path: Path, monkeypatch) -> None:
    """A claim that became another process's meanwhile goes back to it."""
    real = os.rename
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"theirs")

    def rename(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", real)
        real(theirs, left)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(Duplicate), sole_publisher([str(tmp_path)], "a"):
        pass
    assert left.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == [left.name]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_claim_that_was_lost(no_locks: None, tmp_path: Path, replaced: bool) -> None:
    """Whoever lost its claim does not publish, and leaves another's alone."""
    with sole_publisher([str(tmp_path)], "a") as check:
        (path,) = claims(tmp_path)
        path.unlink()
        if replaced:
            path.write_bytes(b"theirs")
        with pytest.raises(Duplicate):
            check()
    assert os.listdir(tmp_path) == ([path.name] if replaced else [])


def test_a_claim_that_comes_back_too_late(no_locks: None, tmp_path: Path, caplog) -> None:
    """A claim that another process held for a moment, when its owner was done, keeps nobody."""
    with sole_publisher([str(tmp_path)], "a"):
        (path,) = claims(tmp_path)
        path.rename(tmp_path / "away")
    (tmp_path / "away").rename(path)
    with sole_publisher([str(tmp_path)], "a") as check:
        check()
    assert os.listdir(tmp_path) == []
    assert caplog.text == ""


def test_claims_are_leftovers(make, no_locks: None, data: Path) -> None:
    """A claim that was left is listed, and swept by its age."""
    driver: FilesystemDriver = make()
    with contextlib.ExitStack() as stack:
        stack.enter_context(sole_publisher([str(data)], "a"))
        (found,) = [each for each in driver.list_incomplete(context=None) if "-claim-" in each.key]
    assert not found.live
    assert found.object_id is None
