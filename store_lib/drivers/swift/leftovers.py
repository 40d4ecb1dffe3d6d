"""What uploads that never finished have left: segments that no object of their id goes by."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from store_lib.driver import Incomplete
from store_lib.drivers.swift.account import Account, Listed, path_of
from store_lib.drivers.swift.manifests import names_any
from store_lib.drivers.swift.names import NONCE, SEGMENTS, prefix_of, upload_of


def leftovers(account: Account, container: str) -> Iterator[Incomplete]:
    """Yield the uploads in a container of which there are segments and no object."""
    listed = account.listing(container, prefix=SEGMENTS)
    for upload, segments in groupby(listed, key=lambda each: upload_of(each.name)):
        if upload is None:
            continue
        found = _gathered(container, *upload, segments)
        if not may_be_published(account, container, *upload):
            yield found


def _gathered(container: str, object_id: str, nonce: str, segments: Iterable[Listed]) -> Incomplete:
    size, modified, now = 0, 0.0, None
    for each in segments:
        if not each.name.rpartition("/")[2].startswith("m"):  # a manifest of what is counted
            size += each.size
        if each.modified >= modified:
            modified, now = each.modified, each.now
    key = f"{container}/{prefix_of(object_id, nonce)}"
    return Incomplete(key, object_id, size, modified, now=now)


def may_be_published(account: Account, container: str, object_id: str, nonce: str) -> bool:
    """Tell whether the object of this id may be made of this upload's segments.

    Its manifest decides, and not its metadata, which any POST replaces.  In doubt it may be.
    """
    head = account.itself("HEAD", path_of(container, object_id), newest=True)
    if head is None:
        # What is listed all the same has expired and may come back, or lies on servers that are
        # down.
        first = next(account.listing(container, prefix=object_id, most=1), None)
        return first is not None and first.name == object_id
    if head.headers.get(NONCE) == nonce or head.link is not None:
        return True
    return names_any(account, container, object_id, head, prefix_of(object_id, nonce)) is not False


def remove(account: Account, container: str, object_id: str, nonce: str, seen: float) -> bool:
    """Remove an upload's segments, and say whether there were any to remove.

    :param seen: the time of its last sign of life when it was listed; a later one spares it
    """
    listed = account.listing(container, prefix=prefix_of(object_id, nonce))
    segments = [each for each in listed if upload_of(each.name) == (object_id, nonce)]
    if not segments or max(each.modified for each in segments) > seen:
        return False
    if may_be_published(account, container, object_id, nonce):
        return False
    account.delete_all(path_of(container, each.name) for each in segments)
    return True
