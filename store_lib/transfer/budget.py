"""The memory budget, which limits the total size of the buffers of a process's transfers."""

import bisect
import contextlib
import itertools
import queue
import threading
import time
import weakref
from collections import deque
from typing import Protocol, Self

from store_lib.clients.process import LiveObjects
from store_lib.exceptions import TransferStalled
from store_lib.options import MEMORY_LIMIT
from store_lib.transfer.timeouts import TransferClock

MIB = 1024 * 1024
#: Bytes that a reader fetches at a time when memory is short, and the minimum of that.
SHORT_PIECE = 64 * 1024
LEAST_PIECE = 4 * 1024
#: Maximum seconds that a transfer without a stall limit waits for memory.
LONGEST_WAIT = 300.0


class Lender(Protocol):
    """A transfer that may hold more than its minimum."""

    def give_back(self) -> None:
        """Give back everything beyond the minimum; called by a thread that waits for memory."""


class _Holder:
    """A thread that holds minimums.  This is not the thread's identifier, which can be reused."""

    __slots__ = ("minimums",)

    def __init__(self) -> None:
        self.minimums = 0


class _Waiter:
    """A transfer that waits for memory.  It is woken when its request may be granted."""

    __slots__ = ("__weakref__", "_woken", "amount")

    def __init__(self, amount: int) -> None:
        self.amount = amount
        # This is not an Event: while its lock is held, garbage collection may run, give memory
        # back and call wake(), which would then wait for that lock.
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wake(self) -> None:
        """End the current wait, or else the next one."""
        if self._woken.empty():
            self._woken.put(None)

    def wait(self, seconds: float) -> None:
        """Wait for :meth:`wake`, for at most ``seconds``."""
        with contextlib.suppress(queue.Empty):
            self._woken.get(timeout=seconds)


class Budget:
    """A number of bytes, shared so that no transfer has to wait for the slow client of another.

    * A transfer reserves its minimum, the memory without which it cannot run, in one step before it
      reads.  Transfers get their minimums in the order of arrival.
    * A transfer takes more memory (a wider window, prefetched ranges) only if it is free, and gives
      it back as soon as another transfer waits.  So no transfer holds memory while it waits for
      more, and all waits are for minimums.
    * Every wait is limited: it ends with an error after the transfer's stall limit, or
      :data:`LONGEST_WAIT`.
    * A thread that already holds a minimum does not wait for another one, which could be a wait for
      itself: the source of its transfer may be another transfer.

    How much may be used:

    * Memory beyond minimums is granted up to three quarters of the limit, so that there is room for
      minimums.
    * Minimums are granted up to seven eighths of the limit.  If no other minimum is held, one of
      any size is granted.
    * The last eighth is for small minimums, each up to a quarter of what is left of the eighth, so
      that there is always room for a smaller one.  These overtake larger ones that wait.

    When memory is given back, only two waiters are woken, as only these may be granted theirs: the
    first one, and the one with the smallest amount.

    Every change of the numbers is a single assignment, and a reservation that is dropped gives its
    memory back, so an interrupt (an exception from a signal handler) loses nothing.
    """

    def __init__(self, limit: int | None = None) -> None:
        """
        :param limit: bytes; by default, the default of ``transfer_memory_limit``
        """
        self._limit: int = MEMORY_LIMIT.default * MIB if limit is None else limit
        self._asked: int | None = None
        self._reset()
        _BUDGETS.add(self)

    def _reset(self) -> None:
        """Set the initial state, also in the child after a fork."""
        self._used = 0
        #: Bytes of the minimums that were granted from the last eighth.
        self._small = 0
        #: The waiters in the order of arrival, and then sorted by amount.
        self._queue: deque[weakref.ref[_Waiter]] = deque()
        self._by_amount: list[tuple[int, int, weakref.ref[_Waiter]]] = []
        self._arrivals = itertools.count()
        #: Number of minimums that are held, and the holder of each thread.
        self._minimums = 0
        self._thread = threading.local()
        #: The open transfers, which can give memory back.
        self._open: dict[int, weakref.ref[Lender]] = {}
        # The lock is re-entrant, as garbage collection may run while a thread holds it, and a
        # collected reader gives memory back.
        self._lock = threading.RLock()

    @property
    def limit(self) -> int:
        """The limit in bytes."""
        return self._limit

    @property
    def used(self) -> int:
        """The number of bytes that are held now."""
        return self._used

    @property
    def contended(self) -> bool:
        """Whether any transfer waits."""
        return bool(self._queue) and self._first() is not None

    def _first(self) -> _Waiter | None:
        """Return the waiter that arrived first; under the lock."""
        with self._lock:
            while self._queue:
                first = self._queue[0]()
                if first is not None:
                    return first
                self._queue.popleft()  # an interrupt has ended this wait
        return None

    def _least(self) -> _Waiter | None:
        """Return the waiter for the smallest amount; under the lock."""
        while self._by_amount:
            least = self._by_amount[0][2]()
            if least is not None:
                return least
            del self._by_amount[0]
        return None

    def _wake(self) -> None:
        """Wake the waiters whose minimum can be granted; under the lock.

        A waiter that is woken takes its memory, leaves the queue, and wakes the next one.
        """
        first = self._first()
        if first is not None and (self._fits(first.amount) or not self._minimums):
            first.wake()
        least = self._least()
        if least is not None and self._is_small(least.amount):
            least.wake()

    def _holder(self) -> _Holder:
        """Return the holder of this thread."""
        try:
            holder: _Holder = self._thread.holder
        except AttributeError:
            holder = self._thread.holder = _Holder()
        return holder

    def set_limit(self, limit: int) -> None:
        """Set the limit.  After several calls, the largest limit applies."""
        with self._lock:
            self._limit = limit if self._asked is None else max(self._asked, limit)
            self._asked = self._limit
            self._wake()

    def reserve(self, amount: int, clock: TransferClock | None = None) -> "Reservation":
        """Wait until ``amount`` bytes are free, and take them.

        :param clock: the transfer's clock, whose limits end the wait
        :raises TransferStalled: the wait took too long
        :raises DeadlineExceeded: the transfer's deadline has passed
        """
        reservation = Reservation(self)
        reservation.minimum = True
        reservation.take(amount, clock)
        return reservation

    def available(self, amount: int) -> bool:
        """Return whether a minimum of ``amount`` bytes can be reserved without waiting."""
        with self._lock:
            return self._may_have(amount, not self.contended) or self._is_small(amount)

    def register(self, lender: "Lender") -> None:
        """Add a transfer that can give memory back when another one waits."""
        self._open[id(lender)] = weakref.ref(lender)

    def unregister(self, lender: "Lender") -> None:
        """Remove a transfer that :meth:`register` has added."""
        self._open.pop(id(lender), None)

    @property
    def piece_size(self) -> int:
        """The number of bytes that each open reader may hold for its caller."""
        return max(SHORT_PIECE, self._limit // 4 // (len(self._open) or 1))

    def _fits(self, amount: int) -> bool:
        """Return whether the first waiter can be granted a minimum of ``amount`` bytes."""
        most = self._limit - self._limit // 8
        held = self._used - self._small
        return not held or held + amount <= most

    def _may_have(self, amount: int, first: bool) -> bool:
        """Return whether this thread can be granted a minimum of ``amount`` bytes now.

        That is if it is the first waiter and there is room, or if it holds a minimum already and so
        must not wait.

        :param first: whether it is the first waiter
        """
        return (first and self._fits(amount)) or bool(self._holder().minimums)

    def _is_small(self, amount: int) -> bool:
        """Return whether a minimum can be granted from the last eighth."""
        return 4 * amount <= self._limit // 8 - self._small

    def _grant(
        self, reservation: "Reservation", amount: int, first: bool, *, called_in: bool = False
    ) -> bool:
        """Grant a minimum if possible; return whether it was granted.

        :param first: whether the transfer is the first waiter
        :param called_in: whether the other transfers have given back what they can; from then on
            the transfer waits only for the minimums of others, and not for memory that readers
            still hold
        """
        if self._may_have(amount, first) or (first and called_in and not self._minimums):
            reservation.add(amount)
        elif self._is_small(amount):
            reservation.add(amount, small=True)
        else:
            return False
        if reservation.minimum:
            reservation.hold()
        return True

    def _wait(self, reservation: "Reservation", amount: int, clock: TransferClock | None) -> None:
        patience = (clock.limits.stall if clock else 0) or LONGEST_WAIT
        end = time.monotonic() + patience
        waiter = _Waiter(amount)
        me = weakref.ref(waiter)
        entry = amount, next(self._arrivals), me
        try:
            with self._lock:
                self._queue.append(me)
                bisect.insort(self._by_amount, entry)
            self._call_in(amount)
            while True:
                with self._lock:
                    first = self._first() is waiter
                    if self._grant(reservation, amount, first, called_in=True):
                        return
                left = end - time.monotonic()
                if left <= 0:
                    raise self._starved(patience, amount)
                ends = clock.remaining(stall=False) if clock else None
                waiter.wait(left if ends is None else min(left, ends))
                if clock:
                    clock.check(stall=False)
        finally:
            with self._lock:
                if me in self._queue:
                    self._queue.remove(me)
                at = bisect.bisect_left(self._by_amount, entry)
                if self._by_amount[at : at + 1] == [entry]:
                    del self._by_amount[at]
                self._wake()

    def _call_in(self, amount: int) -> None:
        """Make other transfers give back what they hold beyond minimums, until it is enough.

        Enough is when ``amount`` bytes are free.  The lock must not be held, as every lender has
        its own lock.
        """
        for reference in list(self._open.values()):
            with self._lock:
                if self._fits(amount):
                    return
            lender = reference()
            if lender is not None:
                lender.give_back()

    def _starved(self, patience: float, amount: int) -> TransferStalled:
        return TransferStalled(
            f"No memory for {patience:g} s: a transfer needs {amount} bytes, and others hold "
            f"{self._used} of {self._limit} (transfer_memory_limit). Raise it, or find out which "
            "clients or stores are so slow."
        )


class Reservation:
    """The memory that one transfer holds.  A context manager, which gives it back at its end."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.amount = 0
        #: Whether this includes a transfer's minimum.
        self.minimum = False
        self._small = 0
        self._holder: _Holder | None = None
        self._generation = budget._lock

    @property
    def inherited(self) -> bool:
        """Whether it was created in the parent before a fork; then it neither grows nor shrinks."""
        return self._generation is not self.budget._lock

    def take(self, amount: int, clock: TransferClock | None = None) -> None:
        """Take ``amount`` bytes, as :meth:`Budget.reserve` does."""
        budget = self.budget
        with budget._lock:
            if budget._grant(self, amount, not budget.contended):
                return
        budget._wait(self, amount, clock)

    def take_piece(self, wanted: int, clock: TransferClock) -> int:
        """Take memory for the next piece of a reader, and return the number of bytes.

        These are ``wanted`` bytes if they are free, or else a small number from the last eighth, so
        that no reader has to wait for a slow client either.
        """
        if self.grow(wanted):
            return wanted
        budget = self.budget
        with budget._lock:
            share = budget._limit // 8 - budget._small
            amount = min(wanted, max(LEAST_PIECE, min(SHORT_PIECE, share // 4)))
        self.take(amount, clock)
        return amount

    def hold(self) -> None:
        """Record that this thread holds a minimum; under the budget's lock."""
        budget = self.budget
        holder = budget._holder()
        mine, minimums = holder.minimums + 1, budget._minimums + 1
        self._holder, holder.minimums, budget._minimums = holder, mine, minimums

    def grow(self, amount: int) -> bool:
        """Take ``amount`` more bytes if they are free and no transfer waits.

        Return whether they were taken.
        """
        budget = self.budget
        if self._generation is not budget._lock:
            return False  # in a child nothing is given back, so nothing may be taken
        with budget._lock:
            used = budget._used + amount
            if used > budget._limit - budget._limit // 4 or budget.contended:
                return False
            self.amount, budget._used = self.amount + amount, used
            return True

    def shrink(self, amount: int) -> None:
        """Give ``amount`` bytes back."""
        budget = self.budget
        if self._generation is not budget._lock:
            return  # the child's budget does not count this memory
        with budget._lock:
            amount = min(amount, self.amount)
            self.add(-amount)
            if budget._queue:
                budget._wake()

    def release(self) -> None:
        """Give all memory back; further calls do nothing."""
        budget = self.budget
        if self._generation is not budget._lock:
            return
        with budget._lock:
            holder = self._holder
            if holder is not None:
                its, minimums = holder.minimums - 1, budget._minimums - 1
                self._holder, holder.minimums, budget._minimums = None, its, minimums
            self.add(-self.amount)
            if budget._queue:
                budget._wake()

    def add(self, amount: int, *, small: bool = False) -> None:
        """Add ``amount``, which may be negative, to the bytes held; under the budget's lock."""
        budget = self.budget
        mine, used = self.amount + amount, budget._used + amount
        if not (small or self._small):
            self.amount, budget._used = mine, used
            return
        ours = self._small + amount if small else min(self._small, mine)
        least = budget._small + ours - self._small
        self.amount, self._small, budget._used, budget._small = mine, ours, used, least

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        if getattr(self, "amount", 0) or getattr(self, "_holder", None) is not None:
            self.release()


_BUDGETS = LiveObjects(in_child=Budget._reset)

#: The budget of all transfers of the process whose stores were not given another one.
PROCESS_BUDGET = Budget()
