"""Worker threads: for the digests and the requests of a transfer, and for many short calls."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from store_lib.display import get_logger
from store_lib.exceptions import TimeoutError
from store_lib.transfer import timeouts
from store_lib.transfer.buffers import BufferPool, Failure, Stopped
from store_lib.transfer.threads import new_thread

LOG = get_logger(__name__)


class WorkerPool:
    """Threads that run the tasks of one transfer.

    After the first failure no further task is begun.
    """

    def __init__(self, name: str, size: int, pool: BufferPool) -> None:
        self.busy = 0.0
        self.pool = pool
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._open = 0
        self._threads = [new_thread(f"{name}-{number}", self._run) for number in range(size)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def put(self, task: Callable[[], object], on_done: Callable[[], object]) -> None:
        """Add a task; ``on_done`` is called when it has ended, or if it will not be begun."""
        with self._changed:
            self._open += 1
        self._queue.put((task, on_done))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            task, on_done = item
            spent = 0.0
            try:
                if self.pool.failure.error is None:
                    began = time.perf_counter()
                    try:
                        task()
                    finally:
                        spent = time.perf_counter() - began
            except BaseException as error:
                self.pool.failure.set(error)
                self.pool.wake()
            finally:
                on_done()
                with self._changed:
                    self.busy += spent
                    self._open -= 1
                    if not self._open:
                        self._changed.notify_all()
            del item, task, on_done  # so that a waiting thread keeps no memory of its last task

    def drain(self) -> None:
        """Wait until all tasks have ended.

        :raises TransferStalled: there was no progress for too long
        :raises DeadlineExceeded: the transfer's deadline has passed
        """
        clock = self.pool.clock
        with self._changed:
            while self._open:
                self._changed.wait(clock.remaining())
                if self._open:
                    clock.check()
        self.pool.failure.check()

    def finish(self) -> None:
        """Make the threads end after the tasks that were added."""
        for _ in self._threads:
            self._queue.put(None)

    def join(self, timeout: float | None) -> bool:
        """Wait until the threads have ended; return whether all have."""
        end = None if timeout is None else time.monotonic() + timeout
        ended = [
            _join(thread, None if end is None else max(0.0, end - time.monotonic()))
            for thread in self._threads
        ]
        return all(ended)


def _join(thread: threading.Thread, timeout: float | None) -> bool:
    """Wait until a thread has ended; return whether it has.

    A thread that was not started counts as ended.
    """
    if thread.ident is not None:
        thread.join(timeout)
    return not thread.is_alive()


class TransferWorkers:
    """All worker threads of one transfer, which end with its ``with`` block.

    No thread refers to this object.  So if an interrupt prevents the block from ending, the threads
    end when this object is collected.

    :param pool: the transfer's buffers, with its clock and its failure
    :param on_end: wakes a task that waits for more chunks
    """

    def __init__(
        self, pool: BufferPool, workers: Sequence[WorkerPool], on_end: Callable[[], object]
    ) -> None:
        self._pool = pool
        self._workers = workers
        self._on_end = on_end

    def start(self) -> None:
        """Start the threads."""
        for workers in self._workers:
            workers.start()

    def _finish(self) -> None:
        self._on_end()
        for workers in self._workers:
            workers.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End the threads.  Wait for running calls, but only for a limited time if they hang."""
        if self._pool.inherited:
            return  # a child has none of the threads
        failure, timeout = self._pool.failure, self._pool.clock.limits.stall or None
        if isinstance(error, TimeoutError):
            timeout = timeouts.GRACE
        try:
            if isinstance(error, Stopped):
                failure.check()  # raises the first error, because of which a request was not begun
        finally:
            if error is not None:
                failure.set(Stopped())
            self._finish()
            ended = [workers.join(timeout) for workers in self._workers]
            if not all(ended):
                failure.abandoned = True
                LOG.warning("A call to the storage still hangs after its transfer was given up.")

    def __del__(self) -> None:
        if hasattr(self, "_on_end") and not self._pool.inherited:  # an interrupt in __init__
            # This has no effect if the transfer has ended before.
            self._pool.failure.set(Stopped())
            self._finish()


def run_concurrently(calls: Sequence[Callable[[], object]], concurrency: int) -> None:
    """Make calls concurrently, at most ``concurrency`` at a time.

    After the first failure no further call is begun.  When the running calls have ended, the error
    is raised.
    """
    failure, turn, pending = Failure(), threading.Lock(), iter(calls)
    others = [
        new_thread(f"call-{number}", _make_calls, pending, turn, failure)
        for number in range(1, min(concurrency, len(calls)))
    ]
    try:
        for thread in others:
            thread.start()
        _make_calls(pending, turn, failure)
        _join_all(others)
    except BaseException as error:  # a thread could not be started, or an interrupt
        failure.set(error)
        _join_all(others)
    failure.check()


def _join_all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        _join(thread, None)


def _make_calls(
    pending: Iterator[Callable[[], object]], turn: threading.Lock, failure: Failure
) -> None:
    try:
        while failure.error is None:
            with turn:
                call = next(pending, None)
            if call is None:
                return
            call()
    except BaseException as error:
        failure.set(error)
