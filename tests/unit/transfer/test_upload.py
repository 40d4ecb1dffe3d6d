"""Tests of uploads: chunking, digests, verifying, faults and clean-up."""

import contextlib
import gc
import hashlib
import io
import mmap
import os
import random
import signal
import threading
import urllib.request
import urllib.response
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3

from store_lib.exceptions import (
    BackendException,
    DigestMismatch,
    Duplicate,
    ErrorStatus,
    Invalid,
    InvalidObjectId,
    ObjectChanged,
    RemoteServiceUnavailable,
    SizeMismatch,
    StorageFull,
    UnknownHashingAlgo,
)
from store_lib.transfer import buffers
from store_lib.transfer.budget import Budget
from store_lib.transfer.buffers import BufferPool
from tests.unit.memory_driver import CHUNK, MemoryParts, MemoryPositions, memory_store

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 9 * CHUNK + 7]


def payload(size: int) -> bytes:
    """Return reproducible random bytes."""
    return random.Random(size).randbytes(size)


class Trickle:
    """A file-like whose reads come back short, in odd sizes."""

    def __init__(self, data: bytes, step: int = 7001) -> None:
        self._file = io.BytesIO(data)
        self._step = step
        self.asked: list[int] = []

    def read(self, amount: int) -> bytes:
        self.asked.append(amount)
        return self._file.read(min(amount, self._step))


def odd_pieces(data: bytes) -> Iterator[bytes]:
    """Yield the data in pieces from nothing to more than a chunk."""
    chance = random.Random(1)
    position = 0
    while position < len(data):
        step = chance.choice([0, 1, 999, CHUNK, 3 * CHUNK + 5])
        yield data[position : position + step]
        position += step


def mutable_pieces(data: bytes) -> Iterator[memoryview]:
    """Yield views of one buffer that is overwritten for each piece."""
    buffer = bytearray(40_000)
    source = io.BytesIO(data)
    while count := source.readinto(buffer):
        yield memoryview(buffer)[:count]


SOURCES = {
    "file": io.BytesIO,
    "trickle": Trickle,
    "pieces": odd_pieces,
    "mutable": mutable_pieces,
    "bytes": lambda data: data,
    "bytearray": bytearray,
}
WRITERS: dict[str, dict[str, Any]] = {
    "positions": {"writer_class": MemoryPositions},
    "wide": {
        "writer_class": MemoryPositions,
        "writer_settings": {"chunk_size": CHUNK, "reserved": 1 << 60, "concurrency": 4},
    },
    "thin": {
        "writer_class": MemoryPositions,
        "writer_settings": {"chunk_size": CHUNK, "reserved": 1 << 60, "hole_size": CHUNK // 4},
    },
    "once": {"writer_class": MemoryParts, "writer_settings": {"chunk_size": CHUNK}},
    "parts": {
        "writer_class": MemoryParts,
        "writer_settings": {"chunk_size": CHUNK, "once_limit": 2 * CHUNK, "concurrency": 3},
    },
    "odd parts": {
        "writer_class": MemoryParts,
        "part_sizes": lambda number: 100_000 + 31 * number,
        "writer_settings": {"chunk_size": CHUNK, "once_limit": 0, "concurrency": 2},
    },
}


def make(writer: str = "positions", **options: Any) -> Any:
    """Return a store and its driver with a kind of writer."""
    store, driver = memory_store(**options)
    for name, value in WRITERS[writer].items():
        setattr(driver, name, value)
    return store, driver


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("writer", WRITERS)
def test_every_size_arrives(writer: str, source: str, known: bool) -> None:
    """Each way in gives the same bytes, size and digests, whatever the pieces are."""
    for size in SIZES:
        store, driver = make(writer)
        data = payload(size)
        result = store.add(
            "it", SOURCES[source](data), size if known else None, digests=("md5", "sha256")
        )
        assert driver.objects["it"][0] == data
        assert result.size == size == result.report.bytes
        assert result.digests == {
            "md5": hashlib.md5(data).hexdigest(),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        assert driver.aborted == []
        assert result.uri == "memory://mem/it"


def test_whole_chunks_are_asked_for() -> None:
    """A source that pays for each call is asked for as much as the chunk still takes."""
    store, _ = make()
    source = Trickle(payload(3 * CHUNK), step=10 * CHUNK)
    store.add("it", source)
    assert source.asked[:3] == [CHUNK] * 3


def test_path_is_read_and_closed(tmp_path: Path) -> None:
    """A path-like is opened, read to its end and closed, and its size is known."""
    (tmp_path / "f").write_bytes(payload(3 * CHUNK + 1))
    store, driver = make()
    seen: list[Any] = []
    driver.faults.hooks["create"] = lambda name, size: seen.append(size)
    store.add("it", tmp_path / "f")
    assert driver.objects["it"][0] == payload(3 * CHUNK + 1)
    assert seen == [3 * CHUNK + 1]
    with pytest.raises(Invalid, match="No such file"):
        store.add("other", tmp_path / "missing")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_tell_their_own_size(kind: Any) -> None:
    """What lies in memory has a size, so it needs no more memory than that."""
    store, driver = make()
    seen: list[Any] = []
    driver.faults.hooks["create"] = lambda name, size: seen.append(size)
    store.add("it", kind(payload(10)))
    store.add("none", kind(b""))
    assert seen == [10, 0]
    with pytest.raises(SizeMismatch, match="Expected 11 bytes, got 10"):
        store.add("other", kind(payload(10)), 11)


def test_a_path_that_is_overwritten_meanwhile(tmp_path: Path) -> None:
    """A file overwritten in place while it is read is refused, though its size stays."""
    path = tmp_path / "f"
    path.write_bytes(payload(3 * CHUNK))
    status = path.stat()

    def overwrite(done: int, _: int | None) -> None:
        if done == CHUNK:
            path.write_bytes(bytes(3 * CHUNK))
            os.utime(path, ns=(0, status.st_mtime_ns + 1))

    store, driver = make()
    with pytest.raises(ObjectChanged, match="something wrote to it"):
        store.add("it", path, progress=overwrite)
    assert driver.objects == {}


@pytest.mark.parametrize("alter", [os.unlink, lambda path: os.chmod(path, 0o600)])
def test_a_path_whose_bytes_stay(tmp_path: Path, alter: Any) -> None:
    """Deleting the file or changing its permissions while it is read does not disturb the add."""
    path = tmp_path / "f"
    path.write_bytes(payload(3 * CHUNK))
    store, driver = make()
    store.add("it", path, progress=lambda done, _: alter(path) if done == CHUNK else None)
    assert driver.objects["it"][0] == payload(3 * CHUNK)


@pytest.mark.parametrize(
    "data", ["text", io.StringIO("text"), ["text"], [1, 2], 7, None, object(), [None]]
)
def test_data_that_is_no_bytes(data: Any) -> None:
    """What bytes cannot be read from ends in Invalid, saying what was expected."""
    store, driver = make()
    with pytest.raises(Invalid, match="Expected"):
        store.add("it", data)
    assert driver.objects == {}


def test_wrapper_is_not_gone_round() -> None:
    """A wrapper that overrides read alone is read through it, not through its readinto."""

    class Upper(io.BytesIO):
        def read(self, amount: int | None = -1, /) -> bytes:
            return super().read(amount).upper()

    store, driver = make()
    store.add("it", Upper(b"abc" * CHUNK))
    assert driver.objects["it"][0] == b"ABC" * CHUNK


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("declared", "actual"),
    [(10, 9), (9, 10), (0, 1), (CHUNK, CHUNK + 1), (CHUNK + 1, CHUNK), (5 * CHUNK, 4 * CHUNK),
     (4 * CHUNK, 9 * CHUNK), (9 * CHUNK, 4 * CHUNK + 3)],
)  # fmt: skip
def test_wrong_size(writer: str, declared: int, actual: int) -> None:
    """A source longer or shorter than declared is refused, and nothing is stored."""
    store, driver = make(writer)
    with pytest.raises(SizeMismatch, match=f"Expected {declared} bytes") as caught:
        store.add("it", io.BytesIO(payload(actual)), declared)
    assert driver.objects == {}
    assert driver.aborted == ["it"]
    assert (caught.value.store, caught.value.operation, caught.value.object_id) == (
        "mem",
        "add",
        "it",
    )


@pytest.mark.parametrize("size", [-1, 1.5, "7", True])
def test_size_of_a_wrong_kind(size: Any) -> None:
    """A size that is no whole number of 0 or more is refused before a byte is read."""
    store, _ = make()
    source = Trickle(b"x")
    with pytest.raises(Invalid, match="Expected size"):
        store.add("it", source, size)
    assert source.asked == []


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("size", [10, 9 * CHUNK])
def test_wrong_digest(writer: str, size: int) -> None:
    """Bytes without the expected digest are not published, also in a single request."""
    store, driver = make(writer)
    with pytest.raises(DigestMismatch, match=r"Expected sha256 0{64}, got"):
        store.add("it", io.BytesIO(payload(size)), size, expected={"sha256": "0" * 64})
    assert driver.objects == {}
    assert driver.aborted == ["it"]
    good = hashlib.sha256(payload(size)).hexdigest().upper()
    result = store.add("it", io.BytesIO(payload(size)), size, expected={"sha256": good})
    assert set(result.digests) == {"sha512", "sha256"}


@pytest.mark.parametrize("name", ["nope", "SHA256", "shake_128", "", None, 5, ["md5"]])
def test_unknown_digest(name: Any) -> None:
    """A digest that hashlib does not have is refused before a byte is read."""
    store, _ = make()
    source = Trickle(b"x")
    with pytest.raises(UnknownHashingAlgo, match="Expected"):
        store.add("it", source, digests=[name])
    assert source.asked == []


@pytest.mark.parametrize("expected", [{"md5": "xyz"}, {"md5": "0" * 31}, {"md5": 5}])
def test_malformed_expected_digest(expected: Any) -> None:
    """An expected digest of the wrong form is refused, saying which form is right."""
    store, _ = make()
    with pytest.raises(Invalid, match="as 32 hexadecimal digits"):
        store.add("it", b"x", expected=expected)


def test_digests_as_a_string() -> None:
    """A single name instead of a sequence is refused, and not taken letter by letter."""
    store, _ = make()
    with pytest.raises(Invalid, match="sequence of names"):
        store.add("it", b"x", digests="md5")


class Broken:
    """A source that raises after some bytes."""

    def __init__(self, good: int, error: BaseException) -> None:
        self._file = io.BytesIO(payload(good))
        self._error = error

    def read(self, amount: int) -> bytes:
        piece = self._file.read(amount)
        if not piece:
            raise self._error
        return piece


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("good", [0, 1, CHUNK, CHUNK + 5, 8 * CHUNK])
@pytest.mark.parametrize("writer", WRITERS)
def test_source_error_comes_out_itself(writer: str, good: int, known: bool) -> None:
    """What the source raises reaches the caller as the same object, and nothing is left."""
    for error in (RuntimeError("mine"), KeyboardInterrupt(), NotADirectoryError(20, "x"),
                  StorageFull("theirs")):  # fmt: skip
        store, driver = make(writer)
        with pytest.raises(type(error)) as caught:
            store.add("it", Broken(good, error), 10 * CHUNK if known else None)
        assert caught.value is error
        assert getattr(error, "store", None) is None
        assert driver.objects == {}
        assert driver.aborted == ["it"]


@pytest.mark.parametrize("writer", ["positions", "wide", "parts", "once"])
def test_store_error_stops_everything(writer: str) -> None:
    """An error of the store comes out once, with the place filled in, and the rest is not read."""
    store, driver = make(writer)
    hook = {"parts": "put_part", "once": "write_once"}.get(writer, "write_at")
    driver.faults.times(hook, 1, lambda: StorageFull())
    source = Trickle(payload(200 * CHUNK), step=CHUNK)
    with pytest.raises(StorageFull) as caught:
        store.add("it", source, 200 * CHUNK)
    assert caught.value.object_id == "it"
    assert driver.aborted == ["it"]
    assert driver.faults.calls.count("abort") == 1
    assert len(source.asked) < 100


def test_error_of_abort_is_a_note() -> None:
    """What the clean-up raises is added to the first error and does not hide it."""
    store, driver = make()
    driver.faults.times("abort", 1, lambda: BackendException("cannot clean"))
    with pytest.raises(SizeMismatch) as caught:
        store.add("it", b"xx", 1)
    assert any("cannot clean" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("writer", ["positions", "wide", "thin", "parts", "once"])
def test_temporary_errors_are_repeated(writer: str) -> None:
    """A request is repeated after temporary errors, and the repeats are counted."""
    store, driver = make(writer)
    if writer == "once":
        size, hook = CHUNK, "write_once"
    else:
        size = 9 * CHUNK
        hook = "put_part" if writer == "parts" else "write_at"
    driver.faults.times(hook, 2, RemoteServiceUnavailable)
    result = store.add("it", payload(size), size)
    assert driver.objects["it"][0] == payload(size)
    assert result.report.retries == 2


def test_repeats_end() -> None:
    """After the allowed attempts the error comes out as exhausted."""
    store, driver = make(transfer_attempts=3)
    driver.faults.times("write_at", 99, RemoteServiceUnavailable)
    with pytest.raises(RemoteServiceUnavailable) as caught:
        store.add("it", b"abc")
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert driver.faults.calls.count("write_at") == 3


@pytest.mark.parametrize("size", [5, 9 * CHUNK])
@pytest.mark.parametrize("writer", ["positions", "parts", "once"])
def test_lost_reply_after_commit(writer: str, size: int) -> None:
    """When the reply to the publishing request is lost, the upload finds that it was stored."""
    store, driver = make(writer)
    driver.faults.times("committed", 1, RemoteServiceUnavailable)
    result = store.add("it", payload(size), size)
    assert result.uri == "memory://mem/it"
    assert driver.aborted == []


@pytest.mark.parametrize("writer", ["positions", "parts"])
def test_duplicate_against_oneself(writer: str) -> None:
    """An upload whose client repeats a request and finds its own object succeeds."""
    store, driver = make(writer)
    driver.faults.times("committed", 1, Duplicate)
    assert store.add("it", payload(5)).size == 5


def test_duplicate_against_another() -> None:
    """A second add of an id is Duplicate and leaves the first one's bytes."""
    store, driver = make()
    store.add("it", b"first")
    with pytest.raises(Duplicate):
        store.add("it", b"second")
    racing, other = make()

    def overtake(size: int) -> None:
        other.objects.setdefault("it", (b"winner", "other nonce"))

    other.faults.hooks["commit"] = overtake
    with pytest.raises(Duplicate):
        racing.add("it", b"loser")
    assert driver.objects["it"][0] == b"first"
    assert other.objects["it"][0] == b"winner"
    assert other.aborted == ["it"]


def test_second_add_while_one_runs() -> None:
    """In one process a second add of an id is refused while the first is running."""
    store, driver = make()

    def pieces() -> Iterator[bytes]:
        yield b"a"
        with pytest.raises(Duplicate, match="right now"):
            store.add("it", b"b")
        store.add("other", b"c")
        yield b"d"

    store.add("it", pieces())
    assert driver.objects["it"][0] == b"ad"
    assert driver.objects["other"][0] == b"c"


@pytest.mark.parametrize("object_id", ["", "a\0b", 5, None, b"x"])
def test_bad_ids(object_id: Any) -> None:
    """An id that no store can hold is refused before a byte is read."""
    store, _ = make()
    source = Trickle(b"x")
    with pytest.raises(InvalidObjectId):
        store.add(object_id, source)
    assert source.asked == []


@pytest.mark.parametrize("size", [0, 5, 9 * CHUNK])
def test_progress(size: int) -> None:
    """Progress only grows, ends at the exact size, and is reported in the caller's thread."""
    store, _ = make()
    seen: list[tuple[int, int | None, int]] = []
    store.add(
        "it", payload(size), size,
        progress=lambda done, total: seen.append((done, total, threading.get_ident())),
    )  # fmt: skip
    numbers = [done for done, _, _ in seen]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == size
    assert {total for _, total, _ in seen} == {size}
    assert {thread for _, _, thread in seen} == {threading.get_ident()}


@pytest.mark.parametrize("size", [5, 9 * CHUNK])
@pytest.mark.parametrize("writer", ["positions", "parts", "once"])
def test_error_in_progress(writer: str, size: int) -> None:
    """An exception in the progress callback ends the add, as the same object."""
    store, driver = make(writer)
    error = RuntimeError("stop")

    def progress(done: int, total: int | None) -> None:
        raise error

    with pytest.raises(RuntimeError) as caught:
        store.add("it", payload(size), size, progress=progress)
    assert caught.value is error
    assert driver.objects == {}


class Verifier:
    """Keeps what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.seen = bytearray()
        self.verified = 0
        self.error = error

    def update(self, data: Any) -> None:
        self.seen += data

    def verify(self) -> None:
        self.verified += 1
        if self.error:
            raise self.error


@pytest.mark.parametrize("size", [0, 5, 9 * CHUNK + 1])
def test_verifier_sees_every_byte(size: int) -> None:
    """A verifier gets every byte once and in order, and has the last word before publishing."""
    store, driver = make("wide")
    verifier = Verifier()
    store.add("it", io.BytesIO(payload(size)), verifier=verifier)
    assert bytes(verifier.seen) == payload(size)
    assert verifier.verified == 1
    error = ValueError("bad signature")
    with pytest.raises(ValueError, match="bad signature") as caught:
        store.add("no", payload(size), verifier=Verifier(error))
    assert caught.value is error
    assert "no" not in driver.objects


@pytest.mark.parametrize("size", [5, 9 * CHUNK])
def test_verifier_that_fails_to_update(size: int) -> None:
    """An error in a verifier's update ends the add, as the same object."""

    class Failing(Verifier):
        def update(self, data: Any) -> None:
            raise error

    error = LookupError("no")
    store, driver = make()
    with pytest.raises(LookupError) as caught:
        store.add("it", payload(size), verifier=Failing())
    assert caught.value is error
    assert driver.objects == {}


def test_counts_of_several_threads() -> None:
    """What many writers count at once adds up exactly in the report."""
    store, driver = make("thin")
    driver.writer_settings = {**driver.writer_settings, "concurrency": 8}
    quarter = CHUNK // 4
    data = (bytes(quarter) + payload(quarter)) * 400
    report = store.add("it", io.BytesIO(data), len(data), digests=()).report
    assert driver.objects["it"][0] == data
    assert (report.holes, report.parts) == (400 * quarter, 400)


def test_zeros_become_holes() -> None:
    """In a thin store runs of zeros are not written, and digests see them all the same."""
    store, driver = make("thin")
    data = bytes(3 * CHUNK) + payload(CHUNK) + bytes(CHUNK // 2) + b"x" + bytes(2 * CHUNK)
    result = store.add("it", io.BytesIO(data), len(data), digests=("sha1",))
    assert driver.objects["it"][0] == data
    assert result.digests["sha1"] == hashlib.sha1(data).hexdigest()
    holes = sum(length for _, length in driver.writers[0].holes)
    assert holes == result.report.holes >= 5 * CHUNK


def test_growth_is_reserved_first() -> None:
    """Room is asked for before bytes past the end, with nothing in flight where so declared."""
    store, driver = make()
    driver.writer_settings = {
        "chunk_size": CHUNK, "concurrency": 4, "quiesce_to_grow": True, "reserved": CHUNK,
    }  # fmt: skip
    driver.reserve_step = 3 * CHUNK
    store.add("it", Trickle(payload(20 * CHUNK)))
    writer = driver.writers[0]
    assert driver.objects["it"][0] == payload(20 * CHUNK)
    assert [end for end, _ in writer.reserves] == [
        (2 + 4 * step) * CHUNK for step in range(len(writer.reserves))
    ]
    assert {in_flight for _, in_flight in writer.reserves} == {0}


def test_failed_growth() -> None:
    """A store that cannot grow ends the add with its error."""
    store, driver = make()
    driver.writer_settings = {"chunk_size": CHUNK, "reserved": 2 * CHUNK}
    driver.faults.times("reserve", 1, lambda: StorageFull())
    with pytest.raises(StorageFull):
        store.add("it", Trickle(payload(20 * CHUNK)))
    assert driver.aborted == ["it"]


def test_parts_of_growing_size() -> None:
    """Parts have the sizes that the writer asks for, once for every number and in order."""
    store, driver = make("odd parts")
    data = payload(12 * CHUNK)
    store.add("it", io.BytesIO(data))
    writer = driver.writers[0]
    sizes = sorted((body.size for body in writer.bodies), reverse=True)
    assert driver.objects["it"][0] == data
    assert writer.sizes == sorted(set(writer.sizes))
    assert all(body.rewindable for body in writer.bodies)
    assert sum(sizes) == len(data)


def test_small_stream_of_unknown_length_goes_once() -> None:
    """A stream of unknown length that turns out small becomes one request."""
    store, driver = make("parts")
    store.add("it", Trickle(payload(CHUNK + CHUNK // 2)))
    assert "put_part" not in driver.faults.calls
    assert driver.faults.calls.count("write_once") == 1


def test_parts_larger_than_memory_are_streamed() -> None:
    """A part that the memory cannot hold is streamed, with its true size when that is known."""
    for size, sizes in ((9 * CHUNK + 5, [4 * CHUNK, 4 * CHUNK, CHUNK + 5]), (None, [None] * 3)):
        store, driver = make("parts", budget=Budget(3 * CHUNK))
        store.add("it", Trickle(payload(9 * CHUNK + 5)), size)
        bodies = driver.writers[0].bodies
        assert driver.objects["it"][0] == payload(9 * CHUNK + 5)
        assert not any(body.rewindable for body in bodies)
        assert [body.size for body in bodies] == sizes


def test_answer_before_the_end_of_the_request() -> None:
    """A store that says yes before it took the whole request is not believed."""
    store, driver = make("once")

    class Hasty(MemoryParts):
        def write_once(self, body: Any) -> Any:
            body.read(100)
            return self.driver.publish(self.name, b"short", "other")

    driver.writer_class = Hasty
    with pytest.raises(BackendException, match="answered after 100 bytes"):
        store.add("it", io.BytesIO(payload(30 * CHUNK)), 30 * CHUNK)


@pytest.mark.parametrize("writer", ["positions", "parts", "once"])
def test_memory_is_given_back_at_once(monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    """A finished or failed add holds no buffer, even while nothing collects cycles."""
    made: list[int] = []
    gone: list[int] = []

    class Counted(mmap.mmap):
        def __init__(self, *_: int) -> None:
            made.append(1)

        def __del__(self) -> None:
            gone.append(1)

    monkeypatch.setattr(buffers.mmap, "mmap", Counted)
    store, driver = make(writer)
    gc.disable()
    try:
        for number in range(3):
            store.add(str(number), io.BytesIO(payload(9 * CHUNK)))
            with pytest.raises(SizeMismatch):
                store.add("x", io.BytesIO(payload(9 * CHUNK)), 8 * CHUNK)
        driver.writers.clear()  # they keep the bodies they were given
        assert len(made) > 6
        assert len(gone) == len(made)
    finally:
        gc.enable()


def test_closed_descriptors(tmp_path: Path) -> None:
    """Adds from paths, good and bad, leave no descriptor open."""
    (tmp_path / "f").write_bytes(payload(3 * CHUNK))
    store, _ = make()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        store.add(f"good {number}", tmp_path / "f")
        with pytest.raises(SizeMismatch):
            store.add(f"bad {number}", tmp_path / "f", 5)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("good", [0, 1, 2, 3])
def test_no_more_threads(monkeypatch: pytest.MonkeyPatch, good: int) -> None:
    """When the system gives no more threads, the add fails and those it has got end."""
    store, driver = make("wide")
    start, left = threading.Thread.start, [good]

    def limited(self: threading.Thread) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(RuntimeError, match="new thread"):
            store.add("it", io.BytesIO(payload(9 * CHUNK)), digests=("md5",))
    assert driver.aborted == ["it"]


def test_report_says_where_the_time_went() -> None:
    """The report's stages and bottleneck follow the slowest part."""
    store, driver = make()
    driver.faults.hooks["write_at"] = lambda *_: threading.Event().wait(0.02)
    report = store.add("it", payload(9 * CHUNK), digests=()).report
    assert report.bottleneck == "store"
    assert report.store_seconds >= 0.15
    assert report.parts == 9
    assert report.as_dict()["bottleneck"] == "store"


def test_one_request_that_memory_holds_is_sent_again() -> None:
    """A put of known size is repeated after a temporary error, as its bytes lie in memory."""
    store, driver = make("parts")
    data = payload(2 * CHUNK)
    driver.faults.times("write_once", 2, RemoteServiceUnavailable)
    result = store.add("it", SOURCES["trickle"](data), len(data))
    assert driver.objects["it"][0] == data
    assert result.report.parts == 1
    assert result.report.retries == 2


def test_one_request_that_memory_cannot_hold_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put for which memory has no room is sent as it is read, and only once."""
    monkeypatch.setattr(buffers.BufferPool, "ensure", lambda *_: False)
    store, driver = make("parts")
    data = payload(2 * CHUNK)
    store.add("it", data, len(data))
    assert driver.objects["it"][0] == data
    driver.faults.times("write_once", 1, RemoteServiceUnavailable)
    with pytest.raises(RemoteServiceUnavailable) as caught:
        store.add("other", data, len(data))
    assert caught.value.status is ErrorStatus.EXHAUSTED


def test_cleaning_up_is_repeated_after_temporary_errors() -> None:
    """An abort that the store was too busy for is tried again, before the error comes out."""
    store, driver = make()
    driver.faults.times("abort", 2, RemoteServiceUnavailable)
    with pytest.raises(SizeMismatch) as caught:
        store.add("it", payload(10), 11)
    assert driver.aborted == ["it"] * 3
    assert not getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize("name", ["/proc/version", "/sys/kernel/profiling"])
def test_a_file_whose_size_says_nothing(name: str) -> None:
    """Of a file such as those in /proc what comes is stored, whatever its size is said to be."""
    path = Path(name)
    if not path.exists():
        path = Path("/proc/version")
    store, driver = make()
    result = store.add("it", path)
    assert driver.objects["it"][0] == path.read_bytes()
    assert result.size > 0


@pytest.mark.parametrize("size", [0, 1, 3 * CHUNK], ids=["empty", "a byte", "large"])
def test_a_files_size_is_known(tmp_path: Path, size: int) -> None:
    """The store learns the true size of an ordinary file, a hole too."""
    (tmp_path / "file").write_bytes(b"")
    os.truncate(tmp_path / "file", size)
    store, driver = make()
    sizes: list[int | None] = []
    driver.faults.hooks["create"] = lambda _, size: sizes.append(size)
    store.add("it", tmp_path / "file")
    assert sizes == [size]


class HalfAnAnswer(BaseHTTPRequestHandler):
    """Promises more bytes than it sends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(3 * CHUNK))
        self.end_headers()
        self.wfile.write(bytes(3 * CHUNK if self.path == "/whole" else 2 * CHUNK))
        self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """A web server whose answers are cut, but for /whole."""
    with HTTPServer(("127.0.0.1", 0), HalfAnAnswer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("fetch", ["urllib", "buffered", "handler", "urllib3"])
def test_a_cut_answer_is_not_stored(server: str, fetch: str) -> None:
    """An HTTP answer that ends before its promised length is refused, with no size declared."""

    def get(path: str) -> Any:
        if fetch != "urllib3":
            answer = urllib.request.urlopen(server + path)
            if fetch == "buffered":
                return io.BufferedReader(answer)
            if fetch == "handler":  # as a handler of one's own gives it
                return urllib.response.addinfourl(answer, answer.headers, answer.url)
            return answer
        return urllib3.PoolManager().request(
            "GET", server + path, preload_content=False, enforce_content_length=False
        )

    store, driver = make()
    with contextlib.closing(get("/cut")) as answer, pytest.raises(SizeMismatch, match="was cut"):
        store.add("it", answer)
    assert "it" not in driver.objects
    with contextlib.closing(get("/whole")) as answer:
        assert store.add("it", answer).size == 3 * CHUNK


@pytest.mark.parametrize("writer", WRITERS)
def test_a_child_waits_for_no_inherited_lock(writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that the source forks while a thread holds a lock of the transfer ends as well."""
    store, driver = make(writer)
    pools: list[BufferPool] = []
    initialize = BufferPool.__init__

    def remember(pool: BufferPool, *args: Any, **kwargs: Any) -> None:
        initialize(pool, *args, **kwargs)
        pools.append(pool)

    monkeypatch.setattr(BufferPool, "__init__", remember)
    locked, forked = threading.Event(), threading.Event()

    def lock() -> None:
        with pools[0].changed:
            locked.set()
            forked.wait(30)

    child = 0

    def source() -> Iterator[bytes]:
        nonlocal child
        for number in range(8):
            if number == 5:
                thread = threading.Thread(target=lock)
                thread.start()
                locked.wait(30)
                child = os.fork()
                if not child:
                    signal.alarm(20)
                    raise LookupError
                forked.set()
                thread.join()
            yield payload(CHUNK)

    try:
        store.add("x", source())
    except LookupError:
        os._exit(len(driver.aborted))
    assert os.waitpid(child, 0)[1] == 0
    assert driver.objects["x"][0] == payload(CHUNK) * 8


@pytest.mark.parametrize("writer", WRITERS)
def test_a_child_leaves_its_parents_upload_alone(writer: str) -> None:
    """A child that the source forks ends its copy of the add without aborting the upload."""
    store, driver = make(writer)
    child = 0

    def source() -> Iterator[bytes]:
        nonlocal child
        for number in range(8):
            if number == 5:
                child = os.fork()
                if not child:
                    raise LookupError
            yield payload(CHUNK)

    try:
        store.add("x", source())
    except LookupError:
        os._exit(len(driver.aborted))
    assert os.waitpid(child, 0)[1] == 0
    assert driver.objects["x"][0] == payload(CHUNK) * 8
