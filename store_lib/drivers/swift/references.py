"""The accounts of a store, and how it logs in to them.

Accounts are configured by options, or by sections of swift_store_config_file.
"""

import configparser
import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from store_lib.clients.decoding import decoding, url
from store_lib.clients.http import HttpClient, HttpResponse
from store_lib.clients.keystone import ContextLogin, Credentials, KeystoneLogin
from store_lib.clients.process import PerProcess
from store_lib.display import get_logger
from store_lib.drivers.swift.client import Login
from store_lib.drivers.swift.errors import login_error
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
)
from store_lib.options import StoreOptions, read_file
from store_lib.redaction import Secret

_LOG = get_logger(__name__)

#: Returns the error for an invalid setting, see ``Driver.misconfigured``.
Misconfigured = Callable[[str], BadStoreConfiguration]

_KNOWN = (
    "auth_address",
    "auth_version",
    "user",
    "key",
    "project_name",
    "project_id",
    "project_domain_id",
    "project_domain_name",
    "user_domain_id",
    "user_domain_name",
    "application_credential_id",
    "application_credential_secret",
)


@dataclasses.dataclass(frozen=True, slots=True)
class AccountSettings:
    """How to log in to one account."""

    version: int
    credentials: Credentials
    #: ``user`` as it was configured, which a login of version 1 sends unchanged.
    user: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class References:
    """The configured accounts by name; for a malformed account, the error."""

    accounts: Mapping[str, AccountSettings | BadStoreConfiguration]
    #: Name of the account for new objects, if there is one.
    default: str | None
    #: Why there is no account for new objects, although accounts are configured.
    problem: BadStoreConfiguration | None = None

    def account(self, name: str) -> AccountSettings:
        """Return an account.

        :raises BadStoreConfiguration: the account is malformed
        :raises KeyError: there is no account of this name
        """
        account = self.accounts[name]
        if isinstance(account, BadStoreConfiguration):
            # Raise a copy: an error keeps the traceback and the notes of every time it is raised.
            raise BadStoreConfiguration(account.msg, store=account.store)
        return account

    def matching(self, url: str, user: str) -> AccountSettings | None:
        """Return the account that logs in as this user at this URL, or ``None``."""
        for account in self.well_formed():
            if account.user == user and _address(account.credentials.auth_url) == _address(url):
                return account
        return None

    def well_formed(self) -> list[AccountSettings]:
        """Return the accounts that are not malformed."""
        accounts = self.accounts.values()
        return [account for account in accounts if isinstance(account, AccountSettings)]


class WatchedReferences:
    """The accounts of the options and the file, kept up to date.

    The file is read again when it has changed.  If it is invalid then, a warning is logged once per
    change, and the accounts that were read before stay in use.

    :raises BadStoreConfiguration: there is no account, or the file cannot be read or parsed
    """

    def __init__(self, options: StoreOptions, misconfigured: Misconfigured) -> None:
        self._options = options
        self._misconfigured = misconfigured
        self._seen = self._state()
        self._known = self.first = load(options, misconfigured)

    def _state(self) -> tuple[int, ...] | None:
        """Return values that change with the file, or ``None`` if its status cannot be read."""
        path = self._options.swift_store_config_file
        try:
            stat = os.stat(path) if path else None
        except (OSError, ValueError):
            return None
        return stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev)

    def now(self) -> References:
        """Return the current accounts."""
        state = self._state()
        if state == self._seen:
            return self._known
        self._seen = state  # set before the file is read, so that no change is missed
        try:
            known = load(self._options, self._misconfigured)
            problem = known.problem
        except BadStoreConfiguration as error:
            problem = error
        if problem is None:
            self._known = known
        else:
            _LOG.warning(
                "Store %s: swift_store_config_file has changed and cannot be used, so what was "
                "read before stays in use: %s",
                problem.store,
                problem,
            )
        return self._known


def _address(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc.lower(), parts.path.rstrip("/").removesuffix("/v3")


def load(options: StoreOptions, misconfigured: Misconfigured) -> References:
    """Return the accounts of the options.

    :raises BadStoreConfiguration: there is no account, or the file cannot be read or parsed
    """
    path = options.swift_store_config_file
    reference = options.default_swift_reference
    if not path:
        given = _from_options(options)
        if not (given.get("user") or given.get("application_credential_id")):
            return References({}, None)
        if not reference:
            raise misconfigured(
                "Expected a name in default_swift_reference, which URIs hold, got an empty one.",
            )
        return References(
            {reference: _account(given, misconfigured, "the store's options")}, reference
        )
    accounts = _from_file(path, options, misconfigured)
    if reference not in accounts:
        if options.is_set("default_swift_reference") or len(accounts) != 1:
            problem = misconfigured(
                f"Expected default_swift_reference to name a section of {path}, got {reference!r}; "
                f"it has: {', '.join(accounts) or 'none'}.",
            )
            problem.readable = bool(accounts)
            return References(accounts, None, problem)
        [reference] = accounts
    default = accounts[reference]
    if isinstance(default, BadStoreConfiguration):
        default.readable = len(accounts) > 1
        return References(accounts, None, default)
    return References(accounts, reference)


def _from_options(options: StoreOptions) -> dict[str, str]:
    return {
        name: str(options[f"swift_store_{name}"])
        for name in _KNOWN
        if options.get(f"swift_store_{name}")
    }


def _from_file(
    path: str, options: StoreOptions, misconfigured: Misconfigured
) -> dict[str, AccountSettings | BadStoreConfiguration]:
    # Interpolation is on, as in glance_store: a literal percent sign is written twice.
    parser = configparser.ConfigParser()
    malformed = None
    try:
        parser.read_string(read_file(path))
    except OSError as error:
        raise misconfigured(
            f"swift_store_config_file {path} cannot be read: {error.strerror}."
        ) from error
    except UnicodeDecodeError:
        malformed = "not in UTF-8"
    except ValueError as error:  # a path with a NUL character
        raise misconfigured(f"swift_store_config_file {path} cannot be read: {error}.") from None
    except configparser.Error as error:
        where = getattr(error, "lineno", None) or ", ".join(
            str(line) for line, _ in getattr(error, "errors", ())
        )
        malformed = f"{type(error).__name__}, line {where}"
    if malformed is not None:
        # Raise outside the except block: the parser's or codec's error quotes text that may hold a
        # key, and would be this error's context.
        raise misconfigured(
            f"swift_store_config_file {path} cannot be parsed ({malformed}). Expected sections of "
            "name = value.",
        )
    accounts: dict[str, AccountSettings | BadStoreConfiguration] = {}
    for section in parser.sections():
        what = f"section [{section}] of {path}"
        try:
            given = {name: _value(parser, section, name, what) for name in _KNOWN}
            given["auth_version"] = given["auth_version"] or options.swift_store_auth_version
            accounts[section] = _account(
                {name: value for name, value in given.items() if value}, misconfigured, what
            )
        except ValueError as error:
            accounts[section] = misconfigured(str(error))
        except BadStoreConfiguration as error:
            accounts[section] = error
    return accounts


def _value(parser: configparser.ConfigParser, section: str, name: str, what: str) -> str:
    value = None
    with contextlib.suppress(configparser.InterpolationError):
        value = parser.get(section, name, fallback="") or ""
    if value is None:
        raise ValueError(f"{what}: expected every per cent sign in {name} to be written twice.")
    if value[:1] in ("'", '"'):
        if len(value) == 1 or value[-1] != value[0]:
            raise ValueError(f"{what}: expected a closing quotation mark at the end of {name}.")
        value = value[1:-1]
    return value


def _account(given: Mapping[str, str], misconfigured: Misconfigured, what: str) -> AccountSettings:
    """Return an account's settings.

    :raises BadStoreConfiguration: a setting is missing, or the version is not supported
    """
    address = given.get("auth_address")
    by_credential = "application_credential_id" in given
    needed = (
        ["auth_address", "application_credential_id", "application_credential_secret"]
        if by_credential
        else ["auth_address", "user", "key"]
    )
    missing = [name for name in needed if not given.get(name)]
    if missing or not address:
        raise misconfigured(f"{what}: expected {', '.join(needed)}; missing: {', '.join(missing)}")
    if "://" not in address:
        address = f"https://{address}"
    if urlsplit(address).scheme not in ("http", "https") or "@" in urlsplit(address).netloc:
        raise misconfigured(f"{what}: expected an http or https URL in auth_address, without '@'.")
    version = given.get("auth_version", "3").removesuffix(".0")
    user = given.get("user")
    if version == "1" and not by_credential:
        return AccountSettings(
            1, Credentials(auth_url=address, username=user, password=given["key"]), user
        )
    if version != "3" or address.rstrip("/").endswith("/v2.0"):
        raise misconfigured(
            f"{what}: expected auth_version 3 (Keystone) or 1, and for 3 an auth_address that "
            f"does not end with /v2.0; got version {version}. Keystone's version 2 is gone: set "
            "auth_version = 3, and an auth_address that ends with /v3.",
        )
    project, name = given.get("project_name"), user
    if user and ":" in user and not (project or given.get("project_id")):
        project, _, name = user.partition(":")
    if not (project or given.get("project_id") or by_credential):
        raise misconfigured(f"{what}: expected user as project:user, or a project_name beside it.")
    return AccountSettings(
        3,
        Credentials(
            auth_url=address,
            username=name,
            password=given.get("key"),
            project_name=project,
            project_id=given.get("project_id"),
            **_domain(given, "user"),
            **_domain(given, "project"),
            application_credential_id=given.get("application_credential_id"),
            application_credential_secret=given.get("application_credential_secret"),
        ),
        user,
    )


def _domain(given: Mapping[str, str], of: str) -> dict[str, str | None]:
    known = {f"{of}_domain_{kind}": given.get(f"{of}_domain_{kind}") for kind in ("id", "name")}
    return known if any(known.values()) else {f"{of}_domain_id": "default"}


def account_of_uri(
    url: str, user: str, key: str, version: str, misconfigured: Misconfigured
) -> AccountSettings:
    """Return the account whose credentials an old URI holds.

    :raises BadStoreConfiguration: this version of login is not supported
    """
    given = {"auth_address": url, "user": user, "key": key, "auth_version": version}
    return _account(given, misconfigured, "the login of the URI")


# Logins


class KeystoneAccount:
    """A login through Keystone, by configured credentials or by a request's context."""

    def __init__(self, login: KeystoneLogin | ContextLogin, options: StoreOptions) -> None:
        self.login = login
        self.token = login.token
        self.renew = login.renew
        self._options = options

    def storage_url(self) -> str:
        """Return the configured endpoint, or else the catalog's."""
        options = self._options
        endpoint: str = options.swift_store_endpoint or self.login.endpoint(
            options.swift_store_service_type,
            options.swift_store_endpoint_type,
            options.swift_store_region,
        )
        return endpoint.rstrip("/")


class _V1State:
    """The token of a login of version 1, for one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.url = ""
        self.token: str | None = None


class V1Auth:
    """A login of version 1: one request returns token and storage URL."""

    def __init__(self, settings: AccountSettings, options: StoreOptions, http: HttpClient) -> None:
        self._credentials = settings.credentials
        self._options = options
        self._http = http
        self._state = PerProcess(_V1State)

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
        """Return the configured endpoint, or else the one in the response to the login."""
        if self._options.swift_store_endpoint:
            return str(self._options.swift_store_endpoint).rstrip("/")
        self.token()
        return self._state.get().url.rstrip("/")

    def _log_in(self) -> tuple[str, str]:
        credentials = self._credentials
        sent = {
            "X-Auth-User": _field(credentials.username),
            "X-Auth-Key": _field(credentials.password),
        }
        response = self._http.fetch("GET", credentials.auth_url, sent)
        # The headers hold the token, so no local variable refers to them: tracebacks show locals.
        token = Secret(
            response.headers.get("X-Storage-Token") or response.headers.get("X-Auth-Token") or ""
        )
        complete = bool(token and response.headers.get("X-Storage-Url"))
        if not 200 <= response.status < 300 or not complete:
            raise login_error(response, credentials.auth_url)
        with decoding(
            f"a storage URL from {credentials.auth_url}", secrets=[token, *map(str, sent.values())]
        ):
            return url(_storage_url(response)), token


class BoundLogin:
    """A login with credentials from a URI, whose account must be on an allowed host.

    :param hosts: the allowed hosts
    """

    def __init__(self, login: Login, hosts: frozenset[str]) -> None:
        self._login = login
        self._hosts = hosts
        self.token = login.token
        self.renew = login.renew

    def storage_url(self) -> str:
        """Return the account's URL.

        :raises BadStoreUri: the account's host is not allowed
        """
        storage_url = self._login.storage_url()
        host = host_of(storage_url)
        if host not in self._hosts:
            raise BadStoreUri(
                f"The login of the Swift URI leads to an account at {host!a}, which "
                "swift_store_uri_login_hosts does not name."
            )
        return storage_url


def host_of(url: str) -> str | None:
    """Return the host of a URL in lower case, or ``None`` if the URL has none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _storage_url(response: HttpResponse) -> str:
    value = response.headers["X-Storage-Url"]
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value  # neither ASCII nor UTF-8, so it stays as received


def _field(value: str | None) -> Secret:
    """Return the value of a header field, so that it is sent in UTF-8."""
    return Secret((value or "").encode().decode("latin-1"))
