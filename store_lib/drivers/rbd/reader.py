"""The download: parallel ranges of a snapshot, with no traffic for its holes."""

import errno
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from store_lib.driver import FIRST_PIECE, Reader
from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.client import Cluster
from store_lib.drivers.rbd.errors import errno_of
from store_lib.exceptions import BackendException, InvalidRange, NotFound, ObjectChanged

#: Bytes of the largest request.  No request crosses a multiple of it.
PIECE = 4 * 1024 * 1024
#: Bytes of an image whose holes are queried at once.
_SPAN = 128 * PIECE


class RbdReader(Reader):
    """A snapshot of an image, or the image itself, open for reading.

    A deleted image reads as zeros.  An open image has a watcher, so that it cannot be deleted.
    But watchers can be lost, and a read-only user has none.  So zeros are believed only after a
    check that the image still exists.

    :param snapshot: the name of the snapshot; ``None`` for the image itself
    :raises NotFound: the image or its snapshot does not exist
    :raises InvalidRange: ``offset`` is past the end
    """

    parallel = True
    piece_size = PIECE

    def __init__(
        self,
        cluster: Cluster,
        ioctx: Any,
        name: str,
        snapshot: str | None,
        offset: int,
        length: int | None,
    ) -> None:
        self._cluster = cluster
        self._ioctx = ioctx
        self._name = name
        self._snapshot = snapshot
        with cluster.calling("open", name):
            self._image = _open(ioctx, name, snapshot)
        try:
            with cluster.calling("read from", name):
                self.size: int = self._image.size()
                self._unit = min(PIECE, self._image.stat()["obj_size"])
            if offset > self.size:
                raise InvalidRange(size=self.size, offset=offset, length=length)
            self._holes = Holes(self._image, self.size, self._check_exists)
            end = self.size if length is None else min(self.size, offset + length)
            if offset < end:
                head = [self._read(offset, min(end, offset + FIRST_PIECE))]
                self.first = self._stream(offset, end, head)
        except BaseException:
            self.close()
            raise

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        end = self.size if length is None else min(self.size, offset + length)
        return self._stream(offset, end, [])

    def _stream(self, offset: int, end: int, buffer: list[bytes]) -> Iterator[bytes]:
        """Yield the bytes of a range, those in ``buffer`` first."""
        while offset < end:
            if not buffer:
                buffer.append(self._read(offset, end))
            offset += len(buffer[0])
            yield buffer.pop()  # a waiting generator must not keep what it has yielded

    def _read(self, offset: int, end: int) -> bytes:
        """Return the bytes from ``offset`` on, up to ``end`` or the end of the piece."""
        amount = min(PIECE - offset % PIECE, end - offset, self.piece_size)
        with self._cluster.using(self._image, "read from", self._name):
            if self._holes.cover(offset, amount):
                return zeros(amount)
            data: bytes = self._image.read(offset, amount)
            if has_blank(data, self._unit - offset % self._unit, self._unit):
                self._check_exists()
        if len(data) != amount:
            raise BackendException(
                f"Expected {amount} bytes of {self._name!a} at {offset}, got {len(data)}."
            )
        return data

    def _check_exists(self) -> None:
        """Check that the name still belongs to the open image.

        :raises ObjectChanged: it was deleted
        """
        try:
            with (
                self._cluster.calling("inspect", self._name),
                bindings.opened(self._ioctx, self._name, self._snapshot, read_only=True) as again,
            ):
                if again.id() == self._image.id():
                    return
        except NotFound:
            pass
        raise ObjectChanged(f"Image {self._name} was deleted while it was being read.")

    def close(self) -> None:
        self.first = None
        if bindings.is_open(self._image):  # may be closed already at interpreter exit
            with self._cluster.calling("close", self._name):
                bindings.release(self._image)


class Holes:
    """The ranges of an image without RADOS objects, which read as zeros.

    :param check: checks that the image still exists
    """

    def __init__(self, image: Any, size: int, check: Callable[[], None]) -> None:
        self._image = image
        self._check = check
        self._size = size
        self._spans: dict[int, list[tuple[int, int]]] = {}
        self._lock = threading.Lock()

    def cover(self, offset: int, amount: int) -> bool:
        """Return whether a range, which lies within one piece, is all hole."""
        if self._size <= PIECE:
            return False  # reading takes one request as well
        with self._lock:
            number = offset // _SPAN
            if number not in self._spans:
                self._spans[number] = self._extents(number * _SPAN)
            extents = self._spans[number]
        return not any(start < offset + amount and offset < end for start, end in extents)

    def _extents(self, start: int) -> list[tuple[int, int]]:
        """Return start and end of each data extent in a span; adjacent ones are joined."""
        extents: list[tuple[int, int]] = []

        def add(offset: int, length: int, exists: bool) -> None:
            if not exists:
                return
            end = offset + length
            if extents and extents[-1][1] == offset:
                offset = extents.pop()[0]
            extents.append((offset, end))

        length = min(_SPAN, self._size - start)
        try:
            self._image.diff_iterate(start, length, None, add, True, True)
        except bindings.rbd.Error:
            return [(start, start + length)]  # unknown: read everything
        self._check()
        return extents


def _open(ioctx: Any, name: str, snapshot: str | None) -> Any:
    try:
        return bindings.open_image(ioctx, name, snapshot)
    except bindings.rbd.Error as error:
        if errno_of(error) not in (errno.EPERM, errno.EACCES, errno.EROFS):
            raise
        # A read-only user cannot register a watcher.
        return bindings.open_image(ioctx, name, snapshot, read_only=True)


@functools.lru_cache(maxsize=1)
def _block() -> bytes:
    return bytes(PIECE)


def zeros(amount: int) -> bytes:
    """Return ``amount`` zero bytes, at most :data:`PIECE`.  A whole piece is one shared object."""
    return _block() if amount == PIECE else _block()[:amount]


def has_blank(data: bytes, first: int, unit: int) -> bool:
    """Return whether the part of ``data`` that came from some RADOS object is all zeros.

    :param first: offset in ``data`` at which the second object begins
    :param unit: bytes of every further object
    """
    start, end = 0, min(first, len(data))
    while start < end:
        # Comparing the first bytes spares nearly every object the full comparison.
        head = data[start : min(start + 64, end)]
        if not head.strip(b"\0") and data[start:end] == zeros(end - start):
            return True
        start, end = end, min(end + unit, len(data))
    return False
