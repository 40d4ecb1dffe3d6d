"""The filesystem driver's options: what each means, and how a wrong one is refused."""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib.driver import CreateOnly, HangPolicy, capabilities
from store_lib.drivers.filesystem import FilesystemDriver, syscalls
from store_lib.drivers.filesystem.exclusion import sole_publisher
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    Forbidden,
    StorageFull,
)
from store_lib.options import StoreOptions
from tests.unit.drivers.filesystem.conftest import copy

REFUSED = pytest.raises(BadStoreConfiguration)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_defaults_are_the_documented_ones() -> None:
    """Every option has the name and default that glance_store's users know."""
    assert {opt.dest: opt.default for opt in FilesystemDriver.options} == {
        "filesystem_store_datadir": "/var/lib/glance/images",
        "filesystem_store_datadirs": None,
        "filesystem_store_metadata_file": None,
        "filesystem_store_file_perm": 0,
        "filesystem_store_dir_perm": 0,
        "filesystem_store_chunk_size": 1024 * 1024,
        "filesystem_thin_provisioning": False,
        "filesystem_store_durable": True,
        "filesystem_store_checked_publish": False,
        "filesystem_store_timeout": 0,
        "filesystem_store_thread_pool_size": 10,
        "filesystem_store_threadpool_threshold": 75,
    }
    assert all(opt.help for opt in FilesystemDriver.options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filesystem_store_chunk_size", 0),
        ("filesystem_store_chunk_size", "many"),
        ("filesystem_store_timeout", -1),
        ("filesystem_store_thread_pool_size", 0),
        ("filesystem_store_threadpool_threshold", 101),
        ("filesystem_thin_provisioning", "perhaps"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: Any) -> None:
    """A value that the option's type does not allow is refused by the type."""
    with pytest.raises(ValueError, match=r"."):
        StoreOptions.of(FilesystemDriver.options, **{name: value})


def test_capabilities(driver: FilesystemDriver) -> None:
    """The driver claims what it has and nothing else."""
    assert capabilities(driver) == {
        "add",
        "delete",
        "list",
        "list_incomplete",
        "discard",
        "copy",
        "resume",
        "space",
        "ranges",
    }
    assert driver.create_only is CreateOnly.ATOMIC
    assert driver.schemes == ("file", "filesystem")


def test_the_data_directory_is_made_and_left_empty(make, data: Path) -> None:
    """Configuring makes missing directories, parents too, and leaves nothing in them."""
    driver = make(filesystem_store_datadir=f"{data}/a/b/")
    assert os.listdir(data / "a" / "b") == []
    assert driver.url_prefix == f"file://{data}/a/b"


def test_a_directory_that_is_there_keeps_what_is_in_it(make, data: Path) -> None:
    """Configuring over a used directory alters nothing in it, permissions included."""
    data.mkdir(mode=0o711)
    (data / "object").write_bytes(b"x")
    make(filesystem_store_dir_perm=750)
    assert os.listdir(data) == ["object"]
    assert mode(data) == 0o711


def test_timeouts_are_handed_to_the_engine(make) -> None:
    """The three options for hung mounts become the limits of the engine's calls."""
    driver = make(
        filesystem_store_timeout=7,
        filesystem_store_thread_pool_size=3,
        filesystem_store_threadpool_threshold=50,
    )
    assert driver.hang_policy == HangPolicy(7, 3, 50)


@pytest.mark.parametrize(
    ("chunk_size", "used"),
    [(1, 65536), (65536, 65536), (65537, 131072), (100000, 131072), (2**20, 2**20)],
)
def test_the_chunk_size_is_rounded_up(make, begin, chunk_size: int, used: int) -> None:
    """Chunks are whole multiples of a hole, whatever the option says."""
    driver = make(filesystem_store_chunk_size=chunk_size, filesystem_thin_provisioning=True)
    writer = begin(driver, "a")
    writer.abort()
    assert writer.chunk_size == used
    assert writer.chunk_size % writer.hole_size == 0


# Permissions


def test_file_permissions(make, put, data: Path) -> None:
    """The decimal digits of the option are the octal mode of the file."""
    put(make(filesystem_store_file_perm=640), "a", b"x")
    assert mode(data / "a") == 0o640


@pytest.mark.parametrize("perm", [0, -1, -640])
def test_no_file_permissions(make, put, data: Path, perm: int) -> None:
    """Zero and less leave the mode to the umask."""
    previous = os.umask(0o027)
    try:
        put(make(filesystem_store_file_perm=perm), "a", b"x")
    finally:
        os.umask(previous)
    assert mode(data / "a") == 0o640


@pytest.fixture
def no_umask() -> Iterator[None]:
    """Let new files have every permission that they are made with."""
    previous = os.umask(0)
    yield
    os.umask(previous)


@pytest.mark.parametrize(("perm", "got"), [(0, 0o666), (644, 0o644), (600, 0o600)])
def test_files_under_way_are_private(make, begin, data, no_umask, perm: int, got: int) -> None:
    """Until it is published a file is its owner's alone, so nobody keeps a descriptor of it."""
    driver = make(filesystem_store_file_perm=perm)
    writer = begin(driver, "a")
    (staged,) = data.iterdir()
    assert mode(staged) == 0o600
    writer.commit(0)
    assert mode(data / "a") == got


def test_copies_have_the_permissions_too(make, put, data: Path, no_umask) -> None:
    """A copy has the permissions of a new object, whatever its source has."""
    driver = make(filesystem_store_file_perm=640)
    location = put(driver, "a", b"x")
    (data / "a").chmod(0o600)
    copy(driver, location, "b")
    assert mode(data / "b") == 0o640


@pytest.mark.parametrize("locks", [True, False])
def test_locks_and_claims_are_private(tmp_path: Path, no_umask, monkeypatch, locks: bool) -> None:
    """Nobody else can hold the lock of an id, or alter its claim."""
    if not locks:
        monkeypatch.setattr(syscalls, "lock", lambda fd, how: None)
    with sole_publisher([str(tmp_path)], "a"):
        (path,) = tmp_path.iterdir()
        assert mode(path) == 0o600


def test_directories_are_never_wider(make, data: Path, no_umask, monkeypatch) -> None:
    """A directory that is made is at no time open to more than it is to be in the end."""
    seen: list[int] = []
    real = os.chmod

    def chmod(path: str, to: int) -> None:
        seen.append(mode(Path(path)))
        real(path, to)

    monkeypatch.setattr(os, "chmod", chmod)
    make(filesystem_store_datadir=str(data / "deep"), filesystem_store_dir_perm=750)
    assert seen == [0o700, 0o700]
    assert mode(data) == mode(data / "deep") == 0o750


def test_a_directory_that_all_may_write_in(make, data: Path, no_umask, caplog) -> None:
    """Such a directory is warned of, at each start."""
    make()
    assert mode(data) == 0o777
    assert "chmod o-w" in caplog.text
    data.chmod(0o775)
    caplog.clear()
    make()
    assert caplog.text == ""


def test_directory_permissions(make, data: Path) -> None:
    """Directories that the store makes get the mode that the option spells, the set-gid bit too."""
    make(filesystem_store_datadir=str(data / "deep"), filesystem_store_dir_perm=2750)
    assert mode(data) == mode(data / "deep") == 0o2750


@pytest.mark.parametrize(
    ("file_perm", "dir_perm", "got"),
    [
        (644, 0, 0o711),
        (640, 0, 0o710),
        (604, 0, 0o701),
        (600, 0, 0o700),
        (0, 0, 0o700),
        (644, 700, 0o700),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_who_reaches_the_files(make, data: Path, there: bool, file_perm, dir_perm, got) -> None:
    """Whom the files' permissions name may search the directory, unless its own are set."""
    previous = os.umask(0o077)
    try:
        if there:
            data.mkdir()
        make(filesystem_store_file_perm=file_perm, filesystem_store_dir_perm=dir_perm)
    finally:
        os.umask(previous)
    assert mode(data) == got


def test_a_directory_that_cannot_be_opened_for_others(make, data, monkeypatch, caplog) -> None:
    """Where the directory's mode cannot be set, a warning is logged and the store works."""
    data.mkdir(0o700)

    def refuse(path: str, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", path)

    monkeypatch.setattr(os, "chmod", refuse)
    make(filesystem_store_file_perm=640)
    assert f"Cannot set the permissions of {data} to 710" in caplog.text


@pytest.mark.parametrize("perm", [40, 200, 377])
def test_the_owner_must_be_able_to_read(make, perm: int) -> None:
    """A mode that takes the owner's read permission away is refused; what is there is readable."""
    with REFUSED as caught:
        make(filesystem_store_file_perm=perm)
    assert caught.value.readable
    assert "owner" in str(caught.value)


@pytest.mark.parametrize("perm", [50, 600, 677])
def test_the_owner_must_have_all_of_a_directory(make, data: Path, perm: int) -> None:
    """A directory that its owner could not use is refused before it is made."""
    with REFUSED:
        make(filesystem_store_dir_perm=perm)
    assert not data.exists()


@pytest.mark.parametrize("perm", [648, 9, 77777])
@pytest.mark.parametrize("option", ["filesystem_store_file_perm", "filesystem_store_dir_perm"])
def test_permissions_that_are_not_octal(make, option: str, perm: int) -> None:
    """Digits that spell no mode are refused with the option's name."""
    with pytest.raises(BadStoreConfiguration, match=f"octal permissions in {option}"):
        make(**{option: perm})


def test_permissions_that_cannot_be_set(make, put, data: Path, monkeypatch, caplog) -> None:
    """Where the mode cannot be set, the object is kept and a warning logged."""

    def refuse(fd: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, "no")

    driver = make(filesystem_store_file_perm=640)
    monkeypatch.setattr(os, "fchmod", refuse)
    put(driver, "a", b"x")
    assert (data / "a").read_bytes() == b"x"
    assert "Cannot set the permissions" in caplog.text


# One directory, or several


def test_directories_alone_are_enough(make, tmp_path: Path) -> None:
    """filesystem_store_datadirs needs no word on filesystem_store_datadir."""
    driver = make(filesystem_store_datadirs=[f"{tmp_path}/x", f"{tmp_path}/y:5"])
    assert sorted(os.listdir(tmp_path)) == ["x", "y"]
    assert driver.url_prefix == f"file://{tmp_path}/x"


def test_an_empty_datadir_beside_datadirs(make, tmp_path: Path) -> None:
    """The empty filesystem_store_datadir that glance_store asked for beside datadirs is fine."""
    make(filesystem_store_datadir="", filesystem_store_datadirs=[f"{tmp_path}/x"])
    assert os.listdir(tmp_path) == ["x"]


def test_both_set(make, tmp_path: Path) -> None:
    """Setting both options is refused, and nothing is made."""
    with pytest.raises(BadStoreConfiguration, match="both set"):
        make(filesystem_store_datadir=f"{tmp_path}/x", filesystem_store_datadirs=[f"{tmp_path}/y"])
    assert os.listdir(tmp_path) == []


def test_none_set(make) -> None:
    """Setting the directory to nothing is refused."""
    with pytest.raises(BadStoreConfiguration, match=r"Set filesystem_store_datadir or"):
        make(filesystem_store_datadir="")


@pytest.mark.parametrize("second", ["x", "x:7", "x/", "x/.:3", "y/../x"])
def test_the_same_directory_twice(make, tmp_path: Path, second: str) -> None:
    """One directory twice is refused, with equal priorities or others, however it is spelled."""
    (tmp_path / "y").mkdir()
    with pytest.raises(BadStoreConfiguration, match="more than once"):
        make(filesystem_store_datadirs=[f"{tmp_path}/x", f"{tmp_path}/{second}"])
    assert not (tmp_path / "x").exists()


def test_the_same_directory_by_another_name(make, tmp_path: Path) -> None:
    """One directory under two names, one a symbolic link, is refused."""
    (tmp_path / "x").mkdir()
    (tmp_path / "y").symlink_to("x")
    with pytest.raises(BadStoreConfiguration, match="more than once"):
        make(filesystem_store_datadirs=[f"{tmp_path}/x", f"{tmp_path}/y"])


@pytest.mark.parametrize(
    ("entry", "made"),
    [
        ("a", "a"),
        ("a:9", "a"),
        ("a:-9", "a"),
        ("a : 9", "a"),
        ("a:\x1f9", "a"),
        ("a:b:9", "a:b"),
        ("a:9:0", "a:9"),
        ("a:b/c", "a:b"),
    ],
)
def test_colons_in_paths(make, tmp_path: Path, entry: str, made: str) -> None:
    """Only a whole number after the last colon is a priority."""
    make(filesystem_store_datadirs=[f"{tmp_path}/{entry}"])
    assert os.listdir(tmp_path) == [made]


@pytest.mark.parametrize("entry", ["a:high", "a:1.5", "a:1O0", "a:", f"a:{'9' * 5000}"])
def test_bad_priorities(make, tmp_path: Path, entry: str) -> None:
    """A priority that is no whole number is refused rather than taken for part of the path."""
    with pytest.raises(BadStoreConfiguration, match="PATH:PRIORITY"):
        make(filesystem_store_datadirs=[f"{tmp_path}/{entry}"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["images", "./images", "~/images", "/\ud800"])
def test_relative_directories(make, path: str) -> None:
    """A path that hangs on where the service was started is refused."""
    with pytest.raises(BadStoreConfiguration, match="absolute path"):
        make(filesystem_store_datadir=path)


# What the directories are


def test_a_file_in_place_of_the_directory(make, data: Path) -> None:
    """A data directory that is a file is refused."""
    data.write_bytes(b"")
    with pytest.raises(BadStoreConfiguration, match="not a directory") as caught:
        make()
    assert not caught.value.readable


def test_a_file_above_the_directory(make, data: Path) -> None:
    """A data directory that cannot be made is refused."""
    data.write_bytes(b"")
    with REFUSED:
        make(filesystem_store_datadir=str(data / "below"))


def test_a_directory_that_cannot_be_written(make, put, contents, open_directory, request) -> None:
    """A directory without write permission is refused, and what is in it can still be read."""
    path = open_directory / "data"
    options = {"filesystem_store_datadir": str(path)}
    location = put(make(**options), "a", b"old")
    path.chmod(0o555)
    request.getfixturevalue("unprivileged")
    driver = make(configure=False, **options)
    with pytest.raises(BadStoreConfiguration, match="Permission denied") as caught:
        driver.configure()
    assert caught.value.readable
    assert contents(driver, location) == b"old"
    assert driver.stat(location, context=None).size == 3
    with pytest.raises(Forbidden):
        driver.delete(location, context=None)
    assert os.listdir(path) == ["a"]


def test_a_directory_that_cannot_be_made(make, open_directory, request) -> None:
    """A data directory that may not be made is refused with the reason."""
    open_directory.chmod(0o555)
    request.getfixturevalue("unprivileged")
    with pytest.raises(BadStoreConfiguration, match="Permission denied") as caught:
        make(filesystem_store_datadir=str(open_directory / "data"))
    assert not caught.value.readable


def not_there(*arguments: Any, **keywords: Any) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")


def full(*arguments: Any, **keywords: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_no_way_to_publish(make, data: Path, monkeypatch) -> None:
    """A file system that cannot keep a name to one file is refused, readable, nothing left."""
    monkeypatch.setattr(syscalls, "rename_noreplace", not_there)
    monkeypatch.setattr(os, "link", not_there)
    with pytest.raises(BadStoreConfiguration, match="filesystem_store_checked_publish") as caught:
        make()
    assert caught.value.readable
    assert os.listdir(data) == []


def test_publishing_that_is_checked(make, put, data: Path, monkeypatch, caplog) -> None:
    """Where the operator accepts such a file system, one warning is logged, and less claimed."""
    monkeypatch.setattr(syscalls, "rename_noreplace", not_there)
    monkeypatch.setattr(os, "link", not_there)
    driver = make(filesystem_store_checked_publish=True)
    assert len(caplog.records) == 1
    assert "renameat2(RENAME_NOREPLACE) nor hard links" in caplog.text
    assert driver.create_only is CreateOnly.CHECKED
    put(driver, "a", b"x")
    assert os.listdir(data) == ["a"]


def test_checked_publishing_only_where_it_is_needed(make, caplog) -> None:
    """The option changes nothing on a file system that keeps a name to one file."""
    assert make(filesystem_store_checked_publish=True).create_only is CreateOnly.ATOMIC
    assert caplog.text == ""


def test_a_disk_that_renames_nothing(make, data: Path, monkeypatch) -> None:
    """Checked publishing is no way out where renaming fails too."""
    monkeypatch.setattr(syscalls, "rename_noreplace", not_there)
    monkeypatch.setattr(os, "link", not_there)
    monkeypatch.setattr(os, "rename", not_there)
    with REFUSED:
        make(filesystem_store_checked_publish=True)
    assert os.listdir(data) == []


def test_a_rename_that_overwrites_is_not_used(make, put, data: Path, monkeypatch) -> None:
    """A file system that ignores the flag is found out, and links are used."""
    monkeypatch.setattr(syscalls, "rename_noreplace", os.rename)
    driver = make()
    assert os.listdir(data) == []
    monkeypatch.setattr(syscalls, "rename_noreplace", None)
    put(driver, "a", b"x")


def test_a_full_disk_at_the_start(make, put, data: Path, monkeypatch, caplog) -> None:
    """A disk that is full when the service starts leaves the store usable, if only to delete."""

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        driver = make()
        assert "is full" in caplog.text
        with pytest.raises(StorageFull):
            put(driver, "a", b"x")
    put(driver, "a", b"x")
    assert os.listdir(data) == ["a"]


def test_no_way_to_publish_found_later(make, put, data: Path, monkeypatch) -> None:
    """Where publishing could not be tried at the start and cannot be done, the add says so."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        driver = make()
    monkeypatch.setattr(syscalls, "rename_noreplace", not_there)
    monkeypatch.setattr(os, "link", not_there)
    with pytest.raises(BackendException, match="hard links"):
        put(driver, "a", b"x")
    assert os.listdir(data) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_systems_without_locks(make, monkeypatch, caplog, number: int) -> None:
    """What systems without locks answer is taken for that, and warned of."""

    def flock(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    make()
    assert "cannot be locked" in caplog.text


def test_no_locks(make, begin, put, contents, tmp_path: Path, monkeypatch, caplog) -> None:
    """Where files cannot be locked, uploads work, a warning is logged, and less is claimed."""
    monkeypatch.setattr(syscalls, "lock", lambda fd, how: None)
    driver = make()
    assert "cannot be locked" in caplog.text
    assert driver.create_only is CreateOnly.ATOMIC
    assert contents(driver, put(driver, "a", b"x")) == b"x"
    writer = begin(driver, "b")
    assert [found.live for found in driver.list_incomplete(context=None)] == [False]
    writer.abort()
    several = make(filesystem_store_datadirs=[f"{tmp_path}/x", f"{tmp_path}/y"])
    assert several.create_only is CreateOnly.CHECKED
    assert contents(several, put(several, "a", b"x")) == b"x"


# The metadata file


@pytest.fixture
def described(make, tmp_path: Path):
    """Return a function that makes a driver with this text as its metadata file."""

    def function(text: str) -> FilesystemDriver:
        path = tmp_path / "metadata.json"
        path.write_text(text)
        return make(filesystem_store_metadata_file=str(path))

    return function


def test_metadata_of_the_longest_mountpoint(described, put, tmp_path: Path) -> None:
    """Of several mountpoints the longest that truly contains the file counts."""
    mounts = [
        {"id": "root", "mountpoint": "/"},
        {"id": "near", "mountpoint": f"{tmp_path}/", "share": ["a", {"b": "c"}]},
        {"id": "beside", "mountpoint": f"{tmp_path}/dat"},
        {"id": "below", "mountpoint": f"{tmp_path}/data/a/b"},
    ]
    driver = described(json.dumps(mounts))
    location = put(driver, "a", b"")
    first = driver.metadata(location)
    assert first == mounts[1]
    first["share"].append("changed by the caller")
    assert driver.metadata(location) == mounts[1]


def test_metadata_of_one_object(described, put, data: Path) -> None:
    """A single object in place of a list will do."""
    driver = described(json.dumps({"id": "a", "mountpoint": str(data)}))
    assert driver.metadata(put(driver, "a", b"")) == {"id": "a", "mountpoint": str(data)}


def test_no_metadata(driver: FilesystemDriver, described, put) -> None:
    """Without a file, or without a mountpoint that fits, there is none."""
    assert driver.metadata(put(driver, "a", b"")) == {}
    other = described('{"id": "a", "mountpoint": "/no/where"}')
    assert other.metadata(put(other, "b", b"")) == {}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        '"text"',
        "[[]]",
        '{"id": "a"}',
        '{"mountpoint": "/a"}',
        '{"id": 1, "mountpoint": "/a"}',
        '{"id": "a", "mountpoint": null}',
        '{"id": "a", "mountpoint": "a"}',
        '{"id": "a", "mountpoint": "/a", "more": 7}',
        '[{"id": "a", "mountpoint": "/a"}, {}]',
        '{"id": "a", "mountpoint": "/../\\u0000"}',
        '{"id": "a", "mountpoint": "/../\\ud800"}',
        pytest.param("[" * 100_000, id="nested"),
        pytest.param('{"a":' * 900 + "0" + "}" * 900, id="less nested"),
    ],
)
def test_bad_metadata(described, text: str) -> None:
    """A metadata file that is not as documented is refused with its path; objects stay readable."""
    with pytest.raises(BadStoreConfiguration, match=r"metadata\.json") as caught:
        described(text)
    assert caught.value.readable


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"id": "a", "mountpoint": "/a", "b": ' + '{"c": ' * 900 + '"d"' + "}" * 901,
        '{"id": "a", "mountpoint": "/a\\u0000"}',
        '{"id": "a", "mountpoint": "/a", "b": ' + "1" * 5000 + "}",
    ],
    ids=range(5),
)
def test_hostile_metadata(described, text: str) -> None:
    """Whatever is in the file is an error of this store, from which objects can be read."""
    with pytest.raises(BadStoreConfiguration) as caught:
        described(text)
    assert caught.value.readable
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("path", ["/a\0b", "/dev/zero", "pipe"])
def test_a_metadata_file_that_is_none(make, tmp_path: Path, path: str) -> None:
    """A pipe is not waited for, and a device not read for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadStoreConfiguration, match="filesystem_store_metadata_file"):
        make(filesystem_store_metadata_file=os.path.join(tmp_path, path))


def test_missing_metadata_file(make, tmp_path: Path) -> None:
    """A metadata file that is not there is refused."""
    with pytest.raises(BadStoreConfiguration, match="No such file"):
        make(filesystem_store_metadata_file=str(tmp_path / "none"))
