"""Uploads in parts as the server knows them: how one is ended, and those that nobody can name."""

import time

from store_lib.display import get_logger
from store_lib.drivers.s3.bucket import Bucket, server_time
from store_lib.drivers.s3.errors import NoSuchBucket, NoSuchUpload
from store_lib.exceptions import StoreError

LOG = get_logger(__name__)

#: Seconds by which times in a listing may be rounded.
_ROUNDED = 2


def abort_upload(bucket: Bucket, key: str, upload: str) -> bool:
    """Abort an upload in parts, and say whether there was one."""
    try:
        bucket.call("abort_multipart_upload", key, UploadId=upload)
    except (NoSuchUpload, NoSuchBucket):
        return False
    return True


def abort_unnamed(bucket: Bucket, key: str, since: float | None = None) -> None:
    """Abort the uploads of a key whose names were in answers that were lost: they have no part.

    :param since: by this machine's monotonic clock, when the first of them was asked for; left out
        where the id is taken by now, so that nobody needs any
    """
    try:
        listed = bucket.client.call("list_multipart_uploads", Bucket=bucket.name, Prefix=key)
        first = 0.0
        if since is not None:
            first = server_time(listed) - (time.monotonic() - since) - _ROUNDED
        for upload in listed.get("Uploads", ()):
            name = upload["UploadId"]
            if (
                upload["Key"] == key
                and upload["Initiated"] >= first
                and not bucket.call("list_parts", key, UploadId=name, MaxParts=1).get("Parts")
            ):
                abort_upload(bucket, key, name)
    except StoreError as error:
        LOG.warning(
            "An upload of %s that was begun without an answer may be left. Sweep the store: %s",
            key,
            error,
        )
