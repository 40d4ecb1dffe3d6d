"""Reading an object: the response that opened it, and further ranges of the same version."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from store_lib.clients.response_headers import content_range
from store_lib.driver import Reader
from store_lib.drivers.s3.client import Bucket
from store_lib.drivers.s3.errors import ConditionFailed
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    InvalidRange,
    NotFound,
    ObjectChanged,
    StoreRandomGetNotSupported,
    not_found,
)


@dataclasses.dataclass(slots=True)
class _Response:
    """A response whose body is still to be read."""

    #: urllib3's response, from which the body is read; ``None`` if there is nothing to read.
    body: Any
    #: Bytes of the whole object; ``None`` if the server does not say.
    size: int | None
    etag: str | None
    #: Bytes to read from this response; ``None`` for all.
    length: int | None
    #: Whether the server has said that it sends ``length`` bytes.  If not, the object may end
    #: before.
    certain: bool = True

    def close(self) -> None:
        """Return the connection to the pool if the whole body was read; otherwise close it."""
        if self.body is not None:
            self.body.close()


class S3Reader(Reader):
    """An open object in a bucket."""

    _opened: _Response | None = None

    def __init__(self, bucket: Bucket, key: str, offset: int, length: int | None) -> None:
        self._bucket = bucket
        self._key = key
        self._opened = response = self._request(offset, length)
        self.first = self._read_opened()
        self.size: int | None = response.size
        self.validator: str | None = response.etag
        # Without an ETag, nothing would show that two responses are of the same object.
        self.parallel = self.validator is not None

    def _read_opened(self) -> Iterator[bytes]:
        response, self._opened = self._opened, None
        if response is not None:
            yield from self._read(response)

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        if length != 0 and offset != self.size:
            yield from self._read(self._request_again(offset, length))

    def _read(self, response: _Response) -> Iterator[bytes]:
        left = response.length
        try:
            while left is None or left:
                with self._bucket.client.translating(self._name):
                    # Read what has arrived and do not wait for more: if the connection is cut
                    # meanwhile, the bytes would be lost.
                    limit = self.piece_size
                    piece = response.body.read1(limit if left is None else min(left, limit))
                if not piece:
                    if left is None or not response.certain:
                        return
                    raise BackendException(
                        f"{self._name} was cut {left} bytes before its end.",
                        status=ErrorStatus.TEMPORARY,
                    )
                left = None if left is None else left - len(piece)
                hand = [piece]
                del piece  # a suspended generator must not keep what it has yielded
                yield hand.pop()
        finally:
            response.close()

    @property
    def _name(self) -> str:
        return f"get_object {self._bucket.name}/{self._key}"

    def _request_again(self, offset: int, length: int | None) -> _Response:
        """Request further bytes of the object, and check that it has not changed.

        Several servers ignore the condition, so the response is also compared with the first one.
        """
        condition = {} if self.validator is None else {"IfMatch": self.validator}
        try:
            response = self._request(offset, length, **condition)
        except (ConditionFailed, NotFound, InvalidRange) as error:
            raise ObjectChanged() from error
        known_sizes = {self.size, response.size} - {None}
        if response.etag != self.validator or len(known_sizes) > 1:
            response.close()
            raise ObjectChanged()
        return response

    def _request(self, offset: int, length: int | None, **arguments: str) -> _Response:
        if length == 0:
            return self._nothing(offset, length)
        if offset or length is not None:
            last = "" if length is None else offset + length - 1
            arguments["Range"] = f"bytes={offset}-{last}"
        try:
            response = self._bucket.call("get_object", self._key, **arguments)
        except InvalidRange:
            # A range at the very end of the object is an empty read.  Of an empty object servers
            # refuse every range.
            return self._nothing(offset, length)
        try:
            return _check_range(response, offset, length)
        except BaseException:
            response["Body"].close()
            raise

    def _nothing(self, offset: int, length: int | None) -> _Response:
        """Return a response for a read of no bytes, after a check that the object exists."""
        head = self._bucket.head(self._key)
        if head is None:
            raise not_found(f"{self._bucket.name}/{self._key}")
        if head.size is not None and offset > head.size:
            raise InvalidRange(size=head.size, offset=offset, length=length)
        return _Response(None, head.size, head.etag, 0)

    def close(self) -> None:
        self.first = None
        response, self._opened = self._opened, None
        if response is not None:
            response.close()

    def __del__(self) -> None:
        self.close()


def _check_range(response: dict[str, Any], offset: int, length: int | None) -> _Response:
    """Return a response, after a check that it holds the requested range."""
    count: int | None = response.get("ContentLength")
    start, size = 0, count
    if span := response.get("ContentRange"):
        start, last, size = content_range(span) or (-1, -1, None)
        count = last - start + 1 if count is None else count
    elif offset:
        raise StoreRandomGetNotSupported(offset=offset, chunk_size=length)
    available = count if size is None else size - offset
    wanted = min((bound for bound in (length, available) if bound is not None), default=None)
    if start != offset or (count is not None and wanted is not None and count < wanted):
        raise BackendException(
            f"Expected {_shown(wanted)} bytes from {offset}, got {_shown(count)} from {start}.",
            status=ErrorStatus.TEMPORARY,
        )
    body = response["Body"]
    stream = body._raw_stream
    if hasattr(body, "checksum"):  # botocore's wrapper, which is there if it can verify a checksum
        stream = _Verified(body, count)
    return _Response(stream, size, response.get("ETag"), wanted, available is not None)


def _shown(value: int | None) -> object:
    return "(unknown)" if value is None else value


class _Verified:
    """A response whose checksum is verified when its last byte has been read.

    botocore's own ``read`` waits until it has the full amount; if the connection is cut meanwhile,
    the bytes that had arrived would be lost.
    """

    def __init__(self, body: Any, size: int | None) -> None:
        self._body = body
        self._left = size

    def read1(self, amount: int) -> bytes:
        piece: bytes = self._body._raw_stream.read1(amount)
        self._body.checksum.update(piece)
        if self._left is not None:
            self._left -= len(piece)
        if not piece or self._left == 0:
            self._body._validate_checksum()
        return piece

    def close(self) -> None:
        self._body.close()
