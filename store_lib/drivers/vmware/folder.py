"""The data server beside the API: files are sent to it and fetched from it by plain HTTP."""

from collections.abc import Mapping

from urllib3.response import BaseHTTPResponse

from store_lib.clients._urllib3 import Chunks
from store_lib.clients.response_headers import content_length, last_modified
from store_lib.driver import Body, Stat
from store_lib.drivers.vmware.errors import data_error, not_authenticated
from store_lib.drivers.vmware.session import Session
from store_lib.drivers.vmware.wire import Wire
from store_lib.exceptions import NotFound, StoreError


class Folder:
    """Makes the requests for data of one store, with what the server takes for a login.

    A vCenter Server takes the session's cookie.  Where it is refused although the session is
    alive, a service ticket is taken for each request, from then on at once.
    """

    def __init__(self, wire: Wire, session: Session) -> None:
        self._wire = wire
        self._session = session
        self._tickets = False

    def stat(self, target: str) -> Stat | None:
        """Return size and time of a file, or ``None`` where there is none."""
        response = self.send("HEAD", target)
        try:
            if response.status == 200:
                found = Stat(content_length(response), last_modified(response))
                self._wire.read(response)  # nothing: gives the connection back
                return found
            error = self.error(response, "the size of", target)
        finally:
            response.close()
        if isinstance(error, NotFound):
            return None
        raise error

    def put(self, target: str, body: Body) -> None:
        """Store a file from ``body``, over one that is there.

        :raises StorageFull: the datastore has no room for it
        """
        headers = {"Content-Type": "application/octet-stream"}
        if body.size is not None:
            headers["Content-Length"] = str(body.size)
        else:
            headers["Transfer-Encoding"] = "chunked"
        response = self.send("PUT", target, headers, body)
        try:
            if response.status not in (200, 201, 204):
                raise self.error(response, "to store", target)
            self._wire.read(response)
        finally:
            response.close()

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> BaseHTTPResponse:
        """Send a request with a login that is good; the answer may have any other status.

        :raises NotAuthenticated: none is; temporary where only another attempt can tell
        """
        given = dict(headers or {})
        response = self._try(method, target, given, body, self._tickets)
        if response.status != 401:
            return response
        response.close()
        if body is not None and not _rewound(body):
            raise not_authenticated(self._wire.server)
        # A session that has ended is begun anew by this very call.
        before = self._session.cookie
        ticket = self._session.ticket(method, target)
        if self._session.cookie != before:
            response = self._try(method, target, given, body, False)
            if response.status != 401 or (body is not None and not _rewound(body)):
                return response
            response.close()
        response = self._send(method, target, given, body, ticket)
        self._tickets = self._tickets or response.status != 401
        return response

    def error(self, response: BaseHTTPResponse, doing: str, target: str) -> StoreError:
        """Return the error that an answer means."""
        path = target.partition("?")[0].removeprefix("/folder/")
        return data_error(response, f"{doing} {path}", self._wire.server)

    def _try(
        self, method: str, target: str, headers: dict[str, str], body: Body | None, ticket: bool
    ) -> BaseHTTPResponse:
        login = self._session.ticket(method, target) if ticket else self._session.cookie
        return self._send(method, target, headers, body, login)

    def _send(
        self, method: str, target: str, headers: dict[str, str], body: Body | None, login: str
    ) -> BaseHTTPResponse:
        sent = {**headers, "Cookie": login}
        if body is None:
            return self._wire.send(method, target, sent)
        views = body.views()
        sized = views if body.size is not None else Chunks(views)
        return self._wire.send(method, target, sent, sized, fresh=not body.rewindable)


def _rewound(body: Body) -> bool:
    if body.rewindable:
        body.seek(0)
    return body.rewindable
