"""An upload: one put, or parts that are joined at the end."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from store_lib.driver import Body, PartWriter
from store_lib.drivers.s3.bucket import NONCE, Bucket
from store_lib.drivers.s3.errors import NoSuchUpload
from store_lib.drivers.s3.location import S3Location
from store_lib.drivers.s3.options import LARGEST_PUT, MOST_PARTS, Settings
from store_lib.drivers.s3.parts import part_of_known, part_of_unknown
from store_lib.drivers.s3.payload import Payload
from store_lib.drivers.s3.publishing import Publication
from store_lib.drivers.s3.spool import spooled
from store_lib.drivers.s3.uploads import abort_unnamed, abort_upload
from store_lib.exceptions import StorageFull, StoreError

#: What a slow server does in a second: bytes of a put, and parts that it joins.
_SLOW_PUT = 1024 * 1024
SLOW_JOIN = 20


class S3Writer(PartWriter):
    """Uploads one object.

    The upload in parts begins with the first part, so that what fits in one request leaves no
    trace of another kind.

    :param size: bytes to come; ``None`` when unknown
    """

    def __init__(
        self,
        bucket: Bucket,
        location: S3Location,
        size: int | None,
        nonce: str,
        settings: Settings,
        publication: Publication,
    ) -> None:
        self.concurrency = settings.threads
        self.once_limit = min(max(0, settings.large - 1), LARGEST_PUT)
        self._bucket = bucket
        self._location = location
        self._size = size
        self._nonce = nonce
        self._least = settings.part
        self._equal = settings.equal_parts
        self._publication = publication
        self._upload: str | None = None
        #: When an upload was first asked for that the server may have begun without our seeing it.
        self._unseen: float | None = None
        self._lock = threading.Lock()

    def write_once(self, body: Body) -> S3Location:
        """Store the object by one put."""

        size = body.size
        # What is small goes with its head, which saves asking the server whether to go on.
        small = body.rewindable and size is not None and size <= self.chunk_size
        data = body.read() if small else Payload(body)

        def put(condition: Mapping[str, str]) -> None:
            self._bucket.put(self._location.key, data, size, {NONCE: self._nonce}, condition)

        self._publication.publish(put, (size or 0) / _SLOW_PUT)
        return self._location

    def part_size(self, number: int) -> int:
        """Return the bytes of a part: always the same, or slowly growing where no end is known."""
        if self._equal:
            return self._least
        if self._size is None:
            return part_of_unknown(number, self._least)
        return part_of_known(self._size, self._least)

    def put_part(self, number: int, body: Body) -> dict[str, str]:
        """Store a part."""
        if number > MOST_PARTS:
            raise StorageFull(
                f"Expected an object that {MOST_PARTS} parts hold, got more. "
                + ("Raise" if self._equal else "Declare its size, or raise")
                + " s3_store_large_object_chunk_size."
            )
        if body.size is None:
            with spooled(body) as (file, size):
                return self._put_part(number, file, size)
        return self._put_part(number, Payload(body), body.size)

    def _put_part(self, number: int, body: Any, size: int) -> dict[str, str]:
        answer = self._bucket.call(
            "upload_part",
            self._location.key,
            UploadId=self._begun(),
            PartNumber=number,
            Body=body,
            ContentLength=size,
        )
        return {
            name: answer[name]
            for name in answer
            if name == "ETag" or (name.startswith("Checksum") and name != "ChecksumType")
        }

    def _begun(self) -> str:
        """Return the id of the upload in parts, which the first part begins."""
        with self._lock:
            if self._upload is None:
                # Amazon refuses parts with a checksum of which the upload said nothing.
                sums = {"ChecksumAlgorithm": "CRC32"} if self._bucket.client.sums else {}
                began = time.monotonic()
                try:
                    answer = self._bucket.call(
                        "create_multipart_upload",
                        self._location.key,
                        Metadata={NONCE: self._nonce},
                        **sums,
                    )
                except StoreError:
                    self._unseen = self._unseen or began
                    raise
                self._upload = answer["UploadId"]
            return self._upload

    def commit(self, tokens: Sequence[Any]) -> S3Location:
        """Join the parts."""
        parts = [{"PartNumber": number, **token} for number, token in enumerate(tokens, 1)]

        def complete(condition: Mapping[str, str]) -> None:
            self._bucket.call(
                "complete_multipart_upload",
                self._location.key,
                UploadId=self._begun(),
                MultipartUpload={"Parts": parts},
                **condition,
            )

        try:
            self._publication.publish(complete, len(parts) / SLOW_JOIN, optional=True)
        except NoSuchUpload:
            # As after a request that was answered too late: it may have succeeded.
            if not self._publication.succeeded():
                raise
        self._tidy()
        return self._location

    def abort(self) -> None:
        """Abort the upload in parts, and take back what may have been published."""
        try:
            if self._upload is not None:
                abort_upload(self._bucket, self._location.key, self._upload)
                self._upload = None
        finally:
            self._publication.withdraw()
        if self._unseen is not None:
            abort_unnamed(self._bucket, self._location.key, self._unseen)

    def resolve(self) -> S3Location | None:
        """Look whether the object that is there has this upload's nonce."""
        if not self._publication.succeeded():
            return None
        self._tidy()
        return self._location

    def _tidy(self) -> None:
        """The id is taken: nobody needs what was begun under it and not seen."""
        if self._unseen is not None:
            abort_unnamed(self._bucket, self._location.key)
