"""Keeps a check from hanging the run, and from leaving descriptors or threads behind."""

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from store_lib.testing.pace import Deadline

#: Seconds past the limit after which the process is ended, when nothing else helped.
LAST_RESORT = 30


#: Seconds after which a check that hangs in its clean-up too is interrupted again.
_AGAIN = 10


class Hung(BaseException):
    """A check took longer than its limit; no ``except Exception`` on the way may swallow it."""

    #: Whether any check did: its threads may keep the process from ending.
    ever = False


@contextlib.contextmanager
def time_limit(seconds: float, name: str) -> Iterator[None]:
    """Fail the block with :class:`Hung` after ``seconds``, and print every thread's stack.

    On a machine that is slow or busy the limit is longer (:mod:`.pace`).

    In the main thread the block is interrupted.  Elsewhere, and where it cannot be interrupted
    because it hangs below Python, the process ends a little later with the stacks printed.
    """
    stream = sys.__stderr__ if sys.__stderr__ is not None else sys.stderr

    def arm() -> None:
        left = max(deadline.left, 0.001)
        faulthandler.dump_traceback_later(left + LAST_RESORT, exit=True, file=stream)
        if alarmed:
            signal.setitimer(signal.ITIMER_REAL, left, _AGAIN)

    def ring(number: int, frame: FrameType | None) -> None:
        if not deadline.passed:  # the machine has got busy meanwhile
            arm()
            return
        faulthandler.dump_traceback(file=stream, all_threads=True)
        Hung.ever = True
        raise Hung(
            f"{name}: expected an end within {seconds:g} s (--store-check-timeout), got none "
            f"within {deadline.spent:.0f} s"
        )

    alarmed = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    deadline = Deadline(seconds)
    if alarmed:
        former = signal.signal(signal.SIGALRM, ring)
    arm()
    try:
        yield
    finally:
        if alarmed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        faulthandler.cancel_dump_traceback_later()


def end_at_last() -> None:
    """End the process soon, however its threads hang, if a check has hung."""
    if Hung.ever:
        faulthandler.dump_traceback_later(LAST_RESORT, exit=True)


class Resources:
    """The descriptors and threads that this process has now."""

    def __init__(self) -> None:
        self.descriptors = _descriptors()
        self.threads = _threads()

    def describe_growth(self, base: "Resources", allow_fds: int, allow_threads: int) -> list[str]:
        """Return a sentence for each kind of which there are more than in ``base``."""
        complaints = []
        if len(self.descriptors) > len(base.descriptors) + allow_fds:
            new = sorted(
                f"{number} -> {target}"
                for number, target in self.descriptors.items()
                if base.descriptors.get(number) != target
            )
            complaints.append(
                f"expected {len(base.descriptors)} (+{allow_fds}) open descriptors, got "
                f"{len(self.descriptors)}; new: {'; '.join(new)}"
            )
        if self.threads > base.threads + allow_threads:
            names = sorted(thread.name for thread in threading.enumerate())
            complaints.append(
                f"expected {base.threads} (+{allow_threads}) threads, got {self.threads}; Python's "
                f"own: {', '.join(names)}"
            )
        return complaints


def growth(
    base: Resources, *, allow_fds: int = 0, allow_threads: int = 0, patience: float
) -> list[str]:
    """Return what has grown since ``base`` and does not go away within ``patience`` seconds."""
    deadline = Deadline(patience)
    pause = 0.001
    while True:
        complaints = Resources().describe_growth(base, allow_fds, allow_threads)
        if not complaints or deadline.passed:
            return complaints
        gc.collect()
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _descriptors() -> dict[int, str]:
    """Return the open descriptors and what each is, as far as the system tells."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            numbers = [int(name) for name in os.listdir(directory)]
        except (OSError, ValueError):
            continue
        found = {}
        for number in numbers:
            try:
                found[number] = os.readlink(f"{directory}/{number}")
            except OSError:
                with contextlib.suppress(OSError):  # the one that listed the directory is gone
                    os.fstat(number)
                    found[number] = "(unknown)"
        return found
    return {}


def _threads() -> int:
    """Return the number of threads, those of client libraries in other languages included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()
