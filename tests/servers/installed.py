"""Installs Debian packages and Python environments with pinned versions for the servers."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.servers.process import mortal

#: Directory of the environments that are kept between runs; ``make distclean`` removes it.
CACHE = Path(__file__).parents[2] / ".cache" / "servers"

PINS = Path(__file__).with_name("pins")


class NotInstalled(Exception):
    """A requirement is missing and cannot be installed; the text says how to do it."""


def debian_packages(wanted: Mapping[str, str], what: str) -> None:
    """Install Debian packages that are missing.

    :param wanted: package names by the name of a command, or the path of a file, that they contain
    :param what: what needs them, for the message
    :raises NotInstalled: they are missing, and this is not root on Debian
    """
    if not (missing := _missing(wanted)):
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(f"{what} needs packages that are missing: as root, run `{command}`")
    with locked("apt"):
        if not (missing := _missing(wanted)):
            return
        quiet = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=900"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = [*quiet, "install", "-y", "--no-install-recommends", *missing]
        with _no_services():
            done = _run(install, environment)
            if done.returncode:  # the package list is old or missing, or an installation was killed
                _run(["dpkg", "--configure", "-a"], environment)
                _run([*quiet, "update"], environment)
                done = _run(install, environment)
    if done.returncode:
        raise NotInstalled(f"{what}: `{command}` failed: {_last_lines(done.stdout)}")


def python_environment(name: str, python: str | None = None) -> Path:
    """Return a virtual environment with the packages of ``pins/<name>.txt``, made if needed.

    :param python: the base interpreter, by default that of this one
    :raises NotInstalled: the installation failed; the text is pip's output
    """
    requirements = PINS / f"{name}.txt"
    python = python or getattr(sys, "_base_executable", None) or sys.executable
    made_of = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    path = CACHE / f"{name}-{made_of}"
    stamp = path / "complete"
    with locked(name) as held:
        if stamp.exists():
            return path
        shutil.rmtree(path, ignore_errors=True)
        pip = [str(path / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        for command in (
            [python, "-m", "venv", str(path)],
            [*pip, "--disable-pip-version-check", "--no-deps", "-r", str(requirements)],
        ):
            done = _run(mortal(command), os.environ, held)
            if done.returncode:
                raise NotInstalled(
                    f"{name} could not be installed: {' '.join(command)} ended with status "
                    f"{done.returncode}: {_last_lines(done.stdout)}"
                )
        stamp.touch()
    return path


def _missing(wanted: Mapping[str, str]) -> list[str]:
    return [
        package
        for sign, package in wanted.items()
        if not (os.path.exists(sign) if "/" in sign else shutil.which(sign))
    ]


@contextlib.contextmanager
def locked(name: str) -> Iterator[int]:
    """Hold a lock, so that only one run at a time builds or installs something.

    Yields its descriptor.  A command that inherits the descriptor holds the lock too: so the next
    run waits for commands that a killed run has started.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield held.fileno()


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Prevent packages from starting services during the block."""
    policy, ours = Path("/usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n"
    # A file with our text is from a killed run.
    if policy.exists() and policy.read_text() != ours:
        yield
        return
    policy.write_text(ours)
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def _run(
    command: list[str], environment: Mapping[str, str], *held: int
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=dict(environment),
        pass_fds=held,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _last_lines(text: str, number: int = 5) -> str:
    return " / ".join(text.strip().splitlines()[-number:])
