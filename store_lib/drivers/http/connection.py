"""urllib3's connections and pools, with the address check and without secrets in their logs."""

import contextlib
import http.client
import io
import os
import socket
import ssl
from collections.abc import Mapping
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.response import BaseHTTPResponse
from urllib3.util.connection import create_connection

from store_lib.drivers.http.addresses import AddressRules
from store_lib.drivers.http.location import HttpLocation
from store_lib.exceptions import BadStoreUri, Forbidden
from store_lib.redaction import HIDDEN

#: Servers whose connections are kept, and idle connections kept for each.
_SERVERS = 32
_CONNECTIONS = 16


class _Lines:
    """A stream of which the last line read is remembered."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.stream = stream
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.stream.readline(limit)
        return self.last

    def close(self) -> None:
        self.stream.close()


class _Response(http.client.HTTPResponse):
    """An answer whose head is whole.

    http.client takes the head of a cut connection for a short one, and leaves out all that
    follows a malformed line.  Without its Content-Length a cut object would look complete.
    """

    def begin(self) -> None:
        """Read the head."""
        stream: Any = self.fp
        lines: Any = _Lines(stream)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = stream
        if not lines.last:
            raise http.client.RemoteDisconnected("The connection ended within the head.")
        if any(isinstance(defect, _BAD_HEADS) for defect in self.msg.defects):
            raise http.client.HTTPException("The head has a line that is no header.")


_BAD_HEADS = (MissingHeaderBodySeparatorDefect, FirstHeaderLineIsContinuationDefect)


class _Connection(HTTPConnection):
    """A connection that is made only to addresses that the rules admit.

    :param rules: ``None`` behind a proxy, where the peer is the proxy
    """

    response_class = _Response
    #: The request target to send in place of the one in ``putrequest``, which has no query.
    target: str | None = None
    #: The socket, even where http.client has let go of it.
    wire: socket.socket | None = None

    def __init__(self, *args: Any, rules: AddressRules | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rules = rules

    def connect(self) -> None:
        """Connect, and shake hands where TLS is spoken."""
        super().connect()
        self.wire = self.sock

    def drop(self) -> None:
        """Close the socket for good, as the file of an answer whose head is no good stays open."""
        if self.wire is not None:
            with contextlib.suppress(OSError):
                os.close(self.wire.detach())

    def _new_conn(self) -> socket.socket:
        return self._connect_checked() if self._rules else super()._new_conn()

    def _connect_checked(self) -> socket.socket:
        """Look the name up once, and connect to an address that the rules admit."""
        assert self._rules is not None
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        trouble: Exception | None = None
        for address in dict.fromkeys(str(info[4][0]) for info in found):
            try:
                self._rules.check_address(self.host, address)
                sock = create_connection(
                    (address, self.port),
                    self.timeout,
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except (Forbidden, OSError) as error:
                trouble = error
                continue
            try:
                # Linux takes 0.0.0.0 for itself: what counts is who is at the other end.
                self._rules.check_address(self.host, str(sock.getpeername()[0]))
            except BaseException:
                sock.close()
                raise
            return sock
        if isinstance(trouble, Forbidden):
            raise trouble
        if isinstance(trouble, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from trouble
        raise NewConnectionError(self, f"No connection to {self.host}: {trouble}") from trouble

    def putrequest(
        self,
        method: str,
        url: str,
        skip_host: bool = False,
        skip_accept_encoding: bool = False,
    ) -> None:
        """Begin a request; sends the target that the pool has kept back from the logs."""
        super().putrequest(method, self.target or url, skip_host, skip_accept_encoding)


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    """A pool whose debug lines and errors do not show the query, which may be a credential."""

    ConnectionCls = _Connection

    def _make_request(
        self, conn: Any, method: str, url: str, *args: Any, **kwargs: Any
    ) -> BaseHTTPResponse:
        conn.target = url
        path, mark, _ = url.partition("?")
        shown = path + (f"?{HIDDEN}" if mark else "")
        try:
            return super()._make_request(conn, method, shown, *args, **kwargs)
        except BaseException:
            conn.drop()
            raise


class _TlsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection

    def _validate_conn(self, conn: Any) -> None:
        # As in urllib3, but for a warning at each request made without verification: the driver
        # says so once.
        if conn.is_closed:
            conn.connect()


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TlsPool}


class _DirectManager(urllib3.PoolManager):
    rules: AddressRules

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, host, port, request_context)
        pool.conn_kw["rules"] = self.rules
        return pool


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


#: What stands for this process.  A child gets its own, so that it does not find, use or close
#: the connections that it inherited.
_process = object()


def _forked() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_forked)


class Connections:
    """The connections of one store, made for each process when it first needs them."""

    def __init__(
        self, rules: AddressRules, proxies: Mapping[str, Proxy], context: ssl.SSLContext
    ) -> None:
        self._rules = rules
        self._proxies = dict(proxies)
        self._context = context
        self._by_process: dict[object, dict[str, urllib3.PoolManager]] = {}

    def proxied(self, scheme: str) -> bool:
        """Whether requests of ``scheme`` go through a proxy."""
        return scheme in self._proxies

    def manager(self, scheme: str) -> urllib3.PoolManager:
        """Return what makes requests of ``scheme`` in this process."""
        managers = self._by_process.get(_process)
        if managers is None:
            # Without a lock, which a fork could leave locked: the first one in stays.
            managers = self._by_process.setdefault(_process, self._make())
        return managers[scheme]

    def close(self) -> None:
        """Close this process's idle connections."""
        for manager in set(self._by_process.pop(_process, {}).values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it cannot be iterated
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
            manager.clear()

    def _make(self) -> dict[str, urllib3.PoolManager]:
        direct = _DirectManager(_SERVERS, maxsize=_CONNECTIONS, ssl_context=self._context)
        direct.rules = self._rules
        managers: dict[str, urllib3.PoolManager] = {}
        for scheme in HttpLocation.schemes:
            managers[scheme] = direct
            if scheme in self._proxies:
                proxy = self._proxies[scheme]
                managers[scheme] = urllib3.ProxyManager(
                    proxy.url,
                    _SERVERS,
                    proxy_headers=proxy.headers,
                    proxy_ssl_context=self._context,
                    maxsize=_CONNECTIONS,
                    ssl_context=self._context,
                )
            managers[scheme].pool_classes_by_scheme = _POOLS
        return managers
