"""Turns errors of connections, requests and responses into the library's errors."""

import functools
import http.client
import re
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util.ssl_match_hostname import CertificateError

from store_lib.clients._responses import BadResponse, HeadTimeout
from store_lib.clients.library_calls import LibraryCall
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    ErrorStatus,
    Forbidden,
    NotAuthenticated,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.redaction import hide, redact

#: Statuses after which the same request may succeed later.
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
#: The number of characters of an error's body that a message may quote, and of bytes that are read
#: for this: a secret that begins within the first number is complete within the second.
_QUOTED = 200
_READ = 16384

# The connection ended during the handshake, which may not happen again; other TLS errors will.
_CUT_TLS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

# OpenSSL's codes for a certificate of another host name, and of another address.
_OTHER_NAME = (62, 64)

_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


class OptionNames(NamedTuple):
    """The names of the options for connections, for error messages."""

    #: The option with the file of the authorities' certificates.
    authorities: str
    connect_timeout: str
    read_timeout: str
    proxies: str = ""


class Server(NamedTuple):
    """A server, for error messages."""

    #: Scheme, host and port as a URL without a path or credentials.
    base: str
    options: OptionNames


#: The errors that urllib3 and the layers below it raise.
TRANSPORT_ERRORS = (HTTPError, OSError, http.client.HTTPException)


def request_errors(server: Server, body: object = None) -> LibraryCall:
    """Return a context manager for sending a request or reading a response; turns errors into ours.

    :param body: the request's body; an error that it raises passes unchanged
    """
    return LibraryCall(
        functools.partial(request_error, server=server, body=body), kept=TRANSPORT_ERRORS
    )


def request_error(error: Exception, server: Server, body: object = None) -> StoreError | None:
    """Return the library's error for one of a request, or ``None`` to let it pass unchanged."""
    if isinstance(error, TRANSPORT_ERRORS):
        return transport_error(error, server)
    if body is not None and not isinstance(body, bytes):
        return None
    # The text of the error may contain secrets, such as a header that cannot be sent.
    return BackendException(
        f"A request to {server.base} could not be sent, or its response could not be read "
        f"({type(error).__name__}). Check what was asked for, and what is between."
    )


def transport_error(error: Exception, server: Server) -> StoreError:
    """Return the library's error for a connection error."""
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, OSError) and (answer := _TUNNEL.search(str(cause))):
            return _tunnel_error(int(answer[1]), server)
    failure = tls_failure(error, server.base, server.options.authorities)
    if failure is not None:
        return RemoteServiceUnavailable(failure, status=ErrorStatus.PERMANENT)
    if any(isinstance(cause, (LocationParseError, InvalidHeader)) for cause in causes):
        return BackendException(f"The answer of {server.base} cannot be used: {causes[-1]}")
    return RemoteServiceUnavailable(f"No answer from {server.base}: {_reason(causes, server)}.")


def _tunnel_error(status: int, server: Server) -> StoreError:
    text = f"The proxy refuses to connect to {server.base}: it answered {status}."
    if status == 407:
        return NotAuthenticated(f"{text} Give user:password@ in {server.options.proxies}.")
    if status in (401, 403):
        return Forbidden(text)
    return RemoteServiceUnavailable(text)


def tls_failure(error: BaseException, server: str, authorities: str) -> str | None:
    """Return why a TLS handshake failed and what to do, or ``None`` for an error of another kind.

    :param authorities: the name of the option with the file of authorities
    """
    for cause in causes_of(error):
        if isinstance(cause, ssl.SSLCertVerificationError | CertificateError):
            # urllib3's own error has no code: urllib3 raises it if it compares the names itself.
            other_name = getattr(cause, "verify_code", None) in (None, *_OTHER_NAME)
            reason = ascii(getattr(cause, "verify_message", None) or str(cause))[1:-1]
            advice = (
                "Ask the server by a name that its certificate has, or give it one for this name."
                if other_name
                else f"Give the server's authority in {authorities}, or mend its certificate."
            )
            return f"TLS verification of {server} failed: {reason[:_QUOTED].rstrip('.')}. {advice}"
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _CUT_TLS):
            return (
                f"No TLS connection to {server}: {cause.reason or 'handshake failed'}. "
                "Check that the server speaks TLS there."
            )
    return None


def login_refused(
    where: str, status: int, advice: str, *, who: str = "", prefix: str = ""
) -> AuthorizationFailure:
    """Return the error for a login that a server refuses.

    :param where: the server
    :param advice: what to check, a sentence
    :param who: who logs in, without a name
    :param prefix: the beginning of the text, such as what the login is needed for
    """
    of = f" of {who}" if who else ""
    return AuthorizationFailure(f"{prefix}{where} refuses the login{of} ({status}). {advice}")


def truncated(error: Exception | None, server: Server, got: int) -> RemoteServiceUnavailable:
    """Return the error for a body that ended early, after ``got`` bytes."""
    reason = _reason([] if error is None else list(causes_of(error)), server)
    return RemoteServiceUnavailable(
        f"Reading from {server.base} was cut after {got} bytes: {reason}."
    )


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and the errors that it wraps, outermost first.

    urllib3 wraps errors in several ways.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop(0)
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            inner = [*cause.args, cause.__cause__]
            waiting.extend(item for item in inner if isinstance(item, BaseException))


def quoted(response: BaseHTTPResponse) -> str:
    """Return the beginning of a response's body for a message, without secrets; may be empty.

    Secrets of the request are removed, as some servers quote requests in their error pages.
    """
    try:
        body = response.read1(_READ, decode_content=False) or b""
    except Exception:  # the message has the status, which says more
        return ""
    cut = response.headers.get("Content-Length") != str(len(body))
    text = hide(body.decode("ascii", "replace"), getattr(response, "sent_secrets", ()), cut=cut)
    text = redact(text, cut=cut)[:_QUOTED]
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f": {text!r}" if text else ""


def _reason(causes: list[BaseException], server: Server) -> str:
    for cause in causes:
        if isinstance(cause, NameResolutionError):
            return "its name cannot be looked up"
        # A refused connection is a NewConnectionError, which urllib3 derives from
        # ConnectTimeoutError.
        if isinstance(cause, ConnectTimeoutError) and not isinstance(cause, NewConnectionError):
            return f"it did not connect within {server.options.connect_timeout}"
        if any(isinstance(other, HeadTimeout) for other in causes):
            return "its answer did not begin in time (transfer_head_timeout)"
        if isinstance(cause, ReadTimeoutError | TimeoutError):
            return (
                f"no byte came in time ({server.options.read_timeout}; in a handshake "
                f"{server.options.connect_timeout})"
            )
    for cause in causes:
        if isinstance(cause, OSError) and not isinstance(cause, HTTPError) and cause.strerror:
            return cause.strerror
    for cause in causes:
        if isinstance(cause, BadResponse):
            return f"its answer is not good HTTP, as {cause}"
        if isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError):
            return "its answer is not good HTTP"
    return "the connection ended early"
