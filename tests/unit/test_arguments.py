"""Tests of what callers may hand in: anything odd ends in one error that says what was expected."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from store_lib import Store
from store_lib.exceptions import Invalid, InvalidRange
from tests.unit.memory_driver import MemoryDriver, memory_store

URI = "memory://mem/there"
HUGE = 10**5000


@pytest.fixture
def driver() -> MemoryDriver:
    """A driver with one object."""
    return memory_store()[1]


@pytest.fixture
def store(driver: MemoryDriver) -> Store:
    """Its store."""
    driver.publish("there", b"three bytes", "nonce")
    return Store("mem", "memory", driver, driver.conf)


CALLS: list[tuple[str, Callable[[Store, Any], object], list[Any]]] = [
    ("size", lambda store, odd: store.add("id", b"x", odd), [-1, HUGE, 2**63, 1.5, "1", True]),
    ("offset", lambda store, odd: store.get(URI, odd), [-1, HUGE, -HUGE, 2**63, 1.5, "1", True]),
    ("length", lambda store, odd: store.get(URI, 0, odd), [-1, -HUGE, 1.5, "1", True]),
    ("older_than", lambda store, odd: store.sweep(odd), [-1, -HUGE, "x", None, True, float("nan")]),
    ("expires", lambda store, odd: store.url(URI, expires=odd), [0, -1, HUGE, "x", 1.5]),
    ("digests", lambda store, odd: store.add("id", b"x", expected=odd), [["md5"], "md5", 5]),
    (
        "tenant",
        lambda store, odd: store.set_acls(URI, read_tenants=[odd]),
        ["a,.r:*,b", "a\r\nX-Evil: b", "a b", "\udc80", 5],
    ),
]


@pytest.mark.parametrize(
    ("name", "call", "odd"),
    [(name, call, odd) for name, call, all_ in CALLS for odd in all_],
    ids=itertools.count(),  # an int may be too long to be shown
)
def test_an_odd_argument_is_refused(
    name: str, call: Callable[[Store, Any], object], odd: Any, store: Store, driver: MemoryDriver
) -> None:
    """Each odd argument is Invalid, by name, in a short text, before the driver is asked."""
    with pytest.raises(Invalid, match=name) as caught:
        call(store, odd)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()
    assert driver.faults.calls == []


def test_a_length_beyond_the_object_is_clipped(store: Store) -> None:
    """Any length, however large, reads to the end; an offset beyond the end is refused."""
    for length in (11, 2**63, HUGE):
        with store.get(URI, 0, length) as reader:
            assert reader.read() == b"three bytes"
    with pytest.raises(InvalidRange):
        store.get(URI, 12)
