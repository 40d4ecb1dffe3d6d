"""A login to the API for each process: begun when it is needed, renewed when it has ended."""

import atexit
import copy
import http.cookies
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from urllib3.response import BaseHTTPResponse

from store_lib.clients.library_calls import LibraryCall
from store_lib.clients.process import PerProcess
from store_lib.clients.response_headers import parse_http_date
from store_lib.display import get_logger
from store_lib.drivers.vmware.errors import fault_error, soap_error
from store_lib.drivers.vmware.wire import Wire
from store_lib.exceptions import NotAuthenticated, StoreError
from store_lib.redaction import Secret

if TYPE_CHECKING:
    from store_lib.drivers.vmware.soap import Api, Post

_LOG = get_logger(__name__)

T = TypeVar("T")

_COOKIE = "vmware_soap_session"

#: Seconds that the end of a process waits for the server.
_LAST = 5.0


class _Login:
    """What a process knows of its session."""

    def __init__(self) -> None:
        #: Held while somebody logs in or out.
        self.lock = threading.Lock()
        #: Held by whose turn it is to use suds, which mixes up replies that threads take apart
        #: at once; let go of while a reply is waited for.
        self.turn = threading.Lock()
        #: As the server gave it; ``None`` without a session.
        self.cookie: str | None = None
        #: What tells this session from an earlier one; ``None`` without one.
        self.mark: object | None = None
        #: What the server's clock, at its last answer that had a Date, was ahead of ours.
        self.clock: float | None = None
        #: Logins begun so far, and what the last of them failed with.
        self.begun = 0
        self.failure: StoreError | None = None


class Session:
    """Calls of the API, and the cookie by which the data server knows who asks.

    :param api: makes the client; called when the first call is made, as it asks the server
    """

    def __init__(
        self,
        wire: Wire,
        user: str,
        password: str,
        api: Callable[["Post"], "Api"],
    ) -> None:
        self._wire = wire
        self._user = user
        self._password = password
        self._make_api = api
        self._api: Api | None = None
        self._logins = PerProcess(_Login)
        _ALL.add(self)

    def call(self, doing: str, function: Callable[["Api"], T]) -> T:
        """Return what ``function`` gets from the API, logged in.

        When the session has ended, it is begun anew at once, and the call made once more: what
        was not authenticated was not done.

        :param doing: what is asked for, for messages
        """
        mark = self.begin()
        try:
            return self._try(doing, function)
        except NotAuthenticated:
            self.begin(instead_of=mark)
            return self._try(doing, function)

    def begin(self, instead_of: object | None = None) -> object:
        """Log in unless there is a session, and return what tells it from others.

        :param instead_of: a session that was found to have ended
        """
        login = self._logins.get()
        if (mark := login.mark) is not None and mark is not instead_of:
            return mark
        begun = login.begun
        with login.lock:
            if login.mark is not None and login.mark is not instead_of:
                return login.mark
            if login.begun > begun and login.failure is not None:
                # One begun since has failed: those who waited do not, one after the other,
                # wait for a dead server each.
                raise copy.copy(login.failure)
            login.begun += 1
            login.mark = login.cookie = login.failure = None
            try:
                self._try("the login", self._log_in)
            except StoreError as error:
                login.failure = copy.copy(error)
                raise
            login.mark = object()
            _LOG.debug("Logged in to %s", self._wire.server.base)
            return login.mark

    def end(self, patience: float | None = None) -> None:
        """Log this process out, if it is logged in; what goes wrong is logged alone.

        :param patience: seconds that the server may take from now on, where that is less
        """
        login = self._logins.get()
        with login.lock:
            if login.mark is not None:
                if patience is not None:
                    self._wire.hurry(patience)
                try:
                    self._try(
                        "the logout", lambda api: api.Logout(api.service_content.sessionManager)
                    )
                except StoreError as error:
                    _LOG.info("Not logged out of %s: %s", self._wire.server.base, error)
        self._logins.take()

    @property
    def cookie(self) -> str:
        """The Cookie header of the present session, for the data server."""
        self.begin()
        return _cookie(self._logins.get().cookie or "")

    def ticket(self, method: str, target: str) -> str:
        """Return a Cookie header with a service ticket, good for one request of the data server.

        :param method: the request's
        :param target: its path and query
        """

        def acquire(api: "Api") -> str:
            spec = api.make(
                "SessionManagerHttpServiceRequestSpec",
                method=f"http{method.capitalize()}",
                url=self._wire.server.base + target,
            )
            manager = api.service_content.sessionManager
            return str(api.AcquireGenericServiceTicket(manager, spec=spec).id)

        return Secret(f'vmware_cgi_ticket="{self.call("a service ticket", acquire)}"')

    @property
    def now(self) -> float:
        """Seconds since the epoch by the server's clock, once it was asked for something."""
        ahead = self._logins.get().clock
        return time.time() if ahead is None else time.monotonic() + ahead

    def _log_in(self, api: "Api") -> None:
        api.Login(
            api.service_content.sessionManager,
            userName=self._user,
            password=self._password,
            locale="en",
        )

    def _try(self, doing: str, function: Callable[["Api"], T]) -> T:
        def meaning(error: Exception) -> StoreError:
            secrets = (self._password, self._logins.get().cookie or "")
            return soap_error(error, doing, self._wire.server, secrets)

        with self._logins.get().turn, LibraryCall(meaning, kept=()):
            if self._api is None:
                self._api = self._make_api(self._post)
            return function(self._api)

    def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[BaseHTTPResponse, bytes]:
        """Send a call with the session's cookie, and keep the cookie that comes back."""
        login = self._logins.get()
        sent = dict(headers)
        if login.cookie is not None:
            sent["Cookie"] = _cookie(login.cookie)
        login.turn.release()
        try:
            response, text = self._wire.fetch("POST", "/sdk", sent, body)
        finally:
            login.turn.acquire()
        given = _cookie_of(response)
        if given is not None:
            login.cookie = given
        date = parse_http_date(response.headers.get("Date"))
        if date is not None:
            login.clock = date - time.monotonic()
        return response, text

    def fault(self, fault: Any, doing: str) -> StoreError:
        """Return the error for the fault that a task ended with."""
        said = str(getattr(fault, "localizedMessage", ""))
        kind = type(getattr(fault, "fault", None)).__name__
        return fault_error(kind, said, doing, self._wire.server)


_ALL: "weakref.WeakSet[Session]" = weakref.WeakSet()


@atexit.register
def _end() -> None:
    """Log out at the process's end: a service such as Glance never closes its stores."""
    for each in list(_ALL):
        each.end(patience=_LAST)


def _cookie(value: str) -> Secret:
    return Secret(f"{_COOKIE}={value}")


def _cookie_of(response: BaseHTTPResponse) -> str | None:
    for line in response.headers.getlist("Set-Cookie"):
        try:
            cookies = http.cookies.SimpleCookie(line)
        except http.cookies.CookieError:
            continue
        if _COOKIE in cookies and cookies[_COOKIE].value:
            return Secret(cookies[_COOKIE].coded_value)
    return None
