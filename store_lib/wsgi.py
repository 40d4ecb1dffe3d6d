"""Makes a source for an add of the body of a WSGI request, whichever server received it."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from store_lib.exceptions import Invalid, LengthRequired, SizeMismatch

#: Bytes that are read at a time where the caller asks for all.
_PIECE = 1024 * 1024

#: More digits than any length has; a number of thousands of them takes long to convert.
_DIGITS = 19


class RequestBody:
    """The body of a request, read once from its start to its end.

    Hand it to :meth:`~store_lib.Stores.add` as ``data``, and its :attr:`size` as ``size``.  Made by
    :func:`request_body`.
    """

    def __init__(self, pull: Callable[[int], bytes], size: int | None) -> None:
        #: Bytes of the whole body; ``None`` where the client sends chunks.
        self.size = size
        self._pull = pull
        self._rest = memoryview(b"")
        self._done = 0

    def read(self, amount: int = -1, /) -> bytes:
        """Return up to ``amount`` bytes, everything that is left for -1, ``b""`` at the end.

        What the server raises on a broken connection comes out unchanged.

        :raises SizeMismatch: the body ended before its declared size
        """
        if amount < 0:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        if self.size is not None:
            # PEP 3333 allows no read beyond CONTENT_LENGTH: on some servers it waits for ever.
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
        """Read the rest of the body and drop it, before the request is answered with an error.

        A server that closes a connection with unread bytes resets it, and the client may then
        never see the answer; behind nginx it sees 502.

        :param limit: bytes at most; a client with more than that to send is cut off
        """
        end = self._done + limit
        with contextlib.suppress(OSError, SizeMismatch):  # the client is gone
            while self._done < end and self.read(_PIECE):
                pass


def request_body(environ: Mapping[str, Any]) -> RequestBody:
    """Return the body of a request.

    The end of the body is known in one of three ways: the server marks the end of ``wsgi.input``
    (``wsgi.input_terminated``: gunicorn, mod_wsgi), the client declared the length, or the client
    sends chunks and the server is uWSGI, which has a function of its own to read them.

    :param environ: the environment of the request, as the server made it
    :raises LengthRequired: none of these holds, or there are chunks in HTTP/1.0; answer 411
    :raises Invalid: the length is malformed, or contradicts the chunks; answer 400
    """
    size = _declared(environ.get("CONTENT_LENGTH"))
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if chunked and size is not None:
        raise Invalid(
            "Expected a request with Content-Length or with Transfer-Encoding: chunked, got both. "
            "Where a web server stands before this one and reads the chunks itself, let it remove "
            'Transfer-Encoding (nginx before uWSGI: uwsgi_param HTTP_TRANSFER_ENCODING "";).'
        )
    if chunked and environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        # Servers differ in whether they read the chunks (RFC 9112, 6.1); waitress gives no byte.
        raise LengthRequired(
            "Expected a request with Content-Length, got one in chunks in HTTP/1.0, which has "
            "none. Send the length."
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
            "Expected a request with Content-Length, got one in chunks, which this server does "
            "not pass on. Send the length."
        )
    raise LengthRequired()


def _declared(text: str | None) -> int | None:
    """Return the value of CONTENT_LENGTH, ``None`` when the client sent none."""
    digits = (text or "").strip()
    if not digits:
        return None
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _DIGITS:
        raise Invalid(f"Expected Content-Length as a number of bytes, got {digits[:40]!r}.")
    return int(digits)
