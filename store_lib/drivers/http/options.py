"""The options of the http driver, and the proxies that they name."""

from collections.abc import Mapping

from oslo_config import cfg

from store_lib.clients.http import Proxy
from store_lib.clients.network_errors import OptionNames
from store_lib.drivers.http.location import HttpLocation
from store_lib.exceptions import BadStoreUri
from store_lib.options import LONGEST_TIME

OPTIONS: tuple[cfg.Opt, ...] = (
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

#: The options that error messages name.
OPTION_NAMES = OptionNames(
    "https_ca_certificates_file",
    "http_connect_timeout",
    "http_read_timeout",
    "http_proxy_information",
)


def parse_proxies(entries: Mapping[str, str]) -> dict[str, Proxy]:
    """Return the proxies of ``http_proxy_information``, by scheme.

    :raises ValueError: an entry is malformed; the message has no credentials
    """
    proxies = {}
    for scheme, text in entries.items():
        if scheme not in HttpLocation.schemes:
            raise ValueError(
                "http_proxy_information: expected scheme:proxy with the scheme http or https, "
                f"got the scheme {scheme!r}"
            )
        try:
            proxies[scheme] = parse_proxy(text)
        except ValueError as error:
            raise ValueError(f"http_proxy_information for {scheme}: {error}") from None
    return proxies


def parse_proxy(text: str) -> Proxy:
    """Parse a proxy: ``host:port``, or a URL with or without a login.

    :raises ValueError: ``text`` is malformed; the message has no credentials
    """
    try:
        location = HttpLocation.parse(text if "://" in text else f"http://{text}")
    except BadStoreUri as error:
        raise ValueError(error.msg) from None
    if location.target != "/":
        raise ValueError(f"Expected a proxy without a path, got {location.shown}")
    if location.authorization is None:
        return Proxy(location.base, {})
    return Proxy(location.base, {"Proxy-Authorization": location.authorization})
