"""The URIs of objects in Swift, in every form that is in use; names of containers and segments."""

import dataclasses
import itertools
import re
from typing import ClassVar, Self
from urllib.parse import quote, unquote, urlsplit

from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of
from store_lib.redaction import HIDDEN


@dataclasses.dataclass(frozen=True, slots=True, repr=False, eq=False)
class SwiftLocation(Location):
    """The location of an object.  Its URI has one of these forms:

    * ``swift+config://reference/container/object``: an account of the configuration,
    * ``swift+https://host/path/container/object``: a storage URL (multi-tenant),
    * ``swift+https://user:key@host/path/container/object``: the URL of the login with the
      credentials, as old single-tenant stores wrote it.

    ``swift+http`` is the same without TLS, and ``swift`` is ``swift+https``.
    """

    schemes: ClassVar[tuple[str, ...]] = ("swift+config", "swift+https", "swift+http", "swift")

    text: str
    container: str
    name: str
    #: The account's name in the configuration, or ``None`` if the URI has a URL.
    reference: str | None = None
    #: The URL of the login if the URI has credentials, else the storage URL; ``None`` with a
    #: reference.
    url: str | None = None
    user: str | None = None
    key: str | None = None
    #: Container and name as written in the URI, if it has percent signs: glance_store writes
    #: ``a%20b`` for an object of exactly this name, and this library for ``a b``.
    literal: tuple[str, str] | None = None

    @classmethod
    def of_reference(cls, reference: str, container: str, name: str) -> Self:
        """Return the location of an object in an account of the configuration."""
        text = f"swift+config://{quote(reference, safe='')}/{_path(container, name)}"
        return cls(text, container, name, reference=reference)

    @classmethod
    def of_storage(cls, url: str, container: str, name: str) -> Self:
        """Return the location of an object in the account with this storage URL."""
        return cls(f"swift+{url.rstrip('/')}/{_path(container, name)}", container, name, url=url)

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse a URI.

        :raises BadStoreUri: the URI is malformed; the message contains no credentials
        """
        scheme = scheme_of(uri)
        if scheme not in cls.schemes:
            raise _malformed(uri, f"one of the schemes {', '.join(cls.schemes)}")
        if uri.count("://") != 1:
            raise _malformed(uri, "exactly one '://', before the host and not in it")
        # Parse from the end, as the key at the beginning may hold slashes.
        parts = uri.partition("://")[2].rsplit("/", 2)
        if len(parts) != 3 or not all(parts):
            raise _malformed(uri, "three parts: where, container and object")
        address, *written = parts
        try:
            uri.encode()
            container, name = (unquote(part, errors="strict") for part in written)
        except UnicodeError:
            raise _malformed(uri, "text in UTF-8") from None
        literal = (written[0], written[1]) if written != [container, name] else None
        if "/" in container or has_dots(container) or has_dots(name):
            raise _malformed(uri, "a container without '/', and no '.' or '..' in a path")
        if is_segment(name):
            raise _malformed(uri, "an object, not a segment of one")
        if scheme == "swift+config":
            if "/" in address or "@" in address:
                raise _malformed(uri, "the name of a reference before the container")
            return cls(uri, container, name, reference=unquote(address), literal=literal)
        credentials, at, host = address.rpartition("@")
        url = f"{'http' if scheme == 'swift+http' else 'https'}://{host}"
        try:
            good = bool(urlsplit(url).hostname) and urlsplit(url).port != 0
        except ValueError:
            good = False
        if not good or any(mark in host for mark in "?#\\ ") or not host.isprintable():
            raise _malformed(uri, "a host before the container")
        if not at:
            return cls(uri, container, name, url=url, literal=literal)
        user, colon, key = credentials.rpartition(":")
        if not colon or not user:
            raise _malformed(uri, "user:key before the @")
        user, key = unquote(user), unquote(key)
        return cls(uri, container, name, url=url, user=user, key=key, literal=literal)

    @property
    def uri(self) -> str:
        """The full URI, including credentials if it was parsed with them."""
        return self.text


def _path(container: str, name: str) -> str:
    return f"{quote(container, safe='')}/{quote(name, safe='')}"


def _malformed(uri: str, expected: str) -> BadStoreUri:
    # A URI that cannot be parsed may hold a secret anywhere, so it is not quoted.
    shown = f"{uri.partition('://')[0][:20]}://{HIDDEN}" if "@" in uri else ascii(uri)[:200]
    return BadStoreUri(f"Expected {expected} in a Swift URI, got {shown}.")


# Names of segments and containers

#: Prefix of the names of segments.  They are in the container of their object, so that its access
#: lists apply to them too.
SEGMENTS = ".segments/"
#: The header that holds an upload's nonce, stored with the object.
NONCE = "X-Object-Meta-Store-Lib-Nonce"
#: In the names of a claim's objects, this is in place of the nonce, so that a sweep removes them as
#: it does segments.
CLAIM = "0" * 32
#: Maximum bytes of a container's name in Swift.  An object's name may have 1024 bytes, so that a
#: segment's name has room for the longest id, percent-encoded.
_LONGEST_CONTAINER = 256

_OWN = re.compile(r"\.segments/([^/]+)/([0-9a-f]{32})/(?:m[0-9]+-[0-9]{6,}|[0-9]{8,})")
_KEY = re.compile(r"([^/]+)/\.segments/([^/]+)/([0-9a-f]{32})/")


def prefix_of(object_id: str, nonce: str) -> str:
    """Return the common prefix of the names of an upload's segments."""
    return f"{all_of(object_id)}{nonce}/"


def all_of(object_id: str) -> str:
    """Return the common prefix of the segments' names of all uploads of an id."""
    return f"{SEGMENTS}{quote(object_id, safe='')}/"


def upload_of(segment: str) -> tuple[str, str] | None:
    """Parse a segment's name into object id and nonce; ``None`` if it is not this library's."""
    match = _OWN.fullmatch(segment)
    object_id = match and _unquoted(match[1])
    return (object_id, match[2]) if match and object_id else None


def split_key(key: str) -> tuple[str, str, str] | None:
    """Parse the key of an incomplete upload into container, object id and nonce."""
    match = _KEY.fullmatch(key)
    object_id = match and _unquoted(match[2])
    return (match[1], object_id, match[3]) if match and object_id else None


def _unquoted(text: str) -> str | None:
    """Return the id that :func:`prefix_of` has encoded as ``text``, ``None`` if there is none."""
    try:
        object_id = unquote(text, errors="strict")
        same = quote(object_id, safe="") == text
    except UnicodeError:
        return None
    return object_id if same and not has_dots(object_id) else None


def is_segment(name: str) -> bool:
    """Return whether a name is that of a segment."""
    return name == SEGMENTS.rstrip("/") or name.startswith(SEGMENTS)


#: Matches the number that glance_store writes behind ``<id>-`` in the name of a segment.
NUMBER = "[0-9]{5,}"


def numbered(name: str) -> str | None:
    """Return the id of the object that a segment named by glance_store belongs to.

    Return ``None`` if the name has not the form of such a segment.
    """
    other, dash, number = name.rpartition("-")
    return other if other and dash and re.fullmatch("[0-9]+", number) else None


def has_dots(path: str) -> bool:
    """Return whether a path has a part ``.`` or ``..``, which HTTP clients and proxies resolve."""
    return any(part in (".", "..") for part in path.split("/"))


def container_problem(container: str) -> str | None:
    """Return why a container cannot have this name, or ``None`` if it can."""
    if len(container.encode()) > _LONGEST_CONTAINER:
        return f"its container's name would be longer than {_LONGEST_CONTAINER} bytes."
    return None


def seeded(container: str, object_id: str, seed: int) -> str:
    """Return the container of an id, if objects are spread by the id's first ``seed`` characters.

    Dashes among these characters are kept, but not counted.
    """
    counted = itertools.accumulate(
        object_id, lambda count, letter: count + (letter != "-"), initial=0
    )
    end = next((at for at, number in enumerate(counted) if number == seed), len(object_id))
    return f"{container}_{object_id[:end]}"


def is_seeded(container: str, name: str, seed: int) -> bool:
    """Return whether :func:`seeded` can return ``name``."""
    start = f"{container}_"
    return name.startswith(start) and 0 < len(name[len(start) :].replace("-", "")) <= seed
