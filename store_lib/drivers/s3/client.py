"""Requests to an S3 server through botocore, with one client per process; checks of responses."""

import contextlib
import dataclasses
import datetime
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from store_lib.clients.decoding import Unexpected, boolean, decoding, entries, fields, size, text
from store_lib.clients.library_calls import LibraryCall
from store_lib.clients.process import PerProcess
from store_lib.clients.response_headers import content_range, parse_http_date
from store_lib.display import get_logger
from store_lib.driver import Repeater
from store_lib.drivers.s3.errors import (
    CHECK_SERVER,
    NoSuchBucket,
    NotImplementedThere,
    UnknownRegion,
    translate,
)
from store_lib.drivers.s3.options import Settings
from store_lib.exceptions import (
    BackendException,
    Forbidden,
    InvalidRange,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.options import StoreOptions
from store_lib.redaction import hide

LOG = get_logger(__name__)

#: The metadata field that holds the nonce of the upload that stored an object.
NONCE = "store-lib-nonce"

#: How a listing is continued: parameters of the next request, by the fields of the last response
#: that hold their values.
_MARKERS: Mapping[str, Mapping[str, str]] = {
    "list_multipart_uploads": {
        "KeyMarker": "NextKeyMarker",
        "UploadIdMarker": "NextUploadIdMarker",
    },
    "list_objects_v2": {"ContinuationToken": "NextContinuationToken"},
    "list_parts": {"PartNumberMarker": "NextPartNumberMarker"},
}

#: Operations that add an object.  If one fails with "not found", the bucket is missing.
_ADDING = frozenset(
    {
        "complete_multipart_upload",
        "copy_object",
        "create_multipart_upload",
        "put_object",
        "upload_part",
        "upload_part_copy",
    }
)

#: Minimum size of the pool of connections, enough for several concurrent transfers.
_CONNECTIONS = 64


class Client:
    """Makes the requests of one store.

    This uses botocore, on which boto3 is built; botocore's client is the one that boto3 returns.

    :param retry: repeats short requests that the engine does not repeat itself
    :raises ImportError: botocore is not installed
    """

    def __init__(self, options: StoreOptions, settings: Settings, retry: Repeater) -> None:
        from botocore.config import Config
        from botocore.utils import get_environ_proxies

        from store_lib.drivers.s3.connections import set_up

        protected = options.s3_store_enable_data_integrity_protection
        checksums = {
            name: options[f"s3_store_{name}"] if protected else "when_required"
            for name in ("request_checksum_calculation", "response_checksum_validation")
        }
        config = Config(
            signature_version="s3v4",
            # botocore must not retry: the engine does, and knows which requests must not be
            # repeated.
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=options.s3_store_connect_timeout,
            read_timeout=options.silence("s3_store_read_timeout"),
            max_pool_connections=max(_CONNECTIONS, 2 * settings.threads),
            tcp_keepalive=True,
            user_agent_extra="store_lib",
            # With None, botocore would use the proxies that the environment names.
            proxies={"http": settings.proxy, "https": settings.proxy} if settings.proxy else {},
            s3={
                "addressing_style": settings.addressing,
                "payload_signing_enabled": {"always": True, "never": False}.get(
                    options.s3_store_payload_signing, not settings.tls
                ),
            },
            **checksums,
        )
        streamed = config.merge(
            Config(
                s3={**config.s3, "payload_signing_enabled": False},
                request_checksum_calculation="when_required",
            )
        )

        def make() -> Any:
            session = _session()
            client = session.create_client(
                "s3",
                endpoint_url=settings.endpoint,
                region_name=settings.region or session.get_config_variable("region") or "us-east-1",
                aws_access_key_id=options.s3_store_access_key or None,
                aws_secret_access_key=options.s3_store_secret_key or None,
                verify=options.s3_store_cacert or True,  # with None, the environment would decide
                config=config,
            )
            set_up(client)
            client.meta.events.register(
                "before-parameter-build.s3", functools.partial(_read_once, streamed)
            )
            return client

        if not settings.proxy and get_environ_proxies(settings.endpoint):
            LOG.warning(
                "%s is asked directly: the proxies of the environment are not used. Set "
                "s3_store_proxy if there is no other way to it.",
                settings.endpoint,
            )
        self.endpoint = settings.endpoint
        self.retry = retry
        #: Whether botocore sends a checksum with every put and part.
        self.checksums = checksums["request_checksum_calculation"] == "when_supported"
        self._per_process: PerProcess[Any] = PerProcess(make)
        for name in ("botocore.auth", "botocore.endpoint", "botocore.hooks", "botocore.parsers"):
            # addFilter does nothing if the logger has the filter already.
            logging.getLogger(name).addFilter(_redact_record)

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        region: str = self.open().meta.region_name
        return region

    def open(self) -> Any:
        """Return this process's client, which many threads may use at once."""
        return self._per_process.get()

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make a request and return the response, with times as seconds since the epoch.

        :param operation: a method of botocore's client
        :param arguments: its arguments
        :raises StoreError: the request failed, see :func:`~store_lib.drivers.s3.errors.translate`;
            or a field of the response is missing or malformed
        """
        request = _describe(operation, arguments)
        with LibraryCall(functools.partial(self._translate, operation, request)):
            response: dict[str, Any] = getattr(self.open(), operation)(**arguments)
        try:
            return _check_response(operation, response, request, self.endpoint)
        except StoreError:
            if operation == "get_object" and "Body" in response:
                response["Body"].close()
            raise

    def _translate(self, operation: str, request: str, error: Exception) -> StoreError:
        """Return the library's error for one of botocore's."""
        translated = translate(error, self.endpoint, request)
        if isinstance(translated, NoSuchBucket) and operation in _ADDING:
            return BackendException(translated.msg)
        return translated

    def pages(self, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing.  If a request fails, only its page is requested again."""
        markers: dict[str, Any] = {}
        seen = set()
        while True:
            page = self.retry(functools.partial(self.call, operation, **arguments, **markers))
            yield page
            if not page["IsTruncated"]:
                return
            markers = {
                marker: page[following]
                for marker, following in _MARKERS[operation].items()
                if page.get(following)
            }
            if not markers or (place := (*markers.values(),)) in seen:
                raise BackendException(
                    f"{_describe(operation, arguments)}: {self.endpoint} says that there is more, "
                    f"but not where it continues, or leads back to an earlier page. {CHECK_SERVER}"
                )
            seen.add(place)

    def presign(self, bucket: str, key: str, expires: int) -> str:
        """Return a URL from which an object can be read for ``expires`` seconds."""
        with self.translating(f"presign {bucket}/{key}"):
            url: str = self.open().generate_presigned_url(
                "get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=expires
            )
            return url

    def translating(self, request: str) -> LibraryCall:
        """Return a context manager that translates botocore's errors into the library's.

        :param request: an operation and its target, for messages
        """
        return LibraryCall(lambda error: translate(error, self.endpoint, request))

    def close(self) -> None:
        """Close this process's idle connections."""
        client = self._per_process.take()
        if client is not None:
            client.close()


#: botocore's description of the S3 API, shared by all sessions as it is slow to load.
_models: Any = None


def _session() -> Any:
    """Return a botocore session, which finds credentials.  A child process needs its own."""
    global _models
    import botocore.session

    session = botocore.session.get_session()
    _models = _models or session.get_component("data_loader")
    session.register_component("data_loader", _models)
    return session


def _describe(operation: str, arguments: dict[str, Any]) -> str:
    """Describe a request for messages: the operation and its target."""
    what = "/".join(arguments[name] for name in ("Bucket", "Key") if name in arguments)
    part = f", part {arguments['PartNumber']}" if "PartNumber" in arguments else ""
    return f"{operation} {what}{part}"


def _read_once(streamed: Any, params: Any, context: Any, **_: Any) -> None:
    """Leave a streamed body unsigned and without a checksum, as both need a second read of it."""
    if not getattr(params.get("Body"), "rewindable", True):
        context["client_config"] = streamed


def _redact_record(record: logging.LogRecord) -> bool:
    """Hide access keys, tokens and signatures in botocore's debug lines."""
    record.msg = hide(record.getMessage(), ())
    record.args = ()
    return True


# Checks of responses.

#: Returns the valid value, or raises :class:`~store_lib.clients.decoding.Unexpected`.
_Check: TypeAlias = Callable[[Any], Any]


def _nonempty(value: Any) -> str:
    string = text(value)
    if not string:
        raise Unexpected("a string that is not empty", value)
    return string


def _timestamp(value: Any) -> float:
    """Convert a time to seconds since the epoch."""
    try:
        if isinstance(value, datetime.datetime):
            return value.timestamp()
    except (ValueError, OverflowError):
        pass
    raise Unexpected("a time", value)


def _strings(value: Any) -> dict[str, str]:
    return {text(name): text(string) for name, string in fields(value).items()}


def _versioning(value: Any) -> str:
    if value not in ("Enabled", "Suspended"):
        raise Unexpected("Enabled or Suspended", value)
    return str(value)


def _object(**checks: _Check) -> _Check:
    """Return a check of a mapping's fields; a field whose name ends with ``_`` is optional."""

    def check(value: Any) -> dict[str, Any]:
        given, checked = fields(value), {}
        for name, check_field in checks.items():
            plain = name.rstrip("_")
            if plain in given:
                try:
                    checked[plain] = check_field(given[plain])
                except Unexpected as error:
                    raise Unexpected(f"{error.expected} ({plain})", error.got) from None
            elif plain == name:
                raise Unexpected(f"an object with {name}", value)
        return {**given, **checked}

    return check


def _list_of(**checks: _Check) -> _Check:
    """Return a check of a list of mappings with these fields."""
    check = _object(**checks)
    return lambda value: [check(entry) for entry in entries(value)]


_HEAD: Mapping[str, _Check] = {
    "ContentLength_": size,
    "ContentRange_": text,
    "ETag_": text,
    "LastModified_": _timestamp,
    "Metadata_": _strings,
}
#: Required and optional (``_``) fields of each response.  Only fields named here may be used.
_RESPONSES: Mapping[str, Mapping[str, _Check]] = {
    "abort_multipart_upload": {},
    "complete_multipart_upload": {"ETag": text},  # which Ceph's gateway leaves empty
    "copy_object": {"CopyObjectResult": fields},
    "create_bucket": {},
    "create_multipart_upload": {"UploadId": _nonempty},
    "delete_object": {},
    "get_bucket_versioning": {"Status_": _versioning},
    "get_object": {**_HEAD, "Body": lambda body: body},
    "head_object": _HEAD,
    "list_multipart_uploads": {
        "IsTruncated": boolean,
        "NextKeyMarker_": text,
        "NextUploadIdMarker_": text,
        "Uploads_": _list_of(Key=_nonempty, UploadId=_nonempty, Initiated=_timestamp),
    },
    "list_objects_v2": {
        "IsTruncated": boolean,
        "NextContinuationToken_": text,
        "Contents_": _list_of(Key=_nonempty, Size_=size, LastModified_=_timestamp),
    },
    "list_parts": {
        "IsTruncated": boolean,
        "NextPartNumberMarker_": size,
        "Parts_": _list_of(PartNumber_=size, ETag_=text, Size=size, LastModified=_timestamp),
    },
    "put_object": {"VersionId_": text},
    "upload_part": {
        "ETag": _nonempty,
        **{f"Checksum{kind}_": text for kind in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")},
    },
    "upload_part_copy": {"CopyPartResult": _object(ETag=_nonempty)},
}
#: Operations whose required fields are in the response's head.  For all others they are in the
#: body, which may have been cut if only the end of the connection marks its end.
_BY_HEAD = frozenset({"get_object", "upload_part"})


def _check_response(
    operation: str, response: Mapping[str, Any], request: str, server: str
) -> dict[str, Any]:
    """Return the fields of a response that are used, after a check.

    :param request: a description of the request, for messages
    :param server: the server's URL
    :raises RemoteServiceUnavailable: a required field is missing in the body, which may have
        been cut
    :raises BackendException: a required field is missing in the head, or a field is malformed
    """
    checks = _RESPONSES[operation]
    for needed, check in checks.items():
        # botocore turns an empty body into an empty mapping.
        missing: tuple[Any, ...] = (None, {}) if check is text else (None, "", {})
        if not needed.endswith("_") and response.get(needed) in missing:
            kind = BackendException if operation in _BY_HEAD else RemoteServiceUnavailable
            raise kind(
                f"{request}: expected {needed} in the answer of {server}, got none. {CHECK_SERVER}"
            )
    with decoding(f"S3's answer to {request} of {server}", advice=CHECK_SERVER):
        return dict(_object(**checks)(response))


def server_time(response: Mapping[str, Any]) -> float:
    """Return the time of a response by the server's clock, or by this machine's if not given."""
    now = parse_http_date(response["ResponseMetadata"]["HTTPHeaders"].get("date"))
    return time.time() if now is None else now


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a bucket reports about an object; ``None`` for a fact that it does not report."""

    size: int | None
    #: Identifies the object's bytes.
    etag: str | None
    #: Seconds since the epoch.
    modified: float | None
    #: Seconds since ``modified``, by the server's clock.
    age: float | None
    metadata: Mapping[str, str]

    @property
    def nonce(self) -> str:
        """The nonce of the upload that stored the object; empty if not reported."""
        return self.metadata.get(NONCE, "")

    @classmethod
    def of(cls, response: Mapping[str, Any]) -> "Head":
        """Return the head of a response to HEAD or GET."""
        size = response.get("ContentLength")
        if span := response.get("ContentRange"):
            span = content_range(span)
            size = None if span is None else span[2]
        modified = response.get("LastModified")
        return cls(
            size=size,
            etag=response.get("ETag"),
            modified=modified,
            age=None if modified is None else server_time(response) - modified,
            # Several servers change the case of names, among them all that use Go's net/http.
            metadata={name.lower(): value for name, value in response.get("Metadata", {}).items()},
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of a server."""

    client: Client
    name: str

    def call(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        """Make a request for an object of the bucket."""
        return self.client.call(operation, Bucket=self.name, Key=key, **arguments)

    def head(self, key: str) -> Head | None:
        """Return an object's head, or ``None`` if the object does not exist."""
        try:
            return Head.of(self.call("head_object", key))
        except NotFound:
            return None
        except (Forbidden, BackendException):
            return self._head_by_get(key)

    def _head_by_get(self, key: str) -> Head | None:
        """Repeat a failed HEAD as a one-byte GET, whose error response says what is wrong."""
        try:
            response = self.call("get_object", key, Range="bytes=0-0")
        except NotFound:
            return None
        except InvalidRange:
            response = self.call("get_object", key)
        response["Body"].close()
        return Head.of(response)

    def read(self, key: str, limit: int) -> tuple[Head, bytes] | None:
        """Return an object's head and first ``limit`` bytes, or ``None`` if it does not exist."""
        try:
            response = self.call("get_object", key)
        except NotFound:
            return None
        request = f"get_object {self.name}/{key}"
        with contextlib.closing(response["Body"]) as body, self.client.translating(request):
            return Head.of(response), body.read(limit)

    def put(
        self,
        key: str,
        body: Any,
        size: int | None,
        metadata: Mapping[str, str],
        condition: Mapping[str, str],
    ) -> dict[str, Any]:
        """Store an object in one request, and return the response.

        :raises ConditionFailed: ``condition`` does not hold
        """
        return self.call(
            "put_object",
            key,
            Body=body,
            ContentLength=size,
            Metadata=dict(metadata),
            **condition,
        )

    def delete(self, key: str) -> None:
        """Delete an object if it exists."""
        self.call("delete_object", key)

    def versioning(self) -> str | None:
        """Return the bucket's versioning: ``Enabled`` or ``Suspended``.

        The string is empty if versioning was never enabled; ``None`` if this is unknown.
        """
        try:
            response = self.client.call("get_bucket_versioning", Bucket=self.name)
        except NotImplementedThere:
            return ""  # the server has no versioning
        except (Forbidden, BackendException):
            return None
        status: str = response.get("Status", "")
        return status

    def ensure(self, region: str, *, named: bool) -> None:
        """Create the bucket unless it exists.

        :param region: where to create it
        :param named: whether the operator has configured the region; if not, and the server rejects
            it as unknown, the bucket is created without a region and the server chooses
        """
        try:
            self._check_exists()
        except NoSuchBucket:
            try:
                self._create(region, named=named)
            except BackendException as error:
                try:
                    self._check_exists()  # another process may have just created it
                except NoSuchBucket:
                    raise error from None

    def _create(self, region: str, *, named: bool) -> None:
        # Amazon's first region must not be named in the request.
        place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self.client.call(
                "create_bucket", Bucket=self.name, **({} if region == "us-east-1" else place)
            )
        except UnknownRegion:
            if named:
                raise
            self.client.call("create_bucket", Bucket=self.name)

    def _check_exists(self) -> None:
        # Not a HEAD request: a failed one has no body that says what is wrong.
        self.client.call("list_objects_v2", Bucket=self.name, MaxKeys=1)


@dataclasses.dataclass(frozen=True, slots=True)
class NewObject:
    """An object that is being added, and the nonce of the upload that adds it."""

    bucket: Bucket
    key: str
    #: Random name of the upload.
    nonce: str

    @property
    def metadata(self) -> dict[str, str]:
        """The object's user metadata: the upload's nonce."""
        return {NONCE: self.nonce}

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call an S3 operation on the object's key."""
        return self.bucket.call(operation, self.key, **arguments)

    def holder(self) -> str | None:
        """Return the nonce of the object stored under the key, or ``None`` if there is none."""
        head = self.bucket.head(self.key)
        return None if head is None else head.nonce
