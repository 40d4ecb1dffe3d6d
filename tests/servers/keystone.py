"""Keystone on loopback, as one process: users, a catalog that other servers add to, restart."""

import contextlib
import dataclasses
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import urllib3

from tests.servers.installed import python_environment
from tests.servers.process import ServerProcess, free_ports

#: The program to run in the environment of the servers.
CHILDREN = Path(__file__).with_name("openstack")

REGION = "RegionOne"

#: The users of the domain ``default``, with their project and their roles in it.
#: A password is the user's name followed by ``-pass-5eCr``.
USERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "glance": ("service", ("admin", "service", "ResellerAdmin")),
    "swift": ("service", ("admin", "service")),
    "cinder": ("service", ("admin", "service")),
    "demo": ("demo", ("member",)),
    "demo2": ("demo2", ("member",)),
    "reader": ("demo", ("reader",)),
}

_CONFIG = """\
[DEFAULT]
log_file = {directory}/keystone.log
[database]
connection = sqlite:///{directory}/keystone.db
sqlite_synchronous = false
[token]
provider = fernet
expiration = {expiration}
allow_expired_window = 0
[fernet_tokens]
key_repository = {directory}/fernet
[fernet_receipts]
key_repository = {directory}/fernet
[credential]
key_repository = {directory}/credential
[identity]
password_hash_rounds = 4
[cache]
backend = dogpile.cache.memory
"""


def password(user: str) -> str:
    """Return a user's password."""
    return f"{user}-pass-5eCr"


@dataclasses.dataclass(frozen=True)
class Login:
    """A token, and the values that a service gets with it."""

    token: str
    user_id: str
    project_id: str
    roles: tuple[str, ...]
    #: As in Keystone v3.
    catalog: list[dict[str, Any]]


@dataclasses.dataclass
class Keystone:
    """A running Keystone."""

    #: ``http://127.0.0.1:port/v3``
    url: str
    directory: Path
    _command: list[str | Path] = dataclasses.field(repr=False)
    _server: ServerProcess | None = dataclasses.field(default=None, repr=False)

    def start(self, *, expiration: int = 3600) -> None:
        """Start the server on the existing data.

        :param expiration: lifetime of new tokens in seconds
        """
        self.directory.mkdir(exist_ok=True)
        config = _CONFIG.format(directory=self.directory, expiration=expiration)
        (self.directory / "keystone.conf").write_text(config)
        self._server = ServerProcess.start(
            "keystone",
            self._command,
            log=self.directory / "output",
            environment={"PYTHONWARNINGS": "ignore"},
        )
        port = urllib3.util.parse_url(self.url).port
        assert port is not None
        self._server.wait_for_port(port)

    def stop(self) -> None:
        """End the server and keep its data."""
        if self._server is not None:
            self._server.stop(kill=True)
            self._server = None

    @contextlib.contextmanager
    def short_tokens(self, expiration: int) -> Iterator[None]:
        """Restart with another lifetime of tokens in seconds, and back; takes 2 s each."""
        self.stop()
        self.start(expiration=expiration)
        try:
            yield
        finally:
            self.stop()
            self.start()

    def login(self, user: str = "demo", project: str | None = None) -> Login:
        """Get a token for a user's project."""
        who = {"name": user, "password": password(user), "domain": {"id": "default"}}
        where = {"name": project or self._project(user), "domain": {"id": "default"}}
        reply = request(
            "POST",
            f"{self.url}/auth/tokens",
            {
                "auth": {
                    "identity": {"methods": ["password"], "password": {"user": who}},
                    "scope": {"project": where},
                }
            },
        )
        body = reply.json()["token"]
        return Login(
            reply.headers["X-Subject-Token"],
            body["user"]["id"],
            body["project"]["id"],
            tuple(role["name"] for role in body["roles"]),
            body["catalog"],
        )

    def knows(self, token: str) -> bool:
        """Return whether a token is valid."""
        headers = {"X-Auth-Token": self.login("admin").token, "X-Subject-Token": token}
        with urllib3.PoolManager(retries=False) as pool:
            return pool.request("HEAD", f"{self.url}/auth/tokens", headers=headers).status == 200

    def call(self, method: str, path: str, body: Any = None, *, user: str = "admin") -> Any:
        """Make a request to Keystone's v3 API and return the JSON of the response."""
        headers = {"X-Auth-Token": self.login(user).token}
        reply = request(method, self.url + path, body, headers)
        return reply.json() if reply.data else None

    def add_service(self, kind: str, name: str, url: str) -> None:
        """Add a service to the catalog, with the same URL for all interfaces.

        :param url: may contain ``%(tenant_id)s``
        """
        service = self.call("POST", "/services", {"service": {"type": kind, "name": name}})
        for interface in ("public", "internal", "admin"):
            endpoint = {
                "interface": interface,
                "region_id": REGION,
                "service_id": service["service"]["id"],
                "url": url,
            }
            self.call("POST", "/endpoints", {"endpoint": endpoint})

    def application_credential(self, user: str = "glance") -> tuple[str, str]:
        """Make an application credential with all roles of a user; return its id and secret."""
        made = self.call(
            "POST",
            f"/users/{self.login(user).user_id}/application_credentials",
            {"application_credential": {"name": secrets.token_hex(8), "unrestricted": True}},
            user=user,
        )["application_credential"]
        return made["id"], made["secret"]

    @staticmethod
    def _project(user: str) -> str:
        return "admin" if user == "admin" else USERS[user][0]


def request(
    method: str, url: str, body: Any, headers: Mapping[str, str] | None = None
) -> urllib3.BaseHTTPResponse:
    """Make a request with a JSON body.

    :raises RuntimeError: the response is an error
    """
    with urllib3.PoolManager(retries=False) as pool:
        reply = pool.request(method, url, json=body, headers=headers, timeout=30)
    if reply.status >= 400:
        raise RuntimeError(f"{method} {url}: {reply.status} {reply.data.decode(errors='replace')}")
    return reply


@contextlib.contextmanager
def keystone(directory: Path) -> Iterator[Keystone]:
    """Run Keystone with its data in ``directory``; it starts in about 5 s.

    :raises NotInstalled: its environment cannot be made
    """
    python = python_environment("openstack") / "bin" / "python"
    [port] = free_ports(1)
    directory.mkdir(parents=True, exist_ok=True)
    contents = {
        "port": port,
        "region": REGION,
        "admin_password": password("admin"),
        "users": {
            name: {"password": password(name), "project": project, "roles": roles}
            for name, (project, roles) in USERS.items()
        },
    }
    (directory / "contents.json").write_text(json.dumps(contents))
    server = Keystone(
        f"http://127.0.0.1:{port}/v3",
        directory,
        [
            python,
            CHILDREN / "serve_keystone.py",
            directory / "keystone.conf",
            directory / "contents.json",
        ],
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()
