"""The body of a request as botocore wants it: a file, read in the pieces that lie in memory."""

from collections.abc import Iterator

from store_lib.driver import Body

#: Bytes that are handed to the socket at once: it must take them within one time limit.
_PIECE = 256 * 1024


class Payload:
    """Reads a body without copying it.

    A read gives what is there, whatever was asked for: botocore, which signs the bytes, and
    urllib3, which sends them, take pieces of any size, and fewer of them cost less.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._pieces: Iterator[memoryview] | None = None
        #: Whether it can be read twice, to be signed and to be sent.
        self.rewindable = body.rewindable

    def read(self, _: int = -1, /) -> memoryview | bytes:
        """Return the next piece, empty at the end."""
        if self._pieces is None:
            self._pieces = self._cut()
        return next(self._pieces, b"")

    def _cut(self) -> Iterator[memoryview]:
        for view in self._body.views():
            for start in range(0, len(view), _PIECE):
                yield view[start : start + _PIECE]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to where no piece is cut in two."""
        self._pieces = None
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        """Return the position, between two views of the body."""
        return self._body.tell()
