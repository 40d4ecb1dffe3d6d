"""The S3 driver's options, and the validated settings made of them."""

import dataclasses
import os
import re
from urllib.parse import urlsplit

from oslo_config import cfg

from store_lib.drivers.s3.location import AMAZON
from store_lib.options import LONGEST_TIME, StoreOptions
from store_lib.redaction import Secret

MIB = 1024 * 1024

#: Limits of S3: maximum bytes of a put, minimum bytes of a part that is not the last, and maximum
#: number of parts.
LARGEST_PUT = 5 * 1024 * MIB
SMALLEST_PART = 5 * MIB
MOST_PARTS = 10_000

OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "s3_store_host",
        sample_default="https://s3.eu-central-1.amazonaws.com",
        help="The S3 server: a host name or address, with or without http:// or https:// before "
        "it and a port after it. Without a scheme, requests use http, unencrypted.",
    ),
    cfg.StrOpt(
        "s3_store_region_name",
        default="",
        help="Region that requests are signed for. Left empty, it is taken from an Amazon host "
        "name that contains one, else from the environment or boto3's configuration files, else it "
        "is us-east-1.",
    ),
    cfg.StrOpt(
        "s3_store_access_key",
        secret=True,
        help="Access key. Left out together with s3_store_secret_key, credentials come from where "
        "boto3 finds them: the environment, its files and profiles, or the role of the machine.",
    ),
    cfg.StrOpt("s3_store_secret_key", secret=True, help="Secret key of s3_store_access_key."),
    cfg.StrOpt(
        "s3_store_proxy",
        secret=True,
        help="URL of a proxy to the server, such as http://proxy.example.org:3128, which may "
        "contain a login. Left out, connections are direct, whatever the environment says.",
    ),
    cfg.StrOpt(
        "s3_store_bucket",
        help="Bucket for new objects. It should contain nothing else: every object in it is listed "
        "as one of this store's, and a sweep removes all unfinished uploads.",
    ),
    cfg.BoolOpt(
        "s3_store_create_bucket_on_put",
        default=False,
        help="Create the bucket when an object is added and the bucket is missing.",
    ),
    cfg.StrOpt(
        "s3_store_bucket_url_format",
        default="auto",
        choices=["auto", "virtual", "path"],
        help="Where requests name the bucket: in the host name (virtual, "
        "https://bucket.host/key), in the path (https://host/bucket/key), or auto: virtual for "
        "Amazon's host names, but for those of VPC endpoints and buckets that no certificate "
        "covers, and path for others.",
    ),
    cfg.IntOpt(
        "s3_store_large_object_size",
        default=100,
        min=0,
        max=1 << 23,
        help="Size in MiB from which an object is uploaded in parts. Smaller ones go in one "
        "request. An object of unknown length goes in parts unless it ends within the first.",
    ),
    cfg.IntOpt(
        "s3_store_large_object_chunk_size",
        default=10,
        min=SMALLEST_PART // MIB,
        max=LARGEST_PUT // MIB,
        help="Size in MiB of a part. Parts are larger where 10,000 of them would not hold the "
        "object. Parts being sent, and the one being filled, are kept in memory.",
    ),
    cfg.IntOpt(
        "s3_store_thread_pools",
        default=10,
        min=1,
        max=1000,
        help="How many parts of one object are uploaded concurrently.",
    ),
    cfg.BoolOpt(
        "s3_store_equal_parts",
        default=False,
        help="Whether all parts of an object have the size of s3_store_large_object_chunk_size, as "
        "Cloudflare R2 requires it. Then no object is larger than 10,000 of them. Off, parts are "
        "larger if that is needed, and grow if the length of an object is not known.",
    ),
    cfg.StrOpt(
        "s3_store_cacert",
        default="",
        help="File with the certificates, in PEM, of the authorities that an https server is "
        "verified against. Left empty, botocore's list is used.",
    ),
    cfg.BoolOpt(
        "s3_store_enable_data_integrity_protection",
        default=False,
        help="Whether the next two options are used. Off, both count as when_required: several "
        "S3 servers refuse the checksums that newer versions of boto3 send.",
    ),
    cfg.StrOpt(
        "s3_store_request_checksum_calculation",
        default="when_required",
        choices=["when_required", "when_supported"],
        help="When boto3 sends a checksum with what is uploaded.",
    ),
    cfg.StrOpt(
        "s3_store_response_checksum_validation",
        default="when_required",
        choices=["when_required", "when_supported"],
        help="When boto3 requests a checksum and verifies it. A range of an object has none.",
    ),
    cfg.StrOpt(
        "s3_store_create_only",
        default="auto",
        choices=["auto", "checked", "atomic", "look"],
        help="How an id is kept from being used twice. All processes that add to the bucket must "
        "have the same value. auto: atomic for Amazon's host names, checked for others. checked: a "
        "claim object keeps other adds away while an object is published. The server must obey "
        "If-None-Match on a put; the store tests whether it does, and adds nothing if it does "
        "not. atomic: the server obeys If-None-Match on every request that makes an object, as "
        "Amazon does; then an add takes fewer requests. On a server that ignores the header, an "
        "add replaces an existing object. look: the header is not sent, and the store checks "
        "before and after whether the id is taken. Racing adds of one id may then all succeed, "
        "and all objects but one be lost.",
    ),
    cfg.StrOpt(
        "s3_store_payload_signing",
        default="auto",
        choices=["auto", "always", "never"],
        help="Whether the signature of an upload covers its bytes, which takes a SHA-256 of them. "
        "auto: with http, where nothing else detects that they were altered on the way; not with "
        "https, where TLS does. Parts that are streamed because memory has no room for them are "
        "never signed.",
    ),
    cfg.FloatOpt(
        "s3_store_connect_timeout",
        default=20.0,
        min=0.001,
        max=LONGEST_TIME,
        help="Time limit in seconds for connecting to the server. On a new connection, also the "
        "time for which the server may accept no byte of a request.",
    ),
    cfg.FloatOpt(
        "s3_store_read_timeout",
        default=60.0,
        min=0.001,
        max=LONGEST_TIME,
        help="Seconds for which the server may send no byte of a response before it is given up.",
    ),
)

_PROXY = re.compile(
    r"https?://(?:[^\s/@]*@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?"
)

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
#: Matches bucket names that can be part of a host name.
_DNS_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")

#: The values of s3_store_create_only other than auto.
ATOMIC, CHECKED, LOOK = "atomic", "checked", "look"


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Validated settings."""

    #: URL of the server: scheme, host, port and path, without a slash at the end.
    endpoint: str
    #: URL of a proxy, including user and password.
    proxy: str | None
    region: str | None
    bucket: str
    #: Objects of fewer bytes are stored in one request.
    large: int
    #: Minimum bytes of a part.
    part: int
    threads: int
    equal_parts: bool
    #: How an id is kept from being used twice: ATOMIC, CHECKED or LOOK.
    create_only: str
    #: Where requests name the bucket: a value of botocore's ``addressing_style``.
    addressing: str

    @property
    def tls(self) -> bool:
        """Whether requests use https."""
        return self.endpoint.startswith("https:")

    @property
    def host(self) -> str:
        """The server as the URIs of objects name it."""
        return self.endpoint.partition("://")[2]

    @property
    def scheme(self) -> str:
        """The scheme of the URIs of objects."""
        return "s3+https" if self.tls else "s3"


def settings_of(options: StoreOptions) -> Settings:
    """Validate the options, and return the settings.

    :raises ValueError: an option is missing or invalid; the message says which, and what was
        expected
    """
    if not options.s3_store_host:
        raise ValueError("set s3_store_host to the S3 server, such as https://s3.example.org")
    if not options.s3_store_bucket:
        raise ValueError("set s3_store_bucket to the bucket for objects")
    endpoint = _endpoint(options.s3_store_host)
    _check_bucket(options.s3_store_bucket, options.s3_store_bucket_url_format)
    if bool(options.s3_store_access_key) != bool(options.s3_store_secret_key):
        missing = "secret" if options.s3_store_access_key else "access"
        raise ValueError(
            f"s3_store_{missing}_key is missing: set both keys, or neither if boto3 is to find "
            "the credentials"
        )
    amazon = AMAZON.fullmatch(urlsplit(endpoint).hostname or "")
    create_only = options.s3_store_create_only
    if create_only == "auto":
        create_only = ATOMIC if amazon else CHECKED
    addressing = options.s3_store_bucket_url_format
    if addressing == "auto" and amazon and not amazon["vpc"]:
        # botocore would choose this itself only without an endpoint URL.
        addressing = "virtual"
    authorities = options.s3_store_cacert
    if authorities and not os.access(authorities, os.R_OK):
        raise ValueError(
            f"s3_store_cacert: expected a readable file of certificates in PEM, got {authorities}"
        )
    proxy = options.s3_store_proxy
    if proxy and not _PROXY.fullmatch(proxy):
        raise ValueError(
            "s3_store_proxy: expected an http or https URL of a host and a port, which may hold a "
            "login, percent-encoded"
        )
    return Settings(
        endpoint=endpoint,
        proxy=Secret(proxy) if proxy else None,
        region=options.s3_store_region_name or (amazon["region"] if amazon else None),
        bucket=options.s3_store_bucket,
        large=options.s3_store_large_object_size * MIB,
        part=options.s3_store_large_object_chunk_size * MIB,
        threads=options.s3_store_thread_pools,
        equal_parts=options.s3_store_equal_parts,
        create_only=create_only,
        addressing=addressing,
    )


def _endpoint(host: str) -> str:
    text = host.strip().rstrip("/")
    if "://" not in text:
        text = f"http://{text}"
    expected = (
        "s3_store_host: expected a host name or address, with http:// or https:// before it and a "
        "port after it where they are needed"
    )
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False
    if "@" in text:  # what is before it may be a secret, so the message does not quote it
        raise ValueError(f"{expected}, got one with an @; credentials have options of their own")
    if not good or url.query or url.fragment or not text.isascii() or " " in text:
        raise ValueError(f"{expected}, got {host!r}")
    return f"{url.scheme}{text[len(url.scheme) :]}"  # urlsplit gives the scheme in lower case


def _check_bucket(bucket: str, url_format: str) -> None:
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise ValueError(
            "s3_store_bucket: expected 3 to 255 letters, digits, dots, - and _, with a letter or "
            f"digit at both ends, got {bucket!r}"
        )
    if url_format == "virtual" and not _DNS_BUCKET.fullmatch(bucket):
        raise ValueError(
            f"s3_store_bucket: {bucket!r} cannot stand in a host name. Use a name of 3 to 63 lower "
            "case letters, digits, dots and -, or set s3_store_bucket_url_format to path"
        )
