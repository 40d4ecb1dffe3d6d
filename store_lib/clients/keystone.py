"""A login to Keystone: one token per process, renewed before it expires."""

import dataclasses
import threading
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from store_lib.clients.addresses import AddressCheck
from store_lib.clients.decoding import decoding, entries, malformed, parse_json, text, url
from store_lib.clients.library_calls import LibraryCall
from store_lib.clients.network_errors import BUSY, login_refused, tls_failure
from store_lib.clients.process import PerProcess
from store_lib.clients.response_headers import retry_after
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    ErrorStatus,
    Forbidden,
    NotAuthenticated,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.redaction import Secret

T = TypeVar("T")

#: What to do about a refused login.
_ADVICE = "Check user, password, project and their domains, or the application credential."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A login's user and Keystone: a password, or an application credential if its id is set."""

    #: Keystone's URL, with or without the final ``/v3``.
    auth_url: str
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    project_name: str | None = None
    project_id: str | None = None
    user_domain_id: str | None = None
    user_domain_name: str | None = None
    project_domain_id: str | None = None
    project_domain_name: str | None = None
    application_credential_id: str | None = None
    application_credential_secret: str | None = dataclasses.field(default=None, repr=False)
    #: The id of a trust: the login acts for the user who created it, and names no project.
    trust_id: str | None = None

    @property
    def secrets(self) -> list[str]:
        """The secrets of this login, which no message may show."""
        return [secret for secret in (self.password, self.application_credential_secret) if secret]

    @property
    def where(self) -> str:
        """Keystone and its URL, for messages."""
        return f"Keystone at {self.auth_url}"

    @property
    def who(self) -> str:
        """The kind of login, for messages, without the user's name, which is a secret option."""
        if self.application_credential_id:
            return "the configured application credential"
        return "the configured user"

    def plugin(self) -> Any:
        """Return keystoneauth's plugin for this login."""
        from keystoneauth1.identity import v3

        if self.application_credential_id:
            return v3.ApplicationCredential(
                self.auth_url,
                application_credential_id=self.application_credential_id,
                application_credential_secret=self.application_credential_secret or "",
            )
        scope: dict[str, Any] = {"trust_id": self.trust_id}
        if self.trust_id is None:
            scope = {
                "project_name": self.project_name,
                "project_id": self.project_id,
                "project_domain_id": self.project_domain_id,
                "project_domain_name": self.project_domain_name,
            }
        return v3.Password(
            self.auth_url,
            username=self.username,
            password=self.password or "",
            user_domain_id=self.user_domain_id,
            user_domain_name=self.user_domain_name,
            **scope,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How to connect to Keystone."""

    #: Whether certificates are verified, or the file with the authorities to verify them against.
    verify: bool | str = True
    #: Seconds to wait for a connection, and for a byte of a response.
    timeout: float = 60.0
    #: Seconds before a token's expiry from which on it is no longer used.
    renew_before: int = 60
    #: Checks addresses before and after connecting; ``None`` allows all.
    check_address: AddressCheck | None = None


class _Held:
    """The session and the plugin of one process."""

    def __init__(self, credentials: Credentials, how: ConnectionSettings) -> None:
        from store_lib.clients.sessions import open_session

        self.plugin = credentials.plugin()
        self.plugin.MIN_TOKEN_LIFE_SECONDS = how.renew_before
        self.session = open_session(
            auth=self.plugin,
            verify=how.verify,
            timeout=how.timeout,
            check_address=how.check_address,
        )
        self.lock = threading.Lock()


class KeystoneLogin:
    """A login to Keystone.  Thread-safe; every process logs in when it first needs a token.

    Requests are not retried here: the engine does that.
    """

    def __init__(self, credentials: Credentials, how: ConnectionSettings) -> None:
        self.credentials = credentials
        self._held = PerProcess(lambda: _Held(credentials, how))

    @property
    def session(self) -> Any:
        """This process's keystoneauth session, for clients that take one."""
        return self._held.get().session

    def token(self) -> str:
        """Return a token that does not expire soon; log in again if necessary.

        :raises AuthorizationFailure: Keystone refuses the login
        :raises RemoteServiceUnavailable: Keystone does not respond
        """
        held = self._held.get()
        with self._errors():
            return Secret(text(held.plugin.get_token(held.session)))

    def renew(self, stale: str) -> None:
        """Make the next :meth:`token` log in again, if ``stale`` is still the current token."""
        held = self._held.get()
        with held.lock:
            current = held.plugin.auth_ref
            if current is not None and current.auth_token == stale:
                held.plugin.invalidate()

    def endpoint(
        self, service: str, interface: str, region: str | None, name: str | None = None
    ) -> str:
        """Return a service's URL from the catalog.

        :param service: the service's type, such as ``object-store``
        :param interface: an interface, such as ``public`` or ``publicURL``
        :raises BadStoreConfiguration: the catalog has no such URL
        """
        held = self._held.get()
        with self._errors():
            catalog = held.plugin.get_access(held.session).service_catalog.catalog
            return find_endpoint(
                catalog, service, interface, region, name, secrets=self.credentials.secrets
            )

    def user_id(self) -> str:
        """Return the id of the user who logs in."""
        held = self._held.get()
        with self._errors():
            return text(held.plugin.get_user_id(held.session))

    def project_id(self) -> str:
        """Return the id of the project that is logged in to."""
        held = self._held.get()
        with self._errors():
            return text(held.plugin.get_project_id(held.session))

    def call(
        self,
        method: str,
        path: str,
        token: str,
        body: Any = None,
        *,
        decode: Callable[[Any], T] = lambda value: value,
    ) -> T:
        """Send a request with ``token`` to Keystone itself, such as one for a trust.

        :param decode: converts the response's JSON, or ``None`` if it has no body, into the result;
            any error that it raises means a malformed response
        """
        root = self.credentials.auth_url.rstrip("/")
        root = root if root.endswith("/v3") else f"{root}/v3"
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}
        with self._errors(token):
            reply = self.session.request(
                root + path, method, json=body, headers=headers, authenticated=False
            )
            return decode(parse_json(reply.content) if reply.content else None)

    def close(self) -> None:
        """Close this process's connections."""
        held = self._held.take()
        if held is not None:
            held.session.close()

    def _errors(self, *sent: str) -> LibraryCall:
        """Return a context manager that turns errors of requests to Keystone into the library's.

        :param sent: secrets of the request besides those of the login
        """
        from keystoneauth1.exceptions import ClientException

        ours = self.credentials

        def meaning(error: Exception) -> StoreError:
            if isinstance(error, ClientException):
                return keystone_error(error, ours.where, ours.who)
            what = f"a token, a catalog or a trust from {ours.where}, whose address ends with /v3"
            return malformed(error, what, secrets=[*sent, *ours.secrets])

        return LibraryCall(meaning, kept=(ClientException,))


def keystone_error(
    error: Any,
    where: str,
    who: str,
    *,
    server: str | None = None,
    prefix: str = "",
    authorities: str = "the store's file of authorities",
) -> StoreError:
    """Return the library's error for one of keystoneauth's.

    :param where: Keystone and its URL, for the message
    :param who: the kind of login, without the user's name
    :param server: the service that the request was for, if it is not Keystone
    :param prefix: the beginning of the message, such as what the request was to do
    :param authorities: the name of the option with the file of authorities
    """
    from keystoneauth1 import exceptions

    server = server or where
    status = getattr(error, "http_status", None)
    if isinstance(error, exceptions.SSLError):
        # keystoneauth raises its error while it handles the one that says what went wrong.
        failure = tls_failure(error.__context__ or error, server, authorities)
        return RemoteServiceUnavailable(
            prefix + (failure or f"No verified TLS connection to {server}."),
            status=ErrorStatus.PERMANENT,
        )
    if isinstance(error, exceptions.ConnectionError) or status in BUSY:
        reason = f"it answered {status}" if status else type(error).__name__
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        return RemoteServiceUnavailable(
            f"{prefix}{where if status else server} cannot be used now: {reason}.",
            retry_after=retry_after(headers),
        )
    if isinstance(error, exceptions.Unauthorized):
        return login_refused(where, 401, _ADVICE, who=who, prefix=prefix)
    if status == 403:
        return Forbidden(f"{prefix}{where} forbids this to {who} (403).")
    # The server's text may contain secrets; the name of the error and the status do not.
    got = type(error).__name__ + (f", status {status}" if status else "")
    return BackendException(
        f"{prefix}Expected a token from {where}, got {got}. Check the address: it ends with /v3."
    )


def find_endpoint(
    catalog: Any,
    service: str,
    interface: str,
    region: str | None,
    name: str | None = None,
    *,
    secrets: Collection[str] = (),
) -> str:
    """Return a service's URL from a catalog of either form, v2 or v3.

    :param name: the service's name, needed if several services have this type
    :param secrets: secrets of the login, which the catalog may quote
    :raises BadStoreConfiguration: the catalog has no such URL, or is malformed
    """
    kind = interface.removesuffix("URL")
    with decoding(
        f"a catalog of services with URLs of endpoints for {service}",
        secrets=secrets,
        raising=BadStoreConfiguration,
        advice="Check the service's endpoints in Keystone, or configure the endpoint itself.",
    ):
        for entry in entries(catalog):
            if entry.get("type") != service or name not in (None, entry.get("name")):
                continue
            for endpoint in entries(entry.get("endpoints", ())):
                known = (endpoint.get("region_id"), endpoint.get("region"))
                if region is not None and region not in known:
                    continue
                if "interface" in endpoint:
                    value = endpoint.get("url") if endpoint["interface"] == kind else None
                else:
                    value = endpoint.get(f"{kind}URL")
                if value:
                    return url(value)
    where = f" in region {region}" if region else ""
    raise BadStoreConfiguration(
        f"Expected a {kind} endpoint of a service of type {service}{where} in Keystone's catalog, "
        "found none. Check the service's type, the interface and the region, or configure the "
        "endpoint itself."
    )


class ContextLogin:
    """The token and the catalog of a request's context; they cannot be renewed.

    :param context: has ``auth_token``, ``project_id``, ``user_id`` and ``service_catalog``
    :raises NotAuthenticated: the context has no token
    """

    def __init__(self, context: Any) -> None:
        self._token = Secret(getattr(context, "auth_token", None) or "")
        self._catalog = getattr(context, "service_catalog", None)
        if not self._token:
            raise NotAuthenticated(
                "Expected a request context with a token (auth_token), got one without."
            )
        if not (self._token.isascii() and self._token.isprintable()):
            raise NotAuthenticated(
                "Expected a request context with a token (auth_token) of ASCII letters, digits and "
                "signs, got one with other characters."
            )

    def token(self) -> str:
        """Return the context's token."""
        return self._token

    def renew(self, stale: str) -> None:
        """Always raise ``NotAuthenticated``: a context's token cannot be renewed.

        :raises NotAuthenticated: always
        """
        raise NotAuthenticated(
            "The token of the request's context is refused (401): it has expired or was revoked."
        )

    def endpoint(
        self, service: str, interface: str, region: str | None, name: str | None = None
    ) -> str:
        """Return a service's URL from the context's catalog.

        :raises BadStoreConfiguration: the context has no catalog, or the catalog has no such URL
        """
        if not self._catalog:
            raise BadStoreConfiguration(
                "Expected a request context with a service_catalog, got one without. Configure "
                "the endpoint itself, or have the service pass the catalog on."
            )
        return find_endpoint(self._catalog, service, interface, region, name, secrets=[self._token])
