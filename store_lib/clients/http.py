"""The HTTP client of every driver that makes its own requests: http, Swift and VMware.

:class:`HttpClient` sends one request at a time and says what went wrong.  It does not follow
redirects, retry or decode bodies, and takes nothing from the environment: no proxy, no authorities,
no ``.netrc``.
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
    """A proxy: its URL without credentials, and the headers that it is sent."""

    url: str
    headers: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response that was read whole; ``repr`` omits what may be secret."""

    status: int
    headers: HTTPHeaderDict = dataclasses.field(repr=False)
    body: bytes = dataclasses.field(repr=False)


class HttpClient:
    """Sends the requests of one store, from many threads; each process has its own connections.

    :param tls: how certificates are verified
    :param option_names: the options that error messages name
    :param connect_timeout: seconds for a connection to be made
    :param read_timeout: seconds without a byte, of a request or of a response
    :param check_address: called with a host's name and the address that it has, before and after
        connecting; raises ``Forbidden``.  ``None`` allows every address.  Not called for what goes
        through a proxy.
    :param proxies: by scheme; other schemes are reached directly
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
        """Return the server of a URL as error messages name it."""
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
        :param headers: besides those that say how long the body is, which are added here
        :param body: sent as it lies in memory; an error that it raises comes out unchanged
        :param read_timeout: seconds, in place of the client's
        :param fresh: use a new connection: one that was kept may end just when it is used again,
            and a body that cannot be rewound cannot be sent again
        :raises RemoteServiceUnavailable: no response
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
        """Return the rest of a response's body, and give its connection back.

        :param url: of the request, for error messages
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

        :param check: called before the body is read; raises where the response is refused
        :raises RemoteServiceUnavailable: no response, or a body that was cut short
        """
        response = self.open(method, url, headers, body, read_timeout=read_timeout)
        try:
            check(response)
        except BaseException:
            response.close()
            raise
        return HttpResponse(response.status, response.headers, self.read(response, url))

    def cap_timeouts(self, seconds: float) -> None:
        """Wait at most this long for a connection or a byte, from now on."""
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
    """One process's connections."""

    kept: urllib3.PoolManager
    #: For requests with connections of their own.
    fresh: urllib3.PoolManager
    #: By scheme.
    proxied: Mapping[str, urllib3.PoolManager]

    def manager(self, url: str, *, fresh: bool) -> urllib3.PoolManager:
        return self.proxied.get(url.partition(":")[0], self.fresh if fresh else self.kept)

    def close(self) -> None:
        for manager in (self.kept, self.fresh, *self.proxied.values()):
            close_manager(manager)


#: The errors that statuses mean, and why a request failed; others are in :func:`error_for_status`.
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
    """Return the error that the status of a response means.

    :param doing: what was asked for, such as ``Reading``
    :param name: of what, such as an object and its server
    :param quote: the beginning of the response's body, from :func:`quoted`
    :param headers: of the response; ``Retry-After`` goes into the error
    :param advice: what to do about it, a sentence by status
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
    """Return the error that a response means, quoting its body; see :func:`error_for_status`."""
    return error_for_status(
        response.status,
        doing,
        name,
        quote=quoted(response),
        headers=response.headers,
        advice=advice,
        busy=busy,
    )
