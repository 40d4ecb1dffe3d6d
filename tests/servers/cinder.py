"""Cinder on loopback, as one process: loop devices, plain files, an NFS-like share, RBD; faults."""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.ceph import VOLUMES, Ceph, bindings
from tests.servers.installed import NotInstalled, debian_packages, python_environment
from tests.servers.keystone import CHILDREN, Keystone, password, request
from tests.servers.leftovers import detach_afterwards, remove_afterwards
from tests.servers.process import ServerProcess, eventually, free_ports

#: Debian packages of the commands that the driver and the servers use.
PACKAGES = {"losetup": "mount", "mount": "mount", "qemu-img": "qemu-utils"}

#: Directory to put before PATH for the servers and for processes that attach volumes: its mount
#: command makes bind mounts instead of NFS mounts.
NFS_PATH = CHILDREN / "bin"

#: The volume types and their properties.  ``nowhere`` has no backend, so its volumes fail.
TYPES: dict[str, dict[str, str]] = {
    "fast": {"volume_backend_name": "loopfast"},
    "slow": {"volume_backend_name": "loopslow"},
    "multi": {"volume_backend_name": "loopfast", "multiattach": "<is> True"},
    "file": {"volume_backend_name": "plain"},
    "filemulti": {"volume_backend_name": "plain", "multiattach": "<is> True"},
    "nfs": {"volume_backend_name": "nfs"},
    "qcow2": {"volume_backend_name": "nfsqcow2"},
    "nowhere": {"volume_backend_name": "nowhere"},
}
_RBD_TYPES = {
    "rbd": {"volume_backend_name": "rbd"},
    "rbdmulti": {"volume_backend_name": "rbd", "multiattach": "<is> True"},
}

_CONFIG = """\
[DEFAULT]
host = here
my_ip = 127.0.0.1
transport_url = fake:///
auth_strategy = keystone
enabled_backends = {backends}
default_volume_type = fast
osapi_volume_listen = 127.0.0.1
osapi_volume_listen_port = {port}
osapi_volume_workers = 1
osapi_max_limit = 50
quota_volumes = 10000
quota_gigabytes = 1000000
api_paste_config = {etc}/api-paste.ini
resource_query_filters_file = {etc}/resource_filters.json
rootwrap_config = {etc}/rootwrap.conf
state_path = {directory}/state
log_file = {directory}/cinder.log
# Logging several lines for each request took 8 % of the time.
default_log_levels = cinder.api.openstack.wsgi=WARN,cinder.volume.api=WARN,sqlalchemy=WARN,\
taskflow=WARN,routes.middleware=WARN,keystonemiddleware=WARN,urllib3=WARN,stevedore=WARN
report_interval = 10
service_down_time = 86400
backend_stats_polling_interval = 60
periodic_interval = 5
periodic_fuzzy_delay = 0
scheduler_driver_init_wait_time = 5
volume_clear = none
[database]
connection = sqlite:///{directory}/cinder.db
sqlite_synchronous = false
[oslo_concurrency]
lock_path = {directory}/lock
[coordination]
backend_url = file://{directory}/state
[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = cinder
password = {password}
service_token_roles_required = true
[loopfast]
volume_driver = file_volumes.FileVolumes
volume_backend_name = loopfast
file_volumes_directory = {directory}/loopfast
[loopslow]
volume_driver = file_volumes.FileVolumes
volume_backend_name = loopslow
file_volumes_directory = {directory}/loopslow
[plain]
volume_driver = file_volumes.FileVolumes
volume_backend_name = plain
file_volumes_directory = {directory}/plain
file_volumes_loop = false
[nfs]
volume_driver = cinder.volume.drivers.nfs.NfsDriver
volume_backend_name = nfs
nfs_shares_config = {directory}/shares
nfs_mount_point_base = {directory}/mounts
nas_secure_file_operations = false
nas_secure_file_permissions = false
nfs_sparsed_volumes = true
[nfsqcow2]
volume_driver = cinder.volume.drivers.nfs.NfsDriver
volume_backend_name = nfsqcow2
nfs_shares_config = {directory}/shares2
nfs_mount_point_base = {directory}/mounts
nas_secure_file_operations = false
nas_secure_file_permissions = false
nfs_qcow2_volumes = true
"""

_CONFIG_RBD = """\
[rbd]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = rbd
rbd_pool = {pool}
rbd_user = {user}
rbd_ceph_conf = {config}
rbd_exclusive_cinder_pool = true
report_discard_supported = true
max_over_subscription_ratio = 1000
"""


@dataclasses.dataclass
class Cinder:
    """A running Cinder."""

    #: ``http://127.0.0.1:port/v3``
    url: str
    directory: Path
    keystone: Keystone
    types: tuple[str, ...]
    port: int
    _command: list[str | Path] = dataclasses.field(repr=False)
    _environment: dict[str, str] = dataclasses.field(repr=False)
    _server: ServerProcess | None = dataclasses.field(default=None, repr=False)

    def start(self) -> None:
        """Start the server, on the data that is there."""
        self._server = ServerProcess.start(
            "cinder",
            self._command,
            log=self.directory / "output",
            environment=self._environment,
        )
        self._server.wait_for_port(self.port, limit=180)

    def stop(self) -> None:
        """End the server at once and keep its data."""
        if self._server is not None:
            self._server.stop(kill=True)
            self._server = None

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._server is not None

    def call(self, method: str, path: str, body: Any = None, *, user: str = "glance") -> Any:
        """Make a request for a user's project and return the answer's JSON.

        :param path: what comes after the project's id
        """
        login = self.keystone.login(user)
        headers = {"X-Auth-Token": login.token, "OpenStack-API-Version": "volume 3.70"}
        reply = request(method, f"{self.url}/{login.project_id}{path}", body, headers)
        return reply.json() if reply.data else None

    def volumes(self) -> list[dict[str, Any]]:
        """Return the volumes of all projects, except those that are being deleted."""
        found: list[dict[str, Any]] = []
        offset = 0
        while page := self.call(
            "GET", f"/volumes/detail?all_tenants=1&limit=50&offset={offset}&sort=created_at:asc"
        )["volumes"]:
            found += page
            offset += len(page)
        return [each for each in found if each["status"] != "deleting"]

    def attachments(self) -> list[dict[str, Any]]:
        """Return the attachments of all projects."""
        found: list[dict[str, Any]]
        found = self.call("GET", "/attachments/detail?all_tenants=1")["attachments"]
        return found

    def loops(self) -> list[str]:
        """Return the loop devices for files of this server."""
        listed = subprocess.run(
            ["losetup", "--noheadings", "--output", "NAME,BACK-FILE"],
            check=True,
            capture_output=True,
            text=True,
        )
        pairs = (line.split(maxsplit=1) for line in listed.stdout.splitlines())
        return [pair[0] for pair in pairs if pair[1:] and self._owns(pair[1])]

    def mounts(self, under: Path | None = None) -> list[str]:
        """Return the mounts below a directory, by default this server's."""
        prefix = f"{under or self.directory}/"
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return [line.split()[1] for line in lines if line.split()[1].startswith(prefix)]

    @contextlib.contextmanager
    def fault(self, backend: str, what: str) -> Iterator[None]:
        """Make a backend that uses files fail or hang during the block.

        :param backend: ``loopfast``, ``loopslow`` or ``plain``
        :param what: ``hold-create``, ``hold-attach``, ``refuse-create``, ``refuse-extend``,
            ``refuse-attach``, ``refuse-detach``, ``refuse-delete``
        """
        flag = self.directory / backend / what
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()

    def remove_volumes(self) -> None:
        """Remove all volumes and attachments in any state."""
        for each in self.attachments():
            self.call("DELETE", f"/attachments/{each['id']}")
        for each in self.volumes():
            path = f"/volumes/{each['id']}/action"
            self.call("POST", path, {"os-reset_status": {"status": "error"}})
            self.call("POST", path, {"os-force_delete": {}})
        eventually(lambda: not self.volumes(), "all volumes gone")

    def clean_up(self) -> None:
        """Detach the server's loop devices and undo its mounts, one by one."""
        for mount in self.mounts():
            subprocess.run(["umount", "--lazy", mount], check=True)
        for device in self.loops():
            subprocess.run(["losetup", "--detach", device], check=False)

    def _owns(self, path: str) -> bool:
        return path.startswith(f"{self.directory}/")


@contextlib.contextmanager
def cinder(directory: Path, keystone: Keystone, ceph: Ceph | None = None) -> Iterator[Cinder]:
    """Run Cinder with its data in ``directory``, which is removed at the end; about 4 s.

    :param ceph: adds the volume types ``rbd`` and ``rbdmulti``
    :raises NotInstalled: this is not root, or something is missing
    """
    if os.geteuid() != 0:
        raise NotInstalled("Cinder's volumes on loop devices need root: run the tests as root")
    debian_packages(PACKAGES, "Cinder")
    environment = python_environment("openstack")
    [port] = free_ports(1)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        detach_afterwards(directory)
        types, python_path = dict(TYPES), [CHILDREN]
        config = _CONFIG.format(
            backends="loopfast,loopslow,plain,nfs,nfsqcow2" + (",rbd" if ceph else ""),
            port=port,
            etc=environment / "etc" / "cinder",
            directory=directory,
            keystone=keystone.url,
            password=password("cinder"),
        )
        if ceph is not None:
            types |= _RBD_TYPES
            python_path.append(bindings())
            user = stack.enter_context(_ceph_user(ceph))
            config += _CONFIG_RBD.format(pool=VOLUMES, user=user, config=ceph.conf)
        _write(directory, config, types)
        server = Cinder(
            f"http://127.0.0.1:{port}/v3",
            directory,
            keystone,
            tuple(types),
            port,
            [
                environment / "bin" / "python",
                CHILDREN / "serve_cinder.py",
                directory / "cinder.conf",
                directory / "types.json",
            ],
            {
                "PYTHONWARNINGS": "ignore",
                "PYTHONPATH": os.pathsep.join(map(str, python_path)),
                "PATH": f"{NFS_PATH}:{environment}/bin:{os.environ['PATH']}",
            },
        )
        stack.callback(server.clean_up)
        stack.callback(server.stop)
        server.start()
        keystone.add_service("block-storage", "cinder", server.url)
        keystone.add_service("volumev3", "cinderv3", f"{server.url}/%(tenant_id)s")
        yield server


def _write(directory: Path, config: str, types: dict[str, dict[str, str]]) -> None:
    for name in ("state", "lock", "mounts", "share", "share2"):
        (directory / name).mkdir(parents=True)
    (directory / "shares").write_text(f"127.0.0.1:{directory}/share\n")
    (directory / "shares2").write_text(f"127.0.0.1:{directory}/share2\n")
    (directory / "types.json").write_text(json.dumps(types))
    (directory / "cinder.conf").write_text(config)


@contextlib.contextmanager
def _ceph_user(ceph: Ceph) -> Iterator[str]:
    """Make a Ceph user with its keyring in /etc/ceph, the only place where os-brick looks."""
    user = f"cinder-{secrets.token_hex(4)}"
    caps = f"profile rbd pool={VOLUMES}"
    keyring = ceph.add_user(f"client.{user}", mon="profile rbd", osd=caps, mgr=caps)
    place = Path(f"/etc/ceph/ceph.client.{user}.keyring")
    place.parent.mkdir(exist_ok=True)
    remove_afterwards(place)
    place.symlink_to(keyring)
    try:
        yield user
    finally:
        place.unlink()
