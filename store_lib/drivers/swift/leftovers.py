"""What uploads that never finished have left: segments that no object of their id goes by."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from store_lib.driver import Incomplete
from store_lib.drivers.swift.account import Account, Listed, path_of
from store_lib.drivers.swift.listings import seconds
from store_lib.drivers.swift.names import SEGMENTS, prefix_of, upload_of
from store_lib.drivers.swift.writer import NONCE


def leftovers(account: Account, container: str) -> Iterator[Incomplete]:
    """Yield the uploads in a container of which there are segments and no object."""
    listed = account.listing(container, prefix=SEGMENTS)
    for upload, segments in groupby(listed, key=lambda each: upload_of(each.name)):
        if upload is None:
            continue
        found = _gathered(container, *upload, segments)
        if not is_published(account, container, *upload):
            yield found


def _gathered(container: str, object_id: str, nonce: str, segments: Iterable[Listed]) -> Incomplete:
    size, modified = 0, 0.0
    for each in segments:
        if not each.name.rpartition("/")[2].startswith("m"):  # a manifest of what is counted
            size += each.size
        modified = max(modified, seconds(each.modified))
    return Incomplete(f"{container}/{prefix_of(object_id, nonce)}", object_id, size, modified)


def is_published(account: Account, container: str, object_id: str, nonce: str) -> bool:
    """Tell whether the object of this id is the one that this upload made."""
    head = account.head(path_of(container, object_id), newest=True)
    return head is not None and head.headers.get(NONCE) == nonce


def remove(account: Account, container: str, object_id: str, nonce: str, seen: float) -> bool:
    """Remove an upload's segments, and say whether there were any to remove.

    :param seen: the time of its last sign of life when it was listed; a later one spares it
    """
    segments = list(account.listing(container, prefix=prefix_of(object_id, nonce)))
    if not segments or max(seconds(each.modified) for each in segments) > seen:
        return False
    if is_published(account, container, object_id, nonce):
        return False
    account.delete_all(path_of(container, each.name) for each in segments)
    return True
