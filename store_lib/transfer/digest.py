"""The digests of a transfer: checks of their names, and comparison of their values."""

import functools
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any

from store_lib.display import shown
from store_lib.exceptions import DigestMismatch, Invalid, UnknownHashingAlgo


def check_names(digests: Iterable[str], expected: Mapping[str, str] | None) -> tuple[str, ...]:
    """Return the names of the algorithms in both arguments, without repeats.

    :raises UnknownHashingAlgo: hashlib does not have an algorithm, or its digest has no fixed
        length
    :raises Invalid: an expected digest is not hexadecimal, or has not the algorithm's length
    """
    if isinstance(digests, str):
        raise Invalid(f"Expected digests as a sequence of names, got the str {shown(digests)}.")
    if expected is not None and not isinstance(expected, Mapping):
        raise Invalid(
            f"Expected the digests in a mapping by algorithm, got a {type(expected).__name__}."
        )
    try:
        names = _known((*digests, *(expected or ())))
    except TypeError as error:
        raise UnknownHashingAlgo(f"Expected names of hashing algorithms: {error}.") from error
    for name, value in (expected or {}).items():
        length = 2 * _template(name).digest_size
        if not isinstance(value, str) or len(value) != length or not _is_hex(value):
            raise Invalid(
                f"Expected the {name} digest as {length} hexadecimal digits, got {shown(value)}."
            )
    return names


@functools.lru_cache(maxsize=64)
def _known(names: tuple[Any, ...]) -> tuple[str, ...]:
    """Return ``names`` without repeats, after a check that all are known."""
    for name in names:
        if not isinstance(name, str):
            raise UnknownHashingAlgo(
                f"Expected the name of a hashing algorithm, got {shown(name)}."
            )
        _template(name)
    return tuple(dict.fromkeys(names))


def _is_hex(value: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in value)


def new_digest(name: str) -> Any:
    """Return a new hash object.

    :raises UnknownHashingAlgo: hashlib does not have the algorithm, or its digest has no fixed
        length
    """
    return _template(name).copy()


@functools.lru_cache(maxsize=64)
def _template(name: str) -> Any:
    """Return an unused hash object, to be copied: this is the fastest way to create a new one."""
    try:
        if name in hashlib.algorithms_available:
            digest = hashlib.new(name, usedforsecurity=False)
            if digest.digest_size:
                return digest
    except (TypeError, ValueError):
        pass  # known to OpenSSL, but disabled (FIPS)
    known = sorted(known for known in hashlib.algorithms_guaranteed if "shake" not in known)
    raise UnknownHashingAlgo(
        f"Expected a hashing algorithm of fixed length that hashlib has, such as "
        f"{', '.join(known)}; got {name!r}. Names are case-sensitive."
    )


def compare(got: Mapping[str, str], expected: Mapping[str, str] | None) -> None:
    """Check that the digests are equal to the expected ones.

    :raises DigestMismatch: a digest differs
    """
    for name, value in (expected or {}).items():
        if not hmac.compare_digest(got[name], value.lower()):
            raise DigestMismatch(algorithm=name, expected=value.lower(), got=got[name])
