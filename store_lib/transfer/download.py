"""The way of the bytes out: a backend's reader, resumed when cut, read ahead, and verified."""

import contextlib
import functools
import io
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Self

from store_lib.driver import Reader
from store_lib.exceptions import BackendException, ErrorStatus, StoreClosed, StoreError
from store_lib.transfer.budget import SHORT_PIECE, Budget, Reservation
from store_lib.transfer.digest import compare, new_digest
from store_lib.transfer.limits import Watch
from store_lib.transfer.report import Meter, TransferReport
from store_lib.transfer.retry import Retry, Tries
from store_lib.transfer.threads import new_thread

#: Bytes that are fetched at once for a caller who has read as many a few at a time.
_AHEAD = 4 * SHORT_PIECE


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
        watch: Watch,
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
        self._watch = watch

    def pieces(
        self, offset: int, end: int | None, stop: threading.Event | None = None
    ) -> Generator[bytes, None, None]:
        """Yield the bytes from ``offset`` to ``end``, whatever connections it takes.

        :raises BackendException: the backend gave fewer or more bytes than there are
        """
        position = offset
        tries, failed_at = None, -1
        # A thread that reads ahead of a slow caller is no stall: who waits for it looks.
        retry = self._retry if stop is not None else self._retry.within(self._watch)
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
                if tries is None or position > failed_at:  # bytes have come since the last error
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
        watch: Watch,
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
                current.changed.wait(self._watch.patience())
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


class ObjectReader:
    """An object being read: iterate over it, or ``read`` from it, and close it.

    A context manager.  However the reading ends (at the end, by ``close``, by an error, by
    dropping the object) everything it held is released.  For one thread at a time.

    Between two reads it holds a piece at most, which counts against the memory limit; what is
    read ahead does too.  Both are given back when an upload waits for memory, and are read again.
    """

    # For __del__, wherever an interrupt ends __init__.
    _closed = True
    _freed = True
    _ended: TransferReport | None = None

    def __init__(
        self,
        reader: Reader,
        *,
        offset: int,
        length: int | None,
        ranges: bool,
        width: int,
        read_size: int,
        sequential_rate: float,
        bounded: bool,
        watch: Watch,
        retry: Retry,
        budget: Budget,
        digests: Mapping[str, str] | None,
        released: Callable[[], object],
    ) -> None:
        self._released = released
        self._reader = reader
        self._meter = Meter()
        self._watch = watch
        watch.progress()
        size = reader.size
        if size is None:
            end = None if length is None else offset + length
        else:
            end = size if length is None else min(size, offset + length)
        #: Bytes of the whole object; ``None`` where the backend does not tell.
        self.size: int | None = size
        #: Bytes that this reader delivers; ``None`` where the backend does not tell.
        self.length: int | None = None
        if size is not None and end is not None:
            self.length = max(0, end - offset)
        self._expected = dict(digests or {})
        self._hashes = {name: new_digest(name) for name in self._expected}
        self._digest_seconds = 0.0
        #: Bytes that came from the store, that the digests have seen, and that the caller got.
        self._done = self._digested = self._given = 0
        #: The last piece while some of it is left, where it begins and ends among the bytes to
        #: be given, and whether it counts in the budget.  Reads go on in it, whoever takes it
        #: out meanwhile: the caller at its end, or a thread that waits for memory.
        self._hand: list[tuple[bytes, int, int, bool]] = []
        self._offset = offset
        cursor = Cursor(reader, end, retry, ranges, self._meter, watch)
        self._resumable = cursor.resumable
        self._piece_size = reader.piece_size
        self._exact = reader.exact and not bounded
        #: For the piece that is fetched, what is in hand, and what is read ahead.
        self._budget = budget
        self._memory = Reservation(budget)
        self._feed = Feed(
            cursor,
            offset,
            width=width,
            size=read_size,
            sequential_rate=sequential_rate,
            bounded=bounded,
            watch=self._watch,
            reservation=self._memory,
        )
        self._left_at = time.perf_counter()
        self._freed = False
        self._closed = False
        budget.open(self)  # last: from now on another thread may ask to give memory back

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._take(None)
        if not len(piece):
            raise StopIteration
        self._given += len(piece)
        return piece if isinstance(piece, bytes) else bytes(piece)

    def _take(self, most: int | None) -> memoryview | bytes:
        """Return what is left of the last piece, or the next one, empty at the end.

        :param most: how many bytes the caller wants
        """
        if self._closed:
            raise ValueError("read from a closed object reader")
        rest = self._from_hand() if self._hand else None
        if rest is not None:
            return rest
        return b"" if self._freed else self._fetch(most)

    def _from_hand(self) -> memoryview | bytes | None:
        """Take out what is in hand, if nobody else has, and return what is left of it."""
        try:
            piece, begin, _, counted = self._hand.pop()
        except IndexError:
            return None
        if counted:
            self._memory.shrink(len(piece))
        return memoryview(piece)[self._given - begin :]

    def _keep(self, piece: bytes, begin: int) -> None:
        """Keep a piece of which the caller did not want all yet, if there is memory for it."""
        counted = self._memory.grow(len(piece))
        if counted or not self._resumable:
            self._hand.append((piece, begin, begin + len(piece), counted))

    def give_back(self) -> None:
        """Give up what is held for the caller; for a thread that waits for memory."""
        self._feed.give_back()
        if self._resumable:
            self._from_hand()

    def _fetch(self, most: int | None) -> bytes:
        """Return the next piece from the store, empty at the end.

        The end is told only once what was expected is verified.
        """
        if self._memory.inherited:
            raise StoreClosed("This reader belongs to the process that this one was forked from.")
        began = time.perf_counter()
        self._meter.source += began - self._left_at
        self._watch.progress()
        taken = 0
        try:
            if self._given != self._done:  # what was held has been given back
                self._feed.go_to(self._offset + self._given)
                self._done = self._given
            if self._done != self.length:
                wanted = min(self._piece_size, self._budget.piece)
                if self._exact and most is not None and most < wanted:
                    ahead = min(wanted, _AHEAD)
                    if most <= SHORT_PIECE and ahead <= self._done and self._memory.grow(ahead):
                        taken = ahead
                    wanted = most
                self._reader.piece_size = taken = taken or self._memory.take_piece(
                    wanted, self._watch
                )
            piece = self._next_piece()
        except BaseException:
            self.close()
            raise
        finally:
            if taken:
                self._memory.shrink(taken)
        self._left_at = time.perf_counter()
        return piece

    def _next_piece(self) -> bytes:
        began = time.perf_counter()
        try:
            piece = self._feed.next()
        finally:
            self._meter.store += time.perf_counter() - began
        if not piece:
            self._finish()
            return b""
        self._watch.check()
        known = self._digested - self._done
        self._done += len(piece)
        self._watch.done = self._done
        if self._hashes and known < len(piece):
            began = time.perf_counter()
            new = memoryview(piece)[known:] if known else piece
            for digest in self._hashes.values():
                digest.update(new)
            self._digested = self._done
            self._digest_seconds += time.perf_counter() - began
        return piece

    def _finish(self) -> None:
        if self.length is None:
            self.length = self._done
        compare({name: each.hexdigest() for name, each in self._hashes.items()}, self._expected)
        self._free()

    def read(self, amount: int | None = -1, /) -> bytes:
        """Return ``amount`` bytes, fewer only at the end; all that is left for -1 or ``None``."""
        if amount is None or amount < 0:
            return b"".join(self)
        given = self._given
        for piece, begin, end, _ in self._hand:
            if given + amount < end:  # more than enough: nothing has to be done but this
                self._given = given + amount
                return piece[given - begin : given - begin + amount]
        if not amount:
            return b""
        first = self._part(self._take(amount), amount)
        if len(first) in (0, amount):
            return bytes(first)  # which copies no bytes
        gathered = bytearray(first)
        while len(gathered) < amount:
            left = amount - len(gathered)
            if not len(part := self._part(self._take(left), left)):
                break
            gathered += part
        return bytes(gathered)

    def _part(self, piece: memoryview | bytes, most: int) -> memoryview | bytes:
        """Give the caller what it wants of a piece, and keep the piece where that is not all."""
        if len(piece) <= most:
            self._given += len(piece)
            return piece
        self._keep(bytes(piece), self._given)
        self._given += most
        return memoryview(piece)[:most]

    def readinto(self, buffer: Any, /) -> int:
        """Fill ``buffer`` as far as the object reaches, and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        amount, given = len(view), self._given
        for held, begin, end, _ in self._hand:
            if given + amount < end:
                view[:] = memoryview(held)[given - begin : given - begin + amount]
                self._given = given + amount
                return amount
        done = 0
        while done < amount:
            piece = self._take(amount - done)
            if not len(piece):
                break
            length = min(len(piece), amount - done)
            view[done : done + length] = memoryview(piece)[:length]
            done += len(self._part(piece, length))
        return done

    def readable(self) -> bool:
        """Return true."""
        return True

    def writable(self) -> bool:
        """Return false."""
        return False

    def seekable(self) -> bool:
        """Return false: get the range that is wanted instead."""
        return False

    def flush(self) -> None:
        """Do nothing, as any file that is only read."""

    @property
    def closed(self) -> bool:
        """Whether it was closed, by the caller or by an error: then nothing can be read."""
        return self._closed

    @property
    def report(self) -> TransferReport:
        """What the reading did so far."""
        if self._ended is not None:
            return self._ended
        return self._meter.report(self._done, self._watch.elapsed(), self._digest_seconds)

    def close(self) -> None:
        """Release everything; further calls do nothing."""
        self._closed = True
        self._hand.clear()
        self._free()

    def _free(self) -> None:
        """Release everything but what is in hand; further calls do nothing."""
        if self._freed:
            return
        if not self._memory.inherited:  # else it is the parent's to release
            if self._ended is None:
                self._ended = self.report
            self._budget.close(self)
            self._feed.close(functools.partial(_release, self._reader, self._released))
        self._freed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._freed:
            self.close()


def _release(reader: Reader, released: Callable[[], object]) -> None:
    try:
        reader.close()
    finally:
        released()


class LocalFileReader(ObjectReader):
    """A reader of a whole local file, which a WSGI server may send by itself."""

    def fileno(self) -> int:
        """Return the descriptor of a file that holds exactly this object.

        :raises io.UnsupportedOperation: some of it has been read already, or it is closed
        """
        descriptor = None if self._closed or self._done else self._reader.fileno()
        if descriptor is None:
            raise io.UnsupportedOperation("the reading has begun, or has ended")
        return descriptor

    def tell(self) -> int:
        """Return the number of bytes read so far; mod_wsgi asks before it sends the file."""
        return self._given
