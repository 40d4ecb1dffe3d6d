"""What an iterator of pieces becomes for client libraries that ask for slices."""

from collections.abc import Iterator
from typing import Any


class Indexable:
    """Gives the pieces of what it wraps by position, each once, the last one again.

    :param size: bytes in all; 0: what ``wrapped`` says, if it does
    """

    def __init__(self, wrapped: Any, size: Any) -> None:
        self.wrapped = wrapped
        self.size = int(size) if size else int(getattr(wrapped, "len", 0))
        self.cursor = 0
        self.chunk: Any = None

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.wrapped:
            self.chunk = chunk
            yield chunk

    def __getitem__(self, i: "slice | int") -> Any:
        start: int = (i.start or 0) if isinstance(i, slice) else i
        if start < self.cursor:
            return self.chunk[start - self.cursor :]
        self.chunk = self.another()
        if self.chunk:
            self.cursor += len(self.chunk)
        return self.chunk

    def another(self) -> Any:
        """Return the next piece; for subclasses."""
        raise NotImplementedError

    def getvalue(self) -> Any:
        """Return all there is, as the wrapped object does."""
        return self.wrapped.getvalue()

    def __len__(self) -> int:
        return self.size
