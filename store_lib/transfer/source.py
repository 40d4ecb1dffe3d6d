"""Sources: the data of an add, in any form that a caller may pass, read in whole chunks."""

import abc
import functools
import io
import os
import stat
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, BinaryIO, Self

from store_lib.exceptions import Invalid, ObjectChanged, SizeMismatch
from store_lib.transfer.buffers import Buffer

_EXPECTED = (
    "a binary file-like with read or readinto, an iterable of bytes-likes, bytes, or an os.PathLike"
)


class Source(abc.ABC):
    """Fills buffers from the caller's data; created by :func:`open_source`.

    An error that the caller's object raises is kept in :attr:`error`, and raised unchanged.
    """

    def __init__(self, size: int | None = None) -> None:
        #: Total bytes, if the data has a known size.
        self.size = size
        #: Returns the number of bytes still to come, if the data is an HTTP response: without this
        #: check, one whose connection was cut would look complete.
        self.missing: Callable[[], object] | None = None
        #: The error that the caller's object has raised.
        self.error: BaseException | None = None

    @abc.abstractmethod
    def fill(self, buffer: Buffer, limit: int) -> bool:
        """Put the next ``limit`` bytes into ``buffer.data``, or fewer at the end of the source.

        Return whether the end was reached.  After that this is not called again.
        """

    @abc.abstractmethod
    def put_back(self, data: bytes) -> None:
        """Make the next :meth:`fill` begin with ``data``, which the last one has returned."""

    def check_end(self) -> None:
        """At the end of the source, check that it is not a truncated HTTP response.

        :raises SizeMismatch: bytes of the response are missing
        """
        missing = self.missing() if self.missing is not None else 0
        if isinstance(missing, int) and missing > 0:
            raise SizeMismatch(
                f"Expected {missing} bytes more of the server's answer that the data comes from: "
                "its connection was cut. Nothing was stored; fetch it again."
            )

    def close(self) -> None:  # noqa: B027 - most opened nothing
        """Close the file, if the library itself has opened it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ReadInto(Source):
    """A file-like object that is read directly into the buffer."""

    def __init__(
        self, readinto: Callable[[memoryview], Any], size: int | None, opened: BinaryIO | None
    ) -> None:
        super().__init__(size)
        self._readinto = readinto
        self._held = b""
        self._opened = opened
        self._status = os.fstat(opened.fileno()) if opened is not None else None

    def fill(self, buffer: Buffer, limit: int) -> bool:
        view = buffer.view()[:limit]
        done = min(len(self._held), limit)
        view[:done], self._held = self._held[:done], self._held[done:]
        end = False
        while done < limit and not end:
            room = view[done:]
            try:
                count = self._readinto(room)
            except BaseException as error:
                self.error = error
                raise
            if not isinstance(count, int) or not 0 <= count <= len(room):
                raise Invalid(
                    f"Expected readinto of the data to return 0 to {len(room)} bytes, got "
                    f"{count!r}. A non-blocking source cannot be used."
                )
            done += count
            end = not count
        if end:
            self._check_unchanged()
        buffer.data = view[:done]
        return end

    def put_back(self, data: bytes) -> None:
        self._held = data + self._held

    def _check_unchanged(self) -> None:
        """Check that a file opened by the library was not changed while it was read."""
        if self._opened is None or self._status is None or not stat.S_ISREG(self._status.st_mode):
            return
        now = os.fstat(self._opened.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            path = os.fsdecode(self._opened.name)
            raise ObjectChanged(
                f"Expected {path} to stay as it is while it is read, but something wrote to it. "
                "Find out what writes there, and add it again."
            )

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def __del__(self) -> None:
        if getattr(self, "_opened", None) is not None:  # an interrupt may have ended __init__
            self.close()  # or have come before anything could close it


class _Pieces(Source):
    """Bytes-like objects of any size, from ``read`` or from an iterator."""

    def __init__(self, pull: Callable[[int], Any], kind: str) -> None:
        super().__init__()
        self._pull = pull
        self._kind = kind
        #: Pieces to return before the next one is read, in reverse order.
        self._held: list[memoryview | bytes] = []

    def put_back(self, data: bytes) -> None:
        self._held.append(data)

    def _next(self, wanted: int) -> memoryview | bytes:
        """Return the rest of the last piece, or else the next piece; empty at the end."""
        if self._held:
            return self._held.pop()
        try:
            piece = self._pull(wanted)
        except BaseException as error:
            self.error = error
            raise
        if type(piece) is bytes:
            return piece
        try:
            view = memoryview(piece)
            return view.cast("B") if view.contiguous else view.tobytes()
        except TypeError:
            raise Invalid(
                f"Expected {self._kind} to give bytes-likes, got {type(piece).__name__}. Open "
                "text files in binary mode; a non-blocking source cannot be used."
            ) from None

    def fill(self, buffer: Buffer, limit: int) -> bool:
        piece = self._next(limit)
        if not len(piece):
            buffer.data = b""
            return True
        if len(piece) >= limit:
            if len(piece) > limit:
                view = memoryview(piece)
                piece = view[:limit]
                self._held.append(view[limit:])
            if _immutable(piece):
                buffer.wrap(piece)  # needs no copy, as it cannot change while it is used
                return False
        elif _immutable(piece):
            # A short read is mostly the last one; check that before copying.
            following = self._next(limit - len(piece))
            if not len(following):
                buffer.wrap(piece)
                return True
            self._held.append(following)
        view = buffer.view()
        done = len(piece)
        view[:done] = piece
        while done < limit:
            piece = self._next(limit - done)
            if not len(piece):
                buffer.data = view[:done]
                return True
            room = limit - done
            if len(piece) > room:
                whole = memoryview(piece)
                piece = whole[:room]
                self._held.append(whole[room:])
            view[done : done + len(piece)] = piece
            done += len(piece)
        buffer.data = view[:limit]
        return False


def _immutable(piece: memoryview | bytes) -> bool:
    return type(piece) is bytes or (isinstance(piece, memoryview) and type(piece.obj) is bytes)


#: Up to this size ``read`` is faster than ``readinto``, whose buffer must be cleared first.
_SMALL = 1024 * 1024


def open_source(data: Any, size: int | None = None) -> Source:
    """Return a source over ``data``.

    :param size: number of bytes that the caller has declared
    :raises Invalid: ``data`` is not of a type from which bytes can be read
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        return _open_bytes(data)
    source = _open(data, size)
    source.missing = _missing(data)
    return source


def _open_bytes(data: bytes | bytearray | memoryview) -> Source:
    pieces = [data]
    source = _Pieces(lambda _: pieces.pop() if pieces else b"", "the data")
    source.size = memoryview(data).nbytes
    return source


def _missing(data: Any) -> Callable[[], object] | None:
    """Return a function for the number of bytes to come, if ``data`` is an HTTP response.

    If the connection is cut, a response of http.client or urllib.request ends as if complete.  So
    does a response of urllib3 if its user has switched off ``enforce_content_length``.
    """
    http = sys.modules.get("http.client")  # if it is not imported, data cannot be its response
    data = _unwrapped(data)
    if http is not None and isinstance(data, http.HTTPResponse):
        return lambda: data.length
    if isinstance(getattr(data, "length_remaining", None), int):
        return lambda: data.length_remaining
    return None


def _unwrapped(data: Any) -> Any:
    """Return the object that is read through wrappers of the standard library."""
    handlers = sys.modules.get("urllib.response")
    while True:
        if isinstance(data, io.BufferedReader):
            data = data.raw
        elif handlers is not None and isinstance(data, handlers.addbase):
            data = data.fp
        else:
            return data


def _open(data: Any, size: int | None) -> Source:
    read = getattr(data, "read", None)
    if _reads_into_buffers(type(data)) and (  # type: ignore[arg-type]  # a type is hashable
        read is None or not isinstance(size, int) or size > _SMALL
    ):
        return _ReadInto(data.readinto, None, None)
    if callable(read):
        return _Pieces(read, "read() of the data")
    if isinstance(data, os.PathLike):
        return _open_path(data)
    if isinstance(data, str):
        raise Invalid(
            f"Expected the data as {_EXPECTED}; got a str. Wrap a path in pathlib.Path, encode a "
            "text."
        )
    if isinstance(data, Iterable):
        return _Pieces(_from_iterator(iter(data)), "the iterable")
    raise Invalid(f"Expected the data as {_EXPECTED}; got {type(data).__name__}.")


def _open_path(path: "os.PathLike[Any]") -> Source:
    file = None
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with the source
        return _ReadInto(file.readinto, _size_of(file.fileno()), file)
    except BaseException as error:
        if file is not None:
            file.close()
        if isinstance(error, OSError):
            raise Invalid(
                f"Cannot read the data from {os.fspath(path)!r}: {error.strerror}."
            ) from error
        raise


def _size_of(fd: int) -> int | None:
    """Return the size of a file, or ``None`` if it has none or a wrong one.

    Files in /proc and /sys report sizes that are wrong.  So the size is only returned if the last
    byte can be read, or if an empty file has no byte.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return None
    size = status.st_size
    last = os.pread(fd, 1, max(0, size - 1))
    return size if bool(last) == bool(size) else None


@functools.lru_cache(maxsize=256)
def _reads_into_buffers(kind: Hashable) -> bool:
    """Return whether ``readinto`` may be called: no subclass overrides ``read`` alone.

    A wrapper that limits, counts or hashes the bytes often overrides only ``read``; with
    ``readinto`` it would be bypassed.
    """
    assert isinstance(kind, type)
    owners = [
        next((depth for depth, cls in enumerate(kind.__mro__) if name in vars(cls)), None)
        for name in ("readinto", "read")
    ]
    into, plain = owners
    return into is not None and (plain is None or into <= plain)


def _from_iterator(pieces: Iterator[Any]) -> Callable[[int], Any]:
    def pull(_: int) -> Any:
        for piece in pieces:
            if not isinstance(piece, bytes) or piece:
                if hasattr(piece, "__len__") and not len(piece):
                    continue
                return piece
        return b""

    return pull
