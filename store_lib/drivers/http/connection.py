"""The connections of one store: direct ones with the address check, and through proxies."""

from collections.abc import Mapping

import urllib3

from store_lib.clients.addresses import AddressRules
from store_lib.clients.connections import (
    CONNECTIONS,
    POOLS,
    SERVERS,
    DirectManager,
    close_manager,
)
from store_lib.clients.process import PerProcess
from store_lib.clients.tls import Tls
from store_lib.drivers.http.location import HttpLocation
from store_lib.exceptions import BadStoreUri


class Proxy:
    """A proxy as the operator wrote it: ``host:port``, or a URL with or without a login.

    :raises ValueError: it is malformed; the message has no credentials
    """

    def __init__(self, text: str) -> None:
        try:
            place = HttpLocation.parse(text if "://" in text else f"http://{text}")
        except BadStoreUri as error:
            raise ValueError(error.msg) from None
        if place.target != "/":
            raise ValueError(f"Expected a proxy without a path, got {place.shown}")
        #: Without credentials.
        self.url = place.base
        self.headers = {}
        if place.authorization is not None:
            self.headers["Proxy-Authorization"] = place.authorization


class Connections:
    """The connections of one store, made for each process when it first needs them."""

    def __init__(self, rules: AddressRules, proxies: Mapping[str, Proxy], tls: Tls) -> None:
        self._rules = rules
        self._proxies = dict(proxies)
        self._tls = tls
        self._managers = PerProcess(self._make)

    def proxied(self, scheme: str) -> bool:
        """Whether requests of ``scheme`` go through a proxy."""
        return scheme in self._proxies

    def manager(self, scheme: str) -> urllib3.PoolManager:
        """Return what makes requests of ``scheme`` in this process."""
        return self._managers.get()[scheme]

    def close(self) -> None:
        """Close this process's idle connections."""
        for manager in set((self._managers.take() or {}).values()):
            close_manager(manager)

    def _make(self) -> dict[str, urllib3.PoolManager]:
        check_address = self._rules.check_address if self._rules else None
        tls = self._tls
        direct = DirectManager(context=lambda: tls.context, check_address=check_address)
        managers: dict[str, urllib3.PoolManager] = {}
        for scheme in HttpLocation.schemes:
            managers[scheme] = direct
            if scheme in self._proxies:
                proxy = self._proxies[scheme]
                managers[scheme] = urllib3.ProxyManager(
                    proxy.url,
                    SERVERS,
                    proxy_headers=proxy.headers,
                    proxy_ssl_context=tls.context,
                    maxsize=CONNECTIONS,
                    ssl_context=tls.context,
                )
                managers[scheme].pool_classes_by_scheme = POOLS
        return managers
