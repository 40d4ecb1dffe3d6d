"""Time limits stretch on a machine that is slow or busy."""

import os

import pytest

from store_lib.testing import pace
from store_lib.testing.pace import Deadline, slowness


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of usual speed with two processors and nothing to do."""
    monkeypatch.setattr(pace, "_processor_slowness", lambda: 1.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.0, 0.0))


def test_a_quiet_machine_gets_the_limit_as_it_is() -> None:
    """No limit is shorter than it was set."""
    assert slowness() == 1.0
    assert 9 < Deadline(10).left <= 10


def test_a_busy_machine_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten processes for two processors stretch a limit five times, also one that runs already."""
    deadline = Deadline(10)
    monkeypatch.setattr(os, "getloadavg", lambda: (10.0, 0.0, 0.0))
    assert slowness() == 5.0
    assert 49 < deadline.left <= 50


def test_a_slow_processor_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured at the start counts, whatever the load."""
    monkeypatch.setattr(pace, "_processor_slowness", lambda: 3.0)
    assert slowness() == 3.0


def test_a_limit_that_is_over_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit passes once its stretched time has gone by, and not before."""
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "getloadavg", lambda: (4.0, 0.0, 0.0))
    deadline = Deadline(10)
    now[0] += 19
    assert not deadline.passed
    now[0] += 2
    assert deadline.passed


def test_the_speed_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that a run starts takes over what the run has measured."""
    monkeypatch.undo()
    monkeypatch.setenv("STORE_LIB_TESTING_SLOWNESS", "7.50")
    pace._processor_slowness.cache_clear()
    assert pace._processor_slowness() == 7.5
    monkeypatch.delenv("STORE_LIB_TESTING_SLOWNESS")
    pace._processor_slowness.cache_clear()
    assert pace._processor_slowness() >= 1
    assert float(os.environ["STORE_LIB_TESTING_SLOWNESS"]) >= 1
