"""The client of the data server, which transfers files by HTTP, beside the API."""

from collections.abc import Mapping

from urllib3.response import BaseHTTPResponse

from store_lib.clients.http import HttpClient
from store_lib.clients.response_headers import content_length, last_modified
from store_lib.driver import Body, Stat
from store_lib.drivers.vmware.client import Session
from store_lib.drivers.vmware.errors import data_error, not_authenticated
from store_lib.drivers.vmware.location import VmwareLocation
from store_lib.exceptions import NotFound, StoreError


class Folder:
    """Sends one store's requests to the data server, with a login that this accepts.

    A vCenter Server accepts the session's cookie.  If a server refuses the cookie although the
    session is alive, all further requests get a service ticket.
    """

    def __init__(self, client: HttpClient, session: Session) -> None:
        self._client = client
        self._session = session
        self.server = session.server
        self._needs_tickets = False

    def stat(self, target: str) -> Stat | None:
        """Return the size and time of a file; ``None`` if the file does not exist."""
        response = self.send("HEAD", target)
        try:
            if response.status == 200:
                stat = Stat(content_length(response), last_modified(response))
                self._client.read(response, self.server.base)  # empty; releases the connection
                return stat
            error = self.error_for_response(response, "Reading the size of", target)
        finally:
            response.close()
        if isinstance(error, NotFound):
            return None
        raise error

    def put(self, target: str, body: Body) -> None:
        """Store ``body`` in a file; an existing file is overwritten.

        :raises StorageFull: the datastore has no space for the file
        """
        response = self.send("PUT", target, {"Content-Type": "application/octet-stream"}, body)
        try:
            if response.status not in (200, 201, 204):
                raise self.error_for_response(response, "Storing", target)
            self._client.read(response, self.server.base)
        finally:
            response.close()

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> BaseHTTPResponse:
        """Send a request with an accepted login; return a response of any other status than 401.

        :raises NotAuthenticated: no login is accepted; temporary if another attempt may succeed
        """
        request = _Request(method, target, headers or {}, body)
        response = self._send(request, self._login(request))
        if response.status != 401:
            return response
        response.close()
        if not request.rewind():
            raise not_authenticated(self.server)
        # This call begins a new session if the current one has ended.
        before = self._session.cookie
        ticket = self._session.ticket(method, target)
        if self._session.cookie != before:
            response = self._send(request, self._session.cookie)
            if response.status != 401 or not request.rewind():
                return response
            response.close()
        response = self._send(request, ticket)
        self._needs_tickets = self._needs_tickets or response.status != 401
        return response

    def error_for_response(self, response: BaseHTTPResponse, doing: str, target: str) -> StoreError:
        """Return the error for a response."""
        path = target.partition("?")[0].removeprefix("/folder/")
        return data_error(response, doing, path, self.server)

    def _login(self, request: "_Request") -> str:
        if self._needs_tickets:
            return self._session.ticket(request.method, request.target)
        return self._session.cookie

    def _send(self, request: "_Request", login: str) -> BaseHTTPResponse:
        return self._client.open(
            request.method,
            self.server.base + request.target,
            {**request.headers, "Cookie": login},
            request.body,
            fresh=request.body is not None and not request.body.rewindable,
        )


class _Request:
    """A request that can be sent again with a new session cookie or ticket."""

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], body: Body | None
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body

    def rewind(self) -> bool:
        """Rewind the body for another attempt; return ``False`` if that is impossible."""
        if self.body is None:
            return True
        if self.body.rewindable:
            self.body.seek(0)
        return self.body.rewindable


class FolderFile:
    """A file on the data server, see :class:`store_lib.clients.ranges.RemoteObject`."""

    def __init__(self, folder: Folder, location: VmwareLocation) -> None:
        self._folder = folder
        self._target = location.target
        self.display_name = location.uri
        self.server = folder.server

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET with an accepted login."""
        return self._folder.send("GET", self._target, headers)

    def error_for_response(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error for a response without the object."""
        return self._folder.error_for_response(response, "Reading", self._target)
