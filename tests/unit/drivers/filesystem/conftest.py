"""What the filesystem driver's tests share: fresh drivers, and ways to fill and read them."""

import gc
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from store_lib.drivers.filesystem import FilesystemDriver
from store_lib.drivers.filesystem.location import FileLocation
from store_lib.drivers.filesystem.writer import FileWriter
from store_lib.options import StoreOptions

NOBODY = 65534

Make = Callable[..., FilesystemDriver]


class Begin(Protocol):
    """Begins an upload."""

    def __call__(
        self, driver: FilesystemDriver, object_id: str, size: int | None = None
    ) -> FileWriter: ...


class Put(Protocol):
    """Adds an object, whole."""

    def __call__(self, driver: FilesystemDriver, object_id: str, data: bytes) -> FileLocation: ...


def copy(driver: FilesystemDriver, location: FileLocation, object_id: str) -> FileLocation:
    """Copy an object as the engine does."""
    nonce = secrets.token_hex(16)
    with driver.create(object_id, None, nonce=nonce, context=None) as writer:
        return writer.copy_from(location)


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    """Hold every test to closing what it opened, and the driver with it."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    if not set(os.listdir("/proc/self/fd")) <= before:
        gc.collect()
        assert set(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that makes a configured driver; its directory is ``data`` by default."""

    def function(*, configure: bool = True, **options: Any) -> FilesystemDriver:
        if not any(name.startswith("filesystem_store_datadir") for name in options):
            options["filesystem_store_datadir"] = str(tmp_path / "data")
        options.setdefault("filesystem_store_durable", False)  # most tests would only be slower
        driver = FilesystemDriver("disk", StoreOptions.of(FilesystemDriver.options, **options))
        if configure:
            driver.configure()
        return driver

    return function


@pytest.fixture
def driver(make: Make) -> FilesystemDriver:
    """Return a driver with the default options."""
    return make()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the directory that drivers store in by default."""
    return tmp_path / "data"


@pytest.fixture
def begin() -> Begin:
    """Return a function that begins an upload."""

    def function(driver: FilesystemDriver, object_id: str, size: int | None = None) -> FileWriter:
        assert driver.id_problem(object_id) is None
        return driver.create(object_id, size, nonce=secrets.token_hex(16), context=None)

    return function


@pytest.fixture
def put(begin: Begin) -> Put:
    """Return a function that adds an object, whole."""

    def function(driver: FilesystemDriver, object_id: str, data: bytes) -> FileLocation:
        with begin(driver, object_id, len(data)) as writer:
            if data:
                writer.write_at(0, data)
            return writer.commit(len(data))

    return function


@pytest.fixture
def contents() -> Callable[[FilesystemDriver, FileLocation], bytes]:
    """Return a function that reads an object, whole."""

    def function(driver: FilesystemDriver, location: FileLocation) -> bytes:
        reader = driver.read(location, 0, None, context=None)
        try:
            return b"".join(reader.stream(0, None))
        finally:
            reader.close()

    return function


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Yield a directory that other users can reach, unlike ``tmp_path``."""
    path = tempfile.mkdtemp(prefix="store_lib-test-")
    os.chmod(path, 0o777)
    yield Path(path)
    for directory, _, _ in os.walk(path):
        os.chmod(directory, 0o700)
    shutil.rmtree(path)


@pytest.fixture
def unprivileged(open_directory: Path) -> Iterator[None]:
    """Run the rest of the test as a user for whom permissions mean something."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)
