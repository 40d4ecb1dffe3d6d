"""Tests of the bodies that client libraries pull from."""

import io
import threading

import pytest

from store_lib.transfer.bodies import BodyInterrupted, MemoryBody, StreamBody
from store_lib.transfer.buffers import Buffer, Failure
from store_lib.transfer.timeouts import Limits, TransferClock


def test_memory_body_is_like_a_file() -> None:
    """A body in memory reads, seeks and tells as a file of the same bytes does."""
    data = bytes(range(200)) * 50
    body = MemoryBody([data[:7], b"", memoryview(data)[7:5000], data[5000:]])
    assert body.size == len(body) == len(data)
    assert body.rewindable
    file = io.BytesIO(data)
    for call in (
        ("read", 3), ("read", 10), ("tell",), ("read", 6000), ("seek", 5), ("read", 1),
        ("seek", -10, 2), ("read",), ("read", 4), ("seek", 0), ("seek", 4, 1), ("read", None),
    ):  # fmt: skip
        name, *arguments = call
        assert getattr(body, name)(*arguments) == getattr(file, name)(*arguments)
    body.seek(0)
    assert b"".join(body) == data
    body.seek(3)
    assert [bytes(view) for view in body.views()] == [data[3:7], data[7:5000], data[5000:]]
    assert body.tell() == len(data)
    assert body.readable()
    assert body.seekable()
    assert MemoryBody([]).read() == b""


def make(size: int | None) -> tuple[StreamBody, Failure]:
    failure = Failure()
    return StreamBody(size, failure, TransferClock(Limits())), failure


def buffer(data: bytes) -> Buffer:
    buffer = Buffer(0)
    buffer.data = data
    return buffer


def test_stream_body_waits_for_its_chunks() -> None:
    """A streamed body returns the bytes as they are fed, and ends only when it is finished."""
    body, _ = make(None)
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(body.read()))
    thread.start()
    for piece in (b"abc", b"defg", b"h"):
        body.feed(buffer(piece))
    assert not body.complete
    body.finish()
    thread.join(10)
    assert found == [b"abcdefgh"]
    assert body.tell() == 8
    assert body.complete
    assert body.read(5) == b""


def test_stream_body_in_small_reads() -> None:
    """Reads across chunks are joined, and iteration goes chunk by chunk."""
    body, _ = make(8)
    for piece in (b"abc", b"defg", b"h"):
        body.feed(buffer(piece))
    assert body.read(2) == b"ab"
    assert body.read(4) == b"cdef"
    assert body.read(2) == b"gh"
    assert body.complete
    other, _ = make(None)
    for piece in (b"abc", b"defg"):
        other.feed(buffer(piece))
    other.finish()
    assert other.read(1) == b"a"
    assert list(other) == [b"bc", b"defg"]
    assert not other.seekable()
    assert not other.rewindable
    with pytest.raises(io.UnsupportedOperation):
        other.seek(0)


def test_stream_body_of_a_failed_transfer() -> None:
    """When the transfer fails, the read raises, so that the request cannot end well."""
    body, failure = make(10)
    body.feed(buffer(b"abc"))
    assert body.read(3) == b"abc"
    failure.set(RuntimeError("source"))
    body.finish()
    with pytest.raises(BodyInterrupted):
        body.read(1)
    body.close()


def test_stream_body_shows_its_chunks_uncopied() -> None:
    """A streamed body's views are the chunks, from where a read has left off."""
    body, failure = make(10)
    for piece in (b"abcd", b"efg", b"hij"):
        body.feed(buffer(piece))
    body.finish()
    assert body.read(2) == b"ab"
    assert [bytes(view) for view in body.views()] == [b"cd", b"efg", b"hij"]
    assert body.complete
    failing, failure = make(10)
    failure.set(ValueError())
    failing.finish()
    with pytest.raises(BodyInterrupted):
        next(failing.views())
