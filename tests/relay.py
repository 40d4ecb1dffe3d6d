"""A relay before a server that cuts its clients off once, in the middle of what they send."""

import contextlib
import socket
import struct
import threading
from typing import Self


class CuttingRelay:
    """Passes bytes on to a server; after so many from clients, resets that connection, once.

    :param port: the server's, on 127.0.0.1
    :param at: after how many bytes from all clients together
    """

    def __init__(self, port: int, at: int) -> None:
        self._port = port
        self._left = at
        self._lock = threading.Lock()
        self.cuts = 0
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                self._start(self._pass, client, server, True)
                self._start(self._pass, server, client, False)

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(8192):
                if counted and self._cuts_here(len(data)):
                    linger = struct.pack("ii", 1, 0)  # closing sends a reset then
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    break
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _cuts_here(self, number: int) -> bool:
        with self._lock:
            before, self._left = self._left, self._left - number
            cut = before > 0 >= self._left
            self.cuts += cut
            return cut

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()
