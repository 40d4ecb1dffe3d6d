"""Tests of the choice between positions, parts and one stream, and of the buffers it takes."""

from types import SimpleNamespace
from typing import Any

import pytest

from store_lib.transfer.report import Meter
from store_lib.transfer.requests import Requests
from store_lib.transfer.retry import Retry
from store_lib.transfer.sinks import (
    PartSink,
    PositionSink,
    Sink,
    StreamSink,
    first_part_of,
    max_buffers,
    min_buffers,
    open_sink,
)
from store_lib.transfer.timeouts import HangGuard, Limits, TransferClock
from tests.unit.memory_driver import CHUNK, MemoryParts, MemoryPositions, memory_store


def writer_of(kind: type[Any], **settings: Any) -> Any:
    """Return a writer that has parts of four chunks."""
    driver = memory_store()[1]
    driver.writer_settings = {"chunk_size": CHUNK, "reserved": 0, "concurrency": 3, **settings}
    return kind(driver, "it", "nonce")


def requests_of(stall: float = 0) -> Requests:
    clock = TransferClock(Limits(stall=stall))
    guard = HangGuard(memory_store()[1].hang_policy)
    return Requests(Retry(), guard, clock, Meter())


@pytest.mark.parametrize(
    ("kind", "once_limit", "size", "memory", "expected"),
    [
        (MemoryPositions, None, None, True, PositionSink),
        (MemoryPositions, None, 9 * CHUNK, False, PositionSink),
        (MemoryParts, None, None, True, StreamSink),
        (MemoryParts, None, 9 * CHUNK, True, StreamSink),
        (MemoryParts, 2 * CHUNK, 2 * CHUNK, True, PartSink),
        (MemoryParts, 2 * CHUNK, 2 * CHUNK, False, StreamSink),
        (MemoryParts, 2 * CHUNK, 2 * CHUNK + 1, False, PartSink),
        (MemoryParts, 2 * CHUNK, None, False, PartSink),
        (MemoryParts, 0, None, True, PartSink),
    ],
)
def test_the_sink_follows_from_writer_size_and_memory(
    kind: type[Any], once_limit: int | None, size: int | None, memory: bool, expected: type[Sink]
) -> None:
    """An object that goes in one request streams only if there is no memory to hold it."""
    writer = writer_of(kind, once_limit=once_limit)
    pool: Any = SimpleNamespace(ensure=lambda *_: memory)
    workers: Any = None
    sink = open_sink(writer, requests_of(), size, first_part_of(writer, size), pool, workers)
    assert type(sink) is expected


@pytest.mark.parametrize(
    ("kind", "once_limit", "size", "limit", "fewest", "most"),
    [
        (MemoryPositions, None, None, 0, 2, 11),
        (MemoryParts, None, None, 0, 2, 11),
        (MemoryParts, 2 * CHUNK, 2 * CHUNK, 9 * CHUNK, 2, 11),
        (MemoryParts, 0, None, 4 * CHUNK, 4, 16),
        (MemoryParts, 0, None, 4 * CHUNK - 1, 2, 16),
        (MemoryParts, 0, 3 * CHUNK, 4 * CHUNK - 1, 3, 16),
        (MemoryParts, 0, CHUNK + 1, 9 * CHUNK, 2, 16),
    ],
)
def test_a_part_is_held_in_memory_if_it_fits(
    kind: type[Any], once_limit: int | None, size: int | None, limit: int, fewest: int, most: int
) -> None:
    """A transfer begins with the buffers of a part, and may have those of all in flight."""
    writer = writer_of(kind, once_limit=once_limit)
    first_part = first_part_of(writer, size)
    assert min_buffers(writer, size, first_part, limit) == fewest
    assert max_buffers(writer, first_part) == most


@pytest.mark.parametrize(("size", "asked"), [(8 * CHUNK, [1, 2]), (None, [1, 2, 3])])
def test_no_part_is_asked_for_beyond_a_known_size(size: int | None, asked: list[int]) -> None:
    """The size of a part is asked for with its first byte; where none is to come, not at all."""
    store, driver = memory_store()
    driver.writer_class = MemoryParts
    driver.writer_settings = {"chunk_size": CHUNK, "once_limit": 0}
    store.add("it", iter([bytes(CHUNK)] * 8), size)
    assert driver.writers[0].sizes == asked


def test_making_room_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that takes longer to make room than the stall limit does not end the upload."""
    seconds = [0.0]
    monkeypatch.setattr("store_lib.transfer.timeouts.CLOCK.now", lambda: seconds[0])
    writer = writer_of(MemoryPositions)
    requests = requests_of(stall=10)

    def fault(*_: object) -> None:
        seconds[0] += 60

    writer.driver.faults = fault
    workers: Any = SimpleNamespace(put=lambda *_: None)
    buffer: Any = SimpleNamespace(data=b"x", release=None)
    PositionSink(writer, requests, workers).put(buffer)
    assert seconds == [60]
    assert requests.clock.remaining() == 10
