"""The http driver: its configuration, and the size and the bytes of an object."""

import contextlib
from typing import Any, ClassVar

from store_lib.clients.addresses import AddressRules
from store_lib.clients.http import HttpClient
from store_lib.clients.network_errors import BUSY
from store_lib.clients.ranges import RangedReader, open_range
from store_lib.clients.response_headers import check_encoding, content_length, last_modified
from store_lib.clients.tls import Tls
from store_lib.driver import Driver, Reader, Stat
from store_lib.drivers.http.client import Client, WebObject
from store_lib.drivers.http.location import HttpLocation
from store_lib.drivers.http.options import OPTION_NAMES, OPTIONS, parse_proxies
from store_lib.exceptions import BackendException

#: Statuses of a HEAD after which a GET of a byte would fail as well.  500 and 502 are left out, as
#: they may come from a program that fails only at HEAD.
_FINAL = (frozenset({401, 407, 416}) | BUSY) - {500, 502}


class HttpDriver(Driver[HttpLocation]):
    """Reads objects from web servers; adding and deleting are not supported."""

    schemes: ClassVar[tuple[str, ...]] = HttpLocation.schemes
    location_class: ClassVar[type[HttpLocation]] = HttpLocation
    ranges = True
    options = OPTIONS

    _client: Client

    def configure(self) -> None:
        """Check the options, without connecting to a server.

        :raises BadStoreConfiguration: a certificate file, a list entry or a proxy cannot be used
        """
        try:
            rules = AddressRules(
                ("http_allowed_addresses", "http_denied_addresses"),
                self.conf.http_allowed_addresses or (),
                self.conf.http_denied_addresses or (),
            )
            proxies = parse_proxies(self.conf.http_proxy_information or {})
        except ValueError as error:
            raise self.misconfigured(str(error)) from None
        tls = Tls(
            self.store_id,
            self.conf,
            authorities="https_ca_certificates_file",
            insecure="https_insecure",
            peers="https servers",
        )
        http = HttpClient(
            tls,
            OPTION_NAMES,
            connect_timeout=self.conf.http_connect_timeout,
            read_timeout=self.conf.silence("http_read_timeout"),
            check_address=rules.check_address if rules else None,
            proxies=proxies,
        )
        self._client = Client(http, rules, self.conf.http_max_redirects)

    def read(
        self, location: HttpLocation, offset: int, length: int | None, *, context: Any
    ) -> Reader:
        """Open an object by a GET, with a Range if only a part of it is wanted.

        :raises Forbidden: the server refuses the request, or the host is denied or not allowed
        :raises StoreRandomGetNotSupported: the server does not support ranges
        :raises RemoteServiceUnavailable: the server did not respond, or is not available now
        """
        return RangedReader(WebObject(self._client, location), offset, length)

    def stat(self, location: HttpLocation, *, context: Any) -> Stat:
        """Return the size and time from a HEAD, or from a GET of one byte if HEAD has no size."""
        stat = self._stat_by_head(location)
        if stat is None:
            response = open_range(WebObject(self._client, location), 0, 0)
            stat = Stat(response.size, response.modified)
        return stat

    @property
    def url_prefix(self) -> str:
        """The common prefix of the URIs of both schemes."""
        return "http"

    def close(self) -> None:
        self._client.http.close()

    def _stat_by_head(self, location: HttpLocation) -> Stat | None:
        """Return the result of a HEAD; ``None`` if a GET may have another result.

        Some servers do not support HEAD, or respond to it with 404, with a length of 0 or with
        another encoding than to GET.  A presigned URL is valid for GET only.
        """
        try:
            with contextlib.closing(self._client.open("HEAD", location)) as response:
                if response.status == 200:
                    check_encoding(response, location.shown)
                    stat = Stat(content_length(response), last_modified(response))
                    response.read(decode_content=False)  # no bytes, but it releases the connection
                    return stat if stat.size else None
                error = WebObject(self._client, location).error_for_response(response)
        except BackendException:  # an encoding, or a malformed length
            return None
        if response.status in _FINAL:
            raise error
        return None
