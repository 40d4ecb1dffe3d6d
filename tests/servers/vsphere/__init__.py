"""A simulated vCenter: govmomi's simulator, built from Debian's packages."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trustme

from tests.servers.installed import CACHE, NotInstalled, debian_packages, locked
from tests.servers.process import ServerProcess, accepts, free_ports, mortal
from tests.servers.vsphere.wsdl import write_wsdl

_MIB = 1024 * 1024

#: Datastores by ``<datacenter path>:<name>``, and the bytes that each has free.
DATASTORES = {
    "/DC0:ds-a": 2048 * _MIB,
    "/DC0:ds-b": 3072 * _MIB,
    "/DC0:ds-small": 8 * _MIB,
    "/folder/DC1:ds-c": 4096 * _MIB,
}

_GOPATH = Path("/usr/share/gocode")
_PACKAGES = {
    "go": "golang-go",
    f"{_GOPATH}/src/github.com/vmware/govmomi/simulator": "golang-github-vmware-govmomi-dev",
}


@dataclasses.dataclass
class VSphere:
    """The running simulator."""

    process: ServerProcess
    #: ``host:port``, or the host alone on port 443.
    host: str
    user: str
    password: str
    #: File of the authority that signed the server's certificate.
    authorities: Path
    #: File of the WSDL, which the server serves too.
    wsdl: Path
    #: The directories with the datastores' files, by ``<datacenter path>:<name>``.
    directories: dict[str, Path]
    _control: str

    def options(self, *datastores: str, **further: Any) -> dict[str, Any]:
        """Return the options of a store on these datastores."""
        return {
            "vmware_server_host": self.host,
            "vmware_server_username": self.user,
            "vmware_server_password": self.password,
            "vmware_ca_file": str(self.authorities),
            "vmware_datastores": [each.lstrip("/") for each in datastores],
            **further,
        }

    def files(self, datastore: str = "/DC0:ds-a") -> list[str]:
        """Return the paths of all files on a datastore."""
        root = self.directories[datastore]
        return sorted(str(each.relative_to(root)) for each in root.rglob("*") if each.is_file())

    def plan(self, operation: str, *actions: str) -> None:
        """Make the next call of ``operation`` fail; see ``control.go``."""
        for action in actions:
            self._ask("plan", operation=operation, action=action)

    def reset(self) -> None:
        """Forget all plans, and the record of requests."""
        self._ask("reset")

    def free(self, datastore: str, size: int) -> None:
        """Set the capacity of a datastore in bytes."""
        self._ask("free", datastore=datastore, bytes=str(size))

    def logout(self) -> None:
        """End all sessions, as an administrator would."""
        self._ask("logout")

    def sessions(self) -> int:
        """Return how many sessions there are."""
        return int(self._ask("sessions"))

    def requests(self, *operations: str) -> list[dict[str, Any]]:
        """Return the recorded requests, all or those of some operations."""
        found: list[dict[str, Any]] = json.loads(self._ask("requests")) or []
        return [each for each in found if not operations or each["operation"] in operations]

    def _ask(self, what: str, **arguments: str) -> bytes:
        data = urllib.parse.urlencode(arguments).encode()
        with urllib.request.urlopen(f"{self._control}/{what}", data=data, timeout=60) as reply:
            answer: bytes = reply.read()
            return answer


@contextlib.contextmanager
def vsphere(
    directory: Path, *, address: str | None = None, tickets: bool = False
) -> Iterator[VSphere]:
    """Run the simulator on loopback, with its files below ``directory``.

    :param address: an address to listen on at port 443, for clients that cannot use another port;
        by default it listens on a free port of 127.0.0.1
    :param tickets: the data server accepts only service tickets, not sessions
    """
    program = _program()
    port, control = free_ports(2)
    listen = f"{address}:443" if address else f"127.0.0.1:{port}"
    names = {each: directory / each.replace("/", "_").replace(":", "-") for each in DATASTORES}
    inventory = directory / "inventory.json"
    inventory.write_text(json.dumps(list(_inventory(names))))
    wsdl = directory / "wsdl"
    wsdl.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    certificate = authority.issue_cert("localhost", "127.0.0.1", *([address] if address else []))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    start = write_wsdl(wsdl)
    user, password = "glance@vsphere.local", "s3cret & <simulated>"
    arguments = {
        "listen": listen,
        "control": f"127.0.0.1:{control}",
        "certificate": directory / "server.pem",
        "inventory": inventory,
        "wsdl": wsdl,
    }
    process = ServerProcess.start(
        "the vSphere simulator",
        [program, *(f"-{name}={value}" for name, value in arguments.items())]
        + (["-tickets"] if tickets else []),
        log=directory / "simulator.log",
        environment={"VSPHERE_USER": user, "VSPHERE_PASSWORD": password, "TMPDIR": str(directory)},
    )
    try:
        host, _, number = listen.rpartition(":")
        process.wait_for_port(int(number), host)
        process.wait_until(lambda: accepts("127.0.0.1", control))
        yield VSphere(
            process,
            address or listen,
            user,
            password,
            directory / "authority.pem",
            start,
            names,
            f"http://127.0.0.1:{control}",
        )
    finally:
        process.stop(kill=True)


def _inventory(names: dict[str, Path]) -> Iterator[dict[str, Any]]:
    for key, path in names.items():
        datacenter, _, name = key.partition(":")
        yield {
            "datacenter": datacenter,
            "name": name,
            "directory": str(path),
            "free": DATASTORES[key],
        }


def _program() -> Path:
    """Return the simulator's path; building it takes half a minute, once."""
    debian_packages(_PACKAGES, "the vSphere simulator")
    sources = sorted(Path(__file__).parent.glob("*.go"))
    made_of = hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()[:12]
    program = CACHE / f"vsphere-{made_of}"
    if program.exists():
        return program
    with locked("vsphere") as held:
        if not program.exists():
            building = CACHE / "vsphere.building"
            shutil.rmtree(building, ignore_errors=True)  # from a killed run
            building.mkdir()
            try:
                _build(sources, building, held)
                (building / "simulator").rename(program)
            finally:
                shutil.rmtree(building)
    return program


def _build(sources: Sequence[Path], directory: Path, held: int) -> None:
    """Build ``simulator`` in ``directory``, which also holds the compiler's cache."""
    environment = {
        "GOPATH": str(_GOPATH),
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPROXY": "off",
        "CGO_ENABLED": "0",
        "GOCACHE": str(directory / "cache"),
    }
    command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", directory / "simulator"]
    done = subprocess.run(
        mortal([*command, *sources]),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        pass_fds=[held],
    )
    if done.returncode:
        raise NotInstalled(f"The vSphere simulator could not be built: {done.stderr[-500:]}")
