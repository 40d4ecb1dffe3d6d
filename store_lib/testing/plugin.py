"""The thin pytest plugin around the checks: options, usage errors, and skips that are failures.

It is loaded into every run of pytest, and so imports nothing but pytest until it is used.
"""

import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from store_lib.testing.profile import Profile, Settings

_MIB = 1024 * 1024

#: What the kit cannot know by the store's own word.
UNSEEN = (
    "whether the store leaves anything in the backend that its listings do not tell; "
    "--store-inventory FILE gives the kit a look of its own"
)

_PROFILE = pytest.StashKey["Profile | None"]()
_PROBLEM = pytest.StashKey[str]()
_ITEM = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the conformance kit."""
    group = parser.getgroup(
        "store_lib", "conformance of a store (pytest --pyargs store_lib.testing)"
    )
    group.addoption(
        "--store-config",
        action="append",
        default=[],
        metavar="FILE",
        help="configuration file of the stores; may be given several times, later ones win",
    )
    group.addoption("--store", metavar="ID", help="id of the store to check")
    group.addoption(
        "--store-uri", metavar="URI", help="an object in a store that cannot be added to"
    )
    group.addoption("--store-file", metavar="FILE", help="a file of the same bytes as --store-uri")
    group.addoption(
        "--store-profile",
        choices=("long", "short"),
        default="long",
        help="short: make every check, but with fewer sizes, rounds and kills "
        "(default: %(default)s)",
    )
    group.addoption(
        "--store-inventory",
        metavar="FILE",
        help="Python file whose function inventory() returns the names of all that is in the "
        "backend; what appears there and no listing of the store tells is found only so",
    )
    group.addoption(
        "--store-big-size",
        type=int,
        default=256,
        metavar="MIB",
        help="size in MiB of the transfers whose memory is measured (default: %(default)s)",
    )
    group.addoption(
        "--store-check-timeout",
        type=float,
        default=120,
        metavar="SECONDS",
        help="time that one check may take (default: %(default)s)",
    )
    group.addoption(
        "--store-settle",
        type=float,
        default=60,
        metavar="SECONDS",
        help="time in which a killed process's hold must be gone (default: %(default)s)",
    )
    group.addoption(
        "--store-patience",
        type=float,
        default=10,
        metavar="SECONDS",
        help="time in which the backend must show what was added, and drop what was deleted "
        "(default: %(default)s)",
    )
    group.addoption(
        "--store-allow-fds",
        type=int,
        default=0,
        metavar="N",
        help="open descriptors that the driver may keep for good (default: %(default)s)",
    )
    group.addoption(
        "--store-allow-threads",
        type=int,
        default=0,
        metavar="N",
        help="threads that the driver may keep for good (default: %(default)s)",
    )
    group.addoption(
        "--store-context",
        metavar="FILE",
        help="Python file whose function context() makes the context that every call gets, for "
        "a store that acts for the user of a request",
    )
    group.addoption(
        "--store-no-skip",
        action="store_true",
        help="a skipped check is a failure, as it always is where CI=true",
    )


def profile_of(config: pytest.Config) -> "Profile | None":
    """Return the store under test, used once already, or ``None`` when it cannot be used.

    The reason of that becomes a usage error once collection is over.
    """
    if _PROFILE not in config.stash:
        config.stash[_PROFILE] = None
        try:
            config.stash[_PROFILE] = _make_profile(config)
        except Exception as error:
            from store_lib.testing.profile import SetupError

            if not isinstance(error, SetupError):
                raise
            config.stash[_PROBLEM] = f"Set-up failed, no check was made: {error}"
    return config.stash[_PROFILE]


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None


def _make_profile(config: pytest.Config) -> "Profile":
    from store_lib.testing.guard import Hung, time_limit
    from store_lib.testing.profile import Profile, SetupError

    configs, store_id = config.getoption("store_config"), config.getoption("store")
    if not configs or not store_id:
        raise SetupError(
            "the conformance checks of store_lib.testing need a store: give --store-config FILE "
            "and --store ID"
        )
    timeout = config.getoption("store_check_timeout")
    try:
        with time_limit(timeout, "The set-up"):
            profile = Profile(_settings(config))
            profile.prepare()
    except Hung as error:
        raise SetupError(str(error)) from error
    return profile


def _settings(config: pytest.Config) -> "Settings":
    from store_lib.testing.profile import Settings

    return Settings(
        configs=tuple(os.path.abspath(path) for path in config.getoption("store_config")),
        store_id=config.getoption("store"),
        known_uri=config.getoption("store_uri"),
        known_file=config.getoption("store_file"),
        big_size=config.getoption("store_big_size") * _MIB,
        check_timeout=config.getoption("store_check_timeout"),
        settle=config.getoption("store_settle"),
        patience=config.getoption("store_patience"),
        allow_fds=config.getoption("store_allow_fds"),
        allow_threads=config.getoption("store_allow_threads"),
        context=_absolute(config.getoption("store_context")),
        inventory=_absolute(config.getoption("store_inventory")),
        short=config.getoption("store_profile") == "short",
    )


def mark_check(item: pytest.Item) -> None:
    """Note that a test is a check of the kit, which must not be skipped in CI."""
    item.stash[_ITEM] = True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """End the run when the kit was collected but has no store to check."""
    # A worker of pytest-xdist cannot end the run; there the one test that was made fails.
    if _PROBLEM in config.stash and not hasattr(config, "workerinput"):
        raise pytest.UsageError(config.stash[_PROBLEM])


def problem_of(config: pytest.Config) -> str:
    """Return why there is no store to check."""
    return config.stash[_PROBLEM]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> "Generator[None, pytest.TestReport, pytest.TestReport]":
    """Turn a skipped check into a failure where skips are not expected."""
    report = yield
    if report.skipped and item.stash.get(_ITEM, False) and _no_skip(item.config):
        report.outcome = "failed"
        reason = _reason(report)
        report.longrepr = f"Expected no skipped check here (CI=true or --store-no-skip). {reason}"
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what a run of the kit could not look at."""
    reports = terminalreporter.stats.get("skipped", ())
    for reason in sorted({_reason(each) for each in reports if _of_kit(each)}):
        terminalreporter.write_line(f"NOT CHECKED: {reason}", yellow=True)
    ran = any(_of_kit(each) for each in terminalreporter.stats.get("passed", ()))
    if ran and not config.getoption("store_inventory") and not config.getoption("store_uri"):
        terminalreporter.write_line(f"NOT SEEN: {UNSEEN}", yellow=True)


def _of_kit(report: Any) -> bool:
    return "test_conformance.py::test_store[" in str(getattr(report, "nodeid", ""))


def _reason(report: Any) -> str:
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def pytest_unconfigure() -> None:
    """Let no thread of a check that hung keep the run from ending."""
    guard = sys.modules.get("store_lib.testing.guard")
    if guard is not None:
        guard.end_at_last()


def _no_skip(config: pytest.Config) -> bool:
    return bool(config.getoption("store_no_skip")) or os.environ.get("CI", "").lower() in (
        "1",
        "true",
    )
