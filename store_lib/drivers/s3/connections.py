"""botocore's connections, with answers that are read to their end; imported at configure time."""

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

from store_lib.clients._urllib3 import Bounded, BoundedPool, Response
from store_lib.drivers.s3.errors import region_of
from store_lib.exceptions import BackendException

#: Seconds for which a server may be silent before a body is sent that it was asked about.
_PATIENCE = 1.0
#: Bytes of a body that is sent at once: asking first costs a round trip, and a second where the
#: server, or a proxy, does not say to go on.
_SMALL = 1024 * 1024
#: Bytes of the longest answer to a request but for an object's bytes: a page of 1000 long keys.
_LONGEST = 32 * 1024 * 1024


class _Connection(Bounded, AWSHTTPConnection):  # type: ignore[misc]
    def _handle_expect_response(self, message_body: Any) -> None:
        # botocore's own takes any interim answer but 100 for the final one, and loses what came
        # in one packet with it.
        response = Response(self.sock, method=self._method)
        self.response_class = lambda *_, **__: response
        try:
            goes_on = response.continues(_PATIENCE)
        except BaseException:
            response.close()
            raise
        if goes_on:
            self._send_message_body(message_body)
        else:
            self._response_received = True  # nothing more is sent


class _TlsConnection(_Connection, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Whole:
    """An answer that is no object's bytes: botocore reads it into memory, whatever its length."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        """Yield the body.

        :raises BackendException: it is longer than any answer of S3
        """
        left = _LONGEST
        for piece in self._response.stream(*args, **kwargs):
            left -= len(piece)
            if left < 0:
                self._response.close()
                raise BackendException(
                    f"Expected an answer of S3 of at most {_LONGEST} bytes, got more. Check that "
                    "it is an S3 server, and what is between."
                )
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)


class _Pool(BoundedPool, AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection

    def urlopen(self, *args: Any, **kwargs: Any) -> BaseHTTPResponse:
        """Send a request; an answer that ends early is an error, where botocore believes it.

        botocore wants redirects not to be followed; urllib3 fails before it sees that.
        """
        kwargs["enforce_content_length"] = True
        kwargs["redirect"] = False
        response: BaseHTTPResponse = super().urlopen(*args, **kwargs)
        whole = response.status >= 300 or kwargs["method"] != "GET" or "?" in kwargs["url"]
        return _Whole(response) if whole else response  # type: ignore[return-value]


class _TlsPool(_Pool, AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TlsConnection


def set_up(client: Any) -> None:
    """Give a client, which has made no request yet, these connections."""
    session = client._endpoint.http_session
    # Its managers of connections, direct and through proxies, all share this one.
    session._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)
    assert session._manager.pool_classes_by_scheme["https"] is _TlsPool
    client.meta.events.register_last("before-call.s3", _send_small_at_once)
    client.meta.events.register_first("before-parse.s3", _leave_out_nonsense)
    client.meta.events.register_first("before-parse.s3.GetBucketVersioning", _doubt_silence)
    client.meta.events.register_first("needs-retry.s3", _follow_a_region_once)


def _send_small_at_once(params: Any, **_: Any) -> None:
    """Leave out the question that botocore asks before it sends any file, whatever its size."""
    headers = params["headers"]
    length = str(headers.get("Content-Length", ""))
    if length.isdecimal() and int(length) <= _SMALL:
        headers.pop("Expect", None)


def _doubt_silence(response_dict: Any, **_: Any) -> None:
    """Take an empty body, which may have been cut, for an error: else it would say something."""
    if not response_dict["body"]:
        response_dict["status_code"] = max(500, response_dict["status_code"])


def _follow_a_region_once(request_dict: Any, response: Any, **_: Any) -> None:
    """Have a request that went to the wrong region made again only where the answer names the right
    one: botocore would ask for it by further requests, each of which can be sent elsewhere, too."""
    if response is not None and region_of(response[1]) is None:
        request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def _leave_out_nonsense(response_dict: Any, operation_model: Any, **_: Any) -> None:
    """Take fields that say nothing for fields that are missing.

    botocore would fail, and an empty ETag would be that of any object.  A part's is handed back.
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
