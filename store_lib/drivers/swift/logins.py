"""How a store comes by a token and a storage URL: Keystone, the old login, a request's context."""

import threading
from typing import Any, Protocol
from urllib.parse import urlsplit

import urllib3
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from store_lib.clients.decoding import decoding, url
from store_lib.clients.keystone import ContextLogin, KeystoneLogin
from store_lib.clients.network_errors import BUSY, request_errors
from store_lib.clients.process import PerProcess
from store_lib.clients.response_headers import retry_after
from store_lib.drivers.swift.errors import server_of
from store_lib.drivers.swift.references import AccountSettings
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    BadStoreUri,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.options import StoreOptions
from store_lib.redaction import Secret


class Login(Protocol):
    """A way to a token."""

    def token(self) -> str:
        """Return a token that holds, as far as is known."""

    def renew(self, stale: str) -> None:
        """Have the next :meth:`token` get another one than ``stale``, which was refused.

        :raises NotAuthenticated: there is no other
        """

    def storage_url(self) -> str:
        """Return the account's URL, without a slash at its end."""


class KeystoneAccount:
    """An account by Keystone: of the configuration, or of a request's context."""

    def __init__(self, login: KeystoneLogin | ContextLogin, options: StoreOptions) -> None:
        self.login = login
        self.token = login.token
        self.renew = login.renew
        self._options = options

    def storage_url(self) -> str:
        """Return the endpoint that is configured, or the catalog's."""
        options = self._options
        found: str = options.swift_store_endpoint or self.login.endpoint(
            options.swift_store_service_type,
            options.swift_store_endpoint_type,
            options.swift_store_region,
        )
        return found.rstrip("/")


class _State:
    """What a process knows of an old login."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.url = ""
        self.token: str | None = None


class OldLogin:
    """The login of version 1: one request gives token and storage URL."""

    def __init__(
        self,
        settings: AccountSettings,
        options: StoreOptions,
        connections: PerProcess[urllib3.PoolManager],
        timeout: Timeout,
    ) -> None:
        self._settings = settings
        self._options = options
        self._connections = connections
        self._timeout = timeout
        self._state = PerProcess(_State)

    def token(self) -> str:
        """Return a token.

        :raises AuthorizationFailure: the login is refused
        """
        state = self._state.get()
        with state.lock:
            if state.token is None:
                state.url, state.token = self._log_in()
            return state.token

    def renew(self, stale: str) -> None:
        """Forget the token."""
        state = self._state.get()
        with state.lock:
            if state.token == stale:
                state.token = None

    def storage_url(self) -> str:
        """Return the endpoint that is configured, or what the login told."""
        if self._options.swift_store_endpoint:
            return str(self._options.swift_store_endpoint).rstrip("/")
        self.token()
        return self._state.get().url.rstrip("/")

    def _log_in(self) -> tuple[str, str]:
        credentials = self._settings.credentials
        sent = {
            "X-Auth-User": _field(credentials.username),
            "X-Auth-Key": _field(credentials.password),
        }
        with request_errors(server_of(credentials.auth_url)):
            response = self._connections.get().request(
                "GET",
                credentials.auth_url,
                headers=sent,
                redirect=False,  # the login is for this server alone
                retries=False,
                timeout=self._timeout,
            )
        # No variable of its own for the head: it holds the token.
        token = Secret(
            response.headers.get("X-Storage-Token") or response.headers.get("X-Auth-Token") or ""
        )
        told = bool(token and response.headers.get("X-Storage-Url"))
        if not 200 <= response.status < 300 or not told:
            raise _refused(response.status, credentials.auth_url, retry_after(response.headers))
        with decoding(
            f"a storage URL from {credentials.auth_url}", secrets=[token, *map(str, sent.values())]
        ):
            return url(_storage_url(response)), token


class BoundLogin:
    """A login that a URI holds; where its account lies is for the store to admit, too.

    :param hosts: those that are admitted
    """

    def __init__(self, login: Login, hosts: frozenset[str]) -> None:
        self._login = login
        self._hosts = hosts
        self.token = login.token
        self.renew = login.renew

    def storage_url(self) -> str:
        """Return the account's URL.

        :raises BadStoreUri: it leads to a host that is not admitted
        """
        found = self._login.storage_url()
        host = host_of(found)
        if host not in self._hosts:
            raise BadStoreUri(
                f"The login of the Swift URI leads to an account at {host!a}, which "
                "swift_store_uri_login_hosts does not name."
            )
        return found


def host_of(url: str) -> str | None:
    """Return the host of a URL in lower case, ``None`` where there is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _storage_url(response: BaseHTTPResponse) -> str:
    found = response.headers["X-Storage-Url"]
    try:
        return found.encode("latin-1").decode()
    except UnicodeError:
        return found  # neither ASCII nor UTF-8: as it came


def _field(value: str | None) -> Secret:
    """Return the value of a header field for what goes out in UTF-8."""
    return Secret((value or "").encode().decode("latin-1"))


def _refused(status: int, where: str, later: float | None) -> StoreError:
    if status in (401, 403):
        return AuthorizationFailure(
            f"{where} refuses the login ({status}). Check user and key of the store."
        )
    if status in BUSY:
        return RemoteServiceUnavailable(
            f"{where} cannot be used now: it answered {status}.", retry_after=later
        )
    return BackendException(
        f"Expected a token and a storage URL from {where}, got status {status}. Check the address, "
        "and that auth_version 1 is what is spoken there."
    )


def login_of(
    settings: AccountSettings,
    keystone: Any,
    options: StoreOptions,
    connections: PerProcess[urllib3.PoolManager],
    timeout: Timeout,
) -> Login:
    """Return the login of an account of the configuration.

    :param keystone: makes a :class:`KeystoneLogin` of credentials
    :param connections: what the old login goes over
    """
    if settings.version == 1:
        return OldLogin(settings, options, connections, timeout)
    return KeystoneAccount(keystone(settings.credentials), options)
