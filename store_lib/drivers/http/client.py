"""Requests with redirects: every target is checked, credentials are sent to their origin only."""

import contextlib
import dataclasses
from collections.abc import Mapping
from urllib.parse import urljoin

from urllib3.response import BaseHTTPResponse

from store_lib.clients.addresses import AddressRules
from store_lib.clients.http import HttpClient, error_for_response
from store_lib.display import get_logger
from store_lib.drivers.http.location import HttpLocation
from store_lib.exceptions import BackendException, BadStoreUri, MaxRedirectsExceeded, StoreError
from store_lib.head_limit import head_limit, limited_heads
from store_lib.location import LONGEST_URI
from store_lib.redaction import Secret

_LOG = get_logger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_ADVICE = {
    401: "Give user:password@ in the URI, or check them.",
    407: "Give user:password@ in http_proxy_information, or check them.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """Sends the requests of one store."""

    http: HttpClient
    rules: AddressRules
    max_redirects: int

    def open(
        self, method: str, location: HttpLocation, headers: Mapping[str, str] | None = None
    ) -> BaseHTTPResponse:
        """Send a request, follow its redirects, and return a response of any other status.

        The body is not read yet: the caller reads it to its end or closes the response.

        :raises Forbidden: a host or an address is refused by the lists
        :raises MaxRedirectsExceeded: there are more redirects than allowed
        :raises BadStoreUri: a redirect's target is not allowed
        :raises RemoteServiceUnavailable: the server did not respond
        """
        with limited_heads(left=head_limit().seconds):  # one limit for all redirects together
            target = location
            for _ in range(self.max_redirects + 1):
                response = self._request(method, target, location, headers or {})
                if response.status not in _REDIRECTS:
                    return response
                response.close()
                source, target = target, _redirected(target, response)
                _LOG.debug(
                    "Status %d redirects %s to %s", response.status, source.shown, target.shown
                )
        raise MaxRedirectsExceeded(
            f"More than {self.max_redirects} redirects (http_max_redirects) from {location.shown}. "
            "Raise the limit, or give the URI that they end at."
        )

    def _request(
        self, method: str, target: HttpLocation, first: HttpLocation, headers: Mapping[str, str]
    ) -> BaseHTTPResponse:
        self.rules.check_host(target.host, proxied=self.http.is_proxied(target.scheme))
        sent = dict(headers)
        if first.authorization is not None and target.origin == first.origin:
            sent["Authorization"] = first.authorization
        # The query may be a credential, which no traceback may show.
        return self.http.open(method, Secret(target.url), sent)


class WebObject:
    """An object on a web server, see :class:`store_lib.clients.ranges.RemoteObject`."""

    def __init__(self, client: Client, location: HttpLocation) -> None:
        self._client = client
        self._location = location
        self.display_name = location.shown
        self.server = client.http.server(location.base)

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET to the object's URI, and follow redirects."""
        return self._client.open("GET", self._location, headers)

    def error_for_response(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error for a response without the object."""
        return error_for_response(response, "Reading", self.display_name, advice=_ADVICE)


def _redirected(source: HttpLocation, response: BaseHTTPResponse) -> HttpLocation:
    """Return the target of a redirect from ``source``, if it is allowed."""
    given = response.headers.get("Location", "").strip(" \t")
    if not given:
        raise BackendException(f"{source.shown} redirects ({response.status}) to nowhere.")
    if len(given) > LONGEST_URI:
        raise BadStoreUri(
            f"{source.shown} redirects to a URI of {len(given)} characters, which is refused: "
            f"expected at most {LONGEST_URI}."
        )
    with contextlib.suppress(UnicodeError):  # not UTF-8: it is parsed as it is
        given = given.encode("latin-1").decode()
    uri, _, fragment = given.partition("#")
    try:
        target = HttpLocation.parse(urljoin(source.url, uri))
    except (BadStoreUri, ValueError) as error:
        # If an @ follows the #, the # may be part of a password.  A ValueError quotes the target.
        known = isinstance(error, BadStoreUri) and "@" not in fragment
        why = error if known else "a malformed URI, perhaps with credentials"
        raise BadStoreUri(f"{source.shown} redirects to what is refused: {why}") from None
    if target.login is not None:
        raise BadStoreUri(f"{source.shown} redirects to a URI with credentials, which is refused.")
    if source.scheme == "https" and target.scheme != "https":
        raise BadStoreUri(
            f"{source.shown} redirects to {target.shown}, which is refused: from https to http."
        )
    return target
