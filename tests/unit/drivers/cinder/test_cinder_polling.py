"""Waiting, on a clock that the tests move."""

from types import SimpleNamespace
from typing import Any

import pytest

from store_lib.driver import once
from store_lib.drivers.cinder.client import Cinder
from store_lib.drivers.cinder.polling import poll
from store_lib.exceptions import TimeoutError
from tests.unit.drivers.cinder.small_cinder import volume_of


class _Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds
        self.pauses.append(seconds)


def test_pauses_grow_up_to_a_limit() -> None:
    """The first call is made at once, and what it returns ends the waiting."""
    clock = _Clock()
    results: Any = iter([None] * 5 + ["it"])
    assert poll(lambda: next(results), 100, pause=1.0, longest=3.0, clock=clock) == "it"
    assert clock.pauses == [1.0, 1.5, 2.25, 3.0, 3.0]
    assert poll(lambda: "now", 0, clock=clock) == "now"
    assert len(clock.pauses) == 5


def test_waiting_ends_with_its_time() -> None:
    """The last pause is cut to what is left, and one more call is made after it."""
    clock = _Clock()
    calls: list[float] = []
    assert poll(lambda: calls.append(clock.now), 2, delay=0.5, pause=1.0, clock=clock) is None
    assert calls == [0.5, 1.5, 2.5]
    assert clock.pauses == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("changing", [False, True])
def test_a_volumes_state_is_waited_for(changing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the operator says; one that is changing is not asked for at once."""
    clock = _Clock()
    cinder = Cinder(
        SimpleNamespace(), None, "http://127.0.0.1", timeout=300, retry=once, clock=clock
    )
    states = ["creating"] * 9 + ["available"]
    monkeypatch.setattr(cinder, "get", lambda _: volume_of(status=states.pop(0)))
    assert cinder.wait_until_stable("it", changing=changing).status == "available"
    assert clock.pauses[: 1 + changing] == [0.1] * (1 + changing)
    states = ["extending"] * 1000
    clock.now = 0.0
    with pytest.raises(TimeoutError, match="still in state 'extending' after 300 s"):
        cinder.wait_until_stable("it")
    assert clock.now == 300
