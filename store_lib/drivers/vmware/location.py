"""The vsphere URI of an object, which is a file on a datastore, and the names of files."""

import dataclasses
import re
from typing import ClassVar, Self
from urllib.parse import quote, unquote_to_bytes

from store_lib.clients.hosts import join_host, split_host
from store_lib.drivers.vmware.options import Datastore, is_path
from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of

HTTPS = 443

_FORM = "vsphere://host/folder/<directory>/<file>?dcPath=<datacenter>&dsName=<datastore>"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

#: The prefix of the names of unfinished uploads, which no object's name has.
UPLOAD_PREFIX = "store_lib-upload-"

# Names that need no escaping on VMFS, NFS or vSAN, nor in any tool that displays a datastore.
_OBJECT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@~,-]{0,199}")
_UPLOAD = re.compile(rf"{UPLOAD_PREFIX}[0-9a-f]{{32}}-(?P<id>.+)")

_ALLOWED = (
    "Expected 1 to 200 ASCII letters, digits and ._=+@~,- that begin with a letter, a digit or "
    f"an underscore, but not with {UPLOAD_PREFIX}: it becomes the name of a file."
)


@dataclasses.dataclass(frozen=True, slots=True, repr=False, eq=False)
class VmwareLocation(Location):
    """A file on a datastore; made by :meth:`parse` or by the driver."""

    schemes: ClassVar[tuple[str, ...]] = ("vsphere",)

    #: In lower case; an IPv6 address has no brackets.
    host: str
    port: int
    #: The path of the directory without leading and trailing slashes.
    directory: str
    name: str
    datastore: Datastore

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse ``vsphere://host[:port]/folder/<directory>/<file>?dcPath=..&dsName=..``.

        :raises BadStoreUri: the URI is malformed
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
        return cls(host, port, directory, name, _datastore(query, uri))

    @property
    def target(self) -> str:
        """The path and query of requests for the file."""
        path = quote(f"/folder/{self.directory}/{self.name}", safe="/~")
        datacenter = quote(self.datastore.datacenter, safe="")
        return f"{path}?dcPath={datacenter}&dsName={quote(self.datastore.name, safe='')}"

    @property
    def uri(self) -> str:
        return f"vsphere://{join_host(self.host, self.port, HTTPS)}{self.target}"


def id_problem(object_id: str) -> str | None:
    """Return why ``object_id`` cannot be the name of an object's file, ``None`` if it can."""
    if object_id.startswith(UPLOAD_PREFIX):
        return f"names with this beginning belong to unfinished uploads. {_ALLOWED}"
    if not _OBJECT.fullmatch(object_id) or object_id.endswith("."):
        return _ALLOWED
    return None


def upload_name(object_id: str, nonce: str) -> str:
    """Return the name of the file that an upload writes to."""
    return f"{UPLOAD_PREFIX}{nonce}-{object_id}"


def uploaded_object_id(name: str) -> str | None:
    """Return the object id in the name of an upload's file; ``None`` for other files."""
    match = _UPLOAD.fullmatch(name)
    return match["id"] if match else None


def datastore_path(datastore: str, *segments: str) -> str:
    """Return a path in the API's form: ``[datastore] directory/file``."""
    return f"[{datastore}] {'/'.join(segments)}"


def _datastore(query: str, uri: str) -> Datastore:
    given: dict[str, str] = {}
    for field in query.split("&"):
        key, _, value = field.partition("=")
        # glance_store writes a blank as a plus.
        value = _decoded(value.replace("+", " "), uri)
        if key not in ("dcPath", "dsName") or key in given or not value.strip("/"):
            raise _bad(uri, "its query has dcPath and dsName, each once, and nothing else")
        given[key] = value
    if len(given) != 2:
        raise _bad(uri, "its query has dcPath and dsName")
    return Datastore(given["dcPath"], given["dsName"])


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
