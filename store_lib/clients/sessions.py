"""keystoneauth's sessions on connections of ours; imported where keystoneauth is needed."""

from typing import Any

from keystoneauth1.session import Session, TCPKeepAliveAdapter
from urllib3.connectionpool import HTTPSConnectionPool

from store_lib.clients.connections import Pool, TlsConnection


class _TlsPool(Pool, HTTPSConnectionPool):
    """Warns at each request that is made without verification, as nobody else does."""

    ConnectionCls = TlsConnection


_POOLS = {"http": Pool, "https": _TlsPool}


class _Adapter(TCPKeepAliveAdapter):
    """Reads answers to their end, whether the server is reached through a proxy or not."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def open_session(*, verify: bool | str, timeout: float, auth: Any = None) -> Session:
    """Return a session; the environment's proxies, .netrc and files of authorities do not count.

    :param verify: ``True``, ``False``, or a file with the authorities' certificates
    :param timeout: seconds for a connection to be made, and for which no byte may come
    :param auth: keystoneauth's plugin for a login
    """
    session = Session(auth=auth, verify=verify, timeout=timeout)
    session.session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    return session
