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
from store_lib.exceptions import BackendException, ErrorStatus, StoreError
from store_lib.transfer.budget import Budget, Reservation
from store_lib.transfer.digest import compare, new_digest
from store_lib.transfer.limits import Watch
from store_lib.transfer.report import Meter, TransferReport
from store_lib.transfer.retry import Retry, Tries


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
        #: What is resumed on no sure identity could be another object's bytes.
        self._retry = retry if ranges and reader.validator is not None else retry.once()
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
                for piece in self.reader.stream(position, length):
                    position += len(piece)
                    if end is not None and position > end:
                        raise BackendException(f"Expected {length} bytes, got more from the store.")
                    yield piece
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

    :param reserved: bytes of memory taken for it; 0 when it may only hold a few pieces
    """

    def __init__(self, offset: int, end: int | None, reserved: int) -> None:
        self.offset = offset
        self.end = end
        self.reserved = reserved
        self.pieces: deque[bytes] = deque()
        self.done = False
        self.error: BaseException | None = None
        self.changed = threading.Condition()


class ReadAhead:
    """Reads some ranges ahead of the caller, each by a thread, as memory allows.

    Holds no reference to the object that the caller reads from, so that dropping that one ends
    the threads.  The range that the caller is at needs no memory of the budget.

    :param width: how many ranges are read at once, the caller's included
    :param size: bytes of a range
    :param sequential_rate: bytes per second; while the store gives as many, one stream is read
    :param bounded: the caller's range too is read by a thread, so that waiting for it can end
    """

    #: Pieces that a range without reserved memory may be ahead of the caller.
    FEW = 2

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
        self._sequential_rate = sequential_rate
        self._size = size
        self._width = width
        self._bounded = bounded
        self._next: int | None = offset
        self._reservation = reservation
        self._stop = threading.Event()
        self._ahead: deque[_Range] = deque()
        self._lock = threading.Lock()
        self._running = 0
        self._at_end: Callable[[], object] | None = None

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield all the bytes, in order."""
        if self._sequential_rate and not self._bounded:
            yield from self._sequence()
        while True:
            if self._ahead:
                current = self._ahead.popleft()
            elif (span := self._advance()) is None:
                return
            elif self._bounded:
                current = self._start(*span, reserved=0)
            else:
                for piece in self._cursor.pieces(*span):
                    self._fill()
                    yield piece
                continue
            for piece in self._follow(current):
                self._fill()
                yield piece
            self._reservation.shrink(current.reserved)

    def _sequence(self) -> Generator[bytes, None, None]:
        """Yield the bytes of one stream, to the end, or until it turns out to be slow.

        What is asked is how long the store keeps the caller waiting, over as many bytes as would
        be read at once; how fast the caller takes them says nothing.
        """
        position = self._next
        assert position is not None
        window = self._width * self._size
        patience = window / self._sequential_rate
        got, waited = 0, 0.0
        with contextlib.closing(self._cursor.pieces(position, self._cursor.end)) as stream:
            while waited <= patience:
                began = time.perf_counter()
                piece = next(stream, b"")
                waited += time.perf_counter() - began
                got += len(piece)
                if not piece:
                    self._next = None
                    return
                position += len(piece)
                self._next = position
                yield piece
                if got >= window:
                    got, waited = 0, 0.0

    def _advance(self) -> tuple[int, int | None] | None:
        """Return the next range that nobody reads yet."""
        offset, end = self._next, self._cursor.end
        if offset is None or (end is not None and offset >= end):
            return None
        if end is None or self._width == 1:
            self._next = None
            return offset, end
        self._next = min(end, offset + self._size)
        return offset, self._next

    def _fill(self) -> None:
        """Start as many threads as there is room for; only once the first byte has come."""
        end = self._cursor.end
        while len(self._ahead) < self._width - 1 and self._next is not None and end is not None:
            cost = min(self._size, end - self._next)
            if cost <= 0 or not self._reservation.grow(cost):
                return
            span = self._advance()
            assert span is not None
            self._ahead.append(self._start(*span, reserved=cost))

    def _start(self, offset: int, end: int | None, *, reserved: int) -> _Range:
        span = _Range(offset, end, reserved)
        with self._lock:
            self._running += 1
        threading.Thread(
            target=self._read, args=(span,), name="store_lib-read-ahead", daemon=True
        ).start()
        return span

    def _read(self, span: _Range) -> None:
        """Read a range; the body of a thread."""
        error: BaseException | None = None
        try:
            for piece in self._cursor.pieces(span.offset, span.end, self._stop):
                with span.changed:
                    while (
                        not span.reserved
                        and len(span.pieces) >= self.FEW
                        and not self._stop.is_set()
                    ):
                        span.changed.wait(1.0)
                    if self._stop.is_set():
                        break
                    span.pieces.append(piece)
                    span.changed.notify_all()
                self._watch.progress()
        except BaseException as trouble:
            error = trouble
        finally:
            with span.changed:
                span.error = error
                span.done = True
                span.changed.notify_all()
            with self._lock:
                self._running -= 1
                last = None if self._running else self._at_end
            if last is not None:
                last()

    def _follow(self, current: _Range) -> Iterator[bytes]:
        while True:
            with current.changed:
                while not current.pieces and not current.done:
                    current.changed.wait(self._watch.patience())
                    if not current.pieces and not current.done:
                        self._watch.check()
                if not current.pieces:
                    if current.error is not None:
                        raise current.error
                    return
                piece = current.pieces.popleft()
                current.changed.notify_all()
            yield piece

    def close(self, at_end: Callable[[], object]) -> None:
        """End the threads without waiting for them, and give the memory back.

        :param at_end: called once no thread is at work any more
        """
        self._stop.set()
        for ahead in self._ahead:
            with ahead.changed:
                ahead.changed.notify_all()
        self._ahead.clear()
        self._reservation.release()
        with self._lock:
            self._at_end = at_end
            running = self._running
        if not running:
            at_end()


class ObjectReader:
    """An object being read: iterate over it, or ``read`` from it, and close it.

    A context manager.  However the reading ends (at the end, by ``close``, by an error, by
    dropping the object) everything it held is released.  For one thread at a time.
    """

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
        self._closed = False
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
        self._done = 0
        self._rest = memoryview(b"")
        self._digest_seconds = 0.0
        self._ended: TransferReport | None = None
        cursor = Cursor(reader, end, retry, ranges, self._meter, watch)
        self._ahead: ReadAhead | None = None
        self._pieces: Generator[bytes, None, None]
        if bounded or width > 1:
            self._ahead = ReadAhead(
                cursor,
                offset,
                width=width,
                size=read_size,
                sequential_rate=sequential_rate,
                bounded=bounded,
                watch=self._watch,
                reservation=budget.open(),
            )
            self._pieces = self._ahead.pieces()
        else:
            self._pieces = cursor.pieces(offset, end)
        self._left_at = time.perf_counter()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if len(self._rest):
            rest = bytes(self._rest)
            self._rest = memoryview(b"")
            return rest
        piece = self._fetch()
        if not piece:
            raise StopIteration
        return piece

    def _fetch(self) -> bytes:
        """Return the next piece from the store, empty at the end.

        The end is told only once what was expected is verified.
        """
        if self._closed:
            if self._ended is None or self._ended.bytes != self.length:
                raise ValueError("read from a closed object reader")
            return b""
        began = time.perf_counter()
        self._meter.source += began - self._left_at
        self._watch.progress()
        try:
            piece = self._next_piece()
        except BaseException:
            self.close()
            raise
        self._left_at = time.perf_counter()
        return piece

    def _next_piece(self) -> bytes:
        began = time.perf_counter()
        try:
            while not (piece := next(self._pieces)):
                pass
        except StopIteration:
            self._finish()
            return b""
        finally:
            self._meter.store += time.perf_counter() - began
        self._watch.check()
        self._done += len(piece)
        self._watch.done = self._done
        if self._hashes:
            began = time.perf_counter()
            for digest in self._hashes.values():
                digest.update(piece)
            self._digest_seconds += time.perf_counter() - began
        return piece

    def _finish(self) -> None:
        if self.length is None:
            self.length = self._done
        compare({name: each.hexdigest() for name, each in self._hashes.items()}, self._expected)
        self.close()

    def read(self, amount: int | None = -1, /) -> bytes:
        """Return ``amount`` bytes, fewer only at the end; all that is left for -1 or ``None``."""
        if amount is None or amount < 0:
            return b"".join(self)
        if not amount:
            return b""
        if not len(self._rest):
            piece = self._fetch()
            if len(piece) in (0, amount):
                return piece
            self._rest = memoryview(piece)
        if len(self._rest) >= amount:
            found = bytes(self._rest[:amount])
            self._rest = self._rest[amount:]
            return found
        gathered = bytearray()
        while len(gathered) < amount:
            if not len(self._rest):
                piece = self._fetch()
                if not piece:
                    break
                self._rest = memoryview(piece)
            part = self._rest[: amount - len(gathered)]
            gathered += part
            self._rest = self._rest[len(part) :]
        return bytes(gathered)

    def readinto(self, buffer: Any, /) -> int:
        """Fill ``buffer`` as far as the object reaches, and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            if not len(self._rest):
                piece = self._fetch()
                if not piece:
                    break
                self._rest = memoryview(piece)
            part = self._rest[: len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)
            self._rest = self._rest[len(part) :]
        return done

    def readable(self) -> bool:
        """Return true."""
        return True

    @property
    def closed(self) -> bool:
        """Whether everything is released."""
        return self._closed

    @property
    def report(self) -> TransferReport:
        """What the reading did so far."""
        if self._ended is not None:
            return self._ended
        return self._meter.report(self._done, self._watch.elapsed(), self._digest_seconds)

    def close(self) -> None:
        """Release everything; further calls do nothing."""
        if self._closed:
            return
        self._ended = self.report
        self._closed = True
        # Another thread may be in it; what it holds goes with the reader.
        with contextlib.suppress(ValueError):
            self._pieces.close()
        if self._ahead is not None:
            self._ahead.close(functools.partial(_release, self._reader, self._released))
        else:
            _release(self._reader, self._released)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
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
        return self._done
