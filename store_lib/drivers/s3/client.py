"""botocore's client, one for each process, whose calls raise the library's errors."""

import functools
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from store_lib.clients.library_calls import library_call
from store_lib.clients.process import PerProcess
from store_lib.display import get_logger
from store_lib.driver import Repeater
from store_lib.drivers.s3.answers import checked
from store_lib.drivers.s3.errors import NoSuchBucket, translate
from store_lib.drivers.s3.options import Settings
from store_lib.exceptions import BackendException, StoreError
from store_lib.options import StoreOptions
from store_lib.redaction import HIDDEN

_LOG = get_logger(__name__)

#: Where a listing goes on: parameters of the request, and the fields of the answer before.
_MARKS: Mapping[str, Mapping[str, str]] = {
    "list_multipart_uploads": {
        "KeyMarker": "NextKeyMarker",
        "UploadIdMarker": "NextUploadIdMarker",
    },
    "list_objects_v2": {"ContinuationToken": "NextContinuationToken"},
    "list_parts": {"PartNumberMarker": "NextPartNumberMarker"},
}

#: What adds an object.  A bucket that is missing then is no object that is missing.
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

#: Idle connections that are kept at least: several transfers may be at work at once.
_CONNECTIONS = 64


class Client:
    """Makes the requests of one store.

    botocore is what boto3 is made of: its low-level client is the one that boto3 gives.

    :param retry: repeats a short request that the engine does not
    :raises ImportError: it is not installed
    """

    def __init__(self, options: StoreOptions, settings: Settings, retry: Repeater) -> None:
        from botocore.config import Config
        from botocore.utils import get_environ_proxies

        from store_lib.drivers.s3.connections import settle

        protected = options.s3_store_enable_data_integrity_protection
        checksums = {
            name: options[f"s3_store_{name}"] if protected else "when_required"
            for name in ("request_checksum_calculation", "response_checksum_validation")
        }
        config = Config(
            signature_version="s3v4",
            # The engine repeats requests, and knows when not to.
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=options.s3_store_connect_timeout,
            read_timeout=options.silence("s3_store_read_timeout"),
            max_pool_connections=max(_CONNECTIONS, 2 * settings.threads),
            tcp_keepalive=True,
            user_agent_extra="store_lib",
            # Not the environment's, which is what botocore takes where it is given none.
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
                verify=options.s3_store_cacert or True,  # where None is as the environment says
                config=config,
            )
            settle(client)
            client.meta.events.register(
                "before-parameter-build.s3", functools.partial(_read_once, streamed)
            )
            return client

        if not settings.proxy and get_environ_proxies(settings.endpoint):
            _LOG.warning(
                "%s is asked directly: the proxies of the environment are not used. Set "
                "s3_store_proxy if there is no other way to it.",
                settings.endpoint,
            )
        self.endpoint = settings.endpoint
        self.retry = retry
        #: Whether boto3 sends a checksum of its own with every put and part.
        self.sums = checksums["request_checksum_calculation"] == "when_supported"
        self._own: PerProcess[Any] = PerProcess(make)
        for name in ("botocore.auth", "botocore.endpoint", "botocore.hooks", "botocore.parsers"):
            _hide_in(logging.getLogger(name))

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        found: str = self.open().meta.region_name
        return found

    def open(self) -> Any:
        """Return this process's client, which many threads may use at once."""
        return self._own.get()

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make a request and return the answer.

        :param operation: a method of botocore's client, with its arguments
        :raises StoreError: as :func:`~store_lib.drivers.s3.errors.translate` and
            :func:`~store_lib.drivers.s3.answers.checked` say
        """
        asked = _asked(operation, arguments)
        with library_call(functools.partial(self._meaning, operation, asked)):
            answer: dict[str, Any] = getattr(self.open(), operation)(**arguments)
        try:
            return checked(operation, answer, asked, self.endpoint)
        except StoreError:
            if operation == "get_object" and "Body" in answer:
                answer["Body"].close()
            raise

    def _meaning(self, operation: str, asked: str, error: Exception) -> StoreError:
        """Return the library's error for one of botocore's."""
        refused = translate(error, self.endpoint, asked)
        if isinstance(refused, NoSuchBucket) and operation in _ADDING:
            return BackendException(refused.msg)
        return refused

    def pages(self, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Make the requests for a listing, each repeated by itself, and yield the answers."""
        marks: dict[str, Any] = {}
        seen = set()
        while True:
            ask = functools.partial(self.call, operation, **arguments, **marks)
            page = self.retry(ask)
            yield page
            if not page["IsTruncated"]:
                return
            marks = {
                mark: page[following]
                for mark, following in _MARKS[operation].items()
                if page.get(following)
            }
            if not marks or (place := (*marks.values(),)) in seen:
                raise BackendException(
                    f"{_asked(operation, arguments)}: {self.endpoint} says that there is more, and "
                    "does not say where it goes on, or leads back to where it began. Check that it "
                    "is an S3 server."
                )
            seen.add(place)

    def presigned(self, bucket: str, key: str, expires: int) -> str:
        """Return a URL that reads an object for ``expires`` seconds."""
        with self.answering(f"presign {bucket}/{key}"):
            url: str = self.open().generate_presigned_url(
                "get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=expires
            )
            return url

    def answering(self, asked: str) -> library_call:
        """Turn what goes wrong in a block that uses botocore into our errors.

        :param asked: what was asked for: an operation and what it was about
        """
        return library_call(lambda error: translate(error, self.endpoint, asked))

    def close(self) -> None:
        """Close this process's idle connections."""
        client = self._own.take()
        if client is not None:
            client.close()


#: The description of S3's interface, which takes long to read and never changes.
_models: Any = None


def _session() -> Any:
    """Return a session of botocore's, which finds credentials; it must not outlive a fork."""
    global _models
    import botocore.session

    session = botocore.session.get_session()
    _models = _models or session.get_component("data_loader")
    session.register_component("data_loader", _models)
    return session


def _asked(operation: str, arguments: dict[str, Any]) -> str:
    what = "/".join(arguments[name] for name in ("Bucket", "Key") if name in arguments)
    part = f", part {arguments['PartNumber']}" if "PartNumber" in arguments else ""
    return f"{operation} {what}{part}"


def _read_once(streamed: Any, params: Any, context: Any, **_: Any) -> None:
    """Neither sign nor sum up a body that streams: that would take reading it twice."""
    if not getattr(params.get("Body"), "rewindable", True):
        context["client_config"] = streamed


#: What stands before a secret in these lines: in a header, a query, a dictionary, XML or JSON.
_SECRET = re.compile(
    r"(Credential="
    r"|Signature(?:Provided>|[=:]\s*)"
    r"|(?:Access-?Key(?:-?Id)?|(?:bearer_|Security-?|Session-?|Access-?|Identity-?)Token)"
    r"(?:['\":=]+\s*b?['\"]?|>))"
    # Tokens are base64, with slashes in it; a credential's first slash ends the key.
    r"(?:(?<=Credential=)[^\s,;&'\"/]+|(?<!Credential=)[^\s,;&'\"<>]+)",
    re.IGNORECASE,
)


class _Hide(logging.Filter):
    """Takes access keys, tokens and signatures out of botocore's debug lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _SECRET.sub(rf"\1{HIDDEN}", record.getMessage())
        record.args = ()
        return True


_hide = _Hide()


def _hide_in(logger: logging.Logger) -> None:
    logger.addFilter(_hide)  # which is in it at most once
