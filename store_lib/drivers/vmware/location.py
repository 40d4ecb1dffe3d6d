"""Where an object of the vmware driver lies: a file on a datastore, as a vsphere URI."""

import dataclasses
import re
from typing import ClassVar, Self
from urllib.parse import quote, unquote_to_bytes

from store_lib.clients.hosts import join_host, split_host
from store_lib.drivers.vmware.options import Place, is_path
from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of

HTTPS = 443

_FORM = "vsphere://host/folder/<directory>/<file>?dcPath=<datacenter>&dsName=<datastore>"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclasses.dataclass(frozen=True, slots=True, repr=False, eq=False)
class VmwareLocation(Location):
    """A file on a datastore; made by :meth:`parse` or by the driver."""

    schemes: ClassVar[tuple[str, ...]] = ("vsphere",)

    #: Lower case, an IPv6 address without its brackets.
    host: str
    port: int
    #: Without slashes around it.
    directory: str
    name: str
    place: Place

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Take ``vsphere://host[:port]/folder/<directory>/<file>?dcPath=..&dsName=..`` apart.

        :raises BadStoreUri: it is malformed
        """
        if scheme_of(uri) not in cls.schemes:
            raise BadStoreUri(f"Expected a URI of the form {_FORM}, got %(uri)s", uri=uri)
        if not uri.isprintable() or "#" in uri or _BAD_ESCAPE.search(uri):
            raise _bad(uri, "percent-encode control characters, # and %")
        authority, slash, rest = uri[uri.index("://") + 3 :].partition("/")
        path, mark, query = rest.partition("?")
        if not slash or not mark or "@" in authority:
            raise _bad(uri, "it has a path and a query, and no login")
        try:
            host, port = split_host(authority, HTTPS)
        except ValueError as error:
            raise _bad(uri, f"it names {error}") from None
        root, _, path = _decoded(path, uri).partition("/")
        directory, _, name = path.rpartition("/")
        if root != "folder" or not is_path(path) or not directory:
            raise _bad(uri, "its path is /folder/, a directory and a file")
        return cls(host, port, directory, name, _place(query, uri))

    @property
    def target(self) -> str:
        """Path and query: what the server is asked for."""
        return target(self.directory, self.name, self.place)

    @property
    def uri(self) -> str:
        """The full URI."""
        return f"vsphere://{join_host(self.host, self.port, HTTPS)}{self.target}"


def target(directory: str, name: str, place: Place) -> str:
    """Return the path and query of a file on the server that gives and takes data."""
    path = quote(f"/folder/{directory}/{name}", safe="/~")
    return (
        f"{path}?dcPath={quote(place.datacenter, safe='')}&dsName={quote(place.datastore, safe='')}"
    )


def _place(query: str, uri: str) -> Place:
    given: dict[str, str] = {}
    for field in query.split("&"):
        key, _, value = field.partition("=")
        # A plus is a blank: so glance_store writes it.
        value = _decoded(value.replace("+", " "), uri)
        if key not in ("dcPath", "dsName") or key in given or not value.strip("/"):
            raise _bad(uri, "its query has dcPath and dsName, each once, and nothing else")
        given[key] = value
    if len(given) != 2:
        raise _bad(uri, "its query has dcPath and dsName")
    return Place(given["dcPath"], given["dsName"])


def _decoded(text: str, uri: str) -> str:
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeError:
        raise _bad(uri, "it is UTF-8, percent-encoded") from None
    if not decoded.isprintable():
        raise _bad(uri, "it has no control characters")
    return decoded


def _bad(uri: str, reason: str) -> BadStoreUri:
    return BadStoreUri(f"Expected {_FORM}, got %(uri)s: %(reason)s.", uri=uri, reason=reason)
