"""Runs the conformance kit on a store, as anybody would, and reads its verdict."""

import os
import pathlib
import re
import subprocess
import sys

from tests.servers.process import mortal


def run_kit(
    directory: pathlib.Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the suite in a process of its own, as anybody would.

    Its coverage is not measured: that takes half as long again, and says little of checks that
    other tests have in smaller pieces.
    """
    inherited = {name: each for name, each in os.environ.items() if "COVERAGE" not in name}
    command = [sys.executable, "-m", "pytest", "--pyargs", "store_lib.testing", "-q", "-W", "error"]
    return subprocess.run(
        # Several runs share the processors.
        mortal([*command, "--store-check-timeout=300", *arguments]),
        cwd=directory,
        env={**inherited, "PYTEST_ADDOPTS": "-p no:cacheprovider", **environment},
        capture_output=True,
        text=True,
        timeout=1800,
    )


def write_config(directory: pathlib.Path, driver: str, *lines: str) -> str:
    """Write a configuration of one store named ``it``, and return its path."""
    path = directory / "stores.conf"
    path.write_text("\n".join(["[DEFAULT]", f"enabled_backends = it:{driver}", "[it]", *lines, ""]))
    return str(path)


def passed(result: subprocess.CompletedProcess[str]) -> int:
    """Return how many checks passed; all of those that were made must have."""
    assert result.returncode == 0, result.stdout + result.stderr
    found = re.search(r"^(\d+) passed(?:, \d+ deselected)? in", result.stdout, re.MULTILINE)
    assert found, result.stdout
    return int(found[1])
