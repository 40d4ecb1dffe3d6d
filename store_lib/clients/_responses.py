"""A strict HTTP response class, used below urllib3, botocore and requests.

All three read responses through :mod:`http.client`.  That module takes any interim response but
``100 Continue`` for the final one, and accepts a truncated head.  Bytes that a server sends after a
response are read as the next response.  The time limit applies to each read, not to a whole head.
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
from typing import Any

from urllib3.util import wait_for_read

#: The largest number of interim responses before a final one.
_INTERIM = 16
#: The largest number of bytes in a line of a head.
_LINE = 65536
#: The largest number of header fields of an interim response, and of trailers of a chunked body.
_FIELDS = 100
#: The largest number of bytes in the line before a chunk.
_CHUNK_LINE = 4096
#: The largest number of bytes in a body that is read whole, such as a listing, and the number of
#: bytes that are read at once.
_WHOLE, _PIECE = 256 * 1024 * 1024, 1024 * 1024

_BAD_HEADS = (MissingHeaderBodySeparatorDefect, FirstHeaderLineIsContinuationDefect)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}[ \t]*(?:;|\r?\n\Z)")

#: The deadline of the head that this thread is reading, by the monotonic clock.
head_due: contextvars.ContextVar[float] = contextvars.ContextVar(
    "store_lib_head_due", default=math.inf
)


class HeadTimeout(TimeoutError):
    """The response to a request did not begin within the limit for heads."""


class BadResponse(http.client.HTTPException):
    """A response that violates HTTP; the text says how."""


class Response(http.client.HTTPResponse):
    """A final response with a complete head.

    The head and all interim responses before it must together arrive within the socket's time
    limit.  The connection is reused only if no bytes follow the response.
    """

    def __init__(
        self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._request_method = method
        self._sock: Any = sock
        self._stream: Any = self.fp
        #: The status line of a final response that came instead of ``100 Continue``.
        self._early: tuple[str, int, str] | None = None

    def begin(self, *args: Any, **kwargs: Any) -> None:
        """Read the head of the final response."""
        early = self._early is not None
        with self._head() as lines:
            super().begin(*args, **kwargs)
        if not lines.last:
            raise _cut()
        if any(isinstance(defect, _BAD_HEADS) for defect in self.msg.defects):
            # http.client ignores all that follows such a line.
            raise BadResponse("its head has a line that is no header field")
        self._strip_values()
        self._determine_length()
        if early:
            self.will_close = True  # the server may wait for the body that was not sent

    def continues(self, seconds: float) -> bool:
        """Wait for the response to ``Expect: 100-continue``; return whether to send the body.

        :param seconds: how long to wait; the body is sent if the server has sent nothing by then
        :returns: ``False`` if the server has sent its final status, which is kept for :meth:`begin`
        """
        deadline = time.monotonic() + seconds
        for _ in range(_INTERIM):
            if not self._wait(deadline):
                return True
            with self._head():
                status = self._next_status()
                if status[1] >= 200:
                    self._early = status
                    return False
                self._skip(status)
            if status[1] == http.client.CONTINUE:
                return True
        raise _too_many()

    def _read_status(self) -> tuple[str, int, str]:
        status, self._early = self._early, None
        if status is not None:
            return status
        for _ in range(_INTERIM + 1):
            status = self._next_status()
            if status[1] >= 200:
                return status
            self._skip(status)
        raise _too_many()

    def _next_status(self) -> tuple[str, int, str]:
        status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return status

    def _skip(self, status: tuple[str, int, str]) -> None:
        """Read past the rest of an interim response."""
        if status[1] == http.client.SWITCHING_PROTOCOLS:
            raise BadResponse("it switched protocols (101), which was not requested")
        for _ in range(_FIELDS + 1):
            line = self.fp.readline(_LINE + 1)
            if not line:
                raise _cut()
            if len(line) > _LINE:
                break
            if line in (b"\r\n", b"\n"):
                return
        raise BadResponse("it sent an interim response with too many or too long header fields")

    def _strip_values(self) -> None:
        """Remove trailing whitespace from the values of header fields."""
        fields = self.headers.items()
        if any(value.endswith((" ", "\t")) for _, value in fields):
            for name, _ in fields:
                del self.headers[name]
            for name, value in fields:
                self.headers[name] = value.strip(" \t")

    def _determine_length(self) -> None:
        """Determine the body's length; http.client would accept contradictory lengths."""
        codings = ",".join(self.headers.get_all("Transfer-Encoding", ()))
        lengths = ",".join(self.headers.get_all("Content-Length", ()))
        values = {value.strip() for value in lengths.split(",")}
        good = len(values) == 1 and all(re.fullmatch("[0-9]{1,19}", value) for value in values)
        if codings:
            self.chunked = codings.strip().lower() == "chunked"
            self.chunk_left = None
        if self._request_method == "HEAD" or self.status in (204, 304):
            self.length = 0
        else:
            self.length = int(values.pop()) if good and not codings else None
        if (codings and (lengths or not self.chunked)) or (lengths and not good):
            self.will_close = True  # a proxy may take another byte for the body's last one

    def read(self, amt: int | None = None) -> bytes:
        """Return up to ``amt`` bytes of the body, or all of it.

        The whole body is read in pieces, as http.client would allocate all that the server
        announces before a byte has arrived.
        """
        if amt is not None:
            return super().read(amt)
        parts, got = [], 0
        while piece := super().read(_PIECE):
            parts.append(piece)
            got += len(piece)
            if got > _WHOLE:
                raise BadResponse(f"its body has more than {_WHOLE} bytes")
        body = b"".join(parts)
        if self.length:
            raise http.client.IncompleteRead(body, self.length)
        return body

    def _read_next_chunk_size(self) -> int:
        with self._head() as lines:
            line = lines.readline(_CHUNK_LINE + 1)
        # int() accepts a sign and underscores too.
        if len(line) > _CHUNK_LINE or not _CHUNK_SIZE.match(line):
            self._close_conn()
            raise ValueError("not a chunk size")
        return int(re.split(rb"[;\s]", line, maxsplit=1)[0], 16)

    def _read_and_discard_trailer(self) -> None:
        with self._head() as lines:
            for _ in range(_FIELDS + 1):
                line = lines.readline(_LINE + 1)
                if line in (b"\r\n", b"\n", b""):
                    return  # some servers omit the empty line
                if len(line) > _LINE:
                    break
        raise BadResponse("it sent too many or too long trailers")

    def close(self) -> None:
        """Close the response, which another thread may be reading."""
        if self.length != 0:
            self._sock = None  # the connection is closed too, as the body has not ended
        super().close()

    def _close_conn(self) -> None:
        """Release the connection at the end of the response; shut it down if more bytes followed.

        The pool checks the socket before it uses a connection again, but cannot see bytes that
        were already read into the buffer.
        """
        sock, self._sock = self._sock, None
        if sock is not None and self._has_bytes(sock):
            with contextlib.suppress(OSError):
                # Shut down below TLS rather than closed: another thread may be reading, and the
                # pool notices a socket that was shut down.
                socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)
        super()._close_conn()  # type: ignore[misc]

    def _has_bytes(self, sock: Any) -> bool | None:
        """Return whether data can be read at once; ``None`` if TLS has only part of a record."""
        timeout = sock.gettimeout()
        try:
            sock.settimeout(0)
            return bool(self._stream.peek(1))
        except ssl.SSLWantReadError:
            return None
        except (OSError, ValueError):
            return False  # closed or broken
        finally:
            with contextlib.suppress(OSError):
                sock.settimeout(timeout)

    def _wait(self, deadline: float) -> bool:
        """Wait for bytes or the connection's end; return ``False`` if neither came in time."""
        while self._has_bytes(self._sock) is not True:
            left = max(0.0, deadline - time.monotonic())
            if not wait_for_read(self._sock, left):
                return False
            if self._has_bytes(self._sock) is not None:
                break  # bytes, or the connection's end
        return True

    @contextlib.contextmanager
    def _head(self) -> Iterator["_Lines"]:
        """Return a context manager whose lines must all arrive within one socket time limit."""
        stream, sock, timeout = self.fp, self._sock, self._sock.gettimeout()
        lines: Any = _Lines(self._stream, sock)
        self.fp = lines
        try:
            yield lines
        finally:
            if self.fp is lines:
                self.fp = stream
            with contextlib.suppress(OSError):
                sock.settimeout(timeout)


class _Lines:
    """Reads the lines of a head, and remembers the last one."""

    def __init__(self, stream: io.BufferedReader, sock: Any) -> None:
        self.last = b""
        self._stream = stream
        self._sock = sock
        timeout, due = sock.gettimeout(), head_due.get()
        self._deadline = min(due, math.inf if timeout is None else time.monotonic() + timeout)
        self._timeout_error = HeadTimeout if self._deadline == due else TimeoutError

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
                raise self._timeout_error("timed out")
            self._sock.settimeout(left)
        try:
            return self._stream.peek(1)
        except TimeoutError as error:
            raise self._timeout_error("timed out") from error

    def close(self) -> None:
        self._stream.close()


def _cut() -> http.client.RemoteDisconnected:
    return http.client.RemoteDisconnected("The connection ended within the head.")


def _too_many() -> BadResponse:
    return BadResponse(f"it sent more than {_INTERIM} interim responses")
