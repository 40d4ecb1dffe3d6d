"""An attached volume's bytes: never truncated, never short without a word."""

import os
import pathlib

import pytest

from store_lib.drivers.cinder import devices
from store_lib.drivers.cinder.devices import FileDevice, RbdDevice
from store_lib.exceptions import BackendException, StorageFull


def test_a_file_keeps_what_it_has(tmp_path: pathlib.Path) -> None:
    """Opening for writing truncates nothing, and bytes go where they are told to."""
    path = tmp_path / "volume"
    path.write_bytes(b"0123456789")
    device = FileDevice("it", str(path), writable=True)
    device.write_at(3, memoryview(b"abc"))
    device.write_at(10, b"more")
    device.flush()
    assert device.read_at(0, 14) == b"012abc6789more"
    device.check_size(1000)  # a file grows as it is written
    device.close()
    device.close()
    assert path.read_bytes() == b"012abc6789more"


def test_a_file_is_flushed_while_it_is_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that much has been written, whichever threads did."""
    flushed: list[int] = []
    monkeypatch.setattr(devices, "_FLUSH_INTERVAL", 4)
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    path = tmp_path / "volume"
    path.touch()
    device = FileDevice("it", str(path), writable=True)
    for offset, count in ((0, 0), (2, 1), (4, 1), (6, 2)):
        device.write_at(offset, b"ab")
        assert len(flushed) == count
    device.close()


def test_a_file_that_ends_early_is_an_error(tmp_path: pathlib.Path) -> None:
    """The message says where it ends."""
    path = tmp_path / "volume"
    path.write_bytes(b"0123456789")
    device = FileDevice("it", str(path), writable=False)
    with pytest.raises(BackendException, match="up to 11 of volume it, but its device ends at 10"):
        device.read_at(5, 6)
    with pytest.raises(BackendException, match="write to volume it"):
        device.write_at(0, b"a")
    device.close()
    with pytest.raises(BackendException, match="read volume it"):
        device.read_at(0, 1)


def test_a_full_file_system_is_no_room() -> None:
    """/dev/full says what a full share says."""
    device = FileDevice("it", "/dev/full", writable=True)
    with pytest.raises(StorageFull, match="volume it"):
        device.write_at(0, b"a")
    device.close()


class _Image:
    """As much of librbd's image as is used."""

    def __init__(self) -> None:
        self.bytes = bytearray(10)

    def size(self) -> int:
        return len(self.bytes)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.bytes[offset : offset + length])

    def write(self, data: bytes, offset: int) -> None:
        assert type(data) is bytes
        if offset > 10:
            raise RuntimeError("no such place")
        self.bytes[offset : offset + len(data)] = data

    def flush(self) -> None:
        raise RuntimeError("lost")


def test_an_image_is_read_and_written_through_librbd() -> None:
    """It takes bytes alone, and whatever it raises becomes ours."""

    class Handle:
        rbd_image = _Image()

    device = RbdDevice("it", Handle)
    device.write_at(2, memoryview(b"abc"))
    assert device.read_at(1, 5) == b"\0abc\0"
    with pytest.raises(BackendException, match="Expected 5 bytes at 8 of volume it, got 2"):
        device.read_at(8, 5)
    with pytest.raises(BackendException, match="no such place"):
        device.write_at(11, b"a")
    with pytest.raises(BackendException, match="lost"):
        device.flush()
    device.check_size(10)
    with pytest.raises(BackendException, match="Expected an image of 11 bytes"):
        device.check_size(11)
