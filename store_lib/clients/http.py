"""The HTTP client of the drivers that send their own requests: http, Swift and VMware.

:class:`HttpClient` sends single requests and turns failures into the library's errors.  It does not
follow redirects, retry, or decode bodies.  It ignores proxies, authorities and ``.netrc`` files
that the environment configures.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from store_lib.clients._urllib3 import Chunks, DirectManager, close_manager, proxy_manager
from store_lib.clients.addresses import AddressCheck
from store_lib.clients.network_errors import BUSY, OptionNames, Server, quoted, request_errors
from store_lib.clients.process import PerProcess
from store_lib.clients.response_headers import retry_after
from store_lib.clients.tls import Tls
from store_lib.driver import Body
from store_lib.exceptions import (
    BackendException,
    Forbidden,
    NotAuthenticated,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
    not_found,
)

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "store_lib"}


class Proxy(NamedTuple):
    """A proxy: its URL without credentials, and the headers to send to it."""

    url: str
    headers: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response with its whole body; ``repr`` omits what may be secret."""

    status: int
    headers: HTTPHeaderDict = dataclasses.field(repr=False)
    body: bytes = dataclasses.field(repr=False)


class HttpClient:
    """Sends the requests of one store.  Thread-safe; every process has its own connections.

    :param tls: how certificates are verified
    :param option_names: the options that error messages name
    :param connect_timeout: seconds to wait for a connection
    :param read_timeout: seconds for which no byte of a request or a response may pass
    :param check_address: called before and after connecting with a host's name and one of its
        addresses; raises ``Forbidden`` to refuse them.  ``None`` allows every address.  Not called
        for requests through a proxy.
    :param proxies: by scheme; servers of other schemes are reached directly
    """

    def __init__(
        self,
        tls: Tls,
        option_names: OptionNames,
        *,
        connect_timeout: float,
        read_timeout: float,
        check_address: AddressCheck | None = None,
        proxies: Mapping[str, Proxy] | None = None,
    ) -> None:
        self._tls = tls
        self._option_names = option_names
        self._timeouts = connect_timeout, read_timeout
        self._check_address = check_address
        self._proxies = dict(proxies or {})
        self._pools = PerProcess(self._make_pools)

    def server(self, url: str) -> Server:
        """Return the server of a URL, for error messages."""
        scheme, _, rest = url.partition("://")
        authority = rest.partition("/")[0].partition("?")[0]
        return Server(f"{scheme}://{authority.rpartition('@')[2]}", self._option_names)

    def is_proxied(self, scheme: str) -> bool:
        """Whether requests of ``scheme`` go through a proxy."""
        return scheme in self._proxies

    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes | None = None,
        *,
        read_timeout: float | None = None,
        fresh: bool = False,
    ) -> BaseHTTPResponse:
        """Send a request and return the response, whatever its status, before its body is read.

        The caller passes the response to :meth:`read`, reads it to its end or closes it.

        :param url: a ``Secret`` if its query may be a credential
        :param headers: without those of the body's length, which are added here
        :param body: sent without a copy; an error that it raises is passed on unchanged
        :param read_timeout: seconds, instead of the client's ``read_timeout``
        :param fresh: use a new connection, for a body that cannot be rewound and sent again: the
            server may close an idle connection just when it is used again
        :raises RemoteServiceUnavailable: the server sent no response
        :raises Forbidden: ``check_address`` refuses the server
        """
        sent = {**_HEADERS, **(headers or {})}
        data: object = body
        if body is not None and not isinstance(body, bytes):
            if body.size is None:
                sent["Transfer-Encoding"] = "chunked"
                data = Chunks(body.views())
            else:
                sent["Content-Length"] = str(body.size)
                data = body.views()
        if fresh:
            sent["Connection"] = "close"
        connect, read = self._timeouts
        timeout = Timeout(connect=connect, read=read if read_timeout is None else read_timeout)
        pools = self._pools.get()
        with request_errors(self.server(url), data):
            return pools.manager(url, fresh=fresh).urlopen(
                method,
                url,
                body=data,
                headers=sent,
                redirect=False,
                retries=False,
                timeout=timeout,
                preload_content=False,
                decode_content=False,
            )

    def read(self, response: BaseHTTPResponse, url: str) -> bytes:
        """Return the rest of a response's body, and release its connection.

        :param url: the request's URL, for error messages
        :raises RemoteServiceUnavailable: the body was cut short, or is longer than 256 MiB
        """
        try:
            with request_errors(self.server(url)):
                return response.read(decode_content=False)
        finally:
            response.close()

    def fetch(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes | None = None,
        *,
        read_timeout: float | None = None,
        check: Callable[[BaseHTTPResponse], None] = lambda response: None,
    ) -> HttpResponse:
        """Send a request and return the whole response; parameters are as for :meth:`open`.

        :param check: called before the body is read; raises an error to reject the response
        :raises RemoteServiceUnavailable: the server sent no response, or the body was cut short
        """
        response = self.open(method, url, headers, body, read_timeout=read_timeout)
        try:
            check(response)
        except BaseException:
            response.close()
            raise
        return HttpResponse(response.status, response.headers, self.read(response, url))

    def cap_timeouts(self, seconds: float) -> None:
        """Lower the timeouts of all further requests to at most ``seconds``."""
        connect, read = self._timeouts
        self._timeouts = min(connect, seconds), min(read, seconds)

    def close(self) -> None:
        """Close this process's idle connections; the next request makes new ones."""
        pools = self._pools.take()
        if pools is not None:
            pools.close()

    def _make_pools(self) -> "_Pools":
        def direct() -> DirectManager:
            return DirectManager(
                context=lambda: self._tls.context,
                check_address=self._check_address,
                send_timeout=self._timeouts[1],
            )

        proxied = {}
        for scheme, proxy in self._proxies.items():
            proxied[scheme] = proxy_manager(proxy.url, proxy.headers, self._tls.context)
        return _Pools(direct(), direct(), proxied)


@dataclasses.dataclass(frozen=True, slots=True)
class _Pools:
    """The connection pools of one process."""

    kept: urllib3.PoolManager
    #: For requests that must use a new connection.
    fresh: urllib3.PoolManager
    #: The pools of the proxies, by scheme.
    proxied: Mapping[str, urllib3.PoolManager]

    def manager(self, url: str, *, fresh: bool) -> urllib3.PoolManager:
        return self.proxied.get(url.partition(":")[0], self.fresh if fresh else self.kept)

    def close(self) -> None:
        for manager in (self.kept, self.fresh, *self.proxied.values()):
            close_manager(manager)


#: Error class and reason by status; :func:`error_for_status` handles all other statuses.
_ERRORS: dict[int, tuple[type[StoreError], str]] = {
    401: (NotAuthenticated, "the login is refused"),
    403: (Forbidden, "it is forbidden"),
    407: (NotAuthenticated, "the proxy asks for a login"),
    413: (StorageFull, "it is too large, or exceeds a quota"),
    507: (StorageFull, "there is no space left"),
}


def error_for_status(
    status: int,
    doing: str,
    name: str,
    *,
    quote: str = "",
    headers: Mapping[str, str] | None = None,
    advice: Mapping[int, str] | None = None,
    busy: frozenset[int] = BUSY,
) -> StoreError:
    """Return the error for a response's status.

    :param doing: what the request was to do, such as ``Reading``
    :param name: what it was to do this with, such as an object and its server
    :param quote: the beginning of the response's body, from :func:`quoted`
    :param headers: the response's headers; the error keeps their ``Retry-After``
    :param advice: sentences that say what to do about the error, by status
    :param busy: statuses after which the same request may succeed later
    """
    if status in (404, 410):
        return not_found(name, f"the server answered {status}")
    kind: type[StoreError] = BackendException
    if status in _ERRORS:
        kind, reason = _ERRORS[status]
        reason = f"{reason} ({status}{quote if kind is StorageFull else ''})"
    elif status in busy:
        kind, reason = RemoteServiceUnavailable, f"the server cannot serve now ({status}{quote})"
    elif 300 <= status < 400:
        reason = f"the server redirects it ({status}), which is not followed"
    else:
        reason = f"the server answered {status}{quote}"
    advised = (advice or {}).get(status, "")
    text = f"{doing} {name} failed: {reason}. {advised}".rstrip()
    later = retry_after(headers or {}) if kind is RemoteServiceUnavailable else None
    return kind(text, retry_after=later)


def error_for_response(
    response: BaseHTTPResponse,
    doing: str,
    name: str,
    *,
    advice: Mapping[int, str] | None = None,
    busy: frozenset[int] = BUSY,
) -> StoreError:
    """Return the error for a response, with a quote of its body; see :func:`error_for_status`."""
    return error_for_status(
        response.status,
        doing,
        name,
        quote=quoted(response),
        headers=response.headers,
        advice=advice,
        busy=busy,
    )
