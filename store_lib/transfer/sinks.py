"""The two ways of chunks into a writer: at positions, and gathered into parts or one request."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from store_lib.driver import PartWriter, PositionWriter
from store_lib.exceptions import BackendException, ErrorStatus, StoreError
from store_lib.location import Location
from store_lib.transfer.bodies import BodyInterrupted, MemoryBody, StreamBody
from store_lib.transfer.buffers import Buffer, BufferPool
from store_lib.transfer.retry import is_temporary
from store_lib.transfer.workers import WorkerPool

if TYPE_CHECKING:
    from store_lib.transfer.upload import Upload

#: Buffers a window has beyond what the writer's own concurrency needs: enough that the digests,
#: which run at different speeds, do not wait for each other.
SPARE_BUFFERS = 8
#: Buffers without which a transfer does not begin: one being filled while one is used.
MIN_BUFFERS = 2


def send_once(writer: PartWriter, body: MemoryBody) -> Location:
    """Send the whole object, from its start however often that was tried before."""
    body.seek(0)
    return writer.write_once(body)


class PositionSink:
    """Chunks written at their positions."""

    single_request = False

    def __init__(self, transfer: "Upload", writer: PositionWriter) -> None:
        self._transfer = transfer
        self._writer = writer
        self._reserved = writer.reserved
        self._offset = 0

    def min_buffers(self) -> int:
        return MIN_BUFFERS

    def max_buffers(self) -> int:
        return self._writer.concurrency + SPARE_BUFFERS

    def room(self) -> int:
        return self._writer.chunk_size

    def begin(self, pool: BufferPool, workers: WorkerPool) -> None:
        self._workers = workers

    def put(self, buffer: Buffer) -> None:
        end = self._offset + len(buffer.data)
        try:
            if end > self._reserved:
                if self._writer.quiesce_to_grow:
                    self._workers.drain()
                self._reserved = self._transfer.reserve(self._writer, end)
        except BaseException:
            buffer.release()
            raise
        self._workers.put(functools.partial(self._write, self._offset, buffer), buffer.release)
        self._offset = end

    def _write(self, offset: int, buffer: Buffer) -> None:
        self._transfer.write(self._writer, offset, buffer.data)

    def end(self) -> None:
        """The source has ended."""

    def release_last(self) -> None:
        """Nothing is held back."""

    def commit(self) -> Location:
        return self._transfer.commit(functools.partial(self._writer.commit, self._offset))

    def stop(self) -> None:
        """Nothing waits for chunks."""


class PartSink:
    """Chunks gathered into parts, or streamed in one request."""

    def __init__(self, transfer: "Upload", writer: PartWriter) -> None:
        self._transfer = transfer
        self._writer = writer
        self._size = transfer.spec.size
        self._number = 1
        self._tokens: dict[int, Any] = {}
        self._buffers: list[Buffer] = []
        self._in_part = 0
        self._stream: StreamBody | None = None
        self._held: Buffer | None = None
        self._once: MemoryBody | None = None
        self._location: Location | None = None
        limit = writer.once_limit
        #: Whether the whole object goes in one request whose last chunk waits for the verdict.
        self.single_request = limit is None or (self._size is not None and self._size <= limit)
        self._part_size = 0 if self.single_request else writer.part_size(1)

    def _chunks(self, size: int) -> int:
        return -(-size // self._writer.chunk_size)

    def min_buffers(self) -> int:
        """A part that fits the budget lies in memory, so that it can be sent again."""
        size = self._part_size if self._size is None else min(self._part_size, self._size)
        buffers = self._chunks(size)
        if buffers * self._writer.chunk_size > self._transfer.spec.budget.limit:
            return MIN_BUFFERS
        return max(MIN_BUFFERS, buffers)

    def max_buffers(self) -> int:
        """Enough for every part in flight, and one that is being filled."""
        if self.single_request:
            return MIN_BUFFERS + SPARE_BUFFERS
        return (self._writer.concurrency + 1) * self._chunks(self._part_size)

    def room(self) -> int:
        """Bytes that the next chunk may have, so that it ends with its part."""
        if self.single_request or (self._transfer.total == self._size):
            return self._writer.chunk_size
        if not self._part_size:
            self._part_size = self._writer.part_size(self._number)
        return min(self._writer.chunk_size, self._part_size - self._in_part)

    def begin(self, pool: BufferPool, workers: WorkerPool) -> None:
        self._pool = pool
        self._workers = workers
        if self.single_request and self._size is not None and self._writer.once_limit is not None:
            # Where memory has room, the whole lies there, so that it can be sent again.  As a
            # part with room for a byte more it is never full, and goes after the verdict.
            chunks = self._chunks(self._size + 1)
            if self._pool.ensure(chunks, chunks):
                self.single_request = False
                self._part_size = self._size + 1

    def put(self, buffer: Buffer) -> None:
        if self.single_request:
            self._put_single(buffer)
            return
        if not self._in_part:
            self._open_part(self._transfer.total - len(buffer.data))
        self._in_part += len(buffer.data)
        if self._stream is not None:
            self._stream.feed(buffer)
        else:
            self._buffers.append(buffer)
        if self._in_part == self._part_size:
            self._close_part()

    def _put_single(self, buffer: Buffer) -> None:
        """Stream, one chunk behind: the last one is sent after the verdict."""
        if self._stream is None:
            self._transfer.meter.count(parts=1)
            self._stream = StreamBody(self._size, self._transfer.failure, self._transfer.watch)
            self._workers.put(functools.partial(self._send_all, self._stream), self._stream.close)
        if self._held is not None:
            self._stream.feed(self._held)
        self._held = buffer

    def _send_all(self, body: StreamBody) -> None:
        try:
            with contextlib.suppress(BodyInterrupted):
                location = self._transfer.publish(
                    lambda: self._writer.write_once(body), repeatable=False
                )
                self._check_sent(body)
                self._location = location
        finally:
            self._transfer.clean_up_again()

    def _check_sent(self, body: StreamBody) -> None:
        """Account for a streamed request, and refuse one that was answered before its end."""
        self._transfer.meter.count(store=-body.waited)
        if not body.complete and self._transfer.failure.error is None:
            raise BackendException(
                f"Expected the store to take the whole request, but it answered after "
                f"{body.tell()} bytes. Check the server's limits and logs."
            )

    def _open_part(self, start: int) -> None:
        self._transfer.meter.count(parts=1)
        chunks = self._chunks(self._part_size)
        if self._pool.ensure(chunks, (self._writer.concurrency + 1) * chunks):
            return
        size = None if self._size is None else min(self._part_size, self._size - start)
        self._stream = StreamBody(size, self._transfer.failure, self._transfer.watch)
        self._send(self._stream, self._stream.close)

    def _close_part(self) -> None:
        if self._stream is not None:
            self._stream.finish()
            self._stream = None
        else:
            buffers, self._buffers = self._buffers, []
            body = MemoryBody([buffer.data for buffer in buffers], self._transfer.watch)
            self._send(body, functools.partial(_release, buffers))
        self._number += 1
        self._in_part = self._part_size = 0

    def _send(self, body: MemoryBody | StreamBody, on_done: Callable[[], object]) -> None:
        self._workers.put(functools.partial(self._put_part, self._number, body), on_done)

    def _put_part(self, number: int, body: MemoryBody | StreamBody) -> None:
        try:
            self._send_part(number, body)
        finally:
            self._transfer.clean_up_again()

    def _send_part(self, number: int, body: MemoryBody | StreamBody) -> None:
        if isinstance(body, MemoryBody):

            def send() -> Any:
                body.seek(0)
                return self._writer.put_part(number, body)

            self._tokens[number] = self._transfer.request(send, f"part {number}")
            return
        with contextlib.suppress(BodyInterrupted):
            try:
                self._tokens[number] = self._writer.put_part(number, body)
            except StoreError as error:
                if is_temporary(error):
                    error.status = ErrorStatus.EXHAUSTED  # what was sent is gone
                raise
            self._check_sent(body)

    def end(self) -> None:
        """The source has ended; what turned out small goes in one request after the verdict."""
        if not self._in_part:
            return
        limit = self._writer.once_limit
        in_memory = self._stream is None and self._number == 1
        if in_memory and limit is not None and self._in_part <= limit:
            pieces = [buffer.data for buffer in self._buffers]
            self._once = MemoryBody(pieces, self._transfer.watch)
        else:
            self._close_part()

    def release_last(self) -> None:
        """The verdict is in: send what was held back."""
        if self._stream is not None:
            if self._held is not None:
                self._stream.feed(self._held)
                self._held = None
            self._stream.finish()

    def commit(self) -> Location:
        if self._once is not None:
            return self._transfer.commit(functools.partial(send_once, self._writer, self._once))
        if self.single_request:
            assert self._location is not None
            return self._location
        tokens = [self._tokens[number] for number in sorted(self._tokens)]
        return self._transfer.commit(functools.partial(self._writer.commit, tokens))

    def stop(self) -> None:
        """Wake up who waits for chunks that will not come, and release what is held."""
        if self._stream is not None:
            self._stream.finish()
        if self._held is not None:
            self._held.release()
            self._held = None
        _release(self._buffers)
        self._buffers = []


def _release(buffers: Sequence[Buffer]) -> None:
    for buffer in buffers:
        buffer.release()
