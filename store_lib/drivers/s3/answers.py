"""What the driver takes out of botocore's answers, by operation, with types and bounds checked."""

import datetime
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from store_lib.clients.decoding import Unexpected, decoding, entries, fields, flag, size, text
from store_lib.exceptions import BackendException, RemoteServiceUnavailable

#: Returns a value checked, or raises :class:`~store_lib.clients.decoding.Unexpected`.
Check: TypeAlias = Callable[[Any], Any]


def _name(value: Any) -> str:
    found = text(value)
    if not found:
        raise Unexpected("a string that is not empty", value)
    return found


def _seconds(value: Any) -> float:
    """Return a time in seconds since the epoch."""
    try:
        if isinstance(value, datetime.datetime):
            return value.timestamp()
    except (ValueError, OverflowError):
        pass
    raise Unexpected("a time", value)


def _texts(value: Any) -> dict[str, str]:
    return {text(name): text(each) for name, each in fields(value).items()}


def _versioning(value: Any) -> str:
    if value not in ("Enabled", "Suspended"):
        raise Unexpected("Enabled or Suspended", value)
    return str(value)


def _object(**checks: Check) -> Check:
    """Return a check of an object with these fields, and of those that end with ``_`` if there."""

    def check(value: Any) -> dict[str, Any]:
        there, found = fields(value), {}
        for name, one in checks.items():
            plain = name.rstrip("_")
            if plain in there:
                try:
                    found[plain] = one(there[plain])
                except Unexpected as error:
                    raise Unexpected(f"{error.expected} ({plain})", error.got) from None
            elif plain == name:
                raise Unexpected(f"an object with {name}", value)
        return {**there, **found}

    return check


def _all(**checks: Check) -> Check:
    """Return a check of a list of objects with these fields."""
    one = _object(**checks)
    return lambda value: [one(each) for each in entries(value)]


_HEAD: Mapping[str, Check] = {
    "ContentLength_": size,
    "ContentRange_": text,
    "ETag_": text,
    "LastModified_": _seconds,
    "Metadata_": _texts,
}
#: What each answer has, and may have (``_``).  A field that is not named here is not to be used.
_ANSWERS: Mapping[str, Mapping[str, Check]] = {
    "abort_multipart_upload": {},
    "complete_multipart_upload": {"ETag": _name},
    "copy_object": {"CopyObjectResult": fields},
    "create_bucket": {},
    "create_multipart_upload": {"UploadId": _name},
    "delete_object": {},
    "get_bucket_versioning": {"Status_": _versioning},
    "get_object": {**_HEAD, "Body": lambda body: body},
    "head_object": _HEAD,
    "list_multipart_uploads": {
        "IsTruncated": flag,
        "NextKeyMarker_": text,
        "NextUploadIdMarker_": text,
        "Uploads_": _all(Key=_name, UploadId=_name, Initiated=_seconds),
    },
    "list_objects_v2": {
        "IsTruncated": flag,
        "NextContinuationToken_": text,
        "Contents_": _all(Key=_name, Size_=size, LastModified_=_seconds),
    },
    "list_parts": {
        "IsTruncated": flag,
        "NextPartNumberMarker_": size,
        "Parts_": _all(Size=size, LastModified=_seconds),
    },
    "put_object": {"VersionId_": text},
    "upload_part": {
        "ETag": _name,
        **{f"Checksum{kind}_": text for kind in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")},
    },
    "upload_part_copy": {"CopyPartResult": _object(ETag=_name)},
}
#: Answers that have what is needed in their heads.  Those of others are in bodies, which may have
#: been cut where only the connection's end ends them.
_BY_HEAD = frozenset({"get_object", "upload_part"})


def checked(operation: str, answer: Mapping[str, Any], asked: str, server: str) -> dict[str, Any]:
    """Return an answer with each field that is used checked; times are seconds since the epoch.

    :param operation: the method of botocore's client that gave the answer
    :param asked: what was asked for, for messages
    :param server: its URL
    :raises RemoteServiceUnavailable: a body lacks what every such answer has: it may have been cut
    :raises BackendException: a head lacks it, or something is not what it should be
    """
    wanted = _ANSWERS[operation]
    advice = "Check that it is an S3 server, and what is between."
    for needed in wanted:
        # botocore makes an object without fields of a body that is empty.
        if not needed.endswith("_") and answer.get(needed) in (None, "", {}):
            kind = BackendException if operation in _BY_HEAD else RemoteServiceUnavailable
            raise kind(f"{asked}: expected {needed} in the answer of {server}, got none. {advice}")
    with decoding(f"S3's answer to {asked} of {server}", advice=advice):
        return dict(_object(**wanted)(answer))
