"""File names: which object ids can be one, and what uploads under way are called."""

import os
import re

#: What the name of every file begins with that is not an object: staged uploads, locks, probes.
PRIVATE_PREFIX = ".store_lib-"
#: Bytes that a file name may have on any usual file system.
NAME_MAX = 255

#: What libfuse and the NFS client rename an open file to when somebody removes it.  They remove it
#: with the last close; until then its name would pass for an object's.
HIDDEN_PREFIXES = (".fuse_hidden", ".nfs")

_LOCK_PREFIX = f"{PRIVATE_PREFIX}lock-"
_CLAIM_PREFIX = f"{PRIVATE_PREFIX}claim-"
_STAGED = re.compile(rf"{re.escape(PRIVATE_PREFIX)}[0-9a-fA-F]{{32}}(?P<kind>[-~])(?P<id>.*)", re.S)
_EXCLUSIVE = re.compile(rf"({re.escape(_LOCK_PREFIX)}|{re.escape(_CLAIM_PREFIX)})[0-9a-f]{{64}}")

_ALLOWED = (
    f"Expected 1 to {NAME_MAX} bytes in UTF-8 without '/' and NUL, neither '.' nor '..', and not "
    f"beginning with {' or '.join(map(repr, (PRIVATE_PREFIX, *HIDDEN_PREFIXES)))}, since it "
    "becomes the name of a file as it stands."
)


def refusal(object_id: str) -> str | None:
    """Return why ``object_id`` cannot be the name of an object's file, or ``None`` when it can."""
    if "/" in object_id or "\0" in object_id:
        return f"it contains '/' or NUL. {_ALLOWED}"
    if object_id in ("", ".", ".."):
        return f"it is empty, '.' or '..'. {_ALLOWED}"
    if object_id.startswith(PRIVATE_PREFIX):
        return f"names with this beginning belong to uploads under way. {_ALLOWED}"
    if object_id.startswith(HIDDEN_PREFIXES):
        return (
            "FUSE and NFS give names with this beginning to files that were removed while they "
            f"were open. {_ALLOWED}"
        )
    try:
        length = len(object_id) if object_id.isascii() else _encoded_length(object_id)
    except UnicodeEncodeError:
        return f"it cannot be encoded. {_ALLOWED}"
    if length > NAME_MAX:
        return f"it has {length} bytes. {_ALLOWED}"
    return None


def _encoded_length(object_id: str) -> int:
    object_id.encode()  # a lone surrogate cannot stand in a URI, though a file name could hold it
    return len(os.fsencode(object_id))


def staged_name(object_id: str, nonce: str, name_max: int = NAME_MAX) -> str:
    """Return the name under which an upload collects its bytes.

    The id in it is for people and for listings; where it does not fit, it is cut and ``~``
    stands before it instead of ``-``.
    """
    start = PRIVATE_PREFIX + nonce
    room = name_max - len(start) - 1
    if len(object_id) * 4 <= room:
        return f"{start}-{object_id}"
    encoded = os.fsencode(object_id)
    if len(encoded) <= room:
        return f"{start}-{object_id}"
    return f"{start}~{encoded[:room].decode(errors='ignore')}"


def staged_object_id(name: str) -> str | None:
    """Return the object id in a staged name; ``None`` when it was cut or there is none."""
    found = _STAGED.fullmatch(name)
    return found["id"] if found and found["kind"] == "-" else None


def lock_name(digest: str) -> str:
    """Return the name of the file that is locked while an id with this digest is published."""
    return _LOCK_PREFIX + digest


def claim_name(digest: str) -> str:
    """Return the name of the file that claims an id with this digest where nothing locks."""
    return _CLAIM_PREFIX + digest


def is_private(name: str) -> bool:
    """Whether ``name`` is that of a staged upload, lock, claim or probe, and so no object's."""
    return name.startswith(PRIVATE_PREFIX)


def is_leftover(name: str) -> bool:
    """Whether ``name`` has the full form of what an upload may leave: what a sweep may remove."""
    return bool(_STAGED.fullmatch(name) or _EXCLUSIVE.fullmatch(name))
