"""Glance's own tests, on store_lib: those that pass with glance_store 5.7.0 pass here too.

By default the functional tests that really store something, about three minutes.  With
``GLANCE_TESTS=all`` in the environment all of Glance's functional and unit tests, ten minutes.
"""

import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.servers.glance_environment import glance_environment, site_of
from tests.servers.installed import NotInstalled, python_environment

#: Modules of glance.tests.functional with tests that add, read, size or delete images, and how
#: many tests pass in each with glance_store 5.7.0.
STORING = {
    "image_cache.drivers.test_centralized_db": 21,
    "serial.test_scrubber": 8,
    "test_cache_middleware": 8,
    "test_staging_cleanup": 2,
    "v2.test_cache_api": 19,
    "v2.test_cache_api_policy": 11,
    "v2.test_discovery": 2,
    "v2.test_download_from_store": 8,
    "v2.test_image_decompression": 7,
    "v2.test_image_members": 2,
    "v2.test_images": 71,
    "v2.test_images_api_policy": 17,
    "v2.test_images_import_locking": 3,
    "v2.test_multi_store_images": 10,
    "v2.test_parallel_store_import": 15,
}

FUNCTIONAL = "glance/tests/functional"

#: Unit tests that fail with glance_store 5.7.0 too: they call what they do not have.
BROKEN = {
    "test_inject_os_glance",
    "test_inject_os_glance_with_wrong_values_reinjected",
}

ALL = os.environ.get("GLANCE_TESTS") == "all"

#: Seconds after which the run is given up.
LIMIT = 1500


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with Glance and, as glance_store, store_lib."""
    directory = tmp_path_factory.mktemp("environment")
    try:
        return glance_environment(directory / "environment", "distribution")
    except NotInstalled as error:
        pytest.skip(str(error))


@dataclasses.dataclass
class Result:
    """How many tests passed in each module, and which failed."""

    passed: Counter[str]
    failed: set[str]


@pytest.fixture
def directory(tmp_path):
    """A place to run them in: in memory if that can be, since SQLite is slow on a busy disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="store_lib-", dir=memory if os.access(memory, os.W_OK) else tmp_path
    ) as made:
        yield Path(made)


def run_tests(python: Path, directory: Path, paths: list[str]) -> Result:
    """Run tests of Glance.

    They wait some seconds for what runs in the background; so those that fail are run again, by
    themselves, and only those that fail twice have failed.
    """
    result = _run(python, directory / "all", paths, workers=2)
    if result.failed:
        again = _run(python, directory / "again", sorted(result.failed), workers=0)
        result = Result(result.passed + again.passed, again.failed)
    return result


def _run(python: Path, directory: Path, paths: list[str], workers: int) -> Result:
    # They look for files of their own in the current directory, and may write there.
    environment = python_environment("glance")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(site_of(environment) / "glance", directory / "glance", ignore=ignored)
    shutil.copytree(environment / "etc" / "glance", directory / "etc")
    (directory / "pytest.ini").write_text("[pytest]\n")
    variables = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    variables |= {
        # For tests on other databases; they skip unless it is there.
        "OS_TEST_DBAPI_ADMIN_CONNECTION": f"sqlite:///{directory}/none.db",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONWARNINGS": "ignore",
    }
    if FUNCTIONAL in paths[0]:  # a unit test has /tmp written into it
        variables["TMPDIR"] = str(directory)
    with open(directory / "output", "wb") as output:
        status = subprocess.run(
            [
                *(python, "-m", "pytest", "-q", "--tb=short"),
                *("-c", directory / "pytest.ini", "--rootdir", directory),
                *("-p", "offline", "-p", "no:cacheprovider", "-p", "no:store_lib"),
                *("-n", str(workers), "--dist", "loadfile"),
                f"--junitxml={directory}/result.xml",
                *paths,
            ],
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=LIMIT,
        ).returncode
    said = (directory / "output").read_text(errors="replace")
    assert status in (0, 1), said[-3000:]
    if status:
        print(said[-20_000:])
    result = Result(Counter(), set())
    for case in ElementTree.parse(directory / "result.xml").iter("testcase"):
        module, _, cls = case.get("classname", "").rpartition(".")
        if case.find("failure") is not None or case.find("error") is not None:
            name = f"{module.replace('.', '/')}.py::{cls}::{case.get('name')}"
            result.failed.add(name)
        elif case.find("skipped") is None:
            result.passed[module.removeprefix("glance.tests.functional.")] += 1
    return result


def storing(python, directory):
    """Exactly those of Glance's functional tests pass that pass with glance_store 5.7.0."""
    paths = [f"{FUNCTIONAL}/{module.replace('.', '/')}.py" for module in STORING]
    result = run_tests(python, directory, paths)
    assert result.failed == set()
    assert dict(result.passed) == STORING


def all_functional(python, directory):
    """All of Glance's functional tests pass that pass with glance_store 5.7.0."""
    result = run_tests(python, directory, [FUNCTIONAL])
    assert result.failed == set()
    assert result.passed.total() == 557


def all_unit(python, directory):
    """All of Glance's unit tests pass that pass with glance_store 5.7.0."""
    result = run_tests(python, directory, ["glance/tests/unit"])
    assert {name.rpartition(":")[2] for name in result.failed} == BROKEN
    assert result.passed.total() == 2422


@pytest.mark.parametrize("look", [all_functional, all_unit] if ALL else [storing])
def test_glances_own_tests_pass(look, python, directory):
    """The tests of Glance that pass with glance_store 5.7.0 pass with this, none fewer."""
    look(python, directory)
