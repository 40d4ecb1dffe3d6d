"""The entry point of ``store-lib``: signals, and a clear word when the extra is not installed."""

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

#: Signals that end the command the way Ctrl-C does.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end; what it had begun is cleaned up on the way out.

    :param number: the signal's number
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    :param argv: the arguments; those of the process when left out
    """
    for package in ("cliff", "tqdm"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            print(
                f"store-lib: error: the command line needs the package {package}, which is not "
                "installed. Install the extra: pip install 'store_lib[cli]'",
                file=sys.stderr,
            )
            return 1
    from store_lib.cli.shell import Shell

    _catch_signals()
    try:
        return Shell().run(list(sys.argv[1:] if argv is None else argv))
    except Interrupted as error:  # outside of any command: while starting or closing
        return 128 + error.number


def _catch_signals() -> None:
    """Let the ending signals raise; one that was ignored from the start (nohup) stays so."""
    for number in _ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_insist, args=(reading,), name="signals", daemon=True).start()


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    # One signal is enough: a second (a process group gets several) must not cut the clean-up.
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def _insist(reading: int) -> None:
    """Repeat an ending signal until the main thread has seen it.

    One that comes just before a blocking call, such as a read from a pipe, does not interrupt
    that call, and Python would notice it only when the call returns.
    """
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    while seen := os.read(reading, 1):
        number = seen[0]
        while number in _ENDING and signal.getsignal(number) is _interrupt:
            time.sleep(0.05)
            signal.pthread_kill(main_thread, number)
