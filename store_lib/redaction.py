"""Hides credentials in URIs and in texts that hold them, before they are printed or logged.

Such texts come from servers and from anybody who names a URI, at any length, so each character
is looked at a fixed number of times.
"""

import html
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

#: What stands where a secret was.
HIDDEN = "***"

_NO_USERS = ("file", "filesystem")
_BLANK = re.compile(r"\s")
_BLANKS = re.compile(r"(\s+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
#: What a query is made of.
_QUERY = re.compile(r"([&;=\s])")
_SECRET_NAME = re.compile(
    r"signature|sig|token|secret|password|credential|accesskey|key", re.IGNORECASE
)
#: What stands before a secret: header fields as error pages quote them, and names of AWS's as they
#: stand in a query, a dictionary, JSON or XML, which botocore logs.
_SECRET_FIELD = re.compile(
    r"((?:(?:proxy-)?authorization|x-(?:auth|service|storage|subject)-token|x-auth-key"
    r"|(?:set-)?cookie|vmware_(?:soap_session|cgi_ticket))\W{1,8}(?:(?:basic|bearer)\s)?"
    r"|(?:credential|signature(?:provided)?|access-?key(?:-?id)?"
    r"|(?:bearer_|security-?|session-?|access-?|identity-?)token)(?:['\"]{0,2}[=:]\s*|>))"
    r"[^\s<>&;,]+",
    re.IGNORECASE,
)
#: Characters of the shortest text that is taken for a secret wherever it stands.
_SHORTEST = 4
_VALUE_END = re.compile(r"[#'\"<>]")


class Secret(str):
    """A password, a token or a login, which is not shown by what shows a frame's variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)


def is_scheme(text: str) -> bool:
    """Tell whether ``text`` is made like the scheme of a URI."""
    return _SCHEME.fullmatch(text) is not None


def redact_uri(uri: str) -> str:
    """Return what is meant as a URI with its credentials replaced by ``***``; see :func:`redact`.

    Where it does not begin with a scheme and ``://``, a secret can be anywhere in it: nothing is
    shown of what follows its first colon, if there is an ``@``, nor of a query.  The query of an
    http URI is not shown either: a presigned URL may call its secret anything.
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
    """Return ``uri`` with all that its query, or what may be meant as one, says replaced."""
    path, mark, query = uri.partition("?")
    return path + mark + (HIDDEN if query else "")


def redact(text: str, *, cut: bool = False) -> str:
    """Return ``text`` with the credentials of every URI in it replaced by ``***``.

    Old swift and S3 URIs carry keys in which any character may stand unescaped, so everything
    from ``://`` to the last ``@`` goes; a key is never shown for the sake of a path.  A ``file``
    URI has no credentials and stays as it is.  Query values whose names speak of a signature,
    token, key or password are hidden too (presigned and temporary URLs).  A word without ``://``,
    in which an ``@`` follows a colon, is taken for a URI that was mistyped.

    :param cut: the text was cut off, so that an ``@`` may follow what stands at its end
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
    """Hide the logins of URIs within a text: each of them ends at a blank."""
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
    """Hide in each word what follows its first colon where an ``@`` follows before any ``://``."""
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
    """Say whether the URI of the scheme before ``start`` is one without a login."""
    if not text.startswith("/", start + 3):
        return False  # no path: what else it is to be is not known
    for scheme in _NO_USERS:
        begin = start - len(scheme)
        if begin >= 0 and text[begin:start].lower() == scheme:
            # A scheme begins with a letter, and goes on with more than letters.
            before = text[max(0, begin - 32) : begin].rstrip("0123456789+.-")
            return not before[-1:].isalpha()
    return False


def _without_values(text: str) -> str:
    """Hide the values of a query whose names say that they are secrets."""
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
    """Return ``text`` without what was sent, which an error page or a client's log may quote.

    Header fields and other named values that are secrets are hidden, whoever sent them.

    :param secrets: what was sent, as it was sent
    :param cut: the text was cut off, so that the beginning of a secret may stand at its end
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
    return _SECRET_FIELD.sub(rf"\1{HIDDEN}", text)
