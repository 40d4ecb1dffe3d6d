"""Reading an object: as a whole or by ranges, continued after the connection was cut."""

from collections.abc import Mapping

from urllib3.response import BaseHTTPResponse

from store_lib.clients.ranges import RangedReader
from store_lib.drivers.swift.client import ObjectRef, SwiftResponse
from store_lib.drivers.swift.errors import error_for_response
from store_lib.drivers.swift.location import NONCE
from store_lib.drivers.swift.segments import dynamic_manifest, dynamic_size, lost_segments
from store_lib.exceptions import BackendException, NotFound, StoreError, not_found


class SwiftObject:
    """An object in Swift that is read; see :class:`store_lib.clients.ranges.RemoteObject`."""

    def __init__(self, ref: ObjectRef) -> None:
        self._ref = ref
        self.display_name = str(ref)
        self.server = ref.account.server

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET with these headers.

        Swift has no If-Range; the reader compares the response's ETag instead.
        """
        sent = {name: value for name, value in headers.items() if name != "If-Range"}
        response = self._ref.account.open("GET", self._ref.path, headers=sent)
        tag = response.headers.get("Etag", '"')
        if not tag.startswith('"'):
            response.headers["Etag"] = f'"{tag}"'  # HTTP requires quotes, which Swift leaves out
        # Last-Modified does not identify the bytes: a POST of metadata changes it and not the
        # bytes, and a change of a dynamic large object's segments changes the bytes and not the
        # time.  With very many segments such an object has no ETag.
        response.headers.pop("Last-Modified", None)
        return response

    def error_for_response(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error for a response."""
        if response.status in (404, 410):
            return missing(self._ref, response.headers)
        if response.status == 409:
            return BackendException(
                f"{self._ref} is a large object whose segments are missing or were altered (409)."
            )
        return error_for_response(response, "Reading", f"{self._ref} from {self.server.base}")


class SwiftReader(RangedReader):
    """An open object in Swift.

    :param resumes: see :attr:`store_lib.driver.Reader.resumes`
    """

    def __init__(self, ref: ObjectRef, offset: int, length: int | None, resumes: int) -> None:
        self.resumes = resumes
        super().__init__(SwiftObject(ref), offset, length)
        headers = {} if self._response is None else self._response.headers
        try:
            if self.size is None:
                self.size = listed_size(ref, headers)
            elif self.size == 0 and NONCE not in headers:
                check_manifest(ref, ref.account.ask("HEAD", ref.path))
        except BaseException:
            self.close()
            raise


def listed_size(ref: ObjectRef, headers: Mapping[str, str]) -> int | None:
    """Return the size of a dynamic large object by adding up its segments.

    The server itself adds up only a limited number of segments.
    """
    manifest = dynamic_manifest(headers)
    if manifest is None or "Content-Location" in headers:  # a link, perhaps to another account
        return None
    return dynamic_size(ref.account.container(manifest[0]), manifest[1])


def missing(ref: ObjectRef, headers: Mapping[str, str]) -> NotFound:
    """Return the error for a missing object, by the headers of the response."""
    if "Content-Location" not in headers:
        return not_found(ref)
    return NotFound(
        f"{ref} is a symbolic link, and what it leads to is not there. Restore that, or delete the "
        "link."
    )


def check_manifest(ref: ObjectRef, head: SwiftResponse) -> None:
    """Check that an empty object is not a large object that has lost its manifest.

    :raises BackendException: the object has segments, which its metadata no longer names
    """
    lost = lost_segments(ref, head)
    if lost is not None:
        raise BackendException(
            f"{ref} is empty, but has segments below {lost}: a POST of metadata has removed the "
            "header X-Object-Manifest, which names them. Set it again, as in: swift post -H "
            f"'X-Object-Manifest: {lost}' {ref.container.name} {ref.name}"
        )
