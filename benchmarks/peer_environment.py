"""Installs glance_store in a separate virtual environment, which is kept for later runs."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("peer-requirements.txt")


class PeerNotInstalled(Exception):
    """glance_store could not be installed."""


def interpreter(directory: Path, say: Callable[[str], None]) -> str:
    """Return an interpreter with glance_store, installing it if needed.

    :param directory: the virtual environment, which is recreated if the requirements or this
        Python have changed
    :param say: called with a message before long operations
    :raises PeerNotInstalled: the installation failed; the text is pip's output
    """
    python = directory / "bin" / "python"
    stamp = directory / "requirements.sha256"
    made_of = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == made_of:
        return str(python)
    say(f"installing glance_store in {directory}")
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    # The peer gets the same Python as ours, even if that is in a virtual environment itself.
    base = getattr(sys, "_base_executable", None) or sys.executable
    _run([base, "-m", "venv", str(directory)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", "--requirement", str(REQUIREMENTS)])
    stamp.write_text(made_of)
    return str(python)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise PeerNotInstalled(
            f"glance_store could not be installed: {' '.join(command)} ended with status "
            f"{done.returncode}. Give an interpreter that has it (--peer-python) or leave it "
            f"out (--without-peer).\n{tail}"
        )
