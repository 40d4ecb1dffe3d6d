"""Hides credentials in URIs and in texts that hold them, before they are printed or logged."""

import re

#: What stands where a secret was.
HIDDEN = "***"

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<secret>[^\s'\"<>?#]*)@")
_SECRET_QUERY = re.compile(
    r"(?P<name>[?&;][^=&;\s]*(?:signature|sig|token|secret|password|credential|accesskey|key)"
    r"[^=&;\s]*)=[^&;#\s'\"<>]*",
    re.IGNORECASE,
)


def redact_uri(text: str) -> str:
    """Return ``text`` with the credentials of every URI in it replaced by ``***``.

    Old swift and S3 URIs carry keys in which ``/`` and ``@`` stand unescaped, so everything
    from ``://`` to the last ``@`` before the query goes; a key is never shown for the sake of a
    path.  A ``file`` URI has no credentials and stays as it is.  Query values whose names
    speak of a signature, token, key or password are hidden too (presigned and temporary URLs).
    """

    def user(match: re.Match[str]) -> str:
        if match["scheme"].lower() in ("file://", "filesystem://"):
            return match[0]
        return f"{match['scheme']}{HIDDEN}@"

    return _SECRET_QUERY.sub(lambda m: f"{m['name']}={HIDDEN}", _USERINFO.sub(user, text))
