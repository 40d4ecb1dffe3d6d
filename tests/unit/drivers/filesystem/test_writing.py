"""Uploads: what they write, when it shows, how it is made durable, and what goes wrong."""

import contextlib
import errno
import functools
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from store_lib.drivers.filesystem import FilesystemDriver, datadirs, publishing, syscalls
from store_lib.drivers.filesystem.publishing import Publishing
from store_lib.drivers.filesystem.writer import FileWriter
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    InvalidObjectId,
    StorageFull,
    StorageWriteDenied,
    StoreClosed,
    StoreError,
)
from tests.unit.drivers.filesystem.conftest import copy

#: From Python 3.12 on, forking beside pytest-xdist's thread warns; the children here take no locks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

KIB = 1024
MIB = 1024 * KIB


def raising(number: int, *, after: Any = None):
    """Return a function that fails with ``number``, after doing what ``after`` does."""

    def function(*arguments: Any, **keywords: Any) -> None:
        if after is not None:
            after(*arguments, **keywords)
        raise OSError(number, os.strerror(number))

    return function


@pytest.fixture(params=Publishing)
def publishes(request, monkeypatch) -> Publishing:
    """Run the test with each way to publish; drivers must be made afterwards."""
    if request.param is not Publishing.RENAME:
        monkeypatch.setattr(syscalls, "rename_noreplace", raising(errno.EINVAL))
    if request.param is Publishing.CHECKED:
        monkeypatch.setattr(os, "link", raising(errno.EPERM))
        probe = functools.partial(publishing.probe, checked=True)
        monkeypatch.setattr(datadirs, "probe", lambda directory, *, checked: probe(directory))
    return request.param


# What is written


def test_nothing_shows_before_commit(publishes, make, begin, data: Path) -> None:
    """Until commit there is a staged file only, and afterwards the object only."""
    driver = make()
    writer = begin(driver, "a", 3)
    writer.write_at(0, b"abc")
    (staged,) = os.listdir(data)
    assert staged.startswith(".store_lib-")
    assert staged.endswith("-a")
    location = writer.commit(3)
    assert location.uri == f"file://{data}/a"
    assert os.listdir(data) == ["a"]
    assert (data / "a").read_bytes() == b"abc"


def test_the_writer_says_what_suits_it(driver, begin) -> None:
    """A file takes whole chunks anywhere without being asked for room."""
    writer = begin(driver, "a")
    assert writer.reserved == sys.maxsize
    assert writer.concurrency in (1, 2)
    assert writer.chunk_size == MIB
    assert writer.hole_size is None
    writer.abort()


def test_writes_in_any_order(driver, begin, data: Path) -> None:
    """Chunks land at their positions whatever the order and the thread."""
    body = os.urandom(4 * MIB)
    writer = begin(driver, "a", len(body))
    threads = [
        threading.Thread(
            target=writer.write_at, args=(start, memoryview(body)[start : start + MIB])
        )
        for start in (3 * MIB, 0, 2 * MIB, MIB)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.commit(len(body))
    assert (data / "a").read_bytes() == body


def test_short_writes_are_gone_on_with(driver, begin, data: Path, monkeypatch) -> None:
    """A system that writes less than it was given is asked again until all is written."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:1000], at))
    body = os.urandom(10 * KIB + 1)
    writer = begin(driver, "a")
    writer.write_at(0, body)
    writer.commit(len(body))
    assert (data / "a").read_bytes() == body


def test_a_write_that_takes_nothing_is_an_error(driver, begin, monkeypatch) -> None:
    """A system that writes nothing, and says so without an error, does not loop for ever."""
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    writer = begin(driver, "a")
    with pytest.raises(BackendException):
        writer.write_at(0, b"x")
    writer.abort()


def test_an_empty_object(driver, begin, data: Path) -> None:
    """An object of no bytes is an empty file."""
    begin(driver, "a", 0).commit(0)
    assert (data / "a").read_bytes() == b""


def test_known_sizes_are_preallocated(driver, begin, data: Path) -> None:
    """A large object of known size has its blocks before the first write."""
    writer = begin(driver, "a", 5 * MIB)
    (found,) = driver.list_incomplete(context=None)
    assert found.size is not None
    assert found.size >= 5 * MIB
    writer.write_at(0, b"x" * MIB)
    writer.commit(MIB)
    assert (data / "a").stat().st_size == MIB


def test_small_and_unknown_sizes_are_not_preallocated(driver, begin, monkeypatch) -> None:
    """One chunk is not worth a call, and without a size there is nothing to ask for."""
    monkeypatch.setattr(syscalls, "preallocate", None)
    for size in (0, MIB, None):
        begin(driver, "a", size).abort()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_no_preallocation(driver, begin, data: Path, monkeypatch, number: int) -> None:
    """A file system that cannot preallocate stores all the same."""
    monkeypatch.setattr(syscalls, "_fallocate", lambda *arguments: -1)
    monkeypatch.setattr(syscalls.ctypes, "get_errno", lambda: number)
    writer = begin(driver, "a", 2 * MIB)
    writer.write_at(0, b"x" * 2 * MIB)
    writer.commit(2 * MIB)
    assert (data / "a").stat().st_size == 2 * MIB


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_preallocation_finds_no_room(driver, begin, data: Path, monkeypatch, number) -> None:
    """A size that does not fit is refused before any byte moves, and nothing is left."""
    monkeypatch.setattr(syscalls, "preallocate", raising(number))
    with pytest.raises(StorageFull, match="another store"):
        begin(driver, "a", 2 * MIB)
    assert os.listdir(data) == []


# Thin provisioning


@pytest.mark.parametrize("size_known", [True, False])
@pytest.mark.parametrize("layout", [(0,), (5,), (9,), (0, 9), ()])
def test_holes(make, begin, data: Path, size_known: bool, layout: tuple[int, ...]) -> None:
    """Left-out positions are holes that read as zeros, at the start, inside and at the end."""
    driver = make(filesystem_thin_provisioning=True)
    size = 10 * MIB
    writer = begin(driver, "a", size if size_known else None)
    assert writer.hole_size == 64 * KIB
    expected = bytearray(size)
    for position in range(10):
        if position in layout:
            expected[position * MIB : (position + 1) * MIB] = block = os.urandom(MIB)
            writer.write_at(position * MIB, block)
        else:
            writer.zero(position * MIB, MIB)
    writer.commit(size)
    assert (data / "a").read_bytes() == expected
    assert (data / "a").stat().st_blocks * 512 <= (len(layout) + 0.5) * MIB


# Durability


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Record the calls that durability hangs on, in order, and make them."""
    record: list[str] = []

    def wrap(module: Any, name: str, label: str) -> None:
        real = getattr(module, name)

        def function(*arguments: Any) -> Any:
            record.append(label)
            return real(*arguments)

        monkeypatch.setattr(module, name, function)

    wrap(os, "pwrite", "write")
    wrap(os, "ftruncate", "truncate")
    wrap(os, "fchmod", "chmod")
    wrap(os, "link", "publish")
    wrap(os, "rename", "publish")
    wrap(syscalls, "start_writeback", "writeback")
    wrap(syscalls, "fsync", "fsync")
    wrap(syscalls, "fsync_directory", "fsync directory")
    if syscalls.rename_noreplace.__name__ == "rename_noreplace":
        wrap(syscalls, "rename_noreplace", "publish")
    return record


def test_durable_order(publishes, make, begin, calls: list[str]) -> None:
    """Bytes, size and permissions are on the disk before the name, and then the name is."""
    driver = make(filesystem_store_durable=True, filesystem_store_file_perm=640)
    writer = begin(driver, "a", 2 * MIB)
    calls.clear()
    writer.write_at(0, bytes(MIB))
    writer.write_at(MIB, bytes(MIB))
    writer.commit(2 * MIB)
    real_fsyncs = [call for call in calls if call not in ("truncate", "chmod")]
    assert real_fsyncs == ["write", "write", "fsync", "publish", "fsync directory", "fsync"]
    assert calls.index("chmod") < calls.index("fsync")
    assert calls.index("truncate") < calls.index("fsync")


def test_durable_copy(make, put, data: Path, monkeypatch, calls: list[str]) -> None:
    """A copy is made durable like an upload, the disk at work all along."""
    monkeypatch.setattr(syscalls, "clone", lambda source, target: False)
    monkeypatch.setattr(os, "copy_file_range", raising(errno.EXDEV))
    driver = make(filesystem_store_durable=True)
    location = put(driver, "a", os.urandom(9 * MIB))
    calls.clear()
    copy(driver, location, "b")
    order = [call for call in calls if call not in ("truncate", "write", "chmod")]
    assert order == ["writeback", "fsync", "publish", "fsync directory", "fsync"]
    assert (data / "a").read_bytes() == (data / "b").read_bytes()


def test_not_durable(make, begin, calls: list[str]) -> None:
    """With the option off nothing waits for the disk."""
    driver = make(filesystem_store_durable=False)
    writer = begin(driver, "a", 20 * MIB)
    for start in range(20):
        writer.write_at(start * MIB, bytes(MIB))
    writer.commit(20 * MIB)
    assert not {"fsync", "fsync directory", "writeback"} & set(calls)


def test_the_disk_works_while_the_upload_goes_on(make, begin, calls: list[str]) -> None:
    """Every 8 MiB the disk is set to work, long before the end."""
    writer = begin(make(filesystem_store_durable=True), "a")
    for start in range(20):
        writer.write_at(start * MIB, bytes(MIB))
    assert calls.count("writeback") == 2
    writer.abort()


@pytest.mark.parametrize("made", [0, 1, 2, 3])
def test_directories_are_durable(make, data: Path, monkeypatch, made: int) -> None:
    """A data directory is on the disk in the one above it, whoever made it and died."""
    synced: list[str] = []
    real = syscalls.fsync_directory
    monkeypatch.setattr(syscalls, "fsync_directory", lambda path: (synced.append(path), real(path)))
    path = data / "a" / "b"
    (data.parent, data, path.parent, path)[made].mkdir(parents=True, exist_ok=True)
    make(filesystem_store_datadir=str(path), filesystem_store_durable=True)
    assert synced[:4] == [str(path), str(path.parent), str(data), str(data.parent)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_without_fsync(make, put, data: Path, monkeypatch, number: int) -> None:
    """A file system that has no such thing as fsync stores all the same."""
    driver = make(filesystem_store_durable=True)
    monkeypatch.setattr(os, "fsync", raising(number))
    put(driver, "a", b"x")
    assert os.listdir(data) == ["a"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_a_failing_fsync(make, begin, data: Path, monkeypatch, number: int) -> None:
    """After a failed fsync nothing is published, and trying again is not offered.

    The system takes the lost pages for written afterwards: a second fsync would succeed.
    """
    writer = begin(make(filesystem_store_durable=True), "a")
    writer.write_at(0, b"x")
    monkeypatch.setattr(os, "fsync", raising(number))
    with pytest.raises(StoreError) as caught:
        writer.commit(1)
    assert caught.value.status is ErrorStatus.PERMANENT
    assert isinstance(caught.value, StorageFull) == (number == errno.ENOSPC)
    assert not (data / "a").exists()
    assert writer.resolve() is None
    writer.abort()
    assert os.listdir(data) == []


def test_a_failing_fsync_of_the_directory(publishes, make, begin, data: Path, monkeypatch) -> None:
    """When the name cannot be made durable, what was published is taken back."""
    writer = begin(make(filesystem_store_durable=True), "a")
    writer.write_at(0, b"x")
    monkeypatch.setattr(syscalls, "fsync_directory", raising(errno.EIO))
    with pytest.raises(BackendException):
        writer.commit(1)
    writer.abort()
    assert os.listdir(data) == []


def test_errors_held_back_until_close(make, begin, data: Path, monkeypatch) -> None:
    """Without fsync, what a network file system tells at close only is heard before publishing."""
    monkeypatch.setattr(syscalls, "_type_of", lambda path: 0x6969)  # NFS
    writer = begin(make(), "a")
    writer.write_at(0, b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", raising(errno.EDQUOT, after=os.close))
        with pytest.raises(StorageFull):
            writer.commit(1)
    assert not (data / "a").exists()
    writer.abort()


@pytest.mark.parametrize(
    ("kind", "in_memory", "late"),
    [
        (0x01021994, True, False),
        (0xEF53, False, False),
        (0x58465342, False, False),
        (0x6969, False, True),
        (None, False, True),
    ],
)
def test_kinds_of_file_systems(monkeypatch, kind, in_memory: bool, late: bool) -> None:
    """What is special about a file system is told by its type; an unknown one may do anything."""
    monkeypatch.setattr(syscalls, "_type_of", lambda path: kind)
    assert syscalls.in_memory("/") is in_memory
    assert syscalls.reports_errors_on_close("/") is late


def test_type_of_a_file_system(tmp_path: Path) -> None:
    """The type is read from the system, and unknown where there is nothing."""
    told = subprocess.run(["stat", "-f", "-c", "%t", tmp_path], capture_output=True, check=True)
    assert syscalls._type_of(str(tmp_path)) == int(told.stdout, 16)
    assert syscalls._type_of(str(tmp_path / "missing")) is None


def test_a_repeated_write_is_checked(driver, begin, monkeypatch, calls: list[str]) -> None:
    """After a write failed, commit asks for errors by fsync even where nothing is durable."""
    writer = begin(driver, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", raising(errno.ESTALE))
        with pytest.raises(BackendException) as caught:
            writer.write_at(0, b"x")
    assert caught.value.status is ErrorStatus.TEMPORARY
    writer.write_at(0, b"x")
    writer.commit(1)
    assert "fsync" in calls


# Errors of the system


@pytest.mark.parametrize(
    ("number", "error", "status"),
    [
        (errno.ENOSPC, StorageFull, ErrorStatus.PERMANENT),
        (errno.EDQUOT, StorageFull, ErrorStatus.PERMANENT),
        (errno.EFBIG, StorageFull, ErrorStatus.PERMANENT),
        (errno.EACCES, StorageWriteDenied, ErrorStatus.PERMANENT),
        (errno.EPERM, StorageWriteDenied, ErrorStatus.PERMANENT),
        (errno.EROFS, StorageWriteDenied, ErrorStatus.PERMANENT),
        (errno.ENAMETOOLONG, InvalidObjectId, ErrorStatus.PERMANENT),
        (errno.EIO, BackendException, ErrorStatus.PERMANENT),
        (errno.ESTALE, BackendException, ErrorStatus.TEMPORARY),
        (errno.EINTR, BackendException, ErrorStatus.TEMPORARY),
        (errno.ETIMEDOUT, BackendException, ErrorStatus.TEMPORARY),
        (errno.ENETDOWN, BackendException, ErrorStatus.TEMPORARY),
        (errno.EMFILE, BackendException, ErrorStatus.TEMPORARY),
        (errno.ENOENT, BackendException, ErrorStatus.PERMANENT),
    ],
)
@pytest.mark.parametrize("where", ["open", "pwrite", "publish"])
def test_errors_of_writing(
    driver, begin, data: Path, monkeypatch, where: str, number: int, error: Any, status: Any
) -> None:
    """What the system says, at whichever step, becomes one documented error; nothing is left."""

    def add() -> None:
        with begin(driver, "a") as writer:
            writer.write_at(0, b"x")
            writer.commit(1)

    with monkeypatch.context() as patch:
        module, name = (syscalls, "rename_noreplace") if where == "publish" else (os, where)
        patch.setattr(module, name, raising(number))
        with pytest.raises(error) as caught:
            add()
    assert caught.value.status is status
    assert isinstance(caught.value.__cause__, OSError)
    assert str(data) in str(caught.value)
    assert os.listdir(data) == []


def test_the_directory_has_gone(driver, begin, data: Path) -> None:
    """An add to a directory that is not there any more says so."""
    data.rmdir()
    with pytest.raises(BackendException, match="mounted"):
        begin(driver, "a")


def test_no_permission_to_write(make, begin, open_directory, request) -> None:
    """An add to a directory that lost its write permission is refused."""
    path = open_directory / "data"
    driver = make(filesystem_store_datadir=str(path))
    path.chmod(0o555)
    request.getfixturevalue("unprivileged")
    with pytest.raises(StorageWriteDenied, match="write permission"):
        begin(driver, "a")
    assert os.listdir(path) == []


# Giving up


def test_abort(publishes, make, begin, put, data: Path) -> None:
    """After abort nothing is left, the id is free, and a second abort does nothing."""
    driver = make()
    writer = begin(driver, "a", 3 * MIB)
    writer.write_at(0, b"x")
    writer.abort()
    assert os.listdir(data) == []
    writer.abort()
    put(driver, "a", b"y")
    assert (data / "a").read_bytes() == b"y"


def test_leaving_by_an_exception_aborts(driver, begin, data: Path) -> None:
    """A with block left by any exception, an interrupt too, leaves nothing."""

    def interrupted() -> None:
        with begin(driver, "a") as writer:
            writer.write_at(0, b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(data) == []


def test_abort_without_the_staged_file(driver, begin, data: Path) -> None:
    """A staged file that somebody removed keeps abort from nothing."""
    writer = begin(driver, "a")
    (staged,) = data.iterdir()
    staged.unlink()
    writer.abort()


def test_commit_without_the_staged_file(driver, begin, data: Path) -> None:
    """A staged file that somebody removed is an error of commit, not a success."""
    writer = begin(driver, "a")
    (staged,) = data.iterdir()
    staged.unlink()
    with pytest.raises(BackendException):
        writer.commit(0)
    writer.abort()
    assert os.listdir(data) == []


def test_abort_that_fails(driver, begin, data: Path, monkeypatch) -> None:
    """An abort that cannot remove the staged file says so, and still closes it."""
    writer = begin(driver, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", raising(errno.EIO))
        with pytest.raises(BackendException, match=r"\.store_lib-"):
            writer.abort()
    (found,) = driver.list_incomplete(context=None)
    assert not found.live


def test_a_dropped_writer_cleans_up(driver, begin) -> None:
    """An upload that an interrupt has lost removes its staged file when it is collected."""
    begin(driver, "a").write_at(0, b"x")
    assert list(driver.list_incomplete(context=None)) == []


class Hanging:
    """A call that hangs until it is let go on, and a thread that makes it."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.hangs, self.goes_on = threading.Event(), threading.Event()
        self.raised: list[BaseException] = []

    def __call__(self, *arguments: Any) -> Any:
        self.hangs.set()
        self.goes_on.wait()
        return self.real(*arguments)

    def commit(self, writer: FileWriter) -> None:
        """Commit in a thread, until the call hangs."""

        def run() -> None:
            try:
                writer.commit(0)
            except StoreError as error:
                self.raised.append(error)

        self.thread = threading.Thread(target=run)
        self.thread.start()
        self.hangs.wait()

    def go_on(self) -> None:
        """Let the call go on, and wait for the thread's end."""
        self.goes_on.set()
        self.thread.join()


def test_a_commit_that_comes_back_to_life(publishes, make, begin, data: Path, monkeypatch) -> None:
    """A commit that hung, was given up and then goes on publishes nothing."""
    writer = begin(make(filesystem_store_durable=True), "a")
    hanging = Hanging(lambda fd: None)
    monkeypatch.setattr(syscalls, "fsync", hanging)
    hanging.commit(writer)
    writer.abort()
    hanging.go_on()
    assert [type(error) for error in hanging.raised] == [StoreClosed]
    assert os.listdir(data) == []


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("moment", ["abort", "withdrawn", "unlink"])
def test_publishing_that_comes_back_to_life(
    publishes, make, begin, data: Path, monkeypatch, durable: bool, moment: str
) -> None:
    """Publishing that hung and then succeeds is taken back, whenever abort comes between."""
    writer = begin(make(filesystem_store_durable=durable), "a")
    module, name = {
        Publishing.RENAME: (syscalls, "rename_noreplace"),
        Publishing.LINK: (os, "link"),
        Publishing.CHECKED: (os, "rename"),
    }[publishes]
    hanging = Hanging(getattr(module, name))
    monkeypatch.setattr(module, name, hanging)
    hanging.commit(writer)
    if moment == "abort":
        # Abort has said that it is there, and hangs itself.
        monkeypatch.setattr(FileWriter, "_withdraw", after(hanging, FileWriter._withdraw))
    elif moment == "withdrawn":
        monkeypatch.setattr(FileWriter, "_withdraw", before(hanging, FileWriter._withdraw))
    else:
        monkeypatch.setattr(os, "unlink", after(hanging, os.unlink))
    writer.abort()
    hanging.go_on()
    assert [type(error) for error in hanging.raised] == [StoreClosed]
    assert os.listdir(data) == []


def after(hanging: Hanging, real: Any) -> Any:
    """Return a function that first lets what hangs come to its end, once."""

    def function(*arguments: Any) -> Any:
        if not hanging.goes_on.is_set():
            hanging.go_on()
        return real(*arguments)

    return function


def before(hanging: Hanging, real: Any) -> Any:
    """Return a function that lets what hangs come to its end after it, once."""

    def function(*arguments: Any) -> Any:
        result = real(*arguments)
        if not hanging.goes_on.is_set():
            hanging.go_on()
        return result

    return function


@pytest.mark.parametrize("durable", [True, False])
def test_a_commit_that_was_given_up_at_its_end(
    publishes, make, begin, data: Path, durable: bool
) -> None:
    """What a commit published, and nobody heard of, is taken back though its file is closed."""
    writer = begin(make(filesystem_store_durable=durable), "a")
    writer.commit(0)
    writer.abort()
    assert os.listdir(data) == []


def test_taking_back_spares_another_object(driver, begin, data: Path, monkeypatch) -> None:
    """An object that got the number of the inode that a given-up add had freed stays."""
    writer = begin(driver, "a")
    writer.commit(0)
    (data / "a").write_bytes(b"another")  # as good as a new file with the same inode
    writer.abort()
    assert (data / "a").read_bytes() == b"another"


def is_open(found: os.stat_result) -> bool:
    """Whether this process has the file open."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(int(fd)), found):
                return True
    return False


@pytest.fixture
def removed(monkeypatch) -> list[str]:
    """Record what is removed, and hold each removal to having closed the file before."""
    record: list[str] = []
    real = os.unlink

    def unlink(path: str) -> None:
        if "-lock-" not in path:
            if os.path.lexists(path):
                assert not is_open(os.stat(path))
            record.append(path)
        real(path)

    monkeypatch.setattr(os, "unlink", unlink)
    return record


@pytest.mark.parametrize("ending", ["commit", "abort", "abort after commit"])
def test_files_are_closed_before_they_are_removed(
    publishes, make, begin, data: Path, removed: list[str], ending: str
) -> None:
    """No name of a file of ours that is open is removed: NFS and FUSE would rename it."""
    writer = begin(make(filesystem_store_durable=True), "a")
    assert removed  # the probes
    removed.clear()
    if "commit" in ending:
        writer.commit(0)
    if "abort" in ending:
        writer.abort()
        assert removed
    assert os.listdir(data) == (["a"] if ending == "commit" else [])


# One object for one id


def test_an_id_that_is_taken(publishes, make, put, begin, data: Path) -> None:
    """A second add is refused before any byte moves, and the first object is untouched."""
    driver = make()
    put(driver, "a", b"first")
    with pytest.raises(Duplicate, match="a already exists"):
        begin(driver, "a", 6)
    assert os.listdir(data) == ["a"]
    assert (data / "a").read_bytes() == b"first"


def test_two_uploads_of_one_id(publishes, make, begin, data: Path) -> None:
    """Of two uploads under way the first to commit wins, the other is told and leaves nothing."""
    driver = make()
    first, second = begin(driver, "a"), begin(driver, "a")
    second.write_at(0, b"second")
    first.write_at(0, b"first")
    first.commit(5)
    with pytest.raises(Duplicate):
        second.commit(6)
    assert second.resolve() is None
    second.abort()
    assert os.listdir(data) == ["a"]
    assert (data / "a").read_bytes() == b"first"


def test_two_uploads_in_two_directories(publishes, make, begin, put, tmp_path: Path) -> None:
    """An id is one even where its uploads went to different directories."""
    one = make(filesystem_store_datadirs=[f"{tmp_path}/x:1", f"{tmp_path}/y:2"])
    other = make(filesystem_store_datadirs=[f"{tmp_path}/x:2", f"{tmp_path}/y:1"])
    first, second = begin(one, "a"), begin(other, "a")
    first.commit(0)
    with pytest.raises(Duplicate):
        second.commit(0)
    second.abort()
    with pytest.raises(Duplicate):
        begin(other, "a")
    assert os.listdir(tmp_path / "x") == []
    assert os.listdir(tmp_path / "y") == ["a"]


WON, LOST = 0, 1


def race(drivers: list[FilesystemDriver], object_id: str) -> list[int]:
    """Have a process for each driver commit ``object_id`` at once, and return how each ended.

    Each writes its own number, 100 times.
    """
    gun, trigger = os.pipe()
    ready, tell = os.pipe()
    racers = []
    for who, driver in enumerate(drivers):
        child = os.fork()
        if child == 0:
            ended = 2
            try:
                os.close(trigger)
                writer = driver.create(object_id, None, nonce=f"{who:032x}", context=None)
                writer.write_at(0, bytes([who]) * 100)
                os.write(tell, b"x")
                os.read(gun, 1)  # ends when the last process closes the trigger
                ended = WON
                try:
                    writer.commit(100)
                except Duplicate:
                    writer.abort()
                    ended = LOST
            finally:
                os._exit(ended)
        racers.append(child)
    os.close(tell)
    for _ in racers:
        assert os.read(ready, 1) == b"x"
    os.close(trigger)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in racers]
    os.close(gun)
    os.close(ready)
    return ends


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("several", [False, True])
def test_processes_adding_one_id(
    publishes, make, tmp_path: Path, monkeypatch, several: bool, locks: bool
) -> None:
    """Processes that commit one id at the same moment have exactly one winner, each time."""
    if not locks:
        monkeypatch.setattr(syscalls, "lock", lambda fd, how: None)
    racers = 3
    if several:  # each prefers another directory
        choices = [
            [f"{tmp_path}/{i}:{int(i == who)}" for i in range(racers)] for who in range(racers)
        ]
    else:
        choices = [[f"{tmp_path}/0"]] * racers
    drivers = [make(filesystem_store_datadirs=directories) for directories in choices]
    for number in range(10):
        ends = race(drivers, f"id-{number}")
        assert sorted(ends) == [WON, LOST, LOST]
        (found,) = tmp_path.rglob(f"*id-{number}")
        assert found.read_bytes() == bytes([ends.index(WON)]) * 100
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 10


def test_a_driver_works_after_a_fork(driver, put, contents, data: Path) -> None:
    """A child uses the driver that its parent configured."""
    location = put(driver, "parent", b"parent")
    child = os.fork()
    if child == 0:
        ended = 1
        try:
            put(driver, "child", contents(driver, location))
            ended = 0
        finally:
            os._exit(ended)
    assert os.waitpid(child, 0)[1] == 0
    assert (data / "child").read_bytes() == b"parent"


# Lost replies, as network file systems have them


@pytest.mark.parametrize("number", [errno.EEXIST, errno.ENOENT])
def test_a_repeated_publish(publishes, make, begin, data: Path, monkeypatch, number: int) -> None:
    """A publish that the system repeated, and then met its own file, is a success."""
    driver = make()
    if publishes is Publishing.RENAME:
        real = syscalls.rename_noreplace
        monkeypatch.setattr(syscalls, "rename_noreplace", raising(number, after=real))
    else:
        name = "link" if publishes is Publishing.LINK else "rename"
        monkeypatch.setattr(os, name, raising(number, after=getattr(os, name)))
    writer = begin(driver, "a")
    writer.write_at(0, b"x")
    writer.commit(1)
    assert os.listdir(data) == ["a"]
    assert (data / "a").read_bytes() == b"x"


@pytest.mark.parametrize("kept", [True, False])
def test_a_lost_reply_to_a_link(make, begin, data: Path, monkeypatch, kept: bool) -> None:
    """A link whose reply was lost leaves two names: resolve keeps the one, abort none."""
    monkeypatch.setattr(syscalls, "rename_noreplace", raising(errno.EINVAL))
    writer = begin(make(), "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", raising(errno.ETIMEDOUT, after=os.link))
        with pytest.raises(BackendException):
            writer.commit(0)
    assert len(os.listdir(data)) == 2
    if kept:
        assert writer.resolve() is not None
    else:
        writer.abort()
    assert os.listdir(data) == (["a"] if kept else [])


@pytest.mark.parametrize("kept", [True, False])
def test_a_lost_reply(publishes, make, begin, data: Path, monkeypatch, kept: bool) -> None:
    """When it is open whether publishing happened, resolve finds it out and abort undoes it."""
    driver = make(filesystem_store_durable=True)
    writer = begin(driver, "a")
    writer.write_at(0, b"x")
    with monkeypatch.context() as patch:
        real = Publishing.give_name
        patch.setattr(Publishing, "give_name", raising(errno.ETIMEDOUT, after=real))
        with pytest.raises(BackendException) as caught:
            writer.commit(1)
    assert caught.value.status is ErrorStatus.TEMPORARY
    if kept:
        assert writer.resolve() == driver.parse(f"file://{data}/a")
        assert os.listdir(data) == ["a"]
    else:
        writer.abort()
        assert os.listdir(data) == []


def test_commit_again(publishes, make, begin, data: Path, monkeypatch) -> None:
    """A commit that did not reach the file system can be made again."""
    driver = make()
    writer = begin(driver, "a")
    writer.write_at(0, b"x")
    with monkeypatch.context() as patch:
        patch.setattr(Publishing, "give_name", raising(errno.ETIMEDOUT))
        with pytest.raises(BackendException):
            writer.commit(1)
    assert writer.resolve() is None
    writer.commit(1)
    assert os.listdir(data) == ["a"]


def test_a_link_that_cannot_be_taken_away(make, begin, data: Path, monkeypatch, caplog) -> None:
    """A staged name that stays beside the object is warned of, and a sweep can remove it."""
    monkeypatch.setattr(syscalls, "rename_noreplace", raising(errno.EINVAL))
    driver = make()
    writer = begin(driver, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", raising(errno.EIO))
        writer.commit(0)
    assert "Cannot remove" in caplog.text
    (found,) = driver.list_incomplete(context=None)
    assert driver.discard(found, context=None)
    assert os.listdir(data) == ["a"]
    assert stat.S_ISREG((data / "a").stat().st_mode)


def test_resolve_that_fails(driver, begin, monkeypatch) -> None:
    """When it cannot be looked up whether the upload is stored, that is an error, not a no."""
    writer = begin(driver, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", raising(errno.ESTALE))
        patch.setattr(syscalls, "rename_noreplace", raising(errno.ETIMEDOUT))
        with pytest.raises(BackendException):
            writer.commit(0)
        with pytest.raises(BackendException) as caught:
            writer.resolve()
    assert caught.value.status is ErrorStatus.TEMPORARY
    writer.abort()


def test_interrupted_preallocation(driver, begin, data: Path, monkeypatch) -> None:
    """A preallocation that a signal interrupts is gone on with; another error is told."""
    numbers = [errno.EINTR, errno.EINTR, errno.EIO]
    monkeypatch.setattr(syscalls, "_fallocate", lambda *arguments: -1)
    monkeypatch.setattr(syscalls.ctypes, "get_errno", lambda: numbers.pop(0))
    with pytest.raises(BackendException, match="Input/output error"):
        begin(driver, "a", 2 * MIB)
    assert os.listdir(data) == []
    assert numbers == []


def test_functions_that_the_c_library_lacks() -> None:
    """A call that this system does not have is unsupported, like one that the kernel lacks."""
    call = syscalls._load("no_such_function", arguments=())
    assert call() == -1
    assert syscalls.ctypes.get_errno() == errno.ENOSYS
