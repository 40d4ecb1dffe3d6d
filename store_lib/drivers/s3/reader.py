"""An object being read: the open answer, and further ranges of the very same object."""

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
)


@dataclasses.dataclass(slots=True)
class Answer:
    """An answer whose bytes are still to be read."""

    #: The bytes, as urllib3 gives them; ``None`` when there are none.
    body: Any
    #: Bytes of the whole object; ``None`` where the server does not tell.
    size: int | None
    etag: str | None
    #: Bytes that are wanted of this answer; ``None``: all that come.
    length: int | None
    #: Whether it has these, as far as the server tells; else fewer may be all that there are.
    certain: bool = True

    def close(self) -> None:
        """Let go of the connection: it is used again if all was read, else closed."""
        if self.body is not None:
            self.body.close()


class S3Reader(Reader):
    """An object in a bucket, opened."""

    def __init__(self, bucket: Bucket, key: str, offset: int, length: int | None) -> None:
        self._unread: Answer | None = None
        self._bucket = bucket
        self._key = key
        self._asked = (offset, length)
        self._unread = self._ask(offset, length)
        self.size: int | None = self._unread.size
        self.validator: str | None = self._unread.etag
        # Without it, nothing would show that two answers are of one object.
        self.parallel = self.validator is not None

    def stream(self, offset: int, length: int | None) -> Iterator[bytes]:
        """Yield the bytes from ``offset`` on; the first call reads the answer that is open.

        :raises RemoteServiceUnavailable: the connection was cut
        :raises ObjectChanged: a further call met another object
        """
        answer, self._unread = self._unread, None
        if answer is None or not self._covers(offset, length):
            if answer is not None:
                answer.close()
            if length == 0 or offset == self.size:
                return
            answer = self._ask_again(offset, length)
        try:
            yield from self._pieces(answer, length)
        finally:
            answer.close()

    def _covers(self, offset: int, length: int | None) -> bool:
        """Whether the answer that is open begins with these bytes."""
        first, asked = self._asked
        return offset == first and (asked is None or (length is not None and length <= asked))

    def _pieces(self, answer: Answer, length: int | None) -> Iterator[bytes]:
        left = answer.length
        if length is not None:
            left = length if left is None else min(length, left)
        while left is None or left:
            with self._bucket.client.translating(self._shown()):
                # What has come, and no waiting for more: a cut would lose it.
                most = self.piece_size
                piece = answer.body.read1(most if left is None else min(left, most))
            if not piece:
                if left is None or not answer.certain:
                    return
                raise BackendException(
                    f"{self._shown()} was cut {left} bytes before its end.",
                    status=ErrorStatus.TEMPORARY,
                )
            left = None if left is None else left - len(piece)
            hand = [piece]
            del piece  # a generator that waits is to hold nothing of what it gave
            yield hand.pop()

    def _shown(self) -> str:
        return f"get_object {self._bucket.name}/{self._key}"

    def _ask_again(self, offset: int, length: int | None) -> Answer:
        """Ask for further bytes of the very same object.

        Several servers ignore the condition, so what they answer is held against the first answer.
        """
        condition = {} if self.validator is None else {"IfMatch": self.validator}
        try:
            answer = self._ask(offset, length, **condition)
        except (ConditionFailed, NotFound, InvalidRange) as error:
            raise ObjectChanged() from error
        sizes = {self.size, answer.size} - {None}  # not told
        if answer.etag != self.validator or len(sizes) > 1:
            answer.close()
            raise ObjectChanged()
        return answer

    def _ask(self, offset: int, length: int | None, **arguments: str) -> Answer:
        if length == 0:
            return self._nothing(offset, length)
        if offset or length is not None:
            last = "" if length is None else offset + length - 1
            arguments["Range"] = f"bytes={offset}-{last}"
        try:
            answer = self._bucket.call("get_object", self._key, **arguments)
        except InvalidRange:
            # At the very end is an empty read, and no range at all is good for an empty object.
            return self._nothing(offset, length)
        try:
            return _judge(answer, offset, length)
        except BaseException:
            answer["Body"].close()
            raise

    def _nothing(self, offset: int, length: int | None) -> Answer:
        found = self._bucket.head(self._key)
        if found is None:
            raise NotFound(f"There is no object {self._bucket.name}/{self._key}.")
        if found.size is not None and offset > found.size:
            raise InvalidRange(size=found.size, offset=offset, length=length)
        return Answer(None, found.size, found.etag, 0)

    def close(self) -> None:
        """Close the answer that was not read, if there is one."""
        answer, self._unread = self._unread, None
        if answer is not None:
            answer.close()

    def __del__(self) -> None:
        self.close()


def _judge(answer: dict[str, Any], offset: int, length: int | None) -> Answer:
    """Hold what the server says of its answer against what was asked."""
    count: int | None = answer.get("ContentLength")
    start, size = 0, count
    if span := answer.get("ContentRange"):
        start, last, size = content_range(span) or (-1, -1, None)
        count = last - start + 1 if count is None else count
    elif offset:
        raise StoreRandomGetNotSupported(offset=offset, chunk_size=length)
    there = count if size is None else size - offset
    wanted = min((each for each in (length, there) if each is not None), default=None)
    if start != offset or (count is not None and wanted is not None and count < wanted):
        raise BackendException(
            f"Expected {_told(wanted)} bytes from {offset}, got {_told(count)} from {start}.",
            status=ErrorStatus.TEMPORARY,
        )
    body = answer["Body"]
    stream = body._raw_stream
    if hasattr(body, "checksum"):  # what boto3 gives when there is one to be verified
        stream = _Verified(body, count)
    return Answer(stream, size, answer.get("ETag"), wanted, there is not None)


def _told(value: int | None) -> object:
    return "(not told)" if value is None else value


class _Verified:
    """An answer with a checksum, which is verified with the last of its bytes.

    Not by reading it as boto3 means it: that waits until a piece is full, and a cut would lose it.
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
