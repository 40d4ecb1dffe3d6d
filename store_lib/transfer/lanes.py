"""Threads of one transfer: lanes that take chunks in order, and a crew that takes tasks."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from store_lib.transfer.chunks import Failure, Pool, Slot


class Lane:
    """A thread that is handed every chunk in order, and uses it: a digest, a verifier.

    After the transfer's first failure it only releases what comes.
    """

    def __init__(
        self, name: str, use: Callable[[memoryview | bytes], object], failure: Failure, pool: Pool
    ) -> None:
        self.busy = 0.0
        self._use = use
        self._failure = failure
        self._pool = pool
        self._queue: queue.SimpleQueue[Slot | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"store_lib-{name}", daemon=True)
        self._thread.start()

    def put(self, slot: Slot) -> None:
        """Hand over a chunk; the lane releases the slot once."""
        self._queue.put(slot)

    def _run(self) -> None:
        get, use, failure = self._queue.get, self._use, self._failure
        busy = 0.0
        while (slot := get()) is not None:
            if failure.error is None:
                began = time.perf_counter()
                try:
                    use(slot.data)
                except BaseException as error:
                    failure.set(error)
                    self._pool.wake()
                busy += time.perf_counter() - began
                self.busy = busy
            slot.release()

    def finish(self) -> None:
        """Say that no more comes."""
        self._queue.put(None)

    def join(self, timeout: float | None) -> bool:
        """Wait for the end; say whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()


class Crew:
    """Some threads that do the tasks of one transfer, as many at once as they are.

    After the first failure no further task is begun; what it held is released by the
    ``dropped`` it came with.
    """

    def __init__(self, name: str, size: int, failure: Failure, pool: Pool) -> None:
        self.busy = 0.0
        self._failure = failure
        self._pool = pool
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._open = 0
        self._threads: list[threading.Thread] = []
        try:
            for number in range(size):
                thread = threading.Thread(
                    target=self._run, name=f"store_lib-{name}-{number}", daemon=True
                )
                thread.start()
                self._threads.append(thread)
        except BaseException:  # the system has no more threads to give
            self.finish()
            raise

    def put(self, task: Callable[[], object], dropped: Callable[[], object]) -> None:
        """Hand over a task, and what is to be called once it is done or will not be."""
        with self._changed:
            self._open += 1
        self._queue.put((task, dropped))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            task, dropped = item
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
                dropped()
                with self._changed:
                    self.busy += spent
                    self._open -= 1
                    if not self._open:
                        self._changed.notify_all()

    def drain(self) -> None:
        """Wait until no task is open.

        :raises TransferStalled: nothing moved for too long
        :raises DeadlineExceeded: the transfer takes too long
        """
        watch = self._pool.watch
        with self._changed:
            while self._open:
                self._changed.wait(watch.patience())
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
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)
