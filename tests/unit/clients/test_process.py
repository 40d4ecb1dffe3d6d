"""What each process makes for itself, and hosts as several drivers take them apart."""

import os
from collections.abc import Callable

import pytest

from store_lib.clients.hosts import join_host, split_host
from store_lib.clients.process import PerProcess
from store_lib.clients.tls import Tls
from store_lib.drivers.vmware.options import OPTIONS
from store_lib.options import StoreOptions


def in_a_child(function: Callable[[], object]) -> str:
    """Return the representation of what ``function`` returns in a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, repr(function()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return told


_PIDS = PerProcess(os.getpid)


def test_a_child_makes_its_own() -> None:
    """What a process has made it keeps; a child makes another, and its parent's stays."""
    assert _PIDS.get() == _PIDS.get() == os.getpid()
    assert in_a_child(_PIDS.get) not in (str(os.getpid()), "None", "")
    assert _PIDS.take() == os.getpid()
    assert _PIDS.take() is None


def test_a_child_does_not_close_what_it_inherits() -> None:
    """There is nothing for a child to take that it has not made."""
    _PIDS.get()
    assert in_a_child(_PIDS.take) == "None"
    _PIDS.take()


def _is_same() -> bool:
    return _TLS.context is _INHERITED


_TLS = Tls(
    "a",
    StoreOptions.of(OPTIONS),
    authorities="vmware_ca_file",
    insecure="vmware_insecure",
    peers="servers",
)
_INHERITED = _TLS.context


def test_a_child_has_a_tls_context_of_its_own() -> None:
    """A context that another thread had locked at the fork is not used by the child."""
    assert _TLS.context is _INHERITED
    assert in_a_child(_is_same) == "False"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("Example.org", "example.org", 443),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[2001:DB8:0::1]:65535", "2001:db8::1", 65535),
    ],
)
def test_hosts_are_taken_apart(text: str, host: str, port: int) -> None:
    """A host comes in lower case and without brackets, with its port or the default one."""
    assert split_host(text, 443) == (host, port)
    assert split_host(join_host(host, port, 443), 443) == (host, port)


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:0", "a:65536", "a b", "[::1", "[fe80::1%a]"])
def test_what_is_no_host_is_refused(text: str) -> None:
    """Anything else is a ValueError that says what was expected."""
    with pytest.raises(ValueError, match=r"^(a|an) "):
        split_host(text, 443)
