"""What the engine's tests share: no pauses between repeats, and no thread left behind."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from store_lib.transfer import download, limits
from store_lib.transfer.budget import PROCESS_BUDGET


@pytest.fixture(autouse=True)
def quick_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between repeats."""
    for module in (limits, download):
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
        monkeypatch.setattr(module, "LONGEST_PAUSE", 0.002)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Hold every test to leaving no thread and no reserved memory behind."""
    before = set(threading.enumerate())
    yield
    if PROCESS_BUDGET.used or set(threading.enumerate()) - before:
        gc.collect()
    end = time.monotonic() + 10
    while left := [each for each in threading.enumerate() if each not in before]:
        assert time.monotonic() < end, f"threads left behind: {left}"
        time.sleep(0.005)
    assert PROCESS_BUDGET.used == 0
