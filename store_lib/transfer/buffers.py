"""The buffers for the chunks of one transfer, whose number is limited."""

import mmap
import threading
import time
from typing import Self

from store_lib.exceptions import StoreError
from store_lib.transfer.budget import Reservation
from store_lib.transfer.timeouts import TransferClock


class Stopped(StoreError):
    """Raised to end the threads of a transfer that has failed; the caller never gets it."""

    message = "The transfer was stopped."


class Failure:
    """Holds the first error of a transfer for all of the transfer's threads."""

    __slots__ = ("abandoned", "error", "event")

    def __init__(self) -> None:
        #: Whether a call was still hanging when the transfer's other threads had ended.
        self.abandoned = False
        self.error: BaseException | None = None
        #: Set when there is an error, to end pauses; ``None`` while there are no threads.
        self.event: threading.Event | None = None

    def set(self, error: BaseException) -> None:
        """Keep ``error`` unless there is an earlier error."""
        if self.error is None:
            self.error = error
            if self.event is not None:
                self.event.set()

    def check(self) -> None:
        """Raise the error if there is one.  Only the caller's thread may call this."""
        error = self.error
        if error is not None:
            # The error is not kept here after that: it would keep the frames of its traceback
            # alive, and with them the object whose collection ends the threads.
            self.error = Stopped()
            raise error


class Buffer:
    """Memory for one chunk.

    The reading thread fills the buffer and other threads use the chunk.  After the last use the
    buffer is free again.
    """

    __slots__ = ("_capacity", "_memory", "_pool", "_users", "data")

    def __init__(self, capacity: int, pool: "BufferPool | None" = None) -> None:
        self._pool = pool
        self._capacity = capacity
        self._memory: mmap.mmap | None = None
        self._users = 0
        #: The chunk: a view of the buffer's own memory, or bytes that the source has returned.
        self.data: memoryview | bytes = b""

    def view(self) -> memoryview:
        """Return the buffer's own memory, to be filled."""
        if self._memory is None:
            # This is not heap memory: if many threads free that, the process keeps it.
            self._memory = mmap.mmap(-1, self._capacity, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return memoryview(self._memory)

    def drop(self) -> None:
        """Drop the memory; it is freed when no view of it is left."""
        self._memory = None
        self.data = b""

    def wrap(self, data: memoryview | bytes) -> None:
        """Hold ``data``, which never changes, in place of the buffer's own memory."""
        self._memory = None
        self.data = data

    def retain(self, users: int) -> None:
        """Set how many times :meth:`release` will be called."""
        self._users = users

    def release(self) -> None:
        """End one use; after the last one, the buffer is free again."""
        pool = self._pool
        if pool is None:
            return
        with pool.changed:
            self._users -= 1
            if self._users <= 0:
                self.data = b""
                pool.free.append(self)
                pool.changed.notify()
        if pool.budget.contended:
            pool.give_back()
        pool.clock.progress()


class BufferPool:
    """The buffers of one transfer, allocated as they are needed.

    :param minimum: number of buffers that the reservation covers
    :param maximum: maximum number of buffers if the budget has memory to spare
    """

    def __init__(
        self,
        chunk_size: int,
        reservation: Reservation,
        *,
        minimum: int,
        maximum: int,
        clock: TransferClock,
        failure: Failure,
    ) -> None:
        self.chunk_size = chunk_size
        self.clock = clock
        self.free: list[Buffer] = []
        self.changed = threading.Condition()
        self.budget = reservation.budget
        self._reservation = reservation
        self._covered = self._least = minimum
        self._maximum = max(minimum, maximum)
        self._buffers: list[Buffer] = []
        self.failure = failure
        #: Seconds that :meth:`take` has waited.
        self.waited = 0.0
        self.budget.register(self)

    def take(self) -> Buffer:
        """Wait for a free buffer and return it.  If the transfer has failed, raise its error.

        :raises TransferStalled: no buffer became free for too long
        :raises DeadlineExceeded: the transfer's deadline has passed
        """
        with self.changed:
            if self.failure.error is None and self.free:
                return self.free.pop()
            waited = 0.0
            try:
                while True:
                    self.failure.check()
                    if self.free:
                        return self.free.pop()
                    count = len(self._buffers)
                    if count < self._maximum and self._cover(count + 1):
                        buffer = Buffer(self.chunk_size, self)
                        self._buffers.append(buffer)
                        return buffer
                    began = time.perf_counter()
                    self.changed.wait(self.clock.remaining())
                    waited += time.perf_counter() - began
                    if not self.free:
                        self.clock.check()
            finally:
                self.waited += waited

    def give_back(self) -> None:
        """Free unused buffers beyond those without which the transfer cannot go on.

        Called by a thread that waits for memory, and by a thread that releases a buffer while
        another transfer waits.
        """
        with self.changed:
            spare = self._covered - self._least
            idle = self._covered - len(self._buffers)
            while spare > idle and self.free:
                buffer = self.free.pop()
                self._buffers.remove(buffer)
                buffer.drop()
                idle += 1
            count = min(spare, idle)
            if count > 0:
                self._covered -= count
                self._reservation.shrink(count * self.chunk_size)

    def ensure(self, number: int, maximum: int) -> bool:
        """Reserve memory for ``number`` buffers; return whether there is enough.

        :param maximum: raises the maximum number of buffers to at least this
        """
        with self.changed:
            if not self._cover(number):
                return False
            self._least = max(number, self._least)
            self._maximum = max(self._maximum, number, maximum)
            return True

    def _cover(self, number: int) -> bool:
        missing = number - self._covered
        if missing <= 0:
            return True
        if not self._reservation.grow(missing * self.chunk_size):
            return False
        self._covered = number
        return True

    @property
    def inherited(self) -> bool:
        """Whether it was created in the parent before a fork; then its locks may stay locked."""
        return self._reservation.inherited

    def close(self) -> None:
        """Free all memory now.

        Without this it would be kept until a garbage collection, as buffers and pool refer to each
        other.
        """
        if self.inherited:
            return
        self.budget.unregister(self)
        with self.changed:
            buffers, self._buffers = self._buffers, []
            self.free.clear()
        for buffer in buffers:
            buffer.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wake(self) -> None:
        """Make a waiting :meth:`take` check for a failure."""
        with self.changed:
            self.changed.notify_all()
