"""Says in one line for each thing what was not tested and why; in CI that is a failure.

A test that needs what is not there skips with a reason that says what was not run and how to get
it.  Where the environment has ``CI=true`` such a skip fails, so that nothing is left out without
anybody noticing.  A reason that begins with :data:`CANNOT` is let through: nothing that could be
installed would make that test run on such a machine.
"""

import os
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests import deep

#: How the reason of a skip begins that is right even in CI.
CANNOT = "cannot run anywhere here:"


def pytest_addoption(parser: pytest.Parser) -> None:
    deep.add_option(parser)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    deep.choose(config, items)


def pytest_configure(config: pytest.Config) -> None:
    deep.chosen_parts(config)  # an unknown part ends the run at once
    config.stash[_STRICT] = os.environ.get("CI", "").lower() == "true"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report, collector.config)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    left_out = Counter(_reason(report) for report in _skipped(terminalreporter))
    for reason, number in sorted(left_out.items()):
        tests = "1 test" if number == 1 else f"{number} tests"
        terminalreporter.write_line(f"NOT RUN ({tests}): {reason}", yellow=True)
    if deep.chosen_parts(terminalreporter.config):
        for line in deep.counted(terminalreporter.stats.get("passed", ())):
            terminalreporter.write_line(line)


_STRICT = pytest.StashKey[bool]()


def _judge(report: Any, config: pytest.Config) -> None:
    """Turn a skip into a failure where nothing may be skipped; an expected failure is no skip."""
    if not report.skipped or hasattr(report, "wasxfail") or not config.stash[_STRICT]:
        return
    reason = _reason(report)
    if not reason.startswith(CANNOT):
        report.outcome = "failed"
        report.longrepr = f"Not run, which is a failure where CI=true: {reason}"


def _skipped(terminalreporter: Any) -> Iterator[Any]:
    for report in terminalreporter.stats.get("skipped", ()):
        if not hasattr(report, "wasxfail"):
            yield report


def _reason(report: Any) -> str:
    where = report.longrepr
    text = where[2] if isinstance(where, tuple) else str(where)
    return text.removeprefix("Skipped: ")
