"""keystoneauth's sessions, on this package's connections; imported only when needed."""

import functools
from typing import Any
from urllib.parse import urljoin, urlsplit

from keystoneauth1.session import Session, TCPKeepAliveAdapter
from urllib3.connectionpool import HTTPSConnectionPool

from store_lib.clients._urllib3 import Pool, TlsConnection, sent_secrets
from store_lib.clients.addresses import AddressCheck
from store_lib.exceptions import BackendException
from store_lib.redaction import hide

#: The largest number of bytes in a response's decompressed body, and the number read at once.
_LONGEST, _PIECE = 64 * 1024 * 1024, 64 * 1024


class _TlsPool(Pool, HTTPSConnectionPool):
    """A pool that keeps urllib3's warning for every unverified request: nothing else warns here."""

    ConnectionCls = TlsConnection


class _Adapter(TCPKeepAliveAdapter):
    """An adapter of requests that uses this package's pools, directly or through a proxy.

    It limits the length of responses, removes secrets from error pages, and refuses redirects to
    other servers: keystoneauth follows a redirect with the whole request, passwords and tokens
    included.

    :param check_address: checks addresses before and after connecting; ``None`` allows all
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
                # As an absolute URL, which keystoneauth expects.
                response.headers["Location"] = _redirected(request.url, target)
            except BaseException:
                response.close()
                raise
        if response.status_code >= 400:  # the error page may quote credentials
            said = response.content.decode("latin-1")
            response._content = hide(said, sent_secrets("", request.headers)).encode("latin-1")
        return response

    def cert_verify(self, conn: Any, url: str, verify: bool | str, cert: Any) -> None:
        super().cert_verify(conn, url, verify, cert)
        if verify is True:
            # Use the system's authorities, as all clients here do, not those that requests brings.
            conn.ca_certs = None

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # a SOCKS proxy needs connections of its own
            manager.pool_classes_by_scheme = self._pools
        return manager


def _read(response: Any) -> None:
    """Read the whole body of a response, as requests would do next, up to a limit.

    :raises BackendException: the body is longer
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
    """Return the absolute URL of a redirect's target.

    :raises BackendException: the target is not on the same host with the same scheme and port; a
        redirect from http to https on that host is allowed, whatever the port
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
    """Return a session that ignores the environment's proxies, .netrc and CA files.

    :param verify: ``True`` to verify certificates against the system's authorities, a file of
        authorities, or ``False``
    :param timeout: seconds to wait for a connection, and for a byte of a response
    :param auth: keystoneauth's plugin for a login
    :param check_address: checks addresses before and after connecting; ``None`` allows all
    """
    session = Session(auth=auth, verify=verify, timeout=timeout)
    session.session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(check_address))
    return session
