"""Allow and deny lists that say which hosts a URI may lead to.

They are for clients whose URIs name the server; the others only connect to configured addresses.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from store_lib.clients.hosts import is_host_name
from store_lib.display import get_logger
from store_lib.exceptions import Forbidden

_LOG = get_logger(__name__)

#: Called with a host's name and one of its addresses; raises Forbidden if either is refused.
AddressCheck: TypeAlias = Callable[[str, str], None]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: IPv6 prefixes of addresses whose last 32 bits are an IPv4 address: those of the translators NAT64
#: and SIIT, and of the old IPv4-compatible form.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))
#: The prefix of local NAT64 translators.  The length of a translator's own prefix is not known, so
#: the IPv4 address may be in several places.
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
#: The third quarter of an ISATAP address; the last quarter is the IPv4 address.
_ISATAP = (0x00005EFE, 0x02005EFE)
_LAST = 0xFFFFFFFF
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class AddressRules:
    """An allow list and a deny list of hosts, checked by a host's name and by its addresses.

    An entry of the deny list outweighs the allow list.  If the allow list is empty, every host that
    is not denied is allowed; otherwise a host is allowed only if its name or its address is on the
    list.  If an IPv4 address is denied, so is any IPv6 address that leads to the same host through
    a translator or a tunnel.

    :param options: the names of the options with the allow list and the deny list, for messages
    :raises ValueError: an entry is not a host name, address or network; the message says which
    """

    def __init__(
        self, options: tuple[str, str], allowed: Iterable[str] = (), denied: Iterable[str] = ()
    ) -> None:
        self._allowing, self._denying = options
        self._allowed_names, self._allowed_networks = _entries(self._allowing, allowed)
        self._denied_names, self._denied_networks = _entries(self._denying, denied)
        self._limited = bool(self._allowed_names or self._allowed_networks)

    def __bool__(self) -> bool:
        return self._limited or bool(self._denied_names or self._denied_networks)

    def check_host(self, host: str, *, proxied: bool) -> None:
        """Check a host as far as possible before connecting.

        :param proxied: whether a proxy will look the name up; :meth:`check_address` is then never
            called, so a host that only its address could allow is refused here
        :raises Forbidden: the host is denied, or not allowed
        """
        address = _literal(host)
        if address is not None:
            self._check(host, address)
            return
        name = _canonical_host(host)
        if name in self._denied_names:
            raise _refusal(host, f"it is in {self._denying}")
        if self._limited and name not in self._allowed_names:
            if proxied:
                raise _refusal(
                    host, f"its name is not in {self._allowing}, and a proxy looks it up"
                )
            if not self._allowed_networks:
                raise _refusal(host, f"it is not in {self._allowing}")

    def check_address(self, host: str, address: str) -> None:
        """Check a host's name and one of its addresses; an :data:`AddressCheck`.

        :raises Forbidden: the name or the address is denied, or neither is allowed
        """
        self.check_host(host, proxied=False)
        self._check(host, ipaddress.ip_address(address))

    def _check(self, host: str, address: _Address) -> None:
        if _within(_meant(address), self._denied_networks):
            _LOG.debug("Host %s has the address %s, which is in %s", host, address, self._denying)
            raise _refusal(host, f"its address is in {self._denying}")
        allowed = _canonical_host(host) in self._allowed_names
        if self._limited and not (allowed or _within(_same(address), self._allowed_networks)):
            _LOG.debug(
                "Host %s has the address %s, which is not in %s", host, address, self._allowing
            )
            raise _refusal(host, f"neither its name nor its address is in {self._allowing}")


def _refusal(host: str, why: str) -> Forbidden:
    # The message omits the address: a caller must not learn how names resolve in this network.
    return Forbidden(f"Host {host} is refused: {why}. Change that option to allow it.")


def _canonical_host(host: str) -> str:
    return host.rstrip(".").lower()


def _literal(host: str) -> _Address | None:
    """Return the address that ``host`` spells, as 10.0.0.1 or 0x7f.1 do; ``None`` for a name."""
    host = host.rstrip(".")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _within(addresses: Iterable[_Address], networks: Sequence[_Network]) -> bool:
    return any(address in network for address in addresses for network in networks)


def _same(address: _Address) -> Iterator[_Address]:
    """Yield an address, and the IPv4 address that it maps to, if any."""
    yield address
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        yield address.ipv4_mapped


def _meant(address: _Address) -> Iterator[_Address]:
    """Yield an address, and the IPv4 addresses it may reach through a translator or a tunnel."""
    yield from _same(address)
    if not isinstance(address, ipaddress.IPv6Address):
        return
    bits = int(address)
    if any(address in network for network in _EMBEDDING) and bits > 1:
        yield ipaddress.IPv4Address(bits & _LAST)
    if address in _LOCAL_NAT64:
        # RFC 6052: the address follows a prefix of 48, 56, 64 or 96 bits, and skips bits 64 to 71.
        without = (bits >> 64 & 0xFFFF) << 56 | bits & (1 << 56) - 1
        for behind in (40, 32, 24):
            yield ipaddress.IPv4Address(without >> behind & _LAST)
        yield ipaddress.IPv4Address(bits & _LAST)
    if bits >> 32 & _LAST in _ISATAP:
        yield ipaddress.IPv4Address(bits & _LAST)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def _entries(option: str, entries: Iterable[str]) -> tuple[frozenset[str], list[_Network]]:
    names: set[str] = set()
    networks: list[_Network] = []
    for entry in entries:
        text = entry.strip()
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        try:
            network = ipaddress.ip_network(bare)
        except ValueError as error:
            # A mistyped network must not be taken for a host name, which would never match.
            last = _canonical_host(text).rpartition(".")[2]
            if not is_host_name(text) or _literal(text) is not None or last.isdigit():
                raise ValueError(
                    f"{option}: expected a host name, an address or a network such as "
                    f"10.0.0.0/8, got {text!r} ({error})"
                ) from None
            names.add(_canonical_host(text))
        else:
            networks.append(network)
            if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
                start = int(network.network_address) & _LAST
                networks.append(ipaddress.IPv4Network((start, network.prefixlen - 96)))
    return frozenset(names), networks
