"""URIs of volumes."""

import re
from typing import ClassVar, Self

from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: A section's name in a configuration file, as far as it can stand in a URI.
_STORE = re.compile(r"[^/?#@\s\x00-\x1f\x7f]+")


class CinderLocation(Location):
    """``cinder://<store id>/<volume id>``, or ``cinder://<volume id>`` in the single-store form.

    :param volume_id: a UUID in lower case
    :param store_id: ``None`` if the URI has none
    """

    __slots__ = ("store_id", "volume_id")

    schemes: ClassVar[tuple[str, ...]] = ("cinder",)

    def __init__(self, volume_id: str, store_id: str | None = None) -> None:
        self.volume_id = volume_id
        self.store_id = store_id

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse a URI.

        :raises BadStoreUri: it is malformed
        """
        scheme = scheme_of(uri)
        store, slash, volume = uri.partition("://")[2].rpartition("/")
        good = (
            scheme in cls.schemes
            and _UUID.fullmatch(volume)
            and (not slash or _STORE.fullmatch(store))
        )
        if not good:
            raise BadStoreUri(
                "Expected cinder://<volume id> or cinder://<store>/<volume id>, the volume's id "
                "a UUID in lower case; got %(uri)s",
                uri=uri,
            )
        return cls(volume, store or None)

    @property
    def uri(self) -> str:
        """The full URI; it has no secret."""
        if self.store_id is None:
            return f"cinder://{self.volume_id}"
        return f"cinder://{self.store_id}/{self.volume_id}"
