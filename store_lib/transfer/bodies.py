"""Request bodies, which client libraries read: in memory, or streamed."""

import io
import queue
import time
from collections.abc import Iterator, Sequence

from store_lib.exceptions import StoreError
from store_lib.transfer.buffers import Buffer, Failure
from store_lib.transfer.timeouts import TransferClock


class MemoryBody:
    """A body in memory, which can be sent again from the start."""

    rewindable = True

    def __init__(
        self, pieces: Sequence[memoryview | bytes], clock: TransferClock | None = None
    ) -> None:
        self._pieces = [memoryview(piece) for piece in pieces if len(piece)]
        self.size: int | None = sum(len(piece) for piece in self._pieces)
        self._length = self.size
        self._clock = clock
        self._position = 0

    def __len__(self) -> int:
        return self._length

    def read(self, amount: int | None = -1, /) -> bytes:
        """Return up to ``amount`` bytes; with -1 or ``None``, all remaining bytes."""
        left = self._length - self._position
        length = left if amount is None or amount < 0 else min(amount, left)
        data = b"".join(self._span(self._position, length))
        self._position += length
        if self._clock is not None:
            self._clock.progress()
        return data

    def _span(self, start: int, length: int) -> Iterator[memoryview]:
        for piece in self._pieces:
            if length <= 0:
                return
            if start < len(piece):
                part = piece[start : start + length]
                yield part
                length -= len(part)
                start = 0
            else:
                start -= len(piece)

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(1024 * 1024):
            yield piece

    def views(self) -> Iterator[memoryview]:
        """Yield the remaining bytes as views of the memory."""
        for view in list(self._span(self._position, self._length - self._position)):
            self._position += len(view)
            if self._clock is not None:
                self._clock.progress()
            yield view

    def seekable(self) -> bool:
        """Return true."""
        return True

    def readable(self) -> bool:
        """Return true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Change the position, and return the new one."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = min(max(0, base + offset), self._length)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


class BodyInterrupted(StoreError):
    """Raised by a body whose transfer has failed, so that its request publishes nothing."""

    message = "The transfer that fed this request has failed."


class StreamBody:
    """A body that one thread fills while another thread sends it.  It can be sent only once.

    The filling thread calls :meth:`feed` for each chunk, and then :meth:`finish`.  If the transfer
    fails, :meth:`read` raises an error.
    """

    rewindable = False

    def __init__(self, size: int | None, failure: Failure, clock: TransferClock) -> None:
        self.size = size
        self._failure = failure
        self._clock = clock
        self._queue: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        self._buffer: Buffer | None = None
        self._rest = memoryview(b"")
        self._position = 0
        self._ended = False
        #: Seconds that the sending thread has waited for chunks.
        self.waited = 0.0

    @property
    def complete(self) -> bool:
        """Whether the whole body has been read."""
        return self._ended or (self.size is not None and self._position == self.size)

    def feed(self, buffer: Buffer) -> None:
        """Add a chunk.  The buffer is released when it has been read."""
        self._queue.put(buffer)

    def finish(self) -> None:
        """End the body; after a failure, wake the reading thread."""
        self._queue.put(None)

    def read(self, amount: int | None = -1, /) -> bytes:
        """Return ``amount`` bytes, fewer only at the end; with -1 or ``None``, all that remain."""
        pieces: list[bytes] = []
        left = -1 if amount is None or amount < 0 else amount
        while left:
            if not len(self._rest) and not self._advance():
                break
            piece = self._rest if left < 0 else self._rest[:left]
            pieces.append(bytes(piece))
            self._rest = self._rest[len(piece) :]
            self._position += len(piece)
            if left > 0:
                left -= len(piece)
        self._clock.progress()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _advance(self) -> bool:
        """Continue with the next chunk; return whether there is one."""
        self._drop()
        if self._ended:
            return False
        began = time.perf_counter()
        buffer = self._queue.get()
        self.waited += time.perf_counter() - began
        if self._failure.error is not None:
            if buffer is not None:
                buffer.release()
            raise BodyInterrupted()
        if buffer is None:
            self._ended = True
            return False
        self._buffer = buffer
        self._rest = memoryview(buffer.data)
        return True

    def _drop(self) -> None:
        self._rest = memoryview(b"")
        if self._buffer is not None:
            self._buffer.release()
            self._buffer = None

    def close(self) -> None:
        """Release the chunks that have not been read."""
        self._drop()
        while True:
            try:
                buffer = self._queue.get_nowait()
            except queue.Empty:
                return
            if buffer is not None:
                buffer.release()

    def __iter__(self) -> Iterator[bytes]:
        while len(self._rest) or self._advance():
            piece = bytes(self._rest)
            self._position += len(piece)
            self._drop()
            self._clock.progress()
            yield piece

    def views(self) -> Iterator[memoryview]:
        """Yield the chunks as views, each of which is valid until the next."""
        while len(self._rest) or self._advance():
            view = self._rest
            self._rest = memoryview(b"")
            self._position += len(view)
            yield view
            self._clock.progress()

    def seekable(self) -> bool:
        """Return false."""
        return False

    def readable(self) -> bool:
        """Return true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Raise ``io.UnsupportedOperation``."""
        raise io.UnsupportedOperation("this body is streamed and cannot be sent again")

    def tell(self) -> int:
        """Return the number of bytes read so far."""
        return self._position
