"""Adds to a store and checks what it returns: the same in both forms of configuration."""

import hashlib
from typing import Any

from store_lib.glance.exceptions import UnknownHashingAlgo
from store_lib.glance.metadata import check_returned


def store_add_to_backend(
    image_id: str, data: Any, size: int, store: Any, context: Any = None, verifier: Any = None
) -> tuple[str, int, str, dict[str, Any]]:
    """Store an object; return its URI, size, md5 and metadata.

    :param size: bytes to come; 0: not known
    :raises BackendException: the store's metadata cannot be kept
    """
    uri, stored, checksum, metadata = store.add(
        image_id, data, size, context=context, verifier=verifier
    )
    check_returned(store, metadata)
    return uri, stored, checksum, metadata


def store_add_to_backend_with_multihash(
    image_id: str,
    data: Any,
    size: int,
    hashing_algo: str,
    store: Any,
    context: Any = None,
    verifier: Any = None,
) -> tuple[str, int, str, str, dict[str, Any]]:
    """Store an object; return its URI, size, md5, digest and metadata.

    :param size: bytes to come; 0: not known
    :raises UnknownHashingAlgo: there is no ``hashing_algo``; nothing was read
    :raises BackendException: the store's metadata cannot be kept
    """
    if hashing_algo not in hashlib.algorithms_available:
        raise UnknownHashingAlgo(algo=hashing_algo)
    uri, stored, checksum, multihash, metadata = store.add(
        image_id, data, size, hashing_algo, context=context, verifier=verifier
    )
    check_returned(store, metadata)
    return uri, stored, checksum, multihash, metadata
