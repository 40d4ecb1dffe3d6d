"""Worker threads: for the chunks of a transfer, its tasks, and many short calls side by side."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from store_lib.transfer.buffers import Buffer, BufferPool, Failure, Stopped
from store_lib.transfer.threads import new_thread


class ChunkWorker:
    """A thread that is handed every chunk in order, and uses it: a digest, a verifier.

    After the transfer's first failure it only releases what comes.
    """

    def __init__(
        self,
        name: str,
        use: Callable[[memoryview | bytes], object],
        failure: Failure,
        pool: BufferPool,
    ) -> None:
        self.busy = 0.0
        self._use = use
        self._failure = failure
        self._pool = pool
        self._queue: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        self._thread = new_thread(name, self._run)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, buffer: Buffer) -> None:
        """Hand over a chunk; the lane releases the buffer once."""
        self._queue.put(buffer)

    def _run(self) -> None:
        get, use, failure = self._queue.get, self._use, self._failure
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
        """Say that no more comes."""
        self._queue.put(None)

    def join(self, timeout: float | None) -> bool:
        """Wait for the end; say whether it came."""
        return _join(self._thread, timeout)


class WorkerPool:
    """Some threads that do the tasks of one transfer, as many at once as they are.

    After the first failure no further task is begun; what it held is released by the
    ``on_done`` it came with.
    """

    def __init__(self, name: str, size: int, failure: Failure, pool: BufferPool) -> None:
        self.busy = 0.0
        self._failure = failure
        self._pool = pool
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._open = 0
        self._threads = [new_thread(f"{name}-{number}", self._run) for number in range(size)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def put(self, task: Callable[[], object], on_done: Callable[[], object]) -> None:
        """Hand over a task, and what is to be called once it is done or will not be."""
        with self._changed:
            self._open += 1
        self._queue.put((task, on_done))

    def _run(self) -> None:
        # A call for each task: while it waits, the thread is to hold nothing of the last one.
        while self._work():
            pass

    def _work(self) -> bool:
        """Wait for a task and do it; say whether there was one."""
        item = self._queue.get()
        if item is None:
            return False
        task, on_done = item
        spent = 0.0
        try:
            if self._failure.error is None:
                began = time.perf_counter()
                try:
                    task()
                finally:
                    spent = time.perf_counter() - began
        except BaseException as error:
            self._failure.set(error)
            self._pool.wake()
        finally:
            on_done()
            with self._changed:
                self.busy += spent
                self._open -= 1
                if not self._open:
                    self._changed.notify_all()
        return True

    def drain(self) -> None:
        """Wait until no task is open.

        :raises TransferStalled: nothing moved for too long
        :raises DeadlineExceeded: the transfer takes too long
        """
        watch = self._pool.watch
        with self._changed:
            while self._open:
                self._changed.wait(watch.remaining())
                if self._open:
                    watch.check()
        self._failure.check()

    def finish(self) -> None:
        """Say that no more comes."""
        for _ in self._threads:
            self._queue.put(None)

    def join(self, timeout: float | None) -> bool:
        """Wait for the end of all; say whether it came."""
        end = None if timeout is None else time.monotonic() + timeout
        ended = [
            _join(thread, None if end is None else max(0.0, end - time.monotonic()))
            for thread in self._threads
        ]
        return all(ended)


def _join(thread: threading.Thread, timeout: float | None) -> bool:
    """Wait for a thread's end; say whether it came.  One that was not started has ended."""
    if thread.ident is not None:
        thread.join(timeout)
    return not thread.is_alive()


class Way(Protocol):
    """What hands chunks to the workers, and may keep some of it waiting for more."""

    def stop(self) -> None:
        """Wake up who waits for chunks that will not come, and release what is held."""


class Team:
    """All threads of one transfer, which end with it.

    No thread refers to it.  So when an interrupt has lost it before or while :meth:`stop` was
    called, its collection ends them.
    """

    def __init__(self, way: Way, workers: WorkerPool, failure: Failure) -> None:
        self.lanes: list[ChunkWorker] = []
        self.way, self.workers, self._failure = way, workers, failure

    def finish(self) -> None:
        """Say that no more comes."""
        self.way.stop()
        self.workers.finish()
        for lane in self.lanes:
            lane.finish()

    def join(self, timeout: float | None) -> bool:
        """Wait for the end of all; say whether it came."""
        ended = self.workers.join(timeout)
        for lane in self.lanes:
            ended = lane.join(timeout) and ended
        return ended

    def __del__(self) -> None:
        if hasattr(self, "_failure"):  # an interrupt may have ended __init__
            # After a transfer that has ended, nobody is there any more to notice.
            self._failure.set(Stopped())
            self.finish()


def run_concurrently(calls: Sequence[Callable[[], object]], concurrency: int) -> None:
    """Make all calls, up to ``concurrency`` of them at the same time.

    After the first one that fails none is begun, and those at work are waited for.

    :raises BaseException: what the first one that failed raised
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
