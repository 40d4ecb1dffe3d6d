"""keystoneauth's sessions on our own connections; imported only if keystoneauth is needed."""

import functools
from typing import Any
from urllib.parse import urljoin, urlsplit

from keystoneauth1.session import Session, TCPKeepAliveAdapter
from urllib3.connectionpool import HTTPSConnectionPool

from store_lib.clients._urllib3 import Pool, TlsConnection, sent_secrets
from store_lib.clients.addresses import AddressCheck
from store_lib.exceptions import BackendException
from store_lib.redaction import hide

#: Bytes of the longest answer, decompressed, and of what is read of it at once.
_LONGEST, _PIECE = 64 * 1024 * 1024, 64 * 1024


class _TlsPool(Pool, HTTPSConnectionPool):
    """Warns at each request without verification, as nothing else does."""

    ConnectionCls = TlsConnection


class _Adapter(TCPKeepAliveAdapter):
    """Reads answers to their end, whether the server is reached through a proxy or not.

    keystoneauth follows redirects with everything it was to send, passwords and tokens too.  Those
    are for one server: only a redirect to the same one is handed on.

    :param check_address: which addresses may be connected to; ``None`` for all
    """

    def __init__(self, check_address: AddressCheck | None) -> None:
        self._pools: dict[str, Any] = {
            "http": functools.partial(Pool, check_address=check_address),
            "https": functools.partial(_TlsPool, check_address=check_address),
        }
        super().__init__()

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().send(request, *args, **kwargs)
        _read(response)
        target = response.headers.get("Location")
        if target is not None and 300 <= response.status_code < 400:
            try:
                # Whole, as keystoneauth expects it.
                response.headers["Location"] = _redirected(request.url, target)
            except BaseException:
                response.close()
                raise
        if response.status_code >= 400:  # its page may quote what was sent to prove who asks
            said = response.content.decode("latin-1")
            response._content = hide(said, sent_secrets("", request.headers)).encode("latin-1")
        return response

    def cert_verify(self, conn: Any, url: str, verify: bool | str, cert: Any) -> None:
        super().cert_verify(conn, url, verify, cert)
        if verify is True:
            # The system's, as every other client of ours takes, in place of requests' own list.
            conn.ca_certs = None

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # which has connections of its own
            manager.pool_classes_by_scheme = self._pools
        return manager


def _read(response: Any) -> None:
    """Read an answer whole, as requests does next, where there is no more of it than may be.

    :raises BackendException: there is
    """
    parts, got = [], 0
    for piece in response.iter_content(_PIECE):
        parts.append(piece)
        got += len(piece)
        if got > _LONGEST:
            response.close()
            raise BackendException(
                f"Expected an answer of at most {_LONGEST} bytes, got more. Check the address, and "
                "what is between."
            )
    response._content = b"".join(parts)


def _redirected(origin: str, location: str) -> str:
    """Return where a redirect leads.

    :raises BackendException: to another host or port, unless from http to https
    """
    here = urlsplit(origin)
    shown = "a malformed address"
    try:
        target = urljoin(origin, location)
        there = urlsplit(target)
        same = (here.scheme, here.port) == (there.scheme, there.port)
        safer = (here.scheme, there.scheme) == ("http", "https")
        if here.hostname == there.hostname and (same or safer):
            return target
        shown = ascii(f"{there.scheme}://{there.netloc.rpartition('@')[2]}"[:200])
    except ValueError:
        pass
    raise BackendException(
        f"{here.scheme}://{here.netloc.rpartition('@')[2]} redirects to {shown}. Passwords and "
        "tokens are not sent to another server: configure the address that is meant, if it is "
        "that one."
    )


def open_session(
    *,
    verify: bool | str,
    timeout: float,
    auth: Any = None,
    check_address: AddressCheck | None = None,
) -> Session:
    """Return a session, which ignores the environment's proxies, .netrc and CA files.

    :param verify: ``True`` for the system's authorities, ``False``, or a file with certificates
    :param timeout: seconds for a connection to be made, and for which no byte may come
    :param auth: keystoneauth's plugin for a login
    :param check_address: which addresses may be connected to; ``None`` for all
    """
    session = Session(auth=auth, verify=verify, timeout=timeout)
    session.session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(check_address))
    return session
