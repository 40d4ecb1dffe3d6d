"""The options of the Cinder driver, and the validated settings."""

import dataclasses
import os
from typing import Self

from oslo_config import cfg

from store_lib.options import LONGEST_TIME, StoreOptions

_LOGIN = (
    "The service's own login is used if cinder_store_auth_address is set, together with "
    "cinder_store_user_name, cinder_store_password and cinder_store_project_name, or with an "
    "application credential. Otherwise every call needs a request context: its token and catalog "
    "are used, and volumes belong to its project."
)

OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "cinder_volume_type",
        help="Name of the volume type of new volumes, which decides where Cinder puts them. If it "
        "is left out, Cinder's default type. Several cinder stores need different types. A type "
        'with the property multiattach="<is> True" lets several hosts read a volume at once.',
    ),
    cfg.URIOpt(
        "cinder_store_auth_address",
        schemes=["http", "https"],
        help=f"URL of Keystone, as in https://keystone.example.org:5000/v3. {_LOGIN}",
    ),
    cfg.StrOpt("cinder_store_user_name", help="User of the service's own login."),
    cfg.StrOpt(
        "cinder_store_user_domain_name",
        default="Default",
        help="Name of the domain of cinder_store_user_name.",
    ),
    cfg.StrOpt("cinder_store_password", secret=True, help="Password of that user."),
    cfg.StrOpt(
        "cinder_store_project_name",
        help="Project that owns the volumes, preferably one that no user has access to.",
    ),
    cfg.StrOpt(
        "cinder_store_project_domain_name",
        default="Default",
        help="Name of the domain of cinder_store_project_name.",
    ),
    cfg.StrOpt(
        "cinder_store_application_credential_id",
        help="Id of an application credential to log in with, instead of a user and a password.",
    ),
    cfg.StrOpt(
        "cinder_store_application_credential_secret",
        secret=True,
        help="Secret of that application credential.",
    ),
    cfg.StrOpt(
        "cinder_catalog_info",
        default="volumev3::publicURL",
        help="Cinder's entry in Keystone's catalog, as service_type:service_name:interface; the "
        "name may be empty. The types volume and volumev2 are read as volumev3, as Cinder no "
        "longer has the older interfaces.",
    ),
    cfg.StrOpt(
        "cinder_endpoint_template",
        help="URL of Cinder, instead of the catalog's, as in "
        "http://cinder.example.org:8776/v3/%(tenant)s. %(...)s are replaced by values of the "
        "request context; with the service's own login, project_id and tenant are its project.",
    ),
    cfg.StrOpt(
        "cinder_os_region_name",
        deprecated_name="os_region_name",
        help="Region of Cinder in the catalog; needed if there are several.",
    ),
    cfg.StrOpt(
        "cinder_ca_certificates_file",
        help="File with the certificates, in PEM, of the authorities that Keystone and Cinder "
        "are verified against. If it is left out, the system's authorities are trusted; if it is "
        "set, cinder_api_insecure is ignored.",
    ),
    cfg.BoolOpt(
        "cinder_api_insecure",
        default=False,
        help="Do not verify the certificates of Keystone and Cinder. An attacker on the network "
        "can then read the token, and whatever it gives access to.",
    ),
    cfg.IntOpt(
        "cinder_http_retries",
        default=3,
        min=0,
        max=1_000_000,
        help="Has no effect; accepted so that existing configurations work. A request that is "
        "refused because there were too many is repeated like any other after a temporary error, "
        "when the time that Cinder asks for is over, within transfer_retry_seconds.",
    ),
    cfg.IntOpt(
        "cinder_http_timeout",
        default=60,
        min=1,
        max=LONGEST_TIME,
        help="Seconds to wait for a connection to Keystone or Cinder, and for each byte of a "
        "response. Attaching is one request, which may take a slow backend this long.",
    ),
    cfg.IntOpt(
        "cinder_state_transition_timeout",
        default=300,
        min=0,
        max=LONGEST_TIME,
        help="Seconds to wait until a volume is created, extended, cloned or detached. A thick "
        "volume or a full clone may take long.",
    ),
    cfg.IntOpt(
        "cinder_attachment_retry_attempts",
        default=5,
        min=1,
        max=1_000_000,
        help="How long to wait for a volume that is being attached elsewhere, in attempts: the "
        "pauses between them are 2, 4, 8 and then 10 seconds, so that 5 attempts are 24 seconds. "
        "Within that time Cinder is asked more often.",
    ),
    cfg.BoolOpt(
        "cinder_do_extend_attached",
        default=False,
        help="Extend a volume while it is attached, in an upload of unknown length. Not every "
        "backend can; by default the volume is detached for the extension.",
    ),
    cfg.BoolOpt(
        "cinder_use_multipath",
        default=False,
        help="Attach over all paths to the storage, if it has several.",
    ),
    cfg.BoolOpt(
        "cinder_enforce_multipath",
        default=False,
        help="With cinder_use_multipath: fail if multipathd does not run, instead of using one "
        "path.",
    ),
    cfg.StrOpt(
        "cinder_mount_point_base",
        default="/var/lib/glance/mnt",
        help="Directory below which NFS shares are mounted, for backends whose volumes are files. "
        "All processes on a host must use the same one.",
    ),
    cfg.StrOpt(
        "rootwrap_config",
        default="/etc/glance/rootwrap.conf",
        help="Configuration file of glance-rootwrap, which starts os-brick's helper if the service "
        "is not root, [privsep_osbrick] helper_command is not set, and glance-rootwrap is "
        "installed.",
    ),
)

#: Options of the libraries, in their own sections.
LIBRARY_OPTIONS: dict[str, tuple[cfg.Opt, ...]] = {
    "oslo_concurrency": (cfg.StrOpt("lock_path", default=os.environ.get("OSLO_LOCK_PATH")),),
    "privsep_osbrick": (cfg.StrOpt("helper_command"),),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one store's uploads and readers."""

    store_id: str
    #: The store's id in new URIs; ``None`` in the old single-store form.
    uri_store: str | None
    #: Name of the volume type of new volumes; ``None`` for Cinder's default.
    volume_type: str | None
    #: Seconds to wait for a volume that is being attached elsewhere.
    attach_timeout: float
    #: Whether a volume is extended while it is attached.
    grow_attached: bool

    @classmethod
    def of(cls, store_id: str, options: StoreOptions) -> Self:
        """Return the settings from a store's options."""
        attempts = options.cinder_attachment_retry_attempts
        return cls(
            store_id,
            None if options.section == "glance_store" else store_id,
            options.cinder_volume_type,
            float(sum(min(2**number, 10) for number in range(1, attempts))),
            options.cinder_do_extend_attached,
        )
