"""The http driver: its options, opening an object, and asking for its size."""

import contextlib
from collections.abc import Mapping
from typing import Any, ClassVar

from oslo_config import cfg
from urllib3.util import Timeout

from store_lib.clients.addresses import AddressRules
from store_lib.clients.network_errors import BUSY
from store_lib.clients.ranges import RangedReader, open_range
from store_lib.clients.response_headers import check_encoding, content_length, last_modified
from store_lib.clients.tls import Tls
from store_lib.driver import Driver, Reader, Stat
from store_lib.drivers.http.client import Client, WebObject
from store_lib.drivers.http.connection import Connections, Proxy
from store_lib.drivers.http.errors import refused
from store_lib.drivers.http.location import HttpLocation
from store_lib.exceptions import BackendException
from store_lib.location import Location
from store_lib.options import LONGEST_TIME

#: Statuses of a HEAD after which a GET of a byte would do no better.  500 and 502 may come of a
#: program that fails at a HEAD alone.
_FINAL = (frozenset({401, 407, 416}) | BUSY) - {500, 502}


class HttpDriver(Driver[HttpLocation]):
    """Reads objects from web servers; adding and deleting are not supported."""

    schemes: ClassVar[tuple[str, ...]] = HttpLocation.schemes
    location_class: ClassVar[type[Location]] = HttpLocation
    ranges = True
    options: ClassVar[tuple[cfg.Opt, ...]] = (
        cfg.StrOpt(
            "https_ca_certificates_file",
            help="File with the certificates, in PEM, of the authorities that servers are "
            "verified against. Left out, the system's authorities are trusted. With it, "
            "https_insecure is ignored.",
        ),
        cfg.BoolOpt(
            "https_insecure",
            default=False,
            help="Do not verify servers' certificates. Anybody on the way can then read and "
            "alter what is transferred. glance_store's default was True: it did not verify.",
        ),
        cfg.DictOpt(
            "http_proxy_information",
            default={},
            secret=True,
            sample_default="http:10.0.0.1:3128, https:10.0.0.1:1080",
            help="Proxies, as a comma-separated list of scheme:proxy for the schemes http and "
            "https. A proxy is host:port, or an http or https URL, which may hold a login. "
            "Proxies of the environment are never used.",
        ),
        cfg.ListOpt(
            "http_allowed_addresses",
            default=[],
            sample_default="images.example.org, 192.0.2.0/24",
            help="Host names, addresses and networks that may be read from; empty for no limit. "
            "Redirects are held to it too. A host is allowed by its name, or by the address "
            "that is connected to. Behind a proxy, names can be allowed by name alone.",
        ),
        cfg.ListOpt(
            "http_denied_addresses",
            default=[],
            sample_default="127.0.0.0/8, ::1, 169.254.0.0/16",
            help="Host names, addresses and networks that are never read from, even where "
            "http_allowed_addresses has them. Behind a proxy, which looks names up by itself, "
            "networks only bar addresses that are written as such.",
        ),
        cfg.IntOpt(
            "http_max_redirects",
            default=5,
            min=0,
            max=100,
            help="How many redirects are followed for one request. None leads from https to "
            "http, nor to any other scheme.",
        ),
        cfg.FloatOpt(
            "http_connect_timeout",
            default=10.0,
            min=0.001,
            max=LONGEST_TIME,
            help="Seconds for a connection to a server to be made.",
        ),
        cfg.FloatOpt(
            "http_read_timeout",
            default=60.0,
            min=0.001,
            max=LONGEST_TIME,
            help="Seconds for which a server may send no byte before it is given up.",
        ),
    )

    _client: Client

    @property
    def url_prefix(self) -> str:
        """What the URIs of both schemes begin with."""
        return "http"

    def configure(self) -> None:
        """Check the options; nothing is connected to.

        :raises BadStoreConfiguration: a certificate file, a list entry or a proxy is no good
        """
        try:
            rules = AddressRules(
                ("http_allowed_addresses", "http_denied_addresses"),
                self.conf.http_allowed_addresses or (),
                self.conf.http_denied_addresses or (),
            )
            proxies = _proxies(self.conf.http_proxy_information or {})
        except ValueError as error:
            raise self.misconfigured(str(error)) from None
        tls = Tls(
            self.store_id,
            self.conf,
            authorities="https_ca_certificates_file",
            insecure="https_insecure",
            peers="https servers",
        )
        self._client = Client(
            Connections(rules, proxies, tls),
            rules,
            self.conf.http_max_redirects,
            Timeout(
                connect=self.conf.http_connect_timeout, read=self.conf.silence("http_read_timeout")
            ),
        )

    def read(self, location: Location, offset: int, length: int | None, *, context: Any) -> Reader:
        """Open an object by a GET, with a Range where part of it is wanted.

        :raises Forbidden: the server, or a list of allowed or denied hosts, refuses it
        :raises StoreRandomGetNotSupported: the server sends no ranges
        :raises RemoteServiceUnavailable: it did not answer, or cannot serve now
        """
        return RangedReader(WebObject(self._client, _checked(location)), offset, length)

    def stat(self, location: Location, *, context: Any) -> Stat:
        """Ask for size and time by a HEAD; where that does not tell, by a GET of the first byte."""
        place = _checked(location)
        return self._stat_by_head(place) or self._stat_by_get(place)

    def close(self) -> None:
        """Close the idle connections of this process."""
        self._client.connections.close()

    def _stat_by_head(self, place: HttpLocation) -> Stat | None:
        """Return what a HEAD tells; ``None`` where a GET may tell another thing.

        Some servers have no HEAD, or answer it by another program than a GET: with 404, with a
        length of 0, or of another encoding.  A presigned URL is signed for GET alone.
        """
        try:
            with contextlib.closing(self._client.send("HEAD", place, {})) as response:
                if response.status == 200:
                    check_encoding(response, place.shown)
                    found = Stat(content_length(response), last_modified(response))
                    response.read(decode_content=False)  # of nothing: gives the connection back
                    return found if found.size else None
                told = refused(response, place)
        except BackendException:  # an encoding, or a length that is none
            return None
        if response.status in _FINAL:
            raise told
        return None

    def _stat_by_get(self, place: HttpLocation) -> Stat:
        answer = open_range(WebObject(self._client, place), 0, 0)
        return Stat(answer.size, answer.modified)


def _checked(location: Location) -> HttpLocation:
    assert isinstance(location, HttpLocation), type(location)
    return location


def _proxies(given: Mapping[str, str]) -> dict[str, Proxy]:
    proxies = {}
    for scheme, text in given.items():
        if scheme not in HttpLocation.schemes:
            raise ValueError(
                "http_proxy_information: expected scheme:proxy with the scheme http or https, "
                f"got the scheme {scheme!r}"
            )
        try:
            proxies[scheme] = Proxy(text)
        except ValueError as error:
            raise ValueError(f"http_proxy_information for {scheme}: {error}") from None
    return proxies
