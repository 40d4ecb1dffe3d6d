"""Strict parsing of hosts with ports, as in URIs and options."""

import contextlib
import ipaddress
import re
from urllib.parse import urlsplit

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


#: The largest number of characters of a URL that is parsed.
_LONGEST_URL = 8192


def is_host_name(text: str) -> bool:
    """Return whether ``text`` has the form of an ASCII host name, as IPv4 addresses have too."""
    return len(text) <= 253 and _NAME.fullmatch(text) is not None


def split_host(text: str, default_port: int) -> tuple[str, int]:
    """Parse ``host[:port]``; an IPv6 address must be in brackets.

    :returns: the host in lower case (an IPv6 address without its brackets) and the port
    :raises ValueError: ``text`` is malformed; the message says what was expected and omits ``text``
    """
    if text.startswith("["):
        host, closed, port_text = text[1:].partition("]")
        good = bool(closed) and port_text[:1] in ("", ":")
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            good = False
        if not good or "%" in host:
            raise ValueError("an IPv6 address without a zone in the brackets")
        given = port_text[:1] == ":"
        port_text = port_text[1:]
    else:
        host, colon, port_text = text.partition(":")
        given = bool(colon)
        if not host:
            raise ValueError("a host name")
        if not is_host_name(host):
            raise ValueError("a host name of ASCII letters, digits, -, _ and dots")
    if not given:
        return host.lower(), default_port
    # Five digits at most, as Python refuses to convert very long numbers.
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 1 <= int(port_text) <= 65535:
        raise ValueError("a port from 1 to 65535")
    return host.lower(), int(port_text)


def join_host(host: str, port: int, default_port: int) -> str:
    """Return ``host:port``, or only ``host`` if ``port`` is the default."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port == default_port else f"{shown}:{port}"


def origin_of(url: str) -> str:
    """Return the scheme, host and port of a redirect's target, for a message."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url[:_LONGEST_URL])
        if parts.hostname:
            port = f":{parts.port}" if parts.port else ""
            return f"{parts.scheme or 'http'}://{ascii(parts.hostname)[1:-1]}{port}"
    return "another address of the same host"
