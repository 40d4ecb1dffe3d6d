"""What went wrong on the wire or in an answer, as the library's errors."""

import http.client
import re
import ssl
from collections.abc import Iterator

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationParseError,
    NameResolutionError,
    ReadTimeoutError,
)
from urllib3.response import BaseHTTPResponse

from store_lib.drivers.http.location import HttpLocation
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    Forbidden,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.redaction import redact_uri

#: Statuses that say that the same request may succeed later.
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Bytes of an error's body that a message may quote.
_QUOTED = 200

_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
# These end a handshake from outside; all other TLS errors come again.
_CUT_TLS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def unreachable(error: Exception, location: HttpLocation) -> StoreError:
    """Return the library's error for one raised while a request was made."""
    server = location.base
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RemoteServiceUnavailable(
                f"TLS verification of {server} failed: {cause.verify_message}. Give the "
                "server's authority in https_ca_certificates_file, or mend its certificate.",
                status=ErrorStatus.PERMANENT,
            )
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _CUT_TLS):
            return RemoteServiceUnavailable(
                f"No TLS connection to {server}: {cause.reason or 'handshake failed'}. Check that "
                "the server speaks TLS there.",
                status=ErrorStatus.PERMANENT,
            )
        if isinstance(cause, OSError) and (refused := _TUNNEL.search(str(cause))):
            return _tunnel_refused(int(refused[1]), server)
    if any(isinstance(cause, (LocationParseError, InvalidHeader)) for cause in causes):
        return BackendException(f"The answer of {location.shown} cannot be used: {causes[-1]}")
    return RemoteServiceUnavailable(f"No answer from {server}: {_reason(causes)}.")


def cut(error: Exception | None, location: HttpLocation, got: int) -> RemoteServiceUnavailable:
    """Return the error for a body that ended early, ``got`` bytes into this answer."""
    reason = "the connection ended early" if error is None else _reason(list(_causes(error)))
    return RemoteServiceUnavailable(
        f"Reading from {location.base} was cut after {got} bytes: {reason}."
    )


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
        return RemoteServiceUnavailable(f"{location.base} cannot serve now: it answered {status}.")
    return BackendException(
        f"Expected an object from {shown}, got status {status}{_quoted(response)}."
    )


def _tunnel_refused(status: int, server: str) -> StoreError:
    text = f"The proxy refuses to connect to {server}: it answered {status}."
    if status == 407:
        return NotAuthenticated(f"{text} Give user:password@ in http_proxy_information.")
    if status in (401, 403):
        return Forbidden(text)
    return RemoteServiceUnavailable(text)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and what it wraps, outermost first: urllib3 nests in several ways."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            inner = [*each.args, each.__cause__]
            waiting.extend(one for one in inner if isinstance(one, BaseException))


def _reason(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, NameResolutionError):
            return "its name cannot be looked up"
        if isinstance(cause, ConnectTimeoutError):
            return "it did not connect within http_connect_timeout"
        if isinstance(cause, ReadTimeoutError | TimeoutError):
            return "no byte came in time (http_read_timeout; in a handshake http_connect_timeout)"
    for cause in causes:
        if isinstance(cause, OSError) and not isinstance(cause, HTTPError) and cause.strerror:
            return cause.strerror
    for cause in causes:
        if isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError):
            return "its answer is not good HTTP"
    return "the connection ended early"


def _quoted(response: BaseHTTPResponse) -> str:
    try:
        body = response.read1(_QUOTED, decode_content=False) or b""
    except Exception:  # the status is what matters
        return ""
    text = redact_uri(body[:_QUOTED].decode("ascii", "replace"))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f": {text!r}" if text else ""
