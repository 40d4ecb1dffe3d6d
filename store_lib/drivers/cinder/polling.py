"""Polling: the one loop that waits for a volume's state, a lock of this host, or a device's size.

A module of its own, as the client of Cinder and the modules about this host both need it.
"""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

#: Seconds before the second call, and between two calls at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0
_GROWTH = 1.5


class Clock(Protocol):
    """What waiting needs of :mod:`time`."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes back."""

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
    """Call until the result is not ``None``, and return it; ``None`` after ``timeout`` seconds.

    :param delay: seconds before the first call
    :param pause: seconds before the second call; later pauses grow
    :param longest: the longest pause in seconds; short if several compete for the result, as the
        one that calls rarely never gets it
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
