"""A server that spoils one of its answers, behind connections that are made within the process.

Each connection of a driver is one end of a pair of sockets.  Once a request has been sent, it is
answered from the other end by a function, in the same thread: thousands of operations a second.
"""

import contextlib
import gc
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from store_lib.clients import _urllib3
from tests.scripted_server import Reply, Request, read_request, whole_answer
from tests.unit.fuzz.mutation import Mutator

#: Ways to spoil an answer.
KINDS = ("cut", "cut", "status", "fields", "bytes", "body", "body", "none at all")
#: Requests after which an operation gets no answer any more, and those that it may make in all.
_PATIENCE, _MOST = 200, 1500

_STATUSES = [
    *(100, 101, 103, 200, 201, 202, 204, 206, 299, 300, 301, 304, 307, 308, 400, 401, 403, 404),
    *(408, 409, 410, 411, 412, 413, 416, 418, 425, 429, 451, 498, 500, 501, 503, 507, 599, 999, 0),
]
_PIECES = [
    *("\r\n\r\n", "\r\n", "\n", "0\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
    *("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    *("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Content-Encoding: gzip\r\n"),
    *("Location: http://elsewhere.example/\r\n", "Connection: close\r\n", ": ", "ffffffff\r\n"),
    *("Retry-After: 99999999\r\n", "ETag: x\r\n", "Last-Modified: now\r\n", "<", ">", "</", "&#0;"),
]


class _PlainPool(_urllib3.Pool):
    """Stands for a pool of TLS connections; within a process nothing is encrypted."""

    def __init__(self, *args: Any, ssl_context: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Server:
    """Answers requests, one of them badly.

    :param answer: returns what a good server says
    """

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self.plan(0, "", 0)

    def plan(self, number: int, kind: str, seed: int) -> None:
        """Begin an operation: the answer to its request ``number``, from 0 on, is spoiled."""
        self.requests = 0
        self.broken: Exception | None = None
        self._number, self._kind, self.seed = number, kind, seed

    def check(self) -> None:
        """See that the operation came to an end by itself."""
        assert self.broken is None, f"the test's own server: {self.broken!r}"
        assert self.requests < _MOST, f"{self.requests} requests"

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Lead every connection of the library here; see that nothing is left afterwards."""
        getresponse = _urllib3.ConnectionMixin.getresponse

        def connect(connection: Any) -> socket.socket:
            ours, connection.other_end = socket.socketpair()
            self._ends.add(connection.other_end)
            connection.other_end.settimeout(5)
            ours.settimeout(5)
            return ours

        def answered(connection: Any) -> Any:
            self._serve(connection.other_end)
            return getresponse(connection)

        threads, files = threading.active_count(), _open_files()
        with (
            mock.patch.object(_urllib3.ConnectionMixin, "_new_conn", connect),
            mock.patch.object(_urllib3.ConnectionMixin, "getresponse", answered),
            mock.patch.dict(_urllib3.POOLS, {"https": _PlainPool}),
            mock.patch("time.sleep", return_value=None),
        ):
            yield
        for each in self._ends:
            each.close()
        gc.collect()
        assert threading.active_count() <= threads
        assert _open_files() <= files, "sockets are left"

    def _serve(self, end: socket.socket) -> None:
        try:
            with end.makefile("rb") as stream:
                request = read_request(stream)
        except (OSError, ValueError):
            request = None
        if request is None:
            self._close(end)
            return
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
            try:
                raw = whole_answer(request, self.answer(request))
            except Exception as error:
                self.broken = error
                raw = b""
        spoiled = number == self._number and self._kind
        if number > _PATIENCE:
            raw = b""
        elif spoiled:
            raw = _spoiled(raw, self._kind, Mutator(self.seed))
        with contextlib.suppress(OSError):
            end.sendall(raw)
        if spoiled or not raw:
            self._close(end)

    def _close(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        self._ends.discard(end)
        end.close()


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _spoiled(raw: bytes, kind: str, mutator: Mutator) -> bytes:
    head, _, body = raw.partition(b"\r\n\r\n")
    if kind == "cut":
        return raw[: mutator.below(len(raw))]
    if kind == "none at all":
        return b""
    if kind == "status":
        return re.sub(rb" [0-9]+", b" %d" % mutator.one(_STATUSES), raw, count=1)
    if kind == "bytes":
        return mutator.data([raw], _PIECES)
    if kind == "fields":
        lines = head.split(b"\r\n")
        at = mutator.below(len(lines))
        if mutator.below(4):
            lines[at] = mutator.data([lines[at]], _PIECES)
        else:
            del lines[at]
        return b"\r\n".join([*lines, b"", body])
    # The body, with a length that is right.
    try:
        json.loads(body)
    except ValueError:
        body = mutator.data([body], _PIECES)
    else:
        body = mutator.json([body.decode()])
    head = re.sub(rb"Content-Length: [0-9]+", b"Content-Length: %d" % len(body), head)
    return head + b"\r\n\r\n" + body
