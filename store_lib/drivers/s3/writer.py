"""Adding one object: by one put, in parts that are joined at the end, or by a copy."""

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

#: Speed of a slow server, per second: bytes of a put, bytes that it copies, parts that it joins.
_SLOW_PUT = 1 * MIB
_SLOW_COPY = 10 * MIB
_SLOW_JOIN = 20
#: Bytes handed to the socket at a time; the socket must take them within one timeout.
_PIECE = 256 * 1024


class S3Writer(PartWriter):
    """Adds one object.

    A multipart upload is begun with its first part, so that an object stored in one request never
    leaves an unfinished upload.

    :param upload: the object's multipart upload, which need not be used
    :param location: of the new object
    """

    #: Maximum bytes of an object that the server copies in one request; a larger object is copied
    #: in parts of ``copy_part`` bytes.
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
        # A small body is passed as bytes, so that botocore does not wait for 100 Continue.
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
            # An earlier request whose response was lost may have completed the upload.
            if not self._publication.succeeded():
                raise
        self._upload.abort_unanswered(published=True)
        return self._location

    def copy_from(self, location: S3Location) -> S3Location:
        if self._publication.succeeded():  # an earlier attempt, which was given up
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
        """Have the server copy the parts, and yield the token of each."""
        source.check_has_etag()
        size = PartSizes(source.size, self.copy_part).of(1)
        for number, start in enumerate(range(0, source.size, size), 1):
            span = f"bytes={start}-{min(start + size, source.size) - 1}"
            copy = functools.partial(self._upload.copy, number, CopySourceRange=span)
            yield source.copy(copy)
        # Several servers ignore the condition that is sent for each part.
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
    """The object that is copied; checks that it does not change before the copy is complete.

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

    def check_has_etag(self) -> None:
        """Check that the object has an ETag, which shows that all parts are copied of one object.

        :raises BackendException: it has none
        """
        if self._head.etag is None:
            raise BackendException(
                f"Expected an ETag of {self._location}, which is copied in parts, got none: "
                "nothing would show whether all parts are of one object. Copy it through this "
                "machine."
            )

    def copy(self, request: Callable[..., R], **arguments: Any) -> R:
        """Make a request that copies from the object.

        :raises ObjectChanged: the object has changed
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
        """Check that the object has not changed.

        :raises ObjectChanged: it has
        """
        now = self._bucket.head(self._location.key)
        if now is None or (now.etag, now.size) != (self._head.etag, self._head.size):
            raise ObjectChanged(
                f"Object {self._location} changed while it was being copied. Copy it again."
            ) from None


class BodyReader:
    """A body as the file object that botocore expects; reads return views of the body's memory.

    A read returns at least 256 KiB, unless the view ends before.  Fewer reads cost less, and
    urllib3, which sends the body, asks for much smaller amounts; botocore, which signs it, asks
    for larger ones.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._views: Iterator[memoryview] | None = None
        self._view = memoryview(b"")
        #: Whether the body can be read twice: once for its signature, and once to be sent.
        self.rewindable = body.rewindable

    def read(self, amount: int = -1, /) -> memoryview:
        """Return the next bytes; empty at the end."""
        if self._views is None:
            self._views = self._body.views()
        if not len(self._view):
            self._view = next(self._views, self._view)
        size = max(amount, _PIECE)
        piece, self._view = self._view[:size], self._view[size:]
        return piece

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a position at the boundary of two views."""
        self._views = None
        self._view = memoryview(b"")
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._body.tell()


@contextlib.contextmanager
def _spooled(body: Body) -> Iterator[tuple[IO[bytes], int]]:
    """Copy a body of unknown size to a temporary file, as S3 needs the size before the bytes.

    Yields the file, positioned at its start, and its size.

    :raises BackendException: the temporary directory has no room for it
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
