"""ObjectReader, from which a caller reads an object, within a memory budget and verified."""

import functools
import io
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

from store_lib.driver import Reader, RequestContext
from store_lib.exceptions import StoreClosed
from store_lib.location import Location
from store_lib.transfer.budget import SHORT_PIECE, Reservation
from store_lib.transfer.calls import Call
from store_lib.transfer.digest import compare, new_digest
from store_lib.transfer.prefetch import Prefetcher, ReadSpec, ResumingReader
from store_lib.transfer.report import Meter, TransferReport

#: Bytes that are fetched at a time for a caller who has read as many in small amounts.
_AHEAD = 4 * SHORT_PIECE


class OpenReader(Protocol):
    """Opens the backend's reader, as :meth:`~store_lib.driver.Driver.read` does."""

    def __call__(
        self, location: Any, offset: int, length: int | None, /, *, context: RequestContext | None
    ) -> Reader:
        """Open an object for ``length`` bytes from ``offset``; ``None`` for all up to the end."""


class ReadLayer(Protocol):
    """A layer between the engine and one driver for reads, such as a cache.

    The engine uses the layer's readers as it does the driver's.  Many threads may call the layer at
    the same time, and so may a child after a fork.  The stores do not close the layer.
    """

    def read(
        self,
        open: OpenReader,
        location: Location,
        offset: int,
        length: int | None,
        *,
        context: RequestContext | None,
    ) -> Reader:
        """Open an object, as :meth:`~store_lib.driver.Driver.read` does.

        :param open: the driver's own ``read``
        """


def open_reader(read: Callable[[], Reader], spec: ReadSpec, call: Call) -> "ObjectReader":
    """Open an object.

    :param read: opens the backend's reader
    :param call: begun here, and ended when the reader is closed
    """
    reader = None
    try:
        call.begin()
        if spec.interruptible:
            read = functools.partial(
                spec.guard.call, read, on_late_result=lambda late: late.close()
            )
        reader = spec.retry.call(read)
        whole = not spec.offset and spec.length is None
        if whole and not spec.expected and not spec.interruptible and reader.fileno() is not None:
            return LocalFileReader(reader, spec, call.end)
        return ObjectReader(reader, spec, call.end)
    except BaseException:
        if reader is not None:
            reader.close()
        call.end()
        raise


class ObjectReader:
    """An open object: iterate over it, or call ``read``, and then close it.

    It is also a context manager.  All resources are released at the object's end, by ``close``, by
    an error, or when the reader is dropped.  Only one thread at a time may use it.

    Between two reads it holds at most one piece, and ranges that were read ahead.  All of these
    count against the memory limit.  If an upload waits for memory they are dropped, and read again
    later.
    """

    # Defaults for __del__, as an interrupt may end __init__ at any point.
    _closed = True
    _freed = True
    #: Seconds from the beginning to the end; ``None`` until then.
    _seconds: float | None = None

    def __init__(self, reader: Reader, spec: ReadSpec, on_close: Callable[[], object]) -> None:
        """
        :param on_close: called once, after the backend's reader was closed
        """
        self._on_close = on_close
        self._reader = reader
        self._meter = Meter()
        self._clock = spec.clock
        self._clock.progress()
        source = ResumingReader(reader, spec, self._meter)
        #: Bytes of the whole object; ``None`` if the backend does not know.
        self.size: int | None = reader.size
        #: Bytes that this reader returns in total; ``None`` if the backend does not know.
        self.length: int | None = None
        if reader.size is not None and source.end is not None:
            self.length = max(0, source.end - spec.offset)
        self._expected = spec.expected
        self._hashes = {name: new_digest(name) for name in self._expected}
        self._digest_seconds = 0.0
        #: Number of bytes that were read from the store, digested, and returned to the caller.
        self._done = self._digested = self._given = 0
        #: The last piece if the caller has not got all of it: the bytes, the positions of their
        #: begin and end among all bytes to return, and whether they count in the budget.  The list
        #: is empty if there is none.  Two threads may remove the entry: the caller's when the piece
        #: is used up, and one that waits for memory.
        self._rest: list[tuple[bytes, int, int, bool]] = []
        self._offset = spec.offset
        self._resumable = source.resumable
        self._piece_size = reader.piece_size
        self._exact = reader.exact and not spec.interruptible
        #: The budget for the piece being fetched, the rest of the last one, and ranges read ahead.
        self._budget = spec.budget
        self._memory = Reservation(self._budget)
        self._prefetcher = Prefetcher(source, spec, self._memory)
        self._left_at = time.perf_counter()
        self._freed = False
        self._closed = False
        self._budget.register(self)  # last, as other threads may call give_back from now on

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._take(None)
        if not len(piece):
            raise StopIteration
        self._give(len(piece))
        return piece if isinstance(piece, bytes) else bytes(piece)

    def _take(self, most: int | None) -> memoryview | bytes:
        """Return the rest of the last piece, or else the next piece; empty at the end.

        :param most: number of bytes that the caller wants; ``None`` for any number
        """
        if self._closed:
            raise ValueError("read from a closed object reader")
        rest = self._take_rest() if self._rest else None
        if rest is not None:
            return rest
        return b"" if self._freed else self._fetch(most)

    def _give(self, count: int) -> None:
        """Count the bytes of a piece, or of the rest of one, that the caller gets."""
        self._given += count
        if self._given == self.length and self._exact and not self._hashes:
            self._free()

    def _take_rest(self) -> memoryview | bytes | None:
        """Remove and return the rest of the last piece, or ``None`` if another thread did."""
        try:
            piece, begin, _, counted = self._rest.pop()
        except IndexError:
            return None
        if counted:
            self._memory.shrink(len(piece))
        return memoryview(piece)[self._given - begin :]

    def _keep(self, piece: bytes, begin: int) -> None:
        """Keep a piece of which the caller has taken only a part, if there is memory for it."""
        counted = self._memory.grow(len(piece))
        if counted or not self._resumable:
            self._rest.append((piece, begin, begin + len(piece), counted))

    def give_back(self) -> None:
        """Drop the bytes held for the caller.  Called by a thread that waits for memory."""
        self._prefetcher.give_back()
        if self._resumable:
            self._take_rest()

    def _fetch(self, most: int | None) -> bytes:
        """Return the next piece from the store; empty at the end.

        The empty piece is returned only after the expected digests have been verified.
        """
        if self._memory.inherited:
            raise StoreClosed("This reader belongs to the process that this one was forked from.")
        began = time.perf_counter()
        self._meter.source += began - self._left_at
        self._clock.progress()
        taken = 0
        try:
            if self._given != self._done:  # bytes that were held have been dropped meanwhile
                self._prefetcher.go_to(self._offset + self._given)
                self._done = self._given
            if self._done != self.length:
                wanted = min(self._piece_size, self._budget.piece_size)
                if self._exact and most is not None and most < wanted:
                    ahead = min(wanted, _AHEAD)
                    if most <= SHORT_PIECE and ahead <= self._done and self._memory.grow(ahead):
                        taken = ahead
                    wanted = most
                self._reader.piece_size = taken = taken or self._memory.take_piece(
                    wanted, self._clock
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
            piece = self._prefetcher.next()
        finally:
            self._meter.store += time.perf_counter() - began
        if not piece:
            self._finish()
            return b""
        self._clock.check()
        known = self._digested - self._done
        self._done += len(piece)
        self._clock.done = self._done
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
        compare({name: digest.hexdigest() for name, digest in self._hashes.items()}, self._expected)
        self._free()

    def read(self, amount: int | None = -1, /) -> bytes:
        """Return ``amount`` bytes, fewer only at the end; with -1 or ``None``, all that remain."""
        if amount is None or amount < 0:
            return self._read_all()
        given = self._given
        for piece, begin, end, _ in self._rest:
            if given + amount < end:  # the last piece has more than enough, so this is all to do
                self._given = given + amount
                return piece[given - begin : given - begin + amount]
        if not amount:
            return b""
        first = self._part(self._take(amount), amount)
        if len(first) in (0, amount):
            return bytes(first)  # this does not copy a bytes object
        gathered = bytearray(first)
        while len(gathered) < amount:
            left = amount - len(gathered)
            if not len(part := self._part(self._take(left), left)):
                break
            gathered += part
        return bytes(gathered)

    def _read_all(self) -> bytes:
        pieces = []
        while len(piece := self._take(None)):
            self._give(len(piece))
            pieces.append(piece)
        return b"".join(pieces)

    def _part(self, piece: memoryview | bytes, most: int) -> memoryview | bytes:
        """Return at most ``most`` bytes of a piece; keep the piece if it has more."""
        if len(piece) <= most:
            self._give(len(piece))
            return piece
        self._keep(bytes(piece), self._given)
        self._given += most
        return memoryview(piece)[:most]

    def readinto(self, buffer: Any, /) -> int:
        """Fill ``buffer``, or as much of it as there are bytes, and return their number."""
        view = memoryview(buffer).cast("B")
        amount, given = len(view), self._given
        for held, begin, end, _ in self._rest:
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
        """Return false; to read from another position, get that range from the store."""
        return False

    def flush(self) -> None:
        """Do nothing, as any file opened for reading."""

    @property
    def closed(self) -> bool:
        """Whether the reader was closed, by the caller or after an error."""
        return self._closed

    @property
    def report(self) -> TransferReport:
        """The report of the read so far."""
        seconds = self._clock.elapsed() if self._seconds is None else self._seconds
        return self._meter.report(self._done, seconds, self._digest_seconds)

    def close(self) -> None:
        """Close the reader, and release all its resources; further calls do nothing."""
        self._closed = True
        self._rest.clear()
        self._free()

    def _free(self) -> None:
        """Release all resources but the rest of the last piece; further calls do nothing."""
        if self._freed:
            return
        if not self._memory.inherited:  # else only the parent may release it
            if self._seconds is None:
                self._seconds = self._clock.elapsed()
            self._budget.unregister(self)
            self._prefetcher.close(functools.partial(_release, self._reader, self._on_close))
        self._freed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._freed:
            self.close()


def _release(reader: Reader, on_close: Callable[[], object]) -> None:
    try:
        reader.close()
    finally:
        on_close()


class LocalFileReader(ObjectReader):
    """A reader of a whole local file, which a WSGI server may send without reading it."""

    def fileno(self) -> int:
        """Return the descriptor of a file that holds exactly this object.

        :raises io.UnsupportedOperation: bytes have already been read, or the reader is closed
        """
        descriptor = None if self._closed or self._done else self._reader.fileno()
        if descriptor is None:
            raise io.UnsupportedOperation("the reading has begun, or has ended")
        return descriptor

    def tell(self) -> int:
        """Return the number of bytes read so far; mod_wsgi calls this before it sends the file."""
        return self._given
