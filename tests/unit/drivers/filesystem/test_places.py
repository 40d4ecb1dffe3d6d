"""Which ids become files, which URIs are the store's, and that nothing leads out of it."""

import os
from pathlib import Path

import pytest

from store_lib.drivers.filesystem import FilesystemDriver
from store_lib.drivers.filesystem.location import (
    PRIVATE_PREFIX,
    FileLocation,
    staged_name,
    staged_object_id,
)
from store_lib.exceptions import BadStoreUri, Duplicate, Forbidden, NotFound
from tests.unit.drivers.filesystem.conftest import copy

NONCE = "0123456789abcdef" * 2

GOOD_IDS = [
    "4f6e7b1c-2b1b-4f5e-8f4e-111111111111",
    "a",
    "x" * 255,
    "\N{LATIN SMALL LETTER E WITH ACUTE}" * 127,
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{GRINNING FACE}" * 63,
    "...",
    ".hidden",
    "..a",
    " leading and trailing ",
    "trailing.",
    "%2F%00",
    "a?b#c",
    "a\nb\tc\x01",
    "a:9",
    "-rf",
    "~",
    ".store_lib",
    "x.store_lib-",
]
BAD_IDS = [
    "",
    ".",
    "..",
    "a/b",
    "/",
    "../a",
    "a\0b",
    "x" * 256,
    "\N{LATIN SMALL LETTER E WITH ACUTE}" * 128,
    "\ud800",
    "\udc80",
    f"{PRIVATE_PREFIX}a",
    PRIVATE_PREFIX,
]


@pytest.mark.parametrize("object_id", GOOD_IDS, ids=ascii)
def test_ids_are_used_as_they_stand(driver, put, contents, data: Path, object_id: str) -> None:
    """An id that can be a file name is one, and comes back from the listing and by its URI."""
    location = put(driver, object_id, b"x")
    assert os.listdir(data) == [object_id]
    assert location.uri == f"file://{data}/{object_id}"
    assert contents(driver, driver.parse(location.uri)) == b"x"
    (entry,) = driver.list(context=None)
    assert (entry.object_id, entry.location) == (object_id, location)
    driver.delete(driver.parse(location.uri), context=None)
    assert os.listdir(data) == []


@pytest.mark.parametrize("object_id", BAD_IDS, ids=lambda each: ascii(each)[:20])
def test_ids_that_cannot_be_file_names(driver, object_id: str) -> None:
    """An id that would leave the directory, or be altered, is refused with what is allowed."""
    reason = driver.id_problem(object_id)
    assert reason is not None
    assert "Expected 1 to 255 bytes" in reason
    assert reason.isascii()
    assert len(reason) < 400


def test_ids_that_differ_in_form_are_two(driver, put, contents) -> None:
    """Composed and decomposed letters, and letters of another case, are other ids."""
    ids = ["\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}", "E", "e"]
    locations = [put(driver, each, each.encode()) for each in ids]
    assert [contents(driver, each).decode() for each in locations] == ids


@pytest.mark.parametrize("object_id", [*GOOD_IDS, "x" * 211, "x" * 212], ids=ascii)
def test_staged_names(object_id: str) -> None:
    """A staged name fits a file name, and tells the id unless it had to be cut."""
    name = staged_name(object_id, NONCE)
    assert name.startswith(PRIVATE_PREFIX + NONCE)
    assert len(os.fsencode(name)) <= 255
    fits = len(PRIVATE_PREFIX) + len(NONCE) + 1 + len(object_id.encode()) <= 255
    assert staged_object_id(name) == (object_id if fits else None)


def test_staged_names_where_names_are_short() -> None:
    """Where the file system allows less, the id is cut to that."""
    name = staged_name("\N{GRINNING FACE}" * 63, NONCE, name_max=143)
    assert 139 <= len(name.encode()) <= 143
    assert staged_object_id(name) is None


# URIs


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b", "/a/b"),
        ("filesystem:///a/b", "/a/b"),
        ("FILE:///a/b", "/a/b"),
        ("file:///a/b%2Fc d?e#f", "/a/b%2Fc d?e#f"),
        ("file:///a/x://y@z", "/a/x://y@z"),
        ("file:////a//b", "//a//b"),
    ],
)
def test_parse(uri: str, path: str) -> None:
    """A path is taken as it stands, and written back with file://."""
    location = FileLocation.parse(uri)
    assert location.path == path
    assert location.uri == f"file://{path}"
    assert FileLocation.parse(location.uri) == location


@pytest.mark.parametrize(
    "uri",
    [
        "file://",
        "file:///",
        "file://a",
        "file://localhost/a/b",
        "file:// /a",
        "file:///a/",
        "file:///a/.",
        "file:///a/..",
        "file:///a\0b",
        "file:///a/\ud800",
        "http://a/b",
        "/a/b",
        "",
    ],
    ids=ascii,
)
def test_malformed_uris(uri: str) -> None:
    """A URI that names no file by an absolute path is refused, in a text that can be printed."""
    with pytest.raises(BadStoreUri) as caught:
        FileLocation.parse(uri)
    str(caught.value).encode()


# Containment


def everything_refuses(driver: FilesystemDriver, uri: str, error: type[Exception]) -> None:
    location = driver.parse(uri)
    for call in (
        lambda: driver.read(location, 0, None, context=None),
        lambda: driver.stat(location, context=None),
        lambda: driver.delete(location, context=None),
        lambda: copy(driver, location, "copied"),
    ):
        with pytest.raises(error):
            call()


def test_outside_the_store(driver, tmp_path: Path, data: Path) -> None:
    """Nothing outside the data directory is read, told of, deleted or copied."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    beside = tmp_path / "database"
    beside.mkdir()
    (beside / "secret").write_bytes(b"secret")
    (data / "sub").mkdir()
    for path in (
        secret,
        "/etc/passwd",
        beside / "secret",
        f"{data}/../secret",
        f"{data}/sub/../../secret",
        f"{data}/./../secret",
        data,
    ):
        everything_refuses(driver, f"file://{path}", BadStoreUri)
        assert not driver.holds(driver.parse(f"file://{path}"))
    assert secret.read_bytes() == b"secret"
    with pytest.raises(BadStoreUri, match=str(data)):
        driver.stat(driver.parse("file:///etc/passwd"), context=None)


def test_a_link_to_a_file_outside(driver, tmp_path: Path, data: Path) -> None:
    """A symbolic link at the end of the path is not followed, whatever it leads to."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (data / "inside").write_bytes(b"x")
    for name, target in (("out", secret), ("in", data / "inside"), ("none", "missing")):
        (data / name).symlink_to(target)
        everything_refuses(driver, f"file://{data}/{name}", Forbidden)
        assert (data / name).is_symlink()
    assert [entry.object_id for entry in driver.list(context=None)] == ["inside"]


def test_a_link_to_a_directory_outside(driver, tmp_path: Path, data: Path) -> None:
    """A symbolic link on the way is followed, and then the file is outside."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_bytes(b"secret")
    (data / "out").symlink_to(tmp_path / "other")
    everything_refuses(driver, f"file://{data}/out/secret", BadStoreUri)
    assert (tmp_path / "other" / "secret").exists()


def test_other_ways_to_a_file_inside(make, put, contents, tmp_path: Path) -> None:
    """A file in the directory is found by any path that leads there, linked directories too."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "alias").symlink_to("link")
    driver = make(filesystem_store_datadir=f"{tmp_path}/link/")
    assert put(driver, "a", b"x").uri == f"file://{tmp_path}/link/a"
    for way in (
        "link/a",
        "real/a",
        "alias/a",
        "link//a",
        "link/./a",
        "real/../alias/a",
        "link/s/../a",
    ):
        (tmp_path / "real" / "s").mkdir(exist_ok=True)
        location = driver.parse(f"file://{tmp_path}/{way}")
        assert driver.holds(location)
        assert contents(driver, location) == b"x"
        assert driver.stat(location, context=None).size == 1


def test_directories_in_the_directory(driver, contents, data: Path) -> None:
    """An older file in a directory below is readable; a directory itself is no object."""
    (data / "sub").mkdir()
    (data / "sub" / "old").write_bytes(b"old")
    assert contents(driver, driver.parse(f"file://{data}/sub/old")) == b"old"
    everything_refuses(driver, f"file://{data}/sub", NotFound)
    assert (data / "sub" / "old").exists()


@pytest.mark.parametrize("depth", [1, 3])
def test_a_directory_exchanged_meanwhile(
    driver, contents, tmp_path: Path, data: Path, monkeypatch, depth: int
) -> None:
    """A directory exchanged for a symbolic link, after a look where it leads, leads nowhere."""
    outside = tmp_path / "outside"
    for place in (outside, data / "sub"):
        deep = place.joinpath(*"xy"[: depth - 1])
        deep.mkdir(parents=True)
        (deep / "old").write_bytes(b"secret" if place is outside else b"old")
    uri = f"file://{data}/{'/'.join(['sub', *'xy'[: depth - 1]])}/old"
    assert contents(driver, driver.parse(uri)) == b"old"
    real = os.path.realpath

    def realpath(path: str) -> str:
        found = real(path)
        if (data / "sub").exists() and not (data / "sub").is_symlink():
            (data / "sub").rename(tmp_path / "away")
            (data / "sub").symlink_to(outside)
        return found

    location = driver.parse(uri)
    for call in (
        lambda: driver.read(location, 0, None, context=None),
        lambda: driver.stat(location, context=None),
        lambda: driver.delete(location, context=None),
        lambda: copy(driver, location, "copied"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os.path, "realpath", realpath)
            with pytest.raises(NotFound):
                call()
        (data / "sub").unlink()
        (tmp_path / "away").rename(data / "sub")
    assert (outside.joinpath(*"xy"[: depth - 1]) / "old").read_bytes() == b"secret"
    driver.delete(driver.parse(uri), context=None)
    assert not data.joinpath("sub", *"xy"[: depth - 1], "old").exists()


def test_a_path_that_changes_while_it_is_resolved(driver, data: Path, monkeypatch) -> None:
    """An error of resolving a path is a URI that is refused, never a raw error."""

    def realpath(path: str) -> str:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os.path, "realpath", realpath)
    everything_refuses(driver, f"file://{data}/sub/old", BadStoreUri)


def test_endless_paths(driver, data: Path, monkeypatch) -> None:
    """A path that the system would not open is refused before it is resolved."""
    monkeypatch.setattr(os.path, "realpath", None)
    everything_refuses(driver, f"file://{data}/{'a/' * 2500}x", BadStoreUri)


def test_things_that_are_no_files(driver, data: Path) -> None:
    """A pipe neither blocks nor is an object."""
    os.mkfifo(data / "pipe")
    everything_refuses(driver, f"file://{data}/pipe", NotFound)
    assert list(driver.list(context=None)) == []


def test_nothing_there(driver, data: Path) -> None:
    """What is not there is NotFound, whatever is missing of its path."""
    for path in ("none", "none/of/it", "x" * 300):
        everything_refuses(driver, f"file://{data}/{path}", NotFound)


def test_uploads_under_way_are_no_objects(driver, begin, data: Path) -> None:
    """A staged file cannot be read, told of, deleted or copied by its path."""
    writer = begin(driver, "a")
    writer.write_at(0, b"x")
    (name,) = os.listdir(data)
    everything_refuses(driver, f"file://{data}/{name}", BadStoreUri)
    assert not driver.holds(driver.parse(f"file://{data}/{name}"))
    assert list(driver.list(context=None)) == []
    writer.abort()


def test_an_id_taken_by_something_else(driver, begin, data: Path) -> None:
    """A directory or a dangling link with the id's name keeps it from being added."""
    (data / "dir").mkdir()
    (data / "link").symlink_to("nowhere")
    for object_id in ("dir", "link"):
        with pytest.raises(Duplicate):
            begin(driver, object_id)


def test_a_store_that_was_not_configured_holds_nothing(make) -> None:
    """A store whose directories are not known claims no URI."""
    driver = make(configure=False)
    assert not driver.holds(driver.parse("file:///a/b"))
    assert driver.url_prefix == "file://"
