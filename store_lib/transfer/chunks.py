"""The chunks of one transfer: a bounded number of buffers, filled by one thread, used by many."""

import mmap
import threading
import time

from store_lib.exceptions import StoreError
from store_lib.transfer.budget import Reservation
from store_lib.transfer.report import Meter
from store_lib.transfer.timeouts import TransferClock


class Stopped(StoreError):
    """Tells the threads of a transfer that it is over; nobody else sees it."""

    message = "The transfer was stopped."


class Failure:
    """The first error of a transfer, told to all its threads."""

    __slots__ = ("error", "event")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        #: Set with the error, so that pauses end on it; there once there are threads.
        self.event: threading.Event | None = None

    def set(self, error: BaseException) -> None:
        """Keep ``error`` unless an earlier one is kept."""
        if self.error is None:
            self.error = error
            if self.event is not None:
                self.event.set()

    def check(self) -> None:
        """Raise the error, if there is one; called by the caller's thread alone."""
        error = self.error
        if error is not None:
            # Whoever raises it has it.  Kept here, it would keep alive the frames that it passes,
            # and with them what ends the threads.
            self.error = Stopped()
            raise error


class Slot:
    """Room for one chunk; goes round between the reading thread and those that use the chunk."""

    __slots__ = ("_buffer", "_capacity", "_pool", "_users", "data")

    def __init__(self, capacity: int, pool: "Pool | None" = None) -> None:
        self._pool = pool
        self._capacity = capacity
        self._buffer: mmap.mmap | None = None
        self._users = 0
        #: The chunk: a view of the slot's own buffer, or bytes that the source made.
        self.data: memoryview | bytes = b""

    def view(self) -> memoryview:
        """Return the whole of the slot's own buffer, to be filled."""
        if self._buffer is None:
            # Not from the heap: what many threads free there stays with the process.
            self._buffer = mmap.mmap(-1, self._capacity, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return memoryview(self._buffer)

    def drop(self) -> None:
        """Let go of the memory; whoever still looks at it keeps it for as long."""
        self._buffer = None
        self.data = b""

    def lend(self, data: memoryview | bytes) -> None:
        """Hold ``data``, which nobody will alter, instead of a buffer of the slot's own."""
        self._buffer = None
        self.data = data

    def share(self, users: int) -> None:
        """Say how many times :meth:`release` will be called."""
        self._users = users

    def release(self) -> None:
        """One user is done; after the last the slot is free again."""
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
        pool.watch.progress()


class Pool:
    """The slots of one transfer, made one by one as they are wanted.

    :param minimum: how many the reservation covers already
    :param maximum: how many there may be when the budget has them to spare
    """

    def __init__(
        self,
        chunk_size: int,
        reservation: Reservation,
        *,
        minimum: int,
        maximum: int,
        watch: TransferClock,
        failure: Failure,
        meter: Meter,
    ) -> None:
        self.chunk_size = chunk_size
        self.watch = watch
        self.free: list[Slot] = []
        self.changed = threading.Condition()
        self.budget = reservation.budget
        self._reservation = reservation
        self._covered = self._least = minimum
        self._maximum = max(minimum, maximum)
        self._slots: list[Slot] = []
        self._failure = failure
        self._meter = meter
        self.budget.register(self)

    def take(self) -> Slot:
        """Wait for a free slot and return it; raise what any thread of the transfer raised.

        :raises TransferStalled: no slot became free for too long
        :raises DeadlineExceeded: the transfer takes too long
        """
        with self.changed:
            if self._failure.error is None and self.free:
                return self.free.pop()
            waited = 0.0
            try:
                while True:
                    self._failure.check()
                    if self.free:
                        return self.free.pop()
                    made = len(self._slots)
                    if made < self._maximum and self._cover(made + 1):
                        slot = Slot(self.chunk_size, self)
                        self._slots.append(slot)
                        return slot
                    began = time.perf_counter()
                    self.changed.wait(self.watch.remaining())
                    waited += time.perf_counter() - began
                    if not self.free:
                        self.watch.check()
            finally:
                self._meter.wait += waited

    def give_back(self) -> None:
        """Let go of slots that nobody uses, down to those without which the transfer cannot go on.

        Called by whoever waits for memory, and by whoever frees a slot while somebody does.
        """
        with self.changed:
            spare = self._covered - self._least
            idle = self._covered - len(self._slots)
            while spare > idle and self.free:
                slot = self.free.pop()
                self._slots.remove(slot)
                slot.drop()
                idle += 1
            count = min(spare, idle)
            if count > 0:
                self._covered -= count
                self._reservation.shrink(count * self.chunk_size)

    def hold(self, number: int, maximum: int) -> bool:
        """Make sure that ``number`` slots can be held at once; say whether they can.

        :param maximum: how many there may be from now on, at least
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

    def close(self) -> None:
        """Let go of all memory now: slots and pool refer to each other, and would linger."""
        self.budget.unregister(self)
        with self.changed:
            slots, self._slots = self._slots, []
            self.free.clear()
        for slot in slots:
            slot.drop()

    def wake(self) -> None:
        """Let a waiting :meth:`take` look at the failure."""
        with self.changed:
            self.changed.notify_all()
