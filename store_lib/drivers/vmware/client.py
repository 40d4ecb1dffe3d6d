"""Each process's session of the API: begun on first use, and begun anew after it has ended."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from store_lib.clients.http import HttpClient
from store_lib.clients.library_calls import LibraryCall
from store_lib.clients.network_errors import Server
from store_lib.clients.process import LiveObjects, PerProcess, SingleFlight
from store_lib.display import get_logger
from store_lib.drivers.vmware.errors import fault_error, soap_error
from store_lib.exceptions import NotAuthenticated, StoreError
from store_lib.redaction import Secret

if TYPE_CHECKING:
    from store_lib.drivers.vmware.soap import Api, SoapTransport

_LOG = get_logger(__name__)

T = TypeVar("T")

#: Seconds to wait for the server when logging out at the end of the process.
_EXIT_TIMEOUT = 5.0


class _Login:
    """The state of one process's login."""

    def __init__(self) -> None:
        #: Runs one attempt to log in at a time; its lock is also held while logging out.
        self.attempts = SingleFlight()
        #: Distinguishes this session from an earlier one; ``None`` without a session.
        self.session_id: object | None = None


class Session:
    """Calls the API within a login session.

    :param transport: owns the connection and the session's cookie
    :param make_api: returns the API; not called before the first call, as it may need the server
    """

    def __init__(
        self,
        client: HttpClient,
        transport: "SoapTransport",
        make_api: Callable[[], "Api"],
        user: str,
        password: str,
    ) -> None:
        self._client = client
        self._transport = transport
        self._make_api = make_api
        self._user = user
        self._password = password
        self._api: Api | None = None
        self._logins = PerProcess(_Login)
        _SESSIONS.add(self)

    @property
    def server(self) -> Server:
        """The server, for error messages."""
        return self._client.server(self._transport.base)

    def call(self, doing: str, function: Callable[["Api"], T]) -> T:
        """Return the result of ``function``, called with the API and a login session.

        If the session has ended, begin a new one and call ``function`` once more, as the server
        does not execute unauthenticated requests.

        :param doing: what is requested, for messages
        """
        session_id = self.begin()
        try:
            return self._try(doing, function)
        except NotAuthenticated:
            self.begin(instead_of=session_id)
            return self._try(doing, function)

    def begin(self, instead_of: object | None = None) -> object:
        """Log in unless there is a session; return an object that identifies the session.

        :param instead_of: a session that has ended
        """
        login = self._logins.get()

        def current() -> object | None:
            return None if login.session_id is instead_of else login.session_id

        def log_in() -> object:
            login.session_id = None
            self._transport.forget_session()
            self._try("the login", self._log_in)
            login.session_id = object()
            _LOG.debug("Logged in to %s", self._transport.base)
            return login.session_id

        return login.attempts.run(current, log_in)

    def end(self, timeout: float | None = None) -> None:
        """Log this process out if it is logged in; errors are only logged.

        :param timeout: lowers the timeouts of all further requests to this number of seconds
        """
        login = self._logins.get()
        with login.attempts.lock:
            if login.session_id is not None:
                if timeout is not None:
                    self._client.cap_timeouts(timeout)
                try:
                    self._try(
                        "the logout", lambda api: api.Logout(api.service_content.sessionManager)
                    )
                except StoreError as error:
                    _LOG.info("Not logged out of %s: %s", self._transport.base, error)
        self._transport.forget_session()
        self._logins.take()

    @property
    def cookie(self) -> str:
        """The Cookie header of the current session, for the data server."""
        self.begin()
        return self._transport.cookie

    def ticket(self, method: str, target: str) -> str:
        """Return a Cookie header with a service ticket for a single request to the data server.

        :param method: the request's method
        :param target: the request's path and query
        """

        def acquire(api: "Api") -> str:
            spec = api.make(
                "SessionManagerHttpServiceRequestSpec",
                method=f"http{method.capitalize()}",
                url=self._transport.base + target,
            )
            manager = api.service_content.sessionManager
            return str(api.AcquireGenericServiceTicket(manager, spec=spec).id)

        return Secret(f'vmware_cgi_ticket="{self.call("a service ticket", acquire)}"')

    @property
    def now(self) -> float:
        """The server's time in seconds since the epoch; this machine's before a response."""
        return self._transport.now

    def task_error(self, fault: Any, doing: str) -> StoreError:
        """Return the error for the fault that a task ended with."""
        quote = str(getattr(fault, "localizedMessage", ""))
        kind = type(getattr(fault, "fault", None)).__name__
        return fault_error(kind, quote, doing, self.server)

    def _log_in(self, api: "Api") -> None:
        api.Login(
            api.service_content.sessionManager,
            userName=self._user,
            password=self._password,
            locale="en",
        )

    def _try(self, doing: str, function: Callable[["Api"], T]) -> T:
        def translate(error: Exception) -> StoreError:
            secrets = (self._password, self._transport.session_key)
            return soap_error(error, doing, self.server, secrets)

        with LibraryCall(translate, kept=()):
            if self._api is None:  # no lock is needed: this is a login, and only one runs at a time
                self._api = self._make_api()
            return function(self._api)


def _end_at_exit(session: Session) -> None:
    """Log out at the end of the process: services such as Glance never close their stores."""
    session.end(timeout=_EXIT_TIMEOUT)


_SESSIONS: LiveObjects[Session] = LiveObjects(at_exit=_end_at_exit)
