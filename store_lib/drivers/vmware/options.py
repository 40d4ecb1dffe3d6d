"""The vmware driver's options, and the datastores that they list."""

import dataclasses
import re
from collections.abc import Iterable

from oslo_config import cfg

from store_lib.options import LONGEST_TIME

OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "vmware_server_host",
        sample_default="vcenter.example.org",
        help="The vCenter Server or ESXi host: an address or a name, with a port where it is not "
        "443. An IPv6 address with a port stands in brackets. Required.",
    ),
    cfg.StrOpt(
        "vmware_server_username",
        sample_default="glance@vsphere.local",
        help="User that logs in there. Required.",
    ),
    cfg.StrOpt("vmware_server_password", secret=True, help="The user's password. Required."),
    cfg.MultiStrOpt(
        "vmware_datastores",
        sample_default=["folder/datacenter:datastore:100"],
        help="Where objects go, as <datacenter path>:<datastore name>:<weight>; to be repeated for "
        "each datastore. The path is the datacenter's in the inventory. The weight is an integer, "
        "0 when it is left out: the highest weight is taken first, the most free space among "
        "equals, and the next one when the object does not fit. A colon in a path or a name has a "
        "backslash before it, and so has a backslash. Required.",
    ),
    cfg.StrOpt(
        "vmware_store_image_dir",
        default="/openstack_glance",
        help="Directory on the datastores that holds the objects. It is made when it is missing. "
        "Objects elsewhere cannot be read or deleted.",
    ),
    cfg.IntOpt(
        "vmware_api_retry_count",
        default=10,
        min=1,
        max=1_000_000,
        help="How often in a row asking for a task's progress may fail for reasons of the "
        "connection before the task is given up. Any other request is repeated as "
        "transfer_retry_seconds says.",
    ),
    cfg.IntOpt(
        "vmware_task_poll_interval",
        default=5,
        min=1,
        max=LONGEST_TIME,
        help="Longest pause in seconds between two questions whether a task has ended. The first "
        "ones are asked within milliseconds.",
    ),
    cfg.IntOpt(
        "vmware_task_timeout",
        default=300,
        min=1,
        max=LONGEST_TIME,
        help="Seconds that a task (moving, deleting or searching files) may take.",
    ),
    cfg.BoolOpt(
        "vmware_insecure",
        default=False,
        deprecated_name="vmware_api_insecure",
        help="Do not verify the server's certificate. Anybody on the way can then read the "
        "password and alter what is transferred. Ignored when vmware_ca_file is set.",
    ),
    cfg.StrOpt(
        "vmware_ca_file",
        sample_default="/etc/ssl/certs/vcenter.pem",
        help="File with the certificates, in PEM, of the authorities that the server is verified "
        "against. Left out, the system's authorities are trusted. The environment "
        "(REQUESTS_CA_BUNDLE and its like) does not change it.",
    ),
    cfg.StrOpt(
        "vmware_wsdl_location",
        sample_default="/etc/store_lib/vimService.wsdl",
        help="File with the API's description, as a path or a file URI, for servers that do not "
        "offer theirs, or to start faster. Left out, it is fetched from the server.",
    ),
    cfg.FloatOpt(
        "vmware_connect_timeout",
        default=10.0,
        min=0.001,
        max=LONGEST_TIME,
        help="Seconds for a connection to the server to be made.",
    ),
    cfg.FloatOpt(
        "vmware_read_timeout",
        default=120.0,
        min=0.001,
        max=LONGEST_TIME,
        help="Seconds for which the server may neither take nor send a byte before it is given "
        "up. The answer to an upload comes only once the datastore has written everything.",
    ),
)

_FORM = "<datacenter path>:<datastore name>[:<weight>]"


@dataclasses.dataclass(frozen=True, slots=True)
class Datastore:
    """A datastore that is configured, or that a URI names."""

    #: The datacenter's inventory path, as it was written.
    datacenter: str
    name: str
    weight: int = dataclasses.field(default=0, compare=False)

    @property
    def display_name(self) -> str:
        """The datastore's name in messages."""
        return f"{self.datacenter}:{self.name}"


def parse_datastores(entries: Iterable[str]) -> list[Datastore]:
    """Return the configured datastores.

    :raises ValueError: an entry is malformed, a datastore is named twice, or there is no entry
    """
    datastores: dict[tuple[str, str], Datastore] = {}
    for entry in entries:
        datastore = _parse(entry.strip())
        key = datastore.datacenter.strip("/"), datastore.name
        if key in datastores:
            raise ValueError(f"vmware_datastores: {datastore.display_name} is listed twice")
        datastores[key] = datastore
    if not datastores:
        raise ValueError(f"vmware_datastores: expected at least one {_FORM}, got none")
    return list(datastores.values())


def _parse(entry: str) -> Datastore:
    wrong = f"vmware_datastores: expected {_FORM}, got {entry!r}"
    fields = [""]
    for piece in re.findall(r"\\?.", entry, re.DOTALL):
        if piece == ":":
            fields.append("")
        elif piece[0] != "\\":
            fields[-1] += piece
        elif piece in ("\\:", "\\\\"):
            fields[-1] += piece[1]
        else:
            raise ValueError(f"{wrong}: a backslash stands before : or \\ alone")
    if len(fields) not in (2, 3):
        raise ValueError(f"{wrong}: a colon within a path or a name is to be written as \\:")
    datacenter, name = fields[0].strip(), fields[1].strip()
    if not datacenter.strip("/") or not name:
        raise ValueError(f"{wrong}: the path or the name is empty")
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", weight := fields[2].strip() if fields[2:] else "0"):
        raise ValueError(f"{wrong}: the weight {weight!r} is not an integer")
    return Datastore(datacenter, name, int(weight))


def parse_directory(text: str) -> str:
    """Return the directory of the objects, without leading and trailing slashes.

    :raises ValueError: ``text`` is not a valid path
    """
    directory = text.strip().strip("/")
    if not is_path(directory):
        raise ValueError(
            "vmware_store_image_dir: expected a directory below a datastore's root, such as "
            f"/openstack_glance, got {text!r}"
        )
    return directory


def is_path(text: str) -> bool:
    """Return whether ``text`` is a relative path without empty, ``.`` or ``..`` segments."""
    return text.isprintable() and all(
        segment not in ("", ".", "..") and "\\" not in segment for segment in text.split("/")
    )
