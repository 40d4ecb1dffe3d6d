"""Tests of finding drivers: one that is not there, one that lacks a package, one that is none."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from store_lib import Stores
store = Stores.from_mapping({"DEFAULT": {"enabled_backends": "s:thirdparty"}})["s"]
print(type(store.error).__name__, store.error)
"""


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("import package_that_is_not_there", "as the package that brings it says"),
        ("Driver = 5", "no subclass of store_lib.driver.Driver"),
        (None, "no installed package has this entry point in store_lib.drivers; known are: cinder"),
    ],
)
def test_a_driver_that_cannot_be_loaded(tmp_path: Path, module: str | None, said: str) -> None:
    """The store is listed with a reason that says what is missing and what to install."""
    if module is not None:
        (tmp_path / "thirdparty.py").write_text(module)
        info = tmp_path / "thirdparty-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[store_lib.drivers]\nthirdparty = thirdparty:Driver\n"
        )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "DriverLoadFailure" in done.stdout
    assert said in done.stdout
