"""What Cinder and Keystone answer: heads, and refusals and silence as the library's errors."""

import threading
import time
from typing import Any
from urllib.parse import urlsplit

from cinderclient.exceptions import ClientException
from keystoneauth1 import exceptions as keystone_errors
from keystoneauth1.adapter import Adapter

from store_lib.clients.decoding import malformed
from store_lib.clients.hosts import origin_of
from store_lib.clients.library_calls import LibraryCall
from store_lib.clients.network_errors import tls_failure
from store_lib.clients.response_headers import parse_http_date, retry_after
from store_lib.drivers.cinder.errors import quoted
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    ErrorStatus,
    Forbidden,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
)

#: What the client raises by itself.
_OWN = (ClientException, keystone_errors.ClientException)


class Answers(Adapter):
    """Stands before keystoneauth's session and looks at the heads of answers; for many threads.

    :param session: keystoneauth's
    """

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._last = threading.local()
        #: What the server's clock showed, and this machine's monotonic one then.
        self._shown: tuple[float, float] | None = None

    def request(self, url: str, method: str, **options: Any) -> Any:
        """Make a request, as the session does, but to Cinder alone: the token goes along.

        :raises BackendException: the answer is a redirect, or a page's link to the next one leads
            to another server
        """
        self._last.retry_after = None
        endpoint = options.get("endpoint_override") or url
        if "://" in url and _server_of(url) != _server_of(endpoint):
            raise BackendException(
                f"Cinder at {origin_of(endpoint)} says that a list goes on at {origin_of(url)}, "
                "which the token is not sent to. Set public_endpoint in Cinder's configuration to "
                "the address by which it is asked."
            )
        answer = super().request(url, method, **{**options, "redirect": False})
        if 300 <= answer.status_code < 400:
            raise BackendException(
                f"Expected Cinder's answer, got a redirect ({answer.status_code}) to "
                f"{origin_of(answer.headers.get('Location', ''))}, which the token is not sent to. "
                "Give Cinder's own address in the catalog or in cinder_endpoint_template."
            )
        date = parse_http_date(answer.headers.get("Date"))
        if date is not None:
            self._shown = date, time.monotonic()
        self._last.retry_after = retry_after(answer.headers)
        # The client would wait and repeat by itself, and cannot read every form of it.
        answer.headers.pop("Retry-After", None)
        return answer

    def now(self) -> float | None:
        """Return the time by the server's clock, as far as it has shown it.

        It shows whole seconds, so that what it did just now may lie up to one behind.
        """
        if self._shown is None:
            return None
        date, then = self._shown
        return date + time.monotonic() - then

    def to(self, doing: str) -> LibraryCall:
        """Turn what goes wrong in a block that asks Cinder for something into our errors.

        :param doing: what is asked for, as in ``"create a volume"``
        """
        self._last.retry_after = None

        def meaning(error: Exception) -> StoreError:
            if isinstance(error, ClientException):
                return _refused(error, doing, self._last.retry_after)
            if isinstance(error, keystone_errors.ClientException):
                return _unreachable(error, doing)
            return malformed(
                error,
                f"an answer of Cinder's, which was asked to {doing}",
                raising=RemoteServiceUnavailable,
                advice="Check that cinder_catalog_info or cinder_endpoint_template leads to Cinder "
                "and not to a proxy's error page.",
            )

        return LibraryCall(meaning, kept=_OWN)


def _server_of(url: str) -> tuple[str, str | None, int | None] | None:
    """Return scheme, host and port of a URL; ``None`` where it is malformed."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    except ValueError:
        return None


def _refused(error: ClientException, doing: str, later: float | None) -> StoreError:
    code = error.code
    text = f"Cinder was asked to {doing} and answered {code}: {quoted(error.message)}"
    if code == 404:
        return NotFound(text)
    if code == 401:
        return NotAuthenticated(f"{text} The token has expired or was revoked.")
    if code == 403:
        return Forbidden(f"{text} The user needs a role that Cinder's policy allows this to.")
    if code == 413 and not later:
        return StorageFull(f"{text} Raise the project's quota in Cinder, or delete volumes.")
    if code in (408, 413, 429) or code >= 500:
        return RemoteServiceUnavailable(text, retry_after=later)
    return BackendException(text)


def _unreachable(error: keystone_errors.ClientException, doing: str) -> StoreError:
    told = type(error).__name__
    if isinstance(error, keystone_errors.SSLError):
        # What went wrong is what this was raised for, while it was handled.
        why = tls_failure(error.__context__ or error, "Cinder", "cinder_ca_certificates_file")
        return RemoteServiceUnavailable(
            f"Cinder could not be asked to {doing}: {why or 'no verified TLS connection.'}",
            status=ErrorStatus.PERMANENT,
        )
    if isinstance(error, keystone_errors.ConnectionError):
        return RemoteServiceUnavailable(
            f"Cinder or Keystone could not be asked to {doing}: {told}. Check that they run "
            "where the catalog says."
        )
    if isinstance(error, keystone_errors.Unauthorized):
        return AuthorizationFailure(
            f"Keystone refuses the login that is needed to {doing} (401). Check the user, the "
            "password, the project and their domains, or the application credential."
        )
    if (getattr(error, "http_status", None) or 0) >= 500:
        return RemoteServiceUnavailable(f"Cinder could not be asked to {doing}: {told}.")
    return BackendException(f"Cinder could not be asked to {doing}: {told}.")
