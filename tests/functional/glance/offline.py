"""Lets Glance's own tests run anywhere, on loopback only: a plugin for their pytest."""

import errno
import socket

import pytest

#: An address that is nobody's (RFC 5737): tests look names up, and mock what would use them.
NOBODY = "203.0.113.1"

_getaddrinfo = socket.getaddrinfo
_connect = socket.socket.connect


def _resolve(host, *args, **kwargs):
    if isinstance(host, str):
        name = host.removesuffix(".")
        if name == "localhost":
            host = name  # with a dot at the end it is not in /etc/hosts
        elif name in ("example.com", "storeurl.com"):
            host = NOBODY
    return _getaddrinfo(host, *args, **kwargs)


def _stay_here(self, address):
    if self.family == socket.AF_INET and not address[0].startswith(("127.", "localhost")):
        raise OSError(errno.ENETUNREACH, "Glance's tests are run on loopback only")
    return _connect(self, address)


def pytest_configure(config: pytest.Config) -> None:
    socket.getaddrinfo = _resolve
    socket.socket.connect = _stay_here


def pytest_sessionstart(session: pytest.Session) -> None:
    # Registers [database], which a part of the tests alone would lack.
    import glance.cmd.manage  # noqa: F401


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> object:
    """Leave out what Glance's runner does not take for tests: bases that others mix in."""
    if name == "ImageAPIHelper" or (name.startswith("Test") and name.endswith("Mixin")):
        return []
    return None
