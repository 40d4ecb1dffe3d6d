"""Sinks, which send the chunks of an upload: to positions, in parts, or as one stream."""

import abc
import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, TypeVar

from store_lib.driver import Body, PartWriter, PositionWriter
from store_lib.exceptions import BackendException
from store_lib.location import Location
from store_lib.transfer.bodies import BodyInterrupted, MemoryBody, StreamBody
from store_lib.transfer.buffers import Buffer, BufferPool
from store_lib.transfer.requests import Requests
from store_lib.transfer.workers import WorkerPool

R = TypeVar("R")

#: Number of buffers beyond those for the writer's concurrency, so that digests of different speeds
#: do not wait for each other.
SPARE_BUFFERS = 8
#: Minimum number of buffers of a transfer: one that is filled while another is used.
MIN_BUFFERS = 2


class Sink(abc.ABC):
    """Passes the chunks of one upload to the workers that send them, and publishes the object."""

    @abc.abstractmethod
    def next_chunk_size(self) -> int:
        """Return the maximum size of the next chunk in bytes."""

    @abc.abstractmethod
    def put(self, buffer: Buffer) -> None:
        """Accept the next chunk; the buffer is released when it has been sent."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Send the remaining bytes at the source's end, except those that publish the object."""

    @abc.abstractmethod
    def commit(self) -> Location:
        """Publish the object, which has been verified, and return its location."""

    def stop(self) -> None:  # noqa: B027 - most wait for nothing
        """Wake a worker that waits for chunks.  Called at the end of every transfer."""


class PositionSink(Sink):
    """Writes chunks at their positions."""

    def __init__(self, writer: PositionWriter, requests: Requests, workers: WorkerPool) -> None:
        self._writer = writer
        self._requests = requests
        self._workers = workers
        self._reserved = writer.reserved
        self._offset = 0

    def next_chunk_size(self) -> int:
        return self._writer.chunk_size

    def put(self, buffer: Buffer) -> None:
        offset, end = self._offset, self._offset + len(buffer.data)
        if end > self._reserved:
            if self._writer.quiesce_to_grow:
                self._workers.drain()
            self._reserved = _reserve(self._writer, self._requests, end)
        self._workers.put(_write(self._writer, self._requests, offset, buffer.data), buffer.release)
        self._offset = end

    def finish(self) -> None:
        self._workers.drain()

    def commit(self) -> Location:
        return self._requests.commit(functools.partial(self._writer.commit, self._offset))


class PartSink(Sink):
    """Collects chunks into parts.

    A part that is too large for the memory is streamed.  If the object ends within its first part,
    and that is in memory, the commit sends the object in one request instead.

    :param size: bytes of the object; ``None`` if unknown
    :param first_part: bytes of part 1
    """

    def __init__(
        self,
        writer: PartWriter,
        requests: Requests,
        size: int | None,
        first_part: int,
        pool: BufferPool,
        workers: WorkerPool,
    ) -> None:
        self._writer = writer
        self._requests = requests
        self._size = size
        self._pool = pool
        self._workers = workers
        #: Number of bytes so far, of the object and of the current part.
        self._offset = self._in_part = 0
        self._number = 1
        #: Full size of the current part in bytes; 0 until the writer was asked for it.
        self._part_size = first_part
        #: The current part: the chunks in memory, or a stream.
        self._gathered: list[Buffer] = []
        self._stream: StreamBody | None = None
        #: The token that the writer returned for each part, by number.
        self._tokens: dict[int, Any] = {}
        #: The whole object, if it is sent in one request.
        self._whole: MemoryBody | None = None

    def next_chunk_size(self) -> int:
        """Return the maximum size of the next chunk, so that it does not cross its part's end."""
        if self._offset == self._size:  # the next read only checks for the source's end
            return self._writer.chunk_size
        if not self._part_size:
            self._part_size = self._writer.part_size(self._number)
        return min(self._writer.chunk_size, self._part_size - self._in_part)

    def put(self, buffer: Buffer) -> None:
        if not self._in_part:
            self._begin_part()
        self._offset += len(buffer.data)
        self._in_part += len(buffer.data)
        if self._stream is not None:
            self._stream.feed(buffer)
        else:
            self._gathered.append(buffer)
        if self._in_part == self._part_size:
            self._end_part()

    def _begin_part(self) -> None:
        self._requests.meter.count_part()
        buffers = _chunks(self._writer, self._part_size)
        if self._pool.ensure(buffers, (self._writer.concurrency + 1) * buffers):
            return
        size = None if self._size is None else min(self._part_size, self._size - self._offset)
        self._stream = StreamBody(size, self._requests.failure, self._requests.clock)
        self._send(self._stream, self._stream.close)

    def _end_part(self) -> None:
        if self._stream is not None:
            self._stream.finish()
            self._stream = None
        else:
            gathered, self._gathered = self._gathered, []
            self._send(self._body_of(gathered), functools.partial(_release, gathered))
        self._number += 1
        self._in_part = self._part_size = 0

    def _body_of(self, buffers: list[Buffer]) -> MemoryBody:
        return MemoryBody([buffer.data for buffer in buffers], self._requests.clock)

    def _send(self, body: MemoryBody | StreamBody, on_done: Callable[[], object]) -> None:
        self._workers.put(functools.partial(self._put_part, self._number, body), on_done)

    def _put_part(self, number: int, body: MemoryBody | StreamBody) -> None:
        requests = self._requests
        put_part = functools.partial(self._writer.put_part, number)
        send = functools.partial(_send, put_part, body)
        try:
            with contextlib.suppress(BodyInterrupted):
                self._tokens[number] = requests.send(
                    send, f"part {number}", repeatable=body.rewindable
                )
                _check_sent(body, requests)
        finally:
            requests.clean_up_late()

    def finish(self) -> None:
        in_memory = self._number == 1 and self._stream is None
        if in_memory and self._in_part <= (self._writer.once_limit or 0):
            self._whole = self._body_of(self._gathered)
        elif self._in_part:
            self._end_part()
        self._workers.drain()

    def commit(self) -> Location:
        if self._whole is not None:
            commit = functools.partial(_send, self._writer.write_once, self._whole)
        else:
            tokens = [self._tokens[number] for number in sorted(self._tokens)]
            commit = functools.partial(self._writer.commit, tokens)
        return self._requests.commit(commit)

    def stop(self) -> None:
        if self._stream is not None:
            self._stream.finish()


class StreamSink(Sink):
    """Streams the object in one request; the last chunk is held back until the commit.

    :param size: bytes of the object; ``None`` if unknown
    """

    def __init__(
        self, writer: PartWriter, requests: Requests, size: int | None, workers: WorkerPool
    ) -> None:
        self._writer = writer
        self._requests = requests
        self._workers = workers
        self._body = StreamBody(size, requests.failure, requests.clock)
        self._last: Buffer | None = None
        self._location: Location | None = None

    def next_chunk_size(self) -> int:
        return self._writer.chunk_size

    def put(self, buffer: Buffer) -> None:
        if self._last is None:
            self._requests.meter.count_part()
            self._workers.put(self._send, self._body.close)
        else:
            self._body.feed(self._last)
        self._last = buffer

    def _send(self) -> None:
        send = functools.partial(_send, self._writer.write_once, self._body)
        try:
            with contextlib.suppress(BodyInterrupted):
                location = self._requests.commit(send, streamed=True)
                _check_sent(self._body, self._requests)
                self._location = location
        finally:
            self._requests.clean_up_late()

    def finish(self) -> None:
        """Send nothing, as the last chunk is sent by :meth:`commit`."""

    def commit(self) -> Location:
        assert self._last is not None
        self._body.feed(self._last)
        self._body.finish()
        self._workers.drain()
        assert self._location is not None
        return self._location

    def stop(self) -> None:
        self._body.finish()


def first_part_of(writer: PartWriter | PositionWriter, size: int | None) -> int | None:
    """Return the size of part 1, or ``None`` if the object is not sent in parts."""
    if isinstance(writer, PositionWriter) or writer.once_limit is None:
        return None
    if size is not None and size <= writer.once_limit:
        return None
    return writer.part_size(1)


def min_buffers(
    writer: PartWriter | PositionWriter, size: int | None, first_part: int | None, limit: int
) -> int:
    """Return the minimum number of buffers for an upload.

    A part that fits into ``limit`` bytes of memory is held there, so that it can be sent again.
    """
    if first_part is None:
        return MIN_BUFFERS
    buffers = _chunks(writer, first_part if size is None else min(first_part, size))
    return MIN_BUFFERS if buffers * writer.chunk_size > limit else max(MIN_BUFFERS, buffers)


def max_buffers(writer: PartWriter | PositionWriter, first_part: int | None) -> int:
    """Return the number of buffers that an upload can use: for all parts in flight and the next."""
    if first_part is None:
        return max(MIN_BUFFERS, writer.concurrency) + SPARE_BUFFERS
    return (writer.concurrency + 1) * _chunks(writer, first_part)


def open_sink(
    writer: PartWriter | PositionWriter,
    requests: Requests,
    size: int | None,
    first_part: int | None,
    pool: BufferPool,
    workers: WorkerPool,
) -> Sink:
    """Return the sink for an object that is larger than a chunk."""
    if isinstance(writer, PositionWriter):
        return PositionSink(writer, requests, workers)
    if first_part is None and size is not None and writer.once_limit is not None:
        # The object is sent in one request.  If it fits into memory it is held there, so that it
        # can be sent again.  It is treated as a part with one byte more, which is never full, so
        # that only the commit sends it.
        buffers = _chunks(writer, size + 1)
        if pool.ensure(buffers, buffers):
            first_part = size + 1
    if first_part is None:
        return StreamSink(writer, requests, size, workers)
    return PartSink(writer, requests, size, first_part, pool, workers)


def store_small(
    writer: PartWriter | PositionWriter, requests: Requests, data: memoryview | bytes
) -> Location:
    """Store and publish an object that is in memory, in the caller's thread."""
    if isinstance(writer, PartWriter):
        requests.meter.count_part()
        body = MemoryBody([data], requests.clock)
        return requests.commit(functools.partial(_send, writer.write_once, body))
    if len(data):
        if writer.reserved < len(data):
            _reserve(writer, requests, len(data))
        began = time.perf_counter()
        requests.guard.call(_write(writer, requests, 0, data))
        requests.meter.store += time.perf_counter() - began
    return requests.commit(functools.partial(writer.commit, len(data)))


def _reserve(writer: PositionWriter, requests: Requests, end: int) -> int:
    """Make room up to the position ``end``, in the caller's thread.

    Return the position up to which there is room.
    """
    requests.failure.check()
    reserve = functools.partial(requests.guard.call, functools.partial(writer.reserve, end))
    reserved = requests.send(reserve, f"making room up to {end}")
    requests.clock.progress()  # this may have created a volume, for which no stall limit applies
    return reserved


def _write(
    writer: PositionWriter, requests: Requests, offset: int, data: memoryview | bytes
) -> Callable[[], object]:
    """Return a call that writes a chunk except its holes."""
    if writer.hole_size:
        return functools.partial(_write_runs, writer, requests, offset, memoryview(data))
    requests.meter.count_part()
    write = functools.partial(writer.write_at, offset, data)
    return functools.partial(requests.send, write, f"writing at {offset}")


def _write_runs(writer: PositionWriter, requests: Requests, offset: int, chunk: memoryview) -> None:
    for start, length, is_hole in _runs(chunk, writer.hole_size or len(chunk)):
        position = offset + start
        if is_hole:
            zero = functools.partial(writer.zero, position, length)
            requests.send(zero, f"making a hole at {position}")
            requests.meter.count(holes=length)
        else:
            write = functools.partial(writer.write_at, position, chunk[start : start + length])
            requests.send(write, f"writing at {position}")
            requests.meter.count_part()


def _runs(view: memoryview, block: int) -> list[tuple[int, int, bool]]:
    """Split a chunk into runs of zeros and of data: ``(start, length, is_hole)``.

    Only whole blocks of ``block`` bytes become holes; a shorter last block counts as whole.
    """
    zeros = _zeros(block)
    whole = len(view)
    runs: list[tuple[int, int, bool]] = []
    for start in range(0, whole, block):
        length = min(block, whole - start)
        # Check the first bytes before the whole block, as this is enough for nearly all data.  The
        # comparison is of bytes, which is many times faster than of views.
        head = view[start : start + 64]
        is_hole = bytes(head) == zeros[: len(head)]
        if is_hole:
            is_hole = bytes(view[start : start + length]) == zeros[:length]
        if runs and runs[-1][2] is is_hole:
            first, before, _ = runs[-1]
            runs[-1] = (first, before + length, is_hole)
        else:
            runs.append((start, length, is_hole))
    return runs


@functools.lru_cache(maxsize=4)
def _zeros(block: int) -> bytes:
    return bytes(block)


def _send(request: Callable[[Body], R], body: MemoryBody | StreamBody) -> R:
    """Send a body from its start, even if it has been sent before."""
    if body.rewindable:
        body.seek(0)
    return request(body)


def _check_sent(body: MemoryBody | StreamBody, requests: Requests) -> None:
    """Check that a streamed request was not answered before its body was sent completely."""
    if isinstance(body, MemoryBody):
        return
    requests.meter.count(store=-body.waited)
    if not body.complete and requests.failure.error is None:
        raise BackendException(
            f"Expected the store to take the whole request, but it answered after {body.tell()} "
            "bytes. Check the server's limits and logs."
        )


def _chunks(writer: PartWriter | PositionWriter, size: int) -> int:
    return -(-size // writer.chunk_size)


def _release(buffers: list[Buffer]) -> None:
    for buffer in buffers:
        buffer.release()
