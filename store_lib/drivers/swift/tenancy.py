"""The account of an object: the store's own, one named by reference, or the tenant's."""

import abc
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import unquote, urlsplit

from store_lib.clients.addresses import AddressRules
from store_lib.clients.http import HttpClient
from store_lib.clients.keystone import ConnectionSettings, ContextLogin, Credentials, KeystoneLogin
from store_lib.clients.tls import Tls
from store_lib.display import get_logger
from store_lib.driver import Driver, RequestContext
from store_lib.drivers.swift.client import Account, Container, ContainerPolicy, Login, ObjectRef
from store_lib.drivers.swift.location import SwiftLocation, is_seeded, seeded
from store_lib.drivers.swift.options import OPTION_NAMES
from store_lib.drivers.swift.references import (
    AccountSettings,
    BoundLogin,
    KeystoneAccount,
    References,
    V1Auth,
    WatchedReferences,
    account_of_uri,
    host_of,
)
from store_lib.drivers.swift.trusts import Trustee, UploadLogin
from store_lib.drivers.swift.writer import NewObject
from store_lib.exceptions import BadStoreConfiguration, BadStoreUri, Invalid, MissingCredentialError

_LOG = get_logger(__name__)


class Tenancy(abc.ABC):
    """Returns the accounts and objects of a store.  All threads share one instance.

    :raises BadStoreConfiguration: a file of certificates or a list of addresses is invalid
    """

    policy: ContainerPolicy

    def __init__(self, driver: Driver[SwiftLocation]) -> None:
        self.store_id = driver.store_id
        self.options = options = driver.conf
        self._run_concurrently = driver.run_concurrently
        self._retry = driver.retry
        self._misconfigured = driver.misconfigured
        self._container: str = options.swift_store_container
        self._connection = ConnectionSettings(
            verify=options.swift_store_cacert or not options.swift_store_auth_insecure,
            timeout=options.swift_store_read_timeout,
            renew_before=options.swift_store_expire_soon_interval,
        )
        tls = Tls(
            self.store_id,
            options,
            authorities="swift_store_cacert",
            insecure="swift_store_auth_insecure",
            peers="Swift and Keystone",
        )
        make_client = functools.partial(
            HttpClient,
            tls,
            OPTION_NAMES,
            connect_timeout=options.swift_store_connect_timeout,
            read_timeout=options.silence("swift_store_read_timeout"),
        )
        self._http = make_client()
        # These are for URIs with credentials, which may name hosts that are not this store's.
        check_address = self._address_rules().check_address
        self._foreign_connection = dataclasses.replace(
            self._connection, check_address=check_address
        )
        self._foreign_http = make_client(check_address=check_address)
        self._logins: dict[Credentials, KeystoneLogin] = {}

    def _address_rules(self) -> AddressRules:
        """Return the rules for addresses of the hosts in swift_store_uri_login_hosts."""
        allowed, denied = "swift_store_uri_login_hosts", "swift_store_uri_login_denied_addresses"
        try:
            return AddressRules((allowed, denied), (), self.options[denied])
        except ValueError as error:
            raise self._misconfigured(str(error)) from None

    def account(
        self, login: Login, url: str | None = None, http: HttpClient | None = None
    ) -> Account:
        """Return the account of a login.

        :param url: storage URL, if it is not the one of the login
        :param http: client to use in place of the one for the configured servers
        """
        return Account(login, http or self._http, self._run_concurrently, self._retry, url)

    def _login(
        self,
        settings: AccountSettings,
        keystone: Callable[[Credentials], KeystoneLogin],
        http: HttpClient,
    ) -> Login:
        if settings.version == 1:
            return V1Auth(settings, self.options, http)
        return KeystoneAccount(keystone(settings.credentials), self.options)

    def _keystone(self, credentials: Credentials) -> KeystoneLogin:
        """Return the login of these credentials, which is created once."""
        login = self._logins.get(credentials)
        if login is None:
            # There is no lock here, as a fork could leave it locked.  setdefault keeps the first.
            login = KeystoneLogin(credentials, self._connection)
            login = self._logins.setdefault(credentials, login)
        return login

    def new(self, object_id: str, context: RequestContext | None) -> NewObject:
        """Return where and how a new object is stored."""
        account, container = self.own(context), self.container_of(object_id)
        location = self.new_location(account, container, object_id)
        login = UploadLogin(account, self.trustee)
        return NewObject(
            account.container(container).object(object_id), location, self.policy, login
        )

    def close(self) -> None:
        """Close this process's idle connections."""
        self._http.close()
        self._foreign_http.close()
        for login in list(self._logins.values()):
            login.close()

    # The differences of the two kinds

    @property
    @abc.abstractmethod
    def url_prefix(self) -> str:
        """The common prefix of the URIs of new objects."""

    @abc.abstractmethod
    def container_of(self, object_id: str) -> str:
        """Return the container of a new object."""

    @abc.abstractmethod
    def holds(self, location: SwiftLocation) -> bool:
        """Return whether a location can be in these accounts, judging by the configuration only."""

    @abc.abstractmethod
    def new_location(self, account: Account, container: str, name: str) -> SwiftLocation:
        """Return the location of a new object."""

    def location(self, container: Container, name: str) -> SwiftLocation | None:
        """Return the location of a listed object, or ``None`` if it is not the store's."""
        return self.new_location(container.account, container.name, name)

    @abc.abstractmethod
    def find(self, location: SwiftLocation, context: RequestContext | None) -> ObjectRef:
        """Return the object at a location.

        :raises BadStoreUri: the location is in none of these accounts
        """

    @abc.abstractmethod
    def own(self, context: RequestContext | None) -> Account:
        """Return the account for new objects."""

    @abc.abstractmethod
    def container_names(self, account: Account) -> Iterator[str]:
        """Yield the names of the containers that hold objects of this store."""

    def containers(self, context: RequestContext | None) -> Iterator[Container]:
        """Yield the containers that hold objects of this store."""
        account = self.own(context)
        return map(account.container, self.container_names(account))

    #: The service's user, if users are to create trusts for it.
    trustee: Trustee | None = None


class SingleTenant(Tenancy):
    """One account for all new objects, and other accounts by reference."""

    def __init__(self, driver: Driver[SwiftLocation], watched: WatchedReferences) -> None:
        super().__init__(driver)
        options = self.options
        self._watched = watched
        self.policy = ContainerPolicy(options.swift_store_create_container_on_put, {}, own=False)
        self._seed: int = options.swift_store_multiple_containers_seed
        self._accounts: dict[AccountSettings, Account] = {}

    @property
    def url_prefix(self) -> str:
        # If the default account is missing or malformed, the prefix that it would have.
        reference = self.known.default or self.options.default_swift_reference
        prefix = SwiftLocation.of_reference(reference, self._container, "").uri
        return prefix.removesuffix("/") if self._seed else prefix

    def container_of(self, object_id: str) -> str:
        if not self._seed:
            return self._container
        return seeded(self._container, object_id, self._seed)

    @property
    def known(self) -> References:
        """The currently configured accounts."""
        return self._watched.now()

    def holds(self, location: SwiftLocation) -> bool:
        if location.reference is not None:
            return location.reference in self.known.accounts
        endpoint = self.options.swift_store_endpoint
        # Without a configured endpoint, only a login can show which account is the store's own.
        return (
            location.user is not None
            or not endpoint
            or _same(endpoint, location.url)
            or self.options.moved_from(str(location.url))
        )

    def own(self, context: RequestContext | None) -> Account:
        known = self.known
        if known.default is None:
            raise MissingCredentialError(
                f"Store {self.store_id} has no account for new objects. Configure "
                "swift_store_config_file."
            )
        return self._account(known.account(known.default))

    def new_location(self, account: Account, container: str, name: str) -> SwiftLocation:
        return SwiftLocation.of_reference(str(self.known.default), container, name)

    def find(self, location: SwiftLocation, context: RequestContext | None) -> ObjectRef:
        return self._account_of(location).container(location.container).object(location.name)

    def container_names(self, account: Account) -> Iterator[str]:
        if not self._seed:
            yield self._container
            return
        for name in account.containers(f"{self._container}_"):
            if is_seeded(self._container, name, self._seed):
                yield name

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
            # With the store's token the URI could give access to accounts that its author has none
            # to, so only the store's own account is allowed.
            if not (
                _same(account.storage_url, location.url) or self.options.moved_from(location.url)
            ):
                raise BadStoreUri(
                    f"Expected a URI in the account of store {self.store_id}, "
                    f"{_display(account.storage_url)}, got one in {_display(location.url)}. If "
                    "that account was the store's once, list it in former_places."
                )
            return account
        settings = known.matching(location.url, location.user)
        if settings is None:
            return self._account_by(location.url, location.user, location.key)
        return self._account(settings)

    def _account_by(self, url: str, user: str, key: str) -> Account:
        """Return the account whose credentials a URI holds.

        :raises BadStoreUri: no option allows the URL of the login
        """
        hosts = frozenset(host.lower() for host in self.options.swift_store_uri_login_hosts)
        addresses = [account.credentials.auth_url for account in self.known.well_formed()]
        own = any(_origin(address) == _origin(url) for address in addresses)
        if not own and host_of(url) not in hosts:
            raise BadStoreUri(
                f"The Swift URI has a login in it, for {_display(url)}. Name its host in "
                f"swift_store_uri_login_hosts of store {self.store_id} if it is to be asked."
            )
        # Only the URI's credentials are sent to the URI's address, and none of the configuration.
        version = self.options.swift_store_auth_version
        settings = account_of_uri(url, user, key, version, self._misconfigured)
        # The login is not kept for later, as the number of such URIs is unlimited.
        if own:  # the store itself logs in here, so the catalog can be trusted
            keystone = functools.partial(KeystoneLogin, how=self._connection)
            return self.account(self._login(settings, keystone, self._http))
        keystone = functools.partial(KeystoneLogin, how=self._foreign_connection)
        login = BoundLogin(self._login(settings, keystone, self._foreign_http), hosts)
        return self.account(login, http=self._foreign_http)

    def _account(self, settings: AccountSettings) -> Account:
        account = self._accounts.get(settings)
        if account is None:
            self._forget_others()
            login = self._login(settings, self._keystone, self._http)
            account = self._accounts.setdefault(settings, self.account(login))
        return account

    def _forget_others(self) -> None:
        """Forget the logins of accounts that are no longer in the file."""
        present = self.known.well_formed()
        for settings in list(self._accounts):
            if settings not in present:
                self._accounts.pop(settings, None)
        kept = {settings.credentials for settings in present}
        for credentials in list(self._logins):
            if credentials not in kept and (login := self._logins.pop(credentials, None)):
                login.close()


class MultiTenant(Tenancy):
    """Each object in the account of the tenant who adds it, in a container of its own."""

    def __init__(self, driver: Driver[SwiftLocation], watched: WatchedReferences) -> None:
        super().__init__(driver)
        options = self.options
        known = watched.first
        #: The users who may always read and write, in the form of an access list.
        self.admins = tuple(
            name if ":" in name else f"{name}:*" for name in options.swift_store_admin_tenants
        )
        both = ",".join(self.admins)
        access = {"X-Container-Read": both, "X-Container-Write": both} if both else {}
        self.policy = ContainerPolicy(options.swift_store_create_container_on_put, access, own=True)
        if options.swift_store_use_trusts and known.default is not None:
            credentials = known.account(known.default).credentials
            if credentials.username and credentials.password:
                self.trustee = Trustee(self._keystone(credentials), self._connection, options)
            else:
                _LOG.warning(
                    "Store %s: an application credential cannot act on a trust, so an add in "
                    "segments fails if it outlives its user's token. Set swift_store_user and "
                    "swift_store_key, or unset swift_store_use_trusts.",
                    self.store_id,
                )

    def access_lists(
        self, public: bool, read_tenants: Sequence[str], write_tenants: Sequence[str]
    ) -> dict[str, str]:
        """Return the headers with a container's access lists.

        :raises Invalid: the name of a tenant would mean other users in an access list
        """
        # This is any user with a login; ".r:*" would include clients without a login.
        readers = ["*:*"] if public else [_all_users(tenant) for tenant in read_tenants]
        writers = [_all_users(tenant) for tenant in write_tenants]
        return {
            "X-Container-Read": _access_list([*readers, *self.admins]),
            "X-Container-Write": _access_list([*writers, *self.admins]),
        }

    @property
    def url_prefix(self) -> str:
        return "swift+http"  # also of swift+https; the rest depends on the tenant

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

    def own(self, context: RequestContext | None) -> Account:
        if context is None:
            raise BadStoreConfiguration(
                f"Store {self.store_id} is multi-tenant (swift_store_multi_tenant): every call "
                "needs the context of the request that it is made for. Pass context=..."
            )
        return self.account(KeystoneAccount(ContextLogin(context), self.options))

    def new_location(self, account: Account, container: str, name: str) -> SwiftLocation:
        return SwiftLocation.of_storage(account.storage_url, container, name)

    def location(self, container: Container, name: str) -> SwiftLocation | None:
        own = container.name == self.container_of(name)
        return super().location(container, name) if own else None

    def find(self, location: SwiftLocation, context: RequestContext | None) -> ObjectRef:
        if location.url is None or location.user is not None:
            raise BadStoreUri(
                f"Expected the URI of an object in a tenant's account for store {self.store_id}, "
                f"got {location}."
            )
        account = self.own(context)
        # The user's token is sent only to the server in the catalog or the configuration.
        url = location.url
        if _origin(account.storage_url) != _origin(url):
            parts = urlsplit(url)
            if not self.options.moved_from(parts.netloc):
                raise BadStoreUri(
                    f"The Swift URI leads to {_display(url)}, which is not the server of store "
                    f"{self.store_id}. If it was once, list {parts.netloc} in former_places."
                )
            own = urlsplit(account.storage_url)
            url = parts._replace(scheme=own.scheme, netloc=own.netloc).geturl()
        account = self.account(account.login, url)
        return account.container(location.container).object(location.name)

    def container_names(self, account: Account) -> Iterator[str]:
        return account.containers(f"{self._container}_")


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", parts.port or default


def _same(url: str, other: str | None) -> bool:
    """Return whether two storage URLs are the same."""
    if other is None or _origin(url) != _origin(other):
        return False
    path, other_path = (unquote(urlsplit(part).path).rstrip("/") for part in (url, other))
    return path == other_path


def _display(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _all_users(tenant: str) -> str:
    """Return the entry of an access list for all users of a tenant.

    :raises Invalid: the name of the tenant would mean other users in a list
    """
    if not re.fullmatch(r"[^\s\x00-\x1f,:.*][^\s\x00-\x1f,:*]*", tenant):
        raise Invalid(
            f"Expected the id or the name of a tenant, without blanks, commas, colons, asterisks "
            f"or a full stop at its start, got {ascii(tenant)[:80]}."
        )
    return f"{tenant}:*"


def _access_list(entries: Sequence[str]) -> str:
    # http.client encodes headers in Latin-1; this way UTF-8 is sent.
    return ",".join(entries).encode().decode("latin-1")
