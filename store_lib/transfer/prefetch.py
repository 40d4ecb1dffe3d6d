"""Where an object's pieces come from: a stream, resumed where it was cut, or ranges read ahead."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from store_lib.driver import Reader
from store_lib.exceptions import BackendException, ErrorStatus, StoreError
from store_lib.transfer.budget import Reservation
from store_lib.transfer.report import Meter
from store_lib.transfer.retry import Retry, Tries, is_temporary
from store_lib.transfer.threads import new_thread
from store_lib.transfer.timeouts import TransferClock


class Cursor:
    """Reads ranges of one open object, and goes on where a cut connection left off.

    :param end: position after the last byte wanted; ``None`` when the size is unknown
    """

    def __init__(
        self,
        reader: Reader,
        end: int | None,
        retry: Retry,
        ranges: bool,
        meter: Meter,
    ) -> None:
        self.reader = reader
        self.end = end
        #: Whether reading can go on at any position, on the very same bytes.
        self.resumable = ranges and reader.validator is not None
        #: What is resumed on no sure identity could be another object's bytes.
        self._retry = retry if self.resumable else retry.once()
        #: Whether the bytes up to ``end`` are known to be there; else it is only a bound.
        self._certain = reader.size is not None
        self._meter = meter
        #: How often a cut stream is resumed at once.
        self._at_once = reader.resumes if self.resumable else 0

    def pieces(
        self, offset: int, end: int | None, stop: threading.Event | None = None
    ) -> Generator[bytes, None, None]:
        """Yield the bytes from ``offset`` to ``end``, whatever connections it takes.

        :raises BackendException: the backend gave fewer or more bytes than there are
        """
        position = offset
        tries, failed_at = None, -1
        # A thread that reads ahead of a slow caller is no stall: who waits for it looks.
        retry = self._retry if stop is None else self._retry.beyond()
        while True:
            length = None if end is None else end - position
            try:
                for piece in retry.each(self.reader.stream(position, length)):
                    position += len(piece)
                    if end is not None and position > end:
                        raise BackendException(f"Expected {length} bytes, got more from the store.")
                    hand = [piece]
                    del piece  # a generator that waits is to hold nothing of what it gave
                    yield hand.pop()
                if self._certain and end is not None and position < end:
                    raise BackendException(
                        f"Expected bytes up to {end}, got a clean end at {position}.",
                        status=ErrorStatus.TEMPORARY,
                    )
                return
            except StoreError as error:
                if self._at_once and is_temporary(error):
                    self._at_once -= 1
                else:
                    if tries is None or position > failed_at:  # bytes have come since the last one
                        tries, failed_at = Tries(retry, f"from byte {position}", stop), position
                    if not tries.again(error):
                        raise
                self._meter.count(retries=1)


class _Range:
    """A range that a thread reads into memory, ahead of the caller.

    :param reserved: bytes of memory taken for it; 0: its thread reads a piece only while the
        caller waits for one
    """

    def __init__(self, offset: int, end: int | None, reserved: int) -> None:
        #: Of the next byte that the caller gets.
        self.offset = offset
        self.end = end
        self.reserved = reserved
        self.pieces: deque[bytes] = deque()
        #: Whether the caller waits for a piece.
        self.wanted = False
        #: Whether nobody will come for what is left of it.
        self.dropped = False
        self.done = False
        self.error: BaseException | None = None
        self.changed = threading.Condition()


class Feed:
    """Gives the pieces of an object in order, and reads some ranges ahead, as memory allows.

    Holds no reference to the object that the caller reads from, so that dropping that one ends
    the threads.  The range that the caller is at needs no memory of the budget.

    :param width: how many ranges are read at once, the caller's included
    :param size: bytes of a range
    :param sequential_rate: bytes per second; while the store gives as many, one stream is read
    :param bounded: the caller's range too is read by a thread, so that waiting for it can end
    :param reservation: memory for what is read ahead
    """

    # What most readers of small objects never need is made later.
    _over = False
    #: What the caller's own thread reads.
    _stream: Generator[bytes, None, None] | None = None
    #: What a thread reads at the place where the caller is.
    _current: _Range | None = None
    #: Taken from by the caller at the left, and by who waits for memory at the right.
    _ahead: deque[_Range] | None = None
    _got, _waited = 0, 0.0
    #: Ends the threads.
    _stop: threading.Event | None = None
    #: What threads are at work on, under the lock.
    _running: set[_Range]
    _lock: Any
    _at_end: Callable[[], object] | None = None

    def __init__(
        self,
        cursor: Cursor,
        offset: int,
        *,
        width: int,
        size: int,
        sequential_rate: float,
        bounded: bool,
        watch: TransferClock,
        reservation: Reservation,
    ) -> None:
        self._cursor = cursor
        self._watch = watch
        self._sequential_rate = sequential_rate if width > 1 and not bounded else 0
        self._size = size
        self._width = width
        self._bounded = bounded
        #: Of the next byte that the caller gets.
        self._position = offset
        #: After what the caller's own thread reads.
        self._stream_end: int | None = offset
        self._reservation = reservation

    def next(self) -> bytes:
        """Return the next piece, empty at the end."""
        while True:
            stream = self._stream
            if stream is not None:
                began = time.perf_counter()
                piece = next(stream, b"")
                if not piece:
                    self._stream = None
                    self._over = self._stream_end is None or self._position < self._stream_end
                elif self._sequential_rate:
                    self._judge(time.perf_counter() - began, len(piece))
            elif self._current is not None:
                piece = self._follow(self._current)
            elif self._over or (
                self._cursor.end is not None and self._position >= self._cursor.end
            ):
                return b""
            else:
                self._begin()
                continue
            if piece:
                self._position += len(piece)
                if self._width > 1:
                    self._fill()
                return piece

    def _begin(self) -> None:
        """Go on with what was read ahead, or else read from here."""
        while self._ahead:
            with contextlib.suppress(IndexError):  # given back just now
                ahead = self._ahead.popleft()
                if ahead.offset == self._position and not ahead.dropped:
                    self._current = ahead
                    return
                self._drop(ahead)
        end = self._cursor.end
        if end is not None and self._width > 1 and not self._sequential_rate:
            end = min(end, self._position + self._size)
        if self._bounded:
            self._current = _Range(self._position, end, 0)
            self._start(self._current)
        else:
            self._stream_end = end
            self._stream = self._cursor.pieces(self._position, end)

    def _judge(self, waited: float, got: int) -> None:
        """Find out whether one stream is enough, or has turned out to be slow.

        What is asked is how long the store keeps the caller waiting, over as many bytes as would
        be read at once; how fast the caller takes them says nothing.
        """
        window = self._width * self._size
        self._got += got
        self._waited += waited
        if self._waited > window / self._sequential_rate:
            assert self._stream is not None
            self._stream.close()
            self._stream, self._sequential_rate = None, 0
        elif self._got >= window:
            self._got, self._waited = 0, 0.0

    def _fill(self) -> None:
        """Start as many threads as there is room for; only once the first byte has come."""
        end = self._cursor.end
        if end is None or self._sequential_rate:
            return
        if self._ahead is None:
            self._ahead = deque()
        while len(self._ahead) < self._width - 1:
            try:
                begin = self._ahead[-1].end
            except IndexError:
                begin = self._stream_end if self._current is None else self._current.end
            if begin is None or begin >= end:
                return
            cost = min(self._size, end - begin)
            if not self._reservation.grow(cost):
                return
            span = _Range(begin, begin + cost, cost)
            self._ahead.append(span)
            self._start(span)

    def _start(self, span: _Range) -> None:
        """Start the thread that reads a range, which :meth:`close` knows of by now."""
        if self._stop is None:
            self._running, self._lock = set(), threading.RLock()
            self._stop = threading.Event()
        thread = new_thread("read-ahead", self._read, span)
        self._running.add(span)
        try:
            thread.start()
        except BaseException:
            if not thread.is_alive():
                self._running.discard(span)
            raise

    def _read(self, span: _Range) -> None:
        """Read a range; the body of a thread."""
        error: BaseException | None = None
        try:
            stream = self._cursor.pieces(span.offset, span.end, self._stop)
            while self._goes_on(span) and self._hand_over(span, next(stream, b"")):
                self._watch.progress()
            stream.close()
        except BaseException as trouble:
            error = trouble
        finally:
            with span.changed:
                span.error = error
                span.done = True
                span.changed.notify_all()
            with self._lock:
                self._running.discard(span)
                last = None if self._running else self._at_end
            if last is not None:
                last()

    def _goes_on(self, span: _Range) -> bool:
        """Wait until a piece of the range may be read; say whether any more is."""
        with span.changed:
            while not (span.reserved or span.wanted or span.dropped or self._is_stopped()):
                span.changed.wait()
            return not (span.dropped or self._is_stopped())

    def _is_stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def _hand_over(self, span: _Range, piece: bytes) -> bool:
        with span.changed:
            if not piece or span.dropped:
                return False
            span.pieces.append(piece)
            span.wanted = False
            span.changed.notify_all()
        return True

    def _follow(self, current: _Range) -> bytes:
        """Return the next piece of a range that a thread reads, empty at its end."""
        with current.changed:
            if not current.pieces and not current.done:
                current.wanted = True
                current.changed.notify_all()
            while not (current.pieces or current.done or current.dropped):
                current.changed.wait(self._watch.remaining())
                if not (current.pieces or current.done or current.dropped):
                    self._watch.check()
            current.wanted = False
            if current.pieces:
                piece = current.pieces.popleft()
                current.offset += len(piece)
                return piece
            if current.error is not None and not current.dropped:
                raise current.error
        self._current = None
        if not current.dropped:
            self._over = current.end is None or current.offset < current.end
        self._drop(current)
        return b""

    def _drop(self, span: _Range) -> None:
        """Forget a range, and give its memory back."""
        with span.changed:
            span.dropped = True
            span.pieces.clear()
            reserved, span.reserved = span.reserved, 0
            span.changed.notify_all()
        self._reservation.shrink(reserved)

    def give_back(self) -> None:
        """Drop what was read ahead and the caller does not wait for; another thread's call."""
        while self._ahead:
            with contextlib.suppress(IndexError):
                self._drop(self._ahead.pop())
        current = self._current
        if current is not None and current.reserved and not current.wanted:
            self._drop(current)

    def go_to(self, position: int) -> None:
        """Go on at another position."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        current, self._current = self._current, None
        if current is not None:
            self._drop(current)
        self._position = position
        self._over = False

    def close(self, at_end: Callable[[], object]) -> None:
        """End the threads without waiting for them, and give the memory back; idempotent.

        :param at_end: called once no thread is at work any more
        """
        if self._stream is not None:
            # Another thread may be in it; what it holds goes with the reader.
            with contextlib.suppress(ValueError):
                self._stream.close()
        if self._stop is None:
            self._reservation.release()
            at_end()
            return
        self._stop.set()
        for span in (*(self._ahead or ()), self._current):
            if span is not None:
                self._drop(span)
        self._reservation.release()
        with self._lock:
            self._at_end = at_end
            last = not self._running
        if last:
            at_end()
