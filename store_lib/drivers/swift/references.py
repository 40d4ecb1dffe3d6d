"""The accounts of a store: from the options, or from the sections of swift_store_config_file."""

import configparser
import contextlib
import dataclasses
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from store_lib.clients.keystone import Credentials
from store_lib.display import get_logger
from store_lib.exceptions import BadStoreConfiguration
from store_lib.options import StoreOptions, read_file

_LOG = get_logger(__name__)

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
    #: ``user`` as it was configured, which version 1 sends as it is.
    user: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class References:
    """The accounts by name; of one that is malformed the reason."""

    accounts: Mapping[str, AccountSettings | BadStoreConfiguration]
    #: The one that new objects go to, if there is one.
    default: str | None
    #: Why there is none, although accounts are configured.
    problem: BadStoreConfiguration | None = None

    def account(self, name: str) -> AccountSettings:
        """Return an account.

        :raises BadStoreConfiguration: it is malformed
        :raises KeyError: there is none of this name
        """
        found = self.accounts[name]
        if isinstance(found, BadStoreConfiguration):
            # Not the very object: an error keeps the traceback and notes of each time.
            raise BadStoreConfiguration(found.msg, store=found.store)
        return found

    def matching(self, url: str, user: str) -> AccountSettings | None:
        """Return the account that logs in as this user at this address, if one does."""
        for each in self.accounts.values():
            if (
                isinstance(each, AccountSettings)
                and each.user == user
                and _address(each.credentials.auth_url) == _address(url)
            ):
                return each
        return None


class Watched:
    """The accounts as the options and the file have them now.

    The file is read again when it has changed.  What cannot be used then is warned of, once for
    each change, and what was read before stays in use.

    :raises BadStoreConfiguration: there is no account, or the file cannot be read or parsed
    """

    def __init__(self, options: StoreOptions, store_id: str) -> None:
        self._options = options
        self._store_id = store_id
        self._seen = self._state()
        self._known = self.first = load(options, store_id)

    def _state(self) -> tuple[int, ...] | None:
        """Return what changes with the file."""
        path = self._options.swift_store_config_file
        try:
            found = os.stat(path) if path else None
        except (OSError, ValueError):
            return None
        return found and (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)

    def now(self) -> References:
        """Return the accounts."""
        state = self._state()
        if state == self._seen:
            return self._known
        self._seen = state  # before it is read, so that no change is missed
        try:
            known = load(self._options, self._store_id)
            problem = known.problem
        except BadStoreConfiguration as error:
            problem = error
        if problem is None:
            self._known = known
        else:
            _LOG.warning(
                "Store %s: swift_store_config_file has changed and cannot be used, so what was "
                "read before stays in use: %s",
                self._store_id,
                problem,
            )
        return self._known


def _address(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc.lower(), parts.path.rstrip("/").removesuffix("/v3")


def load(options: StoreOptions, store_id: str) -> References:
    """Return the accounts that the options tell.

    :raises BadStoreConfiguration: there is no account, or the file cannot be read or parsed
    """
    path = options.swift_store_config_file
    reference = options.default_swift_reference
    if not path:
        given = _from_options(options)
        if not (given.get("user") or given.get("application_credential_id")):
            return References({}, None)
        if not reference:
            raise _bad(
                store_id,
                "Expected a name in default_swift_reference, which URIs hold, got an empty one.",
            )
        return References({reference: _account(given, store_id, "the store's options")}, reference)
    accounts = _from_file(path, options, store_id)
    if reference not in accounts:
        if options.is_set("default_swift_reference") or len(accounts) != 1:
            problem = _bad(
                store_id,
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
    path: str, options: StoreOptions, store_id: str
) -> dict[str, AccountSettings | BadStoreConfiguration]:
    # With interpolation, as glance_store reads it: a per cent sign is written twice.
    parser = configparser.ConfigParser()
    malformed = None
    try:
        parser.read_string(read_file(path))
    except OSError as error:
        raise _bad(
            store_id, f"swift_store_config_file {path} cannot be read: {error.strerror}."
        ) from error
    except UnicodeDecodeError:
        malformed = "not in UTF-8"
    except ValueError as error:  # a path with NUL
        raise _bad(store_id, f"swift_store_config_file {path} cannot be read: {error}.") from None
    except configparser.Error as error:
        where = getattr(error, "lineno", None) or ", ".join(
            str(line) for line, _ in getattr(error, "errors", ())
        )
        malformed = f"{type(error).__name__}, line {where}"
    if malformed is not None:
        # Out here, as the error of the parser, or of the codec, quotes what may hold a key.
        raise _bad(
            store_id,
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
                {name: value for name, value in given.items() if value}, store_id, what
            )
        except ValueError as error:
            accounts[section] = _bad(store_id, str(error))
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


def _account(given: Mapping[str, str], store_id: str, what: str) -> AccountSettings:
    """Make an account's settings of what is configured.

    :raises BadStoreConfiguration: something is missing, or the version is not spoken
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
        raise _bad(store_id, f"{what}: expected {', '.join(needed)}; missing: {', '.join(missing)}")
    if "://" not in address:
        address = f"https://{address}"
    if urlsplit(address).scheme not in ("http", "https") or "@" in urlsplit(address).netloc:
        raise _bad(store_id, f"{what}: expected an http or https URL in auth_address, without '@'.")
    version = given.get("auth_version", "3").removesuffix(".0")
    user = given.get("user")
    if version == "1" and not by_credential:
        return AccountSettings(
            1, Credentials(auth_url=address, username=user, password=given["key"]), user
        )
    if version != "3" or address.rstrip("/").endswith("/v2.0"):
        raise _bad(
            store_id,
            f"{what}: expected auth_version 3 (Keystone) or 1, and for 3 an auth_address that "
            f"does not end with /v2.0; got version {version}. Keystone's version 2 is gone: set "
            "auth_version = 3, and an auth_address that ends with /v3.",
        )
    project, name = given.get("project_name"), user
    if user and ":" in user and not (project or given.get("project_id")):
        project, _, name = user.partition(":")
    if not (project or given.get("project_id") or by_credential):
        raise _bad(store_id, f"{what}: expected user as project:user, or a project_name beside it.")
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


def of_uri(url: str, user: str, key: str, version: str, store_id: str) -> AccountSettings:
    """Return the account whose login an old URI holds.

    :raises BadStoreConfiguration: its login is of a version that is not spoken
    """
    given = {"auth_address": url, "user": user, "key": key, "auth_version": version}
    return _account(given, store_id, "the login of the URI")


def _bad(store_id: str, reason: str) -> BadStoreConfiguration:
    return BadStoreConfiguration(store_name=store_id, reason=reason, store=store_id)
