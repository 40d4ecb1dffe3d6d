"""What adds that never finished left in a bucket: uploads in parts, and claims."""

import functools
import time
from collections.abc import Iterator

from store_lib.driver import Incomplete
from store_lib.drivers.s3.bucket import Bucket, server_time
from store_lib.drivers.s3.claim import PREFIX, Claimed
from store_lib.drivers.s3.errors import NoSuchUpload
from store_lib.drivers.s3.location import is_object_key
from store_lib.drivers.s3.uploads import abort_upload
from store_lib.exceptions import Invalid, NotFound


def find(bucket: Bucket) -> Iterator[Incomplete]:
    """Yield every upload in parts that has not ended, and every claim."""
    for page in bucket.client.pages("list_multipart_uploads", Bucket=bucket.name):
        for upload in page.get("Uploads", ()):
            key, identity, begun = upload["Key"], upload["UploadId"], upload["Initiated"]
            if is_object_key(key) and (found := _upload(bucket, key, identity, begun)):
                yield found
    for page in bucket.client.pages("list_objects_v2", Bucket=bucket.name, Prefix=PREFIX):
        for claim in page.get("Contents", ()):
            look = functools.partial(_claim, bucket, claim["Key"])
            if _is_claims(claim["Key"]) and (found := bucket.client.retry(look)):
                yield found


def remove(bucket: Bucket, key: str) -> bool:
    """Remove what :func:`find` gave, by its key, and say whether it was removed.

    :raises Invalid: it gave no such key
    """
    if _is_claims(key):
        found = _claim(bucket, key)
        if found is None or found.live:
            return False
        bucket.delete(key)
        return True
    object_id, _, identity = key.partition("/")
    if not identity or not is_object_key(object_id) or key.startswith(PREFIX):
        raise Invalid(
            f"Expected the key of a leftover in bucket {bucket.name}, got {key!a}. Take it from a "
            "listing of this store."
        )
    return abort_upload(bucket, object_id, identity)


def _upload(bucket: Bucket, key: str, identity: str, begun: float) -> Incomplete | None:
    """Return what the parts of an upload tell; ``None`` when it has ended meanwhile."""
    size, modified, now = 0, begun, begun
    try:
        for page in bucket.client.pages(
            "list_parts", Bucket=bucket.name, Key=key, UploadId=identity
        ):
            now = server_time(page)
            for part in page.get("Parts", ()):
                size += part["Size"]
                modified = max(modified, part["LastModified"])
    except (NoSuchUpload, NotFound):
        return None
    return Incomplete(f"{key}/{identity}", key, size, modified, now=now)


def _is_claims(key: str) -> bool:
    return key.startswith(PREFIX) and is_object_key(key.removeprefix(PREFIX))


def _claim(bucket: Bucket, key: str) -> Incomplete | None:
    found = Claimed.read(bucket, key)
    if found is None:
        return None
    now = time.time()  # the age is by the server's clock
    return Incomplete(key, key.removeprefix(PREFIX), 0, now - (found.age or 0), found.lives, now)
