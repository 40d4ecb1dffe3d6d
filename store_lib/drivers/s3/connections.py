"""Corrections to how botocore uses connections and reads responses.  Imports botocore."""

from collections.abc import Iterator
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.utils import parse_timestamp
from urllib3.response import BaseHTTPResponse

from store_lib.clients._responses import Response
from store_lib.clients._urllib3 import ConnectionMixin, PoolMixin
from store_lib.drivers.s3.errors import CHECK_SERVER, region_of
from store_lib.exceptions import BackendException

#: Seconds to wait for ``100 Continue`` before the body is sent without it.
_CONTINUE_TIMEOUT = 1.0
#: Bytes up to which a body is sent without waiting for ``100 Continue``.  Waiting costs a round
#: trip, or a whole second if the server or a proxy never sends it.
_SMALL = 1024 * 1024
#: Maximum bytes of a response that is not an object's content: a page of 1000 long keys fits.
_LONGEST = 32 * 1024 * 1024


class _Connection(ConnectionMixin, AWSHTTPConnection):  # type: ignore[misc]
    def _handle_expect_response(self, message_body: Any) -> None:
        # botocore's own method takes any interim response other than 100 for the final one, and
        # loses the bytes that arrived in the same packet.
        response = Response(self.sock, method=self._method)
        self.response_class = lambda *_, **__: response
        try:
            goes_on = response.continues(_CONTINUE_TIMEOUT)
        except BaseException:
            response.close()
            raise
        if goes_on:
            self._send_message_body(message_body)
        else:
            self._response_received = True  # botocore then does not send the body


class _TlsConnection(_Connection, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _BoundedResponse:
    """Limits the length of a response that botocore reads into memory whole."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """Yield the body.

        :raises BackendException: the body is longer than any response of S3
        """
        left = _LONGEST
        for piece in self._response.stream(*args, **kwargs):
            left -= len(piece)
            if left < 0:
                self._response.close()
                raise BackendException(
                    f"Expected an answer of S3 of at most {_LONGEST} bytes, got more. "
                    f"{CHECK_SERVER}"
                )
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)


class _Pool(PoolMixin, AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection

    def urlopen(self, *args: Any, **kwargs: Any) -> BaseHTTPResponse:
        """Send a request.

        A response that ends early raises an error; botocore would take it as complete.  Redirects
        are switched off here: botocore's own setting still lets urllib3 parse the address of the
        redirect, which may fail.
        """
        kwargs["enforce_content_length"] = True
        kwargs["redirect"] = False
        response: BaseHTTPResponse = super().urlopen(*args, **kwargs)
        whole = response.status >= 300 or kwargs["method"] != "GET" or "?" in kwargs["url"]
        return _BoundedResponse(response) if whole else response  # type: ignore[return-value]


class _TlsPool(_Pool, AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TlsConnection


def set_up(client: Any) -> None:
    """Make a client use these connections.  It must not have made a request yet."""
    session = client._endpoint.http_session
    # All connection managers of the session, direct or through a proxy, share this mapping.
    session._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)
    assert session._manager.pool_classes_by_scheme["https"] is _TlsPool
    client.meta.events.register_last("before-call.s3", _send_small_bodies_at_once)
    client.meta.events.register_first("before-parse.s3", _drop_invalid_fields)
    client.meta.events.register_first("before-parse.s3.GetBucketVersioning", _reject_empty_body)
    client.meta.events.register_first("needs-retry.s3", _follow_named_region)


def _send_small_bodies_at_once(params: Any, **_: Any) -> None:
    """Send a small body without waiting for ``100 Continue``, as botocore would for any file."""
    headers = params["headers"]
    length = str(headers.get("Content-Length", ""))
    if length.isdecimal() and int(length) <= _SMALL:
        headers.pop("Expect", None)


def _reject_empty_body(response_dict: Any, **_: Any) -> None:
    """Treat an empty body as an error: it may have been cut, and would mean "never enabled"."""
    if not response_dict["body"]:
        response_dict["status_code"] = max(500, response_dict["status_code"])


def _follow_named_region(request_dict: Any, response: Any, **_: Any) -> None:
    """Repeat a request that went to the wrong region only if the response names the right one.

    Otherwise botocore would send further requests to learn the region, and the responses to those
    could name yet another server.
    """
    if response is not None and region_of(response[1]) is None:
        request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def _drop_invalid_fields(response_dict: Any, operation_model: Any, **_: Any) -> None:
    """Remove header fields with invalid values, so that they count as missing.

    With them botocore would fail, and an empty ETag would match any object.  An empty ETag of a
    part is kept, as it is sent back to the server.
    """
    headers = response_dict["headers"]
    length = headers.get("Content-Length", "0")
    if not length.isascii() or not length.isdecimal() or "Transfer-Encoding" in headers:
        headers.pop("Content-Length", None)
    empty = headers.get("ETag", "tag").removeprefix("W/").strip('" ') == ""
    if empty and operation_model.name != "UploadPart":
        del headers["ETag"]
    try:
        parse_timestamp(headers.get("Last-Modified", "0"))
    except (ValueError, OverflowError):
        del headers["Last-Modified"]
