"""What Swift answers in JSON, with every type checked: listings and static manifests."""

import dataclasses
import datetime
import json
from typing import Any

from store_lib.exceptions import BackendException

#: More than any object has; a number above it is none of a size.
_MOST_BYTES = 2**63


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """An object in a container's listing."""

    name: str
    size: int
    #: In seconds since the epoch, by the server's clock.
    modified: float
    etag: str
    #: When the server made the listing, by the same clock; ``None`` where it does not say.
    now: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What a static manifest lists: a segment, or a manifest of some."""

    container: str
    name: str
    size: int
    etag: str
    nested: bool
    #: Whether it is the whole of what it names.
    whole: bool


def objects_of(body: bytes, now: float | None) -> list[Listed]:
    """Return what a page of a container's listing holds.

    :raises BackendException: it is no such listing
    """
    found = []
    for each in _list_of(body, "a listing"):
        try:
            found.append(
                Listed(
                    _text(each["name"]),
                    _size(each["bytes"]),
                    _seconds(_text(each["last_modified"])),
                    _text(each["hash"]),
                    now,
                )
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _malformed("a listing", each) from error
    return found


def names_of(body: bytes) -> list[str]:
    """Return the names in a page of an account's listing.

    :raises BackendException: it is no such listing
    """
    found = []
    for each in _list_of(body, "a listing"):
        try:
            found.append(_text(each["name"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed("a listing", each) from error
    return found


def parts_of(body: bytes) -> list[Part | None]:
    """Return what a static manifest lists in order; ``None`` stands for data within it.

    :raises BackendException: it is no such manifest
    """
    found: list[Part | None] = []
    for each in _list_of(body, "a manifest"):
        if "data" in each:
            found.append(None)
            continue
        try:
            container, _, name = _text(each["name"]).lstrip("/").partition("/")
            if not container or not name:
                raise ValueError("no object")
            part = Part(
                container,
                name,
                _size(each["bytes"]),
                _text(each["hash"]),
                each.get("sub_slo") is True,
                "range" not in each,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed("a manifest", each) from error
        found.append(part)
    return found


def _list_of(body: bytes, what: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BackendException(f"Expected {what} in JSON from Swift, got something else.")
    return found


def _malformed(what: str, entry: dict[str, Any]) -> BackendException:
    return BackendException(
        f"Expected names, sizes and times in {what} from Swift, got {ascii(entry)[:200]}."
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no string")
    value.encode()  # half a character is in no name
    return value


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("no number")
    if not 0 <= value < _MOST_BYTES:
        raise ValueError("no size")
    return value


def _seconds(text: str) -> float:
    moment = datetime.datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
