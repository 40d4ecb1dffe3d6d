"""A small Swift for each test, and a store on it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.transfer.budget import PROCESS_BUDGET, Budget
from tests.unit.drivers.swift.small_swift import SmallSwift


@pytest.fixture
def small() -> Iterator[SmallSwift]:
    """A Swift in memory, with faults to order."""
    with SmallSwift() as running:
        yield running


@pytest.fixture
def open_store() -> Iterator[Callable[..., Store]]:
    """Make stores with the given options, and a budget of their own; closed at the end."""
    opened: list[Stores] = []

    def make(budget: Budget = PROCESS_BUDGET, **options: Any) -> Store:
        options.setdefault("transfer_attempts", 3)
        stores = Stores.from_mapping(
            {"DEFAULT": {"enabled_backends": "it:swift"}, "it": options},
            strict=True,
            budget=budget,
        )
        opened.append(stores)
        return stores["it"]

    yield make
    for stores in opened:
        stores.close()


@pytest.fixture
def store(small: SmallSwift, open_store: Callable[..., Store]) -> Store:
    """A store on the small Swift: segments of 1,024,000 bytes, two at once."""
    return open_store(**small.options())
