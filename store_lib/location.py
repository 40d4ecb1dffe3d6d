"""Location: the parsed URI of an object, which is never printed with a secret in it."""

import abc
from typing import ClassVar, Self

from store_lib.display import printable
from store_lib.exceptions import BadStoreUri
from store_lib.redaction import is_scheme, redact_uri

#: Maximum characters of a URI.  Longer ones are never valid, and would take time to parse.
LONGEST_URI = 8192


def scheme_of(uri: str) -> str:
    """Return the scheme of ``uri`` in lower case.

    :raises BadStoreUri: ``uri`` is not a string, is too long, or has no ``scheme://``
    """
    if not isinstance(uri, str):
        raise BadStoreUri(f"Expected a location URI as a str, got {type(uri).__name__}.")
    if len(uri) > LONGEST_URI:
        raise BadStoreUri(
            f"Expected a location URI of at most {LONGEST_URI} characters, got {len(uri)}."
        )
    scheme, separator, _ = uri.partition("://")
    if not separator or not is_scheme(scheme):
        raise BadStoreUri("Expected a location URI such as file:///path, got %(uri)s", uri=uri)
    return scheme.lower()


class Location(abc.ABC):
    """The location of an object in one kind of backend, immutable and comparable by its URI.

    A subclass parses strictly: a URI that it does not fully understand raises
    :class:`~store_lib.exceptions.BadStoreUri`.  ``str`` and ``repr`` are redacted and printable;
    only :attr:`uri` is the full text.
    """

    __slots__ = ()

    #: The URI schemes that :meth:`parse` accepts; the first one is that of new URIs.
    schemes: ClassVar[tuple[str, ...]]

    @classmethod
    @abc.abstractmethod
    def parse(cls, uri: str) -> Self:
        """Parse a URI.

        :raises BadStoreUri: the URI is malformed; the message is redacted
        """

    @property
    @abc.abstractmethod
    def uri(self) -> str:
        """The full URI, as callers get it and keep it in their databases."""

    def __str__(self) -> str:
        return printable(redact_uri(self.uri))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Location) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)
