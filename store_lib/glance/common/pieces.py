"""Sources read in pieces, and hash objects: what drivers of others have as ``common.utils``."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any


def is_uuid_like(val: Any) -> bool:
    """Whether ``val`` is a UUID in its canonical form."""
    try:
        return isinstance(val, str) and str(uuid.UUID(val)) == val
    except (TypeError, ValueError, AttributeError):
        return False


def chunkreadable(iter: Any, chunk_size: int = 65536) -> Iterable[bytes]:
    """Return pieces of up to ``chunk_size`` bytes of what can be read, else ``iter`` itself."""
    return chunkiter(iter, chunk_size) if hasattr(iter, "read") else iter


def chunkiter(fp: Any, chunk_size: int = 65536) -> Iterator[bytes]:
    """Yield what a file-like has, in pieces of up to ``chunk_size`` bytes."""
    while piece := fp.read(chunk_size):
        yield piece


def get_hasher(hash_algo: str, usedforsecurity: bool = True) -> Any:
    """Return a new hash object; md5 where FIPS forbids it needs ``usedforsecurity=False``."""
    if str(hash_algo) == "md5":
        return hashlib.md5(usedforsecurity=usedforsecurity)
    return hashlib.new(str(hash_algo))
