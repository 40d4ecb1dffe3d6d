"""An http or https URI, parsed so strictly that no other parser can read it differently."""

import base64
import dataclasses
import re
from typing import ClassVar, Self
from urllib.parse import unquote_to_bytes

from store_lib.clients.hosts import join_host, split_host
from store_lib.display import printable
from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of
from store_lib.redaction import HIDDEN, Secret, redact_uri, without_query

DEFAULT_PORTS = {"http": 80, "https": 443}

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# RFC 3986 without the apostrophe, which would end a URI in a text that is to be redacted.
_USER_CHARACTER = r"(?:[A-Za-z0-9._~!$&()*+,;=-]|%[0-9A-Fa-f]{2})"
_USERINFO = re.compile(rf"{_USER_CHARACTER}*:(?:{_USER_CHARACTER}|:)*")


@dataclasses.dataclass(frozen=True, slots=True, repr=False, eq=False)
class HttpLocation(Location):
    """The URI of an object on a web server; made by :meth:`parse`."""

    schemes: ClassVar[tuple[str, ...]] = ("http", "https")

    text: str
    scheme: str
    #: In lower case; an IPv6 address has no brackets.
    host: str
    port: int
    #: The path and query as written, with a leading slash.
    target: str
    #: User and password for a Basic login, or ``None``.
    login: bytes | None

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse ``http[s]://[user:password@]host[:port][/path][?query]``.

        :raises BadStoreUri: the URI is malformed; the message has no credentials
        """
        scheme = scheme_of(uri)
        if scheme not in cls.schemes:
            raise BadStoreUri(f"Expected an http or https URI, got {_shown(uri)}")
        if _CONTROL.search(uri) or uri != uri.strip() or not _is_text(uri):
            raise BadStoreUri(
                f"Expected an {scheme} URI without control characters or blanks around it. "
                "Percent-encode them."
            )
        if "#" in uri:
            raise BadStoreUri(
                f"Expected an {scheme} URI without a fragment, got {_shown(uri)}. "
                "Leave out what follows #, or write # as %23."
            )
        rest = uri[len(scheme) + 3 :]
        end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
        authority, target = rest[:end], rest[end:]
        userinfo, at, address = authority.rpartition("@")
        login = None
        if at:
            login = unquote_to_bytes(userinfo)
            if not _USERINFO.fullmatch(userinfo) or any(
                byte < 0x20 or byte == 0x7F for byte in login
            ):
                raise BadStoreUri(
                    "Expected user:password before the @ of the host. Percent-encode all but "
                    "letters, digits and ._~!$&()*+,;=- in them."
                )
        host, port = _split_address(uri, scheme, address)
        if not target.startswith("/"):
            target = f"/{target}"
        return cls(uri, scheme, host, port, target, login)

    @property
    def uri(self) -> str:
        """The full URI as it was given, credentials included."""
        return self.text

    def __str__(self) -> str:
        return self.shown

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port, to which the login may be sent."""
        return self.scheme, self.host.rstrip("."), self.port

    @property
    def base(self) -> str:
        """Scheme, host and port as a URL without a path."""
        return f"{self.scheme}://{join_host(self.host, self.port, DEFAULT_PORTS[self.scheme])}"

    @property
    def url(self) -> str:
        """The URI to request, without credentials.  The query may be a secret."""
        return self.base + self.target

    @property
    def shown(self) -> str:
        """The URI for messages, without credentials and query."""
        return printable(redact_uri(without_query(self.url)))

    @property
    def authorization(self) -> str | None:
        """The value of an Authorization header for :attr:`origin`, or ``None``."""
        if self.login is None:
            return None
        return Secret(f"Basic {base64.b64encode(self.login).decode('ascii')}")


def _is_text(uri: str) -> bool:
    try:
        uri.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(uri: str) -> str:
    # In a URI that could not be parsed, a password may be anywhere before an @, so hide all of it.
    if "@" in uri:
        return f"{uri.partition('://')[0]}://{HIDDEN}"
    return redact_uri(without_query(uri))


def _split_address(uri: str, scheme: str, address: str) -> tuple[str, int]:
    try:
        return split_host(address, DEFAULT_PORTS[scheme])
    except ValueError as error:
        international = (
            "" if address.isascii() else " Write an international name in its xn-- form."
        )
        raise BadStoreUri(
            f"Expected {error} in the URI, got {_shown(uri)}.{international}"
        ) from None
