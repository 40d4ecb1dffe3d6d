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

from store_lib.testing.pace import slowness

_SOURCE = pathlib.Path(__file__).parents[1] / "toy_driver"

#: Drivers with one fault each, the check that must find it, and what the check must say.
FAULTS = {
    "early": ("check_killed_adds_leave_all_or_nothing", "expected all or nothing"),
    "littering": ("check_a_wrong_size_stores_nothing", "nothing left behind, got: incomplete"),
    "hiding": ("check_a_wrong_size_stores_nothing", "not in any listing of the store"),
    "overwriting": ("check_a_second_add_never_alters_the_first", "expected Duplicate, got no"),
    "racing": (
        "check_racing_processes_keep_the_claimed_guarantee",
        "successful adds: expected 1, got",
    ),
    "newlocation": ("check_racing_processes_keep_the_claimed_guarantee", "got {'Duplicate'}"),
    "shortening": ("check_every_declared_size_comes_back", "expected stat to return"),
    "leaking": ("check_dropped_readers_release_everything", "open descriptors, got"),
    "hoarding": ("check_memory_stays_under_the_limit", "1 gets at once: expected at most"),
    "forgiving": ("check_delete_is_final", "expected NotFound, got no error"),
    "mangling": ("check_ids_come_back_exactly_or_are_refused_at_once", "already exists"),
    "talkative": ("check_secrets_do_not_leak", "user:<SECRET>"),
    "ranging": ("check_ranges_give_the_right_bytes", "Expected"),
    "boasting": ("check_space_is_plausible", "expected no more free space than in total"),
    "hanging": ("check_delete_is_final", "expected an end within"),
    "spinning": ("check_close_is_idempotent_and_final", "threads, got"),
    "listing": ("check_list_has_every_complete_object_once", "once in the listing"),
    "sweeping": ("check_sweeps_leave_live_and_young_uploads_alone", "expected it to spare"),
    "forkshy": ("check_stores_work_after_a_fork", "belongs to another process"),
    "forgetful": ("check_every_unknown_size_comes_back", "expected stat to return"),
}

#: Runs each faulty driver through the check that must find it, without pytest.
_JUDGE = """
import json, sys
from store_lib.testing import Profile, Settings, all_checks, run_check

checks = {check.name: check for check in all_checks()}
for config, inventory, name in json.load(sys.stdin):
    limit = 2 if "hanging" in config else 60
    found = None
    try:
        settings = Settings(
            (config,), "it", check_timeout=limit, inventory=inventory, patience=1, short=True
        )
        profile = Profile(settings)
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


def _look_into(config: str) -> str:
    """Write a file that tells all that lies in the store of a configuration."""
    path = pathlib.Path(config).with_suffix(".py")
    root = path.with_suffix("")
    path.write_text(f"import os\ndef inventory():\n    return os.listdir({str(root)!r})\n")
    return str(path)


def _run_kit(
    environment: dict[str, str], config: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--pyargs", "store_lib.testing", "-q"),
            *("--store-config", config, "--store", "it", "--store-patience=1", *arguments),
        ],
        cwd=pathlib.Path(config).parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600 * slowness(),
    )


def test_the_toy_driver_conforms(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """A driver under 100 lines, found by its entry point alone, passes the whole suite."""
    lines = [line for line in (_SOURCE / "toy_store.py").read_text().splitlines() if line.strip()]
    assert len(lines) < 100
    config = _configure(tmp_path, "toy")
    result = _run_kit(environment, config, "--store-no-skip")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^\d+ passed in", result.stdout, re.MULTILINE), result.stdout


def test_what_a_server_withholds_is_told_once(
    environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """A server without a listing that its driver claims costs one check, which says so."""
    config = _configure(tmp_path, "broken_withholding")
    chosen = "--store-profile=short", "-k", "list or claims or wrong_size or incomplete"
    environment = {**environment, "CI": ""}  # there the skip is a failure without the option too
    result = _run_kit(environment, config, *chosen)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^3 passed, 1 skipped, \d+ deselected in", result.stdout, re.MULTILINE)
    told = "NOT CHECKED: this server cannot list incomplete uploads; sweep cannot work (got Backend"
    assert result.stdout.count(told) == 1
    result = _run_kit(environment, config, "--store-no-skip", *chosen)
    assert re.search(r"^1 failed, 3 passed, ", result.stdout, re.MULTILINE)


def test_the_kit_says_what_it_cannot_see(
    environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """Leftovers that a driver hides are found with a look of the kit's own; else it says so."""
    config = _configure(tmp_path, "broken_hiding")
    chosen = "--store-profile=short", "-k", "wrong_size"
    unseen = "NOT SEEN: whether the store leaves anything in the backend"
    result = _run_kit(environment, config, *chosen)
    assert result.returncode == 0, result.stdout
    assert unseen in result.stdout
    result = _run_kit(environment, config, *chosen, "--store-inventory", _look_into(config))
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
    assert "(--store-inventory) but not in any listing of the store" in result.stdout
    assert unseen not in result.stdout


@pytest.mark.parametrize(
    ("driver", "arguments", "reason"),
    [
        ("broken_exploding", [], "object raised TypeError: a mistake in the driver"),
        ("toy", ["--store-big-size=64"], "Expected --store-big-size above 64 MiB"),
        ("toy", ["--store-inventory", "nowhere.py"], "nowhere.py"),
    ],
    ids=["error", "big size", "inventory"],
)
def test_a_set_up_that_fails_is_no_failed_check(
    environment: dict[str, str],
    tmp_path: pathlib.Path,
    driver: str,
    arguments: list[str],
    reason: str,
) -> None:
    """A failed set-up is reported once, as a failed set-up, and ends the run."""
    config = _configure(tmp_path, driver)
    result = _run_kit(environment, config, *arguments)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR, result.stdout
    assert "Set-up failed, no check was made: " in result.stderr
    assert reason in result.stderr


def test_its_short_profile_makes_every_check(
    environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """The short profile makes every check that the long one makes."""
    config = _configure(tmp_path, "toy")
    counts = set()
    for profile in ("short", "long"):
        result = _run_kit(environment, config, f"--store-profile={profile}", "--collect-only")
        counts.add(re.search(r"^(\d+) tests collected", result.stdout, re.MULTILINE)[1])
    assert len(counts) == 1


@pytest.fixture(scope="module")
def verdicts(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str | None]:
    """What the suite says of each faulty driver."""
    directory = tmp_path_factory.mktemp("faults")
    cases = []
    for fault, (check, _) in FAULTS.items():
        config = _configure(directory, f"broken_{fault}")
        cases.append((config, _look_into(config), check))
    result = subprocess.run(
        [sys.executable, "-c", _JUDGE],
        input=json.dumps(cases),
        env=environment,
        capture_output=True,
        text=True,
        timeout=600 * slowness(),
    )
    assert result.returncode == 0, result.stderr
    return dict(zip(FAULTS, map(json.loads, result.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_finds_a_fault(fault: str, verdicts: dict[str, str | None]) -> None:
    """A driver that breaks the contract in one way fails the check of just that."""
    said = verdicts[fault]
    assert said is not None, "the fault was not found"
    assert FAULTS[fault][1] in said
