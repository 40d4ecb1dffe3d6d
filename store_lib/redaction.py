"""Hides credentials in URIs and in texts that hold them, before they are printed or logged."""

import re

#: What stands where a secret was.
HIDDEN = "***"

_NO_USERS = ("file://", "filesystem://")
_SCHEME = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)"
#: A text that is one URI: whatever stands before its last @ may be a secret, blanks included.
_WHOLE = re.compile(rf"\A{_SCHEME}.*@", re.DOTALL)
#: A URI within a text: it ends at a blank.
_WITHIN = re.compile(rf"{_SCHEME}\S*@")
_SECRET_QUERY = re.compile(
    r"(?P<name>[?&;][^=&;\s]*(?:signature|sig|token|secret|password|credential|accesskey|key)"
    r"[^=&;\s]*)=[^&;#\s'\"<>]*",
    re.IGNORECASE,
)


def redact_uri(text: str) -> str:
    """Return ``text`` with the credentials of every URI in it replaced by ``***``.

    Old swift and S3 URIs carry keys in which any character may stand unescaped, so everything
    from ``://`` to the last ``@`` goes; a key is never shown for the sake of a path.  A ``file``
    URI has no credentials and stays as it is.  Query values whose names speak of a signature,
    token, key or password are hidden too (presigned and temporary URLs).
    """

    def user(match: re.Match[str]) -> str:
        if match["scheme"].lower() in _NO_USERS:
            return match[0]
        return f"{match['scheme']}{HIDDEN}@"

    whole = _WHOLE.match(text)
    pattern = _WHOLE if whole and whole["scheme"].lower() not in _NO_USERS else _WITHIN
    return _SECRET_QUERY.sub(lambda m: f"{m['name']}={HIDDEN}", pattern.sub(user, text))
