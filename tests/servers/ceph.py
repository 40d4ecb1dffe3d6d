"""A Ceph cluster of one monitor, manager, OSD and S3 gateway, on loopback, ready in seconds.

It neither reads nor changes the machine's own Ceph configuration, and several clusters can run at
the same time.  It starts fast because all keys are in the monitor's store from the beginning, the
manager loads no optional module, and the set-up uses librados instead of the command line tool.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.servers.ceph_conf import ceph_conf
from tests.servers.installed import CACHE, NotInstalled, debian_packages
from tests.servers.leftovers import remove_afterwards
from tests.servers.process import ServerProcess, free_ports

#: Where Debian keeps the bindings, between everything else that is installed there.
_DEBIAN = Path("/usr/lib/python3/dist-packages")

_PACKAGES = {
    "ceph-mon": "ceph-mon",
    "ceph-mgr": "ceph-mgr",
    "ceph-osd": "ceph-osd",
    "radosgw": "radosgw",
    "rbd": "ceph-common",
    "openssl": "openssl",
    str(_DEBIAN / "rados-2.0.0.egg-info"): "python3-rados",
    str(_DEBIAN / "rbd-2.0.0.egg-info"): "python3-rbd",
}

#: Bytes that the tests write, and nothing gives back before the cluster ends.
_ROOM = 8 * 1024**3

#: Pools of every cluster, as a cloud has them.
IMAGES, VOLUMES = "images", "volumes"

_USERS: Mapping[str, Mapping[str, str]] = {
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"},
    "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
    "client.rgw.a": {"mon": "allow rw", "osd": "allow rwx", "mgr": "allow rw"},
    "client.glance": {
        "mon": "profile rbd",
        "osd": f"profile rbd pool={IMAGES}",
        "mgr": f"profile rbd pool={IMAGES}",
    },
    "client.cinder": {
        "mon": "profile rbd",
        "osd": f"profile rbd pool={VOLUMES}, profile rbd pool={IMAGES}",
        "mgr": f"profile rbd pool={VOLUMES}, profile rbd pool={IMAGES}",
    },
}


@dataclasses.dataclass
class Ceph:
    """A running cluster.

    Users besides ``client.admin``: ``client.glance`` (pool ``images``) and ``client.cinder``
    (pools ``volumes`` and ``images``); :attr:`conf` names the keyring of each.
    """

    directory: Path
    #: Path of the configuration file, for every user.
    conf: Path
    fsid: str
    #: Address of the S3 gateway, ``http://127.0.0.1:port``; as ``s3.localhost`` it serves buckets
    #: under host names of their own too (``bucket.s3.localhost``).
    s3_endpoint: str
    #: The same over TLS; its certificate is for 127.0.0.1 and all of these names.
    s3_tls_endpoint: str
    #: File with the certificate that verifies :attr:`s3_tls_endpoint`.
    s3_ca: Path
    s3_access_key: str
    s3_secret_key: str
    #: A ``rados.Rados`` connected as ``client.admin``.
    admin: Any
    processes: dict[str, ServerProcess] = dataclasses.field(default_factory=dict)

    @property
    def monitor(self) -> str:
        """Address of the monitor in the format of ``mon host``."""
        return next(
            line.partition("=")[2].strip()
            for line in self.conf.read_text().splitlines()
            if line.startswith("mon host")
        )

    def command(self, prefix: str, **arguments: Any) -> Any:
        """Send a command to the monitor, as ``ceph <prefix> ...`` does, and return the result."""
        return _command(self.admin, prefix, **arguments)

    def keyring(self, user: str) -> Path:
        """Return the path of a user's keyring."""
        return self.directory / f"{user}.keyring"

    def add_pool(self, name: str) -> str:
        """Make a pool for images."""
        import rbd

        self.command(
            "osd pool create", pool=name, pg_num=8, pgp_num=8, autoscale_mode="off", size=1
        )
        with self.admin.open_ioctx(name) as ioctx:
            rbd.RBD().pool_init(ioctx, True)
        return name

    def remove_pool(self, name: str) -> None:
        """Remove a pool with its contents."""
        self.command("osd pool rm", pool=name, pool2=name, yes_i_really_really_mean_it=True)

    def set_quota(self, pool: str, size: int) -> None:
        """Limit the size of a pool in bytes; 0 removes the limit."""
        self.command("osd pool set-quota", pool=pool, field="max_bytes", val=str(size))

    def add_user(self, user: str, **capabilities: str) -> Path:
        """Make a user such as ``client.reader``, with capabilities by service.

        :return: the path of its keyring, which :attr:`conf` names
        """
        caps = [word for pair in capabilities.items() for word in pair]
        made = self.command("auth get-or-create", entity=user, caps=caps)
        _write_keyring(self.keyring(user), {user: made[0]["key"]})
        return self.keyring(user)

    def allow(self, user: str, *pools: str) -> None:
        """Give a user access to the images in these pools only."""
        osd = ", ".join(f"profile rbd pool={pool}" for pool in pools)
        caps = ["mon", "profile rbd", "osd", osd, "mgr", osd]
        self.command("auth caps", entity=user, caps=caps)

    @contextlib.contextmanager
    def frozen(self, name: str = "osd") -> Iterator[None]:
        """Freeze a daemon (SIGSTOP) during the block: it neither responds nor disconnects."""
        process = self.processes[name]
        process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)

    def run(self, *words: str) -> str:
        """Run a command line tool of Ceph on this cluster and return what it prints."""
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"{' '.join(words)}: {done.returncode}: {done.stderr}")
        return done.stdout

    def daemon(self, name: str, *words: str, **arguments: Any) -> Any:
        """Send a command to a daemon's own socket, as ``ceph daemon`` does."""
        path = self.directory / "run" / f"{name}.asok"
        with socket.socket(socket.AF_UNIX) as connection:
            # The path of a socket is short: it is reached by its directory's descriptor.
            where = os.open(path.parent, os.O_PATH)
            try:
                connection.connect(f"/proc/self/fd/{where}/{path.name}")
            finally:
                os.close(where)
            connection.sendall(
                json.dumps({"prefix": " ".join(words), **arguments}).encode() + b"\0"
            )
            with connection.makefile("rb") as answer:
                size = int.from_bytes(answer.read(4), "big")
                return json.loads(answer.read(size))

    def start_gateway(self) -> None:
        """Start the S3 gateway with its own user, or restart it."""
        self._start("rgw", "radosgw", "-f", "-n", "client.rgw.a")
        self.processes["rgw"].wait_for_port(int(self.s3_endpoint.rpartition(":")[2]))
        self.processes["rgw"].wait_for_port(int(self.s3_tls_endpoint.rpartition(":")[2]))

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self.conf)}

    def _start(self, name: str, *command: str) -> None:
        self.processes[name] = ServerProcess.start(
            f"Ceph's {name}",
            command,
            log=self.directory / "log" / f"{name}.out",
            environment={"CEPH_CONF": str(self.conf)},
            directory=self.directory,
        )

    def stop(self) -> None:
        """Kill all daemons; the data is removed with them."""
        for name in ("rgw", "osd", "mgr", "mon"):
            if name in self.processes:
                self.processes[name].stop(kill=True)


@contextlib.contextmanager
def ceph_directory(otherwise: Path | None = None) -> Iterator[Path]:
    """Make a directory for a cluster, in memory if possible, since disks are slow.

    :param otherwise: the parent directory if not in memory, by default that for temporary files
    """
    with tempfile.TemporaryDirectory(prefix="store_lib-ceph-", dir=_memory() or otherwise) as path:
        remove_afterwards(Path(path))
        yield Path(path) / "cluster"


def _memory() -> Path | None:
    """Return a directory in memory that the OSD can use, ``None`` if there is not enough space."""
    place = Path("/dev/shm")
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=place) as file:
        os.close(os.open(file.name, os.O_RDWR | os.O_DIRECT))
        if shutil.disk_usage(place).free >= _ROOM:
            return place
    return None


def bindings() -> Path:
    """Return a directory that contains only the Python modules ``rados`` and ``rbd``.

    Debian installs them in a directory with all other packages of the system.

    :raises NotInstalled: there are none for this interpreter
    """
    debian_packages(_PACKAGES, "Ceph")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    built = [_DEBIAN / f"{name}{suffix}" for name in ("rados", "rbd")]
    if not all(path.exists() for path in built):
        raise NotInstalled(
            "cannot run anywhere here: Debian's rados and rbd are not built for Python "
            f"{sys.version_info.major}.{sys.version_info.minor}"
        )
    place = CACHE / f"ceph-bindings{suffix.partition('.so')[0]}"
    place.mkdir(parents=True, exist_ok=True)
    for path in built:
        with contextlib.suppress(FileExistsError):
            (place / path.name).symlink_to(path)
    return place


@contextlib.contextmanager
def importable_bindings() -> Iterator[None]:
    """Make ``rados`` and ``rbd`` importable in this interpreter and those it starts."""
    if all(importlib.util.find_spec(name) is not None for name in ("rados", "rbd")):
        yield
        return
    place = bindings()
    before = os.environ.get("PYTHONPATH")
    sys.path.append(str(place))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, str(place)]))
    try:
        yield
    finally:
        sys.path.remove(str(place))
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def ceph(directory: Path, *, gateway: bool = True) -> Iterator[Ceph]:
    """Run a cluster with its data in an empty directory, which is removed at the end.

    :param gateway: whether to run the S3 gateway too
    :raises NotInstalled: packages are missing and cannot be installed
    """
    debian_packages(_PACKAGES, "Ceph")
    with importable_bindings(), contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        running = _prepare(directory, stack)
        _bring_up(running, stack)
        if gateway:
            _add_s3_user(running)
            running.start_gateway()
        yield running


def _prepare(directory: Path, stack: contextlib.ExitStack) -> Ceph:
    """Write the configuration, keys and empty stores of a new cluster."""
    for name in ("mon", "mgr", "osd", "rgw", "run", "log", "crash"):
        (directory / name).mkdir(parents=True, mode=0o700)
    fsid = str(uuid.uuid4())
    mon, mon_v1, s3, s3_tls = free_ports(4)
    monitor = f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_v1}]"
    conf = directory / "ceph.conf"
    conf.write_text(
        ceph_conf(directory, fsid=fsid, monitor=monitor, s3_port=s3, s3_tls_port=s3_tls)
    )
    running = Ceph(
        directory=directory,
        conf=conf,
        fsid=fsid,
        s3_endpoint=f"http://127.0.0.1:{s3}",
        s3_tls_endpoint=f"https://127.0.0.1:{s3_tls}",
        s3_ca=directory / "rgw" / "cert.pem",
        s3_access_key="access" + secrets.token_hex(8),
        s3_secret_key=secrets.token_hex(20),
        admin=None,
    )
    stack.callback(running.stop)
    keys = {user: running.run("ceph-authtool", "--gen-print-key").strip() for user in _USERS}
    for user, key in keys.items():
        _write_keyring(running.keyring(user), {user: key})
    # The monitor takes all of them, with their capabilities, into its store.
    everything = directory / "everything.keyring"
    keys["mon."] = running.run("ceph-authtool", "--gen-print-key").strip()
    _write_keyring(everything, keys)
    monmap = str(directory / "monmap")
    running.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, monmap)
    running.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", str(everything))
    running._start("mon", "ceph-mon", "-f", "-i", "a", "--public-addrv", monitor)
    running._start("mgr", "ceph-mgr", "-f", "-i", "x")
    running.processes["mon"].wait_for_port(mon)
    return running


def _bring_up(running: Ceph, stack: contextlib.ExitStack) -> None:
    """Make the OSD's store and the pools; the monitor runs already."""
    import rados

    # Told so, it does not wait for a configuration from the monitor.
    running.run("ceph-osd", "--mkfs", "--no-mon-config", "-i", "0", "--osd-uuid", running.fsid)
    running.admin = rados.Rados(
        conffile=str(running.conf),
        name="client.admin",
        conf={"client_mount_timeout": "30", "rados_mon_op_timeout": "30"},
    )
    stack.callback(running.admin.shutdown)
    running.admin.connect()
    running.command("osd new", uuid=running.fsid)
    running._start("osd", "ceph-osd", "-f", "-i", "0")
    running.processes["osd"].wait_until(
        lambda: running.command("osd stat")["num_up_osds"] == 1, "come up"
    )
    for pool in (IMAGES, VOLUMES):
        running.add_pool(pool)


def _add_s3_user(running: Ceph) -> None:
    names = "DNS:localhost,DNS:s3.localhost,DNS:*.s3.localhost,IP:127.0.0.1"
    running.run(
        *("openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-addext", f"subjectAltName={names}"),
        *("-keyout", str(running.directory / "rgw" / "key.pem"), "-out", str(running.s3_ca)),
    )
    running.run(
        *("radosgw-admin", "-n", "client.rgw.a", "user", "create"),
        *("--uid", "tester", "--display-name", "tester"),
        *("--access-key", running.s3_access_key, "--secret-key", running.s3_secret_key),
    )


def _command(connection: Any, prefix: str, **arguments: Any) -> Any:
    text = json.dumps({"prefix": prefix, "format": "json", **arguments})
    status, answer, complaint = connection.mon_command(text, b"")
    if status:
        raise AssertionError(f"ceph {prefix} {arguments}: {status}: {complaint}")
    return json.loads(answer) if answer.strip() else None


def _write_keyring(path: Path, keys: Mapping[str, str]) -> None:
    lines: list[str] = []
    for user, key in keys.items():
        lines += [f"[{user}]", f"\tkey = {key}"]
        capabilities = {"mon": "allow *"} if user == "mon." else _USERS.get(user, {})
        lines += [f'\tcaps {service} = "{what}"' for service, what in capabilities.items()]
    path.write_text("\n".join([*lines, ""]))
    path.chmod(0o600)
