"""The options of the rbd driver, and its validated settings."""

import dataclasses

from oslo_config import cfg

from store_lib.options import LONGEST_TIME

MIB = 1024 * 1024

OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "rbd_store_pool",
        default="images",
        help="Pool that images are stored in. It must exist, initialised for RBD.",
    ),
    cfg.StrOpt(
        "rbd_store_user",
        help="Ceph user to log in as, without the leading 'client.'. Left out, it is librados' "
        "own choice: client.admin. The user's keyring is found as the Ceph configuration says.",
    ),
    cfg.StrOpt(
        "rbd_store_ceph_conf",
        default="",
        help="Ceph's configuration file. Left out, librados looks for it: $CEPH_CONF, "
        "/etc/ceph/ceph.conf, ~/.ceph/ceph.conf, ceph.conf in the current directory.",
        sample_default="/etc/ceph/ceph.conf",
    ),
    cfg.IntOpt(
        "rbd_store_chunk_size",
        default=8,
        min=1,
        max=1 << 20,
        help="Size in MiB of the RADOS objects that an image is cut into. A power of two, at "
        "most 32.",
    ),
    cfg.IntOpt(
        "rados_connect_timeout",
        default=-1,
        max=LONGEST_TIME,
        help="Seconds for the connection to the cluster to be made; 0 for no limit. Negative, "
        "client_mount_timeout of the Ceph configuration holds (300 when that says nothing).",
    ),
    cfg.BoolOpt(
        "rbd_thin_provisioning",
        default=False,
        help="Do not write zeros: what is zero takes no room in the pool, and no time on the "
        "network. Digests and sizes are the same.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to reach a cluster.

    :param pool: the store's own pool
    :param user: without ``client.``; ``None`` for librados' own choice
    :param conf_file: ``""`` for librados' own search
    :param connect_timeout: seconds; 0 for no limit, negative for that of the Ceph configuration
    :param operation_timeout: seconds that one operation may take if the Ceph configuration sets no
        limit; 0 for none
    """

    pool: str
    user: str | None
    conf_file: str
    connect_timeout: int
    operation_timeout: int


@dataclasses.dataclass(frozen=True, slots=True)
class UploadSettings:
    """Settings of every upload.

    :param object_size: bytes of a RADOS object, a power of two
    :param thin: leave zeros out
    """

    object_size: int
    thin: bool

    @property
    def order(self) -> int:
        """The object size as librbd expects it: its base-2 logarithm, such as 22 for 4 MiB."""
        return self.object_size.bit_length() - 1
