"""Waiting for what Cinder does behind its answers: looking again and again, ever more seldom."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds before the second look at Cinder, and between looks at most.
FIRST, MOST = 0.1, 3.0
_GROWTH = 1.5


def wait_for(
    look: Callable[[], T | None], limit: float, first: float = FIRST, most: float = MOST
) -> T | None:
    """Return what ``look`` finds, or ``None`` when it has found nothing for ``limit`` seconds.

    :param first: seconds before the second look
    :param most: seconds between looks at most; short for what others take in turns, as who looks
        seldom is passed by
    """
    deadline = time.monotonic() + limit
    pause = first
    while (found := look()) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(pause, left))
        pause = min(pause * _GROWTH, most)
    return found
