"""Swift on loopback: storage servers and proxies with tempauth, Keystone, both; in one process."""

import contextlib
import dataclasses
import getpass
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.servers.installed import NotInstalled, debian_packages, python_environment
from tests.servers.keystone import CHILDREN, Keystone, password
from tests.servers.process import ServerProcess, free_ports

#: Users of the old built-in login (auth version 1), and of the S3 interface: name and password.
TEMPAUTH_USERS: Mapping[str, str] = {
    "test:tester": "testing-5eCr",
    "test:plain": "testing3-5eCr",
    "test2:tester2": "testing2-5eCr",
    "admin:admin": "admin-5eCr",
}
_TEMPAUTH_GROUPS = {
    "test:tester": ".admin",
    "test:plain": "",
    "test2:tester2": ".admin",
    "admin:admin": ".admin .reseller_admin",
}

_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {etc}
devices = {root}/node
mount_check = false
log_name = swift-{kind}
recon_cache_path = {root}/cache
client_timeout = {client_timeout}
fallocate_reserve = 0
"""

_STORAGE = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

_PROXY = """\
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging {cache} listing_formats bulk tempurl\
 {auth}\
 copy slo dlo versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
check_bucket_owner = false
min_segment_size = 1048576
[filter:tempauth]
use = egg:swift#tempauth
# Tokens that need no memcached.
fernet_key_k1 = RFVUVU9XSDRBUkJBN0lXQkJMVFlLT1ZSQ01KNDVEQlk=
active_fernet_key_id = k1
reseller_prefix = TEMP
token_life = {token_life}
{tempauth_users}
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = swift
password = {swift_password}
delay_auth_decision = true
service_token_roles_required = true
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
reseller_prefix = AUTH
reseller_admin_role = ResellerAdmin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
# By default it serves one segment a second after the tenth.
rate_limit_segments_per_sec = 100000
[filter:dlo]
use = egg:swift#dlo
rate_limit_segments_per_sec = 100000
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""


@dataclasses.dataclass
class Swift:
    """A running Swift."""

    #: ``http://127.0.0.1:port/auth/v1.0``, for the users of :data:`TEMPAUTH_USERS`.
    v1_url: str
    #: The S3 interface: an access key is a name of :data:`TEMPAUTH_USERS`, path style.
    s3_url: str
    #: The URL in Keystone's catalog without the project id; empty without Keystone.
    keystone_url: str
    #: URL of a proxy for the same storage that supports both logins; empty without Keystone.
    both_url: str
    #: Bytes of the largest object that is not made of segments.
    max_file_size: int
    directory: Path
    #: The servers to start, and their ports.
    _commands: list[tuple[list[str | Path], list[int]]] = dataclasses.field(repr=False)
    _servers: list[ServerProcess] = dataclasses.field(default_factory=list, repr=False)

    def start(self) -> None:
        """Start the servers on the existing data."""
        for command, ports in self._commands:
            server = ServerProcess.start(
                "swift",
                command,
                log=self.directory / "output",
                environment={"PYTHONWARNINGS": "ignore"},
            )
            self._servers.append(server)
            for port in ports:
                server.wait_for_port(port)

    def stop(self) -> None:
        """End the servers at once and keep their data."""
        while self._servers:
            self._servers.pop().stop(kill=True)

    def restart(self, *, full: bool = False) -> None:
        """Stop and start the servers.

        :param full: reserve the whole disk, so that every object is refused
        """
        self.stop()
        # In one process the server that starts last sets it for all.
        for config in (self.directory / "etc").glob("*-*.conf"):
            text = re.sub(r"(?m)reserve = \d+$", f"reserve = {full << 60}", config.read_text())
            config.write_text(text)
        self.start()

    @property
    def pids(self) -> list[int]:
        """The ids of the server processes."""
        return [each.pid for each in self._servers]


@contextlib.contextmanager
def swift(
    directory: Path,
    keystone: Keystone | None = None,
    *,
    max_file_size: int = 16 * 1024 * 1024,
    client_timeout: int = 10,
    token_life: int = 86400,
    processes: bool = False,
) -> Iterator[Swift]:
    """Run Swift with its data in ``directory``; it starts in under 2 s.

    :param keystone: the Keystone to use for tokens and the catalog; without it only the old login
        works
    :param max_file_size: limit in bytes for an object; larger ones are refused with 413
    :param client_timeout: seconds after which a stalled body is refused with 408
    :param token_life: lifetime in seconds of tokens of the old login
    :param processes: run each server in a separate process, as operators do; otherwise all run in
        one process, which starts sooner
    :raises NotInstalled: its environment cannot be made
    """
    environment = python_environment("openstack")
    [memcached] = free_ports(1)
    cached = _has_memcached()
    etc = directory / "etc"
    for each in (etc, directory / "node" / "d1", directory / "cache"):
        each.mkdir(parents=True, exist_ok=True)
    ports = free_ports(6 if keystone else 4)
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = changeme\n"
        "[storage-policy:0]\nname = Policy-0\ndefault = yes\n"
        f"[swift-constraints]\nmax_file_size = {max_file_size}\n"
    )
    proxies = ["s3api tempauth"]
    if keystone is not None:
        # keystoneauth decides on every request, so tempauth must come after it.
        proxies += ["authtoken keystoneauth", "authtoken keystoneauth tempauth"]
    values = {
        "user": getpass.getuser(),
        "etc": etc,
        "root": directory,
        "client_timeout": client_timeout,
        "token_life": token_life,
        "cache": "cache" if cached else "",
        "memcached": memcached,
        "keystone": keystone.url if keystone else "",
        "swift_password": password("swift"),
        "tempauth_users": "\n".join(
            f"user_{name.replace(':', '_')} = {key} {_TEMPAUTH_GROUPS[name]}"
            for name, key in TEMPAUTH_USERS.items()
        ),
    }
    kinds = ["object", "container", "account", *["proxy"] * len(proxies)]
    auths = ["", "", "", *proxies]
    configs = []
    for kind, auth, port in zip(kinds, auths, ports, strict=True):
        text = _COMMON + (_PROXY if kind == "proxy" else _STORAGE)
        config = etc / f"{kind}-{port}.conf"
        config.write_text(text.format(**values, kind=kind, auth=auth, port=port))
        configs.append(config)
    rings = dict(zip(kinds[:3], ports[:3], strict=True))
    (etc / "rings.json").write_text(json.dumps(rings))

    python, script = environment / "bin" / "python", CHILDREN / "serve_swift.py"
    together = [(configs, ports)]
    if processes:
        together = [([config], [port]) for config, port in zip(configs, ports, strict=True)]
    urls = [f"http://127.0.0.1:{port}" for port in ports[3:]]
    server = Swift(
        v1_url=f"{urls[0]}/auth/v1.0",
        s3_url=urls[0],
        keystone_url=f"{urls[1]}/v1/AUTH_" if keystone else "",
        both_url=urls[2] if keystone else "",
        max_file_size=max_file_size,
        directory=directory,
        _commands=[([python, script, etc, *some], on) for some, on in together],
    )
    cache = _start_memcached(memcached, directory) if cached else None
    try:
        server.start()
        if keystone is not None:
            keystone.add_service("object-store", "swift", server.keystone_url + "%(tenant_id)s")
        yield server
    finally:
        server.stop()
        if cache is not None:
            cache.stop(kill=True)


def _has_memcached() -> bool:
    """Return whether memcached is installed; without it Swift works, but caches nothing."""
    try:
        debian_packages({"memcached": "memcached"}, "Swift's cache")
    except NotInstalled:
        return False
    return True


def _start_memcached(port: int, directory: Path) -> ServerProcess:
    server = ServerProcess.start(
        "memcached",
        ["memcached", "-u", getpass.getuser(), "-l", "127.0.0.1", "-p", str(port), "-m", "16"],
        log=directory / "memcached",
    )
    server.wait_for_port(port)
    return server
