"""The filesystem driver on a disk that is really full: a small tmpfs, mounted for the test."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib.drivers.filesystem import FilesystemDriver
from store_lib.drivers.filesystem.location import FileLocation
from store_lib.exceptions import BadStoreConfiguration, ErrorStatus, StorageFull, StorageWriteDenied
from store_lib.options import StoreOptions
from tests.servers.mounts import tmpfs

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0,
    reason="a full disk needs root, to mount a tmpfs of 4 MiB: run the tests as root",
)

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk of 4 MiB."""
    with tmpfs(tmp_path / "disk", "size=4m") as path:
        yield path


def driver_for(**options: Any) -> FilesystemDriver:
    driver = FilesystemDriver("disk", StoreOptions.of(FilesystemDriver.options, **options))
    driver.configure()
    return driver


def add(driver: FilesystemDriver, object_id: str, size: int | None, chunks: int) -> FileLocation:
    with driver.create(object_id, size, nonce=secrets.token_hex(16), context=None) as writer:
        for number in range(chunks):
            writer.write_at(number * MIB, b"x" * MIB)
        return writer.commit(chunks * MIB)


def free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("size", [6 * MIB, None])
@pytest.mark.parametrize("thin", [True, False])
def test_full(disk: Path, durable: bool, thin: bool, size: int | None) -> None:
    """An object that does not fit is StorageFull, leaves nothing and gives its space back."""
    driver = driver_for(
        filesystem_store_datadir=str(disk / "data"),
        filesystem_store_durable=durable,
        filesystem_thin_provisioning=thin,
    )
    kept = add(driver, "kept", MIB, 1)
    before = free(disk)
    with pytest.raises(StorageFull, match="add to another store") as caught:
        add(driver, "large", size, 6)
    assert caught.value.status is ErrorStatus.PERMANENT
    assert os.listdir(disk / "data") == ["kept"]
    assert free(disk) == before
    add(driver, "fits", 2 * MIB, 2)
    assert driver.stat(kept, context=None).size == MIB


def test_copy_to_a_full_disk(disk: Path) -> None:
    """A copy that does not fit is StorageFull and leaves nothing."""
    driver = driver_for(filesystem_store_datadir=str(disk / "data"))
    location = add(driver, "large", 3 * MIB, 3)
    with (
        pytest.raises(StorageFull),
        driver.create("copy", None, nonce="0" * 32, context=None) as writer,
    ):
        writer.copy_from(location)
    assert os.listdir(disk / "data") == ["large"]


def test_a_full_disk_is_passed_over(disk: Path, tmp_path: Path) -> None:
    """Of two data directories the full one is passed over, whatever its priority."""
    with tmpfs(tmp_path / "roomy", "size=64m") as roomy:
        driver = driver_for(filesystem_store_datadirs=[f"{disk}:9", str(roomy)])
        add(driver, "a", 3 * MIB, 3)
        add(driver, "b", 3 * MIB, 3)
        assert os.listdir(disk) == ["a"]
        assert os.listdir(roomy) == ["b"]
        space = driver.space(context=None)
        assert space.total == (4 + 64) * MIB
        assert space.free == free(disk) + free(roomy)


def test_no_room_for_another_file(tmp_path: Path) -> None:
    """A disk without inodes is StorageFull; a store that starts on it can delete."""
    with tmpfs(tmp_path / "disk", "size=4m", "nr_inodes=6") as disk:
        driver = driver_for(filesystem_store_datadir=str(disk / "data"))
        added = []

        def fill() -> None:
            for number in range(9):
                added.append(add(driver, f"{number}", 0, 0))

        with pytest.raises(StorageFull):
            fill()
        assert 1 < len(added) < 6
        restarted = driver_for(filesystem_store_datadir=str(disk / "data"))
        for location in added:
            restarted.delete(location, context=None)
        add(restarted, "more", 0, 0)
        assert os.listdir(disk / "data") == ["more"]


def test_a_disk_mounted_read_only(disk: Path) -> None:
    """A disk that became read-only denies writing; a store that starts on it can read."""
    driver = driver_for(filesystem_store_datadir=str(disk / "data"))
    location = add(driver, "a", MIB, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(StorageWriteDenied, match="read-only"):
        add(driver, "b", MIB, 1)
    restarted = FilesystemDriver("disk", driver.conf)
    with pytest.raises(BadStoreConfiguration, match="Read-only file system") as caught:
        restarted.configure()
    assert caught.value.readable
    reader = restarted.read(location, 0, 1, context=None)
    assert list(reader.stream(0, 1)) == [b"x"]
    reader.close()
