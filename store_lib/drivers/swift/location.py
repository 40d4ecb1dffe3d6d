"""The URIs of objects in Swift, in every form that has been written."""

import dataclasses
from typing import ClassVar, Self
from urllib.parse import quote, unquote, urlsplit

from store_lib.drivers.swift.names import has_dots, is_segment
from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of
from store_lib.redaction import HIDDEN


@dataclasses.dataclass(frozen=True, slots=True, repr=False, eq=False)
class SwiftLocation(Location):
    """Where an object lies; one of

    * ``swift+config://reference/container/object``: an account of the configuration,
    * ``swift+https://host/path/container/object``: a storage URL (multi-tenant),
    * ``swift+https://user:key@host/path/container/object``: an address to log in at, as old
      single-tenant stores wrote it, secret included.

    ``swift+http`` is the same without TLS, and ``swift`` is ``swift+https``.
    """

    schemes: ClassVar[tuple[str, ...]] = ("swift+config", "swift+https", "swift+http", "swift")

    text: str
    container: str
    name: str
    #: The account's name in the configuration; else ``None``.
    reference: str | None = None
    #: What to log in at, or the storage URL; ``None`` with a reference.
    url: str | None = None
    user: str | None = None
    key: str | None = None
    #: Container and name as they stand in the URI, where percent signs may be meant as such:
    #: glance_store writes ``a%20b`` for an object of that name, this library for ``a b``.
    literal: tuple[str, str] | None = None

    @classmethod
    def of_reference(cls, reference: str, container: str, name: str) -> Self:
        """Return the location of an object in an account of the configuration."""
        text = f"swift+config://{quote(reference, safe='')}/{_path(container, name)}"
        return cls(text, container, name, reference=reference)

    @classmethod
    def of_storage(cls, url: str, container: str, name: str) -> Self:
        """Return the location of an object by its account's storage URL."""
        return cls(f"swift+{url.rstrip('/')}/{_path(container, name)}", container, name, url=url)

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Take ``uri`` apart.

        :raises BadStoreUri: it is malformed; the message has no credentials
        """
        scheme = scheme_of(uri)
        if scheme not in cls.schemes:
            raise _bad(uri, f"one of the schemes {', '.join(cls.schemes)}")
        if uri.count("://") != 1:
            raise _bad(uri, "exactly one '://', before the host and not in it")
        # From the end: a key in what stands before may hold slashes.
        parts = uri.partition("://")[2].rsplit("/", 2)
        if len(parts) != 3 or not all(parts):
            raise _bad(uri, "three parts: where, container and object")
        address, *written = parts
        try:
            uri.encode()
            container, name = (unquote(each, errors="strict") for each in written)
        except UnicodeError:
            raise _bad(uri, "text in UTF-8") from None
        literal = (written[0], written[1]) if written != [container, name] else None
        if "/" in container or has_dots(container) or has_dots(name):
            raise _bad(uri, "a container without '/', and no '.' or '..' in a path")
        if is_segment(name):
            raise _bad(uri, "an object, not a segment of one")
        if scheme == "swift+config":
            if "/" in address or "@" in address:
                raise _bad(uri, "the name of a reference before the container")
            return cls(uri, container, name, reference=unquote(address), literal=literal)
        credentials, at, host = address.rpartition("@")
        url = f"{'http' if scheme == 'swift+http' else 'https'}://{host}"
        try:
            good = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
        except ValueError:
            good = False
        if not good or any(mark in host for mark in "?#\\ ") or not host.isprintable():
            raise _bad(uri, "a host before the container")
        if not at:
            return cls(uri, container, name, url=url, literal=literal)
        user, colon, key = credentials.rpartition(":")
        if not colon or not user:
            raise _bad(uri, "user:key before the @")
        user, key = unquote(user), unquote(key)
        return cls(uri, container, name, url=url, user=user, key=key, literal=literal)

    @property
    def uri(self) -> str:
        """The full URI, credentials included where it was given with them."""
        return self.text

    @property
    def shown(self) -> str:
        """Container and object, for messages."""
        return f"{self.container}/{self.name}"


def _path(container: str, name: str) -> str:
    return f"{quote(container, safe='')}/{quote(name, safe='')}"


def _bad(uri: str, expected: str) -> BadStoreUri:
    # Where a URI could not be taken apart a secret can be anywhere in it.
    shown = f"{uri.partition('://')[0][:20]}://{HIDDEN}" if "@" in uri else ascii(uri)[:200]
    return BadStoreUri(f"Expected {expected} in a Swift URI, got {shown}.")
