"""One request with its redirects: each target checked anew, credentials kept at their origin."""

import contextlib
import dataclasses
import email.utils
import logging
import re
from collections.abc import Mapping
from urllib.parse import urljoin

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from store_lib.drivers.http.addresses import AddressRules
from store_lib.drivers.http.connection import Connections
from store_lib.drivers.http.errors import unreachable
from store_lib.drivers.http.location import HttpLocation
from store_lib.exceptions import BackendException, BadStoreUri, MaxRedirectsExceeded

_LOG = logging.getLogger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """Makes the requests of one store."""

    connections: Connections
    rules: AddressRules
    max_redirects: int
    timeout: Timeout

    def send(
        self, method: str, location: HttpLocation, headers: Mapping[str, str]
    ) -> BaseHTTPResponse:
        """Send a request and follow its redirects; the answer may have any other status.

        The body is not read yet: the caller reads it whole or closes the response.
        :raises Forbidden: a host or an address is refused by the lists
        :raises MaxRedirectsExceeded: there are more redirects than the limit
        :raises BadStoreUri: a redirect leads to where none may lead
        :raises RemoteServiceUnavailable: the server did not answer
        """
        place = location
        for _ in range(self.max_redirects + 1):
            response = self._request(method, place, location, headers)
            if response.status not in _REDIRECTS:
                return response
            response.close()
            target = _redirected(place, response)
            _LOG.debug(
                "Status %d redirects %s to %s",
                response.status,
                place.shown,
                target.shown,
            )
            place = target
        raise MaxRedirectsExceeded(
            f"More than {self.max_redirects} redirects (http_max_redirects) from {location.shown}. "
            "Raise the limit, or give the URI that they end at."
        )

    def _request(
        self, method: str, place: HttpLocation, first: HttpLocation, headers: Mapping[str, str]
    ) -> BaseHTTPResponse:
        proxied = self.connections.proxied(place.scheme)
        self.rules.check_host(place.host, proxied=proxied)
        sent = {"Accept-Encoding": "identity", "User-Agent": "store_lib", **headers}
        if first.authorization is not None and place.origin == first.origin:
            sent["Authorization"] = first.authorization
        try:
            return self.connections.manager(place.scheme).urlopen(
                method,
                place.url,
                headers=sent,
                redirect=False,
                retries=False,
                timeout=self.timeout,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            raise unreachable(error, place) from error


def _redirected(place: HttpLocation, response: BaseHTTPResponse) -> HttpLocation:
    """Return where a redirect from ``place`` leads, if one may lead there."""
    given = response.headers.get("Location")
    if not given:
        raise BackendException(f"{place.shown} redirects ({response.status}) to nowhere.")
    with contextlib.suppress(UnicodeError):  # neither ASCII nor UTF-8: stays as it came
        given = given.encode("latin-1").decode()
    try:
        target = HttpLocation.parse(urljoin(place.url, given.partition("#")[0]))
    except (BadStoreUri, ValueError) as error:
        raise BadStoreUri(f"{place.shown} redirects to what is refused: {error}") from None
    if target.login is not None:
        raise BadStoreUri(f"{place.shown} redirects to a URI with credentials, which is refused.")
    if place.scheme == "https" and target.scheme != "https":
        raise BadStoreUri(
            f"{place.shown} redirects to {target.shown}, which is refused: from https to http."
        )
    return target


def content_length(response: BaseHTTPResponse) -> int | None:
    """Return how long the server says the body is; ``None`` when it does not.

    :raises BackendException: what it says is no length
    """
    text = response.headers.get("Content-Length")
    if text is None or response.headers.get("Transfer-Encoding"):
        return None
    values = {value.strip() for value in text.split(",")}
    value = values.pop()
    if values or not re.fullmatch(r"[0-9]{1,19}", value):
        raise BackendException(f"Expected a Content-Length in bytes, got {text[:40]!r}")
    return int(value)


def check_encoding(response: BaseHTTPResponse, location: HttpLocation) -> None:
    """Refuse a body that is not the object's bytes as they are.

    :raises BackendException: the server has encoded it, though it was asked not to
    """
    for header, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        coding = response.headers.get(header, plain).strip().lower()
        if coding != plain:
            raise BackendException(
                f"Expected the bytes of {location.shown} as they are, got {header} {coding!r}. "
                "Switch encoding off for it on the server."
            )


def modified(response: BaseHTTPResponse) -> float | None:
    """Return the Last-Modified time in seconds since the epoch, where it is one."""
    return _seconds(response.headers.get("Last-Modified"))


def validator(response: BaseHTTPResponse) -> str | None:
    """Return what If-Range may say to get more of these very bytes, or ``None``.

    A strong ETag; else a Last-Modified that the server's clock shows to be a second old or
    more, so that no second change can hide behind it (RFC 9110, 8.8.2.2).
    """
    if response.headers.get("Accept-Ranges", "").strip().lower() == "none":
        return None
    tag = response.headers.get("ETag")
    if tag is not None:
        return tag if _TAG.fullmatch(tag) else None
    changed, now = modified(response), _seconds(response.headers.get("Date"))
    if changed is None or now is None or now - changed < 1:
        return None
    return response.headers["Last-Modified"]


def _seconds(date: str | None) -> float | None:
    try:
        return None if date is None else email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
