"""Tests of the way out: ranges, resume, reading ahead, verification and release."""

import csv
import gc
import hashlib
import io
import os
import random
import sys
import threading
import time
from typing import Any

import pytest

from store_lib.driver import HangPolicy
from store_lib.exceptions import (
    BackendException,
    DeadlineExceeded,
    DigestMismatch,
    ErrorStatus,
    Invalid,
    InvalidRange,
    NotFound,
    ObjectChanged,
    RemoteServiceUnavailable,
    StoreClosed,
    StoreRandomGetNotSupported,
    TransferStalled,
)
from store_lib.store import Runtime, Store
from store_lib.transfer import reader as reader_module
from store_lib.transfer.budget import PROCESS_BUDGET, Budget
from store_lib.transfer.reader import LocalFileReader
from tests.unit.memory_driver import CHUNK, MemoryReader, memory_store

DATA = random.Random(3).randbytes(10 * CHUNK + 17)
URI = "memory://mem/it"


def make(**settings: Any) -> Any:
    """Return a store that holds DATA, and its driver with some attributes set."""
    options = {name: settings.pop(name) for name in list(settings) if name.startswith("transfer_")}
    store, driver = memory_store(**options)
    driver.objects["it"] = (DATA, "nonce")
    for name, value in settings.items():
        setattr(driver, name, value)
    return store, driver


WAYS: dict[str, dict[str, Any]] = {
    "direct": {},
    "ahead": {"read_concurrency": 3, "read_size": 2 * CHUNK + 5},
    "far ahead": {"read_concurrency": 8, "read_size": CHUNK},
    "in sequence": {"read_concurrency": 3, "read_size": CHUNK, "single_stream_rate": 1},
    "ahead, as it is slow": {"read_concurrency": 3, "read_size": CHUNK, "single_stream_rate": 1e15},
    "bounded": {"hang_policy": HangPolicy(30)},
    "begun": {"begins": True},
    "begun, ahead": {"begins": True, "read_concurrency": 3, "read_size": 2 * CHUNK + 5},
    "begun, not parallel": {
        "begins": True,
        "parallel": False,
        "read_concurrency": 3,
        "read_size": 2 * CHUNK + 5,
    },
    "begun, bounded": {"begins": True, "hang_policy": HangPolicy(30)},
    "begun, bounded, ahead": {
        "begins": True,
        "hang_policy": HangPolicy(30),
        "read_concurrency": 3,
        "read_size": CHUNK,
        "single_stream_rate": 1,
    },
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each way of reading."""
    return dict(WAYS[request.param])


def rebuilt(way: dict[str, Any], budget: Budget = PROCESS_BUDGET) -> Any:
    """As :func:`make`, with the store made after the driver was set up."""
    store, driver = make(**way)
    return Store("mem", "memory", driver, store.options, runtime=Runtime(budget)), driver


@pytest.mark.parametrize("length", [None, 0, 1, CHUNK, 3 * CHUNK + 1, 99 * CHUNK])
@pytest.mark.parametrize("offset", [0, 1, CHUNK, 2 * CHUNK + 5, len(DATA) - 1, len(DATA)])
def test_ranges(way: dict[str, Any], offset: int, length: int | None) -> None:
    """Every range gives the bytes a slice would, and says how many beforehand."""
    store, driver = rebuilt(way)
    expected = DATA[offset:] if length is None else DATA[offset : offset + length]
    with store.get(URI, offset, length) as reader:
        assert reader.size == len(DATA)
        assert reader.length == len(expected)
        assert b"".join(reader) == expected
    wait_closed(driver)


def wait_closed(driver: Any) -> None:
    """Wait until the last reading thread has closed the driver's readers."""
    deadline = threading.Event()
    for _ in range(500):
        if all(reader.closed for reader in driver.readers):
            break
        deadline.wait(0.01)
    assert [reader.closed for reader in driver.readers] == [1] * len(driver.readers)


def test_first_request_is_what_was_opened() -> None:
    """The first stream of a reader asks for exactly what the driver's read was asked for."""
    store, driver = rebuilt(WAYS["ahead"])
    asked: list[Any] = []
    driver.faults.hooks["read"] = lambda *place: asked.append(place)
    store.get(URI, 5).read()
    assert asked == [(5, 2 * CHUNK + 5)]
    assert driver.streams[0] == (5, 2 * CHUNK + 5)
    assert len(driver.streams) == 5


def test_read_and_readinto(way: dict[str, Any]) -> None:
    """Reads of any size and readinto give the bytes in order, and nothing after the end."""
    store, _ = rebuilt(way)
    chance = random.Random(5)
    with store.get(URI) as reader:
        found = bytearray()
        while len(found) < len(DATA):
            step = chance.choice([1, 10, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
            if chance.random() < 0.5:
                piece = reader.read(step)
            else:
                buffer = bytearray(step)
                piece = bytes(buffer[: reader.readinto(buffer)])
            assert len(piece) == min(step, len(DATA) - len(found))
            found += piece
        assert found == DATA
        assert reader.read(5) == b"" == reader.read()
        assert reader.readinto(bytearray(3)) == 0
        assert list(reader) == []
    with store.get(URI) as reader:
        assert reader.read(3) == DATA[:3]
        assert next(reader) == DATA[3:CHUNK]
        assert reader.read(0) == b""
        assert reader.read(None) == DATA[CHUNK:]


def test_errors_come_from_get() -> None:
    """A missing object, an impossible range and a bad number are raised by get itself."""
    store, driver = make()
    with pytest.raises(NotFound) as caught:
        store.get("memory://mem/other")
    assert (caught.value.store, caught.value.operation) == ("mem", "get")
    with pytest.raises(InvalidRange):
        store.get(URI, len(DATA) + 1)
    for bad in (-1, 1.5, "1", True):
        with pytest.raises(InvalidRange, match="int of 0 or more"):
            store.get(URI, bad)
        with pytest.raises(InvalidRange, match="int of 0 or more"):
            store.get(URI, 0, bad)
    assert driver.readers == []
    driver.ranges = False
    with pytest.raises(StoreRandomGetNotSupported):
        store.get(URI, 1)
    assert store.get(URI).read() == DATA


def test_temporary_error_at_the_start_is_repeated() -> None:
    """Opening is tried again when it fails for now."""
    store, driver = make()
    driver.faults.times("read", 2, RemoteServiceUnavailable)
    assert store.get(URI).read() == DATA


def test_cut_connection_is_resumed(way: dict[str, Any]) -> None:
    """A stream that is cut goes on where it was, as long as it is the same object."""
    store, driver = rebuilt(way)
    failed: set[int] = set()

    def cut(offset: int) -> None:
        if offset > 0 and offset not in failed and offset % 3 == 0:
            failed.add(offset)
            raise RemoteServiceUnavailable

    driver.faults.hooks["piece"] = cut
    with store.get(URI) as reader:
        assert reader.read() == DATA
        assert failed
        assert reader.report.retries == len(failed)


def test_no_resume_without_validator() -> None:
    """Where nothing identifies the object, a cut is an error and not a guess."""
    store, driver = make(validator=None)
    driver.faults.times("piece", 1, RemoteServiceUnavailable)
    with pytest.raises(RemoteServiceUnavailable) as caught:
        store.get(URI).read()
    assert caught.value.status is ErrorStatus.EXHAUSTED


def test_resume_gives_up(way: dict[str, Any]) -> None:
    """A stream that never gets on ends in the error, exhausted, and everything is released."""
    store, driver = rebuilt(way)

    def dead(offset: int) -> None:
        if offset >= 3 * CHUNK:
            raise RemoteServiceUnavailable

    driver.faults.hooks["piece"] = dead
    reader = store.get(URI)
    with pytest.raises(RemoteServiceUnavailable) as caught:
        reader.read()
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert reader.closed
    wait_closed(driver)


def test_changed_object_is_not_resumed(way: dict[str, Any]) -> None:
    """An object that is another one after a cut ends the reading with an error."""
    store, driver = rebuilt(way)

    def changed(offset: int) -> None:
        if offset >= 2 * CHUNK:
            raise ObjectChanged

    driver.faults.hooks["piece"] = changed
    with pytest.raises(ObjectChanged):
        store.get(URI).read()


@pytest.mark.parametrize("difference", [-1, 1])
def test_wrong_number_of_bytes(difference: int) -> None:
    """A store that gives fewer or more bytes than it said is found out."""

    class Lying(MemoryReader):
        def stream(self, offset: int, length: int | None) -> Any:
            assert length is not None
            if length > 5:
                yield DATA[offset : offset + length + min(0, difference)]
            if difference > 0:
                yield b"!"

    store, driver = make()
    driver.read = lambda *_, **__: Lying(driver, DATA)
    with pytest.raises(BackendException, match=r"Expected .* got"):
        store.get(URI).read()


def test_unknown_size() -> None:
    """An object whose size nobody tells is read to its end, and its length is known then."""
    for timeout in (0, 30):
        store, _ = rebuilt({"tells_size": False, "hang_policy": HangPolicy(timeout)})
        with store.get(URI) as reader:
            assert (reader.size, reader.length) == (None, None)
            assert reader.read() == DATA
            assert reader.length == len(DATA)
        with store.get(URI, 5, len(DATA)) as reader:
            assert reader.length is None
            assert reader.read() == DATA[5:]
            assert reader.length == len(DATA) - 5
        assert store.get(URI, 5, 7).read() == DATA[5:12]


def test_verification(way: dict[str, Any]) -> None:
    """With expected digests the end is told only when they hold."""
    store, _ = rebuilt(way)
    good = {"md5": hashlib.md5(DATA).hexdigest(), "sha256": hashlib.sha256(DATA).hexdigest()}
    with store.get(URI, expected=good) as reader:
        assert reader.read() == DATA
    reader = store.get(URI, expected={**good, "md5": "0" * 32})
    found = b""
    for _ in range(len(DATA) // CHUNK):
        found += reader.read(CHUNK)
    assert found == DATA[: len(found)]
    with pytest.raises(DigestMismatch, match=r"Expected md5 0{32}, got"):
        reader.read()
    assert reader.closed
    with pytest.raises(Invalid, match="whole object"):
        store.get(URI, 1, expected=good)


@pytest.mark.parametrize("offset", [0, CHUNK + 1])
@pytest.mark.parametrize("name", [name for name in WAYS if name.startswith("begun")])
def test_what_read_has_begun_is_used(name: str, offset: int) -> None:
    """The stream that came with the reader is read first, and no byte is asked for twice."""
    store, driver = rebuilt(WAYS[name])
    with store.get(URI, offset) as reader:
        assert reader.read(10) == DATA[offset : offset + 10]
        begins = [begin for begin, _ in driver.streams]
        assert begins.count(offset) == 1
        assert reader.read() == DATA[offset + 10 :]
    asked = sorted((begin, length or len(DATA) - begin) for begin, length in driver.streams)
    ends = [begin + length for begin, length in asked]
    assert [begin for begin, _ in asked] == [offset, *ends[:-1]]
    assert driver.readers[0].first is None
    wait_closed(driver)


def test_a_begun_stream_that_is_cut_is_resumed(way: dict[str, Any]) -> None:
    """What is left of it is asked for by a new stream."""
    store, driver = rebuilt({**way, "begins": True})
    cut = [CHUNK]

    def fail(offset: int) -> None:
        if offset in cut:
            cut.remove(offset)
            raise RemoteServiceUnavailable("cut")

    driver.faults.hooks["piece"] = fail
    with store.get(URI) as reader:
        assert reader.read() == DATA
        assert reader.report.retries == 1
    wait_closed(driver)


def test_dropped_reader_releases(way: dict[str, Any]) -> None:
    """A reader that is dropped, closed early or broken off releases what it held."""
    store, driver = rebuilt(way)
    for _ in range(20):
        reader = store.get(URI)
        next(reader)
        del reader
        with store.get(URI) as reader:
            next(reader)
        with pytest.raises(KeyError), store.get(URI) as reader:
            raise KeyError
        reader.close()
        with pytest.raises(ValueError, match="closed"):
            reader.read(1)
    gc.collect()
    wait_closed(driver)
    store.close()
    assert driver.closed == 1


def test_memory_is_taken_only_when_free() -> None:
    """Reading ahead does without memory that others hold, and never waits for it."""
    budget = Budget(3 * CHUNK)
    store, driver = rebuilt({"read_concurrency": 4, "read_size": CHUNK}, budget)
    with budget.reserve(3 * CHUNK):
        first, second = store.get(URI), store.get(URI)
        for reader in (first, second):
            piece = next(reader)
            assert len(piece) < CHUNK
            assert piece + reader.read() == DATA
    assert store.get(URI).read() == DATA
    wait_closed(driver)
    assert budget.used == 0


def test_several_are_read_once_the_store_is_slow() -> None:
    """A store that gives enough is asked once; one that keeps the caller waiting, for ranges."""
    settings = {"read_concurrency": 2, "read_size": CHUNK, "single_stream_rate": 1_000_000}
    store, driver = rebuilt(settings)
    with store.get(URI) as reader:
        first = next(reader)
        time.sleep(0.3)  # a slow caller is not the store's fault
        assert first + reader.read() == DATA
    assert driver.streams == [(0, len(DATA))]
    driver.streams.clear()
    driver.faults.hooks["piece"] = lambda offset: time.sleep(0.3 if offset == 0 else 0)
    with store.get(URI) as reader:
        assert reader.read() == DATA
    assert driver.streams[0] == (0, len(DATA))
    later = sorted(driver.streams[1:])
    assert len(later) > 5
    assert all(length <= CHUNK for _, length in later)
    assert later[0][0] > 0
    wait_closed(driver)


def test_stall_and_deadline() -> None:
    """A store that stops in the middle is given up after the time limit."""
    hang = threading.Event()

    def stop(offset: int) -> None:
        if offset:
            hang.wait(30)

    for settings, error in (
        ({"read_concurrency": 3, "read_size": CHUNK, "transfer_stall_timeout": 1}, TransferStalled),
        ({"read_concurrency": 3, "read_size": CHUNK, "transfer_deadline": 1}, DeadlineExceeded),
        ({"hang_policy": HangPolicy(1)}, TransferStalled),
    ):
        store, driver = rebuilt(settings)
        driver.faults.hooks["piece"] = stop
        reader = store.get(URI)
        if "read_concurrency" in settings:
            driver.faults.hooks.pop("piece")
            next(reader)
            driver.faults.hooks["piece"] = stop
        else:
            assert next(reader)
        with pytest.raises(error, match="after"):
            reader.read()
    hang.set()


def test_descriptor_is_offered_only_for_a_whole_unverified_file() -> None:
    """fileno is there when the local file is exactly the object, and nobody asked for a check."""
    store, driver = make()

    class Local(MemoryReader):
        def fileno(self) -> int:
            return 7

    driver.read = lambda *_, **__: Local(driver, DATA)
    with store.get(URI) as reader:
        assert isinstance(reader, LocalFileReader)
        assert reader.fileno() == 7
        next(reader)
        with pytest.raises(OSError, match="begun"):
            reader.fileno()
    with pytest.raises(OSError, match="begun"):
        reader.fileno()
    good = {"md5": hashlib.md5(DATA).hexdigest()}
    for other in (store.get(URI, 1), store.get(URI, 0, 5), store.get(URI, expected=good)):
        assert not hasattr(other, "fileno")
        other.close()


def test_report() -> None:
    """The report counts what was read."""
    store, _ = make()
    with store.get(URI) as reader:
        next(reader)
        assert reader.report.bytes == CHUNK
        reader.read()
    assert reader.report.bytes == len(DATA)
    assert reader.report.seconds > 0


def test_nothing_is_held_between_two_reads(way: dict[str, Any]) -> None:
    """A piece that was handed over is the caller's alone."""
    store, _ = rebuilt(way)
    with store.get(URI) as reader:
        for _ in range(3):
            piece = next(reader)
            assert sys.getrefcount(piece) == 2


def test_a_store_of_small_pieces_is_asked_for_what_is_wanted() -> None:
    """Where small pieces cost nothing, a reader fetches just what its caller takes."""
    store, _ = make()
    reader = store.get(URI)
    reader._exact = True
    sizes = [reader.read(7), reader.read(CHUNK // 2)]
    buffer = bytearray(11)
    assert reader.readinto(buffer) == 11
    assert b"".join(sizes) + buffer == DATA[: 7 + CHUNK // 2 + 11]
    assert reader._rest == []
    assert PROCESS_BUDGET.used == 0
    reader.close()


@pytest.mark.parametrize("into", [False, True], ids=["read", "readinto"])
def test_who_reads_on_a_little_at_a_time_gets_it_out_of_a_larger_piece(
    monkeypatch: pytest.MonkeyPatch, into: bool
) -> None:
    """Where small pieces are exact, a long row of small reads costs few requests all the same."""
    monkeypatch.setattr(reader_module, "_AHEAD", 1024)
    store, driver = make()
    pieces: list[int] = []
    driver.faults.hooks["piece"] = pieces.append
    got = bytearray()

    def read(up_to: int) -> None:
        while len(got) < up_to:
            if into:
                buffer = bytearray(100)
                assert reader.readinto(buffer) == 100
                got.extend(buffer)
            else:
                got.extend(reader.read(100))

    with store.get(URI) as reader:
        reader._exact = True
        read(1100)
        assert pieces == list(range(0, 1100, 100))
        assert PROCESS_BUDGET.used == 0
        read(1600)
        assert pieces == [*range(0, 1100, 100), 1100]
        assert PROCESS_BUDGET.used == 1024
        reader.give_back()
        assert PROCESS_BUDGET.used == 0
        read(1700)
        assert pieces[12:] == [1600]
        assert PROCESS_BUDGET.used == 1024
        read(9000)
        assert got + reader.read() == DATA
    assert PROCESS_BUDGET.used == 0


def test_the_last_piece_of_a_local_file_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read again where there was memory to fetch it and none to keep it."""
    monkeypatch.setattr(reader_module, "_AHEAD", 1024)
    store, driver = make()
    with store.get(URI, len(DATA) - 2048) as reader:
        reader._exact = True
        got = b"".join(reader.read(128) for _ in range(8))
        grow, asked = reader._memory.grow, []

        def at_first_only(amount: int) -> bool:
            asked.append(amount)
            return len(asked) == 1 and grow(amount)

        monkeypatch.setattr(reader._memory, "grow", at_first_only)
        got += reader.read(100)
        assert asked[:2] == [1024, 1024]
        assert not reader._rest
        got += b"".join(reader.read(100) for _ in range(10))
        assert got == DATA[-2048:]
        assert driver.readers[-1].closed
        assert reader.read(1) == b""


def test_what_is_held_is_given_back(way: dict[str, Any]) -> None:
    """What a reader holds for its caller goes when an upload waits, and is read again."""
    budget = Budget(64 * CHUNK)
    store, driver = rebuilt(way, budget)
    good = {"md5": hashlib.md5(DATA).hexdigest()}
    with store.get(URI, expected=good) as reader:
        found = reader.read(10)
        for _ in range(5):
            reader.give_back()
            assert budget.used == 0
            found += reader.read(CHUNK - 3)
        assert budget.used > 0
        assert found + reader.read() == DATA
    assert reader.report.bytes == len(DATA)
    wait_closed(driver)


def test_only_a_reader_of_the_same_bytes_starts_again() -> None:
    """Where nothing identifies the object, what is in hand stays in hand."""
    store, _ = make(validator=None)
    with store.get(URI) as reader:
        assert reader.read(10) == DATA[:10]
        reader.give_back()
        assert reader.read() == DATA[10:]


def test_many_readers_get_smaller_pieces() -> None:
    """The pieces that the callers of many readers hold stay within a quarter of the memory."""
    budget = Budget(16 * 1024 * 1024)
    store, driver = rebuilt({"piece_size": 1 << 30}, budget)
    data = bytes(2 * 1024 * 1024)
    driver.objects["large"] = (data, "nonce")
    readers = [store.get("memory://mem/large") for _ in range(32)]
    assert sum(len(next(each)) for each in readers) == budget.limit // 4
    for each in readers[1:]:
        each.close()
    assert len(next(readers[0])) == 1024 * 1024
    readers[0].close()


def test_a_closed_reader_gives_nothing(way: dict[str, Any]) -> None:
    """After close there are no bytes, not even of the piece that was begun."""
    store, driver = rebuilt(way)
    reader = store.get(URI)
    assert reader.read(10) == DATA[:10]
    reader.close()
    assert reader.closed
    for read in (reader.read, lambda: reader.readinto(bytearray(3)), lambda: next(reader)):
        with pytest.raises(ValueError, match="closed"):
            read()
    wait_closed(driver)


def test_a_reader_is_a_file(way: dict[str, Any]) -> None:
    """The classes of io take it for an open file that can only be read."""
    store, driver = rebuilt(way)
    with io.BufferedReader(store.get(URI)) as file:
        assert file.read(5) == DATA[:5]
        assert not file.seekable()
        assert not file.writable()
        assert file.peek(1)[:1] == DATA[5:6]
        assert file.read() == DATA[5:]
        assert file.read() == b""
    driver.objects["it"] = ("größer\n".encode() * CHUNK, "nonce")
    for make_file in (io.BufferedReader, lambda reader: reader):
        with io.TextIOWrapper(make_file(store.get(URI)), encoding="utf-8") as text:
            assert sum(line == "größer\n" for line in text) == CHUNK
    with io.TextIOWrapper(store.get(URI), encoding="utf-8") as text:
        assert next(csv.reader(text)) == ["größer"]
    wait_closed(driver)


def test_a_child_leaves_its_parents_reader_alone(way: dict[str, Any]) -> None:
    """After a fork a reader of the parent gives nothing, and is not closed in the backend."""
    store, driver = rebuilt(way)
    with store.get(URI) as reader:
        found = reader.read(10)
        child = os.fork()
        if not child:
            try:
                reader.read(1_000_000)
            except StoreClosed:
                reader.close()
                os._exit(driver.readers[0].closed)
            os._exit(99)
        assert os.waitpid(child, 0)[1] == 0
        assert found + reader.read() == DATA
    wait_closed(driver)


def test_memory_may_be_asked_for_at_once(
    way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the moment that a reader can be asked to give memory back it is ready for that."""
    opened = Budget.register

    def open_and_ask(budget: Budget, lender: Any) -> None:
        opened(budget, lender)
        lender.give_back()

    monkeypatch.setattr(Budget, "register", open_and_ask)
    store, driver = rebuilt(way)
    with store.get(URI) as reader:
        assert reader.read() == DATA
    wait_closed(driver)
