"""The output file of get is complete or absent."""

import os
import stat

import pytest

from store_lib.cli.local_file import LocalFile


def write(path, data=b"data", **options):
    """Write a file as get does."""
    with LocalFile(str(path), **options) as stream:
        stream.write(data)


def test_it_appears_when_it_is_whole(tmp_path):
    """Until the block ends, there is only a hidden file."""
    target = tmp_path / "target"
    with LocalFile(str(target)) as stream:
        stream.write(b"data")
        assert not target.exists()
        (hidden,) = tmp_path.iterdir()
        assert hidden.name.startswith(".")
    assert target.read_bytes() == b"data"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_error(tmp_path, error):
    """If the block raises, nothing is left."""

    def fail(stream):
        stream.write(b"data")
        raise error

    with pytest.raises(error), LocalFile(str(tmp_path / "target")) as stream:
        fail(stream)
    assert list(tmp_path.iterdir()) == []


def test_permissions_are_those_of_a_new_file(tmp_path):
    """The permissions of the file follow the user's umask."""
    before = os.umask(0o027)
    try:
        write(tmp_path / "target")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o640


def test_one_that_appears_meanwhile_is_kept(tmp_path):
    """A file that appears meanwhile is not overwritten."""
    target = tmp_path / "target"
    with pytest.raises(FileExistsError, match="--force"), LocalFile(str(target)):
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_without_hard_links(tmp_path, monkeypatch):
    """A file system without hard links works too, and nothing is overwritten."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"data"
    with pytest.raises(FileExistsError):
        write(tmp_path / "target")


def test_a_symbolic_link_is_followed(tmp_path):
    """With --force the file that a link points to is replaced, not the link."""
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"data"


def test_only_regular_files_are_replaced(tmp_path):
    """A device, pipe or directory is never replaced, even with --force."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/null"):
        with pytest.raises(OSError, match="regular file"):
            write(path, force=True)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_long_name(tmp_path):
    """A name of the maximum length works: the hidden name is shorter."""
    write(tmp_path / ("n" * 255))
    assert (tmp_path / ("n" * 255)).exists()


def test_a_missing_directory(tmp_path):
    """A missing directory raises the usual error."""
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "absent" / "target")
