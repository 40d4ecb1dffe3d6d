"""Tests of calls that run concurrently: how many at a time, and what a failure does."""

import threading
from collections.abc import Callable

import pytest

from store_lib.driver import run_sequentially
from store_lib.transfer.workers import run_concurrently

Together = Callable[[list[Callable[[], object]], int], None]


@pytest.mark.parametrize("make", [run_concurrently, run_sequentially])
@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_every_call_is_made_once(make: Together, number: int) -> None:
    """All calls are made, however many there are."""
    made: list[int] = []
    make([lambda each=each: made.append(each) for each in range(number)], 3)  # type: ignore[misc]
    assert sorted(made) == list(range(number))


def test_as_many_at_once_as_asked() -> None:
    """So many run at the same time, and never more."""
    barrier, lock = threading.Barrier(3), threading.Lock()
    at_work: list[int] = [0, 0]

    def call() -> None:
        with lock:
            at_work[0] += 1
            at_work[1] = max(at_work)
        barrier.wait(60)
        with lock:
            at_work[0] -= 1
        barrier.wait(60)

    run_concurrently([call] * 6, 3)
    assert at_work == [0, 3]


@pytest.mark.parametrize("make", [run_concurrently, run_sequentially])
def test_after_a_failure_none_is_begun(make: Together) -> None:
    """The first failure is raised, once running calls have ended; threads end too."""
    made: list[str] = []

    def fail() -> None:
        raise LookupError("it")

    before = threading.active_count()
    with pytest.raises(LookupError, match="it"):
        make([lambda: made.append("first"), fail, *[lambda: made.append("later")] * 1000], 2)
    assert made[0] == "first"
    assert len(made) < 1000
    assert threading.active_count() == before


def test_the_failure_waits_for_what_is_at_work() -> None:
    """A call that runs while another one fails has ended when the failure is raised."""
    begun, done = threading.Event(), threading.Event()
    failed = threading.Event()

    def slow() -> None:
        begun.set()
        failed.wait(60)
        done.set()

    def fail() -> None:
        begun.wait(60)
        failed.set()
        raise LookupError

    with pytest.raises(LookupError):
        run_concurrently([slow, fail], 2)
    assert done.is_set()
