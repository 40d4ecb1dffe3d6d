"""The Swift driver's options: glance_store's, and a few of its own."""

import dataclasses
from typing import Self

from oslo_config import cfg

from store_lib.clients.network_errors import OptionNames
from store_lib.options import LONGEST_TIME, StoreOptions

#: Bytes of a "MB" in the options, as in glance_store: with more, a segment could become larger than
#: the server's limit for which the option was set.
_MEGABYTE = 1000 * 1024
#: Bytes of a chunk; an object of up to this size is stored in a single request.
_CHUNK = 1024 * 1024

#: The options that error messages name.
OPTION_NAMES = OptionNames(
    "swift_store_cacert", "swift_store_connect_timeout", "swift_store_read_timeout"
)

_LOGIN = " Without swift_store_config_file, and with swift_store_multi_tenant for trusts."

OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "swift_store_config_file",
        sample_default="/etc/glance/swift.conf",
        help="File with the accounts, one in each section; the section's name is the reference "
        "that URIs hold, so that they hold no secret. Not with swift_store_multi_tenant.",
    ),
    cfg.StrOpt(
        "default_swift_reference",
        default="ref1",
        help="The account of swift_store_config_file that new objects go to. Left out, it is the "
        "only one there is. Without that file, the name that URIs give to the account of "
        "swift_store_user.",
    ),
    cfg.StrOpt(
        "swift_store_auth_version",
        default="3",
        help="Version of the login: 3 for Keystone, 1 for the old built-in one (tempauth, "
        "swauth). An account in swift_store_config_file may have its own, auth_version. "
        "Version 2 is no longer spoken by Keystone.",
    ),
    cfg.StrOpt(
        "swift_store_auth_address",
        sample_default="https://keystone.example.org:5000/v3",
        help="Address to log in at; https when it has no scheme." + _LOGIN,
    ),
    cfg.StrOpt(
        "swift_store_user",
        secret=True,
        help="User to log in as: project:user, or user if swift_store_project_name or "
        "swift_store_project_id gives the project." + _LOGIN,
    ),
    cfg.StrOpt("swift_store_key", secret=True, help="Password of swift_store_user." + _LOGIN),
    cfg.StrOpt(
        "swift_store_application_credential_id",
        secret=True,
        help="Log in with this application credential in place of swift_store_user, if there is no "
        "swift_store_config_file. Not for the trusts of swift_store_multi_tenant, which Keystone "
        "does not grant to application credentials.",
    ),
    cfg.StrOpt(
        "swift_store_application_credential_secret",
        secret=True,
        help="Secret of swift_store_application_credential_id.",
    ),
    cfg.StrOpt("swift_store_project_name", help="Project of swift_store_user."),
    cfg.StrOpt("swift_store_project_id", help="Id of the project of swift_store_user."),
    cfg.StrOpt(
        "swift_store_endpoint",
        sample_default="https://swift.example.org/v1/AUTH_project",
        help="Storage URL to use in place of the one that the login gives, up to and excluding "
        "the container.",
    ),
    cfg.StrOpt(
        "swift_store_endpoint_type",
        default="publicURL",
        choices=("publicURL", "adminURL", "internalURL"),
        help="Which of the service's endpoints in Keystone's catalog to use.",
    ),
    cfg.StrOpt(
        "swift_store_service_type",
        default="object-store",
        help="Type of the service in Keystone's catalog.",
    ),
    cfg.StrOpt(
        "swift_store_region",
        sample_default="RegionTwo",
        help="Region of the service in Keystone's catalog. Left out, the first one.",
    ),
    cfg.StrOpt(
        "swift_store_cacert",
        sample_default="/etc/ssl/certs/ca-certificates.crt",
        help="File with the certificates, in PEM, of the authorities that Swift and Keystone are "
        "verified against. Left out, the system's. With it, swift_store_auth_insecure is ignored.",
    ),
    cfg.BoolOpt(
        "swift_store_auth_insecure",
        default=False,
        help="Do not verify certificates. Anybody on the network path can then read and alter what "
        "is transferred, passwords included.",
    ),
    cfg.BoolOpt(
        "swift_store_ssl_compression",
        default=True,
        help="Accepted and without effect: TLS no longer compresses.",
    ),
    cfg.StrOpt(
        "swift_store_container",
        default="glance",
        help="Container of new objects. With swift_store_multiple_containers_seed or "
        "swift_store_multi_tenant, what the names of containers begin with.",
    ),
    cfg.BoolOpt(
        "swift_store_create_container_on_put",
        default=False,
        help="Create a container that is missing when an object is added. Needed with "
        "swift_store_multi_tenant, where each object has its own.",
    ),
    cfg.IntOpt(
        "swift_store_multiple_containers_seed",
        default=0,
        min=0,
        max=32,
        help="Spread objects over containers by as many first characters of their ids; 0 for "
        "one container. With 3 and glance, id fdae39a1-bac5-... goes to glance_fda. Dashes are "
        "kept and not counted: with 10 it is glance_fdae39a1-ba. There are up to 16^N. Not for "
        "swift_store_multi_tenant.",
    ),
    cfg.IntOpt(
        "swift_store_large_object_size",
        default=5 * 1024,
        min=1,
        max=1 << 30,
        help="Size in MB (1,024,000 bytes) from which on an object is cut into segments. A "
        "smaller one whose size is known before the upload is a single segment. At most what the "
        "server accepts as one object.",
    ),
    cfg.IntOpt(
        "swift_store_large_object_chunk_size",
        default=200,
        min=1,
        max=1 << 20,
        help="Size of a segment in MB (1,024,000 bytes). If several segments fit into "
        "transfer_memory_limit, they are sent concurrently and again after a failure; a larger one "
        "is streamed, and a failure in it fails the add.",
    ),
    cfg.IntOpt(
        "swift_store_segment_threads",
        default=4,
        min=1,
        max=1000,
        help="How many segments of one object are sent concurrently, as transfer_memory_limit "
        "allows, or copied concurrently by the server.",
    ),
    cfg.StrOpt(
        "swift_store_manifest",
        default="static",
        choices=("static", "dynamic"),
        help="How segments make an object. A static large object is checked by the server, "
        "segment by segment; a dynamic one is for clusters without them, and trusts the "
        "container's listing.",
    ),
    cfg.IntOpt(
        "swift_store_manifest_entries",
        default=1000,
        min=2,
        max=1_000_000,
        help="How many segments one static manifest may list: at most the server's "
        "max_manifest_segments. An object of more segments has manifests of manifests.",
    ),
    cfg.BoolOpt(
        "swift_store_multi_tenant",
        default=False,
        help="Keep each object in the account of the tenant who adds it, in a container of its "
        "own, with the token of the request. Every call then needs the request's context.",
    ),
    cfg.ListOpt(
        "swift_store_admin_tenants",
        default=[],
        sample_default="service:glance, *:admin",
        help="With swift_store_multi_tenant: who may read and write every container that the store "
        "creates, as Swift writes it in access lists: project:user, with an asterisk for all "
        "projects or users. A word without a colon is a project with all its users.",
    ),
    cfg.ListOpt(
        "swift_store_uri_login_hosts",
        default=[],
        sample_default="old-keystone.example.org, old-swift.example.org",
        help="Hosts at which URIs with a login in them, as glance_store wrote them without a file "
        "of accounts, may log in and have their objects. The addresses of the store's own accounts "
        "need not be named. Whoever can choose a URI can make the service ask these hosts.",
    ),
    cfg.ListOpt(
        "swift_store_uri_login_denied_addresses",
        default=[],
        sample_default="127.0.0.0/8, ::1, 169.254.0.0/16",
        help="Host names, addresses and networks that no URI with a login in it reaches, even if "
        "swift_store_uri_login_hosts has the host: the address of the connection counts.",
    ),
    cfg.BoolOpt(
        "swift_store_use_trusts",
        default=True,
        help="With swift_store_multi_tenant: have the user trust swift_store_user for as long as "
        "an add in segments takes, so that it outlives the token of its request.",
    ),
    cfg.IntOpt(
        "swift_store_expire_soon_interval",
        default=60,
        min=0,
        max=LONGEST_TIME,
        help="Seconds before its expiry at which a token is no longer used and is replaced.",
    ),
    cfg.IntOpt(
        "swift_store_retry_get_count",
        default=0,
        min=0,
        max=1_000_000,
        help="How often the rest of a cut download is requested again without a pause, in all, "
        "before retries as transfer_retry_seconds allows, which are enough as a rule.",
    ),
    cfg.BoolOpt(
        "swift_buffer_on_upload",
        default=False,
        help="Accepted and without effect: segments are kept in memory (transfer_memory_limit), "
        "not on disk, until they have arrived.",
    ),
    cfg.StrOpt(
        "swift_upload_buffer_dir",
        help="Accepted and without effect: see swift_buffer_on_upload.",
    ),
    cfg.FloatOpt(
        "swift_store_connect_timeout",
        default=10.0,
        min=0.001,
        max=LONGEST_TIME,
        help="Timeout in seconds for connecting to Swift.",
    ),
    cfg.FloatOpt(
        "swift_store_read_timeout",
        default=60.0,
        min=0.001,
        max=LONGEST_TIME,
        help="Seconds for which Swift, or Keystone, may neither accept nor send a byte. A copy of "
        "a segment by the server may take an hour.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentLayout:
    """How a store divides large objects into segments."""

    #: An object of known size is divided if it has at least this many bytes.
    cut_from: int
    #: Bytes of a segment.
    segment: int
    #: Number of segments that are sent concurrently.
    concurrency: int
    #: Maximum number of entries of a static manifest.
    entries: int
    dynamic: bool

    @classmethod
    def of(cls, options: StoreOptions) -> Self:
        """Return the layout that the options describe."""
        return cls(
            cut_from=options.swift_store_large_object_size * _MEGABYTE,
            segment=options.swift_store_large_object_chunk_size * _MEGABYTE,
            concurrency=options.swift_store_segment_threads,
            entries=options.swift_store_manifest_entries,
            dynamic=options.swift_store_manifest == "dynamic",
        )

    @property
    def chunk(self) -> int:
        """Bytes of a chunk; an object of up to this size is stored in one request."""
        return min(_CHUNK, self.segment)
