"""Many short calls made side by side: the deletes of an object's segments, and the like."""

import threading
from collections.abc import Callable, Iterator, Sequence

from store_lib.transfer.chunks import Failure
from store_lib.transfer.threads import new_thread


def together(calls: Sequence[Callable[[], object]], at_once: int) -> None:
    """Make all calls, up to ``at_once`` of them at the same time.

    After the first one that fails none is begun, and those at work are waited for.

    :raises BaseException: what the first one that failed raised
    """
    failure, turn, waiting = Failure(), threading.Lock(), iter(calls)
    others = [
        new_thread(f"call-{number}", _work, waiting, turn, failure)
        for number in range(1, min(at_once, len(calls)))
    ]
    try:
        for thread in others:
            thread.start()
        _work(waiting, turn, failure)
        _join(others)
    except BaseException as error:  # no more threads, or an interrupt
        failure.set(error)
        _join(others)
    failure.check()


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        if thread.ident is not None:
            thread.join()


def _work(waiting: Iterator[Callable[[], object]], turn: threading.Lock, failure: Failure) -> None:
    try:
        while failure.error is None:
            with turn:
                call = next(waiting, None)
            if call is None:
                return
            call()
    except BaseException as error:
        failure.set(error)
