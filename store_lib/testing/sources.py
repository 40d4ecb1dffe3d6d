"""Sources of every kind that an add accepts, and an add that pauses half-way."""

import pathlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from store_lib import AddResult, Store
from store_lib.testing.content import Content

#: Chunk sizes that do not match any buffer's size; an empty chunk does not end an iterable.
ODD_SIZES = (1, 4095, 0, 70_001, 7, 65_537, 131_071, 3)


class FileLike:
    """A source whose only method is ``read``, and which counts its calls.

    :param sizes: upper limits for the bytes that a read returns, used in turn
    :param at: the number of bytes after which ``error`` is raised, by default all
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
        """Return the next bytes, or raise the error."""
        self.reads += 1
        if self.given >= self._end and self._error is not None:
            self.raised += 1
            raise self._error
        left = self._end - self.given
        amount = left if amount is None or amount < 0 else min(amount, left)
        if self._sizes:
            amount = min(amount, self._sizes[self.reads % len(self._sizes)])
        chunk = self._content.slice(self.given, amount)
        self.given += len(chunk)
        return chunk


class ReadintoOnly:
    """A source whose only method is ``readinto``."""

    def __init__(self, content: Content) -> None:
        self._source = FileLike(content)

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with the next bytes and return their number."""
        view = memoryview(buffer).cast("B")
        chunk = self._source.read(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)


def odd_chunks(content: Content) -> Iterator[Any]:
    """Yield ``content`` in chunks of odd sizes: bytes, bytearray and memoryview in turn."""
    kinds: tuple[Callable[[bytes], Any], ...] = (bytes, bytearray, memoryview)
    offset = number = 0
    while offset < content.size:
        size = ODD_SIZES[number % len(ODD_SIZES)]
        yield kinds[number % 3](content.slice(offset, size))
        offset += size
        number += 1


def reused_buffer(content: Content) -> Iterator[memoryview]:
    """Yield ``content`` as views of a single buffer that is overwritten each time."""
    buffer = bytearray(70_001)
    offset = 0
    while offset < content.size:
        chunk = content.slice(offset, len(buffer))
        buffer[: len(chunk)] = chunk
        yield memoryview(buffer)[: len(chunk)]
        offset += len(chunk)
    buffer[:] = b"\xff" * len(buffer)


def endless_chunks(content: Content) -> Iterator[bytes]:
    """Yield ``content`` again and again."""
    data = content.whole()
    while True:
        yield data


def failing_chunks(content: Content, at: int, error: BaseException) -> Iterator[bytes]:
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
        for chunk in content.chunks():
            file.write(chunk)
    return path


#: Functions that make a source from content, by kind; the directory is for a file.
SOURCE_KINDS: dict[str, Callable[[Content, pathlib.Path], Any]] = {
    "file-like": lambda content, directory: FileLike(content),
    "short-reading file-like": lambda content, directory: FileLike(content, sizes=ODD_SIZES),
    "odd chunks": lambda content, directory: odd_chunks(content),
    "path": _path,
    "reused buffer": lambda content, directory: reused_buffer(content),
    "readinto only": lambda content, directory: ReadintoOnly(content),
    "bytearray": lambda content, directory: bytearray(content.whole()),
}


class PausedAdd:
    """An add in another thread, whose source pauses half-way.

    It is a context manager: at the end of the block, the source fails if it still pauses.

    :param at: the number of bytes after which the source pauses
    """

    def __init__(
        self, store: Store, object_id: str, content: Content, *, at: int, size: int | None = None
    ) -> None:
        self._content = content
        self._at = at
        self._paused = threading.Event()
        self._resume = threading.Event()
        self._error: BaseException | None = None
        self._outcome: list[AddResult | BaseException] = []

        def run() -> None:
            try:
                self._outcome.append(store.add(object_id, self._chunks(), size))
            except BaseException as error:
                self._outcome.append(error)

        self._thread = threading.Thread(target=run, name="conformance-add", daemon=True)

    def _chunks(self) -> Iterator[bytes]:
        yield self._content.slice(0, self._at)
        self._paused.set()
        self._resume.wait()
        if self._error is not None:
            raise self._error
        yield self._content.slice(self._at)

    def __enter__(self) -> "PausedAdd":
        self._thread.start()
        while not self._paused.wait(0.05):
            if not self._thread.is_alive():
                raise AssertionError(
                    f"Expected an add to read {self._at} bytes of its source and ask for more, but "
                    f"it ended with {self._outcome}"
                )
        return self

    def __exit__(self, *_: object) -> None:
        if not self._resume.is_set():
            self._error = InterruptedError("the check ended")
        self._resume.set()
        self._thread.join()

    def finish(self) -> AddResult:
        """Let the add finish; return its result or raise its error."""
        self._resume.set()
        self._thread.join()
        outcome = self._outcome[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def fail(self, error: BaseException) -> None:
        """Make the source raise ``error`` and wait for the add to end."""
        self._error = error
        self._resume.set()
        self._thread.join()
