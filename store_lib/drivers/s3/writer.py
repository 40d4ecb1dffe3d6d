"""The upload of one object: by one put, in parts that are joined at the end, or by a copy."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeVar

from store_lib.driver import Body, PartWriter
from store_lib.drivers.s3.client import Bucket
from store_lib.drivers.s3.errors import ConditionFailed, NoSuchUpload
from store_lib.drivers.s3.location import S3Location
from store_lib.drivers.s3.multipart import MultipartUpload, PartSizes
from store_lib.drivers.s3.options import LARGEST_PUT, MIB, Settings
from store_lib.drivers.s3.publishing import Publication
from store_lib.exceptions import BackendException, ObjectChanged, not_found

R = TypeVar("R")

#: What a slow server does in a second: bytes of a put, bytes that it copies, parts that it joins.
_SLOW_PUT = 1 * MIB
_SLOW_COPY = 10 * MIB
_SLOW_JOIN = 20
#: Bytes that are handed to the socket at once: it must take them within one time limit.
_PIECE = 256 * 1024


class S3Writer(PartWriter):
    """Uploads one object.

    A multipart upload begins with the first part, so an object that fits in one request leaves
    none unfinished.

    :param upload: what to add, and in which parts
    :param location: where the object will lie
    """

    #: Bytes of the largest object that the server copies in one request, and of a part of others.
    copy_limit = LARGEST_PUT
    copy_part = 512 * MIB

    def __init__(
        self,
        upload: MultipartUpload,
        location: S3Location,
        settings: Settings,
        publication: Publication,
    ) -> None:
        self.concurrency = settings.threads
        self.once_limit = min(max(0, settings.large - 1), LARGEST_PUT)
        self._target = upload.target
        self._upload = upload
        self._location = location
        self._publication = publication

    def write_once(self, body: Body) -> S3Location:
        size, target = body.size, self._target
        # A small body goes with its head, which saves asking the server whether to go on.
        small = body.rewindable and size is not None and size <= self.chunk_size
        data = body.read() if small else BodyReader(body)

        def put(condition: Mapping[str, str]) -> None:
            target.bucket.put(target.key, data, size, target.metadata, condition)

        self._publication.publish(put, (size or 0) / _SLOW_PUT)
        return self._location

    def part_size(self, number: int) -> int:
        return self._upload.sizes.of(number)

    def put_part(self, number: int, body: Body) -> dict[str, str]:
        self._upload.sizes.check_number(number)
        if body.size is None:
            with _spooled(body) as (file, size):
                return self._upload.put(number, file, size)
        return self._upload.put(number, BodyReader(body), body.size)

    def commit(self, tokens: Sequence[Any]) -> S3Location:
        complete = functools.partial(self._upload.complete, tokens)
        try:
            self._publication.publish(complete, len(tokens) / _SLOW_JOIN, optional=True)
        except NoSuchUpload:
            # As after a request that was answered too late: it may have succeeded.
            if not self._publication.succeeded():
                raise
        self._upload.abort_unanswered(published=True)
        return self._location

    def copy_from(self, location: S3Location) -> S3Location:
        if self._publication.succeeded():  # an attempt before this one, which was given up
            return self._location
        source = _CopySource(Bucket(self._target.bucket.client, location.bucket), location)
        if source.size > self.copy_limit:
            return self.commit(list(self._copy_parts(source)))
        copy = functools.partial(
            self._target.call,
            "copy_object",
            Metadata=self._target.metadata,
            MetadataDirective="REPLACE",
        )
        self._publication.publish(
            lambda condition: source.copy(copy, **condition),
            source.size / _SLOW_COPY,
            optional=True,
        )
        return self._location

    def _copy_parts(self, source: "_CopySource") -> Iterator[dict[str, str]]:
        """Have the server copy each part, and yield their tokens."""
        source.require_etag()
        size = PartSizes(source.size, self.copy_part).of(1)
        for number, start in enumerate(range(0, source.size, size), 1):
            span = f"bytes={start}-{min(start + size, source.size) - 1}"
            copy = functools.partial(self._upload.copy, number, CopySourceRange=span)
            yield source.copy(copy)
        # Several servers ignore the condition that each part came with.
        source.check()

    def state(self) -> dict[str, Any] | None:
        return self._upload.state()

    def abort(self) -> None:
        try:
            self._upload.abort()
        finally:
            self._publication.withdraw()
        self._upload.abort_unanswered(published=False)

    def resolve(self) -> S3Location | None:
        if not self._publication.succeeded():
            return None
        self._upload.abort_unanswered(published=True)
        return self._location


class _CopySource:
    """The object that a copy is made of: the very same one until the copy is complete.

    :raises NotFound: there is no such object
    """

    def __init__(self, bucket: Bucket, location: S3Location) -> None:
        self._bucket = bucket
        self._location = location
        head = bucket.head(location.key)
        if head is None:
            raise not_found(location)
        self._head = head
        self.size = head.size or 0

    def require_etag(self) -> None:
        """Check that several requests can be known to copy one object.

        :raises BackendException: they cannot
        """
        if self._head.etag is None:
            raise BackendException(
                f"Expected an ETag of {self._location}, which is copied in parts, got none: "
                "nothing would show whether all parts are of one object. Copy it through this "
                "machine."
            )

    def copy(self, request: Callable[..., R], **arguments: Any) -> R:
        """Make a request that copies from the object.

        :raises ObjectChanged: the object is another one by now
        """
        if self._head.etag is not None:
            arguments["CopySourceIfMatch"] = self._head.etag
        source = {"Bucket": self._bucket.name, "Key": self._location.key}
        try:
            return request(CopySource=source, **arguments)
        except ConditionFailed:
            self.check()
            raise

    def check(self) -> None:
        """Check that the object is still the same one.

        :raises ObjectChanged: it is not
        """
        now = self._bucket.head(self._location.key)
        if now is None or (now.etag, now.size) != (self._head.etag, self._head.size):
            raise ObjectChanged(
                f"Object {self._location} changed while it was being copied. Copy it again."
            ) from None


class BodyReader:
    """A body as botocore wants it: a file, read without a copy in the pieces that lie in memory.

    A read returns at least 256 KiB, if as much lies in one piece.  Fewer pieces cost less:
    urllib3, which sends them, would take much smaller ones, and botocore, which signs them, asks
    for larger ones.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._views: Iterator[memoryview] | None = None
        self._view = memoryview(b"")
        #: Whether it can be read twice, to be signed and to be sent.
        self.rewindable = body.rewindable

    def read(self, amount: int = -1, /) -> memoryview:
        """Return the next piece, empty at the end."""
        if self._views is None:
            self._views = self._body.views()
        if not len(self._view):
            self._view = next(self._views, self._view)
        size = max(amount, _PIECE)
        piece, self._view = self._view[:size], self._view[size:]
        return piece

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a position where no piece is cut in two."""
        self._views = None
        self._view = memoryview(b"")
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        """Return the position, between two views of the body."""
        return self._body.tell()


@contextlib.contextmanager
def _spooled(body: Body) -> Iterator[tuple[IO[bytes], int]]:
    """Copy a body of unknown size to a temporary file: S3 asks for the size first.

    Yields the file, at its start, and its size.

    :raises BackendException: there is no room for it
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(prefix="store_lib-"))
            for piece in body:
                file.write(piece)
            size = file.tell()
            file.seek(0)
        except OSError as error:
            raise BackendException(
                f"A part that memory has no room for could not be kept in {tempfile.gettempdir()}: "
                f"{error.strerror}. Name a directory with room in TMPDIR, raise "
                "transfer_memory_limit, or declare the object's size."
            ) from error
        yield file, size
