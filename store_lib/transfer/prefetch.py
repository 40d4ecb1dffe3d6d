"""Reading an open object in order: cut streams are resumed, and ranges are read ahead."""

import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from store_lib.driver import Driver, Reader
from store_lib.exceptions import BackendException, ErrorStatus, StoreError
from store_lib.transfer.budget import Budget, Reservation
from store_lib.transfer.report import Meter
from store_lib.transfer.retry import Backoff, Retry, is_temporary
from store_lib.transfer.threads import new_thread
from store_lib.transfer.timeouts import HangGuard, TransferClock


@dataclasses.dataclass(slots=True)
class ReadSpec:
    """The parameters of a read, from the caller and from the store."""

    driver: Driver[Any]
    #: Position of the first byte to read.
    offset: int
    #: Number of bytes to read; ``None`` for all up to the end.
    length: int | None
    #: Hexadecimal digests that the whole object must have, by name of the algorithm.
    expected: Mapping[str, str]
    clock: TransferClock
    retry: Retry
    guard: HangGuard
    budget: Budget

    #: Whether a thread reads for the caller, so that the caller can stop waiting for it.
    interruptible: bool = dataclasses.field(init=False)
    #: Number of ranges read concurrently, including the one at the caller's position.
    concurrency: int = dataclasses.field(init=False)
    #: Bytes per second at which a single stream is fast enough to be read in place of concurrent
    #: ranges; 0 if ranges are always read.
    single_stream_rate: float = dataclasses.field(init=False)
    #: Length that :meth:`~store_lib.driver.Driver.read` is called with; ``None`` for all bytes up
    #: to the end.
    first_length: int | None = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        driver = self.driver
        self.interruptible = bool(self.guard.timeout)
        self.concurrency = driver.read_concurrency if driver.ranges else 1
        several = self.concurrency > 1
        self.single_stream_rate = (
            driver.single_stream_rate if several and not self.interruptible else 0
        )
        self.first_length = self.length
        if several and not self.single_stream_rate:
            size = driver.read_size
            self.first_length = size if self.length is None else min(self.length, size)


class ResumingReader:
    """Reads ranges of an open object, and resumes a stream that was cut."""

    def __init__(self, reader: Reader, spec: ReadSpec, meter: Meter) -> None:
        self.reader = reader
        #: Position after the last byte to read; ``None`` if neither size nor length is known.
        self.end: int | None = None if spec.length is None else spec.offset + spec.length
        if reader.size is not None:
            self.end = reader.size if self.end is None else min(reader.size, self.end)
        #: Whether a read can continue at any position, with the same version of the object.
        self.resumable = spec.driver.ranges and reader.validator is not None
        #: Retries nothing without a validator, as the rest could be another version's bytes.
        self._retry = spec.retry if self.resumable else spec.retry.once()
        #: The range that :meth:`~store_lib.driver.Driver.read` was called with.
        self._first_begin, self._first_end = spec.offset, self.end
        if spec.first_length is not None:
            first_end = spec.offset + spec.first_length
            self._first_end = first_end if self.end is None else min(first_end, self.end)
        #: Whether the object is known to reach to :attr:`end`; otherwise it may end before.
        self._size_known = reader.size is not None
        self._meter = meter
        #: Number of times that a cut stream may still be resumed without a pause.
        self._free_resumes = reader.resumes if self.resumable else 0

    def read_range(
        self, offset: int, end: int | None, stop: threading.Event | None = None
    ) -> Generator[bytes, None, None]:
        """Yield the bytes from ``offset`` to ``end``, from as many streams as are needed.

        :param stop: when set, ends the pauses between streams
        :raises BackendException: the backend has returned fewer or more bytes than it should
        """
        position = offset
        backoff, failed_at = None, -1
        # No stall limit applies to a thread that reads ahead, as the caller may be slow.  It is
        # checked by the caller's thread when that waits for bytes.
        retry = self._retry if stop is None else self._retry.without_limits()
        while True:
            stream: Iterator[bytes] | None = None
            stream_end = end
            try:
                while True:
                    with retry.limited():
                        if stream is None:
                            stream, stream_end = self._open(position, end)
                        piece = next(stream, None)
                    if piece is None:
                        break
                    if not piece:
                        continue
                    position += len(piece)
                    if stream_end is not None and position > stream_end:
                        raise BackendException(
                            f"Expected bytes up to {stream_end}, got more from the store."
                        )
                    hand = [piece]
                    del piece  # a suspended generator must not keep what it has yielded
                    yield hand.pop()
                if stream_end is not None and position < stream_end and self._size_known:
                    raise BackendException(
                        f"Expected bytes up to {stream_end}, got a clean end at {position}.",
                        status=ErrorStatus.TEMPORARY,
                    )
                if stream_end == end or position != stream_end:
                    return
            except StoreError as error:
                if self._free_resumes and is_temporary(error):
                    self._free_resumes -= 1
                else:
                    if (
                        backoff is None or position > failed_at
                    ):  # bytes have come since the last one
                        backoff, failed_at = Backoff(retry, f"from byte {position}", stop), position
                    if not backoff.wait(error):
                        raise
                self._meter.count(retries=1)

    def _open(self, position: int, end: int | None) -> tuple[Iterator[bytes], int | None]:
        """Return a stream from ``position`` on, and the offset where it ends: ``end`` or before.

        If the driver began a suitable stream when it opened the object, that one is returned.
        """
        first, first_end = self.reader.first, self._first_end
        fits = end is None or (first_end is not None and first_end <= end)
        if first is None or position != self._first_begin or not fits:
            return self.reader.stream(position, None if end is None else end - position), end
        self.reader.first = None
        return first, first_end


class _Range:
    """A range that a thread reads into memory for the caller.

    :param reserved: bytes of memory reserved for the range; with 0, the thread reads a piece only
        when the caller waits for one
    """

    def __init__(self, offset: int, end: int | None, reserved: int) -> None:
        #: Position of the next byte that the caller takes.
        self.offset = offset
        self.end = end
        self.reserved = reserved
        self.buffered: deque[bytes] = deque()
        #: Whether the caller waits for a piece.
        self.awaited = False
        #: Whether the rest of the range is not needed any more.
        self.dropped = False
        self.done = False
        self.error: BaseException | None = None
        self.changed = threading.Condition()


class Prefetcher:
    """Returns the bytes of an object in order, and reads further ranges ahead as memory allows.

    It has no reference to the reader that the caller uses, so that the threads end when the caller
    drops that reader.  The range at the caller's position takes no memory of the budget.

    :param reservation: memory for ranges that are read ahead
    """

    # Attributes that most reads of small objects do not need are created later.
    _exhausted = False
    #: The stream that the caller's own thread reads.
    _stream: Generator[bytes, None, None] | None = None
    #: The range at the caller's position, if a thread reads it.
    _current: _Range | None = None
    #: The ranges read ahead.  The caller takes them from the left; a thread that waits for memory
    #: takes them from the right.
    _ahead: deque[_Range] | None = None
    _got, _waited = 0, 0.0
    #: Set to end the threads.
    _stop: threading.Event | None = None
    #: The ranges that threads are reading; under the lock.
    _running: set[_Range]
    _lock: Any
    _on_end: Callable[[], object] | None = None

    def __init__(self, source: ResumingReader, spec: ReadSpec, reservation: Reservation) -> None:
        self._source = source
        self._clock = spec.clock
        self._concurrency = spec.concurrency if source.reader.parallel else 1
        self._range_size = spec.driver.read_size
        self._single_stream_rate = spec.single_stream_rate if self._concurrency > 1 else 0
        self._interruptible = spec.interruptible
        #: Position of the next byte that the caller gets.
        self._position = spec.offset
        #: Position after the stream that the caller's own thread reads.
        self._stream_end: int | None = spec.offset
        self._reservation = reservation

    def next(self) -> bytes:
        """Return the next piece; empty at the end."""
        while True:
            stream = self._stream
            if stream is not None:
                began = time.perf_counter()
                piece = next(stream, b"")
                if not piece:
                    self._stream = None
                    self._exhausted = self._stream_end is None or self._position < self._stream_end
                elif self._single_stream_rate:
                    self._judge(time.perf_counter() - began, len(piece))
            elif self._current is not None:
                piece = self._follow(self._current)
            elif self._exhausted or (
                self._source.end is not None and self._position >= self._source.end
            ):
                return b""
            else:
                self._begin()
                continue
            if piece:
                self._position += len(piece)
                if self._concurrency > 1:
                    self._fill()
                return piece

    def _begin(self) -> None:
        """Begin the next range: one that was read ahead, or else a new one."""
        while self._ahead:
            with contextlib.suppress(IndexError):  # another thread has just dropped it
                ahead = self._ahead.popleft()
                if ahead.offset == self._position and not ahead.dropped:
                    self._current = ahead
                    return
                self._drop(ahead)
        end = self._source.end
        if end is not None and self._concurrency > 1 and not self._single_stream_rate:
            end = min(end, self._position + self._range_size)
        if self._interruptible:
            self._current = _Range(self._position, end, 0)
            self._start(self._current)
        else:
            self._stream_end = end
            self._stream = self._source.read_range(self._position, end)

    def _judge(self, waited: float, got: int) -> None:
        """Change from a single stream to concurrent ranges if the stream is slow.

        The measure is how long the caller has waited for the store, over as many bytes as would be
        read concurrently.  The speed of the caller does not count.
        """
        window = self._concurrency * self._range_size
        self._got += got
        self._waited += waited
        if self._waited > window / self._single_stream_rate:
            assert self._stream is not None
            self._stream.close()
            self._stream, self._single_stream_rate = None, 0
        elif self._got >= window:
            self._got, self._waited = 0, 0.0

    def _fill(self) -> None:
        """Start reading ahead as many ranges as there is memory for.

        Called when the first piece has arrived.
        """
        end = self._source.end
        if end is None or self._single_stream_rate:
            return
        if self._ahead is None:
            self._ahead = deque()
        while len(self._ahead) < self._concurrency - 1:
            try:
                begin = self._ahead[-1].end
            except IndexError:
                begin = self._stream_end if self._current is None else self._current.end
            if begin is None or begin >= end:
                return
            cost = min(self._range_size, end - begin)
            if not self._reservation.grow(cost):
                return
            ahead = _Range(begin, begin + cost, cost)
            self._ahead.append(ahead)
            self._start(ahead)

    def _start(self, target: _Range) -> None:
        """Start a thread that reads a range, after recording it for :meth:`close`."""
        if self._stop is None:
            self._running, self._lock = set(), threading.RLock()
            self._stop = threading.Event()
        thread = new_thread("read-ahead", self._read, target)
        self._running.add(target)
        try:
            thread.start()
        except BaseException:
            if not thread.is_alive():
                self._running.discard(target)
            raise

    def _read(self, target: _Range) -> None:
        """Read a range; the body of a thread."""
        error: BaseException | None = None
        try:
            stream = self._source.read_range(target.offset, target.end, self._stop)
            while self._may_read(target) and self._hand_over(target, next(stream, b"")):
                self._clock.progress()
            stream.close()
        except BaseException as trouble:
            error = trouble
        finally:
            with target.changed:
                target.error = error
                target.done = True
                target.changed.notify_all()
            with self._lock:
                self._running.discard(target)
                on_end = None if self._running else self._on_end
            if on_end is not None:
                on_end()

    def _may_read(self, target: _Range) -> bool:
        """Wait until a piece of the range may be read; return false if no more is needed."""
        with target.changed:
            while not (target.reserved or target.awaited or target.dropped or self._is_stopped()):
                target.changed.wait()
            return not (target.dropped or self._is_stopped())

    def _is_stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def _hand_over(self, target: _Range, piece: bytes) -> bool:
        with target.changed:
            if not piece or target.dropped:
                return False
            target.buffered.append(piece)
            target.awaited = False
            target.changed.notify_all()
        return True

    def _follow(self, current: _Range) -> bytes:
        """Return the next piece of a range that a thread reads; empty at the range's end."""
        with current.changed:
            if not current.buffered and not current.done:
                current.awaited = True
                current.changed.notify_all()
            while not (current.buffered or current.done or current.dropped):
                current.changed.wait(self._clock.remaining())
                if not (current.buffered or current.done or current.dropped):
                    self._clock.check()
            current.awaited = False
            if current.buffered:
                piece = current.buffered.popleft()
                current.offset += len(piece)
                return piece
            if current.error is not None and not current.dropped:
                raise current.error
        self._current = None
        if not current.dropped:
            self._exhausted = current.end is None or current.offset < current.end
        self._drop(current)
        return b""

    def _drop(self, target: _Range) -> None:
        """Drop a range, and give its memory back."""
        with target.changed:
            target.dropped = True
            target.buffered.clear()
            reserved, target.reserved = target.reserved, 0
            target.changed.notify_all()
        self._reservation.shrink(reserved)

    def give_back(self) -> None:
        """Drop the ranges read ahead, except one that the caller waits for.

        Called by another thread.
        """
        while self._ahead:
            with contextlib.suppress(IndexError):
                self._drop(self._ahead.pop())
        current = self._current
        if current is not None and current.reserved and not current.awaited:
            self._drop(current)

    def go_to(self, position: int) -> None:
        """Continue at another position."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        current, self._current = self._current, None
        if current is not None:
            self._drop(current)
        self._position = position
        self._exhausted = False

    def close(self, on_end: Callable[[], object]) -> None:
        """End the threads without waiting for them, and give the memory back.

        Further calls do nothing.

        :param on_end: called once, when no thread reads any more
        """
        if self._stream is not None:
            # Another thread may be running the generator.  Its resources are freed with the reader.
            with contextlib.suppress(ValueError):
                self._stream.close()
        if self._stop is None:
            self._reservation.release()
            on_end()
            return
        self._stop.set()
        for target in (*(self._ahead or ()), self._current):
            if target is not None:
                self._drop(target)
        self._reservation.release()
        with self._lock:
            self._on_end = on_end
            ended = not self._running
        if ended:
            on_end()
