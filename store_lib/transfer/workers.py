"""Worker threads: for the chunks of a transfer, for its tasks, and for many short calls."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from store_lib.display import get_logger
from store_lib.exceptions import TimeoutError
from store_lib.transfer import timeouts
from store_lib.transfer.buffers import Buffer, BufferPool, Failure, Stopped
from store_lib.transfer.threads import new_thread

LOG = get_logger(__name__)


class ChunkWorker:
    """A thread that uses every chunk, in order: a digest's or the verifier's.

    After the transfer's first failure it only releases them.
    """

    def __init__(
        self, name: str, use: Callable[[memoryview | bytes], object], pool: BufferPool
    ) -> None:
        self.busy = 0.0
        self._use = use
        self._pool = pool
        self._queue: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        self._thread = new_thread(name, self._run)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, buffer: Buffer) -> None:
        """Take a chunk; the buffer is released once it has been used."""
        self._queue.put(buffer)

    def _run(self) -> None:
        get, use, failure = self._queue.get, self._use, self._pool.failure
        busy = 0.0
        while (buffer := get()) is not None:
            if failure.error is None:
                began = time.perf_counter()
                try:
                    use(buffer.data)
                except BaseException as error:
                    failure.set(error)
                    self._pool.wake()
                busy += time.perf_counter() - began
                self.busy = busy
            buffer.release()

    def finish(self) -> None:
        """End the thread after the chunks that it has taken."""
        self._queue.put(None)

    def join(self, timeout: float | None) -> bool:
        """Wait for the thread's end; return whether it has ended."""
        return _join(self._thread, timeout)


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
        """Take a task, and a function to call once it has ended or will not be begun."""
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
            del item, task, on_done  # while the thread waits, it holds nothing of its last task

    def drain(self) -> None:
        """Wait until no task is open.

        :raises TransferStalled: nothing moved for too long
        :raises DeadlineExceeded: the transfer takes too long
        """
        clock = self.pool.clock
        with self._changed:
            while self._open:
                self._changed.wait(clock.remaining())
                if self._open:
                    clock.check()
        self.pool.failure.check()

    def finish(self) -> None:
        """End the threads after the tasks that they have taken."""
        for _ in self._threads:
            self._queue.put(None)

    def join(self, timeout: float | None) -> bool:
        """Wait for the threads' end; return whether all have ended."""
        end = None if timeout is None else time.monotonic() + timeout
        ended = [
            _join(thread, None if end is None else max(0.0, end - time.monotonic()))
            for thread in self._threads
        ]
        return all(ended)


def _join(thread: threading.Thread, timeout: float | None) -> bool:
    """Wait for a thread's end; return whether it has ended, as one that was not started has."""
    if thread.ident is not None:
        thread.join(timeout)
    return not thread.is_alive()


class TransferWorkers:
    """All worker threads of one transfer, which end with its ``with`` block.

    No thread refers to this object.  If an interrupt has lost it, its collection ends them.

    :param tasks: run the sink's tasks
    :param consumers: use every chunk, in order
    :param on_end: wakes up a task that waits for more chunks
    """

    def __init__(
        self,
        tasks: WorkerPool,
        consumers: Sequence[ChunkWorker],
        on_end: Callable[[], object],
    ) -> None:
        self._pool = tasks.pool
        self._tasks = tasks
        self._consumers = consumers
        self._on_end = on_end

    def start(self) -> None:
        """Start the threads."""
        self._tasks.start()
        for consumer in self._consumers:
            consumer.start()

    def share(self, buffer: Buffer) -> None:
        """Give a chunk to every consumer; the sink uses it too."""
        buffer.retain(len(self._consumers) + 1)
        for consumer in self._consumers:
            consumer.put(buffer)

    def finish_consumers(self) -> None:
        """Wait until the consumers have used every chunk; raise the error of one that failed.

        :raises TransferStalled: nothing moved for too long
        :raises DeadlineExceeded: the transfer takes too long
        """
        clock = self._pool.clock
        for consumer in self._consumers:
            consumer.finish()
        for consumer in self._consumers:
            while not consumer.join(clock.remaining()):
                clock.check()
        self._pool.failure.check()

    def _finish(self) -> None:
        self._on_end()
        self._tasks.finish()
        for consumer in self._consumers:
            consumer.finish()

    def _join(self, timeout: float | None) -> bool:
        ended = self._tasks.join(timeout)
        for consumer in self._consumers:
            ended = consumer.join(timeout) and ended
        return ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End the threads; wait for running calls, but not for ever for those that hang."""
        failure, timeout = self._pool.failure, self._pool.clock.limits.stall or None
        if isinstance(error, TimeoutError):
            timeout = timeouts.GRACE
        try:
            if isinstance(error, Stopped):
                failure.check()  # the error because of which a request was not begun
        finally:
            if error is not None:
                failure.set(Stopped())
            self._finish()
            if not self._join(timeout):
                failure.abandoned = True
                LOG.warning("A call to the storage still hangs after its transfer was given up.")

    def __del__(self) -> None:
        if hasattr(self, "_on_end"):  # an interrupt may have ended __init__
            # Where the transfer has ended before, nothing sees this.
            self._pool.failure.set(Stopped())
            self._finish()


def run_concurrently(calls: Sequence[Callable[[], object]], concurrency: int) -> None:
    """Make calls, at most ``concurrency`` of them at a time.

    After the first failure no further call is begun, running ones are waited for, and the error is
    raised.
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
    except BaseException as error:  # no more threads, or an interrupt
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
