"""Multipart uploads: parts, state, completion and abort, and the listing of unfinished ones."""

import dataclasses
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from store_lib.clients.decoding import (
    Unexpected,
    boolean,
    decoding,
    display,
    entries,
    fields,
    size,
    text,
)
from store_lib.display import get_logger
from store_lib.driver import Incomplete
from store_lib.drivers.s3.client import Bucket, NewObject, server_time
from store_lib.drivers.s3.errors import NoSuchBucket, NoSuchUpload
from store_lib.drivers.s3.location import is_object_key
from store_lib.drivers.s3.options import LARGEST_PUT, MIB, MOST_PARTS
from store_lib.exceptions import Invalid, NotFound, StorageFull, StoreError

LOG = get_logger(__name__)

#: Number of parts after which the parts of an upload of unknown length begin to grow.
_EVEN = 1000
#: Number of parts for each further MiB: 10,000 such parts hold more than 5 TiB in all.
_STEP = 7
#: Maximum rounding of the times in a listing, in seconds.
_ROUNDED = 2
_NONCE = re.compile(r"[0-9a-f]{32}")
_STATE_ADVICE = "Take it as a writer of this store gave it, or add the object anew."


@dataclasses.dataclass(frozen=True, slots=True)
class PartSizes:
    """The sizes of an upload's parts, chosen so that the object fits in as many as S3 allows."""

    #: Bytes of the object; ``None`` if unknown.
    total: int | None
    #: Minimum bytes of a part; the last one may be smaller.
    minimum: int
    #: Whether all parts but the last have exactly ``minimum`` bytes.
    equal: bool = False

    def check(self) -> None:
        """Check that the object is not too large for these parts.

        :raises StorageFull: it is
        """
        largest = self.minimum if self.equal else LARGEST_PUT
        if self.total is not None and self.total > MOST_PARTS * largest:
            parts = (
                "of s3_store_large_object_chunk_size hold (s3_store_equal_parts)"
                if self.equal
                else "of 5 GiB hold"
            )
            raise StorageFull(
                f"Expected an object that {MOST_PARTS} parts {parts}, got {self.total} bytes."
            )

    def check_number(self, number: int) -> None:
        """Check that S3 allows this part number.

        :raises StorageFull: it does not
        """
        if number > MOST_PARTS:
            raise StorageFull(
                f"Expected an object that {MOST_PARTS} parts hold, got more. "
                + ("Raise" if self.equal else "Declare its size, or raise")
                + " s3_store_large_object_chunk_size."
            )

    def of(self, number: int) -> int:
        """Return the size of part ``number`` (from 1) in bytes.

        If the size of the object is known, all parts have the same size, in whole MiB.  Otherwise
        they grow slowly, so that a short stream does not take the memory of large parts.
        """
        if self.equal:
            return self.minimum
        if self.total is None:
            grown = max(0, number - _EVEN) // _STEP * MIB
            return min(LARGEST_PUT, self.minimum + grown)
        needed = -(-self.total // MOST_PARTS)
        return max(self.minimum, -(-needed // MIB) * MIB)


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """A part that the server has."""

    size: int
    #: Names the part in the request that joins the parts.
    token: dict[str, str]

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Return a part from an upload's state."""
        token = {text(name): text(value) for name, value in fields(state["token"]).items()}
        if not token.get("ETag", "").strip('"') or not all(map(_is_in_token, token)):
            raise Unexpected("an ETag and a checksum", str(token))
        return cls(size(state["size"]), token)


def _is_in_token(name: str) -> bool:
    return name == "ETag" or (name.startswith("Checksum") and name != "ChecksumType")


class MultipartUpload:
    """The multipart upload of one object, which the server begins with the first part.

    :param target: the object to add
    """

    def __init__(self, target: NewObject, sizes: PartSizes) -> None:
        self.target = target
        self.sizes = sizes
        self._upload_id: str | None = None
        #: The parts that were put, by number.
        self._parts: dict[int, _Part] = {}
        #: Time of the first request to begin the upload that got no response: the server may have
        #: begun an upload whose id is not known here.
        self._unanswered: float | None = None
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any] | None:
        """Return the state for :meth:`resume`, or ``None`` if the upload has not begun."""
        with self._lock:
            if self._upload_id is None:
                return None
            return {
                "object_id": self.target.key,
                "bucket": self.target.bucket.name,
                "nonce": self.target.nonce,
                "upload_id": self._upload_id,
                "size": self.sizes.total,
                "part_size": self.sizes.minimum,
                "equal_parts": self.sizes.equal,
                "parts": [
                    {"number": number, "size": part.size, "token": part.token}
                    for number, part in sorted(self._parts.items())
                ],
            }

    @classmethod
    def resume(cls, bucket: Bucket, state: Mapping[str, Any]) -> Self:
        """Return the upload that a :meth:`state` describes, without a request.

        The state may come from another process.

        :raises Invalid: the state is malformed, or of an upload into another bucket
        """
        with decoding("the state of an S3 upload", raising=Invalid, advice=_STATE_ADVICE):
            names = ("object_id", "bucket", "nonce", "upload_id")
            object_id, bucket_name, nonce, upload_id = (text(state[name]) for name in names)
            total = None if state["size"] is None else size(state["size"])
            sizes = PartSizes(total, size(state["part_size"]), boolean(state["equal_parts"]))
            if not is_object_key(object_id) or not _NONCE.fullmatch(nonce) or not sizes.minimum:
                raise Unexpected(
                    "an object's id, a nonce and a part size",
                    f"{object_id} {nonce} {sizes.minimum}",
                )
            parts = {
                size(part["number"], "parts", MOST_PARTS + 1): _Part.of(part)
                for part in entries(state["parts"])
            }
        if bucket_name != bucket.name:
            raise Invalid(
                f"Expected the state of an upload into bucket {bucket.name}, got one into "
                f"{display(bucket_name)}. {_STATE_ADVICE}"
            )
        upload = cls(NewObject(bucket, object_id, nonce), sizes)
        upload._upload_id = upload_id
        upload._parts = parts
        return upload

    def verify(self) -> None:
        """Check that the server has the parts of the state.

        :raises NotFound: the server has no such upload
        :raises Invalid: a part is missing on the server, or is another one there
        """
        assert self._upload_id is not None  # resume has set it
        stored = {
            part.get("PartNumber"): (part["Size"], part.get("ETag", "").strip('"'))
            for page in _pages_of_parts(self.target.bucket, self.target.key, self._upload_id)
            for part in page.get("Parts", ())
        }
        for number, part in self._parts.items():
            expected = (part.size, part.token["ETag"].strip('"'))
            if stored.get(number) != expected:
                raise Invalid(
                    f"Expected part {number} of an upload of {self.target.key} to have "
                    f"{part.size} bytes and the ETag {expected[1]}, got "
                    f"{stored.get(number, 'none')} of the server. Add the object anew."
                )

    def put(self, number: int, body: Any, size: int) -> dict[str, str]:
        """Store a part, and return its token: ETag and checksum."""
        response = self.target.call(
            "upload_part",
            UploadId=self._begin(checksums=self.target.bucket.client.checksums),
            PartNumber=number,
            Body=body,
            ContentLength=size,
        )
        token = {name: response[name] for name in response if _is_in_token(name)}
        with self._lock:
            self._parts[number] = _Part(size, token)
        return token

    def copy(self, number: int, **source: Any) -> dict[str, str]:
        """Have the server copy ``source`` into a part, and return the part's token."""
        response = self.target.call(
            "upload_part_copy", UploadId=self._begin(), PartNumber=number, **source
        )
        return {"ETag": response["CopyPartResult"]["ETag"]}

    def _begin(self, *, checksums: bool = False) -> str:
        """Begin the upload if that has not been done, and return its id.

        :param checksums: whether parts are sent with checksums, which Amazon refuses unless the
            request that begins the upload announces them
        """
        with self._lock:
            if self._upload_id is None:
                announced = {"ChecksumAlgorithm": "CRC32"} if checksums else {}
                began = time.monotonic()
                try:
                    response = self.target.call(
                        "create_multipart_upload", Metadata=self.target.metadata, **announced
                    )
                except StoreError:
                    self._unanswered = self._unanswered or began
                    raise
                self._upload_id = response["UploadId"]
            return self._upload_id

    def complete(self, tokens: Sequence[Mapping[str, str]], condition: Mapping[str, str]) -> None:
        """Join the parts to an object.

        :param condition: the header of the condition on which S3 stores the object
        """
        parts = [{"PartNumber": number, **token} for number, token in enumerate(tokens, 1)]
        self.target.call(
            "complete_multipart_upload",
            UploadId=self._begin(),
            MultipartUpload={"Parts": parts},
            **condition,
        )

    def abort(self) -> None:
        """Abort the upload, if it was begun."""
        if self._upload_id is not None:
            abort_upload(self.target.bucket, self.target.key, self._upload_id)
            with self._lock:
                self._upload_id = None
                self._parts.clear()

    def abort_unanswered(self, *, published: bool) -> None:
        """Abort uploads that the server may have begun for a request that got no response.

        Such an upload is recognized by having no parts.

        :param published: whether an object with this id exists now, so that no upload of any age
            can succeed
        """
        if self._unanswered is None:
            return
        try:
            # Repeat it here: the next attempt of a copy has another writer, which does not know
            # of these uploads.
            self.target.bucket.client.retry(lambda: self._abort_empty(published))
        except StoreError as error:
            LOG.warning(
                "An upload of %s that was begun without an answer may be left. Sweep the store: %s",
                self.target.key,
                error,
            )

    def _abort_empty(self, published: bool) -> None:
        bucket, key = self.target.bucket, self.target.key
        listing = bucket.client.call("list_multipart_uploads", Bucket=bucket.name, Prefix=key)
        earliest = 0.0
        if not published:
            assert self._unanswered is not None
            waited = time.monotonic() - self._unanswered
            earliest = server_time(listing) - waited - _ROUNDED
        for upload in listing.get("Uploads", ()):
            upload_id = upload["UploadId"]
            if (
                upload["Key"] == key
                and upload["Initiated"] >= earliest
                and not bucket.call("list_parts", key, UploadId=upload_id, MaxParts=1).get("Parts")
            ):
                abort_upload(bucket, key, upload_id)


def _pages_of_parts(bucket: Bucket, key: str, upload_id: str) -> Iterator[dict[str, Any]]:
    return bucket.client.pages("list_parts", Bucket=bucket.name, Key=key, UploadId=upload_id)


def abort_upload(bucket: Bucket, key: str, upload_id: str) -> bool:
    """Abort a multipart upload, and return whether it existed."""
    try:
        bucket.call("abort_multipart_upload", key, UploadId=upload_id)
    except (NoSuchUpload, NoSuchBucket):
        return False
    return True


def list_uploads(bucket: Bucket) -> Iterator[Incomplete]:
    """Yield every multipart upload of a bucket that was neither completed nor aborted."""
    for page in bucket.client.pages("list_multipart_uploads", Bucket=bucket.name):
        for upload in page.get("Uploads", ()):
            key = upload["Key"]
            if is_object_key(key) and (
                incomplete := _measure(bucket, key, upload["UploadId"], upload["Initiated"])
            ):
                yield incomplete


def _measure(bucket: Bucket, key: str, upload_id: str, begun: float) -> Incomplete | None:
    """Return an upload with size and age by its parts, or ``None`` if it has ended meanwhile."""
    size, modified, now = 0, begun, begun
    try:
        for page in _pages_of_parts(bucket, key, upload_id):
            now = server_time(page)
            for part in page.get("Parts", ()):
                size += part["Size"]
                modified = max(modified, part["LastModified"])
    except (NoSuchUpload, NotFound):
        return None
    return Incomplete(f"{key}/{upload_id}", key, size, modified, now=now)
