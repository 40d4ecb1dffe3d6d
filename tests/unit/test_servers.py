"""What starts and stops the servers of the tests: processes, ports, what they need."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import installed
from tests.servers.installed import NotInstalled
from tests.servers.process import ServerFailed, ServerProcess, accepts, free_ports

LISTEN = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    server.accept()
"""


def start(tmp_path: Path, script: str, *arguments: str) -> ServerProcess:
    command = [sys.executable, "-c", script, *arguments]
    return ServerProcess.start("toy", command, log=tmp_path / "toy.log")


def test_a_server_is_waited_for_and_stopped(tmp_path: Path) -> None:
    """A server that listens is ready, and after stop nobody listens; stopping twice is harmless."""
    (port,) = free_ports(1)
    server = start(tmp_path, LISTEN, str(port))
    server.wait_for_port(port)
    assert "listening" in server.tail()
    server.stop()
    server.stop()
    assert not accepts("127.0.0.1", port)


@pytest.mark.parametrize("kill", [False, True])
def test_a_stopped_server_can_be_ended(tmp_path: Path, kill: bool) -> None:
    """A server that a test froze with SIGSTOP ends all the same."""
    (port,) = free_ports(1)
    server = start(tmp_path, LISTEN, str(port))
    server.wait_for_port(port)
    server.signal(signal.SIGSTOP)
    server.stop(kill=kill)
    assert server.process.returncode is not None


def test_what_a_server_started_ends_with_it(tmp_path: Path) -> None:
    """A worker that a server left behind in its session is ended, too."""
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    server = start(tmp_path, script)
    server.wait_until(server.tail)
    worker = int(server.tail())
    server.stop(kill=True)

    def gone() -> bool:
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    waited = start(tmp_path, LISTEN, str(free_ports(1)[0]))
    waited.wait_until(gone, "end", limit=10)
    waited.stop()


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    """A server that ends while it is waited for fails with the end of its output."""
    server = start(tmp_path, "import sys; sys.exit('no such option')")
    with pytest.raises(ServerFailed, match="toy ended with status 1:\nno such option"):
        server.wait_until(lambda: False)
    server.stop()


def test_a_server_that_never_answers_says_so(tmp_path: Path) -> None:
    """Waiting has an end."""
    server = start(tmp_path, "import time; time.sleep(600)")
    with pytest.raises(ServerFailed, match="did not answer within"):
        server.wait_until(lambda: False, limit=0.01)
    server.stop()


def test_ports_are_free_and_different() -> None:
    """As many ports as asked for, none of them in use."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not any(accepts("127.0.0.1", port) for port in ports)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root a missing package is told with the command that installs it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    installed.debian_packages({"sh": "dash"}, "the toy")
    with pytest.raises(NotInstalled, match=r"the toy needs .*apt-get install .*no-such-package"):
        installed.debian_packages(
            {"sh": "dash", str(tmp_path / "sign"): "no-such-package"}, "the toy"
        )


def test_an_environment_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requirement that cannot be had is told with what pip said; nothing half-made counts."""
    monkeypatch.setattr(installed, "PINS", tmp_path)
    monkeypatch.setattr(installed, "CACHE", tmp_path / "cache")
    (tmp_path / "toy.txt").write_text(f"{tmp_path}/no-such-wheel-1.0-py3-none-any.whl\n")
    # Stands in for "python -m venv PATH", which takes seconds.
    python = tmp_path / "python"
    lines = ["#!/bin/sh", 'mkdir -p "$3/bin"', 'ln -s "$0" "$3/bin/python"']
    run_this = f'[ "$2" = venv ] || exec {sys.executable} "$@"'
    python.write_text("\n".join([lines[0], run_this, *lines[1:], ""]))
    python.chmod(0o755)
    with pytest.raises(NotInstalled, match=r"toy could not be installed: .*no-such-wheel"):
        installed.python_environment("toy", str(python))
    assert list((tmp_path / "cache").glob("*/complete")) == []


#: A compiler that stands still, with its cache half written, until there is a file ``go-on``.
_GO = """\
#!/bin/sh
mkdir "$GOCACHE" || exit 1
if [ ! -e {directory}/go-on ]; then
  echo > {directory}/standing
  exec sleep 600
fi
while [ "$1" != -o ]; do shift; done
echo simulator > "$2"
"""

_BUILD = """
import pathlib, sys
from tests.servers import installed, vsphere
installed.CACHE = vsphere.CACHE = pathlib.Path(sys.argv[1], "cache")
vsphere.debian_packages = lambda *packages: None
print(vsphere._program())
"""


def test_a_killed_build_stops_no_later_one(tmp_path: Path) -> None:
    """After kill -9 in the middle of a build the next run builds, and nothing else is left."""
    (tmp_path / "go").write_text(_GO.format(directory=tmp_path))
    (tmp_path / "go").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", _BUILD, str(tmp_path)]
    killed = ServerProcess.start("build", command, log=tmp_path / "log", environment=environment)
    killed.wait_until((tmp_path / "standing").exists)
    killed.process.kill()
    killed.process.wait()
    (tmp_path / "go-on").touch()
    built = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    program = Path(built.stdout.strip())
    assert program.read_text() == "simulator\n"
    assert sorted(program.parent.iterdir()) == sorted([program, program.parent / "vsphere.lock"])
