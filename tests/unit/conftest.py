"""What all unit tests share: no test waits for the pauses between repeats."""

import pytest

from store_lib.transfer import retry
from tests.clock import SkippingClock


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SkippingClock:
    """The clock of all repeats, which skips the pauses."""
    skipping = SkippingClock()
    monkeypatch.setattr(retry, "CLOCK", skipping)
    return skipping
