"""Translates botocore's errors into the library's."""

import http.client
import re
from collections.abc import Mapping
from typing import Any

from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError

from store_lib.clients.hosts import origin_of
from store_lib.clients.network_errors import BUSY, OptionNames, Server, transport_error
from store_lib.clients.response_headers import retry_after
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    Forbidden,
    InvalidObjectId,
    InvalidRange,
    MissingCredentialError,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
    not_found,
)
from store_lib.redaction import hide, redact


class NoSuchBucket(NotFound):
    """There is no such bucket."""


class NoSuchUpload(NotFound):
    """The multipart upload was aborted or completed before."""


class ConditionFailed(BackendException):
    """A request's condition failed: an object exists although it must not, or has changed."""


class UnknownRegion(BackendException):
    """The server does not know the region in which a bucket is to be created."""


class NotImplementedThere(BackendException):
    """The server does not know a header or a parameter of the request."""


_OPTION_NAMES = OptionNames("s3_store_cacert", "s3_store_connect_timeout", "s3_store_read_timeout")

#: Error codes of requests that may succeed later, whatever the HTTP status.
_BUSY_CODES = frozenset(
    {
        "BadDigest",  # the body was altered on the way, as with the next two
        "IncompleteBody",
        "XAmzContentSHA256Mismatch",
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
_FULL_CODES = frozenset(
    {
        "EntityTooLarge",
        "InsufficientCapacity",
        "InsufficientStorage",
        "QuotaExceeded",
        "XMinioStorageFull",
    }
)
_UNKNOWN_CODES = frozenset({"InvalidArgument", "InvalidRequest", "NotImplemented"})
_KEY_CODES = frozenset(
    {"InvalidObjectName", "KeyTooLong", "KeyTooLongError", "XMinioInvalidObjectName"}
)
#: Matches what servers say if a bucket with object lock requires a checksum of the body.
_CHECKSUM_WANTED = re.compile(r"content-?md5|x-amz-(?:sdk-)?checksum", re.IGNORECASE)
#: Advice on a response that an S3 server would not give.
CHECK_SERVER = "Check that it is an S3 server, and any proxy in between."
_KEYS = "Check s3_store_access_key and s3_store_secret_key"
#: Advice on a refused login, by error code.
_LOGIN_CODES = {
    "InvalidAccessKeyId": f"The server does not know the access key. {_KEYS}.",
    "SignatureDoesNotMatch": f"{_KEYS}, and s3_store_region_name.",
    "ExpiredToken": "The temporary credentials have expired. Make sure that boto3 gets new ones.",
    "InvalidToken": "The temporary credentials are invalid. Make sure that boto3 gets others.",
    "RequestTimeTooSkewed": (
        "This machine's clock and the server's differ too much. Synchronize them, by NTP."
    ),
    "RequestExpired": "This machine's clock may be wrong. Synchronize it, by NTP.",
}
#: The rights that a policy has to grant, by operation.
_RIGHTS = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "create_bucket": "s3:CreateBucket",
    "delete_object": "s3:DeleteObject",
    "get_bucket_versioning": "s3:GetBucketVersioning",
    "head_object": "s3:GetObject",
    "get_object": "s3:GetObject, and s3:ListBucket, without which this is also the answer for an "
    "object that does not exist",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "list_objects_v2": "s3:ListBucket",
    "list_parts": "s3:ListMultipartUploadParts",
}
_REGION_CODES = frozenset(
    {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
)
_REGION = re.compile(r"[a-z0-9-]{1,63}")
_CREDENTIAL_ERRORS = frozenset(
    {
        "CredentialRetrievalError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "SSOTokenLoadError",
    }
)


def translate(error: Exception, endpoint: str, request: str) -> StoreError:
    """Return the library's error for an error that a call of botocore raised.

    :param endpoint: URL of the server
    :param request: an operation and its target
    """
    response: dict[str, Any] | None = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return _error_for_response(response, endpoint, request)
    # botocore wraps an error of the HTTP client, and one that a body raised while it was sent.
    wrapped = getattr(error, "kwargs", {}).get("error")
    cause = wrapped if isinstance(wrapped, Exception) else error
    if isinstance(cause, StoreError):
        return cause
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & _CREDENTIAL_ERRORS:
        return MissingCredentialError(
            f"No credentials for {endpoint}: {error}. Set s3_store_access_key and "
            "s3_store_secret_key, or make sure that boto3 finds some."
        )
    # botocore raises this for any other error during a request.
    unknown = type(error).__name__ == "HTTPClientError" and not isinstance(
        cause, OSError | HTTPError | http.client.HTTPException
    )
    if not unknown and kinds & {
        "HTTPClientError",
        "ConnectionError",
        "OSError",
        "HTTPError",
        "IncompleteReadError",
    }:
        return transport_error(
            cause,
            Server(endpoint, _OPTION_NAMES),
        )
    if "ResponseParserError" in kinds:
        return RemoteServiceUnavailable(
            f"{request}: the answer of {endpoint} is not one of S3, or was cut. {CHECK_SERVER}"
        )
    return BackendException(
        f"{request} at {endpoint} failed in boto3: {type(cause).__name__}: "
        f"{redact(hide(str(cause), ()))}"
    )


def _error_for_response(response: dict[str, Any], endpoint: str, request: str) -> StoreError:
    """Return the library's error for an error response."""
    code = str(response["Error"].get("Code") or "")
    metadata = response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode") or 0)
    operation, _, what = request.partition(" ")
    answer = f"{endpoint} answered {_describe(response, code, status)}"
    text = f"{request}: {answer}."
    if code in _LOGIN_CODES:
        kind = (
            NotAuthenticated if code in ("ExpiredToken", "InvalidToken") else AuthorizationFailure
        )
        return kind(f"{text} {_LOGIN_CODES[code]}")
    if code in _FULL_CODES or status == 507:
        return StorageFull(f"{text} Free space or raise the quota or limit there.")
    if code in _BUSY_CODES or status in BUSY:
        headers = HTTPHeaderDict(metadata.get("HTTPHeaders", {}))
        return RemoteServiceUnavailable(text, retry_after=retry_after(headers))
    if code == "NoSuchBucket":
        return NoSuchBucket(
            f"{text} Create the bucket, or set s3_store_create_bucket_on_put to have it created."
        )
    if code == "NoSuchUpload":
        return NoSuchUpload(f"{text} It was aborted, swept, or completed before.")
    # Some servers answer a put with 304.  A read never gets it, as none sends If-None-Match.
    if status in (304, 412) or code == "PreconditionFailed":
        return ConditionFailed(text)
    if status == 416 or code == "InvalidRange":
        return InvalidRange(text)
    if status == 404:
        return not_found(what, answer)
    if code == "InvalidLocationConstraint":
        return UnknownRegion(f"{text} Set s3_store_region_name to a region of this server.")
    region = region_of(response)
    if code in _REGION_CODES or status == 301 or (code == str(status) == "400" and region):
        named = f" to {region}, the bucket's region" if region else " to the bucket's region"
        return BackendException(
            f"{text} Set s3_store_region_name{named}, and s3_store_host to a name of the server "
            "there."
        )
    if 300 <= status < 400:
        target = metadata.get("HTTPHeaders", {}).get("location")
        leads = f" This one leads to {origin_of(target)}." if target else ""
        return BackendException(
            f"{text} Redirects are not followed.{leads} Set s3_store_host to the server that is "
            "meant."
        )
    if code in _KEY_CODES:
        return InvalidObjectId(f"{text} The server cannot hold a key like this: use a shorter id.")
    if status == 400 and _CHECKSUM_WANTED.search(f"{code} {response['Error'].get('Message')}"):
        return BackendException(
            f"{text} A bucket with an object lock's default retention needs checksums: set "
            "s3_store_enable_data_integrity_protection, and s3_store_request_checksum_calculation "
            "to when_supported."
        )
    if code == "InvalidPart":
        return BackendException(
            f"{text} If the server requires all parts to have one size, set s3_store_equal_parts."
        )
    if code in _UNKNOWN_CODES or status == 501:
        return NotImplementedThere(text)
    if status in (401, 403):
        right = _RIGHTS.get(operation, "s3:PutObject")
        return Forbidden(
            f"{text} Check that the policies of user and bucket allow {right}. {_KEYS}."
        )
    return BackendException(text)


def region_of(response: Mapping[str, Any]) -> str | None:
    """Return the bucket's region, or ``None`` if the response does not name it."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    for named in (headers.get("x-amz-bucket-region"), response.get("Error", {}).get("Region")):
        if isinstance(named, str) and _REGION.fullmatch(named):
            return named
    return None


def _describe(response: dict[str, Any], code: str, status: int) -> str:
    """Return code and message, and the id of the request in the server's logs."""
    message = str(response["Error"].get("Message") or "")
    text = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    parts = [code if code == str(status) else f"{code} ({status})"]
    if text and text != code:
        parts.append(f"{redact(hide(text, ()))[:200]!r}")
    request_id = response.get("ResponseMetadata", {}).get("RequestId")
    if request_id:
        parts.append(f"request {request_id}")
    return ", ".join(parts)
