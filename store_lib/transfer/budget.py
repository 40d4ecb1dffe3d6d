"""The memory that all transfers of a process may hold in buffers together."""

import os
import threading
from collections import deque
from types import TracebackType
from typing import Self

from store_lib.transfer.limits import Watch

MIB = 1024 * 1024
DEFAULT_LIMIT = 256 * MIB


class Budget:
    """A number of bytes, handed out so that transfers cannot dead-lock over it.

    The rule: a transfer reserves its minimum in one piece, before it reads, and waits for that
    in the order of arrival; everything further it takes only when it can be had at once.  So
    nobody holds some memory while waiting for more.  A minimum larger than the whole budget is
    granted when nobody else holds anything.  A thread that holds a reservation already (its
    source is itself a transfer) is not made to wait for itself.  What was read ahead is given
    back only once its caller comes for it, who may be that very thread, or a client that
    sleeps: where nothing else is held a minimum is granted beside it.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._asked: int | None = None
        self._reset()

    def _reset(self) -> None:
        """Forget everything: at the start, and in the child after a fork."""
        self._used = 0
        #: Bytes of those that hold what was read ahead.
        self._ahead = 0
        self._queue: deque[object] = deque()
        self._holders: dict[int, int] = {}
        # Re-entrant: a reader that is collected while its thread is in here gives memory back.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    @property
    def limit(self) -> int:
        """Bytes in all."""
        return self._limit

    @property
    def used(self) -> int:
        """Bytes held now."""
        return self._used

    def ask(self, limit: int) -> None:
        """Set the limit; when several ask, the largest of what they ask for holds."""
        with self._lock:
            self._limit = limit if self._asked is None else max(self._asked, limit)
            self._asked = self._limit
            self._changed.notify_all()

    def reserve(self, amount: int, watch: Watch | None = None) -> "Reservation":
        """Wait until ``amount`` bytes are free and take them.

        :param watch: its deadline bounds the wait; waiting one's turn is no stall
        :raises DeadlineExceeded: it ran out
        """
        me = threading.get_ident()
        with self._lock:
            if self._holders.get(me):
                return self._grant(amount, me)
            if not self._queue and self._fits(amount):
                return self._grant(amount, me)
            ticket = object()
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or not self._fits(amount):
                    self._changed.wait(watch.patience(stall=False) if watch else None)
                    if watch:
                        watch.check(stall=False)
                return self._grant(amount, me)
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _fits(self, amount: int) -> bool:
        return self._used == self._ahead or self._used + amount <= self._limit

    def _grant(self, amount: int, holder: int) -> "Reservation":
        self._used += amount
        self._holders[holder] = self._holders.get(holder, 0) + 1
        return Reservation(self, amount, holder)

    def open(self) -> "Reservation":
        """Return a reservation of nothing yet, that can grow, for what is read ahead.

        Its thread counts as no holder.
        """
        return Reservation(self, 0, None)


class Reservation:
    """Bytes that one transfer holds; a context manager that gives them back."""

    def __init__(self, budget: Budget, amount: int, holder: int | None) -> None:
        self.budget = budget
        self.amount = amount
        self._holder = holder
        self._ahead = holder is None
        self._generation = budget._lock

    def grow(self, amount: int) -> bool:
        """Take ``amount`` more bytes if they are free and nobody waits; say whether."""
        budget = self.budget
        if self._generation is not budget._lock:
            return False  # what was taken before a fork is not given back after it either
        with budget._lock:
            if budget._queue or budget._used + amount > budget._limit:
                return False
            self._take(amount)
            return True

    def shrink(self, amount: int) -> None:
        """Give ``amount`` bytes back."""
        budget = self.budget
        if self._generation is not budget._lock:
            return  # taken before a fork; the child's budget never knew of it
        with budget._lock:
            self._take(-min(amount, self.amount))
            if budget._queue:
                budget._changed.notify_all()

    def release(self) -> None:
        """Give everything back; further calls do nothing."""
        budget = self.budget
        if self._generation is not budget._lock:
            return
        with budget._lock:
            holder, self._holder = self._holder, None
            if holder is not None:
                left = budget._holders.pop(holder) - 1
                if left:
                    budget._holders[holder] = left
            self._take(-self.amount)
            if budget._queue:
                budget._changed.notify_all()

    def _take(self, amount: int) -> None:
        self.amount += amount
        self.budget._used += amount
        if self._ahead:
            self.budget._ahead += amount

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


#: The one budget that every transfer of the process draws on.
PROCESS_BUDGET = Budget()

os.register_at_fork(after_in_child=PROCESS_BUDGET._reset)
