"""A container's listing as objects: no segments, and large objects with their true sizes."""

import re
from collections.abc import Iterator

from store_lib.drivers.swift.account import Account, Listed, path_of
from store_lib.drivers.swift.manifests import dynamic_of, dynamic_size, lost_segments
from store_lib.drivers.swift.names import NUMBER, SEGMENTS, has_dots

#: Greater than every segment's name, and less than any other that is greater.
_BEHIND_SEGMENTS = f"{SEGMENTS}\x7f"

_NUMBERED = re.compile(rf"(.*[^0-9]){NUMBER}", re.DOTALL)


def entries(account: Account, container: str) -> Iterator[tuple[Listed, int | None]]:
    """Yield the complete objects of a container, with their sizes where known.

    A dynamic large object is listed with no bytes; those are looked at, and their segments left
    out, which glance_store put beside them: ``id-00001`` and so on behind ``id``.
    """
    prefixes: set[str] = set()
    for each in _outside(account, container):
        numbered = _NUMBERED.fullmatch(each.name)
        if has_dots(each.name) or (numbered and numbered[1] in prefixes):
            continue
        if each.size:
            yield each, each.size
            continue
        path = path_of(container, each.name)
        head = account.ask("HEAD", path, 403, 404, 409)
        if head.status >= 300:
            # A symbolic link that leads to nothing, or where this login must not go; else it was
            # deleted meanwhile.
            if account.itself("HEAD", path) is not None:
                yield each, None
            continue
        manifest = dynamic_of(head.headers)
        if manifest is None or head.followed:
            lost = lost_segments(account, container, each.name, head)
            yield each, head.size if lost is None else None
            continue
        if manifest[0] == container:
            prefixes.add(manifest[1])
        yield each, dynamic_size(account, *manifest)


def _outside(account: Account, container: str) -> Iterator[Listed]:
    yield from account.listing(container, before=SEGMENTS)
    yield from account.listing(container, after=_BEHIND_SEGMENTS)
