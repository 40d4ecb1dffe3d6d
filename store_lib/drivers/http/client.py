"""One request with its redirects: each target checked anew, credentials kept at their origin."""

import contextlib
import dataclasses
from collections.abc import Mapping
from urllib.parse import urljoin

from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from store_lib.clients.addresses import AddressRules
from store_lib.clients.network_errors import request_errors
from store_lib.display import get_logger
from store_lib.drivers.http.connection import Connections
from store_lib.drivers.http.errors import refused, server_of
from store_lib.drivers.http.location import HttpLocation
from store_lib.exceptions import BackendException, BadStoreUri, MaxRedirectsExceeded, StoreError
from store_lib.head_limit import head_limit, limited_heads
from store_lib.location import LONGEST_URI

_LOG = get_logger(__name__)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


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
        with limited_heads(left=head_limit().seconds):  # all redirects together
            return self._follow(method, location, headers)

    def _follow(
        self, method: str, location: HttpLocation, headers: Mapping[str, str]
    ) -> BaseHTTPResponse:
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
        with request_errors(server_of(place)):
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


class WebObject:
    """An object on a web server, to be read; see :class:`store_lib.clients.ranges.Source`."""

    def __init__(self, client: Client, location: HttpLocation) -> None:
        self._client = client
        self._location = location
        self.display_name = location.shown
        self.server = server_of(location)

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET, from the object's own URI on."""
        return self._client.send("GET", self._location, headers)

    def error_for_response(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error that an answer means which does not give the object."""
        return refused(response, self._location)


def _redirected(place: HttpLocation, response: BaseHTTPResponse) -> HttpLocation:
    """Return where a redirect from ``place`` leads, if one may lead there."""
    given = response.headers.get("Location", "").strip(" \t")
    if not given:
        raise BackendException(f"{place.shown} redirects ({response.status}) to nowhere.")
    if len(given) > LONGEST_URI:
        raise BadStoreUri(
            f"{place.shown} redirects to a URI of {len(given)} characters, which is refused: "
            f"expected at most {LONGEST_URI}."
        )
    with contextlib.suppress(UnicodeError):  # neither ASCII nor UTF-8: stays as it came
        given = given.encode("latin-1").decode()
    uri, _, fragment = given.partition("#")
    try:
        target = HttpLocation.parse(urljoin(place.url, uri))
    except (BadStoreUri, ValueError) as error:
        # With an @ behind it, the # may stand in a password; a ValueError quotes the target.
        known = isinstance(error, BadStoreUri) and "@" not in fragment
        why = error if known else "a malformed URI, perhaps with credentials"
        raise BadStoreUri(f"{place.shown} redirects to what is refused: {why}") from None
    if target.login is not None:
        raise BadStoreUri(f"{place.shown} redirects to a URI with credentials, which is refused.")
    if place.scheme == "https" and target.scheme != "https":
        raise BadStoreUri(
            f"{place.shown} redirects to {target.shown}, which is refused: from https to http."
        )
    return target
