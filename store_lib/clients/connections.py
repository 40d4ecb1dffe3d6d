"""urllib3's connections and pools: final answers only, and no secrets in their logs."""

import base64
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse

from store_lib.clients._urllib3 import Bounded, BoundedPool
from store_lib.clients.addresses import AddressCheck
from store_lib.redaction import HIDDEN

#: Servers whose connections are kept, and idle connections kept for each.
SERVERS = 32
CONNECTIONS = 16

#: Seconds within which a server is to close after a request that was broken off.
_FAREWELL = 3.0

#: Linux has it: what is written waits for a full packet, whatever pieces it comes in.
_CORK = getattr(socket, "TCP_CORK", None)


class Chunks:
    """A body whose length is not known: each piece is sent as a chunk, as it lies in memory.

    For a request with ``Transfer-Encoding: chunked``.  urllib3 by itself makes a copy of each chunk
    with its frame.
    """

    def __init__(self, pieces: Iterable[memoryview]) -> None:
        self._pieces = pieces

    def sent_by(self, send: Callable[[Any], None]) -> Iterator[bytes]:
        """Send all of it while it is iterated over; yields nothing to be sent."""
        ended = b""
        for piece in self._pieces:
            if len(piece):  # an empty one would end the body
                send(b"%b%x\r\n" % (ended, len(piece)))
                send(piece)
                ended = b"\r\n"
        send(ended)
        yield from ()


class _Connection(Bounded, HTTPConnection):
    """A connection that is made only to addresses that are admitted.

    :param check_address: ``None`` admits all; also behind a proxy, where the peer is the proxy
    :param send_timeout: seconds for which the server may take no byte of a request; without it
        the time for making a connection counts for the first request, which may be a large one
    :param full_packets: a TLS record, which is 16 KiB at most, is no packet of its own, and does
        not wake the other side each
    """

    #: The request target to send in place of the one in ``putrequest``, which has no query.
    target: str | None = None
    #: The socket, even where http.client has let go of it.
    wire: socket.socket | None = None

    def __init__(
        self,
        *args: Any,
        check_address: AddressCheck | None = None,
        send_timeout: float | None = None,
        full_packets: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._full_packets = full_packets
        self.check_address = check_address
        self._send_timeout = send_timeout

    def connect(self) -> None:
        """Connect, and shake hands where TLS is spoken."""
        super().connect()
        self.wire = self.sock
        if self._send_timeout is not None:
            self.sock.settimeout(self._send_timeout)

    def drop(self) -> None:
        """Close the socket for good, as the file of an answer whose head is no good stays open."""
        if self.wire is not None:
            with contextlib.suppress(OSError):
                os.close(self.wire.detach())

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request; where its body raises, nothing of it is at work any more afterwards."""
        body = kwargs.get("body")
        if isinstance(body, Chunks):
            kwargs["body"] = body.sent_by(self.send)
        self._cork(body is not None)
        try:
            super().request(*args, **kwargs)
        except OSError:
            raise  # of the connection, which is gone
        except BaseException:
            self._end_early()
            raise
        self._cork(False)

    def _cork(self, corked: bool) -> None:
        """Hold back what does not fill a packet, or let it go."""
        if self._full_packets and _CORK is not None and self.wire is not None:
            with contextlib.suppress(OSError):  # it was cut, which the next read or write tells
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
        """Begin a request; sends the target that the pool has kept back from the logs."""
        super().putrequest(method, self.target or url, skip_host, skip_accept_encoding)

    def send(self, data: Any) -> None:
        """Send a piece of a request."""
        try:
            super().send(data)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            # What a closed connection is without TLS.  urllib3 then reads the answer: a server
            # that refuses a large body says so and does not wait for its end.
            raise BrokenPipeError(str(error)) from error


class TlsConnection(_Connection, HTTPSConnection):
    """Such a connection by TLS."""


class Pool(BoundedPool, HTTPConnectionPool):
    """A pool whose debug lines and errors do not show the query, which may be a credential."""

    ConnectionCls = _Connection

    def _make_request(
        self, conn: Any, method: str, url: str, *args: Any, **kwargs: Any
    ) -> BaseHTTPResponse:
        conn.target = url
        path, mark, _ = url.partition("?")
        shown = path + (f"?{HIDDEN}" if mark else "")
        try:
            response: Any = super()._make_request(conn, method, shown, *args, **kwargs)
        except BaseException:
            conn.drop()
            raise
        response.sent_secrets = sent_secrets(url, kwargs.get("headers") or {})
        return response  # type: ignore[no-any-return]


#: Header fields of requests whose values are secrets.
_SECRET_FIELDS = frozenset(
    {
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-auth-key",
        "x-auth-token",
        "x-subject-token",
    }
)


def sent_secrets(target: str, headers: Mapping[str, str | bytes]) -> list[str]:
    """Return what of a request no message may show: logins, tokens, and the query's values."""
    found = []
    for name, value in headers.items():
        if name.lower() in _SECRET_FIELDS:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            found += [text, *text.split(maxsplit=1)[1:], text.partition("=")[2].strip('"')]
            if text.startswith("Basic "):
                with contextlib.suppress(ValueError):
                    login = base64.b64decode(text[6:]).decode("latin-1")
                    found += [login, login.partition(":")[2]]
    query = target.partition("?")[2]
    found += [query, *(each.partition("=")[2] for each in query.split("&"))]
    return [each for each in found if each]


class _TlsPool(Pool, HTTPSConnectionPool):
    ConnectionCls = TlsConnection

    def _validate_conn(self, conn: Any) -> None:
        # As in urllib3, but for a warning at each request made without verification: the driver
        # says so once.
        if conn.is_closed:
            conn.connect()


#: The pools that every manager of a driver is to use, by scheme.
POOLS: dict[str, type[HTTPConnectionPool]] = {"http": Pool, "https": _TlsPool}


class DirectManager(urllib3.PoolManager):
    """Connections to servers that are talked to without a proxy.

    :param context: returns the TLS context; called when there is a server to talk TLS with, since
        reading the system's authorities takes longer than many a request
    :param check_address: which addresses may be connected to; ``None`` for all
    :param send_timeout: seconds for which a server may take no byte of a request
    :param full_packets: bodies are sent in packets as full as the network takes them
    """

    def __init__(
        self,
        *,
        context: Callable[[], ssl.SSLContext],
        check_address: AddressCheck | None = None,
        send_timeout: float | None = None,
        full_packets: bool = False,
    ) -> None:
        super().__init__(SERVERS, maxsize=CONNECTIONS)
        self._context = context
        self.pool_classes_by_scheme = POOLS
        self._extra = {
            "check_address": check_address,
            "send_timeout": send_timeout,
            "full_packets": full_packets,
        }

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        if scheme == "https":
            known = self.connection_pool_kw if request_context is None else request_context
            request_context = {**known, "ssl_context": self._context()}
        pool = super()._new_pool(scheme, host, port, request_context)
        pool.conn_kw.update(self._extra)
        return pool


def close_manager(manager: urllib3.PoolManager) -> None:
    """Close a manager's idle connections."""
    for key in manager.pools.keys():  # noqa: SIM118 - it cannot be iterated
        pool = manager.pools.get(key)
        if pool is not None:
            pool.close()
    manager.clear()


def abort_response(response: BaseHTTPResponse) -> None:
    """Close an answer; wakes a thread that waits for its bytes.

    Where it was read whole, its connection has gone back to the pool already.
    """
    connection = response.connection
    wire = getattr(connection, "wire", None)
    if wire is not None:
        # Not by the TLS socket's own method: another thread may be inside it.
        with contextlib.suppress(OSError):  # closed, or cut by the other side
            socket.socket.shutdown(wire, socket.SHUT_RDWR)
    response.close()
