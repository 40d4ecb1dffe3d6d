"""Reading, telling of, listing, deleting and copying what is stored."""

import errno
import fcntl
import os
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from store_lib.driver import Space
from store_lib.drivers.filesystem import FilesystemDriver, datadirs, staging, syscalls
from store_lib.drivers.filesystem.location import FileLocation
from store_lib.drivers.filesystem.syscalls import Descriptor
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    Forbidden,
    InUseByStore,
    InvalidRange,
    NotFound,
    ObjectChanged,
    StorageFull,
    StoreClosed,
    TimeoutError,
)
from tests.unit.drivers.filesystem.conftest import copy

NONCE = "0123456789abcdef" * 2
KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def small(make) -> FilesystemDriver:
    """Return a driver that reads in pieces of 64 KiB."""
    return make(filesystem_store_chunk_size=64 * KIB)


DATA = bytes(range(256)) * 800  # 200 KiB: three pieces and a bit


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, None),
        (0, 0),
        (0, 1),
        (1, 64 * KIB),
        (64 * KIB, 64 * KIB),
        (100, None),
        (len(DATA) - 1, 1),
        (len(DATA) - 1, None),
        (len(DATA) - 1, 100),
        (len(DATA), None),
        (len(DATA), 5),
        (0, 10 * len(DATA)),
    ],
)
def test_ranges(small, put, offset: int, length: int | None) -> None:
    """Any range within the object comes out exactly; what reaches past the end is cut there."""
    reader = small.read(put(small, "a", DATA), offset, length, context=None)
    pieces = list(reader.stream(offset, length))
    reader.close()
    end = None if length is None else offset + length
    assert b"".join(pieces) == DATA[offset:end]
    assert all(0 < len(piece) <= 64 * KIB for piece in pieces)
    assert reader.size == len(DATA)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072])
def test_sizes(small, put, contents, size: int) -> None:
    """Objects of sizes around the piece come back whole."""
    assert contents(small, put(small, "a", DATA[:size])) == DATA[:size]


def test_past_the_end(small, put) -> None:
    """An offset past the end is refused when the object is opened, and in a later range."""
    location = put(small, "a", DATA)
    with pytest.raises(InvalidRange, match=str(len(DATA))):
        small.read(location, len(DATA) + 1, None, context=None)
    reader = small.read(location, 0, None, context=None)
    with pytest.raises(InvalidRange):
        reader.stream(len(DATA) + 1, 1)
    reader.close()


def test_large_objects_are_read_ahead(driver, begin) -> None:
    """An object large enough for the read-ahead hint reads like any other."""
    writer = begin(driver, "a")
    writer.write_at(9 * MIB - 1, b"x")
    reader = driver.read(writer.commit(9 * MIB), 0, None, context=None)
    assert b"".join(reader.stream(0, None)) == bytes(9 * MIB - 1) + b"x"
    reader.close()


def test_several_streams_at_once(small, put) -> None:
    """Streams of one reader do not disturb each other."""
    reader = small.read(put(small, "a", DATA), 0, None, context=None)
    first, second = reader.stream(0, None), reader.stream(70000, 100000)
    taken: tuple[list[bytes], list[bytes]] = ([], [])
    for pieces, stream in zip(taken * 4, (first, second) * 4, strict=True):
        pieces.extend([piece] if (piece := next(stream, b"")) else [])
    assert b"".join(taken[0]) == DATA
    assert b"".join(taken[1]) == DATA[70000:170000]
    assert reader.parallel
    reader.close()


def test_the_validator_tells_files_apart(small, put, data: Path) -> None:
    """It stays with the same bytes, and changes with another file of the same name."""

    def validator() -> str | None:
        reader = small.read(location, 0, None, context=None)
        reader.close()
        return reader.validator

    location = put(small, "a", b"one")
    before = validator()
    assert before is not None
    assert validator() == before
    os.rename(data / "a", data / "b")
    put(small, "a", b"one")
    assert validator() != before


def test_a_file_that_gets_shorter(small, put, data: Path) -> None:
    """A file cut while it is read is an error, never a short end."""
    reader = small.read(put(small, "a", DATA), 0, None, context=None)
    stream = reader.stream(0, None)
    next(stream)
    os.truncate(data / "a", 70000)
    with pytest.raises(ObjectChanged, match="70000"):
        list(stream)
    reader.close()


@pytest.mark.parametrize("grown", [0, 5])
@pytest.mark.parametrize(("offset", "length"), [(0, None), (10, None), (0, 150_000)])
def test_a_file_that_is_overwritten(small, put, data: Path, grown, offset, length) -> None:
    """A file overwritten in place while it is read is an error, before the last bytes come."""
    location = put(small, "a", DATA)
    reader = small.read(location, offset, length, context=None)
    stream = reader.stream(offset, length)
    got = [next(stream)]
    with open(data / "a", "r+b") as file:
        file.write(b"x" * (len(DATA) + grown))
    later(data / "a")
    with pytest.raises(ObjectChanged, match="something wrote to it"):
        got.extend(stream)
    assert len(b"".join(got)) < (length or len(DATA) - offset)
    reader.close()


def later(path: Path) -> None:
    """Make sure of a new time of change: the system's clock for files ticks every few ms."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    "alter",
    [
        os.unlink,
        lambda path: os.link(path, f"{path}2"),
        lambda path: os.rename(path, f"{path}2"),
        lambda path: os.chmod(path, 0o600),
    ],
    ids=["delete", "link", "rename", "chmod"],
)
def test_a_file_whose_bytes_stay(small, put, data: Path, alter) -> None:
    """What alters a file's names or permissions does not disturb who reads it."""
    reader = small.read(put(small, "a", DATA), 0, None, context=None)
    stream = reader.stream(0, None)
    first = next(stream)
    alter(data / "a")
    assert first + b"".join(stream) == DATA
    reader.close()


def test_deleted_while_it_is_read(small, put) -> None:
    """Who has begun to read reads to the end."""
    location = put(small, "a", DATA)
    reader = small.read(location, 0, None, context=None)
    stream = reader.stream(0, None)
    first = next(stream)
    small.delete(location, context=None)
    assert first + b"".join(stream) == DATA
    reader.close()


def test_closing(small, put) -> None:
    """Closing is idempotent; a stream that goes on afterwards says so."""
    reader = small.read(put(small, "a", DATA), 0, None, context=None)
    stream = reader.stream(0, None)
    next(stream)
    reader.close()
    reader.close()
    assert reader.fileno() is None
    with pytest.raises(StoreClosed):
        next(stream)


def test_the_descriptor_is_the_file(small, put) -> None:
    """fileno() is a blocking descriptor of exactly the object."""
    reader = small.read(put(small, "a", DATA), 0, None, context=None)
    fd = reader.fileno()
    assert fd is not None
    assert os.get_blocking(fd)
    assert os.pread(fd, len(DATA) + 1, 0) == DATA
    reader.close()


def test_a_dropped_reader_closes_its_file(small, put) -> None:
    """A reader that nobody closed leaves no descriptor open; a fixture looks."""
    next(small.read(put(small, "a", DATA), 0, None, context=None).stream(0, None))


@pytest.mark.parametrize(
    ("number", "error", "status"),
    [
        (errno.EIO, BackendException, ErrorStatus.PERMANENT),
        (errno.ESTALE, BackendException, ErrorStatus.TEMPORARY),
        (errno.ETIMEDOUT, BackendException, ErrorStatus.TEMPORARY),
        (errno.EACCES, Forbidden, ErrorStatus.PERMANENT),
    ],
)
@pytest.mark.parametrize("call", ["open", "fstat", "pread"])
def test_errors_of_reading(small, put, monkeypatch, call, number, error, status) -> None:
    """What the system says while opening or reading becomes one documented error."""
    location = put(small, "a", DATA)

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(error) as caught:
            list(small.read(location, 0, None, context=None).stream(0, None))
    assert caught.value.status is status
    assert location.path in str(caught.value)


def test_no_permission_to_read(make, put, open_directory, request) -> None:
    """A file that may not be read is Forbidden."""
    driver = make(filesystem_store_datadir=str(open_directory / "data"))
    location = put(driver, "a", b"x")
    os.chmod(location.path, 0)
    request.getfixturevalue("unprivileged")
    with pytest.raises(Forbidden, match="Permission denied"):
        driver.read(location, 0, None, context=None)


# A descriptor in use


def test_a_file_in_use_is_closed_afterwards() -> None:
    """A file closed under a call that hangs keeps its number until that call has returned."""
    reading, writing = os.pipe()
    descriptor = Descriptor(reading)
    got: list[bytes] = []

    def read() -> None:
        with descriptor as fd:
            began.set()
            got.append(os.read(fd, 1))

    began = threading.Event()
    thread = threading.Thread(target=read)
    thread.start()
    began.wait()
    descriptor.close()
    descriptor.close()
    assert descriptor.closing
    os.fstat(reading)
    os.write(writing, b"x")
    thread.join()
    assert got == [b"x"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)
    with pytest.raises(StoreClosed), descriptor:
        pass
    os.close(writing)


# stat, delete, list, space


def test_stat(driver, put, data: Path) -> None:
    """stat tells the size and the time of the last change."""
    location = put(driver, "a", DATA)
    found = driver.stat(location, context=None)
    assert found.size == len(DATA)
    assert found.modified == (data / "a").stat().st_mtime


def test_delete_twice(driver, put, data: Path) -> None:
    """The second delete finds nothing; the id can be used again."""
    location = put(driver, "a", DATA)
    driver.delete(location, context=None)
    with pytest.raises(NotFound):
        driver.delete(location, context=None)
    assert put(driver, "a", b"again") == location


def test_delete_during_an_add(driver, begin, data: Path) -> None:
    """An object that is being added is not there to be deleted, and the add goes on."""
    writer = begin(driver, "a")
    writer.write_at(0, b"x")
    with pytest.raises(NotFound):
        driver.delete(FileLocation(f"{data}/a"), context=None)
    writer.commit(1)
    assert (data / "a").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EPERM, Forbidden),
        (errno.EROFS, Forbidden),
        (errno.ENOENT, NotFound),
        (errno.EBUSY, InUseByStore),
        (errno.EIO, BackendException),
    ],
)
def test_errors_of_deleting(driver, put, monkeypatch, number: int, error) -> None:
    """What the system says while deleting becomes one documented error."""
    location = put(driver, "a", b"x")

    def fail(path: str, **keywords: Any) -> None:
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        with pytest.raises(error):
            driver.delete(location, context=None)
    assert driver.stat(location, context=None).size == 1


def test_list(make, put, begin, tmp_path: Path) -> None:
    """A listing has every complete object of all directories, and nothing else."""
    driver = make(filesystem_store_datadirs=[f"{tmp_path}/x:2", f"{tmp_path}/y:1"])
    put(driver, "a", DATA)
    (tmp_path / "y" / "b").write_bytes(b"x")
    (tmp_path / "y" / "dir").mkdir()
    (tmp_path / "y" / "dir" / "deep").write_bytes(b"")
    (tmp_path / "y" / "link").symlink_to("b")
    with open(os.fsencode(tmp_path) + b"/y/\xff", "wb"):
        pass  # no id could have made this name, and no URI could carry it
    writer = begin(driver, "c")
    found = {entry.object_id: entry for entry in driver.list(context=None)}
    writer.abort()
    assert set(found) == {"a", "b"}
    assert found["a"].size == len(DATA)
    assert found["a"].location.uri == f"file://{tmp_path}/x/a"
    assert found["b"].modified == (tmp_path / "y" / "b").stat().st_mtime


@pytest.mark.parametrize("name", [".fuse_hidden0000000a00000001", ".nfs00000000000a1b2c00000001"])
def test_removed_files_that_are_still_open(driver, begin, data: Path, name: str) -> None:
    """What FUSE and NFS make of a removed file that is open is no object, and no id."""
    (data / name).write_bytes(b"x")
    assert list(driver.list(context=None)) == []
    assert "FUSE and NFS" in str(driver.id_problem(name))


def test_deleted_while_listing(driver, put, monkeypatch) -> None:
    """An object that is deleted while the listing is made is left out of it."""
    for object_id in ("a", "b", "c"):
        put(driver, object_id, b"x")
    real = datadirs._page

    def page(*arguments: Any) -> Any:
        found = real(*arguments)
        if found:
            driver.delete(driver.parse(f"{driver.url_prefix}/b"), context=None)
        return found

    monkeypatch.setattr(datadirs, "_page", page)
    assert {entry.object_id for entry in driver.list(context=None)} == {"a", "c"}


def test_a_long_listing(make, data: Path) -> None:
    """A listing of several pages has every object once; each page is a call of its own."""
    driver = make()
    calls: list[int] = []

    def retry(call: Any) -> Any:
        result = call()
        calls.append(len(result) if isinstance(result, list) else 0)
        return result

    driver.retry = retry
    expected = {f"id-{number}" for number in range(2 * datadirs._PAGE + 3)}
    for name in expected:
        (data / name).touch()
    found = [entry.object_id for entry in driver.list(context=None)]
    assert len(found) == len(expected)
    assert set(found) == expected
    assert max(calls) == datadirs._PAGE


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_a_listing_that_breaks(make, data: Path, monkeypatch, number: int) -> None:
    """A directory that cannot be read to its end is an error, never a shorter listing."""
    driver = make()
    (data / "a").touch()

    def islice(found: Any, length: int) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(datadirs.itertools, "islice", islice)
    with pytest.raises(BackendException) as caught:
        list(driver.list(context=None))
    assert caught.value.status is ErrorStatus.PERMANENT


@pytest.mark.parametrize("call", ["delete", "copy", "discard"])
def test_calls_that_come_back_to_life(driver, put, begin, data: Path, call: str) -> None:
    """A call that hung and was given up deletes nothing and publishes nothing any more."""
    location = put(driver, "a", DATA)
    (data / f".store_lib-{NONCE}-left").touch()
    (left,) = driver.list_incomplete(context=None)
    before = sorted(os.listdir(data))

    def given_up() -> None:
        raise TimeoutError(timeout=5)

    driver.checkpoint = given_up
    calls = {
        "delete": lambda: driver.delete(location, context=None),
        "copy": lambda: copy(driver, location, "b"),
        "discard": lambda: driver.discard(left, context=None),
    }
    with pytest.raises(TimeoutError):
        calls[call]()
    assert sorted(os.listdir(data)) == before


@pytest.mark.parametrize("step", [1, 2], ids=["published", "made durable"])
@pytest.mark.parametrize("other", [False, True], ids=["ours", "another's"])
def test_a_copy_that_comes_back_to_life_at_its_end(
    driver, put, data: Path, step: int, other: bool
) -> None:
    """A copy that has published when it learns that it was given up takes that back.

    What has its name by then may be another object, which stays.
    """
    location = put(driver, "a", DATA)
    published: list[int] = []

    def given_up() -> None:
        if "b" in os.listdir(data):
            published.append(1)
        if len(published) == step:
            if other:
                (data / "b").unlink()
                (data / "b").write_bytes(b"another")
            raise TimeoutError(timeout=5)

    driver.checkpoint = given_up
    with pytest.raises(TimeoutError):
        copy(driver, location, "b")
    assert sorted(os.listdir(data)) == (["a", "b"] if other else ["a"])


def test_list_without_the_directory(driver, data: Path) -> None:
    """A data directory that has gone is an error, not an empty store."""
    data.rmdir()
    for listing in (driver.list, driver.list_incomplete):
        with pytest.raises(BackendException, match="mounted"):
            list(listing(context=None))
    with pytest.raises(BackendException, match="mounted"):
        driver.space(context=None)


Room = namedtuple("Room", "f_frsize f_blocks f_bavail f_files f_favail", defaults=(0, 0))


def test_space(make, tmp_path: Path, monkeypatch) -> None:
    """Directories on one file system count once; no bound is told as none."""
    room = Room(4096, 1000, 100)
    monkeypatch.setattr(os, "statvfs", lambda path: room)
    driver = make(filesystem_store_datadirs=[f"{tmp_path}/x", f"{tmp_path}/y"])
    assert driver.space(context=None) == Space(4096000, 409600)
    room = Room(4096, 0, 0)
    assert driver.space(context=None) == Space(None, None)


# The choice of a directory


@pytest.fixture
def choose(make, begin, tmp_path: Path, monkeypatch):
    """Return a function that says in which directory an object would be put."""

    def function(directories: dict[str, int | None], size: int | None, **options: Any) -> str:
        """Take free bytes by ``name`` or ``name:priority``; ``None`` is a broken directory."""

        def statvfs(path: str) -> Room:
            entry = next(each for each in directories if each.split(":")[0] == Path(path).name)
            free = directories[entry]
            if free is None:
                raise OSError(errno.EIO, "Input/output error", path)
            return Room(1, 10**9, free)

        driver = make(
            filesystem_store_datadirs=[f"{tmp_path}/{each}" for each in directories], **options
        )
        monkeypatch.setattr(os, "statvfs", statvfs)
        monkeypatch.setattr(syscalls, "preallocate", lambda fd, size: False)
        writer = begin(driver, "a", size)
        (found,) = driver.list_incomplete(context=None)
        writer.abort()
        return Path(found.key).parent.name

    return function


@pytest.mark.parametrize(
    ("directories", "size", "chosen"),
    [
        ({"x": 100, "y": 200}, None, "y"),
        ({"x": 200, "y": 100}, 10, "x"),
        ({"x:1": 100, "y": 200}, 10, "x"),
        ({"x": 500, "y:1": 100, "z:1": 200}, 10, "z"),
        ({"x:2": 100, "y:1": 200}, 150, "y"),
        ({"x:-1": 100, "y:-2": 200}, 10, "x"),
        ({"x:1": 0, "y": 200}, None, "y"),
        ({"x:1": 0, "y": 200}, 0, "y"),
        ({"x:1": None, "y": 200}, 10, "y"),
        ({"x": 5 * MIB}, 5 * MIB, "x"),
        ({"x": 0}, 10, "x"),
        ({"x": 0}, None, "x"),
    ],
)
def test_choice(choose, directories: dict[str, int | None], size: int | None, chosen: str) -> None:
    """The highest priority with room counts, then the most free space."""
    assert choose(directories, size) == chosen


def test_no_room(choose, tmp_path: Path) -> None:
    """A size that fits nowhere is refused at once with what was needed and what there is."""
    for directories, size in (({"x:1": 100, "y": 200}, 201), ({"x": 2 * MIB}, 3 * MIB)):
        with pytest.raises(
            StorageFull, match=rf"{size} bytes.*at most {max(directories.values())}"
        ):
            choose(directories, size)
        assert all(os.listdir(each) == [] for each in tmp_path.iterdir())


@pytest.mark.parametrize(("files", "chosen"), [((0, 0), "x"), ((9, 1), "x"), ((9, 0), "y")])
def test_no_room_for_one_more_file(make, put, tmp_path: Path, monkeypatch, files, chosen) -> None:
    """A file system that can take no further file is passed over, whatever bytes are free."""
    driver = make(filesystem_store_datadirs=[f"{tmp_path}/x:1", f"{tmp_path}/y"])
    rooms = {f"{tmp_path}/x": Room(1, 10**9, 10**9, *files), f"{tmp_path}/y": Room(1, 10**9, 10**6)}
    monkeypatch.setattr(os, "statvfs", rooms.__getitem__)
    location = put(driver, "a", b"x")
    assert location.path == f"{tmp_path}/{chosen}/a"
    assert copy(driver, location, "b").path == f"{tmp_path}/{chosen}/b"


def test_a_quota_that_does_not_show(make, put, tmp_path: Path, monkeypatch) -> None:
    """Where an object's blocks cannot be had, small ones too, the next directory is tried."""
    driver = make(filesystem_store_datadirs=[f"{tmp_path}/x:1", f"{tmp_path}/y"])

    def preallocate(fd: int, size: int) -> bool:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(f"{tmp_path}/x/"):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return False

    monkeypatch.setattr(syscalls, "preallocate", preallocate)
    assert put(driver, "a", b"x").path == f"{tmp_path}/y/a"
    assert os.listdir(tmp_path / "x") == []


def test_room_for_thin_objects(choose) -> None:
    """With thin provisioning the size is only the most it can take, so nothing is refused yet."""
    thin = {"filesystem_thin_provisioning": True}
    assert choose({"x": 1}, 10 * MIB, **thin) == "x"
    assert choose({"x:1": 100, "y": 200}, 201, **thin) == "y"
    assert choose({"x:1": 100, "y": 200}, 50, **thin) == "x"


def test_all_directories_broken(choose) -> None:
    """When no directory can be looked at, the reason is told rather than a full disk."""
    with pytest.raises(BackendException, match="Input/output error"):
        choose({"x": None, "y": None}, 10)


def test_one_directory_is_not_asked_for_its_room(driver, put, monkeypatch) -> None:
    """A small object in the only directory costs no look at the free space."""
    monkeypatch.setattr(os, "statvfs", None)
    put(driver, "a", b"x")


# Copying within the store


@pytest.fixture(params=["clone", "kernel", "bytes", "no holes"])
def copied_by(request, monkeypatch) -> str:
    """Make copying go each of its ways, as on file systems that lack the better ones."""

    def missing(number: int):
        def call(*arguments: Any) -> int:
            raise OSError(number, os.strerror(number))

        return call

    way: str = request.param
    if way == "clone":
        # Few file systems clone; this does what they do.
        def clone(source: int, target: int) -> bool:
            size = os.fstat(source).st_size
            os.pwrite(target, os.pread(source, size, 0), 0)
            return True

        monkeypatch.setattr(syscalls, "clone", clone)
        return way
    monkeypatch.setattr(syscalls, "clone", lambda source, target: False)
    if way in ("bytes", "no holes"):
        monkeypatch.setattr(os, "copy_file_range", missing(errno.EXDEV))
    if way == "no holes":
        monkeypatch.setattr(os, "lseek", missing(errno.EINVAL))
    return way


@pytest.mark.parametrize("size", [0, 1, 70000, 3 * MIB + 1])
def test_copy(driver, put, contents, data: Path, copied_by: str, size: int) -> None:
    """A copy is an object of its own with the same bytes."""
    body = os.urandom(size)
    location = put(driver, "a", body)
    copied = copy(driver, location, "b")
    assert copied.uri == f"file://{data}/b"
    driver.delete(location, context=None)
    assert contents(driver, copied) == body
    assert os.listdir(data) == ["b"]


@pytest.mark.parametrize("layout", [(0,), (4,), (0, 4, 9), (9,), ()])
def test_copy_keeps_holes(
    driver, begin, contents, data: Path, copied_by: str, layout: tuple[int, ...]
) -> None:
    """Holes at the start, between and at the end are holes in the copy."""
    writer = begin(driver, "a")
    for position in layout:
        writer.write_at(position * MIB, os.urandom(65536))
    source = writer.commit(10 * MIB)
    copied = copy(driver, source, "b")
    assert contents(driver, copied) == contents(driver, source)
    blocks = os.stat(copied.path).st_blocks * 512
    if copied_by != "clone":
        assert blocks <= len(layout) * 65536 + 65536


def test_holes_that_do_not_show(driver, begin, contents, monkeypatch) -> None:
    """Where all of a file passes for data, as on FUSE, its holes are found by reading."""
    writer = begin(driver, "a")
    writer.write_at(MIB, os.urandom(100_000))
    writer.write_at(3 * MIB - 10, b"x")
    source = writer.commit(10 * MIB + 5)
    real = os.lseek

    def lseek(fd: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_DATA:
            return offset
        if whence == os.SEEK_HOLE:
            return os.fstat(fd).st_size
        return real(fd, offset, whence)

    monkeypatch.setattr(syscalls, "clone", lambda source, target: False)
    monkeypatch.setattr(os, "lseek", lseek)
    copied = copy(driver, source, "b")
    assert contents(driver, copied) == contents(driver, source)
    assert os.stat(copied.path).st_blocks * 512 <= 4 * 65536


@pytest.mark.parametrize(
    ("written", "room", "chosen"),
    [(3 * MIB, 2 * MIB, "y"), (3 * MIB, 4 * MIB, "x"), (MIB, 2 * MIB, "x"), (0, 1, "x")],
)
def test_copy_goes_where_it_fits(
    make, begin, tmp_path: Path, monkeypatch, written: int, room: int, chosen: str
) -> None:
    """A copy's directory is chosen by what its source takes on the disk."""
    driver = make(filesystem_store_datadirs=[f"{tmp_path}/x:1", f"{tmp_path}/y"])
    writer = begin(driver, "a")
    if written:
        writer.write_at(0, os.urandom(written))
    location = writer.commit(8 * MIB)
    rooms = {f"{tmp_path}/x": Room(1, 10**9, room), f"{tmp_path}/y": Room(1, 10**9, 10**8)}
    monkeypatch.setattr(os, "statvfs", rooms.__getitem__)
    assert copy(driver, location, "b").path == f"{tmp_path}/{chosen}/b"


def test_copy_tries_the_next_directory(make, put, tmp_path: Path, monkeypatch) -> None:
    """A copy that finds its directory full goes on in the next, and leaves nothing behind."""
    driver = make(filesystem_store_datadirs=[f"{tmp_path}/x:1", f"{tmp_path}/y"])
    location = put(driver, "a", DATA)
    real = syscalls.clone

    def clone(source: int, target: int) -> bool:
        if os.readlink(f"/proc/self/fd/{target}").startswith(f"{tmp_path}/x/"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(syscalls, "clone", clone)
    assert copy(driver, location, "b").path == f"{tmp_path}/y/b"
    assert os.listdir(tmp_path / "x") == ["a"]


def test_copy_never_uses_a_staged_name_again(make, put, tmp_path: Path, monkeypatch) -> None:
    """A copy that comes back to a directory takes a new name there: a sweep that has seen the old
    one may still remove it."""
    driver = make(filesystem_store_datadirs=[f"{tmp_path}/x:1", f"{tmp_path}/y"])
    location = put(driver, "a", DATA)
    names: list[str] = []
    real, clone = staging.stage, syscalls.clone
    rooms = {f"{tmp_path}/x": Room(1, 10**9, 0), f"{tmp_path}/y": Room(1, 10**9, 10**8)}

    def stage(directory: str, *arguments: Any) -> Any:
        file, path = real(directory, *arguments)
        names.append(path)
        rooms[f"{tmp_path}/x"] = Room(1, 10**9, 10**8)
        return file, path

    def full(source: int, target: int) -> bool:
        if os.readlink(f"/proc/self/fd/{target}").startswith(f"{tmp_path}/x/"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return clone(source, target)

    monkeypatch.setattr(os, "statvfs", rooms.__getitem__)
    monkeypatch.setattr(syscalls, "clone", full)
    monkeypatch.setattr("store_lib.drivers.filesystem.writer.stage", stage)
    assert copy(driver, location, "b").path == f"{tmp_path}/y/b"
    assert [os.path.basename(os.path.dirname(name)) for name in names] == ["y", "x", "y"]
    assert len(set(names)) == 3
    assert os.listdir(tmp_path / "x") == ["a"]


def test_copy_to_a_disk_that_seems_full(make, put, data: Path, monkeypatch) -> None:
    """A clone takes no room, so a copy is tried where its bytes would not fit."""
    driver = make()
    location = put(driver, "a", DATA)
    monkeypatch.setattr(os, "statvfs", lambda path: Room(1, 10**9, 0))
    copy(driver, location, "b")
    assert sorted(os.listdir(data)) == ["a", "b"]


def test_copy_really_clones_or_not(driver, put, contents) -> None:
    """Whatever this file system offers by itself works."""
    assert contents(driver, copy(driver, put(driver, "a", DATA), "b")) == DATA


def test_copy_onto_another(driver, put, contents, data: Path) -> None:
    """A copy never replaces an object, itself included."""
    location, other = put(driver, "a", DATA), put(driver, "b", b"other")
    for object_id in ("a", "b"):
        with pytest.raises(Duplicate):
            copy(driver, location, object_id)
    assert contents(driver, other) == b"other"
    assert contents(driver, location) == DATA
    assert sorted(os.listdir(data)) == ["a", "b"]


def test_copy_to_a_full_disk(driver, put, data: Path, monkeypatch, copied_by: str) -> None:
    """A copy that finds no room leaves nothing."""

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    location = put(driver, "a", DATA)
    for name in ("copy_file_range", "pwrite"):
        if not (name == "copy_file_range" and copied_by in ("bytes", "no holes")):
            monkeypatch.setattr(os, name, full)
    with pytest.raises(StorageFull):
        copy(driver, location, "b")
    assert os.listdir(data) == ["a"]


def test_copy_that_fails_in_the_kernel(driver, put, data: Path, monkeypatch) -> None:
    """An error of the disk while cloning or copying is told, not tried around."""

    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    location = put(driver, "a", DATA)
    for module, name in ((fcntl, "ioctl"), (os, "copy_file_range"), (os, "lseek")):
        with monkeypatch.context() as patch:
            if name != "ioctl":
                patch.setattr(syscalls, "clone", lambda source, target: False)
            patch.setattr(module, name, fail)
            with pytest.raises(BackendException, match="Input/output error"):
                copy(driver, location, "b")
    assert os.listdir(data) == ["a"]


def test_clone_of_a_file_that_changes(driver, put, data: Path, monkeypatch) -> None:
    """A clone that is not what was opened is an error, and nothing is left."""
    location = put(driver, "a", DATA)
    monkeypatch.setattr(syscalls, "clone", lambda source, target: True)
    with pytest.raises(ObjectChanged):
        copy(driver, location, "b")
    assert os.listdir(data) == ["a"]


def test_copy_of_a_file_that_is_overwritten(
    driver, put, data: Path, monkeypatch, copied_by
) -> None:
    """A source overwritten in place meanwhile is an error, and nothing is left."""
    location = put(driver, "a", DATA)
    copying = syscalls.clone

    def overwrite(source: int, target: int) -> bool:
        (data / "a").write_bytes(bytes(len(DATA)))
        later(data / "a")
        return copying(source, target)

    monkeypatch.setattr(syscalls, "clone", overwrite)
    with pytest.raises(ObjectChanged):
        copy(driver, location, "b")
    assert os.listdir(data) == ["a"]


@pytest.mark.parametrize("kernel", [True, False])
def test_copy_of_a_file_that_gets_shorter(driver, put, data: Path, monkeypatch, kernel) -> None:
    """A source cut meanwhile is an error, and nothing is left."""
    location = put(driver, "a", DATA)

    def cut(source: int, target: int) -> bool:
        os.truncate(location.path, 1000)
        return False

    monkeypatch.setattr(syscalls, "clone", cut)
    if not kernel:
        monkeypatch.setattr(os, "copy_file_range", lambda *arguments: 0)
    with pytest.raises(ObjectChanged):
        copy(driver, location, "b")
    assert os.listdir(data) == ["a"]
