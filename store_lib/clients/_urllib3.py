"""The answer below urllib3, botocore and requests: a final one, with a whole head, and no more.

All three read answers by :mod:`http.client`, which takes any interim answer but ``100 Continue``
for the final one, believes a head that was cut, leaves what a server sends beyond an answer to be
read as the next one, and waits as long for each byte as for all of them.
"""

import contextlib
import contextvars
import http.client
import io
import math
import re
import socket
import ssl
import time
from collections.abc import Iterator
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import Timeout, wait_for_read
from urllib3.util.connection import allowed_gai_family, create_connection

from store_lib.clients.addresses import AddressCheck
from store_lib.exceptions import Forbidden
from store_lib.head_limit import HeadLimit, head_limit

#: Interim answers that are skipped before one final answer.
_INTERIM = 16
#: Bytes of a line of a head.
_LINE = 65536
#: Header fields of an interim answer, and trailers of a body in chunks.
_FIELDS = 100
#: Bytes of the line before a chunk.
_CHUNK_LINE = 4096
#: Bytes of an answer that is read whole, such as a listing, and that are asked for at once.
_WHOLE, _PIECE = 256 * 1024 * 1024, 1024 * 1024

_BAD_HEADS = (MissingHeaderBodySeparatorDefect, FirstHeaderLineIsContinuationDefect)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}[ \t]*(?:;|\r?\n\Z)")

#: When the head that this thread reads is to be there, by the monotonic clock.
_due: contextvars.ContextVar[float] = contextvars.ContextVar("store_lib_head_due", default=math.inf)


class HeadTimeout(TimeoutError):
    """The answer to a request did not begin within the limit for heads."""


class BadAnswer(http.client.HTTPException):
    """An answer that breaks the rules of HTTP; the text says how."""


class Response(http.client.HTTPResponse):
    """A final answer whose head is whole; its connection is used again only if nothing follows it.

    The head and the interim answers before it are to come within the time limit that the socket
    has, all together.
    """

    def __init__(
        self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._asked = method
        self._sock: Any = sock
        self._stream: Any = self.fp
        #: The status line of a final answer that came instead of ``100 Continue``.
        self._early: tuple[str, int, str] | None = None

    def begin(self, *args: Any, **kwargs: Any) -> None:
        """Read the head of the final answer."""
        early = self._early is not None
        with self._head() as lines:
            super().begin(*args, **kwargs)
        if not lines.last:
            raise _cut()
        if any(isinstance(defect, _BAD_HEADS) for defect in self.msg.defects):
            # http.client leaves out all that follows such a line.
            raise BadAnswer("its head has a line that is no header field")
        self._strip()
        self._measure()
        if early:
            self.will_close = True  # the server may wait for the body that was not sent

    def continues(self, seconds: float) -> bool:
        """Wait for the answer to ``Expect: 100-continue``, and say whether to send the body.

        :param seconds: after which the body is sent although the server said nothing
        :returns: ``False`` where the server has given its final answer, which is then kept here
        """
        deadline = time.monotonic() + seconds
        for _ in range(_INTERIM):
            if not self._comes(deadline):
                return True
            with self._head():
                told = self._next_status()
                if told[1] >= 200:
                    self._early = told
                    return False
                self._skip(told)
            if told[1] == http.client.CONTINUE:
                return True
        raise _too_many()

    def _read_status(self) -> tuple[str, int, str]:
        told, self._early = self._early, None
        if told is not None:
            return told
        for _ in range(_INTERIM + 1):
            told = self._next_status()
            if told[1] >= 200:
                return told
            self._skip(told)
        raise _too_many()

    def _next_status(self) -> tuple[str, int, str]:
        told: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return told

    def _skip(self, told: tuple[str, int, str]) -> None:
        """Read past the rest of an interim answer."""
        if told[1] == http.client.SWITCHING_PROTOCOLS:
            raise BadAnswer("it switched protocols (101), which it was not asked for")
        for _ in range(_FIELDS + 1):
            line = self.fp.readline(_LINE + 1)
            if not line:
                raise _cut()
            if len(line) > _LINE:
                break
            if line in (b"\r\n", b"\n"):
                return
        raise BadAnswer("it gave an interim answer of too many or too long header fields")

    def _strip(self) -> None:
        """Take away the blanks behind values, which are no part of them."""
        fields = self.headers.items()
        if any(value.endswith((" ", "\t")) for _, value in fields):
            for name, _ in fields:
                del self.headers[name]
            for name, value in fields:
                self.headers[name] = value.strip(" \t")

    def _measure(self) -> None:
        """Decide how long the body is, where http.client is too easily content."""
        codings = ",".join(self.headers.get_all("Transfer-Encoding", ()))
        lengths = ",".join(self.headers.get_all("Content-Length", ()))
        values = {value.strip() for value in lengths.split(",")}
        good = len(values) == 1 and all(re.fullmatch("[0-9]{1,19}", each) for each in values)
        if codings:
            self.chunked = codings.strip().lower() == "chunked"
            self.chunk_left = None
        if self._asked == "HEAD" or self.status in (204, 304):
            self.length = 0
        else:
            self.length = int(values.pop()) if good and not codings else None
        if (codings and (lengths or not self.chunked)) or (lengths and not good):
            self.will_close = True  # two readers may see two ends

    def read(self, amt: int | None = None) -> bytes:
        """Return bytes of the body, all of it where ``amt`` is left out.

        http.client takes memory for as many as the server says there are, before any came.
        """
        if amt is not None:
            return super().read(amt)
        parts, got = [], 0
        while piece := super().read(_PIECE):
            parts.append(piece)
            got += len(piece)
            if got > _WHOLE:
                raise BadAnswer(f"its body has more than {_WHOLE} bytes")
        body = b"".join(parts)
        if self.length:
            raise http.client.IncompleteRead(body, self.length)
        return body

    def _read_next_chunk_size(self) -> int:
        with self._head() as lines:
            line = lines.readline(_CHUNK_LINE + 1)
        # int() would take a sign and underscores too.
        if len(line) > _CHUNK_LINE or not _CHUNK_SIZE.match(line):
            self._close_conn()
            raise ValueError("no size of a chunk")
        return int(re.split(rb"[;\s]", line, maxsplit=1)[0], 16)

    def _read_and_discard_trailer(self) -> None:
        with self._head() as lines:
            for _ in range(_FIELDS + 1):
                line = lines.readline(_LINE + 1)
                if line in (b"\r\n", b"\n", b""):
                    return  # some servers end without the empty line
                if len(line) > _LINE:
                    break
        raise BadAnswer("it gave trailers that are too many or too long")

    def close(self) -> None:
        """Close the answer, which another thread may be reading."""
        if self.length != 0:
            self._sock = None  # it has not ended, so its connection goes too
        super().close()

    def _close_conn(self) -> None:
        """Let go of the connection, where the answer ends; kill it if more is there.

        The pool looks at the socket before it uses a connection again, but cannot see what was
        read from the socket already.
        """
        sock, self._sock = self._sock, None
        if sock is not None and self._look(sock):
            with contextlib.suppress(OSError):
                # Below TLS, and not closed: the pool finds it so, and another may be reading it.
                socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)
        super()._close_conn()  # type: ignore[misc]

    def _look(self, sock: Any) -> bool | None:
        """Say whether bytes wait; ``None`` where TLS has read some, but none for us."""
        patience = sock.gettimeout()
        try:
            sock.settimeout(0)
            return bool(self._stream.peek(1))
        except ssl.SSLWantReadError:
            return None
        except (OSError, ValueError):
            return False  # closed, or cut
        finally:
            with contextlib.suppress(OSError):
                sock.settimeout(patience)

    def _comes(self, deadline: float) -> bool:
        """Wait until something of an answer comes, its end included."""
        while (found := self._look(self._sock)) is not True:
            left = max(0.0, deadline - time.monotonic())
            if not wait_for_read(self._sock, left):
                return False
            found = self._look(self._sock)
            if found is not None:
                break  # bytes, or the connection's end
        return True

    @contextlib.contextmanager
    def _head(self) -> Iterator["_Lines"]:
        """Read lines within the time limit of the socket, all together."""
        stream, sock, patience = self.fp, self._sock, self._sock.gettimeout()
        lines: Any = _Lines(self._stream, sock)
        self.fp = lines
        try:
            yield lines
        finally:
            if self.fp is lines:
                self.fp = stream
            with contextlib.suppress(OSError):
                sock.settimeout(patience)


class _Lines:
    """The lines of a head; the last one read is remembered."""

    def __init__(self, stream: io.BufferedReader, sock: Any) -> None:
        self.last = b""
        self._stream = stream
        self._sock = sock
        patience, due = sock.gettimeout(), _due.get()
        self._deadline = min(due, math.inf if patience is None else time.monotonic() + patience)
        self._late = HeadTimeout if self._deadline == due else TimeoutError

    def readline(self, limit: int) -> bytes:
        line = b""
        while len(line) < limit and not line.endswith(b"\n"):
            waiting = self._peek()[: limit - len(line)]
            if not waiting:
                break
            end = waiting.find(b"\n") + 1
            line += self._stream.read(end or len(waiting))
        self.last = line
        return line

    def _peek(self) -> bytes:
        if self._deadline < math.inf:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self._late("timed out")
            self._sock.settimeout(left)
        try:
            return self._stream.peek(1)
        except TimeoutError as error:
            raise self._late("timed out") from error

    def close(self) -> None:
        self._stream.close()


def _cut() -> http.client.RemoteDisconnected:
    return http.client.RemoteDisconnected("The connection ended within the head.")


def _too_many() -> BadAnswer:
    return BadAnswer(f"it gave more than {_INTERIM} interim answers")


if TYPE_CHECKING:
    _Base = HTTPConnection
    _PoolBase = HTTPConnectionPool
else:
    _Base = _PoolBase = object


class Bounded(_Base):
    """Mixed into a connection, makes it keep to the limit for heads and read answers rightly."""

    response_class: Any = Response
    #: Who says which addresses may be connected to; ``None`` admits all.
    check_address: AddressCheck | None = None
    #: The limit of the present request, and when the head of its answer is to be there.
    limit = HeadLimit()
    due = math.inf
    _reads = True

    def begin(self) -> None:
        """Begin a request, connecting included."""
        self.limit = head_limit()
        self.due = min(self.limit.until, time.monotonic() + self.limit.seconds)

    def putrequest(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Begin to send a request."""
        self._reads = method in ("GET", "HEAD")
        super().putrequest(method, *args, **kwargs)

    def getresponse(self) -> Any:
        """Return the answer, up to its head."""
        due = self.due
        if not self._reads:
            # The body took its time, and the server may rightly be at work: as long as it may be
            # silent.
            patience = Timeout.resolve_default_timeout(self.timeout)
            seconds = max(self.limit.seconds, math.inf if patience is None else patience)
            due = min(self.limit.until, time.monotonic() + seconds)
        token = _due.set(due)
        try:
            return super().getresponse()
        finally:
            _due.reset(token)

    def _new_conn(self) -> socket.socket:
        """Look the name up once, and connect to an address that is admitted.

        The time for a connection is for all addresses together.
        """
        host = self._dns_host.strip("[]")
        try:
            found = socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:
            raise NewConnectionError(self, f"{self.host!r} is no host name.") from error
        patience = Timeout.resolve_default_timeout(self.timeout)
        end = min(self.due, math.inf if patience is None else time.monotonic() + patience)
        trouble: Exception | None = None
        for address in dict.fromkeys(str(info[4][0]) for info in found):
            try:
                sock = self._connect_to(address, end)
            except (Forbidden, OSError) as error:
                trouble = error
                continue
            sock.settimeout(patience)
            return sock
        if isinstance(trouble, Forbidden):
            raise trouble
        if isinstance(trouble, TimeoutError):
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from trouble
        raise NewConnectionError(self, f"No connection to {self.host}: {trouble}") from trouble

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
                # Linux takes 0.0.0.0 for itself: what counts is who is at the other end.
                self.check_address(self.host, str(sock.getpeername()[0]))
            except BaseException:
                sock.close()
                raise
        return sock


class BoundedPool(_PoolBase):
    """Mixed into a pool of such connections, begins their requests."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        connection.begin()
        return connection
