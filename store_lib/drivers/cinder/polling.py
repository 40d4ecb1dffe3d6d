"""The one loop that waits here: for Cinder's state, for a lock of this host, for a device's size.

A module of its own, as what talks to Cinder and what works on this host both wait.
"""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

#: Seconds before the second call, and between two calls at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0
_GROWTH = 1.5


class Clock(Protocol):
    """As much of :mod:`time` as waiting needs."""

    def monotonic(self) -> float:
        """Return seconds that only go forward."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


def poll(
    call: Callable[[], T | None],
    timeout: float,
    *,
    delay: float = 0.0,
    pause: float = FIRST_PAUSE,
    longest: float = LONGEST_PAUSE,
    clock: Clock = time,
) -> T | None:
    """Call until something is returned, and return it; ``None`` after ``timeout`` seconds.

    :param delay: seconds before the first call
    :param pause: seconds before the second call; later pauses grow
    :param longest: seconds between calls at most; short where several take turns, as the one that
        calls seldom is passed by
    """
    if delay:
        clock.sleep(delay)
    deadline = clock.monotonic() + timeout
    while (result := call()) is None:
        left = deadline - clock.monotonic()
        if left <= 0:
            return None
        clock.sleep(min(pause, left))
        pause = min(pause * _GROWTH, longest)
    return result
