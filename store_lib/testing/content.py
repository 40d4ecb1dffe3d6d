"""Reproducible test data of any size, which other threads and processes can generate too."""

import functools
import hashlib
import pathlib
import random
from collections.abc import Iterator

from store_lib.transfer.digest import new_digest

_BLOCK = 64 * 1024


class Content:
    """Bytes that a size and a seed define; different seeds have no block in common.

    :param zeros: if given, every second run of this many bytes is zeros
    :param blank: all bytes are zeros
    """

    def __init__(
        self, size: int, seed: int = 0, *, zeros: int | None = None, blank: bool = False
    ) -> None:
        self.size = size
        self.seed = seed
        self._zeros = zeros
        self._base = bytes(_BLOCK) if blank else random.Random(seed).randbytes(_BLOCK)
        self._blank = blank

    def __repr__(self) -> str:
        return f"<Content of {self.size} bytes, seed {self.seed}>"

    def slice(self, offset: int, length: int | None = None) -> bytes:
        """Return up to ``length`` bytes from ``offset``, all of them if ``None``."""
        end = self.size if length is None else min(self.size, offset + length)
        if offset >= end:
            return b""
        first = offset // _BLOCK
        blocks = [self._block(number) for number in range(first, -(-end // _BLOCK))]
        start = first * _BLOCK
        data = b"".join(blocks)[offset - start : end - start]
        return data if self._zeros is None else self._with_zeros(data, offset, self._zeros)

    def whole(self) -> bytes:
        """Return all bytes."""
        return self.slice(0)

    def chunks(self, size: int = 1024 * 1024) -> Iterator[bytes]:
        """Yield all bytes in chunks of ``size``."""
        for offset in range(0, self.size, size):
            yield self.slice(offset, size)

    def digest(self, algorithm: str) -> str:
        """Return the hexadecimal digest of all bytes."""
        digest = new_digest(algorithm)
        for chunk in self.chunks():
            digest.update(chunk)
        return str(digest.hexdigest())

    def _block(self, number: int) -> bytes:
        if self._blank:
            return self._base
        # The number reveals blocks in the wrong order.
        return number.to_bytes(8, "big") + self._base[8:]

    def _with_zeros(self, data: bytes, offset: int, run: int) -> bytes:
        patched = bytearray(data)
        end = offset + len(data)
        for number in range(offset // run, -(-end // run)):
            if number % 2:
                low = max(number * run, offset) - offset
                high = min((number + 1) * run, end) - offset
                patched[low:high] = bytes(high - low)
        return bytes(patched)


class FileContent:
    """The bytes of a local file: the known object of a read-only store."""

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path)
        self.size = self.path.stat().st_size

    def slice(self, offset: int, length: int | None = None) -> bytes:
        """Return up to ``length`` bytes from ``offset``, all of them if ``None``."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def whole(self) -> bytes:
        """Return all bytes."""
        return self.slice(0)

    def digest(self, algorithm: str) -> str:
        """Return the hexadecimal digest of all bytes."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, functools.partial(new_digest, algorithm)).hexdigest()
