"""Reading an object: by ranges where part of it is wanted, resumed where it was cut."""

import dataclasses
from collections.abc import Mapping

from urllib3.response import BaseHTTPResponse

from store_lib.clients.network_errors import Server
from store_lib.clients.ranges import RangedReader
from store_lib.drivers.swift.account import Answer
from store_lib.drivers.swift.errors import refusal
from store_lib.drivers.swift.manifests import dynamic_of, dynamic_size, lost_segments
from store_lib.drivers.swift.names import NONCE
from store_lib.drivers.swift.places import Place
from store_lib.exceptions import (
    BackendException,
    NotFound,
    StoreError,
)


@dataclasses.dataclass(slots=True)
class SwiftObject:
    """What a reader asks for bytes."""

    place: Place
    display_name: str
    server: Server

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET with these headers; Swift knows no If-Range, so the answer's ETag counts."""
        sent = {name: value for name, value in headers.items() if name != "If-Range"}
        response = self.place.account.open("GET", self.place.path, headers=sent)
        tag = response.headers.get("Etag", '"')
        if not tag.startswith('"'):
            response.headers["Etag"] = f'"{tag}"'  # as Swift leaves out what HTTP has around it
        # A POST of metadata alters the time and not the bytes; other segments of a dynamic large
        # object, which has no ETag when they are very many, alter the bytes and not the time.
        response.headers.pop("Last-Modified", None)
        return response

    def error_for_response(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error that an answer means."""
        if response.status in (404, 410):
            return not_there(self.place, response.headers)
        if response.status == 409:
            return BackendException(
                f"{self.display_name} is a large object whose segments are missing or were altered "
                "(409)."
            )
        return refusal(response, f"Reading {self.display_name} from {self.server.base}")


class SwiftReader(RangedReader):
    """An object in Swift, opened.

    :param resumes: how often in all the rest of a cut answer is asked for at once
    """

    def __init__(self, place: Place, offset: int, length: int | None, resumes: int) -> None:
        self.resumes = resumes
        source = SwiftObject(place, place.shown, place.account.server)
        super().__init__(source, offset, length)
        headers = {} if self._opened.response is None else self._opened.response.headers
        try:
            if self.size is None:
                self.size = listed_size(place, headers)
            elif self.size == 0 and NONCE not in headers:
                check_manifest(place, place.account.ask("HEAD", place.path))
        except BaseException:
            self.close()
            raise


def listed_size(place: Place, headers: Mapping[str, str]) -> int | None:
    """Return the size of a dynamic large object of more segments than the server adds up."""
    manifest = dynamic_of(headers)
    if manifest is None or "Content-Location" in headers:  # by a link, perhaps into another account
        return None
    return dynamic_size(place.account, *manifest)


def not_there(place: Place, headers: Mapping[str, str]) -> NotFound:
    """Return the error for an object that a server does not have, by the answer that says so."""
    if "Content-Location" not in headers:
        return NotFound(image=place.shown)
    return NotFound(
        f"{place.shown} is a symbolic link, and what it leads to is not there. Restore "
        "that, or delete the link."
    )


def check_manifest(place: Place, head: Answer) -> None:
    """Refuse to take an object for empty whose segments are there.

    :raises BackendException: its metadata no longer name them
    """
    lost = lost_segments(place.account, place.container, place.name, head)
    if lost is not None:
        raise BackendException(
            f"{place.shown} is empty, but has segments below {lost}: a POST of metadata "
            "has removed the header X-Object-Manifest, which names them. Set it again, as in: "
            f"swift post -H 'X-Object-Manifest: {lost}' {place.container} {place.name}"
        )
