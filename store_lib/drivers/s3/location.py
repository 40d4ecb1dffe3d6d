"""The URIs of S3 objects: host, bucket and key.  Credentials in old URIs are dropped."""

import dataclasses
import re
from typing import ClassVar, Self

from store_lib.exceptions import BadStoreUri
from store_lib.location import Location, scheme_of

#: Matches names of buckets, but no ARN: with an ARN botocore would use another server.
_BUCKET = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,255}")
#: Matches host names of Amazon S3, but not those of Amazon's other services and machines.
AMAZON = re.compile(
    r"(?P<vpc>[\w-]+\.vpce-[\w-]+\.)?s3(?:-fips|-accelerate|-external-1)?(?:[.-]dualstack)?"
    r"(?:[.-](?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d+))?(?:\.vpce)?\."
    r"(?P<domain>amazonaws\.(?:com|com\.cn|eu))"
)
_DEFAULT_PORT = re.compile(r":(?:80|443)$")


def is_object_key(key: str) -> bool:
    """Return whether a key can be an object's: it has no slash, and is not ``.`` or ``..``."""
    return key not in ("", ".", "..") and "/" not in key


@dataclasses.dataclass(frozen=True, slots=True, eq=False, repr=False)
class S3Location(Location):
    """``s3://host[:port]/bucket/key``, or ``s3+https://...`` for a server with TLS.

    The key is neither percent-encoded nor decoded.  glance_store before 5.6 wrote
    ``access:secret@`` before the host; these credentials are dropped, so that nothing can print
    them.
    """

    schemes: ClassVar[tuple[str, ...]] = ("s3", "s3+http", "s3+https")

    scheme: str
    #: Host and port, and the path of the server's URL if there is one.
    host: str
    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Parse a URI.

        :raises BadStoreUri: host, bucket or key is missing, or the URI has two schemes
        """
        scheme = scheme_of(uri)
        if scheme not in cls.schemes:
            raise BadStoreUri("Expected a URI that begins with s3://, got %(uri)s", uri=uri)
        if uri.count("://") != 1:
            raise BadStoreUri(
                "Expected one scheme in the URI, such as s3+https://host/bucket/key, got %(uri)s",
                uri=uri,
            )
        # Parse from the end, as credentials in an old URI may hold any character.
        rest, _, key = uri[uri.index("://") + 3 :].rpartition("/")
        address, _, bucket = rest.rpartition("/")
        host = address.rpartition("@")[2].strip("/")
        if not host or not _BUCKET.fullmatch(bucket) or not is_object_key(key):
            raise BadStoreUri("Expected s3://host/bucket/key, got %(uri)s", uri=uri)
        try:
            uri.encode()
        except UnicodeEncodeError:
            raise BadStoreUri("Expected a URI of characters that can be encoded.") from None
        return cls(scheme, host, bucket, key)

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.host}/{self.bucket}/{self.key}"

    @property
    def server(self) -> str:
        """The server, in a form that is equal for all URIs of the same server.

        The default port is left out.  All of Amazon's host names are equal, as a bucket has the
        same objects at each of them.
        """
        name, slash, path = self.host.partition("/")
        name = _DEFAULT_PORT.sub("", name.lower())
        amazon = AMAZON.fullmatch(name)
        return f"{amazon['domain'] if amazon else name}{slash}{path}"
