"""Requests to the one configured server: its time limits, its certificate, and nobody else."""

from collections.abc import Iterable, Mapping

from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from store_lib.clients._urllib3 import Chunks, DirectManager, close_manager
from store_lib.clients.hosts import join_host
from store_lib.clients.network_errors import OptionNames, Server, request_errors
from store_lib.clients.process import PerProcess
from store_lib.clients.tls import Tls
from store_lib.drivers.vmware.location import HTTPS


class Wire:
    """The connections to the server; each process makes its own.

    Nothing comes from the environment: no proxy, no authorities, no ``.netrc``.

    :param connect_timeout: seconds for a connection to be made
    :param read_timeout: seconds without a byte, of a request or of an answer
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: Tls,
        *,
        connect_timeout: float,
        read_timeout: float,
    ) -> None:
        base = f"https://{join_host(host, port, HTTPS)}"
        #: The server as messages speak of it.
        self.server = Server(
            base, OptionNames("vmware_ca_file", "vmware_connect_timeout", "vmware_read_timeout")
        )
        self._waits = connect_timeout, read_timeout
        self._timeout = Timeout(connect=connect_timeout, read=read_timeout)
        self._tls = tls
        self._managers = PerProcess(lambda: [self._manager(), self._manager()])

    def _manager(self) -> DirectManager:
        return DirectManager(context=lambda: self._tls.context, send_timeout=self._waits[1])

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[memoryview] | Chunks | None = None,
        *,
        fresh: bool = False,
    ) -> BaseHTTPResponse:
        """Send a request, once; the answer may have any status, and its body is not read yet.

        :param fresh: on a connection of its own: one that was kept may end just when it is used
            again, and a stream cannot be sent anew
        :raises RemoteServiceUnavailable: the server did not answer
        """
        sent = {"Accept-Encoding": "identity", "User-Agent": "store_lib", **headers}
        kept, single = self._managers.get()
        if fresh:
            sent["Connection"] = "close"
        with request_errors(self.server, body):
            return (single if fresh else kept).urlopen(
                method,
                self.server.base + target,
                body=body,
                headers=sent,
                redirect=False,
                retries=False,
                timeout=self._timeout,
                preload_content=False,
                decode_content=False,
            )

    def fetch(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[BaseHTTPResponse, bytes]:
        """Send a request, and read the whole answer.

        :raises RemoteServiceUnavailable: the server did not answer, or not to the end
        """
        response = self.send(method, target, headers, body)
        return response, self.read(response)

    def read(self, response: BaseHTTPResponse) -> bytes:
        """Read the rest of an answer, and let go of its connection.

        :raises RemoteServiceUnavailable: it was cut
        """
        try:
            with request_errors(self.server):
                return response.read(decode_content=False)
        finally:
            response.close()

    def hurry(self, seconds: float) -> None:
        """Wait no longer than this for a connection or a byte, from now on."""
        connect, read = self._waits
        self._timeout = Timeout(connect=min(connect, seconds), read=min(read, seconds))

    def close(self) -> None:
        """Close this process's idle connections."""
        for manager in self._managers.take() or ():
            close_manager(manager)
