"""Tests of calls that hang: each is given up in time, and does nothing more when it comes back."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store_lib.driver import Entry, HangPolicy, Incomplete
from store_lib.exceptions import (
    BadStoreConfiguration,
    DeadlineExceeded,
    RemoteServiceUnavailable,
    TimeoutError,
    TransferStalled,
)
from store_lib.options import StoreOptions
from store_lib.store import Store
from store_lib.stores import _configure
from store_lib.transfer import timeouts
from store_lib.transfer.retry import Retry
from store_lib.transfer.timeouts import HangGuard, checkpoint
from tests.unit.memory_driver import CHUNK, MemoryDriver, MemoryLocation, MemoryParts

SOON = 0.05


class WholeDriver(MemoryDriver):
    """A memory driver that lists, sweeps and copies too."""

    copies = True

    def list(self, *, context: Any) -> Iterator[Entry]:
        self.faults("list")
        for name in sorted(self.objects):
            self.faults("entry", name)
            yield Entry(name, MemoryLocation(self.store_id, name))

    def list_incomplete(self, *, context: Any) -> Iterator[Incomplete]:
        self.faults("list_incomplete")
        yield Incomplete("key", "it", 1, 0.0)

    def discard(self, incomplete: Incomplete, *, context: Any) -> bool:
        self.faults("discard")
        return True


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What a hanging call waits for; set at the end."""
    monkeypatch.setattr(timeouts, "GRACE", SOON)
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def driver() -> WholeDriver:
    """A driver with one object, whose calls are given up after a moment."""
    made = WholeDriver("mem", StoreOptions.of(()))
    made.hang_policy = HangPolicy(SOON)
    made.checkpoint = checkpoint
    made.publish("old", b"old", "nonce")
    return made


def store_of(driver: WholeDriver, **options: Any) -> Store:
    return Store("mem", "memory", driver, StoreOptions.of((), **options))


OLD = "memory://mem/old"
CALLS: list[tuple[str, Callable[[Store], object]]] = [
    ("list", lambda store: list(store.list())),
    ("entry", lambda store: list(store.list())),
    ("list_incomplete", lambda store: list(store.list_incomplete())),
    ("list_incomplete", lambda store: store.sweep(0)),
    ("discard", lambda store: store.sweep(0)),
    ("copy", lambda store: store.copy(OLD, "new")),
    ("copied", lambda store: store.copy(OLD, "new")),
    ("stat", lambda store: store.copy(OLD, "new")),
    ("commit", lambda store: store.add("new", b"x")),
    ("commit", lambda store: store.add("new", bytes(9 * CHUNK))),
    ("resolve", lambda store: store.add("new", b"x")),
    ("reserve", lambda store: store.add("new", b"x")),
    ("abort", lambda store: store.add("new", b"x", 2)),
]


@pytest.mark.parametrize(("hook", "call"), CALLS)
def test_every_call_is_given_up(
    hook: str, call: Callable[[Store], object], driver: WholeDriver, hang: threading.Event
) -> None:
    """Whatever hangs, the caller gets an error after the driver's time, not the stall limit's."""
    driver.writer_settings["reserved"] = 0
    driver.faults.hooks[hook] = lambda *_: hang.wait(60)
    if hook == "resolve":

        def lost(*_: object) -> None:
            raise RemoteServiceUnavailable("the answer was lost")

        driver.faults.hooks["commit"] = lost
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of several kinds, told apart below
        call(store_of(driver, transfer_stall_timeout=60, transfer_attempts=2))
    notes = "".join(getattr(caught.value, "__notes__", ()))
    assert isinstance(caught.value, TimeoutError) or "timed out after" in notes


def test_a_dead_mount_does_not_stop_the_others(driver: WholeDriver, hang: threading.Event) -> None:
    """A driver whose configuring hangs is misconfigured, with a reason that says where to look."""
    driver.configure = lambda: hang.wait(60)  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(BadStoreConfiguration, match=r"did not answer within 0\.05 s. Check the"):
        _configure(driver, "memory")


def test_a_commit_that_comes_back_is_taken_back(driver: WholeDriver, hang: threading.Event) -> None:
    """What an add that was given up publishes later is removed, and the id is free again."""
    store = store_of(driver)
    gone = threading.Event()
    aborted: list[str] = []

    def abort(*_: object) -> None:
        aborted.append("abort")
        if driver.objects.pop("new", None):
            gone.set()

    driver.faults.hooks.update(commit=lambda *_: hang.wait(60), abort=abort)
    with pytest.raises(TimeoutError):
        store.add("new", b"x")
    assert aborted == ["abort"]
    hang.set()
    assert gone.wait(60)
    driver.faults.hooks.clear()
    store.add("new", b"y")


def test_a_copy_that_comes_back_ends_before_its_next_step(
    driver: WholeDriver, hang: threading.Event
) -> None:
    """A copy that was given up publishes nothing when it comes back to life."""
    driver.faults.hooks["copy"] = lambda piece: hang.wait(60) if piece == 2 else None
    with pytest.raises(TimeoutError):
        store_of(driver).copy(OLD, "new")
    hang.set()
    _wait_for_guards()
    assert "copied" not in driver.faults.calls
    assert sorted(driver.objects) == ["old"]


def test_a_copy_that_published_too_late_is_taken_back(
    driver: WholeDriver, hang: threading.Event
) -> None:
    """Where its last step hung, what the copy made is removed."""
    driver.faults.hooks["copied"] = lambda *_: hang.wait(60)
    with pytest.raises(TimeoutError):
        store_of(driver).copy(OLD, "new")
    hang.set()
    _wait_for_guards()
    assert driver.aborted == ["new"] * 2
    assert sorted(driver.objects) == ["old"]


def test_what_a_copy_made_is_removed_by_its_writer(
    driver: WholeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it ends as it is given up, nothing is deleted by name, which may be another's."""

    def ends_as_it_is_given_up(function: Any, *, on_late_result: Any = None, **_: Any) -> Any:
        result = function()
        if on_late_result is not None and "copied" in driver.faults.calls:
            on_late_result(result)
            driver.objects["new"] = (b"another's", "other")
            raise TimeoutError
        return result

    store = store_of(driver)
    monkeypatch.setattr(store._guard, "call", ends_as_it_is_given_up)
    with pytest.raises(TimeoutError):
        store.copy(OLD, "new")
    assert driver.objects["new"] == (b"another's", "other")
    assert "delete" not in driver.faults.calls


def test_a_copy_may_take_long_while_it_moves(driver: WholeDriver) -> None:
    """Each step of a copy has the whole time, up to the transfer's deadline."""
    driver.hang_policy = HangPolicy(0.4)
    driver.faults.hooks["copy"] = lambda *_: threading.Event().wait(0.15)
    assert store_of(driver).copy(OLD, "new").size == 3
    driver.hang_policy = HangPolicy(60)
    driver.faults.hooks["copy"] = lambda *_: threading.Event().wait(0.4)
    with pytest.raises(DeadlineExceeded):
        store_of(driver, transfer_deadline=1).copy(OLD, "newer")


@pytest.mark.parametrize("hook", ["put_part", "write_once"])
def test_a_request_that_comes_back_is_cleaned_up_after(
    hook: str, driver: WholeDriver, hang: threading.Event
) -> None:
    """What a part or a whole upload makes when it was given up long ago is removed."""
    driver.hang_policy = HangPolicy(0)
    driver.writer_class = MemoryParts
    parts = hook == "put_part"
    driver.writer_settings = {"chunk_size": CHUNK, "once_limit": 0 if parts else None}
    driver.faults.hooks[hook] = lambda *_: hang.wait(60)
    with pytest.raises(TransferStalled):
        store_of(driver, transfer_stall_timeout=1).add("new", iter([bytes(CHUNK)] * 20))
    assert driver.faults.calls.count("abort") == 1
    hang.set()
    for thread in threading.enumerate():
        if thread.name.startswith("store_lib-store"):
            thread.join(60)
    assert driver.faults.calls.count("abort") >= 2


def _wait_for_guards() -> None:
    for thread in threading.enumerate():
        if thread.name == "store_lib-guard":
            thread.join(60)


def test_a_repeat_of_a_call_that_was_given_up_is_not_made(hang: threading.Event) -> None:
    """A call that comes back with a temporary error is not made again."""
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        hang.wait(60)
        raise RemoteServiceUnavailable

    with pytest.raises(TimeoutError):
        HangGuard(HangPolicy(SOON, 9, 100)).call(lambda: Retry(20).call(call))
    hang.set()
    _wait_for_guards()
    assert calls == [1]


@pytest.mark.parametrize("timeout", [0, 60])
def test_a_listing_in_steps(timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guarded listing gives everything in order, what came before an error too."""
    monkeypatch.setattr(timeouts, "BATCH", 7)

    def numbers() -> Iterator[int]:
        yield from range(20)
        raise KeyError("broken")

    guard = HangGuard(HangPolicy(timeout, 1, 100))
    assert list(itertools.islice(guard.iterate(iter(range(100))), 30)) == list(range(30))
    assert list(guard.iterate(iter(range(14)))) == list(range(14))
    broken = guard.iterate(numbers())
    assert list(itertools.islice(broken, 20)) == list(range(20))
    with pytest.raises(KeyError, match="broken"):
        next(broken)


def test_a_listing_that_hangs_counts_as_one_hanging_call(hang: threading.Event) -> None:
    """A step of a listing that hangs is given up, and bounds what may hang beside it."""

    def numbers() -> Iterator[int]:
        yield 1
        hang.wait(60)

    guard = HangGuard(HangPolicy(SOON, 1, 100))
    with pytest.raises(TimeoutError, match=r"0\.05s"):
        list(guard.iterate(numbers()))
    with pytest.raises(TimeoutError, match="hang already"):
        guard.call(lambda: None)


def test_an_interrupt_gives_the_result_back(
    hang: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the caller is interrupted while it waits, what the call returns is released."""
    released = threading.Event()

    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    guard = HangGuard(HangPolicy(60, 1, 100))
    monkeypatch.setattr(guard, "_left", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guard.call(lambda: hang.wait(60), on_late_result=lambda _: released.set())
    assert not released.is_set()
    hang.set()
    assert released.wait(60)


def test_limits_of_any_size(driver: WholeDriver) -> None:
    """A time limit that no clock can hold is no limit."""
    driver.hang_policy = HangPolicy(10**11)
    store = store_of(driver, transfer_stall_timeout=10**11, transfer_deadline=10**11)
    with store.get(store.add("new", bytes(9 * CHUNK)).uri) as reader:
        assert len(reader.read()) == 9 * CHUNK
