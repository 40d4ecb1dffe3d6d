"""How a store comes by a token and a storage URL: Keystone, the old login, a request's context."""

import threading
from typing import Any, Protocol

from store_lib.clients.keystone import ContextLogin, KeystoneLogin
from store_lib.clients.process import PerProcess
from store_lib.drivers.swift.references import AccountSettings
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    ErrorStatus,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.options import StoreOptions


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

    def __init__(self, settings: AccountSettings, options: StoreOptions) -> None:
        self._settings = settings
        self._options = options
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
        from requests.exceptions import RequestException, SSLError
        from swiftclient.client import get_auth
        from swiftclient.exceptions import ClientException

        options, credentials = self._options, self._settings.credentials
        try:
            url, token = get_auth(
                credentials.auth_url,
                credentials.username,
                credentials.password,
                auth_version="1",
                cacert=options.swift_store_cacert,
                insecure=options.swift_store_auth_insecure and not options.swift_store_cacert,
                timeout=(options.swift_store_connect_timeout, options.swift_store_read_timeout),
            )
        except ClientException as error:
            raise _refused(error.http_status, credentials.auth_url) from None
        except SSLError as error:
            raise RemoteServiceUnavailable(
                f"No verified TLS connection to {credentials.auth_url}. Give its authority in "
                "swift_store_cacert, or mend its certificate.",
                status=ErrorStatus.PERMANENT,
            ) from error
        except (RequestException, OSError) as error:
            raise RemoteServiceUnavailable(
                f"No answer from {credentials.auth_url}: {type(error).__name__}."
            ) from error
        if not url or not token:
            raise _refused(200, credentials.auth_url)
        return str(url), str(token)


def _refused(status: int | None, where: str) -> StoreError:
    if status in (401, 403):
        return AuthorizationFailure(
            f"{where} refuses the login ({status}). Check user and key of the store."
        )
    if status in (408, 429) or (status or 0) >= 500:
        return RemoteServiceUnavailable(f"{where} cannot be used now: it answered {status}.")
    return BackendException(
        f"Expected a token and a storage URL from {where}, got status {status}. Check the address, "
        "and that auth_version 1 is what is spoken there."
    )


def login_of(settings: AccountSettings, keystone: Any, options: StoreOptions) -> Login:
    """Return the login of an account of the configuration.

    :param keystone: makes a :class:`KeystoneLogin` of credentials
    """
    if settings.version == 1:
        return OldLogin(settings, options)
    return KeystoneAccount(keystone(settings.credentials), options)
