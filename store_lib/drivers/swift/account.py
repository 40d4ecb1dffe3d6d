"""Requests to one account: a token on each, connections pooled, every refusal an error."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import urllib3
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from store_lib.clients.decoding import decoding, digits, entries, parse_json, size, text, timestamp
from store_lib.clients.network_errors import Server, request_errors
from store_lib.clients.process import PerProcess
from store_lib.clients.response_headers import last_modified, parse_http_date, retry_after
from store_lib.driver import Body, Repeater, RunConcurrently
from store_lib.drivers.swift.errors import refusal, refused, report_of, reported, server_of
from store_lib.drivers.swift.logins import Login
from store_lib.drivers.swift.names import has_dots
from store_lib.exceptions import BackendException, StoreError

#: Seconds for which a server may be silent while it copies by itself.
COPYING = 3600.0
#: How many deletes of segments are asked for at once.
_AT_ONCE = 10
#: How many of them may fail, repeats included, before the others are given up.
_FAILURES = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    #: Last-Modified, in seconds since the epoch.
    modified: float | None

    @property
    def size(self) -> int | None:
        """Content-Length; ``None`` where it is left out."""
        told = self.headers.get("Content-Length")
        if told is None:
            return None
        with decoding("a Content-Length from Swift"):
            return digits(told)

    @property
    def followed(self) -> bool:
        """Whether a symbolic link led to what answered, perhaps in another account."""
        return "Content-Location" in self.headers and "X-Object-Version-Id" not in self.headers

    def is_in(self, storage_url: str) -> bool:
        """Whether the object that a symbolic link led to is in this account."""
        place = self.headers.get("Content-Location", "")
        return place.startswith(f"{urlsplit(storage_url).path}/")

    @property
    def link(self) -> str | None:
        """What it is a symbolic link to, where :meth:`Account.itself` has asked."""
        return self.headers.get("X-Symlink-Target")


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """An object in a container's listing."""

    name: str
    size: int
    #: In seconds since the epoch, by the server's clock.
    modified: float
    etag: str
    #: When the server made the listing, by the same clock; ``None`` where it does not say.
    now: float | None = None


def objects_of(body: bytes, now: float | None) -> list[Listed]:
    """Return what a page of a container's listing holds.

    :raises BackendException: it is no such listing
    """
    with decoding("the listing of a container from Swift"):
        return [
            Listed(
                text(each["name"]),
                size(each["bytes"]),
                timestamp(each["last_modified"]),
                text(each["hash"]),
                now,
            )
            for each in entries(parse_json(body))
        ]


def names_of(body: bytes) -> list[str]:
    """Return the names in a page of an account's listing.

    :raises BackendException: it is no such listing
    """
    with decoding("the listing of an account from Swift"):
        return [text(each["name"]) for each in entries(parse_json(body))]


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """One account of Swift, as one login sees it."""

    login: Login
    connections: PerProcess[urllib3.PoolManager]
    timeout: Timeout
    run_concurrently: RunConcurrently
    retry: Repeater
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
        with request_errors(server_of(target), data):
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
            with request_errors(self.server):
                whole = response.read(decode_content=False)
        finally:
            response.close()  # read to its end, its connection has gone back to the pool already
        return Answer(response.status, response.headers, whole, last_modified(response))

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
            later = retry_after(answer.headers)
            raise refused(status, self._what(method, path), said, later)
        return status, report

    def _what(self, method: str, path: str) -> str:
        return f"{method} of {path.lstrip('/') or 'the account'} at {self.server.base}"

    # What is asked for more than once.

    def head(self, path: str) -> Answer | None:
        """Return the head of an object or a container, ``None`` if there is none."""
        answer = self.ask("HEAD", path, 404)
        return None if answer.status == 404 else answer

    def itself(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        newest: bool = False,
    ) -> Answer | None:
        """Ask for an object, or for a symbolic link and not for what it leads to.

        :param newest: ask every replica, and believe the newest
        :returns: ``None`` if there is none
        """
        headers = {"X-Newest": "true"} if newest else {}
        query = {"symlink": "get", **(query or {})}
        answer = self.ask(method, path, 404, query=query, headers=headers)
        version = answer.headers.get("X-Object-Version-Id")
        if version is not None and answer.link is not None:
            # In a container with versions all objects are links, to what was asked for.
            query["version-id"] = version
            answer = self.ask(method, path, 404, query=query, headers=headers)
        return None if answer.status == 404 else answer

    def listing(
        self,
        container: str,
        *,
        prefix: str = "",
        after: str = "",
        before: str = "",
        most: int | None = None,
    ) -> Iterator[Listed]:
        """Yield a container's objects in the order of their names; none if it is not there.

        :param after: only names greater than this
        :param before: only names less than this
        :param most: only so many, up to a page
        """
        query = {"prefix": prefix, "end_marker": before, "marker": after}
        if most is not None:
            query["limit"] = str(most)
        for answer in self._pages(path_of(container), query):
            now = parse_http_date(answer.headers.get("Date"))
            page = objects_of(answer.body, now)
            if not page:
                return
            yield from page
            if most is not None:
                return
            query["marker"] = _further(query["marker"], page[-1].name)

    def containers(self, prefix: str) -> Iterator[str]:
        """Yield the names of the account's containers that begin with ``prefix``."""
        query = {"prefix": prefix, "marker": ""}
        for answer in self._pages("", query):
            page = names_of(answer.body)
            if not page:
                return
            yield from page
            query["marker"] = _further(query["marker"], page[-1])

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[Answer]:
        """Yield the answers to one request after another, each with what ``query`` is then."""
        while True:
            asked = {"format": "json"} | {name: value for name, value in query.items() if value}
            ask = functools.partial(self.ask, "GET", path, 404, query=asked)
            answer = self.retry(ask)
            if answer.status in (204, 404):
                return
            yield answer

    def delete(self, path: str, failure: StoreError | None = None) -> bool:
        """Delete an object, again after a temporary error, and say whether it was there.

        :param failure: what a first try has raised already
        """
        failures = [] if failure is None else [failure]
        tried = False

        def delete() -> bool:
            nonlocal tried
            again, tried = tried, True
            if failures:
                raise failures.pop()
            # Of one that is not there any more a request before has lost its answer.
            return self.ask("DELETE", path, 404).status != 404 or again

        return self.retry(delete)

    def delete_all(self, paths: Iterable[str]) -> None:
        """Delete many objects, those that are not there included, several at once.

        What fails is tried again once all others are done with.  Servers can delete in bulk too,
        but only two at once unless told otherwise.

        :raises StoreError: some could not be deleted; others were
        """
        left: dict[str, StoreError | None] = dict.fromkeys(paths)

        def attempt(delete: Callable[[str], object], path: str) -> None:
            try:
                delete(path)
            except StoreError as error:
                left[path] = error
                if sum(each is not None for each in list(left.values())) > _FAILURES:
                    raise
            else:
                del left[path]

        def work(delete: Callable[[str], object]) -> None:
            calls = [functools.partial(attempt, delete, path) for path in left]
            with contextlib.suppress(StoreError):  # it is kept
                self.run_concurrently(calls, _AT_ONCE)

        work(lambda path: self.ask("DELETE", path, 404))
        failures, left = left, dict.fromkeys(left)
        work(lambda path: self.delete(path, failures[path]))
        for error in filter(None, left.values()):
            error.add_note(f"Not deleted: {', '.join(unquote(path) for path in left)}")
            raise error


def path_of(container: str, name: str | None = None) -> str:
    """Return the path of a container or an object below its account.

    :raises BackendException: a client or a proxy could take it for another path
    """
    whole = container if name is None else f"{container}/{name}"
    if not container or "/" in container or has_dots(whole):
        raise BackendException(
            f"Expected a container and an object without '.' or '..' as a part of a path, got "
            f"{ascii(whole)[:200]}."
        )
    path = f"/{quote(container, safe='')}"
    return path if name is None else f"{path}/{quote(name)}"


def _further(before: str, last: str) -> str:
    """Return where the next page of a listing begins.

    :raises BackendException: it is no further than the last one
    """
    # As Swift orders names: by their bytes in UTF-8, which is by code points.
    if last <= before:
        raise BackendException(
            f"Expected a listing's next page behind {ascii(before)[:100]}, got "
            f"{ascii(last)[:100]} from Swift again."
        )
    return last
