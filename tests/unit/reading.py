"""Reads from a driver's reader as the engine does."""

from collections.abc import Iterator

from store_lib.driver import Reader


def begun(reader: Reader, offset: int, length: int | None) -> Iterator[bytes]:
    """Return the stream that the reader was opened with; a new one if it has begun none."""
    first, reader.first = reader.first, None
    return reader.stream(offset, length) if first is None else first
