"""Polling: the one loop in which drivers wait for what has no call that waits.

A volume's state, a task's end, a lock of this host, a device's size.  This is no retry: the calls
succeed, but what is waited for has not come yet.
"""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")

#: Seconds before the second call, and between two calls at most.
FIRST_INTERVAL, LONGEST_INTERVAL = 0.1, 3.0


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
    interval: float = FIRST_INTERVAL,
    longest: float = LONGEST_INTERVAL,
    growth: float = 1.5,
    clock: Clock = time,
) -> T | None:
    """Call until the result is not ``None``, and return it; ``None`` after ``timeout`` seconds.

    :param delay: seconds before the first call
    :param interval: seconds before the second call
    :param longest: the longest interval in seconds; short if several compete for the result, as the
        one that calls rarely never gets it
    :param growth: the factor by which the interval grows from call to call
    """
    if delay:
        clock.sleep(delay)
    deadline = clock.monotonic() + timeout
    while (result := call()) is None:
        left = deadline - clock.monotonic()
        if left <= 0:
            return None
        clock.sleep(min(interval, left))
        interval = min(interval * growth, longest)
    return result
