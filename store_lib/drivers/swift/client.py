"""Requests to Swift for accounts, containers and objects, and their responses."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlencode, urlsplit

from urllib3.response import BaseHTTPResponse

from store_lib.clients.decoding import decoding, digits, entries, parse_json, size, text, timestamp
from store_lib.clients.http import HttpClient, HttpResponse
from store_lib.clients.network_errors import Server
from store_lib.clients.response_headers import parse_http_date
from store_lib.driver import Body, Repeater, RunConcurrently
from store_lib.drivers.swift.errors import (
    error_for_response,
    error_for_status,
    heartbeat_result,
    parse_report,
)
from store_lib.drivers.swift.location import has_dots
from store_lib.exceptions import BackendException, ErrorStatus, NotSupported, StoreError

#: Number of objects that are deleted concurrently.
_DELETES = 10
#: Number of failed deletes, repeats included, after which the remaining ones are given up.
_FAILURES = 20
#: Seconds within which an add that has created a container stores something in it.
_YOUNG = 3600


class Login(Protocol):
    """Provides a token and the account's storage URL."""

    def token(self) -> str:
        """Return a token, which has not been refused so far."""

    def renew(self, stale: str) -> None:
        """Replace the token ``stale``, which was refused, for the next call of :meth:`token`.

        :raises NotAuthenticated: there is no other token
        """

    def storage_url(self) -> str:
        """Return the account's URL, without a slash at the end."""


class SwiftResponse(HttpResponse):
    """A response with its whole body."""

    __slots__ = ()

    @property
    def size(self) -> int | None:
        """The value of Content-Length, or ``None`` if it is missing."""
        length = self.headers.get("Content-Length")
        if length is None:
            return None
        with decoding("a Content-Length from Swift"):
            return digits(length)

    @property
    def modified(self) -> float | None:
        """The value of Last-Modified in seconds since the epoch, or ``None`` if it is missing."""
        return parse_http_date(self.headers.get("Last-Modified"))

    @property
    def followed(self) -> bool:
        """Whether a symbolic link led to the object that responded, perhaps in another account."""
        return "Content-Location" in self.headers and "X-Object-Version-Id" not in self.headers

    def is_in(self, storage_url: str) -> bool:
        """Whether the object that a symbolic link led to is in this account."""
        path = self.headers.get("Content-Location", "")
        return path.startswith(f"{urlsplit(storage_url).path}/")

    @property
    def link(self) -> str | None:
        """The target of a symbolic link, or ``None``; for responses to :meth:`ObjectRef.itself`."""
        return self.headers.get("X-Symlink-Target")


@dataclasses.dataclass(frozen=True, slots=True)
class ListedObject:
    """An object in a container's listing."""

    name: str
    size: int
    #: Seconds since the epoch, by the server's clock.
    modified: float
    etag: str
    #: Time of the listing by the same clock; ``None`` if unknown.
    now: float | None = None


def parse_objects(body: bytes, now: float | None) -> list[ListedObject]:
    """Parse a page of a container's listing.

    :param now: time of the listing by the server's clock
    :raises BackendException: the page is malformed
    """
    with decoding("the listing of a container from Swift"):
        return [
            ListedObject(
                text(item["name"]),
                size(item["bytes"]),
                timestamp(item["last_modified"]),
                text(item["hash"]),
                now,
            )
            for item in entries(parse_json(body))
        ]


def parse_names(body: bytes) -> list[str]:
    """Parse a page of an account's listing, and return the names in it.

    :raises BackendException: the page is malformed
    """
    with decoding("the listing of an account from Swift"):
        return [text(item["name"]) for item in entries(parse_json(body))]


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """An account of Swift, accessed by one login."""

    login: Login
    http: HttpClient
    run_concurrently: RunConcurrently
    retry: Repeater
    #: The storage URL, if it is not the one of the login.
    url: str | None = None

    @property
    def storage_url(self) -> str:
        """The account's URL, without a slash at the end."""
        return self.url or self.login.storage_url()

    @property
    def server(self) -> Server:
        """The server, for error messages."""
        return self.http.server(self.storage_url)

    def container(self, name: str) -> "Container":
        """Return a container of the account, which need not exist."""
        return Container(self, name)

    def containers(self, prefix: str) -> Iterator[str]:
        """Yield the names of the account's containers that begin with ``prefix``."""
        query = {"prefix": prefix, "marker": ""}
        for response in self.pages("", query):
            page = parse_names(response.body)
            if not page:
                return
            yield from page
            query["marker"] = next_marker(query["marker"], page[-1])

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes | None = None,
        read_timeout: float | None = None,
    ) -> BaseHTTPResponse:
        """Send a request and return the response, whatever its status, with the body unread.

        A token that is refused is renewed.  The request is then repeated at once, unless its body
        is a stream, which only the caller can send again.

        :param path: below the account, from :func:`path_of`
        :param read_timeout: seconds, in place of the configured timeout
        :raises RemoteServiceUnavailable: there was no response
        """
        send = functools.partial(self._send, method, path, query, headers, body, read_timeout)
        response = send()
        if response.status == 401 and (body is None or isinstance(body, bytes)):
            response.drain_conn()
            response = send()
        return response

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: Body | bytes | None,
        read_timeout: float | None,
    ) -> BaseHTTPResponse:
        token = self.login.token()
        url = self.storage_url + path + (f"?{urlencode(query)}" if query else "")
        sent = {"X-Auth-Token": token, **(headers or {})}
        response = self.http.open(method, url, sent, body, read_timeout=read_timeout)
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
        read_timeout: float | None = None,
    ) -> SwiftResponse:
        """Send a request and return the whole response.  Parameters are as for :meth:`open`.

        :param allowed: statuses besides 2xx that do not raise an error
        """
        response = self.open(
            method, path, query=query, headers=headers, body=body, read_timeout=read_timeout
        )
        try:
            if not 200 <= response.status < 300 and response.status not in allowed:
                raise error_for_response(response, method, self._name(path))
        except BaseException:
            response.close()
            raise
        whole = self.http.read(response, self.storage_url)
        return SwiftResponse(response.status, response.headers, whole)

    def ask_with_heartbeat(
        self,
        method: str,
        path: str,
        *allowed: int,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, Mapping[str, Any]]:
        """Send a request whose response may have its real status in the body.

        :param allowed: statuses besides 2xx that do not raise an error, in the head or the body
        :returns: the real status, and the report in the body, empty if there is none
        """
        headers = {"Accept": "application/json", **(headers or {})}
        token = self.login.token()
        response = self.ask(method, path, *allowed, query=query, headers=headers, body=body)
        report = parse_report(response.body)
        if not report:
            return response.status, {}
        status, complaint = heartbeat_result(report)
        if status == 401:
            self.login.renew(token)
        if not 200 <= status < 300 and status not in allowed:
            raise error_for_status(status, method, self._name(path), complaint, response.headers)
        return status, report

    def _name(self, path: str) -> str:
        return f"{path.lstrip('/') or 'the account'} at {self.server.base}"

    def head(self, path: str) -> SwiftResponse | None:
        """Return the metadata of a container or of the account, or ``None`` if it is missing."""
        response = self.ask("HEAD", path, 404)
        return None if response.status == 404 else response

    def pages(self, path: str, query: Mapping[str, str]) -> Iterator[SwiftResponse]:
        """Request a listing page by page, and yield the responses until there are no more.

        The caller sets the marker of the next page in ``query``.
        """
        while True:
            given = {"format": "json"} | {name: value for name, value in query.items() if value}
            response = self.retry(functools.partial(self.ask, "GET", path, 404, query=given))
            if response.status in (204, 404):
                return
            yield response

    def delete(self, path: str, failure: StoreError | None = None) -> bool:
        """Delete an object, with retries; return whether it existed.

        :param failure: the error of an attempt that the caller has made
        """
        failures = [] if failure is None else [failure]
        tried = False

        def delete() -> bool:
            nonlocal tried
            repeated, tried = tried, True
            if failures:
                raise failures.pop()
            # If it is gone now, an earlier request has deleted it, whose response was lost.
            return self.ask("DELETE", path, 404).status != 404 or repeated

        return self.retry(delete)

    def delete_all(self, paths: Iterable[str]) -> None:
        """Delete many objects concurrently; a missing object is no error.

        Deletes that fail are repeated when all others are done.  Bulk deletes of the server are not
        used, as by default it makes only two deletes at a time.

        :raises StoreError: some objects could not be deleted; the others are
        """
        left: dict[str, StoreError | None] = dict.fromkeys(paths)

        def attempt(delete: Callable[[str], object], path: str) -> None:
            try:
                delete(path)
            except StoreError as error:
                left[path] = error
                if sum(failure is not None for failure in list(left.values())) > _FAILURES:
                    raise
            else:
                del left[path]

        def run(delete: Callable[[str], object]) -> None:
            calls = [functools.partial(attempt, delete, path) for path in left]
            with contextlib.suppress(StoreError):  # the path stays in left
                self.run_concurrently(calls, _DELETES)

        run(lambda path: self.ask("DELETE", path, 404))
        failures, left = left, dict.fromkeys(left)
        run(lambda path: self.delete(path, failures[path]))
        for error in filter(None, left.values()):
            error.add_note(f"Not deleted: {', '.join(unquote(path) for path in left)}")
            raise error


@dataclasses.dataclass(frozen=True, slots=True)
class Container:
    """A container of an account."""

    account: Account
    name: str

    @property
    def path(self) -> str:
        """The container's path below the account."""
        return path_of(self.name)

    def object(self, name: str) -> "ObjectRef":
        """Return an object of the container, which need not exist."""
        return ObjectRef(self, name)

    def list(
        self, *, prefix: str = "", after: str = "", before: str = "", limit: int | None = None
    ) -> Iterator[ListedObject]:
        """Yield the objects in the order of their names; nothing if the container is missing.

        :param after: yield only names greater than this
        :param before: yield only names less than this
        :param limit: maximum number of objects, up to a page
        """
        query = {"prefix": prefix, "end_marker": before, "marker": after}
        if limit is not None:
            query["limit"] = str(limit)
        for response in self.account.pages(self.path, query):
            now = parse_http_date(response.headers.get("Date"))
            page = parse_objects(response.body, now)
            if not page:
                return
            yield from page
            if limit is not None:
                return
            query["marker"] = next_marker(query["marker"], page[-1].name)

    def contains(self, prefix: str, after: str = "") -> bool:
        """Return whether a name in the listing begins with ``prefix`` and is behind ``after``."""
        return next(self.list(prefix=prefix, after=after, limit=1), None) is not None

    def delete_objects(self, names: Iterable[str]) -> None:
        """Delete many objects, see :meth:`Account.delete_all`."""
        self.account.delete_all(path_of(self.name, name) for name in names)

    def url_key(self) -> str:
        """Return the key that signs temporary URLs: the account's, or else the container's.

        :raises NotSupported: neither has a key, or the login may not see it
        """
        for kind, path in (("Account", ""), ("Container", self.path)):
            head = self.account.head(path)
            for number in ("", "-2"):
                key = head and head.headers.get(f"X-{kind}-Meta-Temp-Url-Key{number}")
                if key:
                    return key
        raise NotSupported(
            f"Temporary URLs need a key, which neither the account nor the container {self.name} "
            "has. Set one: swift post -m 'Temp-URL-Key:SECRET'."
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectRef:
    """The name of an object, which need not exist."""

    container: Container
    name: str

    @property
    def account(self) -> Account:
        """The object's account."""
        return self.container.account

    @property
    def path(self) -> str:
        """The object's path below the account."""
        return path_of(self.container.name, self.name)

    def __str__(self) -> str:
        return f"{self.container.name}/{self.name}"

    def itself(
        self, method: str = "HEAD", *, query: Mapping[str, str] | None = None, newest: bool = False
    ) -> SwiftResponse | None:
        """Request the object; of a symbolic link, the link and not its target.

        :param newest: have the server ask every replica, and return the newest
        :returns: the response, or ``None`` if the object does not exist
        """
        headers = {"X-Newest": "true"} if newest else {}
        query = {"symlink": "get", **(query or {})}
        ask = functools.partial(self.account.ask, method, self.path, 404, headers=headers)
        response = ask(query=query)
        version = response.headers.get("X-Object-Version-Id")
        if version is not None and response.link is not None:
            # In a container with versions every object is a link to its newest version, which is
            # requested here.
            response = ask(query={**query, "version-id": version})
        return None if response.status == 404 else response

    def exists(self) -> bool:
        """Return whether any replica has the object, or a symbolic link of this name."""
        return self.itself(newest=True) is not None

    def delete(self) -> bool:
        """Delete the object, with retries; return whether it existed."""
        return self.account.delete(self.path)


class ContainerLost(BackendException):
    """The container of one object was removed during an add, by a delete of the same id."""

    message = "The container %(container)s was removed during the upload. Add the object again."
    default_status = ErrorStatus.TEMPORARY


@dataclasses.dataclass(frozen=True, slots=True)
class ContainerPolicy:
    """Decides when a store creates and deletes containers."""

    #: Whether a missing container may be created.
    may_create: bool
    #: Headers of the request that creates a container: the access lists.
    headers: Mapping[str, str]
    #: Whether each object has a container for itself, which is deleted with the object.
    own: bool
    #: URLs of containers that exist, so that an add need not look them up again.
    _known: set[str] = dataclasses.field(default_factory=set)

    def ensure(self, container: Container) -> bool:
        """Create a container unless it exists; return whether it was created.

        :raises BackendException: the container is missing, and must not be created
        """
        url = container.account.storage_url + container.path
        if url in self._known:
            return False
        missing = container.account.head(container.path) is None
        if missing:
            self.create(container)
        if not self.own:
            self._known.add(url)
        return missing

    def create(self, container: Container) -> None:
        """Create a missing container.

        :raises BackendException: the container must not be created
        """
        account = container.account
        if not self.may_create:
            raise BackendException(
                f"Expected the container {container.name} at {account.server.base}, there is none. "
                "Create it, or set swift_store_create_container_on_put."
            )
        account.ask("PUT", container.path, headers=self.headers, body=b"")

    def delete(self, container: Container) -> None:
        """Delete the container of a deleted object, if it had a container for itself."""
        if self.own:
            # 409: the container is not empty.
            container.account.ask("DELETE", container.path, 404, 409)

    def delete_old(self, container: Container) -> None:
        """Delete the container that an interrupted delete of its object has left.

        A container that is young by the server's clock is kept: an add may have created it, and may
        be sending the first segment.
        """
        if not self.own:
            return
        head = container.account.head(container.path)
        if head is None:
            return
        now = parse_http_date(head.headers.get("Date"))
        if now is not None and head.modified is not None and now - head.modified > _YOUNG:
            self.delete(container)


def path_of(container: str, name: str | None = None) -> str:
    """Return the path of a container, or of an object, below its account.

    :raises BackendException: a client or a proxy could take the path for another one
    """
    whole = container if name is None else f"{container}/{name}"
    if not container or "/" in container or has_dots(whole):
        raise BackendException(
            f"Expected a container and an object without '.' or '..' as a part of a path, got "
            f"{ascii(whole)[:200]}."
        )
    path = f"/{quote(container, safe='')}"
    return path if name is None else f"{path}/{quote(name)}"


def next_marker(marker: str, last: str) -> str:
    """Return the marker of a listing's next page: the last name of this page.

    :raises BackendException: the name is not behind this page's marker, so the listing would not
        end
    """
    # Swift orders names by their bytes in UTF-8.  This is the order by code points, as here.
    if last <= marker:
        raise BackendException(
            f"Expected a listing's next page behind {ascii(marker)[:100]}, got "
            f"{ascii(last)[:100]} from Swift again."
        )
    return last
