"""A copy within one server, made by the server itself."""

import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any

from store_lib.display import get_logger
from store_lib.drivers.s3.bucket import NONCE, Bucket, Head
from store_lib.drivers.s3.errors import ConditionFailed
from store_lib.drivers.s3.location import S3Location
from store_lib.drivers.s3.parts import part_of_known
from store_lib.drivers.s3.proof import Make
from store_lib.drivers.s3.publishing import Publication
from store_lib.drivers.s3.uploads import abort_unnamed, abort_upload
from store_lib.drivers.s3.writer import SLOW_JOIN
from store_lib.exceptions import BackendException, NotFound, ObjectChanged, StoreError

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
        bucket: Bucket,
        source: S3Location,
        key: str,
        nonce: str,
        publication: Publication,
        *,
        limit: int,
        part: int,
    ) -> None:
        self._bucket = bucket
        self._origin = Bucket(bucket.client, source.bucket)
        self._source = source
        self._key = key
        self._metadata = {NONCE: nonce}
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
            raise NotFound(f"There is no object {self._source} to copy from.")
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
        self._copy(
            "copy_object", head, Metadata=self._metadata, MetadataDirective="REPLACE", **condition
        )

    def _make_of_parts(self, head: Head, total: int) -> None:
        if head.etag is None:
            raise BackendException(
                f"Expected an ETag of {self._source}, which is copied in parts, got none: whether "
                "all parts are of one object could not be told. Copy it through this machine."
            )
        began = time.monotonic()
        try:
            begun = self._bucket.call("create_multipart_upload", self._key, Metadata=self._metadata)
        except StoreError:
            abort_unnamed(self._bucket, self._key, began)
            raise
        upload = begun["UploadId"]

        def complete(condition: Mapping[str, str]) -> None:
            self._bucket.call(
                "complete_multipart_upload",
                self._key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **condition,
            )

        try:
            parts = list(self._copied_parts(head, total, upload))
            # Several servers ignore the condition that each part came with.
            self._check_source(head)
            self._publish(complete, len(parts) / SLOW_JOIN)
        except BaseException:
            self._give_up(upload)
            raise
        abort_unnamed(self._bucket, self._key)

    def _give_up(self, upload: str) -> None:
        """Abort an upload, also on a server that is busy: nobody else knows of it."""
        abort = functools.partial(abort_upload, self._bucket, self._key, upload)
        try:
            self._bucket.client.retry(abort)
        except StoreError as error:
            LOG.warning(
                "The upload %s of %s, a copy that failed, could not be aborted. Sweep the store: "
                "%s",
                upload,
                self._key,
                error,
            )

    def _copied_parts(self, head: Head, total: int, upload: str) -> Iterator[dict[str, Any]]:
        size = part_of_known(total, self._part)
        for number, start in enumerate(range(0, total, size), 1):
            answer = self._copy(
                "upload_part_copy",
                head,
                UploadId=upload,
                PartNumber=number,
                CopySourceRange=f"bytes={start}-{min(start + size, total) - 1}",
            )
            yield {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

    def _copy(self, operation: str, head: Head, **arguments: Any) -> dict[str, Any]:
        """Make a request that copies, from the very object that was looked at."""
        if head.etag is not None:
            arguments["CopySourceIfMatch"] = head.etag
        try:
            return self._bucket.call(
                operation,
                self._key,
                CopySource={"Bucket": self._source.bucket, "Key": self._source.key},
                **arguments,
            )
        except ConditionFailed:
            self._check_source(head)
            raise

    def _check_source(self, head: Head) -> None:
        now = self._origin.head(self._source.key)
        if now is None or (now.etag, now.size) != (head.etag, head.size):
            raise ObjectChanged(
                f"Object {self._source} changed while it was being copied. Copy it again."
            ) from None
