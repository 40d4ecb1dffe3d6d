"""Whose account an object lies in: the store's own, one by reference, or the tenant's."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.util import Timeout

from store_lib.clients._urllib3 import DirectManager, close_manager
from store_lib.clients.addresses import AddressRules
from store_lib.clients.keystone import ConnectionSettings, ContextLogin, Credentials, KeystoneLogin
from store_lib.clients.process import PerProcess
from store_lib.clients.tls import Tls
from store_lib.display import get_logger
from store_lib.driver import Repeater, RunConcurrently
from store_lib.drivers.swift import names, references
from store_lib.drivers.swift.account import Account
from store_lib.drivers.swift.location import SwiftLocation
from store_lib.drivers.swift.logins import BoundLogin, KeystoneAccount, Login, host_of, login_of
from store_lib.drivers.swift.places import Containers, Place
from store_lib.drivers.swift.references import AccountSettings, References, Watched
from store_lib.drivers.swift.trusts import Trustee
from store_lib.drivers.swift.writer import Lasting
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    MissingCredentialError,
)
from store_lib.options import StoreOptions

_LOG = get_logger(__name__)


class Tenancy(abc.ABC):
    """Finds accounts and places; shared by all threads.

    :raises BadStoreConfiguration: a file of authorities cannot be used
    """

    containers: Containers

    def __init__(
        self,
        store_id: str,
        options: StoreOptions,
        run_concurrently: RunConcurrently,
        retry: Repeater,
    ) -> None:
        self.store_id = store_id
        self.options = options
        self._run_concurrently = run_concurrently
        self._retry = retry
        tls = Tls(
            store_id,
            options,
            authorities="swift_store_cacert",
            insecure="swift_store_auth_insecure",
            peers="Swift and Keystone",
        )
        self.how = ConnectionSettings(
            verify=options.swift_store_cacert or not options.swift_store_auth_insecure,
            timeout=options.swift_store_read_timeout,
            renew_before=options.swift_store_expire_soon_interval,
        )
        silence = options.silence("swift_store_read_timeout")
        self._timeout = Timeout(connect=options.swift_store_connect_timeout, read=silence)
        self._connections: PerProcess[urllib3.PoolManager] = PerProcess(
            lambda: DirectManager(context=lambda: tls.context, send_timeout=silence)
        )
        # For URIs with a login in them, which lead to hosts that are not this store's.
        check = _rules(store_id, options).check_address
        self._foreign_how = dataclasses.replace(self.how, check_address=check)
        self._foreign: PerProcess[urllib3.PoolManager] = PerProcess(
            lambda: DirectManager(
                context=lambda: tls.context, send_timeout=silence, check_address=check
            )
        )
        self._logins: dict[Credentials, KeystoneLogin] = {}

    def account(
        self,
        login: Login,
        url: str | None = None,
        connections: PerProcess[urllib3.PoolManager] | None = None,
    ) -> Account:
        """Return an account; the connections are those to configured servers if left out."""
        connections = connections or self._connections
        return Account(login, connections, self._timeout, self._run_concurrently, self._retry, url)

    def _login(
        self,
        settings: AccountSettings,
        keystone: Callable[..., KeystoneLogin],
        connections: PerProcess[urllib3.PoolManager] | None = None,
    ) -> Login:
        connections = connections or self._connections
        return login_of(settings, keystone, self.options, connections, self._timeout)

    def keystone(self, credentials: Credentials) -> KeystoneLogin:
        """Return the one login that these credentials have."""
        found = self._logins.get(credentials)
        if found is None:
            # Without a lock, which a fork could leave locked: the first one in stays.
            found = self._logins.setdefault(credentials, KeystoneLogin(credentials, self.how))
        return found

    def close(self) -> None:
        """Close this process's idle connections."""
        for connections in (self._connections, self._foreign):
            manager = connections.take()
            if manager is not None:
                close_manager(manager)
        for login in list(self._logins.values()):
            login.close()

    # What the two kinds differ in.

    @property
    @abc.abstractmethod
    def url_prefix(self) -> str:
        """What the URIs of new objects begin with."""

    @abc.abstractmethod
    def container_of(self, object_id: str) -> str:
        """Return the container of a new object."""

    @abc.abstractmethod
    def holds(self, location: SwiftLocation) -> bool:
        """Tell from the configuration whether a location can be in these accounts."""

    @abc.abstractmethod
    def location(self, account: Account, container: str, name: str) -> SwiftLocation | None:
        """Return the location of a listed object, ``None`` if it is none of the store's."""

    @abc.abstractmethod
    def new(self, object_id: str, context: Any) -> Place:
        """Return the place of a new object."""

    @abc.abstractmethod
    def find(self, location: SwiftLocation, context: Any) -> Place:
        """Return the place of an object by its location.

        :raises BadStoreUri: it is in none of these accounts
        """

    @abc.abstractmethod
    def own(self, context: Any) -> Account:
        """Return the account that new objects go to."""

    @abc.abstractmethod
    def known_containers(self, account: Account) -> Iterator[str]:
        """Yield the containers that objects of this store lie in."""

    def lasting(self, place: Place) -> Lasting | None:
        """Return what gives a login that outlives the user's, where one is needed."""
        return None


class SingleTenant(Tenancy):
    """One account for all new objects, and others by reference."""

    def __init__(
        self,
        store_id: str,
        options: StoreOptions,
        run_concurrently: RunConcurrently,
        retry: Repeater,
        watched: Watched,
    ) -> None:
        super().__init__(store_id, options, run_concurrently, retry)
        self._watched = watched
        self.containers = Containers(options.swift_store_create_container_on_put, {}, own=False)
        self._container: str = options.swift_store_container
        self._seed: int = options.swift_store_multiple_containers_seed
        self._accounts: dict[AccountSettings, Account] = {}

    @property
    def url_prefix(self) -> str:
        # Where the default account is none or malformed, what would be its URIs.
        reference = self.known.default or self.options.default_swift_reference
        prefix = SwiftLocation.of_reference(reference, self._container, "").uri
        return prefix.removesuffix("/") if self._seed else prefix

    def container_of(self, object_id: str) -> str:
        if not self._seed:
            return self._container
        return names.seeded(self._container, object_id, self._seed)

    @property
    def known(self) -> References:
        """The accounts that are configured now."""
        return self._watched.now()

    def holds(self, location: SwiftLocation) -> bool:
        if location.reference is not None:
            return location.reference in self.known.accounts
        endpoint = self.options.swift_store_endpoint
        # Without one the login tells which account is the store's own.
        return (
            location.user is not None
            or not endpoint
            or _same(endpoint, location.url)
            or self.options.moved_from(str(location.url))
        )

    def own(self, context: Any) -> Account:
        known = self.known
        if known.default is None:
            raise MissingCredentialError(
                f"Store {self.store_id} has no account for new objects. Configure "
                "swift_store_config_file."
            )
        return self._account(known.account(known.default))

    def location(self, account: Account, container: str, name: str) -> SwiftLocation:
        return SwiftLocation.of_reference(str(self.known.default), container, name)

    def new(self, object_id: str, context: Any) -> Place:
        account, container = self.own(context), self.container_of(object_id)
        location = self.location(account, container, object_id)
        return Place(account, container, object_id, location)

    def find(self, location: SwiftLocation, context: Any) -> Place:
        return Place(self._account_of(location), location.container, location.name, location)

    def known_containers(self, account: Account) -> Iterator[str]:
        if not self._seed:
            yield self._container
            return
        for each in account.containers(f"{self._container}_"):
            if names.is_seeded(self._container, each, self._seed):
                yield each

    def _account_of(self, location: SwiftLocation) -> Account:
        known = self.known
        if location.reference is not None:
            if location.reference not in known.accounts:
                raise BadStoreUri(
                    f"The Swift URI names the account {location.reference!a}, which store "
                    f"{self.store_id} does not have. Its accounts are: "
                    f"{', '.join(known.accounts) or 'none'}."
                )
            return self._account(known.account(location.reference))
        assert location.url is not None
        if location.user is None or location.key is None:
            account = self.own(None)
            # The store's token may do more elsewhere than whoever wrote the URI.
            if not (
                _same(account.storage_url, location.url) or self.options.moved_from(location.url)
            ):
                raise BadStoreUri(
                    f"Expected a URI in the account of store {self.store_id}, "
                    f"{_shown(account.storage_url)}, got one in {_shown(location.url)}. If that "
                    "account was the store's once, list it in former_places."
                )
            return account
        settings = known.matching(location.url, location.user)
        if settings is None:
            return self._account_by(location.url, location.user, location.key)
        return self._account(settings)

    def _account_by(self, url: str, user: str, key: str) -> Account:
        """Return the account whose login a URI holds.

        :raises BadStoreUri: nobody has admitted the address
        """
        hosts = frozenset(each.lower() for each in self.options.swift_store_uri_login_hosts)
        own = any(
            isinstance(each, AccountSettings) and _origin(each.credentials.auth_url) == _origin(url)
            for each in self.known.accounts.values()
        )
        if not own and host_of(url) not in hosts:
            raise BadStoreUri(
                f"The Swift URI has a login in it, for {_shown(url)}. Name its host in "
                f"swift_store_uri_login_hosts of store {self.store_id} if it is to be asked."
            )
        # Its own credentials go to its own address, and none of the configuration's.
        version = self.options.swift_store_auth_version
        settings = references.of_uri(url, user, key, version, self.store_id)
        # Not kept: anybody can make up as many as he likes.
        if own:  # where the store logs in itself, the catalog is the store's too
            keystone = functools.partial(KeystoneLogin, how=self.how)
            return self.account(self._login(settings, keystone))
        keystone = functools.partial(KeystoneLogin, how=self._foreign_how)
        login = self._login(settings, keystone, self._foreign)
        return self.account(BoundLogin(login, hosts), connections=self._foreign)

    def _account(self, settings: AccountSettings) -> Account:
        found = self._accounts.get(settings)
        if found is None:
            self._forget_others()
            login = self._login(settings, self.keystone)
            found = self._accounts.setdefault(settings, self.account(login))
        return found

    def _forget_others(self) -> None:
        """Forget the logins of settings that the file no longer has."""
        present = [
            each for each in self.known.accounts.values() if isinstance(each, AccountSettings)
        ]
        for settings in list(self._accounts):
            if settings not in present:
                self._accounts.pop(settings, None)
        kept = {each.credentials for each in present}
        for credentials in list(self._logins):
            if credentials not in kept and (login := self._logins.pop(credentials, None)):
                login.close()


class MultiTenant(Tenancy):
    """Each object in the account of the tenant who adds it, in a container of its own."""

    def __init__(
        self,
        store_id: str,
        options: StoreOptions,
        run_concurrently: RunConcurrently,
        retry: Repeater,
        watched: Watched,
    ) -> None:
        super().__init__(store_id, options, run_concurrently, retry)
        known = watched.first
        #: Who may always read and write, as Swift writes it.
        self.admins = tuple(
            each if ":" in each else f"{each}:*" for each in options.swift_store_admin_tenants
        )
        both = ",".join(self.admins)
        access = {"X-Container-Read": both, "X-Container-Write": both} if both else {}
        self.containers = Containers(options.swift_store_create_container_on_put, access, own=True)
        self._container: str = options.swift_store_container
        self._trustee: Trustee | None = None
        if options.swift_store_use_trusts and known.default is not None:
            credentials = known.account(known.default).credentials
            if credentials.username and credentials.password:
                self._trustee = Trustee(self.keystone(credentials), self.how, options)
            else:
                _LOG.warning(
                    "Store %s: an application credential cannot act on a trust, so an add in "
                    "segments fails if it outlives its user's token. Set swift_store_user and "
                    "swift_store_key, or unset swift_store_use_trusts.",
                    store_id,
                )

    @property
    def url_prefix(self) -> str:
        return "swift+http"  # and https: what follows is the tenant's

    def container_of(self, object_id: str) -> str:
        return f"{self._container}_{object_id}"

    def holds(self, location: SwiftLocation) -> bool:
        if location.url is None or location.user is not None:
            return False
        endpoint = self.options.swift_store_endpoint
        return (
            not endpoint
            or _origin(endpoint) == _origin(location.url)
            or self.options.moved_from(urlsplit(location.url).netloc)
        )

    def own(self, context: Any) -> Account:
        if context is None:
            raise BadStoreConfiguration(
                f"Store {self.store_id} is multi-tenant (swift_store_multi_tenant): every call "
                "needs the context of the request that it is made for. Pass context=..."
            )
        return self.account(KeystoneAccount(ContextLogin(context), self.options))

    def location(self, account: Account, container: str, name: str) -> SwiftLocation | None:
        if container != self.container_of(name):
            return None
        return SwiftLocation.of_storage(account.storage_url, container, name)

    def new(self, object_id: str, context: Any) -> Place:
        account, container = self.own(context), self.container_of(object_id)
        location = SwiftLocation.of_storage(account.storage_url, container, object_id)
        return Place(account, container, object_id, location)

    def find(self, location: SwiftLocation, context: Any) -> Place:
        if location.url is None or location.user is not None:
            raise BadStoreUri(
                f"Expected the URI of an object in a tenant's account for store {self.store_id}, "
                f"got {location}."
            )
        account = self.own(context)
        # The user's token goes nowhere but to the server that the catalog or the store tells.
        url = location.url
        if _origin(account.storage_url) != _origin(url):
            parts = urlsplit(url)
            if not self.options.moved_from(parts.netloc):
                raise BadStoreUri(
                    f"The Swift URI leads to {_shown(url)}, which is not the server of store "
                    f"{self.store_id}. If it was once, list {parts.netloc} in former_places."
                )
            own = urlsplit(account.storage_url)
            url = parts._replace(scheme=own.scheme, netloc=own.netloc).geturl()
        account = self.account(account.login, url)
        return Place(account, location.container, location.name, location)

    def known_containers(self, account: Account) -> Iterator[str]:
        return account.containers(f"{self._container}_")

    def lasting(self, place: Place) -> Lasting | None:
        trustee = self._trustee
        return None if trustee is None else (lambda: trustee.trusted_by(place.account))


def _rules(store_id: str, options: StoreOptions) -> AddressRules:
    """Return the rules for addresses of hosts that are named otherwise."""
    named, denied = "swift_store_uri_login_hosts", "swift_store_uri_login_denied_addresses"
    try:
        return AddressRules((named, denied), (), options[denied])
    except ValueError as error:
        raise BadStoreConfiguration(
            store_name=store_id, reason=str(error), store=store_id
        ) from None


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", parts.port or default


def _same(url: str, other: str | None) -> bool:
    """Tell whether two storage URLs are one."""
    if other is None or _origin(url) != _origin(other):
        return False
    paths = [unquote(urlsplit(each).path).rstrip("/") for each in (url, other)]
    return paths[0] == paths[1]


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
