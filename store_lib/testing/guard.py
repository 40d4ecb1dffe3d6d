"""The time limit of a check, and the check for leaked descriptors and threads."""

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

#: Seconds after the limit at which the process exits if the check could not be interrupted.
EXIT_DELAY = 30

#: Seconds after which a check whose clean-up hangs too is interrupted again.
_ALARM_INTERVAL = 10


class CheckHung(BaseException):
    """A check took longer than its limit.

    It is not an Exception, so that ``except Exception`` in a driver does not swallow it.
    """

    #: Whether any check has hung: its threads may keep the process from ending.
    ever = False


@contextlib.contextmanager
def time_limit(seconds: float, name: str) -> Iterator[None]:
    """Raise :class:`CheckHung` in the block after ``seconds``, and print every thread's stack.

    On a slow or busy machine the limit is longer (:mod:`.pace`).

    Only the main thread can be interrupted, and not while it hangs in C code.  Otherwise the
    process prints the stacks and exits a little later.
    """
    stream = sys.__stderr__ if sys.__stderr__ is not None else sys.stderr

    def arm() -> None:
        left = max(deadline.left, 0.001)
        faulthandler.dump_traceback_later(left + EXIT_DELAY, exit=True, file=stream)
        if alarmed:
            signal.setitimer(signal.ITIMER_REAL, left, _ALARM_INTERVAL)

    def ring(number: int, frame: FrameType | None) -> None:
        if not deadline.passed:  # the machine has become busy meanwhile
            arm()
            return
        faulthandler.dump_traceback(file=stream, all_threads=True)
        CheckHung.ever = True
        raise CheckHung(
            f"{name}: expected an end within {seconds:g} s (--store-check-timeout), but it still "
            f"ran after {deadline.spent:.0f} s"
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


def exit_if_hung() -> None:
    """Exit soon if a check has hung, even if its threads still run."""
    if CheckHung.ever:
        faulthandler.dump_traceback_later(EXIT_DELAY, exit=True)


class Resources:
    """The open descriptors and the threads of this process at the moment."""

    def __init__(self) -> None:
        self.descriptors = _descriptors()
        self.threads = _threads()

    def describe_growth(self, base: "Resources", allow_fds: int, allow_threads: int) -> list[str]:
        """Return a sentence for each kind of resource that has grown since ``base``."""
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
                f"expected {base.threads} (+{allow_threads}) threads, got {self.threads}; "
                f"Python threads: {', '.join(names)}"
            )
        return complaints


def lasting_growth(
    base: Resources, *, allow_fds: int = 0, allow_threads: int = 0, patience: float
) -> list[str]:
    """Return sentences on resources that still exceed ``base`` after ``patience`` seconds."""
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
    """Return the open descriptors with their targets, empty if the system does not show them."""
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            numbers = [int(name) for name in os.listdir(directory)]
        except (OSError, ValueError):
            continue
        targets = {}
        for number in numbers:
            try:
                targets[number] = os.readlink(f"{directory}/{number}")
            except OSError:
                with contextlib.suppress(
                    OSError
                ):  # the descriptor that listed the directory is closed
                    os.fstat(number)
                    targets[number] = "(unknown)"
        return targets
    return {}


def _threads() -> int:
    """Return the number of threads, including those that C libraries started."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()
