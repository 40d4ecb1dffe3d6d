"""A small HTTP/1.1 server on loopback that answers as a test's script says, faults included.

::

    with ScriptedServer() as server:
        server.reply(Reply(body=b"abc"), Reply(status=404))   # the first two requests, in order
        server.handler = lambda request: serve(request, data)  # all others
        ...                                                    # use f"{server.url}/path"
        assert server.requests[0].headers["range"] == "bytes=0-9"

It is made of raw sockets and threads, so that it can also do what a web server never would: cut a
body with FIN or RST, stall, and lie about its length.  Connections are kept alive between
requests unless a reply or the client says otherwise.  Nothing sleeps; ``close`` ends everything.
"""

import contextlib
import dataclasses
import http.client
import queue
import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO, Literal, Self

#: Seconds for which an interim answer is all there is, unless the client goes on.
_MOMENT = 0.05


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    #: As it stood in the request line: ``/path?query``, a whole URL to a proxy, ``host:port`` of
    #: a CONNECT.
    target: str
    #: By lower-case name; of a repeated header the last one.
    headers: dict[str, str]
    body: bytes
    #: Which of the server's connections it came on, counted from 1.
    connection: int


@dataclasses.dataclass
class Reply:
    """What to send back."""

    status: int = 200
    body: bytes = b""
    #: Sent besides Content-Length or Transfer-Encoding; naming one of those here replaces it.
    #: A value of ``None`` leaves the header out.
    headers: dict[str, str | None] = dataclasses.field(default_factory=dict)
    #: Send the body in chunks of this many bytes, in place of a Content-Length.
    chunked: int | None = None
    #: Send only this many bytes of the body, then do as ``then``.  A chunked one is cut between
    #: two chunks; to cut within one, use ``raw``.
    cut: int | None = None
    #: Statuses of interim answers that are sent first.  The reply then waits until the client does
    #: something, which is wrong, and for a moment at most.
    interim: Sequence[int] = ()
    #: Sent right behind the reply, which has no room for it.
    surplus: bytes = b""
    #: What follows the reply, or the cut: the next request, an orderly end, a reset, or nothing at
    #: all until the client or the server closes.
    then: Literal["keep", "fin", "rst", "stall", "drip"] = "keep"
    #: For "drip": what is sent again and again, a moment between, until the client closes.
    drop: bytes = b"x"
    #: Sent verbatim in place of all of the above but ``then``.
    raw: bytes | None = None
    #: Answers a CONNECT: from here on, bytes go to and fro between the client and its target.
    tunnel: bool = False


class ScriptedServer:
    """The server; listens from the start, on a port that the system chooses.

    :param handler: answers the requests for which no :meth:`reply` waits; 404 when left out
    :param tls: speak TLS with this server-side context
    :param name: the host name in :attr:`url`; it must lead to 127.0.0.1
    """

    def __init__(
        self,
        handler: Callable[[Request], Reply] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        name: str = "127.0.0.1",
    ) -> None:
        self.handler = handler
        #: What ``Expect: 100-continue`` is answered with before the body is read.
        self.expectation = b"HTTP/1.1 100 Continue\r\n\r\n"
        #: Asked about requests with that header: a reply is sent without the body being read.
        self.refusal: Callable[[Request], Reply | None] = lambda request: None
        #: All requests so far, in order of arrival.
        self.requests: list[Request] = []
        #: Connections accepted so far.
        self.connections = 0
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._tls = tls
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{name}:{self.port}"
        self._start(self._accept)

    def reply(self, *replies: Reply) -> None:
        """Queue answers, one for each request to come."""
        for reply in replies:
            self._replies.put(reply)

    def close(self) -> None:
        """End all connections and threads."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            # Else what is sent in two pieces waits 40 ms for the client's acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._start(self._serve, sock, self.connections)

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            with self._lock:
                self._open.add(sock)
            # Looked at only now: close() reaches no socket that is not in the set yet.
            if self._closing.is_set():
                return
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            with sock.makefile("rb") as stream:
                while (request := _read_head(stream, number)) is not None:
                    refusal = None
                    if request.headers.get("expect", "").lower() == "100-continue":
                        refusal = self.refusal(request)
                        sock.sendall(b"" if refusal else self.expectation)
                    if refusal is None:
                        request = dataclasses.replace(request, body=_read_body(stream, request))
                    self.requests.append(request)
                    if not self._answer(sock, request, refusal):
                        return
        except (OSError, ValueError):
            pass  # the client went away, or spoke no HTTP or TLS
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _answer(self, sock: socket.socket, request: Request, reply: Reply | None) -> bool:
        """Send the reply, the next one where none is given; return whether the connection stays."""
        if reply is None:
            try:
                reply = self._replies.get_nowait()
            except queue.Empty:
                reply = self.handler(request) if self.handler else Reply(status=404)
        if reply.tunnel:
            self._relay(sock, request.target)
            return False
        for status in reply.interim:
            sock.sendall(b"HTTP/1.1 %d Not Yet\r\nLink: </style.css>\r\n\r\n" % status)
        if reply.interim:
            select.select([sock], [], [], _MOMENT)
        if reply.raw is not None:
            sock.sendall(reply.raw)
        else:
            payload = b"" if request.method == "HEAD" else _payload(reply)
            if reply.surplus:
                payload = _head(reply) + payload + reply.surplus  # in one packet
            else:
                sock.sendall(_head(reply))
            sock.sendall(payload)
        if reply.then == "rst":
            # Closing with no time to linger sends a reset.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif reply.then == "drip":
            while not select.select([sock], [], [], _MOMENT / 5)[0]:
                sock.sendall(reply.drop)
        elif reply.then == "stall":
            # Nothing comes, or the client's end: either way it is over.
            with contextlib.suppress(OSError):
                sock.recv(1)
        return reply.then == "keep" and request.headers.get("connection", "").lower() != "close"

    def _relay(self, sock: socket.socket, target: str) -> None:
        host, _, port = target.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as other:
            with self._lock:
                self._open.add(other)
            try:
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                ends = {sock: other, other: sock}
                while True:
                    for ready in select.select(list(ends), [], [])[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        ends[ready].sendall(data)
            finally:
                with self._lock:
                    self._open.discard(other)


def _read_head(stream: BinaryIO, number: int) -> Request | None:
    """Read one request up to its body; ``None`` at the end of the connection."""
    line = stream.readline().decode("latin-1").split()
    if not line:
        return None
    method, target, _ = line
    fields = http.client.parse_headers(stream)
    headers = {name.lower(): value for name, value in fields.items()}
    return Request(method, target, headers, b"", number)


def _read_body(stream: BinaryIO, request: Request) -> bytes:
    body = b""
    if request.headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(stream.readline().partition(b";")[0], 16):
            body += stream.read(size)
            stream.readline()
        while stream.readline().strip():
            pass  # trailers
    elif "content-length" in request.headers:
        body = stream.read(int(request.headers["content-length"]))
    return body


def read_request(stream: BinaryIO) -> Request | None:
    """Read one request; ``None`` at the end of the connection."""
    request = _read_head(stream, 1)
    return request and dataclasses.replace(request, body=_read_body(stream, request))


def whole_answer(request: Request, reply: Reply) -> bytes:
    """Return what is sent for a reply that has nothing wrong with it."""
    if reply.raw is not None:
        return reply.raw
    return _head(reply) + (b"" if request.method == "HEAD" else _payload(reply))


def _head(reply: Reply) -> bytes:
    headers: dict[str, str | None] = {}
    if reply.chunked is not None:
        headers["Transfer-Encoding"] = "chunked"
    elif reply.status not in (204, 304):
        headers["Content-Length"] = str(len(reply.body))
    for name, value in reply.headers.items():
        headers.pop(name.title(), None)
        headers[name] = value
    reason = http.client.responses.get(reply.status, "Unknown")
    lines = [f"HTTP/1.1 {reply.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def _payload(reply: Reply) -> bytes:
    body = reply.body[: reply.cut]
    if reply.chunked is None:
        return body
    pieces = [body[at : at + reply.chunked] for at in range(0, len(body), reply.chunked)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return coded if reply.cut is not None else coded + b"0\r\n\r\n"


def serve(
    request: Request,
    data: bytes,
    *,
    tag: str | None = '"v1"',
    headers: dict[str, str | None] | None = None,
    ranges: bool = True,
) -> Reply:
    """Answer a GET or HEAD for an object made of ``data`` as a good web server does.

    Honours one range and If-Range; an offset at the end or past it gets 416.
    :param tag: its ETag
    :param headers: further headers, of every answer
    :param ranges: ``False`` for a server that knows no ranges
    """
    sent: dict[str, str | None] = {"ETag": tag, **(headers or {})}
    wanted = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", request.headers.get("range", ""))
    if_range = request.headers.get("if-range")
    if if_range is not None and if_range not in (tag, sent.get("Last-Modified")):
        wanted = None
    if wanted is None or not ranges or request.method != "GET":
        return Reply(body=data, headers=sent)
    start = int(wanted[1])
    end = min(int(wanted[2] or len(data)), len(data) - 1)
    if start >= len(data):
        return Reply(416, headers={"Content-Range": f"bytes */{len(data)}"})
    sent["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Reply(206, data[start : end + 1], sent)


def script(replies: Sequence[Callable[[Request], Reply]]) -> Callable[[Request], Reply]:
    """Return a handler that uses each of ``replies`` once, and the last one ever after."""
    waiting = list(replies)

    def handler(request: Request) -> Reply:
        return (waiting.pop(0) if len(waiting) > 1 else waiting[0])(request)

    return handler
