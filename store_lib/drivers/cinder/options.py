"""The options of the Cinder driver, and the settings made of them."""

import dataclasses
import os
from typing import Self

from oslo_config import cfg

from store_lib.options import LONGEST_TIME, StoreOptions

_ALL_FOUR = (
    "The service's own login is used when cinder_store_auth_address is set, with "
    "cinder_store_user_name, cinder_store_password and cinder_store_project_name, or with an "
    "application credential. Otherwise every call needs a request context, whose token and "
    "catalog are used, and volumes belong to its project."
)

OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "cinder_volume_type",
        help="Name of the volume type of new volumes, which decides where Cinder puts them. "
        "Left out, Cinder's default type. With several cinder stores each names its own. A type "
        'with the property multiattach="<is> True" lets several hosts read a volume at once.',
    ),
    cfg.URIOpt(
        "cinder_store_auth_address",
        schemes=["http", "https"],
        help=f"URL of Keystone, as in https://keystone.example.org:5000/v3. {_ALL_FOUR}",
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
        help="Project that volumes belong to: best one that no user has access to.",
    ),
    cfg.StrOpt(
        "cinder_store_project_domain_name",
        default="Default",
        help="Name of the domain of cinder_store_project_name.",
    ),
    cfg.StrOpt(
        "cinder_store_application_credential_id",
        help="Id of an application credential to log in with, in place of user and password.",
    ),
    cfg.StrOpt(
        "cinder_store_application_credential_secret",
        secret=True,
        help="Secret of that application credential.",
    ),
    cfg.StrOpt(
        "cinder_catalog_info",
        default="volumev3::publicURL",
        help="Which entry of Keystone's catalog is Cinder, as service_type:service_name:"
        "interface; the name may be empty. The types volume and volumev2 are taken as volumev3, "
        "as Cinder no longer has the older interfaces.",
    ),
    cfg.StrOpt(
        "cinder_endpoint_template",
        help="URL of Cinder, in place of the catalog's, as in "
        "http://cinder.example.org:8776/v3/%(tenant)s. %(...)s stand for values of the request "
        "context; with the service's own login, project_id and tenant stand for its project.",
    ),
    cfg.StrOpt(
        "cinder_os_region_name",
        deprecated_name="os_region_name",
        help="Region of Cinder in the catalog; needed where there are several.",
    ),
    cfg.StrOpt(
        "cinder_ca_certificates_file",
        help="File with the certificates, in PEM, of the authorities that Keystone and Cinder "
        "are verified against. Left out, the system's authorities are trusted. With it, "
        "cinder_api_insecure is ignored.",
    ),
    cfg.BoolOpt(
        "cinder_api_insecure",
        default=False,
        help="Do not verify the certificates of Keystone and Cinder. Anybody on the way can then "
        "read the token, and what it opens.",
    ),
    cfg.IntOpt(
        "cinder_http_retries",
        default=3,
        min=0,
        max=1_000_000,
        help="Has no effect, and is known so that existing configurations hold: a request that is "
        "refused because there were too many is repeated like any that fails for a while, after "
        "the time that Cinder asks for, within transfer_retry_seconds.",
    ),
    cfg.IntOpt(
        "cinder_http_timeout",
        default=60,
        min=1,
        max=LONGEST_TIME,
        help="Seconds for a connection to Keystone or Cinder, and for which one may send no byte. "
        "Attaching is one request, which a slow backend may need this long for.",
    ),
    cfg.IntOpt(
        "cinder_state_transition_timeout",
        default=300,
        min=0,
        max=LONGEST_TIME,
        help="Seconds for a volume to be created, extended, cloned or detached. A thick volume "
        "or a full clone may need long.",
    ),
    cfg.IntOpt(
        "cinder_attachment_retry_attempts",
        default=5,
        min=1,
        max=1_000_000,
        help="How long to wait for a volume that another one is about to attach, in attempts: "
        "2, 4, 8 and then 10 seconds stand for one each, so that 5 attempts are 24 seconds. "
        "Within that time it is asked more often.",
    ),
    cfg.BoolOpt(
        "cinder_do_extend_attached",
        default=False,
        help="Extend a volume while it is attached, when the length of an upload is not known "
        "before. Not every backend can; otherwise it is detached for the time.",
    ),
    cfg.BoolOpt(
        "cinder_use_multipath",
        default=False,
        help="Attach over all paths to the storage, where it has several.",
    ),
    cfg.BoolOpt(
        "cinder_enforce_multipath",
        default=False,
        help="With cinder_use_multipath: fail when multipathd does not run, instead of using one "
        "path.",
    ),
    cfg.StrOpt(
        "cinder_mount_point_base",
        default="/var/lib/glance/mnt",
        help="Directory below which shares are mounted, for backends whose volumes are files on "
        "NFS. Processes on one host must share it.",
    ),
    cfg.StrOpt(
        "rootwrap_config",
        default="/etc/glance/rootwrap.conf",
        help="Configuration of glance-rootwrap, with which os-brick's helper is started when the "
        "service is not root, [privsep_osbrick] helper_command is not set, and glance-rootwrap "
        "is installed.",
    ),
)

#: Options that the libraries in use have in sections of their own.
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
        """Return the settings that a store's options make."""
        attempts = options.cinder_attachment_retry_attempts
        return cls(
            store_id,
            None if options.section == "glance_store" else store_id,
            options.cinder_volume_type,
            float(sum(min(2**number, 10) for number in range(1, attempts))),
            options.cinder_do_extend_attached,
        )
