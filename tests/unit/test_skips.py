"""What tests/conftest.py does with tests that are not run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

TESTS = """
import pytest

@pytest.mark.skip(reason="the moon is not full; wait for it")
def test_one(): pass

def test_two(): pytest.skip("the moon is not full; wait for it")

def test_three(): pytest.skip("cannot run anywhere here: no file system of 1900")

@pytest.mark.xfail(strict=True, reason="known")
def test_four(): assert False

def test_five(): pass
"""


@pytest.fixture
def outcome(tmp_path):
    """A function that runs the tests above and returns the exit status and what was printed."""
    (tmp_path / "conftest.py").write_bytes(CONFTEST.read_bytes())
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(TESTS)

    def outcome(ci, extra=""):
        if extra:
            (tmp_path / "test_extra.py").write_text(extra)
        environ = {**os.environ, "CI": ci, "PYTHONPATH": str(CONFTEST.parents[1])}
        environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take most of the time
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        return ended.returncode, ended.stdout

    return outcome


def test_what_was_not_run_is_said(outcome):
    """Away from CI each reason is one line, with the number of tests, and nothing fails."""
    status, printed = outcome("")
    assert status == 0
    assert re.findall("^NOT RUN.*$", printed, re.MULTILINE) == [
        "NOT RUN (1 test): cannot run anywhere here: no file system of 1900",
        "NOT RUN (2 tests): the moon is not full; wait for it",
    ]


def test_in_ci_it_is_a_failure(outcome):
    """With CI=true a skip fails, but for what cannot run there; an expected failure is no skip."""
    status, printed = outcome("true")
    assert status == 1
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in printed
    assert "Not run, which is a failure where CI=true: the moon is not full" in printed


def test_in_ci_a_module_that_skips_itself_is_a_failure(outcome):
    """With CI=true a module that cannot be imported is a failure too, and no skip."""
    module = 'import pytest\npytest.importorskip("no_such_module")\ndef test_it(): pass\n'
    assert outcome("", module)[0] == 0
    status, printed = outcome("true", module)
    assert status != 0
    assert "Not run, which is a failure where CI=true" in printed
