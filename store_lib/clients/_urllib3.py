"""urllib3's connections and pools, made safe; for :mod:`store_lib.clients.http` and the like.

Connections keep to the limit for heads, connect only to addresses that are allowed, read final
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

#: Servers whose connections are kept, and idle connections kept for each.
_SERVERS, _CONNECTIONS = 32, 16

#: Seconds within which a server should close after a request that was broken off.
_FAREWELL = 3.0

#: Linux: what is written waits for a full packet.  A TLS record, which is 16 KiB at most, is then
#: no packet of its own, and does not wake the other side each time.
_CORK = getattr(socket, "TCP_CORK", None)

if TYPE_CHECKING:
    _Base = HTTPConnection
    _PoolBase = HTTPConnectionPool
else:
    _Base = _PoolBase = object


class ConnectionMixin(_Base):
    """Makes a connection keep to the limit for heads, check addresses and read responses."""

    response_class: Any = Response
    #: Called with each address before and after connecting; ``None`` allows all.
    check_address: AddressCheck | None = None
    #: The limit of the present request, and when the head of its response is due.
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
        """Return the response, read up to the end of its head."""
        due = self.due
        if not self._has_no_body:
            # Sending the body took its time, and the server may have work to do: it has as long as
            # it may be silent.
            timeout = Timeout.resolve_default_timeout(self.timeout)
            seconds = max(self.limit.seconds, math.inf if timeout is None else timeout)
            due = min(self.limit.until, time.monotonic() + seconds)
        token = head_due.set(due)
        try:
            return super().getresponse()
        finally:
            head_due.reset(token)

    def _new_conn(self) -> socket.socket:
        """Look the name up once, and connect to an address that is allowed.

        The time limit for a connection is for all addresses together.
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
                # Linux connects 0.0.0.0 to itself: what counts is who is at the other end.
                self.check_address(self.host, str(sock.getpeername()[0]))
            except BaseException:
                sock.close()
                raise
        return sock


class PoolMixin(_PoolBase):
    """Makes a pool of such connections start the clocks of their requests."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        connection.begin()
        return connection


class Chunks:
    """A body of unknown length, sent in chunks, each as it lies in memory; urllib3 copies them.

    For a request with ``Transfer-Encoding: chunked``.
    """

    def __init__(self, pieces: Iterable[memoryview]) -> None:
        self.pieces = pieces


class _Connection(ConnectionMixin, HTTPConnection):
    """A connection that sends :class:`Chunks` and the target that the pool keeps out of logs.

    :param check_address: not to be set behind a proxy, where the peer is the proxy
    :param send_timeout: seconds for which the server may take no byte of a request; without it
        the connection's time limit counts for the first request, which may be a large one
    """

    #: The request target to send in place of the one in ``putrequest``, which has no query.
    target: str | None = None
    #: The socket, even if http.client has dropped it.
    wire: socket.socket | None = None
    #: What is to be sent right behind the head.
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
        """Connect, with a TLS handshake if the connection has TLS."""
        super().connect()
        self.wire = self.sock
        if self._send_timeout is not None:
            self.sock.settimeout(self._send_timeout)

    def drop(self) -> None:
        """Close the socket for good: the file of a response with a bad head keeps it open."""
        if self.wire is not None:
            with contextlib.suppress(OSError):
                os.close(self.wire.detach())

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request; if its body raises, the server has seen the end of it on return."""
        body = kwargs.get("body")
        if isinstance(body, Chunks):
            self._chunks, kwargs["body"] = body, None
        self._cork(body is not None)
        try:
            super().request(*args, **kwargs)
        except OSError:
            raise  # of the connection, which is gone
        except BaseException:
            self._end_early()
            raise
        finally:
            self._chunks = None
        self._cork(False)

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """Send the head, and the chunks of a body of unknown length; urllib3 sends the last one."""
        super().endheaders(*args, **kwargs)
        if self._chunks is not None:
            for piece in self._chunks.pieces:
                if len(piece):  # an empty one would end the body
                    self.send(b"%x\r\n" % len(piece))
                    self.send(piece)
                    self.send(b"\r\n")

    def _cork(self, corked: bool) -> None:
        """Hold back what does not fill a packet, or release it."""
        if _CORK is not None and self.wire is not None:
            with contextlib.suppress(OSError):  # it was cut; the next read or write raises
                socket.socket.setsockopt(self.wire, socket.IPPROTO_TCP, _CORK, corked)

    def _end_early(self) -> None:
        """Let the server see the request's end, and wait until it has closed too.

        What the driver then does to clean up cannot be overtaken by what was sent before.
        """
        deadline = time.monotonic() + _FAREWELL
        if self.wire is not None:
            with contextlib.suppress(OSError):
                # Below TLS, which cannot end in one direction alone.
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
        """Send the first line of a request, with the target that the pool keeps out of logs."""
        super().putrequest(method, self.target or url, skip_host, skip_accept_encoding)

    def send(self, data: Any) -> None:
        """Send a piece of a request."""
        try:
            super().send(data)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            # A closed connection, which without TLS is a broken pipe.  urllib3 then reads the
            # response: a server that refuses a large body does not wait for its end.
            raise BrokenPipeError(str(error)) from error


class TlsConnection(_Connection, HTTPSConnection):
    """Such a connection with TLS."""


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
        # As in urllib3, but for a warning at each request made without verification: the driver
        # warns once.
        if conn.is_closed:
            conn.connect()


#: The pools of every manager here, by scheme.
POOLS: dict[str, type[HTTPConnectionPool]] = {"http": Pool, "https": _TlsPool}


def sent_secrets(target: str, headers: Mapping[str, str | bytes]) -> list[str]:
    """Return what no message may show of a request: logins, tokens, and the values of the query."""
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

    :param context: returns the TLS context; called when there is a server with TLS, since loading
        the system's authorities takes longer than many a request
    :param check_address: called with each address before and after connecting; ``None`` allows all
    :param send_timeout: seconds for which a server may take no byte of a request
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
    """Return the connections to servers that are reached through a proxy.

    :param url: the proxy's, without credentials
    :param headers: sent to the proxy alone
    :param context: for the servers, and for the proxy itself if it has TLS
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
    for key in manager.pools.keys():  # noqa: SIM118 - it cannot be iterated
        pool = manager.pools.get(key)
        if pool is not None:
            pool.close()
    manager.clear()


def abort_response(response: BaseHTTPResponse) -> None:
    """Close a response and wake any thread that waits for its bytes.

    One that was read to its end has already returned its connection to the pool.
    """
    wire = getattr(response.connection, "wire", None)
    if wire is not None:
        # Not by the TLS socket's own method: another thread may be inside it.
        with contextlib.suppress(OSError):  # closed, or cut by the other side
            socket.socket.shutdown(wire, socket.SHUT_RDWR)
    response.close()
