"""Which hosts may be read from: allow and deny lists of names and networks."""

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from store_lib.clients.hosts import is_host_name
from store_lib.display import get_logger
from store_lib.exceptions import Forbidden

_LOG = get_logger(__name__)

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_ALLOWED = "http_allowed_addresses"
_DENIED = "http_denied_addresses"


class AddressRules:
    """What the two lists say of a host, by its name and by the address it turns out to have.

    Deny wins.  With an empty allow list all is allowed that is not denied, otherwise nothing
    but what it names, by host name or by address.

    :raises ValueError: an entry is no host name, address or network; the message says which
    """

    def __init__(self, allowed: Iterable[str] = (), denied: Iterable[str] = ()) -> None:
        self._allowed_names, self._allowed_networks = _entries(_ALLOWED, allowed)
        self._denied_names, self._denied_networks = _entries(_DENIED, denied)
        self._limited = bool(self._allowed_names or self._allowed_networks)

    def __bool__(self) -> bool:
        return self._limited or bool(self._denied_names or self._denied_networks)

    def check_host(self, host: str, *, proxied: bool) -> None:
        """Check what can be known before connecting.

        :param proxied: a proxy will look the name up, so that :meth:`check_address` never runs:
            a name that only its address could allow is refused here
        :raises Forbidden: one of the lists refuses it
        """
        address = _literal(host)
        if address is not None:
            self._check(host, address)
            return
        name = _folded(host)
        if name in self._denied_names:
            raise _refusal(host, f"it is in {_DENIED}")
        if self._limited and name not in self._allowed_names:
            if proxied:
                raise _refusal(host, f"its name is not in {_ALLOWED}, and a proxy looks it up")
            if not self._allowed_networks:
                raise _refusal(host, f"it is not in {_ALLOWED}")

    def check_address(self, host: str, address: str) -> None:
        """Check ``address``, which the name ``host`` has led to.

        :raises Forbidden: one of the lists refuses it
        """
        self._check(host, ipaddress.ip_address(address))

    def _check(self, host: str, address: _Address) -> None:
        if _within(address, self._denied_networks):
            _LOG.debug("Host %s has the address %s, which is in %s", host, address, _DENIED)
            raise _refusal(host, f"its address is in {_DENIED}")
        allowed = _folded(host) in self._allowed_names or _within(address, self._allowed_networks)
        if self._limited and not allowed:
            _LOG.debug("Host %s has the address %s, which is not in %s", host, address, _ALLOWED)
            raise _refusal(host, f"neither its name nor its address is in {_ALLOWED}")


def _refusal(host: str, why: str) -> Forbidden:
    # The address stays out of the message: a caller is not to learn what a name means in here.
    return Forbidden(f"Reading from host {host} is refused: {why}. Change that option to allow it.")


def _folded(host: str) -> str:
    return host.rstrip(".").lower()


def _literal(host: str) -> _Address | None:
    """Return the address that ``host`` is a writing of, such as 10.0.0.1 or 0x7f.1."""
    host = host.rstrip(".")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _within(address: _Address, networks: Sequence[_Network]) -> bool:
    forms: list[_Address] = [address]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        forms.append(address.ipv4_mapped)
    return any(form in network for form in forms for network in networks)


def _entries(option: str, entries: Iterable[str]) -> tuple[frozenset[str], list[_Network]]:
    names: set[str] = set()
    networks: list[_Network] = []
    for entry in entries:
        text = entry.strip()
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        try:
            networks.append(ipaddress.ip_network(bare))
        except ValueError as error:
            # A mistyped network must not pass for a name that never matches.
            last = _folded(text).rpartition(".")[2]
            if not is_host_name(text) or _literal(text) is not None or last.isdigit():
                raise ValueError(
                    f"{option}: expected a host name, an address or a network such as "
                    f"10.0.0.0/8, got {text!r} ({error})"
                ) from None
            names.add(_folded(text))
    return frozenset(names), networks
