"""What went wrong on the way to a web server, or in its answer, as the library's errors."""

from urllib3.response import BaseHTTPResponse

from store_lib.clients.network_errors import BUSY, OptionNames, Server, quoted
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

_OPTION_NAMES = OptionNames(
    "https_ca_certificates_file",
    "http_connect_timeout",
    "http_read_timeout",
    "http_proxy_information",
)


def server_of(location: HttpLocation) -> Server:
    """Return the server of ``location``, for messages."""
    return Server(location.base, _OPTION_NAMES)


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
