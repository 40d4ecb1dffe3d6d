"""The pytest plugin of the checks: options, usage errors, and skips that count as failures.

It is loaded into every run of pytest, so it imports only pytest until it is used.
"""

import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from store_lib.testing.profile import Profile, Settings

_MIB = 1024 * 1024

#: What the suite cannot check through the store itself.
UNSEEN = (
    "whether the store leaves anything in the backend that its listings do not show; "
    "--store-inventory FILE lets the suite look for itself"
)

_PROFILE = pytest.StashKey["Profile | None"]()
_PROBLEM = pytest.StashKey[str]()
_ITEM = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the conformance suite."""
    group = parser.getgroup(
        "store_lib", "conformance suite for stores (pytest --pyargs store_lib.testing)"
    )
    group.addoption(
        "--store-config",
        action="append",
        default=[],
        metavar="FILE",
        help="configuration file of the stores; may be given several times, later files take "
        "precedence",
    )
    group.addoption("--store", metavar="ID", help="id of the store to check")
    group.addoption("--store-uri", metavar="URI", help="URI of an object in a read-only store")
    group.addoption("--store-file", metavar="FILE", help="file with the same bytes as --store-uri")
    group.addoption(
        "--store-profile",
        choices=("long", "short"),
        default="long",
        help="short makes every check too, with fewer sizes, rounds and kills "
        "(default: %(default)s)",
    )
    group.addoption(
        "--store-inventory",
        metavar="FILE",
        help="Python file whose function inventory() returns the names of everything in the "
        "backend; finds leftovers that the listings of the store do not show",
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
        help="time limit of a check (default: %(default)s)",
    )
    group.addoption(
        "--store-settle",
        type=float,
        default=60,
        metavar="SECONDS",
        help="time limit for the backend to release what a killed process held "
        "(default: %(default)s)",
    )
    group.addoption(
        "--store-patience",
        type=float,
        default=10,
        metavar="SECONDS",
        help="time limit for added objects to appear and deleted ones to disappear "
        "(default: %(default)s)",
    )
    group.addoption(
        "--store-allow-fds",
        type=int,
        default=0,
        metavar="N",
        help="open descriptors that the driver may keep (default: %(default)s)",
    )
    group.addoption(
        "--store-allow-threads",
        type=int,
        default=0,
        metavar="N",
        help="threads that the driver may keep (default: %(default)s)",
    )
    group.addoption(
        "--store-context",
        metavar="FILE",
        help="Python file whose function context() returns the request context for each call, for "
        "a store that acts on behalf of a user",
    )
    group.addoption(
        "--store-no-skip",
        action="store_true",
        help="a skipped check fails, as it always does if CI=true",
    )


def profile_of(config: pytest.Config) -> "Profile | None":
    """Return the prepared store under test, ``None`` if it cannot be used.

    In that case a usage error with the reason follows after the collection.
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
    from store_lib.testing.guard import CheckHung, time_limit
    from store_lib.testing.profile import Profile, SetupError

    configs, store_id = config.getoption("store_config"), config.getoption("store")
    if not configs or not store_id:
        raise SetupError(
            "the conformance suite of store_lib.testing needs a store: give --store-config FILE "
            "and --store ID"
        )
    timeout = config.getoption("store_check_timeout")
    try:
        with time_limit(timeout, "The set-up"):
            profile = Profile(_settings(config))
            profile.prepare()
    except CheckHung as error:
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
    """Mark a test as a check of the suite, which must not be skipped in CI."""
    item.stash[_ITEM] = True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """End the run if the suite was collected without a store to check."""
    # A worker of pytest-xdist cannot end the run; its only test fails instead.
    if _PROBLEM in config.stash and not hasattr(config, "workerinput"):
        raise pytest.UsageError(config.stash[_PROBLEM])


def problem_of(config: pytest.Config) -> str:
    """Return the reason why there is no store to check."""
    return config.stash[_PROBLEM]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> "Generator[None, pytest.TestReport, pytest.TestReport]":
    """Turn a skipped check into a failure where skips are not allowed."""
    report = yield
    if report.skipped and item.stash.get(_ITEM, False) and _no_skip(item.config):
        report.outcome = "failed"
        reason = _reason(report)
        report.longrepr = f"Expected no skipped check here (CI=true or --store-no-skip): {reason}"
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Report what the run could not check."""
    reports = terminalreporter.stats.get("skipped", ())
    for reason in sorted({_reason(report) for report in reports if _is_check(report)}):
        terminalreporter.write_line(f"NOT CHECKED: {reason}", yellow=True)
    ran = any(_is_check(report) for report in terminalreporter.stats.get("passed", ()))
    if ran and not config.getoption("store_inventory") and not config.getoption("store_uri"):
        terminalreporter.write_line(f"NOT SEEN: {UNSEEN}", yellow=True)


def _is_check(report: Any) -> bool:
    return "test_conformance.py::test_store[" in str(getattr(report, "nodeid", ""))


def _reason(report: Any) -> str:
    reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def pytest_unconfigure() -> None:
    """Exit even if a check has hung and left threads behind."""
    guard = sys.modules.get("store_lib.testing.guard")
    if guard is not None:
        guard.exit_if_hung()


def _no_skip(config: pytest.Config) -> bool:
    return bool(config.getoption("store_no_skip")) or os.environ.get("CI", "").lower() in (
        "1",
        "true",
    )
