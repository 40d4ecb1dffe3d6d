"""What the engine's tests share: no thread and no memory is left behind."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from store_lib.transfer.budget import PROCESS_BUDGET


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
