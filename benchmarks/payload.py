"""The data that the benchmarks add, and the check that a store holds exactly that."""

import abc
import hashlib
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import pattern

BLOCK = pattern.BLOCK


class WrongBytes(Exception):
    """A store holds, or reports, other bytes than were added."""


class Payload(abc.ABC):
    """Bytes to add, with their digests.

    :param size: number of bytes
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._digests: dict[str, str] = {}
        self._lock = threading.Lock()

    #: The file that holds them; ``None`` when they come from a pipe.
    path: Path | None = None

    @abc.abstractmethod
    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes in blocks of 1 MiB; the last may be shorter."""

    def digests(self, names: Collection[str]) -> dict[str, str]:
        """Return hexadecimal digests; each is computed only once."""
        with self._lock:
            missing = [name for name in names if name not in self._digests]
            if missing:
                with ThreadPoolExecutor(len(missing)) as pool:
                    found = pool.map(self._digest, missing)
                    self._digests.update(zip(missing, found, strict=True))
        return {name: self._digests[name] for name in names}

    def _digest(self, name: str) -> str:
        digest = hashlib.new(name)
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()


class FilePayload(Payload):
    """Bytes in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.stat().st_size)
        self.path = path

    @classmethod
    def random(cls, path: Path, size: int) -> "FilePayload":
        """Write a file of ``size`` random bytes, which cannot be compressed or deduplicated."""
        with path.open("wb") as file:
            for start in range(0, size, BLOCK):
                file.write(os.urandom(min(BLOCK, size - start)))
        return cls(path)

    @classmethod
    def zeros(cls, path: Path, size: int) -> "FilePayload":
        """Write a file of ``size`` zeros without holes."""
        zeros = bytes(BLOCK)
        with path.open("wb") as file:
            for start in range(0, size, BLOCK):
                file.write(zeros[: size - start])
        return cls(path)

    @classmethod
    def sparse(cls, path: Path, size: int) -> "FilePayload":
        """Write a file without holes: zeros, except for random bytes in every tenth 16 MiB."""
        zeros = bytes(BLOCK)
        with path.open("wb") as file:
            for start in range(0, size, BLOCK):
                amount = min(BLOCK, size - start)
                is_data = start // (16 * BLOCK) % 10 == 0
                file.write(os.urandom(amount) if is_data else zeros[:amount])
        return cls(path)

    def blocks(self) -> Iterator[bytes]:
        """Yield the file's bytes."""
        assert self.path is not None
        with self.path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block


class PipePayload(Payload):
    """Bytes that :mod:`benchmarks.pattern` writes to a pipe; no file holds them."""

    def blocks(self) -> Iterator[bytes]:
        """Generate the bytes again."""
        return pattern.blocks(self.size)


def check_object(path: Path, payload: Payload, size: int, digests: Mapping[str, str]) -> None:
    """Compare a stored file and the result of its add with the payload.

    :raises WrongBytes: they differ; the text has the first difference
    """
    if size != payload.size:
        raise WrongBytes(f"the add counted {size} bytes of {payload.size}")
    if not path.is_file():
        raise WrongBytes(f"there is no file {path}")
    position = 0
    with path.open("rb", buffering=0) as file:
        for block in payload.blocks():
            if file.read(len(block)) != block:
                raise WrongBytes(f"{path.name} differs between {position} and {position + BLOCK}")
            position += len(block)
        if file.read(1):
            raise WrongBytes(f"{path.name} is longer than {payload.size} bytes")
    for name, expected in payload.digests(digests).items():
        if digests[name] != expected:
            raise WrongBytes(f"the add gave {name} {digests[name]}, expected {expected}")
