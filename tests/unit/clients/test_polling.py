"""Polling, on a clock that the tests move."""

from typing import Any

from store_lib.clients.polling import poll
from tests.unit.clients.clocks import SleepingClock


def test_pauses_grow_up_to_a_limit() -> None:
    """The first call is made at once, and what it returns ends the waiting."""
    clock = SleepingClock()
    results: Any = iter([None] * 5 + ["it"])
    assert poll(lambda: next(results), 100, interval=1.0, longest=3.0, clock=clock) == "it"
    assert clock.pauses == [1.0, 1.5, 2.25, 3.0, 3.0]
    assert poll(lambda: "now", 0, clock=clock) == "now"
    assert len(clock.pauses) == 5


def test_waiting_ends_with_its_time() -> None:
    """The last pause is cut to what is left, and one more call is made after it."""
    clock = SleepingClock()
    calls: list[float] = []
    assert poll(lambda: calls.append(clock.now), 2, delay=0.5, interval=1.0, clock=clock) is None
    assert calls == [0.5, 1.5, 2.5]
    assert clock.pauses == [0.5, 1.0, 1.0]
