"""Reading an object: by ranges where part of it is wanted, resumed where it was cut."""

import dataclasses
from collections.abc import Iterator, Mapping

from urllib3.response import BaseHTTPResponse

from store_lib.clients.network_errors import Server
from store_lib.clients.ranged import RangedReader
from store_lib.drivers.swift.errors import refusal
from store_lib.drivers.swift.manifests import dynamic_of, dynamic_segments
from store_lib.drivers.swift.places import Place
from store_lib.exceptions import (
    BackendException,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
)


@dataclasses.dataclass(slots=True)
class SwiftObject:
    """What a reader asks for bytes."""

    place: Place
    shown: str
    server: Server

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET with these headers; Swift knows no If-Range, so the answer's ETag counts."""
        sent = {name: value for name, value in headers.items() if name != "If-Range"}
        response = self.place.account.open("GET", self.place.path, headers=sent)
        tag = response.headers.get("Etag", '"')
        if not tag.startswith('"'):
            response.headers["Etag"] = f'"{tag}"'  # as Swift leaves out what HTTP has around it
        return response

    def refused(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error that an answer means."""
        if response.status in (404, 410):
            return NotFound(image=self.shown)
        if response.status == 409:
            return BackendException(
                f"{self.shown} is a large object whose segments are missing or were altered (409)."
            )
        return refusal(response, f"Reading {self.shown} from {self.server.base}")


class SwiftReader(RangedReader):
    """An object in Swift, opened.

    :param again: how often a cut answer is asked for the rest at once, before the engine is told
    """

    def __init__(self, place: Place, offset: int, length: int | None, again: int) -> None:
        self._again = again
        source = SwiftObject(place, place.location.shown, place.account.server)
        super().__init__(source, offset, length)
        if self.size is None:
            self.size = listed_size(place, self._first_headers())

    def _first_headers(self) -> Mapping[str, str]:
        response = self._first.response
        return {} if response is None else response.headers

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        """Yield the bytes from ``offset`` on."""
        left = self._again
        while True:
            try:
                for piece in super().stream(offset, length):
                    offset += len(piece)
                    length = None if length is None else length - len(piece)
                    yield piece
                return
            except RemoteServiceUnavailable:
                if not left or self.validator is None:
                    raise
                left -= 1


def listed_size(place: Place, headers: Mapping[str, str]) -> int | None:
    """Return the size of a dynamic large object of more segments than the server adds up."""
    manifest = dynamic_of(headers)
    if manifest is None:
        return None
    return sum(each.size for each in dynamic_segments(place.account, *manifest))
