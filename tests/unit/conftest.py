"""What all unit tests share: no test waits for the pauses between repeats."""

import pytest

from store_lib.transfer import timeouts
from tests.clock import SkippingClock


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SkippingClock:
    """The clock of all limits and repeats, which skips the pauses."""
    skipping = SkippingClock()
    monkeypatch.setattr(timeouts, "CLOCK", skipping)
    return skipping
