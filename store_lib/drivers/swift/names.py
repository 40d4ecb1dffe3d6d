"""Names in Swift: of containers, of segments, and which ids cannot be names."""

import itertools
import re
from urllib.parse import quote, unquote

#: Where segments lie, in the container of their object: so its access lists hold for them too.
SEGMENTS = ".segments/"
#: The header that keeps an upload's nonce with its object.
NONCE = "X-Object-Meta-Store-Lib-Nonce"
#: Stands in place of a nonce in the names of an id's claim, which so is swept as uploads are.
CLAIM = "0" * 32
#: Bytes that Swift allows in the name of a container.  An object's may have 1024, so that of a
#: segment has room for the longest id, percent-encoded.
_LONGEST_CONTAINER = 256

_OWN = re.compile(r"\.segments/([^/]+)/([0-9a-f]{32})/(?:m[0-9]+-[0-9]{6,}|[0-9]{8,})")
_KEY = re.compile(r"([^/]+)/\.segments/([^/]+)/([0-9a-f]{32})/")


def prefix_of(object_id: str, nonce: str) -> str:
    """Return what the names of an upload's segments begin with."""
    return f"{all_of(object_id)}{nonce}/"


def all_of(object_id: str) -> str:
    """Return what the names of the segments of every upload of an id begin with."""
    return f"{SEGMENTS}{quote(object_id, safe='')}/"


def upload_of(segment: str) -> tuple[str, str] | None:
    """Return the object id and the nonce of a segment's name, ``None`` if it is none of ours."""
    match = _OWN.fullmatch(segment)
    object_id = match and _unquoted(match[1])
    return (object_id, match[2]) if match and object_id else None


def split_key(key: str) -> tuple[str, str, str] | None:
    """Take the key of an incomplete upload apart: container, object id, nonce."""
    match = _KEY.fullmatch(key)
    object_id = match and _unquoted(match[2])
    return (match[1], object_id, match[3]) if match and object_id else None


def _unquoted(text: str) -> str | None:
    """Return the id that :func:`prefix_of` writes so, ``None`` if there is none."""
    try:
        object_id = unquote(text, errors="strict")
        same = quote(object_id, safe="") == text
    except UnicodeError:
        return None
    return object_id if same and not has_dots(object_id) else None


def is_segment(name: str) -> bool:
    """Tell whether a name lies where segments do."""
    return name == SEGMENTS.rstrip("/") or name.startswith(SEGMENTS)


#: What glance_store writes behind ``<id>-`` in the name of a segment.
NUMBER = "[0-9]{5,}"


def numbered(name: str) -> str | None:
    """Return the object of which this would be the name of a segment in glance_store's layout."""
    other, dash, number = name.rpartition("-")
    return other if other and dash and re.fullmatch("[0-9]+", number) else None


def has_dots(path: str) -> bool:
    """Tell whether a part of a path is one that HTTP clients and proxies resolve."""
    return any(part in (".", "..") for part in path.split("/"))


def refusal(container: str) -> str | None:
    """Say why an id cannot be part of the name of its container, ``None`` if it can.

    :param container: the name that its container would have
    """
    if len(container.encode()) > _LONGEST_CONTAINER:
        return f"its container's name would be longer than {_LONGEST_CONTAINER} bytes."
    return None


def seeded(container: str, object_id: str, seed: int) -> str:
    """Return the container of an id where ids are spread by their first ``seed`` characters.

    Dashes on the way are kept and not counted.
    """
    counted = itertools.accumulate(object_id, lambda n, each: n + (each != "-"), initial=0)
    end = next((at for at, number in enumerate(counted) if number == seed), len(object_id))
    return f"{container}_{object_id[:end]}"


def is_seeded(container: str, name: str, seed: int) -> bool:
    """Tell whether ``name`` is a container that :func:`seeded` can give."""
    start = f"{container}_"
    return name.startswith(start) and 0 < len(name[len(start) :].replace("-", "")) <= seed
