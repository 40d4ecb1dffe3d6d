"""A driver of another package goes through the conformance suite, and its faults are found."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

_SOURCE = pathlib.Path(__file__).parents[1] / "toy_driver"

#: Drivers with one fault each, the check that must find it, and what the check must say.
FAULTS = {
    "early": ("check_killed_adds_leave_all_or_nothing", "expected all or nothing"),
    "littering": ("check_a_wrong_size_stores_nothing", "nothing left behind, got: incomplete"),
    "overwriting": ("check_a_second_add_never_alters_the_first", "expected Duplicate, got no"),
    "racing": (
        "check_racing_processes_keep_the_claimed_guarantee",
        "adds that were told success: expected 1, got",
    ),
    "newlocation": ("check_racing_processes_keep_the_claimed_guarantee", "got {'Duplicate'}"),
    "shortening": ("check_every_declared_size_comes_back", "expected stat to tell"),
    "leaking": ("check_dropped_readers_release_everything", "open descriptors, got"),
    "hoarding": ("check_memory_stays_under_the_limit", "1 gets at once: expected at most"),
    "forgiving": ("check_delete_is_final", "expected NotFound, got no error"),
    "mangling": ("check_ids_come_back_exactly_or_are_refused_at_once", "already exists"),
    "talkative": ("check_secrets_show_nowhere", "user:<SECRET>"),
    "ranging": ("check_ranges_give_the_right_bytes", "Expected"),
    "boasting": ("check_space_is_told", "expected no more free than there is"),
    "hanging": ("check_delete_is_final", "expected an end within"),
    "spinning": ("check_close_is_idempotent_and_final", "threads, got"),
    "listing": ("check_list_tells_every_complete_object_once", "once in the listing"),
    "sweeping": ("check_sweeps_leave_live_and_young_uploads_alone", "expected it to spare"),
    "forkshy": ("check_stores_work_after_a_fork", "belongs to another process"),
    "forgetful": ("check_every_unknown_size_comes_back", "expected stat to tell"),
}

#: Runs each faulty driver through the check that must find it, without pytest.
_JUDGE = """
import json, sys
from store_lib.testing import Profile, Settings, all_checks, run_check

checks = {check.name: check for check in all_checks()}
for config, name in json.load(sys.stdin):
    limit = 2 if "hanging" in config else 60
    found = None
    try:
        profile = Profile(Settings((config,), "it", check_timeout=limit))
        assert checks[name].applies(profile), "the check is not made for this driver"
        run_check(checks[name], profile)
    except BaseException as error:
        found = " ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the toy package is installed, entry points and all."""
    copy = tmp_path_factory.mktemp("source") / "toy_driver"
    shutil.copytree(_SOURCE, copy)
    target = tmp_path_factory.mktemp("installed")
    built_here = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *built_here]
    subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(target), str(copy)],
        check=True,
        timeout=300,
    )
    return {**os.environ, "PYTHONPATH": str(target), "PYTEST_ADDOPTS": "-p no:cacheprovider"}


def _configure(directory: pathlib.Path, driver: str) -> str:
    root = directory / driver
    root.mkdir()
    path = directory / f"{driver}.conf"
    path.write_text(f"[DEFAULT]\nenabled_backends = it:{driver}\n[it]\ntoy_root = {root}\n")
    return str(path)


def test_the_toy_driver_conforms(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """A driver under 100 lines, found by its entry point alone, passes the whole suite."""
    lines = [line for line in (_SOURCE / "toy_store.py").read_text().splitlines() if line.strip()]
    assert len(lines) < 100
    config = _configure(tmp_path, "toy")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--pyargs", "store_lib.testing", "-q"),
            *("--store-config", config, "--store", "it", "--store-no-skip"),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^\d+ passed in", result.stdout, re.MULTILINE), result.stdout


@pytest.fixture(scope="module")
def verdicts(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str | None]:
    """What the suite says of each faulty driver."""
    directory = tmp_path_factory.mktemp("faults")
    cases = [
        (_configure(directory, f"broken_{fault}"), check) for fault, (check, _) in FAULTS.items()
    ]
    result = subprocess.run(
        [sys.executable, "-c", _JUDGE],
        input=json.dumps(cases),
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return dict(zip(FAULTS, map(json.loads, result.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_finds_a_fault(fault: str, verdicts: dict[str, str | None]) -> None:
    """A driver that breaks the contract in one way fails the check of just that."""
    said = verdicts[fault]
    assert said is not None, "the fault was not found"
    assert FAULTS[fault][1] in said
