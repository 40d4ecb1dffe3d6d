"""Which hosts the lists of names and networks admit."""

import pytest

from store_lib.clients.addresses import AddressRules
from store_lib.exceptions import Forbidden

OPTIONS = ("allowing", "denying")


@pytest.mark.parametrize(
    ("allowed", "denied", "host", "address", "list_name"),
    [
        ([], [], "host", "127.0.0.1", None),
        ([], ["127.0.0.0/8"], "host", "127.0.0.1", "denying"),
        ([], ["127.0.0.0/8"], "host", "::ffff:127.0.0.1", "denying"),
        ([], ["127.0.0.0/8"], "host", "10.0.0.1", None),
        ([], ["::1", "fe80::/10"], "host", "fe80::1%2", "denying"),
        (["10.0.0.0/8"], [], "host", "10.9.9.9", None),
        (["10.0.0.0/8"], [], "host", "11.0.0.1", "allowing"),
        (["host"], [], "HOST.", "11.0.0.1", None),
        (["Host."], [], "host", "11.0.0.1", None),
        (["host"], ["11.0.0.1"], "host", "11.0.0.1", "denying"),
        (["10.0.0.0/8"], ["10.0.0.7"], "host", "10.0.0.7", "denying"),
        (["[::1]"], [], "::1", "::1", None),
    ],
)
def test_rules_for_addresses(
    allowed: list[str], denied: list[str], host: str, address: str, list_name: str | None
) -> None:
    """Deny wins; a host is allowed by its name or by the address it has."""
    rules = AddressRules(OPTIONS, allowed, denied)
    if list_name is None:
        rules.check_address(host, address)
    else:
        with pytest.raises(Forbidden, match=list_name) as caught:
            rules.check_address(host, address)
        assert address not in str(caught.value) or host == address


@pytest.mark.parametrize(
    ("allowed", "denied", "host", "list_name"),
    [
        ([], ["host"], "Host.", "denying"),
        ([], ["127.0.0.0/8"], "127.0.0.1", "denying"),
        ([], ["127.0.0.0/8"], "0x7f.1", "denying"),
        ([], ["127.0.0.0/8"], "2130706433", "denying"),
        ([], ["127.0.0.0/8"], "::ffff:7f00:1", "denying"),
        ([], ["127.0.0.0/8"], "host", None),
        (["other"], [], "host", "allowing"),
        (["10.0.0.0/8"], [], "11.0.0.1", "allowing"),
        (["10.0.0.0/8"], [], "10.0.0.1", None),
        (["10.0.0.0/8"], [], "host", None),
        (["host"], [], "host", None),
    ],
)
def test_rules_for_hosts(
    allowed: list[str], denied: list[str], host: str, list_name: str | None
) -> None:
    """What a name or a written address tells is checked before anything is connected to."""
    rules = AddressRules(OPTIONS, allowed, denied)
    if list_name is None:
        rules.check_host(host, proxied=False)
    else:
        with pytest.raises(Forbidden, match=list_name):
            rules.check_host(host, proxied=False)


def test_rules_behind_a_proxy() -> None:
    """A name that only its address could allow is refused where nobody sees the address."""
    rules = AddressRules(OPTIONS, ["10.0.0.0/8", "named"], ["bad"])
    rules.check_host("10.0.0.1", proxied=True)
    rules.check_host("named", proxied=True)
    with pytest.raises(Forbidden, match=r"allowing.*proxy"):
        rules.check_host("host", proxied=True)
    with pytest.raises(Forbidden, match="denying"):
        rules.check_host("bad", proxied=True)


#: Addresses of IPv6 that lead to 10.1.2.3 by a translator or a tunnel.
MEANT = [
    "::ffff:10.1.2.3",
    "::10.1.2.3",
    "::ffff:0:10.1.2.3",
    "64:ff9b::10.1.2.3",
    "64:ff9b:1:a01:2:300::",  # of a translator whose prefix has 48 bits
    "64:ff9b:1:ff0a:1:203::",  # 56
    "64:ff9b:1:ffff:a:102:300:0",  # 64
    "64:ff9b:1:ffff:0:ffff:10.1.2.3",  # 96
    "2002:a01:203::1",
    "2001:0:a01:203::",  # the server of Teredo
    "2001:0:4136:e378:8000:63bf:f5fe:fdfc",  # its client
    "fe80::5efe:10.1.2.3",
    "2001:db8::200:5efe:10.1.2.3",
]


@pytest.mark.parametrize("address", MEANT)
def test_addresses_that_mean_others(address: str) -> None:
    """What may lead to a denied address is denied, whether looked up or written in a URI."""
    for denied in ("10.0.0.0/8", "10.1.2.3"):
        rules = AddressRules(OPTIONS, (), [denied])
        with pytest.raises(Forbidden, match="denying"):
            rules.check_address("host", address)
        with pytest.raises(Forbidden, match="denying"):
            rules.check_host(address, proxied=True)
    AddressRules(OPTIONS, (), ["11.0.0.0/8", "10.1.2.4"]).check_address("host", address)


@pytest.mark.parametrize("address", MEANT)
def test_addresses_that_mean_others_are_not_allowed_with_them(address: str) -> None:
    """Where a translator or a tunnel leads is not known for sure; another writing is the same."""
    rules = AddressRules(OPTIONS, ["10.0.0.0/8"])
    if address.startswith("::ffff:10"):
        rules.check_address("host", address)
        return
    with pytest.raises(Forbidden, match="allowing"):
        rules.check_address("host", address)
    AddressRules(OPTIONS, [f"{address}/128"]).check_address("host", address)


def test_usual_addresses_mean_themselves() -> None:
    """Addresses with zeros in them are no addresses of IPv4."""
    rules = AddressRules(OPTIONS, (), ["0.0.0.0/0"])
    for address in ("::1", "::", "2001:db8::1", "fe80::1", "64:ff9b:2::1", "2001:db8::10.0.0.1"):
        rules.check_address("host", address)


def test_a_network_of_mapped_addresses() -> None:
    """A network of IPv4 may be written as one of IPv6."""
    rules = AddressRules(OPTIONS, (), ["::ffff:10.0.0.0/104"])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3"):
        with pytest.raises(Forbidden):
            rules.check_address("host", address)
    rules.check_address("host", "11.0.0.1")
