"""The body of a WSGI request as the source of an add, on any server."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from store_lib.exceptions import Invalid, LengthRequired, SizeMismatch

#: Bytes to read at a time if the caller reads everything.
_PIECE = 1024 * 1024

#: Enough for any length; converting thousands of digits takes long.
_MAX_DIGITS = 19


class RequestBody:
    """The body of a request, which can be read once; made by :func:`request_body`.

    Pass it to :meth:`~store_lib.Stores.add` as ``data``, and its :attr:`size` as ``size``.
    """

    def __init__(self, pull: Callable[[int], bytes], size: int | None) -> None:
        #: Size of the body in bytes; ``None`` if the client sends chunks.
        self.size = size
        self._pull = pull
        self._rest = memoryview(b"")
        self._done = 0

    def read(self, amount: int = -1, /) -> bytes:
        """Return up to ``amount`` bytes, all remaining ones for -1, or ``b""`` at the end.

        Errors that the server raises for a broken connection propagate unchanged.

        :raises SizeMismatch: the body ended before its declared size
        """
        if amount < 0:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        if self.size is not None:
            # PEP 3333 forbids reads beyond CONTENT_LENGTH: on some servers they block forever.
            amount = min(amount, self.size - self._done)
        if not amount:
            return b""
        if not self._rest:
            self._rest = memoryview(self._pull(amount))
        piece, self._rest = bytes(self._rest[:amount]), self._rest[amount:]
        if not piece and self.size is not None:
            raise SizeMismatch(expected=self.size, got=self._done)
        self._done += len(piece)
        return piece

    def drain(self, limit: int = 64 * 1024 * 1024) -> None:
        """Read and discard the rest of the body; call it before responding with an error.

        If a server closes a connection with unread bytes, the connection is reset, and the client
        may never see the response.  Behind nginx, it sees a 502.

        :param limit: maximum number of bytes to read; a client that sends more is disconnected
        """
        end = self._done + limit
        with contextlib.suppress(OSError, SizeMismatch):  # the client is gone
            while self._done < end and self.read(_PIECE):
                pass


def request_body(environ: Mapping[str, Any]) -> RequestBody:
    """Return the body of a request.

    The end of the body is known if the server marks the end of ``wsgi.input``
    (``wsgi.input_terminated``: gunicorn, mod_wsgi), if the client declared the length, or if the
    client sends chunks and the server is uWSGI, which has its own function to read them.

    :param environ: the WSGI environment of the request
    :raises LengthRequired: the end is not known, or chunks are sent in HTTP/1.0; respond with 411
    :raises Invalid: the length is malformed or contradicts the chunks; respond with 400
    """
    size = _declared(environ.get("CONTENT_LENGTH"))
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if chunked and size is not None:
        raise Invalid(
            "Expected a request with Content-Length or with Transfer-Encoding: chunked, got both. "
            "If a reverse proxy in front of this server decodes the chunks, let it remove "
            'Transfer-Encoding (nginx with uWSGI: uwsgi_param HTTP_TRANSFER_ENCODING "";).'
        )
    if chunked and environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        # Servers differ on whether they decode chunks here (RFC 9112, 6.1); waitress gives no byte.
        raise LengthRequired(
            "Expected a request with Content-Length, got chunks in HTTP/1.0, which does not have "
            "them. Send the length."
        )
    if environ.get("wsgi.input_terminated"):
        return RequestBody(environ["wsgi.input"].read, size)
    if chunked and "uwsgi.version" in environ:
        import uwsgi  # exists only inside uWSGI

        return RequestBody(lambda _: uwsgi.chunked_read(), None)
    if size is not None:
        return RequestBody(environ["wsgi.input"].read, size)
    if chunked:
        raise LengthRequired(
            "Expected a request with Content-Length, got chunks, which this server does not pass "
            "on. Send the length."
        )
    raise LengthRequired()


def _declared(text: str | None) -> int | None:
    """Return the value of CONTENT_LENGTH, ``None`` if the client did not send it."""
    digits = (text or "").strip()
    if not digits:
        return None
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_DIGITS:
        raise Invalid(f"Expected Content-Length as a number of bytes, got {digits[:40]!r}.")
    return int(digits)
