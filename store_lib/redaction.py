"""Hides credentials in URIs, and in texts that contain them, before they are printed or logged.

The texts are untrusted and may be very long, so the run time is linear in their length.
"""

import functools
import html
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

#: Replacement for a secret.
HIDDEN = "***"

_NO_USERS = ("file", "filesystem")
_BLANK = re.compile(r"\s")
_BLANKS = re.compile(r"(\s+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
#: Separators in a query.
_QUERY = re.compile(r"([&;=\s])")
_SECRET_NAME = re.compile(
    r"signature|sig|token|secret|password|credential|accesskey|key", re.IGNORECASE
)
#: Header fields whose values are secrets, of requests and responses: hidden where a text names the
#: field, and where it quotes the value that was sent.
SECRET_HEADERS = frozenset(
    {
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "x-auth-key",
        "x-auth-token",
        "x-service-token",
        "x-storage-token",
        "x-subject-token",
    }
)
#: Other names before secrets: vSphere's cookies, and those of AWS's names as they stand in a query,
#: a dictionary, JSON or XML, which botocore logs.
_SECRET_COOKIES = ("vmware_soap_session", "vmware_cgi_ticket")
_SECRET_VALUES = (
    r"(?:credential|signature(?:provided)?|access-?key(?:-?id)?"
    r"|(?:bearer_|security-?|session-?|access-?|identity-?)token)(?:['\"]{0,2}[=:]\s*|>)"
)
#: What follows the name of a header field in a sentence about it, and is no value.
_PROSE = r"\s(?:headers?|mechanism|is|was|failed)[\s,;]"
#: Minimum length of a secret that is replaced anywhere in a text.
_SHORTEST = 4
_VALUE_END = re.compile(r"[#'\"<>]")


@functools.cache
def _secret_field(headers: frozenset[str]) -> re.Pattern[str]:
    """Return the pattern of a named secret; its first group is all before the value."""
    names = "|".join(map(re.escape, (*sorted(headers), *_SECRET_COOKIES)))
    return re.compile(
        rf"((?:{names})(?:\sheader\s?[:=]\s?|(?!{_PROSE})\W{{1,8}})(?:(?:basic|bearer)\s)?"
        rf"|{_SECRET_VALUES})[^\s<>&;,]+",
        re.IGNORECASE,
    )


def is_secret_header(name: str) -> bool:
    """Return whether the value of a header field is a secret."""
    return name.lower() in SECRET_HEADERS


class Secret(str):
    """A password, token or login whose ``repr`` hides it, as in listings of local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)


def is_scheme(text: str) -> bool:
    """Return whether ``text`` has the syntax of a URI scheme."""
    return _SCHEME.fullmatch(text) is not None


def redact_uri(uri: str) -> str:
    """Return a URI with its credentials replaced by ``***``; see :func:`redact`.

    If it does not begin with a scheme and ``://``, a secret can be anywhere: the query is hidden
    and, if there is an ``@``, everything after the first colon.  The query of an http URI is
    hidden too, since the secret of a presigned URL can have any name.
    """
    scheme, mark, _ = uri.partition("://")
    if scheme.lower() in ("http", "https"):
        return without_query(redact(uri))
    if not mark or not is_scheme(scheme):
        colon = uri.find(":")
        if 0 <= colon < uri.rfind("@"):
            return uri[: colon + 1] + HIDDEN
        uri = without_query(uri)
    return redact(uri)


def without_query(uri: str) -> str:
    """Return ``uri`` with everything after the first question mark hidden."""
    path, mark, query = uri.partition("?")
    return path + mark + (HIDDEN if query else "")


def redact(text: str, *, cut: bool = False) -> str:
    """Return ``text`` with the credentials of every URI in it replaced by ``***``.

    Old swift and S3 URIs contain keys with any unescaped characters, so everything from ``://`` to
    the last ``@`` is hidden, even if that hides a path.  A ``file`` URI has no credentials and is
    not changed.  Query values are hidden if their names suggest a signature, token, key or
    password (presigned and temporary URLs).  A word without ``://`` that has an ``@`` after a colon
    is treated as a mistyped URI.

    :param cut: whether the text was truncated, so that an ``@`` may have followed
    """
    start = text.find("://")
    if start < 0:
        return _without_values(_without_mistyped(text))
    if _SCHEME.fullmatch(text, 0, start) and not _has_no_user(text, start):
        at = len(text) if cut else text.rfind("@", start)
        if at >= 0:
            return _without_values(f"{text[: start + 3]}{HIDDEN}{text[at:] or '@'}")
    return _without_values(_without_mistyped(_without_users(text, cut)))


def _without_users(text: str, cut: bool) -> str:
    """Hide the logins of URIs in a text; a URI ends at white space."""
    kept: list[str] = []
    done, end, at = 0, 0, -1
    start = text.find("://")
    while start >= 0:
        if start >= end:
            blank = _BLANK.search(text, start)
            end = len(text) if blank is None else blank.start()
            at = end if cut and blank is None else text.rfind("@", start, end)
        if at < start:
            start = text.find("://", end)
        elif _has_no_user(text, start):
            start = text.find("://", start + 3)
        else:
            kept += (text[done : start + 3], HIDDEN, "@" if at == len(text) else "")
            done = at
            start = text.find("://", end)
    return "".join((*kept, text[done:]))


def _without_mistyped(text: str) -> str:
    """Hide the part of a word after its first colon if an ``@`` follows before any ``://``."""
    if "@" not in text:
        return text
    words = _BLANKS.split(text)
    for number, word in enumerate(words):
        head, mark, rest = word.partition("://")
        colon = head.find(":")
        if 0 <= colon < head.rfind("@"):
            words[number] = f"{head[: colon + 1]}{HIDDEN}{mark}{rest}"
    return "".join(words)


def _has_no_user(text: str, start: int) -> bool:
    """Return whether the scheme before ``start`` is one whose URIs have no login."""
    if not text.startswith("/", start + 3):
        return False  # it has no path, so it may be anything
    for scheme in _NO_USERS:
        begin = start - len(scheme)
        if begin >= 0 and text[begin:start].lower() == scheme:
            # A scheme begins with a letter and may contain other characters.
            before = text[max(0, begin - 32) : begin].rstrip("0123456789+.-")
            return not before[-1:].isalpha()
    return False


def _without_values(text: str) -> str:
    """Hide the values in a query whose names suggest secrets."""
    if "=" not in text:
        return text
    kept: list[str] = []
    named = hiding = False
    pieces = [*_QUERY.split(text), ""]
    for piece, mark in zip(pieces[::2], pieces[1::2], strict=True):
        if hiding:
            rest = _VALUE_END.search(piece)
            if rest is None and mark == "=":
                continue  # an equals sign within the value
            piece = "" if rest is None else piece[rest.start() :]
            hiding = False
        if mark == "=" and (named or "?" in piece):
            hiding = _SECRET_NAME.search(piece if named else piece.partition("?")[2]) is not None
        kept += (piece, mark, HIDDEN if hiding else "")
        named = mark in ("&", ";")
    return "".join(kept)


def hide(text: str, secrets: Iterable[str], *, cut: bool = False) -> str:
    """Return ``text`` without the secrets of a request, which an error page or a log may quote.

    Secret header fields and other named values are hidden even if they are not in ``secrets``.

    :param secrets: the secrets exactly as they were sent
    :param cut: whether the text was truncated, so that it may end with a part of a secret
    """
    forms = {
        form
        for secret in secrets
        for form in (
            secret,
            html.escape(secret),
            json.dumps(secret)[1:-1],
            quote(secret, errors="replace"),
            quote(secret, safe="", errors="replace"),
        )
        if len(secret) >= _SHORTEST
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
        if cut:
            for length in range(min(len(form) - 1, len(text)), _SHORTEST - 1, -1):
                if text.endswith(form[:length]):
                    text = text[:-length] + HIDDEN
                    break
    return _secret_field(SECRET_HEADERS).sub(rf"\1{HIDDEN}", text)
