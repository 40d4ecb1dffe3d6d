"""A clock for repeats that waits for nothing: the time of a pause has passed at once."""

import threading
import time

from store_lib.transfer.timeouts import Clock


class SkippingClock(Clock):
    """Time that goes on by itself, and jumps over each pause."""

    def __init__(self) -> None:
        #: The pauses that were asked for.
        self.pauses: list[float] = []

    def now(self) -> float:
        return time.monotonic() + sum(self.pauses)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if event.is_set():
            return True
        self.pauses.append(seconds)
        return False


class SetClock(SkippingClock):
    """Time that stands still but for pauses and for what a test adds."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def now(self) -> float:
        return self.passed + sum(self.pauses)
