"""Time limits that scale with the speed and the load of the machine."""

import functools
import hashlib
import os
import time

#: CPU seconds that :func:`_work` takes on the machine for which time limits are written.
_REFERENCE = 0.02
_WORK = bytes(1024 * 1024)
#: Passes the measured slowness to child processes: several that measure at once would all be slow.
_VARIABLE = "STORE_LIB_TESTING_SLOWNESS"


def slowness() -> float:
    """Return the factor for time limits at the moment, at least 1.

    The speed of the processor is measured once.  The load is read every time, since it changes
    during a run.
    """
    return _processor_slowness() * max(1.0, _processes_per_processor())


@functools.cache
def _processor_slowness() -> float:
    factor = os.environ.get(_VARIABLE)
    if factor is None:
        best = min(_work() for _ in range(3))
        factor = os.environ[_VARIABLE] = f"{max(1.0, best / _REFERENCE):.2f}"
    return float(factor)


def _work() -> float:
    """Return the CPU seconds that a fixed amount of work takes."""
    began = time.thread_time()
    digest = hashlib.sha256()
    for number in range(160_000):
        digest.update(_WORK[:16] if number % 2 else _WORK[:17])
    return time.thread_time() - began


def _processes_per_processor() -> float:
    try:
        load = os.getloadavg()[0]
        processors = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # the system does not provide it
        return 1.0
    return load / processors


class Deadline:
    """A time limit that is longer on a slow or busy machine.

    :param seconds: the limit on an idle machine of usual speed
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until the limit at the current load; 0 or less if it has passed."""
        return self.seconds * slowness() - self.spent

    @property
    def passed(self) -> bool:
        """Whether the limit has passed."""
        # Read the load only if it matters.
        return self.spent > self.seconds and self.left <= 0
