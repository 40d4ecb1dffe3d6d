"""A driver that keeps objects in a dict, with hooks for faults: what the engine's tests run on."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from store_lib.driver import (
    Body,
    Chunk,
    CreateOnly,
    Driver,
    PartWriter,
    PositionWriter,
    Reader,
    Stat,
)
from store_lib.exceptions import BadStoreUri, InvalidRange, NotFound, duplicate
from store_lib.location import Location
from store_lib.options import StoreOptions
from store_lib.store import Runtime, Store
from store_lib.transfer.budget import PROCESS_BUDGET, Budget
from store_lib.transfer.retry import Retry

KIB = 1024
CHUNK = 64 * KIB


class MemoryLocation(Location):
    """``memory://store/id``."""

    schemes: ClassVar[tuple[str, ...]] = ("memory",)

    def __init__(self, store: str, name: str) -> None:
        self.store = store
        self.name = name

    @classmethod
    def parse(cls, uri: str) -> "MemoryLocation":
        store, slash, name = uri.removeprefix("memory://").partition("/")
        if not slash or not name:
            raise BadStoreUri(uri=uri)
        return cls(store, name)

    @property
    def uri(self) -> str:
        return f"memory://{self.store}/{self.name}"


class Faults:
    """Calls of the driver that a test makes fail: name -> what to call first, with its place."""

    def __init__(self) -> None:
        self.hooks: dict[str, Callable[..., Any]] = {}
        self.calls: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, name: str, *place: Any) -> None:
        with self.lock:
            self.calls.append(name)
        if name in self.hooks:
            self.hooks[name](*place)

    def times(self, name: str, count: int, error: Callable[[], BaseException]) -> None:
        """Make the first ``count`` calls of ``name`` raise what ``error`` makes."""
        left = [count]

        def hook(*_: Any) -> None:
            with self.lock:
                left[0] -= 1
                failing = left[0] >= 0
            if failing:
                raise error()

        self.hooks[name] = hook


class MemoryCopies:
    """A writer that copies within the dict, in four steps."""

    driver: "MemoryDriver"
    name: str
    nonce: str

    def copy_from(self, location: Location) -> Location:
        data = self.driver._find(location)
        for step in range(4):
            self.driver.faults("copy", step)
            self.driver.checkpoint()
        copied = self.driver.publish(self.name, data, self.nonce)
        self.driver.faults("copied")
        return copied


class MemoryPositions(MemoryCopies, PositionWriter):
    """Writes at positions of a bytearray."""

    def __init__(self, driver: "MemoryDriver", name: str, nonce: str) -> None:
        self.driver = driver
        self.name = name
        self.nonce = nonce
        self.data = bytearray()
        self.lock = threading.Lock()
        self.in_flight = 0
        self.most_in_flight = 0
        self.holes: list[tuple[int, int]] = []
        self.reserves: list[tuple[int, int]] = []
        for key, value in driver.writer_settings.items():
            setattr(self, key, value)

    def write_at(self, offset: int, data: Chunk) -> None:
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self.driver.faults("write_at", offset, data)
            with self.lock:
                end = offset + len(data)
                if len(self.data) < end:
                    self.data.extend(bytes(end - len(self.data)))
                self.data[offset:end] = data
        finally:
            with self.lock:
                self.in_flight -= 1

    def zero(self, offset: int, length: int) -> None:
        self.driver.faults("zero", offset, length)
        self.holes.append((offset, length))

    def reserve(self, end: int) -> int:
        self.driver.faults("reserve", end)
        self.reserves.append((end, self.in_flight))
        return end + self.driver.reserve_step

    def commit(self, size: int) -> Location:
        self.driver.faults("commit", size)
        with self.lock:
            self.data.extend(bytes(max(0, size - len(self.data))))
        location = self.driver.publish(self.name, bytes(self.data[:size]), self.nonce)
        self.driver.faults("committed", size)
        return location

    def abort(self) -> None:
        self.driver.aborted.append(self.name)
        self.driver.faults("abort")
        self.driver.take_back(self.name, self.nonce)

    def resolve(self) -> Location | None:
        return self.driver.resolve(self.name, self.nonce)


class MemoryParts(MemoryCopies, PartWriter):
    """Parts, or one request."""

    def __init__(self, driver: "MemoryDriver", name: str, nonce: str) -> None:
        self.driver = driver
        self.name = name
        self.nonce = nonce
        self.sizes: list[int] = []
        self.bodies: list[Body] = []
        for key, value in driver.writer_settings.items():
            setattr(self, key, value)

    def write_once(self, body: Body) -> Location:
        self.driver.faults("write_once", body)
        self.bodies.append(body)
        data = b"".join(iter(lambda: body.read(10_000), b""))
        if body.size is not None:
            assert len(data) == body.size
        location = self.driver.publish(self.name, data, self.nonce)
        self.driver.faults("committed", len(data))
        return location

    def part_size(self, number: int) -> int:
        self.sizes.append(number)
        return self.driver.part_sizes(number)

    def put_part(self, number: int, body: Body) -> bytes:
        self.driver.faults("put_part", number, body)
        self.bodies.append(body)
        data = b"".join(body)
        if body.size is not None:
            assert len(data) == body.size
        return data

    def commit(self, tokens: Sequence[bytes]) -> Location:
        self.driver.faults("commit", tokens)
        location = self.driver.publish(self.name, b"".join(tokens), self.nonce)
        self.driver.faults("committed", tokens)
        return location

    def abort(self) -> None:
        self.driver.aborted.append(self.name)
        self.driver.faults("abort")
        self.driver.take_back(self.name, self.nonce)

    def resolve(self) -> Location | None:
        return self.driver.resolve(self.name, self.nonce)


class MemoryReader(Reader):
    """Reads from the dict."""

    def __init__(self, driver: "MemoryDriver", data: bytes) -> None:
        self.driver = driver
        self.data = data
        self.size = len(data) if driver.tells_size else None
        self.validator = driver.validator
        self.parallel = driver.parallel
        self.closed = 0
        driver.readers.append(self)

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        self.driver.streams.append((offset, length))
        end = len(self.data) if length is None else min(len(self.data), offset + length)
        while offset < end:
            self.driver.faults("piece", offset)
            start, offset = offset, min(end, offset + min(self.driver.piece_size, self.piece_size))
            yield self.data[start:offset]

    def close(self) -> None:
        self.closed += 1


class MemoryDriver(Driver[Any]):
    """Objects in a dict."""

    schemes = ("memory",)
    location_class = MemoryLocation
    create_only = CreateOnly.ATOMIC
    ranges = True

    def __init__(self, store_id: str, options: StoreOptions) -> None:
        super().__init__(store_id, options)
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.faults = Faults()
        self.aborted: list[str] = []
        self.readers: list[MemoryReader] = []
        self.writers: list[Any] = []
        self.streams: list[tuple[int, int | None]] = []
        self.writer_class: type[MemoryPositions] | type[MemoryParts] = MemoryPositions
        self.writer_settings: dict[str, Any] = {"chunk_size": CHUNK, "reserved": 1 << 60}
        self.reserve_step = 0
        self.part_sizes: Callable[[int], int] = lambda number: 4 * CHUNK
        self.piece_size = CHUNK
        self.validator: str | None = "v1"
        self.tells_size = True
        #: Whether a reader begins the range that it was opened for.
        self.begins = False
        self.parallel = True
        self.closed = 0
        self.lock = threading.Lock()

    def configure(self) -> None:
        """Nothing to check."""

    def create(self, object_id: str, size: int | None, *, nonce: str, context: Any) -> Any:
        self.faults("create", object_id, size)
        if object_id in self.objects:
            raise duplicate(object_id)
        writer = self.writer_class(self, object_id, nonce)
        self.writers.append(writer)
        return writer

    def publish(self, name: str, data: bytes, nonce: str) -> MemoryLocation:
        with self.lock:
            if name in self.objects:
                raise duplicate(name)
            self.objects[name] = (data, nonce)
        return MemoryLocation(self.store_id, name)

    def take_back(self, name: str, nonce: str) -> None:
        """Remove what a writer of this nonce has published, though it was given up."""
        with self.lock:
            if self.objects.get(name, ("", ""))[1] == nonce:
                del self.objects[name]

    def resolve(self, name: str, nonce: str) -> Location | None:
        self.faults("resolve")
        found = self.objects.get(name)
        if found is not None and found[1] == nonce:
            return MemoryLocation(self.store_id, name)
        return None

    def _find(self, location: Location) -> bytes:
        assert isinstance(location, MemoryLocation)
        if location.name not in self.objects:
            raise NotFound(image=location.name)
        return self.objects[location.name][0]

    def read(
        self, location: Location, offset: int, length: int | None, *, context: Any
    ) -> MemoryReader:
        self.faults("read", offset, length)
        data = self._find(location)
        if offset > len(data):
            raise InvalidRange(size=len(data), offset=offset, length=length)
        reader = MemoryReader(self, data)
        if self.begins:
            reader.first = reader.stream(offset, length)
        return reader

    def stat(self, location: Location, *, context: Any) -> Stat:
        self.faults("stat")
        return Stat(len(self._find(location)))

    def delete(self, location: Location, *, context: Any) -> None:
        self.faults("delete")
        self._find(location)
        assert isinstance(location, MemoryLocation)
        del self.objects[location.name]
        self.faults("deleted")

    def close(self) -> None:
        self.closed += 1


def memory_store(
    store_id: str = "mem", *, budget: Budget = PROCESS_BUDGET, **options: Any
) -> tuple[Store, MemoryDriver]:
    """Return a store on a new memory driver, and the driver."""
    options.setdefault("transfer_attempts", 3)
    resolved = StoreOptions.of(MemoryDriver.options, **options)
    driver = MemoryDriver(store_id, resolved)
    driver.retry = Retry.of(store_id, resolved).call
    return Store(store_id, "memory", driver, resolved, runtime=Runtime(budget)), driver
