"""Sources of every shape that an add takes: whole, short, odd, counted, failing, standing still."""

import pathlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from store_lib import AddResult, Store
from store_lib.testing.content import Content

#: Sizes of pieces that fit no buffer; an empty piece is no end of an iterable.
ODD_SIZES = (1, 4095, 0, 70_001, 7, 65_537, 131_071, 3)


class Reading:
    """A plain file-like source with nothing but ``read``; counts what is asked of it.

    :param sizes: gives at most so many bytes at each read, in turn, however much is asked
    :param error: raised once ``at`` bytes were given
    """

    def __init__(
        self,
        content: Content,
        *,
        sizes: tuple[int, ...] = (),
        at: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        self._content = content
        self._sizes = tuple(size for size in sizes if size)
        self._error = error
        self._end = content.size if at is None else min(at, content.size)
        self.reads = 0
        self.given = 0
        self.raised = 0

    def read(self, amount: int = -1) -> bytes:
        """Give the next bytes, or raise the error that was set."""
        self.reads += 1
        if self.given >= self._end and self._error is not None:
            self.raised += 1
            raise self._error
        left = self._end - self.given
        amount = left if amount is None or amount < 0 else min(amount, left)
        if self._sizes:
            amount = min(amount, self._sizes[self.reads % len(self._sizes)])
        piece = self._content.slice(self.given, amount)
        self.given += len(piece)
        return piece


class ReadingInto:
    """A file-like source that can only ``readinto``."""

    def __init__(self, content: Content) -> None:
        self._source = Reading(content)

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as there are bytes."""
        view = memoryview(buffer).cast("B")
        piece = self._source.read(len(view))
        view[: len(piece)] = piece
        return len(piece)


class Untouched:
    """A source that counts how often anybody asked it for bytes."""

    def __init__(self, content: Content) -> None:
        self._source = Reading(content)

    @property
    def reads(self) -> int:
        """How often it was asked."""
        return self._source.reads

    def read(self, amount: int = -1) -> bytes:
        """Note it and give the next bytes."""
        return self._source.read(amount)


def odd_pieces(content: Content) -> Iterator[Any]:
    """Yield all of ``content`` in odd pieces, as bytes, bytearray and memoryview in turn."""
    kinds: tuple[Callable[[bytes], Any], ...] = (bytes, bytearray, memoryview)
    offset = number = 0
    while offset < content.size:
        size = ODD_SIZES[number % len(ODD_SIZES)]
        yield kinds[number % 3](content.slice(offset, size))
        offset += size
        number += 1


def reused_buffer(content: Content) -> Iterator[memoryview]:
    """Yield all of ``content`` through one buffer that is overwritten each time."""
    buffer = bytearray(70_001)
    offset = 0
    while offset < content.size:
        piece = content.slice(offset, len(buffer))
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]
        offset += len(piece)
    buffer[:] = b"\xff" * len(buffer)


def endless_pieces(content: Content) -> Iterator[bytes]:
    """Yield ``content`` over and over."""
    data = content.whole()
    while True:
        yield data


def failing_pieces(content: Content, at: int, error: BaseException) -> Iterator[bytes]:
    """Yield the first ``at`` bytes of ``content``, then raise ``error``."""
    offset = 0
    while offset < at:
        size = min(50_021, at - offset)
        yield content.slice(offset, size)
        offset += size
    raise error


def _path(content: Content, directory: pathlib.Path) -> pathlib.Path:
    path = directory / f"source-{uuid.uuid4().hex}"
    with path.open("wb") as file:
        for piece in content.pieces():
            file.write(piece)
    return path


#: Every shape by name: made from content, and a directory for those that need a file.
SHAPES: dict[str, Callable[[Content, pathlib.Path], Any]] = {
    "file-like": lambda content, directory: Reading(content),
    "short-reading file-like": lambda content, directory: Reading(content, sizes=ODD_SIZES),
    "odd pieces": lambda content, directory: odd_pieces(content),
    "path": _path,
    "reused buffer": lambda content, directory: reused_buffer(content),
    "readinto only": lambda content, directory: ReadingInto(content),
    "bytearray": lambda content, directory: bytearray(content.whole()),
}


class InFlight:
    """An add that stands still in the middle of its source, on a thread of its own.

    Use as a context manager: leaving it makes the source fail if it is still standing.

    :param at: bytes given before it stands
    """

    def __init__(
        self, store: Store, object_id: str, content: Content, *, at: int, size: int | None = None
    ) -> None:
        self._content = content
        self._at = at
        self._standing = threading.Event()
        self._go = threading.Event()
        self._error: BaseException | None = None
        self._outcome: list[AddResult | BaseException] = []

        def run() -> None:
            try:
                self._outcome.append(store.add(object_id, self._pieces(), size))
            except BaseException as error:
                self._outcome.append(error)

        self._thread = threading.Thread(target=run, name="conformance-add", daemon=True)

    def _pieces(self) -> Iterator[bytes]:
        yield self._content.slice(0, self._at)
        self._standing.set()
        self._go.wait()
        if self._error is not None:
            raise self._error
        yield self._content.slice(self._at)

    def __enter__(self) -> "InFlight":
        self._thread.start()
        while not self._standing.wait(0.05):
            if not self._thread.is_alive():
                raise AssertionError(
                    "An add that should have stood in the middle of its source: expected it to "
                    f"read {self._at} bytes and ask for more, got {self._outcome}"
                )
        return self

    def __exit__(self, *_: object) -> None:
        if not self._go.is_set():
            self._error = InterruptedError("the check ended")
        self._go.set()
        self._thread.join()

    def finish(self) -> AddResult:
        """Let it run to its end and return what add returned, or raise what it raised."""
        self._go.set()
        self._thread.join()
        outcome = self._outcome[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def fail(self, error: BaseException) -> None:
        """Make the source raise ``error``; add is over when this returns."""
        self._error = error
        self._go.set()
        self._thread.join()
