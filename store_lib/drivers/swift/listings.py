"""A container's listing as objects: no segments, and large objects with their true sizes."""

import dataclasses
import datetime
import re
from collections.abc import Iterator

from store_lib.drivers.swift.account import Account, Listed, path_of
from store_lib.drivers.swift.manifests import dynamic_of, dynamic_segments
from store_lib.drivers.swift.names import SEGMENTS, has_dots

#: Greater than every segment's name, and less than any other that is greater.
_BEHIND_SEGMENTS = f"{SEGMENTS}\x7f"

_NUMBERED = re.compile(r"(.*[^0-9])[0-9]+", re.DOTALL)


def seconds(text: str) -> float:
    """Return a time in a listing, in seconds since the epoch."""
    moment = datetime.datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


def entries(account: Account, container: str) -> Iterator[Listed]:
    """Yield the complete objects of a container.

    A dynamic large object is listed with no bytes; those are looked at, and their segments left
    out, which glance_store put beside them: ``id-00001`` and so on behind ``id``.
    """
    prefixes: set[str] = set()
    for each in _outside(account, container):
        numbered = _NUMBERED.fullmatch(each.name)
        if has_dots(each.name) or (numbered and numbered[1] in prefixes):
            continue
        if each.size:
            yield each
            continue
        head = account.head(path_of(container, each.name))
        if head is None:
            continue  # deleted meanwhile
        manifest = dynamic_of(head.headers)
        if manifest is None:
            yield each
            continue
        if manifest[0] == container:
            prefixes.add(manifest[1])
        size = sum(segment.size for segment in dynamic_segments(account, *manifest))
        yield dataclasses.replace(each, size=size)


def _outside(account: Account, container: str) -> Iterator[Listed]:
    yield from account.listing(container, before=SEGMENTS)
    yield from account.listing(container, after=_BEHIND_SEGMENTS)
