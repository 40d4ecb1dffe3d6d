"""Waiting for a volume's state, on a clock that the test moves."""

from types import SimpleNamespace

import pytest

from store_lib.driver import once
from store_lib.drivers.cinder.client import Cinder
from store_lib.exceptions import TimeoutError
from tests.unit.clients.clocks import SleepingClock
from tests.unit.drivers.cinder.small_cinder import volume_of


@pytest.mark.parametrize("changing", [False, True])
def test_a_volumes_state_is_waited_for(changing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the operator says; one that is changing is not asked for at once."""
    clock = SleepingClock()
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
