"""The body of a request as botocore wants it: a file, read in the pieces that lie in memory."""

from collections.abc import Iterator

from store_lib.driver import Body

#: Bytes that are handed to the socket at once: it must take them within one time limit.
_PIECE = 256 * 1024


class Payload:
    """Reads a body without copying it.

    A read gives what is there, in pieces of 256 KiB at least.  Fewer pieces cost less:
    urllib3, which sends them, would take much smaller ones, and botocore, which signs them, asks
    for larger ones.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._views: Iterator[memoryview] | None = None
        self._view = memoryview(b"")
        #: Whether it can be read twice, to be signed and to be sent.
        self.rewindable = body.rewindable

    def read(self, amount: int = -1, /) -> memoryview:
        """Return the next piece, empty at the end."""
        if self._views is None:
            self._views = self._body.views()
        if not len(self._view):
            self._view = next(self._views, self._view)
        size = max(amount, _PIECE)
        piece, self._view = self._view[:size], self._view[size:]
        return piece

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to where no piece is cut in two."""
        self._views = None
        self._view = memoryview(b"")
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        """Return the position, between two views of the body."""
        return self._body.tell()
