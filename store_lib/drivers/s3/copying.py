"""A copy within one server, made by the server itself."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from store_lib.display import get_logger
from store_lib.drivers.s3.client import Bucket, Head, NewObject
from store_lib.drivers.s3.errors import ConditionFailed
from store_lib.drivers.s3.location import S3Location
from store_lib.drivers.s3.multipart import MultipartUpload, PartSizes
from store_lib.drivers.s3.publishing import Make, Publication
from store_lib.drivers.s3.writer import SLOW_JOIN
from store_lib.exceptions import BackendException, ObjectChanged, StoreError, not_found

LOG = get_logger(__name__)

#: Bytes that a slow server copies in a second.
_SLOW_COPY = 10 * 1024 * 1024


class Copy:
    """Makes one object from another.

    :param source: where the other lies, on the same server
    :param publication: of the new one
    :param limit: bytes above which it is copied in parts
    :param part: bytes of such a part, at least
    """

    def __init__(
        self,
        target: NewObject,
        source: S3Location,
        publication: Publication,
        *,
        limit: int,
        part: int,
    ) -> None:
        self._target = target
        self._origin = Bucket(target.bucket.client, source.bucket)
        self._source = source
        self._publication = publication
        self._limit = limit
        self._part = part

    def make(self) -> None:
        """Copy; whatever goes wrong, nothing is left.

        May be called again after a temporary error.

        :raises NotFound: there is nothing to copy
        :raises Duplicate: an object of this key is there
        """
        if self._publication.succeeded():  # at an attempt before this one
            return
        head = self._origin.head(self._source.key)
        if head is None:
            raise not_found(self._source)
        self._publication.check()
        size = head.size or 0
        if size > self._limit:
            self._make_of_parts(head, size)
        else:
            self._publish(lambda condition: self._copy_whole(head, condition), size / _SLOW_COPY)

    def _publish(self, make: Make, seconds: float) -> None:
        try:
            self._publication.publish(make, seconds, optional=True)
        except BaseException:
            # The reply may have been lost, and not the copy.
            stored = False
            try:
                stored = self._publication.succeeded()
            finally:
                if not stored:
                    self._publication.withdraw()
            if not stored:
                raise

    def _copy_whole(self, head: Head, condition: Mapping[str, str]) -> None:
        copy = functools.partial(self._target.call, "copy_object", MetadataDirective="REPLACE")
        self._copy(copy, head, Metadata=self._target.metadata, **condition)

    def _make_of_parts(self, head: Head, total: int) -> None:
        if head.etag is None:
            raise BackendException(
                f"Expected an ETag of {self._source}, which is copied in parts, got none: whether "
                "all parts are of one object could not be told. Copy it through this machine."
            )
        upload = MultipartUpload(self._target, PartSizes(total, self._part))
        try:
            tokens = list(self._copied_parts(head, total, upload))
            # Several servers ignore the condition that each part came with.
            self._check_source(head)
            complete = functools.partial(upload.complete, tokens)
            self._publish(complete, len(tokens) / SLOW_JOIN)
        except BaseException:
            self._give_up(upload)
            raise
        upload.abort_unanswered(published=True)

    def _give_up(self, upload: MultipartUpload) -> None:
        """Abort an upload, also on a server that is busy: nobody else knows of it."""
        try:
            self._target.bucket.client.retry(upload.abort)
        except StoreError as error:
            LOG.warning(
                "The upload of %s, a copy that failed, could not be aborted. Sweep the store: %s",
                self._target.key,
                error,
            )
        upload.abort_unanswered(published=False)

    def _copied_parts(self, head: Head, total: int, upload: MultipartUpload) -> Iterator[Any]:
        size = upload.sizes.of(1)
        for number, start in enumerate(range(0, total, size), 1):
            span = f"bytes={start}-{min(start + size, total) - 1}"
            copy = functools.partial(upload.copy, number, CopySourceRange=span)
            yield self._copy(copy, head)

    def _copy(self, copy: Callable[..., Any], head: Head, **arguments: Any) -> Any:
        """Make a request that copies, from the very object that was looked at."""
        if head.etag is not None:
            arguments["CopySourceIfMatch"] = head.etag
        source = {"Bucket": self._source.bucket, "Key": self._source.key}
        try:
            return copy(CopySource=source, **arguments)
        except ConditionFailed:
            self._check_source(head)
            raise

    def _check_source(self, head: Head) -> None:
        now = self._origin.head(self._source.key)
        if now is None or (now.etag, now.size) != (head.etag, head.size):
            raise ObjectChanged(
                f"Object {self._source} changed while it was being copied. Copy it again."
            ) from None
