"""oslo.vmware's client of the vSphere API, on connections of ours; imported at configure time.

Its own transport waits for ever for the API's description, takes proxies and authorities from the
environment, and raises the errors of a library of its own.  Its session (``oslo_vmware.api``) logs
in without a limit when the server cannot be verified, sleeps ten seconds when a session has ended,
and brings eventlet along; so only the layer below is used: calls, faults and objects.
"""

import contextlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from oslo_vmware import exceptions, service, vim, vim_util
from suds.cache import NoCache
from suds.client import Client
from suds.transport import Reply, Request, Transport, TransportError
from urllib3.response import BaseHTTPResponse

from store_lib.clients.network_errors import BUSY
from store_lib.clients.response_headers import retry_after
from store_lib.drivers.vmware.wire import Wire
from store_lib.exceptions import BackendException, RemoteServiceUnavailable, StoreError

#: Where the API is on the server.
_PATH = "/sdk"

#: What calls of oslo.vmware raise: these two have no class in common above the library's own.
CallFailed: type[Exception] = exceptions.VMwareDriverException

#: Sends a call, given its body and headers, and returns the answer and its body.
Post = Callable[[bytes, dict[str, str]], tuple[BaseHTTPResponse, bytes]]


def _no_messages(record: logging.LogRecord) -> bool:
    """Keep out what shows whole messages: they hold the password and the session's key."""
    return record.levelno > logging.DEBUG


for _name in ("suds.client", "suds.metrics", "suds.mx.core", "suds.mx.literal"):
    logging.getLogger(_name).addFilter(_no_messages)


class _Transport(Transport):  # type: ignore[misc]
    """Gives the library what it reads and sends, within our time limits."""

    def __init__(self, wire: Wire, post: Post) -> None:
        super().__init__()
        self._wire = wire
        self._post = post

    def open(self, request: Request) -> io.BytesIO:
        """Read a file of the API's description."""
        url = urlsplit(request.url)
        if url.scheme == "file":
            return io.BytesIO(Path(unquote(url.path)).read_bytes())
        if not request.url.startswith(f"{self._wire.server.base}/"):
            raise BackendException(
                f"The API's description refers to {url.scheme}://{url.netloc}, which is not asked: "
                "only the configured server is. Give a whole one in vmware_wsdl_location."
            )
        response, text = self._wire.fetch("GET", url.path, {})
        if response.status != 200:
            raise _refused(
                response,
                f"Expected the API's description at {request.url}, got status {response.status}. "
                "Check vmware_server_host, or give the description in vmware_wsdl_location.",
            )
        return io.BytesIO(text)

    def send(self, request: Request) -> Reply:
        """Send a call."""
        headers = {_text(name): _text(value) for name, value in request.headers.items()}
        response, text = self._post(request.message, headers)
        status = response.status
        if status == 500:  # a fault, which stands in the body
            raise TransportError("fault", status, io.BytesIO(text))
        if status != 200:
            raise _refused(
                response, f"{self._wire.server.base} answered {status} to a call of the API."
            )
        return Reply(status, {}, text)


class Api(vim.Vim):  # type: ignore[misc]
    """The API: each of its operations is a method that takes the object it is called on.

    Holds no connection and no session, so that a child may use the one that it inherits.

    :param wsdl: a file with its description; ``None``: it is fetched from the server
    """

    def __init__(self, wire: Wire, post: Post, wsdl: str | None) -> None:
        # Not the base's, which makes the transport and the client itself.
        self.soap_url = wire.server.base + _PATH
        self.wsdl_url = wsdl or f"{self.soap_url}/vimService.wsdl"
        self.op_id_prefix = "store_lib"
        self._service_content = None
        self._vc_session_cookie = None
        self.client = Client(
            self.wsdl_url,
            transport=_Transport(wire, post),
            location=self.soap_url,
            plugins=[service.ServiceMessagePlugin()],
            cache=NoCache(),
        )

    def make(self, kind: str, **values: Any) -> Any:
        """Return a data object of the API, with these fields set."""
        made = self.client.factory.create(f"ns0:{kind}")
        for name, value in values.items():
            setattr(made, name, value)
        return made

    def properties(self, kind: str, objects: list[Any], names: list[str]) -> dict[str, Any]:
        """Return properties of several objects of one kind, in one call.

        A server that answers no more than so many objects at a time is asked on.

        :returns: by the objects' :meth:`key`, a dict of those properties that are set
        """
        told: dict[str, Any] = {}
        found = vim_util.get_properties_for_a_collection_of_objects(self, kind, objects, names)
        while found is not None:
            for each in getattr(found, "objects", ()):
                told[self.key(each.obj)] = {
                    one.name: one.val for one in getattr(each, "propSet", ())
                }
            found = vim_util.continue_retrieval(self, found)
        return told

    @staticmethod
    def key(reference: Any) -> str:
        """Return what tells an object of the API from others of its kind."""
        return str(vim_util.get_moref_value(reference))


def _refused(response: BaseHTTPResponse, text: str) -> StoreError:
    if response.status in BUSY:
        return RemoteServiceUnavailable(text, retry_after=retry_after(response.headers))
    return BackendException(text)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def wsdl_url(location: str) -> str:
    """Return the URL of a file given as a path or as a file URI.

    :raises ValueError: it is neither, or there is no such file
    """
    text = location
    if "://" in location:
        url = urlsplit(location)
        if url.scheme != "file" or url.netloc not in ("", "localhost"):
            raise ValueError("vmware_wsdl_location: expected a path or a file URI")
        text = unquote(url.path)
    path = Path(text)
    with contextlib.suppress(OSError):  # a name that is too long
        if path.is_file():
            return path.resolve().as_uri()
    raise ValueError(f"vmware_wsdl_location: expected a file, got {text}")
