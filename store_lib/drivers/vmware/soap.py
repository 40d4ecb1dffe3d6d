"""oslo.vmware's client of the vSphere API, on our own connections; imported at configure time.

oslo.vmware's own transport waits without a limit for the API's description, takes proxies and
authorities from the environment, and raises errors of another library.  Its session
(``oslo_vmware.api``) repeats a login without a limit when the server cannot be verified, sleeps ten
seconds when a session has ended, and imports eventlet.  So only its lower layer is used: calls,
faults and objects.
"""

import contextlib
import functools
import http.cookies
import io
import logging
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from oslo_vmware import service, vim, vim_util
from suds.cache import NoCache
from suds.client import Client
from suds.transport import Request, Transport
from urllib3.response import BaseHTTPResponse

from store_lib.clients.http import HttpClient, HttpResponse
from store_lib.clients.network_errors import BUSY
from store_lib.clients.process import PerProcess
from store_lib.clients.response_headers import parse_http_date, retry_after
from store_lib.exceptions import BackendException, RemoteServiceUnavailable, StoreError
from store_lib.redaction import Secret

_COOKIE = "vmware_soap_session"


def _no_messages(record: logging.LogRecord) -> bool:
    """Return ``False`` for a record of a whole message, with its password or session key."""
    return record.levelno > logging.DEBUG


for _name in ("suds.client", "suds.metrics", "suds.mx.core", "suds.mx.literal"):
    logging.getLogger(_name).addFilter(_no_messages)


class _State:
    """The state of one process's session."""

    def __init__(self) -> None:
        #: The session's cookie as the server sent it; ``None`` without a session.
        self.cookie: str | None = None
        #: The server's time minus this machine's monotonic clock, in seconds, at the last response
        #: with a Date; ``None`` before such a response.
        self.clock: float | None = None


class SoapTransport:
    """Sends calls with the cookie of this process's session, and stores the cookie of a response.

    :param base: the server's URL: scheme, host and port
    """

    def __init__(self, client: HttpClient, base: str) -> None:
        self._client = client
        self.base = base
        #: The URL of the API.
        self.url = f"{base}/sdk"
        self._state = PerProcess(_State)

    def fetch_description(self, url: str) -> bytes:
        """Return a file of the API's description.

        :param url: the URL of a local file, or of one on the server
        """
        parts = urlsplit(url)
        if parts.scheme == "file":
            return Path(unquote(parts.path)).read_bytes()
        if not url.startswith(f"{self.base}/"):
            raise BackendException(
                f"The API's description refers to {parts.scheme}://{parts.netloc}, which is not "
                "requested: only the configured server is. Give a whole one in "
                "vmware_wsdl_location."
            )
        response = self._client.fetch("GET", f"{self.base}{parts.path}")
        if response.status != 200:
            raise _refused(
                response,
                f"Expected the API's description at {url}, got status {response.status}. "
                "Check vmware_server_host, or give the description in vmware_wsdl_location.",
            )
        return response.body

    def post(self, envelope: bytes, action: str) -> HttpResponse:
        """Send a call; the status of the response is 200, or 500 with a fault in the body."""
        state = self._state.get()
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": action}
        if state.cookie is not None:
            headers["Cookie"] = self.cookie
        response = self._client.fetch("POST", self.url, headers, envelope)
        state.cookie = _session_cookie(response) or state.cookie
        date = parse_http_date(response.headers.get("Date"))
        if date is not None:
            state.clock = date - time.monotonic()
        if response.status not in (200, 500):
            raise _refused(
                response, f"{self.base} answered {response.status} to a call of the API."
            )
        return response

    @property
    def cookie(self) -> Secret:
        """The Cookie header of this process's session; empty without a session."""
        cookie = self._state.get().cookie
        return Secret("" if cookie is None else f"{_COOKIE}={cookie}")

    @property
    def session_key(self) -> str:
        """The value of the session's cookie, which no message may show."""
        return self._state.get().cookie or ""

    @property
    def now(self) -> float:
        """The server's time in seconds since the epoch; this machine's before a response."""
        clock = self._state.get().clock
        return time.time() if clock is None else time.monotonic() + clock

    def forget_session(self) -> None:
        """Send no cookie with the next call."""
        self._state.get().cookie = None


class _Descriptions(Transport):  # type: ignore[misc]
    """The transport through which suds reads the API's description.  It sends no calls."""

    def __init__(self, transport: SoapTransport) -> None:
        super().__init__()
        self._transport = transport

    def open(self, request: Request) -> io.BytesIO:
        """Return a file of the description."""
        return io.BytesIO(self._transport.fetch_description(request.url))


class Api(vim.Vim):  # type: ignore[misc]
    """The API: its operations are methods, whose first argument is the managed object.

    An API holds no connection and no session, so that a child may use the one that it inherited.

    :param wsdl: a file with the API's description; ``None`` to fetch it from the server
    """

    def __init__(self, transport: SoapTransport, wsdl: str | None) -> None:
        # The base's __init__ is not called, as it would create its own transport and client.
        self.soap_url = transport.url
        self.wsdl_url = wsdl or f"{self.soap_url}/vimService.wsdl"
        self.op_id_prefix = "store_lib"
        self._service_content = None
        self._vc_session_cookie = None
        self.client = _SudsClient(
            transport,
            Client(
                self.wsdl_url,
                transport=_Descriptions(transport),
                location=self.soap_url,
                plugins=[service.ServiceMessagePlugin()],
                cache=NoCache(),
                nosend=True,
            ),
        )

    def make(self, kind: str, **values: Any) -> Any:
        """Return a new data object of the API with the given fields."""
        data_object = self.client.factory.create(f"ns0:{kind}")
        for name, value in values.items():
            setattr(data_object, name, value)
        return data_object

    def properties(self, kind: str, objects: list[Any], names: list[str]) -> dict[str, Any]:
        """Return properties of several objects of one kind.

        :returns: a mapping from each object's :meth:`key` to a dict of its properties that are set
        """
        properties: dict[str, Any] = {}
        page = vim_util.get_properties_for_a_collection_of_objects(self, kind, objects, names)
        while page is not None:  # a server may send the objects in several pages
            for content in getattr(page, "objects", ()):
                properties[self.key(content.obj)] = {
                    item.name: item.val for item in getattr(content, "propSet", ())
                }
            page = vim_util.continue_retrieval(self, page)
        return properties

    @staticmethod
    def key(reference: Any) -> str:
        """Return the id of an object of the API, which is unique among objects of its kind."""
        return str(vim_util.get_moref_value(reference))


class _SudsClient:
    """A thread-safe replacement for those parts of a suds client that oslo.vmware uses.

    suds builds requests and parses replies in objects that all threads share.  So a lock lets one
    thread at a time do this; a thread that waits for the server does not hold the lock.
    """

    def __init__(self, transport: SoapTransport, suds: Client) -> None:
        self._transport = transport
        self._suds = suds
        self._suds_lock = PerProcess(threading.Lock)
        self._options = threading.local()
        # oslo.vmware reads attributes of these two objects.
        self.service = self
        self.factory = self

    def set_options(self, **options: Any) -> None:
        """Set options for this thread's next call, such as its header with an operation id."""
        self._options.next = options

    def create(self, name: str) -> Any:
        """Return an empty data object."""
        with self._suds_lock.get():
            return self._suds.factory.create(name)

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, name)

    def _call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        with self._suds_lock.get():
            self._suds.set_options(**getattr(self._options, "next", {}))
            method = getattr(self._suds.service, operation)
            request = method(*args, **kwargs)
        response = self._transport.post(request.envelope, method.method.soap.action)
        with self._suds_lock.get():
            return request.process_reply(response.body, response.status, "fault")


def _session_cookie(response: HttpResponse | BaseHTTPResponse) -> Secret | None:
    for line in response.headers.getlist("Set-Cookie"):
        try:
            cookies = http.cookies.SimpleCookie(line)
        except http.cookies.CookieError:
            continue
        if _COOKIE in cookies and cookies[_COOKIE].value:
            return Secret(cookies[_COOKIE].coded_value)
    return None


def _refused(response: HttpResponse, text: str) -> StoreError:
    if response.status in BUSY:
        return RemoteServiceUnavailable(text, retry_after=retry_after(response.headers))
    return BackendException(text)


def wsdl_url(location: str) -> str:
    """Return the URL of a file given as a path or as a file URI.

    :raises ValueError: ``location`` is neither, or the file does not exist
    """
    text = location
    if "://" in location:
        url = urlsplit(location)
        if url.scheme != "file" or url.netloc not in ("", "localhost"):
            raise ValueError("vmware_wsdl_location: expected a path or a file URI")
        text = unquote(url.path)
    path = Path(text)
    with contextlib.suppress(OSError):  # the name may be too long
        if path.is_file():
            return path.resolve().as_uri()
    raise ValueError(f"vmware_wsdl_location: expected a file, got {text}")
