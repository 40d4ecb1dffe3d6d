"""Time limits that scale with what the machine gives: its speed, and how many share it."""

import functools
import hashlib
import os
import time

#: Seconds of processor that the measured work takes on the machine for which limits are written.
_USUAL = 0.02
_WORK = bytes(1024 * 1024)
#: Carries the measured speed to the processes that a run starts: what they measured beside each
#: other would be too slow.
_VARIABLE = "STORE_LIB_TESTING_SLOWNESS"


def slowness() -> float:
    """Return by how much time limits are to be stretched now; at least 1.

    The speed of a processor is measured once, the number of processes that want one is read each
    time: others may begin and end while a run goes on.
    """
    return _slowness_of_processor() * max(1.0, _processes_for_each_processor())


@functools.cache
def _slowness_of_processor() -> float:
    told = os.environ.get(_VARIABLE)
    if told is None:
        best = min(_work() for _ in range(3))
        told = os.environ[_VARIABLE] = f"{max(1.0, best / _USUAL):.2f}"
    return float(told)


def _work() -> float:
    """Return the seconds of processor time that a fixed piece of work takes."""
    began = time.thread_time()
    digest = hashlib.sha256()
    for number in range(160_000):
        digest.update(_WORK[:16] if number % 2 else _WORK[:17])
    return time.thread_time() - began


def _processes_for_each_processor() -> float:
    try:
        load = os.getloadavg()[0]
        processors = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # a system that tells neither
        return 1.0
    return load / processors


class Deadline:
    """The end of a time limit, which comes later on a machine that is slow or busy.

    :param seconds: the limit on a machine of usual speed with nothing else to do
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the end as it looks now; 0 or less when it has passed."""
        return self.seconds * slowness() - self.spent

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        # The load is asked for only when it matters.
        return self.spent > self.seconds and self.left <= 0
