"""Waiting for the end of a task, on a clock that the tests move."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib.drivers.vmware.tasks import DatastoreFiles, TaskTimeouts
from store_lib.exceptions import NotFound, RemoteServiceUnavailable, StoreError, TimeoutError
from tests.unit.clients.clocks import SleepingClock

_RUNNING = SimpleNamespace(state="running")
_LOST = RemoteServiceUnavailable("lost")


def _wait(clock: SleepingClock, states: Iterator[Any]) -> Any:
    def call(doing: str, _: object) -> Any:
        state = next(states)
        if isinstance(state, StoreError):
            raise state
        return state

    session: Any = SimpleNamespace(call=call, task_error=lambda fault, _: NotFound(fault))
    unused: Any = None
    timeouts = TaskTimeouts(interval=0.05, timeout=1.0, failures=2)
    return DatastoreFiles(session, unused, "it", timeouts, clock)._wait("moving it", unused)


def test_a_task_is_polled_until_it_ends() -> None:
    """The intervals double up to the longest, and failures count only in a row."""
    clock = SleepingClock()
    done = SimpleNamespace(state="success", result="it")
    states = iter([_RUNNING, _LOST, _LOST, _RUNNING, _LOST, done])
    assert _wait(clock, states) == "it"
    assert clock.pauses == [0.01, 0.02, 0.04, 0.05, 0.05]


@pytest.mark.parametrize(
    ("states", "error"),
    [
        ([_LOST] * 3, RemoteServiceUnavailable),
        ([_RUNNING, StoreError("refused")], StoreError),
        ([_RUNNING, SimpleNamespace(state="error", fault="gone")], NotFound),
    ],
)
def test_a_failure_ends_the_polling(states: list[Any], error: type[StoreError]) -> None:
    """A task's own fault does, a refused poll, and one failed poll too many."""
    waiting = iter(states)
    with pytest.raises(StoreError) as caught:
        _wait(SleepingClock(), waiting)
    assert type(caught.value) is error
    assert next(waiting, None) is None


def test_a_task_has_its_time() -> None:
    """One that has not ended by then is a TimeoutError, and the last poll is made at the limit."""
    clock = SleepingClock()
    with pytest.raises(TimeoutError, match="vmware_task_timeout"):
        _wait(clock, iter([_RUNNING] * 99))
    assert clock.now == pytest.approx(1)
