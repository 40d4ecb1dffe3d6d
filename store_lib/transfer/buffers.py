"""A bounded number of buffers for the chunks of one transfer."""

import mmap
import threading
import time
from typing import Self

from store_lib.exceptions import StoreError
from store_lib.transfer.budget import Reservation
from store_lib.transfer.timeouts import TransferClock


class Stopped(StoreError):
    """Ends the threads of a transfer that has failed; it never reaches the caller."""

    message = "The transfer was stopped."


class Failure:
    """The first error of a transfer, which all its threads see."""

    __slots__ = ("abandoned", "error", "event")

    def __init__(self) -> None:
        #: Whether a call still hung when all other threads had ended.
        self.abandoned = False
        self.error: BaseException | None = None
        #: Set with the error, so that it ends pauses; ``None`` while there are no threads.
        self.event: threading.Event | None = None

    def set(self, error: BaseException) -> None:
        """Keep ``error``, unless there is an earlier one."""
        if self.error is None:
            self.error = error
            if self.event is not None:
                self.event.set()

    def check(self) -> None:
        """Raise the error, if there is one; called only from the caller's thread."""
        error = self.error
        if error is not None:
            # Were it kept here, it would keep alive the frames that it passes, and with them the
            # object whose collection ends the threads.
            self.error = Stopped()
            raise error


class Buffer:
    """Memory for one chunk.

    The reading thread fills it, others use the chunk, and after the last of them it is free again.
    """

    __slots__ = ("_capacity", "_memory", "_pool", "_users", "data")

    def __init__(self, capacity: int, pool: "BufferPool | None" = None) -> None:
        self._pool = pool
        self._capacity = capacity
        self._memory: mmap.mmap | None = None
        self._users = 0
        #: The chunk: a view of the buffer's own memory, or bytes of the source.
        self.data: memoryview | bytes = b""

    def view(self) -> memoryview:
        """Return the buffer's own memory, to be filled."""
        if self._memory is None:
            # Not from the heap: memory that many threads free there stays with the process.
            self._memory = mmap.mmap(-1, self._capacity, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return memoryview(self._memory)

    def drop(self) -> None:
        """Free the memory, once no view of it is left."""
        self._memory = None
        self.data = b""

    def wrap(self, data: memoryview | bytes) -> None:
        """Hold ``data``, which never changes, instead of memory of its own."""
        self._memory = None
        self.data = data

    def retain(self, users: int) -> None:
        """Set how many times :meth:`release` will be called."""
        self._users = users

    def release(self) -> None:
        """End one use; after the last the buffer is free again."""
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

    :param minimum: how many buffers the reservation covers
    :param maximum: how many there may be if the budget has memory to spare
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
        #: Seconds in which :meth:`take` waited.
        self.waited = 0.0
        self.budget.register(self)

    def take(self) -> Buffer:
        """Wait for a free buffer and return it.  Raise the transfer's failure, if there is one.

        :raises TransferStalled: no buffer became free for too long
        :raises DeadlineExceeded: the transfer takes too long
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
        """Free unused buffers, down to those without which the transfer cannot go on.

        Called by a thread that waits for memory, and by one that frees a buffer meanwhile.
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

        :param maximum: how many buffers there may be from now on, at least
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
        """Whether the parent created it before a fork, which may have left its locks locked."""
        return self._reservation.inherited

    def close(self) -> None:
        """Free all memory now.  Buffers and pool refer to each other, and would linger."""
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
        """Have a waiting :meth:`take` check for a failure."""
        with self.changed:
            self.changed.notify_all()
