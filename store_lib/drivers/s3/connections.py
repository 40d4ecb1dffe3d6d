"""What botocore needs to use connections and read responses rightly; imports botocore."""

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

#: Seconds to wait for the server's consent (100 Continue) before a body is sent without it.
_CONTINUE_TIMEOUT = 1.0
#: Bytes of a body that is sent at once: waiting for consent costs a round trip, and a second where
#: the server, or a proxy, gives none.
_SMALL = 1024 * 1024
#: Bytes of the longest response but for an object's bytes: a page of 1000 long keys.
_LONGEST = 32 * 1024 * 1024


class _Connection(ConnectionMixin, AWSHTTPConnection):  # type: ignore[misc]
    def _handle_expect_response(self, message_body: Any) -> None:
        # botocore's own takes any interim response but 100 for the final one, and loses what came
        # in one packet with it.
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
            self._response_received = True  # nothing more is sent


class _TlsConnection(_Connection, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _BoundedResponse:
    """A response without an object's bytes, which botocore reads into memory at any length."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """Yield the body.

        :raises BackendException: it is longer than any response of S3
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
        """Send a request.  A response that ends early is an error, which botocore would believe.

        Redirects are not followed, as botocore asks, but too late for urllib3.
        """
        kwargs["enforce_content_length"] = True
        kwargs["redirect"] = False
        response: BaseHTTPResponse = super().urlopen(*args, **kwargs)
        whole = response.status >= 300 or kwargs["method"] != "GET" or "?" in kwargs["url"]
        return _BoundedResponse(response) if whole else response  # type: ignore[return-value]


class _TlsPool(_Pool, AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TlsConnection


def set_up(client: Any) -> None:
    """Give these connections to a client that has made no request yet."""
    session = client._endpoint.http_session
    # All its connection managers, direct and through proxies, share this mapping.
    session._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)
    assert session._manager.pool_classes_by_scheme["https"] is _TlsPool
    client.meta.events.register_last("before-call.s3", _send_small_bodies_at_once)
    client.meta.events.register_first("before-parse.s3", _drop_invalid_fields)
    client.meta.events.register_first("before-parse.s3.GetBucketVersioning", _reject_empty_body)
    client.meta.events.register_first("needs-retry.s3", _follow_named_region)


def _send_small_bodies_at_once(params: Any, **_: Any) -> None:
    """Do not wait for consent to a small body, as botocore does for any file."""
    headers = params["headers"]
    length = str(headers.get("Content-Length", ""))
    if length.isdecimal() and int(length) <= _SMALL:
        headers.pop("Expect", None)


def _reject_empty_body(response_dict: Any, **_: Any) -> None:
    """Treat an empty body, which may have been cut, as an error: it would say "never enabled"."""
    if not response_dict["body"]:
        response_dict["status_code"] = max(500, response_dict["status_code"])


def _follow_named_region(request_dict: Any, response: Any, **_: Any) -> None:
    """Repeat a request that went to the wrong region only if the response names the right one.

    botocore would ask for it by further requests, which can be sent elsewhere, too.
    """
    if response is not None and region_of(response[1]) is None:
        request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def _drop_invalid_fields(response_dict: Any, operation_model: Any, **_: Any) -> None:
    """Remove header fields with invalid values, as if they were missing.

    botocore would fail, and an empty ETag would match any object.  A part's is kept: it is sent
    back to the server.
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
