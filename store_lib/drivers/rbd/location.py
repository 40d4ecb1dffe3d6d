"""RBD locations: a snapshot of an image in a pool of a cluster, or just an image's name."""

import dataclasses
import re
from typing import ClassVar, Self
from urllib.parse import quote, unquote_to_bytes

from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of

#: One part of the path: the characters of a URI's path without the slash and the @.
_PART = re.compile(r"(?:[!$&-.0-;=A-Z_a-z~]|%[0-9A-Fa-f]{2})+")


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
class RbdLocation(Location):
    """``rbd://fsid/pool/image/snapshot``, or ``rbd://image`` in the store's own pool.

    :param fsid: the cluster's id; ``None``, with ``pool`` and ``snapshot``, in the short form
    """

    schemes: ClassVar[tuple[str, ...]] = ("rbd",)

    image: str
    fsid: str | None = None
    pool: str | None = None
    snapshot: str | None = None

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse a URI of one or four percent-encoded parts."""
        if scheme_of(uri) not in cls.schemes:
            raise BadStoreUri("Expected an rbd:// URI, got %(uri)s", uri=uri)
        parts = [_unquote(part) for part in uri.partition("://")[2].split("/")]
        if None in parts or len(parts) not in (1, 4):
            raise BadStoreUri(
                "Expected rbd://fsid/pool/image/snapshot or rbd://image, got %(uri)s", uri=uri
            )
        if len(parts) == 1:
            return cls(str(parts[0]))
        fsid, pool, image, snapshot = map(str, parts)
        return cls(image, fsid, pool, snapshot)

    @property
    def uri(self) -> str:
        if self.fsid is None or self.pool is None or self.snapshot is None:
            return f"rbd://{quote(self.image, safe='')}"
        parts = (self.fsid, self.pool, self.image, self.snapshot)
        return "rbd://" + "/".join(quote(part, safe="") for part in parts)


def _unquote(part: str) -> str | None:
    """Decode one part of the path; return ``None`` if it is empty or badly encoded."""
    if not _PART.fullmatch(part):
        return None
    try:
        text = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
