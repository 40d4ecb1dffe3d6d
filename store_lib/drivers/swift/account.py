"""Requests to one account: a token on each, connections pooled, every refusal an error."""

import dataclasses
import functools
import http.client
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from store_lib.clients.answers import modified
from store_lib.clients.network_errors import Server, unreachable
from store_lib.clients.process import PerProcess
from store_lib.driver import Body, Together
from store_lib.drivers.swift.errors import refusal, refused, report_of, reported, server_of
from store_lib.drivers.swift.logins import Login
from store_lib.exceptions import BackendException, ErrorStatus, StoreError

#: Seconds for which a server may be silent while it copies by itself.
COPYING = 3600.0
#: How many deletes of segments are asked for at once.
_AT_ONCE = 10
#: How many of them may fail for a while before the others are given up.
_FAILURES = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    #: Last-Modified, in seconds since the epoch.
    modified: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """An object in a container's listing."""

    name: str
    size: int
    #: As Swift writes it, in ISO 8601.
    modified: str
    etag: str


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """One account of Swift, as one login sees it."""

    login: Login
    connections: PerProcess[urllib3.PoolManager]
    timeout: Timeout
    together: Together
    #: The storage URL where it is not the login's own.
    url: str | None = None

    @property
    def storage_url(self) -> str:
        """The account's URL, without a slash at its end."""
        return self.url or self.login.storage_url()

    @property
    def server(self) -> Server:
        """The server, as messages speak of it."""
        return server_of(self.storage_url)

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes | None = None,
        silence: float | None = None,
    ) -> BaseHTTPResponse:
        """Send a request; the answer may have any status, and its body is not read yet.

        A token that is refused is renewed.  The request is then repeated at once, unless it is
        for the caller to send its body again.

        :param path: below the account, from :func:`path_of`
        :param silence: seconds for which the server may be silent, where more than usual
        :raises RemoteServiceUnavailable: no answer
        """
        response = self._send(method, path, query, headers, body, silence)
        if response.status == 401 and (body is None or isinstance(body, bytes)):
            response.drain_conn()
            response = self._send(method, path, query, headers, body, silence)
        return response

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: Body | bytes | None,
        silence: float | None,
    ) -> BaseHTTPResponse:
        token = self.login.token()
        target = self.storage_url + path + (f"?{urlencode(query)}" if query else "")
        sent = {"X-Auth-Token": token, **(headers or {})}
        data: bytes | Iterator[memoryview] | None
        if body is None or isinstance(body, bytes):
            data = body
        else:
            # As it lies in memory: read() would be asked for copies of 16 KiB at a time.
            data = body.views()
            if body.size is None:
                sent["Transfer-Encoding"] = "chunked"
            else:
                sent["Content-Length"] = str(body.size)
        timeout = (
            self.timeout if silence is None else Timeout(self.timeout.connect_timeout, silence)
        )
        try:
            response = self.connections.get().urlopen(
                method,
                target,
                body=data,
                headers=sent,
                redirect=False,
                retries=False,
                timeout=timeout,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError, http.client.HTTPException) as error:
            raise unreachable(error, server_of(target)) from error
        try:
            if response.status == 401:
                self.login.renew(token)
        except BaseException:
            response.close()
            raise
        return response

    def ask(
        self,
        method: str,
        path: str,
        *allowed: int,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes | None = None,
        silence: float | None = None,
    ) -> Answer:
        """Send a request and read the answer whole.

        :param allowed: statuses besides 2xx that are returned and not raised
        """
        response = self.open(method, path, query=query, headers=headers, body=body, silence=silence)
        try:
            if not 200 <= response.status < 300 and response.status not in allowed:
                raise refusal(response, self._what(method, path))
            text = response.read(decode_content=False)
        except (HTTPError, OSError, http.client.HTTPException) as error:
            raise unreachable(error, self.server) from error
        finally:
            response.close()  # read to its end, its connection has gone back to the pool already
        return Answer(response.status, response.headers, text, modified(response))

    def reported(
        self,
        method: str,
        path: str,
        *allowed: int,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, Mapping[str, Any]]:
        """Send a request whose answer may tell its real status in its body, and return that.

        :param allowed: statuses besides 2xx that are returned and not raised, wherever told
        :returns: the status, and the report, empty where there is none
        """
        headers = {"Accept": "application/json", **(headers or {})}
        token = self.login.token()
        answer = self.ask(method, path, *allowed, query=query, headers=headers, body=body)
        report = report_of(answer.body)
        if not report:
            return answer.status, {}
        status, said = reported(report)
        if status == 401:
            self.login.renew(token)
        if not 200 <= status < 300 and status not in allowed:
            raise refused(status, self._what(method, path), said)
        return status, report

    def _what(self, method: str, path: str) -> str:
        return f"{method} of {path.lstrip('/') or 'the account'} at {self.server.base}"

    # What is asked for more than once.

    def head(self, path: str, *, newest: bool = False) -> Answer | None:
        """Return the head of an object or a container, ``None`` if there is none.

        :param newest: ask every replica, and believe the newest
        """
        headers = {"X-Newest": "true"} if newest else {}
        answer = self.ask("HEAD", path, 404, headers=headers)
        return None if answer.status == 404 else answer

    def listing(
        self, container: str, *, prefix: str = "", after: str = "", before: str = ""
    ) -> Iterator[Listed]:
        """Yield a container's objects in the order of their names; none if it is not there.

        :param after: only names greater than this
        :param before: only names less than this
        """
        query = {"prefix": prefix, "end_marker": before, "marker": after}
        for each in self._pages(path_of(container), query):
            yield Listed(each["name"], each["bytes"], each["last_modified"], each["hash"])

    def containers(self, prefix: str) -> Iterator[str]:
        """Yield the names of the account's containers that begin with ``prefix``."""
        for each in self._pages("", {"prefix": prefix, "marker": ""}):
            yield each["name"]

    def _pages(self, path: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        while True:
            asked = {"format": "json"} | {name: value for name, value in query.items() if value}
            answer = self.ask("GET", path, 404, query=asked)
            page = [] if answer.status in (204, 404) else _parsed(answer.body)
            if not page:
                return
            yield from page
            query["marker"] = page[-1]["name"]

    def delete(self, path: str) -> bool:
        """Delete an object, and say whether it was there."""
        return self.ask("DELETE", path, 404).status != 404

    def delete_all(self, paths: Iterable[str]) -> None:
        """Delete many objects, those that are not there included, several at once.

        Servers can delete in bulk too, but only two at once unless told otherwise.

        :raises StoreError: some could not be deleted; others were
        """
        failed: list[StoreError] = []

        def delete(path: str) -> None:
            try:
                self.delete(path)
            except StoreError as error:
                # Of very many some may meet a busy server: the rest need not be repeated for it.
                if error.status is not ErrorStatus.TEMPORARY or len(failed) == _FAILURES:
                    raise
                failed.append(error)

        self.together([functools.partial(delete, path) for path in paths], _AT_ONCE)
        if failed:
            raise failed[0]


def path_of(container: str, name: str | None = None) -> str:
    """Return the path of a container or an object below its account."""
    path = f"/{quote(container, safe='')}"
    return path if name is None else f"{path}/{quote(name)}"


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise BackendException("Expected a listing in JSON from Swift, got something else.") from (
            error
        )
