"""Tests of what a service hands to its stores: memory, request contexts, and read layers."""

import dataclasses
import gc
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.driver import Entry, HangPolicy, Incomplete, Reader, Space
from store_lib.exceptions import NotFound, RemoteServiceUnavailable, UnknownStore
from store_lib.location import Location
from store_lib.store import Runtime
from store_lib.transfer.budget import MIB, PROCESS_BUDGET, Budget
from store_lib.transfer.reader import OpenReader
from tests.unit.memory_driver import CHUNK, MemoryDriver, MemoryLocation, memory_store

DATA = random.Random(7).randbytes(10 * CHUNK + 17)
URI = "memory://mem/it"


def on(path: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """Return the configuration of one filesystem store."""
    return {
        "DEFAULT": {"enabled_backends": "disk:file"},
        "glance_store": options,
        "disk": {"filesystem_store_datadir": str(path), "filesystem_store_durable": False},
    }


# Memory


def test_the_configured_limit_goes_to_the_budget_of_the_set(tmp_path: Path) -> None:
    """A set with a budget of its own leaves the process's one alone, and uses its own."""
    before = PROCESS_BUDGET.limit
    budget = Budget(5 * CHUNK)
    with Stores.from_mapping(on(tmp_path), budget=budget):
        assert budget.limit == 5 * CHUNK
    with Stores.from_mapping(on(tmp_path, transfer_memory_limit=3), budget=budget) as stores:
        assert budget.limit == 3 * MIB
        assert before == PROCESS_BUDGET.limit
        used: list[int] = []

        def source() -> Iterator[bytes]:
            used.append(budget.used)
            yield DATA
            used.append(budget.used)

        stores.add("it", source())
        assert max(used) > 0
        assert PROCESS_BUDGET.used == 0
    assert budget.used == 0


# Contexts


@dataclasses.dataclass(frozen=True)
class Context:
    """A request context."""

    auth_token: str
    project_id: str | None = None


class Told(MemoryDriver):
    """Keeps the contexts that it gets."""

    copies = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.contexts: list[tuple[str, Any]] = []

    def create(self, *arguments: Any, context: Any, **more: Any) -> Any:
        self.contexts.append(("create", context))
        return super().create(*arguments, context=context, **more)

    def read(self, *arguments: Any, context: Any) -> Any:
        self.contexts.append(("read", context))
        return super().read(*arguments, context=context)

    def stat(self, location: Location, *, context: Any) -> Any:
        self.contexts.append(("stat", context))
        return super().stat(location, context=context)

    def delete(self, location: Location, *, context: Any) -> None:
        self.contexts.append(("delete", context))
        super().delete(location, context=context)

    def list(self, *, context: Any) -> Iterator[Entry]:
        self.contexts.append(("list", context))
        return iter(())

    def list_incomplete(self, *, context: Any) -> Iterator[Incomplete]:
        self.contexts.append(("list_incomplete", context))
        return iter([Incomplete("key", None, None, 0)])

    def discard(self, incomplete: Incomplete, *, context: Any) -> bool:
        self.contexts.append(("discard", context))
        return True

    def space(self, *, context: Any) -> Space:
        self.contexts.append(("space", context))
        return Space(None, None)

    def set_acls(self, location: Location, *, context: Any, **_: Any) -> None:
        self.contexts.append(("set_acls", context))

    def url(self, location: Location, *, expires: int, context: Any) -> str:
        self.contexts.append(("url", context))
        return "https://example.org/"


def every_call(store: Any, **context: Any) -> None:
    """Make each call that takes a context."""
    uri = store.add("it", DATA, **context).uri
    with store.get(uri, **context) as reader:
        store.add_copy(reader, "copy", **context)
    store.stat(uri, **context)
    store.copy(uri, "another", **context)
    list(store.list(**context))
    list(store.list_incomplete(**context))
    store.sweep(0, **context)
    store.space(**context)
    store.set_acls(uri, **context)
    store.url(uri, **context)
    store.delete(uri, **context)


METHODS = {
    *("create", "read", "stat", "delete", "list", "list_incomplete", "discard"),
    *("space", "set_acls", "url"),
}


def test_a_factory_makes_the_contexts_that_calls_do_not_name() -> None:
    """A call that names none gets a new one; one that does is passed on as it is."""
    _, plain = memory_store()
    driver = Told("mem", plain.conf)
    made: list[Context] = []

    def make() -> Context:
        made.append(Context(f"token {len(made)}"))
        return made[-1]

    store = Store("mem", "memory", driver, plain.conf, runtime=Runtime(context=make))
    every_call(store)
    assert {name for name, _ in driver.contexts} == METHODS
    assert all(context in made for _, context in driver.contexts)
    by_call = [context for name, context in driver.contexts if name in ("create", "delete")]
    assert len(set(by_call)) == len(by_call)
    driver.contexts.clear()
    made.clear()
    driver.objects.clear()
    mine = Context("mine")
    every_call(store, context=mine)
    assert {context for _, context in driver.contexts} == {mine}
    assert made == []


def test_without_a_factory_there_is_no_context() -> None:
    """Then a call that names none has none."""
    _, plain = memory_store()
    driver = Told("mem", plain.conf)
    every_call(Store("mem", "memory", driver, plain.conf))
    assert {context for _, context in driver.contexts} == {None}


def test_a_set_hands_its_factory_to_its_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each of the calls of a set asks of a driver has a context."""
    monkeypatch.setattr("store_lib.stores._load", lambda section: Told)
    with Stores.from_mapping(on(tmp_path), context=lambda: Context("made")) as stores:
        driver: Any = stores["disk"].driver
        driver.store_id = "mem"
        uri = stores.add("it", DATA).uri
        with stores.get(uri):
            pass
        stores.stat(uri)
        stores.copy(uri, "copy")
        stores.copy(uri, "another", digests=("md5",))
        stores.delete(uri)
        assert {context for _, context in driver.contexts} == {Context("made")}


# Layers to read through


class Kept(Reader):
    """Reads what a layer has kept, or what a driver's reader gives."""

    parallel = True

    def __init__(self, layer: "Keeper", uri: str, below: Reader | None) -> None:
        self.layer = layer
        self.uri = uri
        self.below = below
        self.size = len(layer.kept[uri]) if below is None else below.size
        self.validator = "v1"
        self.closed = 0
        layer.readers.append(self)

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        self.layer.failing("stream")
        if self.below is None:
            data = self.layer.kept[self.uri]
            yield data[offset : len(data) if length is None else offset + length]
            return
        got = bytearray()
        for piece in self.below.stream(offset, length):
            got += piece
            yield piece
        if not offset and len(got) == self.size:
            self.layer.kept[self.uri] = bytes(got)

    def close(self) -> None:
        self.closed += 1
        if self.below is not None:
            self.below.close()


class Keeper:
    """A layer that keeps what was read whole, and reads it from there."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.readers: list[Kept] = []
        self.errors: dict[str, list[Exception]] = {}
        self.contexts: list[Any] = []

    def failing(self, name: str) -> None:
        """Raise the next error for a call."""
        if self.errors.get(name):
            raise self.errors[name].pop()

    def read(
        self, open: OpenReader, location: Location, offset: int, length: int | None, *, context: Any
    ) -> Reader:
        self.contexts.append(context)
        self.failing("read")
        if location.uri in self.kept:
            return Kept(self, location.uri, None)
        return Kept(self, location.uri, open(location, offset, length, context=context))


WAYS: dict[str, dict[str, Any]] = {
    "one stream": {},
    "ranges": {"read_concurrency": 3, "read_size": 2 * CHUNK + 5},
    "guarded": {"hang_policy": HangPolicy(30)},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How the driver is read."""
    return WAYS[request.param]


def layered(settings: dict[str, Any]) -> tuple[Store, MemoryDriver, Keeper]:
    """Return a store that is read through a layer."""
    plain, driver = memory_store()
    driver.objects["it"] = (DATA, "nonce")
    for name, value in settings.items():
        setattr(driver, name, value)
    layer = Keeper()
    runtime = Runtime(read_layer=layer)
    return Store("mem", "memory", driver, plain.options, runtime=runtime), driver, layer


def test_a_layer_gives_what_it_has(way: dict[str, Any]) -> None:
    """What it has not is read through it, and what it has without the driver."""
    store, driver, layer = layered(way)
    with store.get(URI, context="mine") as reader:  # type: ignore[arg-type]
        assert (reader.size, reader.read()) == (len(DATA), DATA)
    assert layer.contexts == ["mine"]
    assert driver.faults.calls.count("read") == 1
    layer.kept[URI] = DATA
    for offset, length in ((0, None), (0, 100), (CHUNK, 4 * CHUNK), (len(DATA), None)):
        with store.get(URI, offset, length) as reader:
            end = len(DATA) if length is None else offset + length
            assert reader.read() == DATA[offset:end]
    assert driver.faults.calls.count("read") == 1


def test_a_layer_keeps_what_streams_through_it() -> None:
    """The whole object passes through its own reader."""
    store, driver, layer = layered({})
    with store.get(URI) as reader:
        assert reader.read() == DATA
    assert layer.kept == {URI: DATA}
    driver.objects.clear()
    with store.get(URI) as reader:
        assert reader.read() == DATA


def test_a_layers_readers_are_closed(way: dict[str, Any]) -> None:
    """At the end, by close, by an error of the caller, and when the reader is dropped."""
    store, driver, layer = layered(way)
    with store.get(URI) as reader:
        reader.read()
    store.get(URI).close()
    with pytest.raises(KeyError), store.get(URI):
        raise KeyError
    reader = store.get(URI)
    reader.read(10)
    del reader
    gc.collect()
    store.close()
    for _ in range(500):
        if all(kept.closed for kept in layer.readers) and driver.closed:
            break
        gc.collect()
    assert [kept.closed for kept in layer.readers] == [1] * 4
    assert all(reader.closed == 1 for reader in driver.readers)
    assert driver.closed == 1


def test_errors_of_a_layer_are_those_of_a_driver(way: dict[str, Any]) -> None:
    """Temporary ones are retried and resumed; the others come out with store and operation."""
    store, driver, layer = layered(way)
    layer.errors["read"] = [RemoteServiceUnavailable()]
    layer.errors["stream"] = [RemoteServiceUnavailable()]
    with store.get(URI) as reader:
        assert reader.read() == DATA
        assert reader.report.retries == 1
    layer.errors["read"] = [NotFound(image="it")]
    with pytest.raises(NotFound) as caught:
        store.get(URI)
    assert (caught.value.store, caught.value.operation) == ("mem", "get")
    del driver.objects["it"]
    layer.kept.clear()
    with pytest.raises(NotFound):
        store.get(URI)
    layer.errors["stream"] = [ValueError("a bug")]
    driver.objects["it"] = (DATA, "nonce")
    with pytest.raises(ValueError, match="a bug"), store.get(URI) as reader:
        reader.read()
    assert all(kept.closed for kept in layer.readers)


def test_layers_are_named_by_store(tmp_path: Path) -> None:
    """A store without one reads as ever; a layer for a store that is not there is an error."""
    layer = Keeper()
    with Stores.from_mapping(on(tmp_path), read_layers={"disk": layer}) as stores:
        uri = stores.add("it", DATA).uri
        with stores.get(uri) as reader:
            assert reader.read() == DATA
        assert list(layer.kept) == [uri]
    with pytest.raises(UnknownStore, match="tape"):
        Stores.from_mapping(on(tmp_path), read_layers={"tape": layer})


def test_location_is_what_the_driver_parses() -> None:
    """A layer is asked with the driver's own location, and the range that the engine wants."""
    store, _, layer = layered({"read_concurrency": 2, "read_size": CHUNK})
    asked: list[Any] = []
    read = layer.read

    def remember(open: OpenReader, *arguments: Any, context: Any) -> Reader:
        asked.append(arguments)
        return read(open, *arguments, context=context)

    layer.read = remember  # type: ignore[method-assign]
    with store.get(URI, 5) as reader:
        assert reader.read() == DATA[5:]
    assert asked == [(MemoryLocation("mem", "it"), 5, CHUNK)]
