"""Safe variants of urllib3's connections and pools, for the clients of this package.

Connections enforce the time limit for heads, connect only to allowed addresses, return final
responses only, and send bodies without copying them.  Pools keep secrets out of urllib3's logs.
"""

import base64
import contextlib
import math
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout
from urllib3.util.connection import allowed_gai_family, create_connection

from store_lib.clients._responses import Response, head_due
from store_lib.clients.addresses import AddressCheck
from store_lib.exceptions import Forbidden
from store_lib.head_limit import HeadLimit, head_limit
from store_lib.redaction import HIDDEN, is_secret_header

#: The number of servers whose connections are kept, and of idle connections kept per server.
_SERVERS, _CONNECTIONS = 32, 16

#: Seconds to wait for a server to close the connection after a request was broken off.
_FAREWELL = 3.0

#: Linux's option to send full packets only.  Without it, each TLS record (16 KiB at most) would be
#: sent in a packet of its own and wake the other side.
_CORK = getattr(socket, "TCP_CORK", None)

if TYPE_CHECKING:
    _Base = HTTPConnection
    _PoolBase = HTTPConnectionPool
else:
    _Base = _PoolBase = object


class ConnectionMixin(_Base):
    """Mixin for connections: enforces the limit for heads, checks addresses, reads strictly."""

    response_class: Any = Response
    #: Called with each address before and after connecting; ``None`` allows all.
    check_address: AddressCheck | None = None
    #: The limit for heads of the current request, and the deadline of its response's head.
    limit = HeadLimit()
    due = math.inf
    _has_no_body = True

    def begin(self) -> None:
        """Start the clock of a request, before the connection is made."""
        self.limit = head_limit()
        self.due = min(self.limit.until, time.monotonic() + self.limit.seconds)

    def putrequest(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Send the first line of a request."""
        self._has_no_body = method in ("GET", "HEAD")
        super().putrequest(method, *args, **kwargs)

    def getresponse(self) -> Any:
        """Read the head of the response, and return the response."""
        due = self.due
        if not self._has_no_body:
            # Sending the body took time, and the server may need time to process it: it may take
            # as long as it may be silent.
            timeout = Timeout.resolve_default_timeout(self.timeout)
            seconds = max(self.limit.seconds, math.inf if timeout is None else timeout)
            due = min(self.limit.until, time.monotonic() + seconds)
        token = head_due.set(due)
        try:
            return super().getresponse()
        finally:
            head_due.reset(token)

    def _new_conn(self) -> socket.socket:
        """Look the host's name up once, and connect to one of its allowed addresses.

        The connect timeout is shared by all addresses.
        """
        host = self._dns_host.strip("[]")
        try:
            infos = socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:
            raise NewConnectionError(self, f"{self.host!r} is not a host name.") from error
        timeout = Timeout.resolve_default_timeout(self.timeout)
        end = min(self.due, math.inf if timeout is None else time.monotonic() + timeout)
        failure: Exception | None = None
        for address in dict.fromkeys(str(info[4][0]) for info in infos):
            try:
                sock = self._connect_to(address, end)
            except (Forbidden, OSError) as error:
                failure = error
                continue
            sock.settimeout(timeout)
            return sock
        if isinstance(failure, Forbidden):
            raise failure
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from failure
        raise NewConnectionError(self, f"No connection to {self.host}: {failure}") from failure

    def _connect_to(self, address: str, end: float) -> socket.socket:
        if self.check_address is not None:
            self.check_address(self.host, address)
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        sock = create_connection(
            (address, self.port),
            None if left == math.inf else left,
            source_address=self.source_address,
            socket_options=self.socket_options,
        )
        if self.check_address is not None:
            try:
                # Linux connects 0.0.0.0 to this machine: the peer's real address is checked too.
                self.check_address(self.host, str(sock.getpeername()[0]))
            except BaseException:
                sock.close()
                raise
        return sock


class PoolMixin(_PoolBase):
    """Mixin for pools of such connections: starts the clock of each request."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        connection.begin()
        return connection


class Chunks:
    """A body of unknown length, for a request with ``Transfer-Encoding: chunked``.

    The pieces are sent without a copy, which urllib3 would make.
    """

    def __init__(self, pieces: Iterable[memoryview]) -> None:
        self.pieces = pieces


class _Connection(ConnectionMixin, HTTPConnection):
    """A connection that sends :class:`Chunks`, and the query that the pool keeps out of logs.

    :param check_address: must be ``None`` for a connection through a proxy, whose peer is the proxy
    :param send_timeout: seconds for which the server may accept no byte of a request; without this,
        the connect timeout applies to the first request, which may have a large body
    """

    #: The request target with its query, sent instead of the one that ``putrequest`` is given.
    target: str | None = None
    #: The socket; stays set when http.client has dropped its reference.
    wire: socket.socket | None = None
    #: The body to send right after the head.
    _chunks: Chunks | None = None

    def __init__(
        self,
        *args: Any,
        check_address: AddressCheck | None = None,
        send_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.check_address = check_address
        self._send_timeout = send_timeout

    def connect(self) -> None:
        """Connect, and perform the TLS handshake if the connection uses TLS."""
        super().connect()
        self.wire = self.sock
        if self._send_timeout is not None:
            self.sock.settimeout(self._send_timeout)

    def drop(self) -> None:
        """Close the descriptor itself, which the file of a response with a bad head keeps open."""
        if self.wire is not None:
            with contextlib.suppress(OSError):
                os.close(self.wire.detach())

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request.

        If its body raises, end the request and wait briefly for the server to close as well.
        """
        body = kwargs.get("body")
        if isinstance(body, Chunks):
            self._chunks, kwargs["body"] = body, None
        self._cork(body is not None)
        try:
            super().request(*args, **kwargs)
        except OSError:
            raise  # the connection is broken
        except BaseException:
            self._end_early()
            raise
        finally:
            self._chunks = None
        self._cork(False)

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """Send the head and the chunks of the body; urllib3 sends the closing chunk."""
        super().endheaders(*args, **kwargs)
        if self._chunks is not None:
            for piece in self._chunks.pieces:
                if len(piece):  # an empty chunk would end the body
                    self.send(b"%x\r\n" % len(piece))
                    self.send(piece)
                    self.send(b"\r\n")

    def _cork(self, corked: bool) -> None:
        """Hold back data that does not fill a packet, or send it."""
        if _CORK is not None and self.wire is not None:
            with contextlib.suppress(OSError):  # a broken connection; the next read or write raises
                socket.socket.setsockopt(self.wire, socket.IPPROTO_TCP, _CORK, corked)

    def _end_early(self) -> None:
        """End the request early, and wait briefly for the server to close as well.

        Otherwise the server could process data of this request after the driver's clean-up.
        """
        deadline = time.monotonic() + _FAREWELL
        if self.wire is not None:
            with contextlib.suppress(OSError):
                # Below TLS, which cannot be shut down in one direction only.
                socket.socket.shutdown(self.wire, socket.SHUT_WR)
                self.wire.settimeout(_FAREWELL)
                while time.monotonic() < deadline and socket.socket.recv(self.wire, 65536):
                    pass

    def putrequest(
        self,
        method: str,
        url: str,
        skip_host: bool = False,
        skip_accept_encoding: bool = False,
    ) -> None:
        """Send the first line of a request, with the query that the pool keeps out of logs."""
        super().putrequest(method, self.target or url, skip_host, skip_accept_encoding)

    def send(self, data: Any) -> None:
        """Send a piece of a request."""
        try:
            super().send(data)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            # The server has closed the connection.  On a broken pipe (which is what this raises
            # without TLS) urllib3 reads the response: a server may refuse a body before its end.
            raise BrokenPipeError(str(error)) from error


class TlsConnection(_Connection, HTTPSConnection):
    """A :class:`_Connection` with TLS."""


class Pool(PoolMixin, HTTPConnectionPool):
    """A pool whose debug lines and errors omit the query, which may be a credential."""

    ConnectionCls = _Connection

    def _make_request(
        self, conn: Any, method: str, url: str, *args: Any, **kwargs: Any
    ) -> BaseHTTPResponse:
        conn.target = url
        path, mark, _ = url.partition("?")
        try:
            response: Any = super()._make_request(
                conn, method, path + (f"?{HIDDEN}" if mark else ""), *args, **kwargs
            )
        except BaseException:
            conn.drop()
            raise
        response.sent_secrets = sent_secrets(url, kwargs.get("headers") or {})
        return response  # type: ignore[no-any-return]


class _TlsPool(Pool, HTTPSConnectionPool):
    ConnectionCls = TlsConnection

    def _validate_conn(self, conn: Any) -> None:
        # As in urllib3, but without its warning for every unverified request: the driver warns
        # once.
        if conn.is_closed:
            conn.connect()


#: The pool classes of every manager in this module, by scheme.
POOLS: dict[str, type[HTTPConnectionPool]] = {"http": Pool, "https": _TlsPool}


def sent_secrets(target: str, headers: Mapping[str, str | bytes]) -> list[str]:
    """Return a request's secrets, which no message may show: logins, tokens, query values."""
    secrets = []
    for name, value in headers.items():
        if is_secret_header(name):
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            secrets += [text, *text.split(maxsplit=1)[1:], text.partition("=")[2].strip('"')]
            if text.startswith("Basic "):
                with contextlib.suppress(ValueError):
                    login = base64.b64decode(text[6:]).decode("latin-1")
                    secrets += [login, login.partition(":")[2]]
    query = target.partition("?")[2]
    secrets += [query, *(field.partition("=")[2] for field in query.split("&"))]
    return [secret for secret in secrets if secret]


class DirectManager(urllib3.PoolManager):
    """Connections to servers that are reached without a proxy.

    :param context: returns the TLS context; called only for a server with TLS, as loading the
        system's authorities takes longer than many a request
    :param check_address: called with each address before and after connecting; ``None`` allows all
    :param send_timeout: seconds for which a server may accept no byte of a request
    """

    def __init__(
        self,
        *,
        context: Callable[[], ssl.SSLContext],
        check_address: AddressCheck | None = None,
        send_timeout: float | None = None,
    ) -> None:
        super().__init__(_SERVERS, maxsize=_CONNECTIONS)
        self._context = context
        self.pool_classes_by_scheme = POOLS
        self._extra = {"check_address": check_address, "send_timeout": send_timeout}

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        if scheme == "https":
            known = self.connection_pool_kw if request_context is None else request_context
            request_context = {**known, "ssl_context": self._context()}
        pool = super()._new_pool(scheme, host, port, request_context)
        pool.conn_kw.update(self._extra)
        return pool


def proxy_manager(
    url: str, headers: Mapping[str, str], context: ssl.SSLContext
) -> urllib3.ProxyManager:
    """Return a manager of connections to servers that are reached through a proxy.

    :param url: the proxy's URL, without credentials
    :param headers: sent to the proxy only
    :param context: the TLS context for the servers, and for the proxy itself if it uses TLS
    """
    manager = urllib3.ProxyManager(
        url,
        _SERVERS,
        proxy_headers=headers,
        proxy_ssl_context=context,
        maxsize=_CONNECTIONS,
        ssl_context=context,
    )
    manager.pool_classes_by_scheme = POOLS
    return manager


def close_manager(manager: urllib3.PoolManager) -> None:
    """Close a manager's idle connections."""
    for key in manager.pools.keys():  # noqa: SIM118 - the container is not iterable
        pool = manager.pools.get(key)
        if pool is not None:
            pool.close()
    manager.clear()


def abort_response(response: BaseHTTPResponse) -> None:
    """Close a response and wake any thread that waits for its bytes.

    A response that was read to its end has already returned its connection to the pool.
    """
    wire = getattr(response.connection, "wire", None)
    if wire is not None:
        # Not by the TLS socket's own method, which another thread may be executing.
        with contextlib.suppress(OSError):  # closed, or broken by the other side
            socket.socket.shutdown(wire, socket.SHUT_RDWR)
    response.close()
