"""Helpers that third-party drivers import: reading a source in chunks, making hash objects."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any


def is_uuid_like(val: Any) -> bool:
    """Return whether ``val`` is a UUID in its canonical form."""
    try:
        return isinstance(val, str) and str(uuid.UUID(val)) == val
    except (TypeError, ValueError, AttributeError):
        return False


def chunkreadable(iter: Any, chunk_size: int = 65536) -> Iterable[bytes]:
    """Return an iterator of chunks if ``iter`` has a ``read`` method, else ``iter`` itself."""
    return chunkiter(iter, chunk_size) if hasattr(iter, "read") else iter


def chunkiter(fp: Any, chunk_size: int = 65536) -> Iterator[bytes]:
    """Yield the contents of a file-like object in chunks of up to ``chunk_size`` bytes."""
    while chunk := fp.read(chunk_size):
        yield chunk


def get_hasher(hash_algo: str, usedforsecurity: bool = True) -> Any:
    """Return a new hash object.

    :param usedforsecurity: ``False`` allows md5 where FIPS mode forbids it
    """
    if str(hash_algo) == "md5":
        return hashlib.md5(usedforsecurity=usedforsecurity)
    return hashlib.new(str(hash_algo))
