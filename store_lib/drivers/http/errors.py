"""What went wrong on the way to a web server, or in its answer, as the library's errors."""

import re

from urllib3.response import BaseHTTPResponse

from store_lib.clients.library_calls import LibraryCall
from store_lib.clients.network_errors import (
    BUSY,
    TRANSPORT_ERRORS,
    Server,
    causes_of,
    quoted,
    request_error,
)
from store_lib.clients.response_headers import retry_after
from store_lib.drivers.http.location import HttpLocation
from store_lib.exceptions import (
    BackendException,
    Forbidden,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
)

_TUNNEL = re.compile(r"Tunnel connection request_error: (\d{3})")


def server_of(location: HttpLocation) -> Server:
    """Return the server of ``location``, for messages."""
    return Server(
        location.base, "https_ca_certificates_file", "http_connect_timeout", "http_read_timeout"
    )


def request_errors(location: HttpLocation) -> LibraryCall:
    """Turn what goes wrong in a block that makes a request into our errors."""

    def meaning(error: Exception) -> StoreError | None:
        for cause in causes_of(error):
            if isinstance(cause, OSError) and (refused := _TUNNEL.search(str(cause))):
                return _tunnel_refused(int(refused[1]), location.base)
        return request_error(error, server_of(location))

    return LibraryCall(meaning, kept=TRANSPORT_ERRORS)


def refused(response: BaseHTTPResponse, location: HttpLocation) -> StoreError:
    """Return the error that an answer with this status means."""
    status, shown = response.status, location.shown
    if status in (404, 410):
        return NotFound(f"There is no object at {shown}: the server answered {status}.")
    if status == 401:
        return NotAuthenticated(
            f"{shown} asks for a login (401). Give user:password@ in the URI, or check them."
        )
    if status == 407:
        return NotAuthenticated(
            f"The proxy to {location.base} asks for a login (407). Give user:password@ in "
            "http_proxy_information, or check them."
        )
    if status == 403:
        return Forbidden(f"The server refuses to give {shown} (403).")
    if status in BUSY:
        return RemoteServiceUnavailable(
            f"{location.base} cannot serve now: it answered {status}.",
            retry_after=retry_after(response.headers),
        )
    return BackendException(
        f"Expected an object from {shown}, got status {status}{quoted(response)}."
    )


def _tunnel_refused(status: int, server: str) -> StoreError:
    text = f"The proxy refuses to connect to {server}: it answered {status}."
    if status == 407:
        return NotAuthenticated(f"{text} Give user:password@ in http_proxy_information.")
    if status in (401, 403):
        return Forbidden(text)
    return RemoteServiceUnavailable(text)
