"""The entry point of ``store-lib``: checks that the extra is installed and handles signals."""

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from store_lib.cli.status import Interrupted

#: Signals that interrupt the command.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    :param argv: the arguments; ``None`` for those of the process
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
    except Interrupted as error:  # while the shell starts or closes, outside of a command
        return 128 + error.number


def _catch_signals() -> None:
    """Make the signals raise Interrupted, except those that were ignored from the start (nohup)."""
    for number in _SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(
        target=_repeat_until_handled, args=(reading,), name="signals", daemon=True
    ).start()


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the clean-up: a process group may get several signals.
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)


def _repeat_until_handled(reading: int) -> None:
    """Repeat a signal until the main thread has handled it.

    Python runs a signal's handler between two bytecodes.  If a signal arrives just before a
    blocking call, such as a read from a pipe, the handler would run only after the call returns.
    """
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    while data := os.read(reading, 1):
        number = data[0]
        while number in _SIGNALS and signal.getsignal(number) is _interrupt:
            time.sleep(0.05)
            signal.pthread_kill(main_thread, number)
