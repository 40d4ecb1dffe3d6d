"""Tests of what callers may hand in: anything odd ends in one error that says what was expected."""

import itertools
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from oslo_config import types

from store_lib import Store, Stores, retry_at_most
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    Invalid,
    InvalidRange,
    UnknownHashingAlgo,
)
from store_lib.options import NAMESPACE, SET_OPTIONS, STORE_OPTIONS
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


def _hurry(store: Store, seconds: Any) -> None:
    with retry_at_most(seconds):
        store.stat(URI)


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
        ["a,.r:*,b", "a\r\nX-Evil: b", "a b", "\udc80", 5, HUGE],
    ),
    ("tenants", lambda store, odd: store.set_acls(URI, write_tenants=odd), ["ab", b"ab", None, 5]),
    ("digest", lambda store, odd: store.add("id", b"x", expected={"md5": odd}), [HUGE, 5, "x"]),
    ("verifier", lambda store, odd: store.add("id", b"x", verifier=odd), [5, "x", HUGE]),
    ("progress", lambda store, odd: store.add("id", b"x", progress=odd), [5, "x", HUGE]),
    ("reader", lambda store, odd: store.add_copy(odd, "id"), [None, b"x", HUGE]),
    ("seconds", lambda store, odd: _hurry(store, odd), [None, "x", -1, -HUGE, float("nan")]),
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


@pytest.mark.parametrize("odd", [None, 5, HUGE, b"memory://mem/there", ["x"]], ids=range(5))
def test_what_is_no_uri_is_refused_for_every_driver(
    odd: Any, store: Store, driver: MemoryDriver
) -> None:
    """No driver is asked to parse what is no text."""
    for call in (store.get, store.stat, store.delete, store.set_acls, store.url):
        with pytest.raises(BadStoreUri, match="as a str"):
            call(odd)  # type: ignore[operator]
    assert driver.faults.calls == []


@pytest.mark.parametrize("odd", [HUGE, 5, None, "md5 "], ids=range(4))
def test_what_is_no_digest_is_refused(odd: Any, store: Store) -> None:
    """Whatever stands for the name of an algorithm is shown, if it can be."""
    for digests, expected in (([odd], None), ((), {odd: "00"})):
        with pytest.raises(UnknownHashingAlgo) as caught:
            store.add("id", b"x", digests=digests, expected=expected)
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize("values", [5, {"DEFAULT": 5}, {5: None}, [["DEFAULT", {}]]])
def test_what_is_no_configuration_is_refused(values: Any) -> None:
    """A mapping of mappings is meant."""
    with pytest.raises(BadStoreConfiguration, match="Expected the configuration"):
        Stores.from_mapping(values)


@pytest.mark.parametrize("odd", [5, HUGE, 1.5, [], object(), {"a": 5}], ids=range(6))
def test_what_is_no_list_of_stores_is_refused(odd: Any) -> None:
    """The option is named, or the store whose driver there is none of."""
    with pytest.raises(BadStoreConfiguration):
        Stores.from_mapping({"DEFAULT": {"enabled_backends": odd}}, strict=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transfer_stall_timeout", 10**13),
        ("transfer_stall_timeout", "9" * 5000),
        ("transfer_deadline", HUGE),
        ("transfer_retry_seconds", "nan"),
        ("transfer_retry_seconds", "inf"),
        ("transfer_head_timeout", 1e11),
        ("transfer_attempts", HUGE),
        ("filesystem_store_timeout", 10**11),
        ("filesystem_store_chunk_size", 10**12),
        ("filesystem_store_thread_pool_size", 10**6),
        ("filesystem_store_file_perm", HUGE),
        ("weight", HUGE),
        ("weight", "9" * 5000),
    ],
    ids=itertools.count(),
)
def test_odd_numbers_of_options(name: str, value: Any, tmp_path: Path) -> None:
    """One store is misconfigured, and says by which option."""
    values = {
        "DEFAULT": {"enabled_backends": {"odd": "file", "good": "file"}},
        "odd": {"filesystem_store_datadir": str(tmp_path), name: value},
        "good": {"filesystem_store_datadir": str(tmp_path / "good")},
    }
    with Stores.from_mapping(values) as stores:
        assert name in str(stores["odd"].error)
        assert stores["good"].error is None


def test_every_number_of_an_option_has_bounds() -> None:
    """Times fit the clocks of systems, and counts and sizes the memory there is."""
    free = {"weight", "filesystem_store_file_perm", "filesystem_store_dir_perm"}
    options = [*STORE_OPTIONS, *SET_OPTIONS]
    for point in entry_points(group=NAMESPACE):
        options += point.load().options
    numbers = {each.name: each.type for each in options if isinstance(each.type, types.Number)}
    assert len(numbers) > 30
    assert {name for name, kind in numbers.items() if kind.max is None} == free
    for name, kind in numbers.items():
        if name.endswith(("timeout", "_seconds", "_interval")) and name != "transfer_stall_timeout":
            assert kind.max <= 2**31 / 1000, name
