"""Runs the conformance kit on a store, as anybody would, and reads its verdict."""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from store_lib.testing.pace import slowness
from tests.deep import is_deep
from tests.servers.process import mortal


def configurations(first: Iterable[Any], others: Iterable[Any] = ()) -> list[Any]:
    """Return parameters (configuration, profile of the suite) for the configurations of a backend.

    The first ones go through the long profile in every run; the others through the short one, and
    through the long one too in ``make deep PARTS=kits``.
    """
    always, deep = pytest.mark.deep("kits", always=True), pytest.mark.deep("kits")
    others = list(others)
    return [
        *(pytest.param(each, "long", marks=always, id=f"{each}-long") for each in first),
        *(pytest.param(each, "short", id=f"{each}-short") for each in others),
        *(pytest.param(each, "long", marks=deep, id=f"{each}-long") for each in others),
    ]


def run_kit(
    directory: pathlib.Path, *arguments: str, profile: str = "long", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the suite in a process of its own, as anybody would.

    Its coverage is not measured: that takes half as long again, and says little of checks that
    other tests have in smaller pieces.
    """
    inherited = {name: each for name, each in os.environ.items() if "COVERAGE" not in name}
    command = [sys.executable, "-m", "pytest", "--pyargs", "store_lib.testing", "-q", "-W", "error"]
    # In more time a slow store gets through more kills and forks.
    seconds, whole = (1200, 7200) if is_deep("kits") else (120, 1800)
    options = [f"--store-check-timeout={seconds}", f"--store-profile={profile}"]
    return subprocess.run(
        mortal([*command, *options, *arguments]),
        cwd=directory,
        env={**inherited, "PYTEST_ADDOPTS": "-p no:cacheprovider", **environment},
        capture_output=True,
        text=True,
        timeout=whole * slowness(),
    )


def write_config(directory: pathlib.Path, driver: str, *lines: str) -> str:
    """Write a configuration of one store named ``it``, and return its path."""
    path = directory / "stores.conf"
    path.write_text("\n".join(["[DEFAULT]", f"enabled_backends = it:{driver}", "[it]", *lines, ""]))
    return str(path)


def write_inventory(directory: pathlib.Path, expression: str, *setup: str) -> str:
    """Write a file that tells all that is in a backend by other means than the driver's.

    :param expression: gives the names
    :param setup: lines that come before
    """
    path = directory / "inventory.py"
    lines = ["import glob", *setup, "def inventory():", f"    return {expression}", ""]
    path.write_text("\n".join(lines))
    return str(path)


def passed(result: subprocess.CompletedProcess[str]) -> int:
    """Return how many checks passed; all of those that were made must have."""
    assert result.returncode == 0, result.stdout + result.stderr
    found = re.search(r"^(\d+) passed(?:, \d+ deselected)? in", result.stdout, re.MULTILINE)
    assert found, result.stdout
    return int(found[1])
