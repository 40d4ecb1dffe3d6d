"""A store on an S3 server in memory."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.drivers.s3 import S3Driver
from store_lib.drivers.s3.writer import S3Writer
from store_lib.transfer.budget import PROCESS_BUDGET, Budget
from tests.scripted_server import ScriptedServer
from tests.unit.drivers.s3.server import S3Server

#: Bytes of a chunk in these tests, in place of a MiB: they are about requests, not about bytes.
CHUNK = 16 * 1024

#: Makes a store with the options that a test adds.
MakeStore = Callable[..., Store]


class _Stores:
    """The stores of the test session by their options: making a client takes long."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: dict[str, Stores] = {}

    def get(self, memory: int | None = None, **options: Any) -> Store:
        """Return a store with these options, and so many bytes of memory of its own."""
        if (name := repr((memory, sorted(options.items())))) not in self._made:
            self._made[name] = self._make(options, memory)
        return self._made[name]["it"]

    def _make(self, options: dict[str, Any], memory: int | None) -> Stores:
        values = {
            "s3_store_host": self._url,
            "s3_store_access_key": "access-key-of-tests",
            "s3_store_secret_key": "secret-key-of-tests",
            "s3_store_bucket": "box",
            "s3_store_thread_pools": 3,
            **options,
        }
        values = {name: value for name, value in values.items() if value is not None}
        stores = Stores.from_mapping(
            {"DEFAULT": {"enabled_backends": "it:s3"}, "it": values},
            budget=PROCESS_BUDGET if memory is None else Budget(memory),
        )
        driver = stores["it"].driver
        assert isinstance(driver, S3Driver), stores["it"].error
        driver._settings = dataclasses.replace(driver._settings, large=6 * CHUNK, part=5 * CHUNK)
        return stores

    def close(self) -> None:
        for stores in self._made.values():
            stores.close()


@pytest.fixture(scope="session")
def shared() -> Iterator[tuple[S3Server, _Stores]]:
    """The server of all these tests, and their stores on it."""
    with ScriptedServer() as server:
        stores = _Stores(server.url)
        yield S3Server(server), stores
        stores.close()


@pytest.fixture
def s3(shared: tuple[S3Server, _Stores]) -> S3Server:
    """The server, with one bucket that is called box and is empty."""
    shared[0].reset()
    return shared[0]


@pytest.fixture
def make_store(
    shared: tuple[S3Server, _Stores], s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> MakeStore:
    """Gives stores on the server with three parts at once, of 5 chunks, from 6 chunks on."""
    monkeypatch.setattr(S3Writer, "chunk_size", CHUNK)
    monkeypatch.setattr("store_lib.drivers.s3.multipart.MIB", CHUNK)
    return shared[1].get


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """A store with the options as they are by default, but for the sizes."""
    return make_store()
