"""Virtual environments with Glance and one of the two libraries."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tests.servers.installed import NotInstalled, debian_packages, python_environment

ROOT = Path(__file__).parents[2]

#: What Glance imports as ``glance_store``: the original; store_lib, installed by the WSGI script;
#: or store_lib's distribution of that name.
Library = Literal["glance_store", "script", "distribution"]

#: The directory of store_lib's distribution named ``glance_store``.
DISTRIBUTION = ROOT / "glance_store_dist"


def glance_environment(
    directory: Path, library: Library, interpreter: str | Path = sys.executable
) -> Path:
    """Make a virtual environment with Glance and a library of stores; return its interpreter.

    Glance, uWSGI and gunicorn are in an environment that is kept between runs, and that this one
    refers to.  Only the library under test is installed here.

    :param interpreter: the base interpreter, of the same version as this one
    :raises NotInstalled: a package is not available
    """
    debian_packages({"gcc": "gcc"}, "uWSGI")
    layers = [python_environment("glance")]
    if library != "distribution":
        layers.insert(0, python_environment("glance_store"))
    subprocess.run([interpreter, "-m", "venv", "--without-pip", directory], check=True)
    python = directory / "bin" / "python"
    lines = [f"import site; site.addsitedir({os.fspath(site_of(each))!r})\n" for each in layers]
    (site_of(directory) / "layers.pth").write_text("".join(lines))
    if library != "glance_store":
        sources = [ROOT] if library == "script" else [ROOT, DISTRIBUTION]
        install(python, [wheel(source, directory / "wheels") for source in sources])
    return python


def site_of(environment: Path) -> Path:
    """Return an environment's ``site-packages``."""
    return environment.joinpath(
        "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages"
    )


def wheel(source: Path, target: Path) -> Path:
    """Build a distribution of a copy of its sources, without the network."""
    target.mkdir(exist_ok=True)
    copy = target / f"source-of-{source.name}"
    ignored = shutil.ignore_patterns(
        ".*", "build", "dist", "doc", "tests", "benchmarks", "*.egg-info", "__pycache__"
    )
    shutil.copytree(source, copy, ignore=ignored)
    before = set(target.glob("*.whl"))
    command: list[str | Path] = [
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        target,
        copy,
    ]
    pip(Path(sys.executable), command)
    shutil.rmtree(copy)
    (made,) = set(target.glob("*.whl")) - before
    return made


def install(python: Path, wheels: Sequence[Path]) -> None:
    """Install wheels in an environment, without dependencies."""
    pip(python, ["install", "--no-deps", "--no-index", *wheels])


def pip(python: Path, arguments: Sequence[str | Path]) -> str:
    """Run pip on an environment, which need not contain it, and return its output.

    :raises NotInstalled: pip failed
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [*command, "--python", python, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={name: value for name, value in os.environ.items() if name[:6] != "PYTHON"},
        text=True,
    )
    if done.returncode:
        said = " / ".join(done.stdout.strip().splitlines()[-5:])
        raise NotInstalled(f"pip {arguments[0]} ended with status {done.returncode}: {said}")
    return done.stdout
