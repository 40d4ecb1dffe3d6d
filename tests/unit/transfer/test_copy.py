"""Tests of copies that a writer makes in the backend itself: repeats, lost replies, clean-up."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from store_lib.driver import HangPolicy
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    TimeoutError,
)
from store_lib.location import Location
from store_lib.transfer import timeouts
from store_lib.transfer.budget import PROCESS_BUDGET
from store_lib.transfer.retry import Retry
from store_lib.transfer.timeouts import HangGuard, Limits, TransferClock, checkpoint
from store_lib.transfer.upload import UploadResult, UploadSpec, copy
from tests.unit.memory_driver import (
    MemoryDriver,
    MemoryLocation,
    MemoryParts,
    MemoryPositions,
    memory_store,
)

OLD = MemoryLocation("mem", "old")
NEW = MemoryLocation("mem", "new")
SOON = 0.05


@pytest.fixture(params=[MemoryPositions, MemoryParts])
def driver(request: pytest.FixtureRequest) -> MemoryDriver:
    """A driver with one object."""
    driver = memory_store()[1]
    driver.writer_class = request.param
    driver.checkpoint = checkpoint
    driver.publish("old", b"old", "nonce")
    return driver


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a hanging call waits for; set at the end."""
    monkeypatch.setattr(timeouts, "GRACE", SOON)
    event = threading.Event()
    yield event
    event.set()
    _wait_for_guards()


def _wait_for_guards() -> None:
    for thread in threading.enumerate():
        if thread.name == "store_lib-guard":
            thread.join(60)


def run(driver: MemoryDriver, *, timeout: float = 0, stall: float = 0) -> UploadResult:
    """Copy the object, as a store does."""
    clock = TransferClock(Limits(stall=stall))
    guard = HangGuard(HangPolicy(timeout, 9, 100))

    def withdraw(location: Location, error: BaseException) -> None:
        driver.delete(location, context=None)

    spec = UploadSpec(
        clock=clock,
        retry=Retry(20, 3).for_operation("copy", OLD, clock),
        guard=guard,
        budget=PROCESS_BUDGET,
        withdraw=withdraw,
    )
    create = functools.partial(driver.create, "new", None, nonce="mine", context=None)
    return copy(create, OLD, functools.partial(driver.stat, context=None), spec)


def test_a_copy_is_made(driver: MemoryDriver) -> None:
    """The result has the location, the size and one part."""
    result = run(driver)
    assert driver.objects["new"] == (b"old", "mine")
    assert result.location.uri == NEW.uri
    assert (result.size, result.digests) == (3, {})
    assert (result.report.bytes, result.report.parts, result.report.retries) == (3, 1, 0)
    assert driver.aborted == []


def test_each_repeat_has_a_writer_of_its_own(driver: MemoryDriver) -> None:
    """After a temporary error the writer is aborted before the next one is created."""
    driver.faults.times("copy", 2, RemoteServiceUnavailable)
    assert run(driver).report.retries == 2
    assert driver.objects["new"] == (b"old", "mine")
    once = ["create", "copy", "resolve", "abort"]
    assert driver.faults.calls[:9] == [*once, *once, "create"]


def test_creating_is_repeated(driver: MemoryDriver) -> None:
    """A writer that cannot be had for now is asked for again."""
    driver.faults.times("create", 2, RemoteServiceUnavailable)
    assert run(driver).size == 3
    assert driver.aborted == []


def test_repeats_end(driver: MemoryDriver) -> None:
    """After the allowed attempts the error comes out as exhausted, and every writer is aborted."""
    driver.faults.times("copy", 99, RemoteServiceUnavailable)
    with pytest.raises(RemoteServiceUnavailable) as caught:
        run(driver)
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert driver.aborted == ["new"] * 3


@pytest.mark.parametrize("error", [RemoteServiceUnavailable, Duplicate])
def test_a_lost_reply(driver: MemoryDriver, error: Callable[[], BaseException]) -> None:
    """A copy that was stored although its request failed is not repeated."""
    driver.faults.times("copied", 1, error)
    assert run(driver).location.uri == NEW.uri
    assert len(driver.writers) == 1
    assert driver.aborted == []


def test_a_lost_reply_that_cannot_be_resolved(driver: MemoryDriver) -> None:
    """If it stays open whether the copy was stored, the error says so."""
    driver.faults.times("copied", 1, Duplicate)
    driver.faults.times("resolve", 1, lambda: BackendException("cannot look"))
    with pytest.raises(Duplicate) as caught:
        run(driver)
    assert any("cannot look" in note for note in caught.value.__notes__)
    assert driver.aborted == ["new"]


def test_an_object_of_another(driver: MemoryDriver) -> None:
    """An id that is taken meanwhile is Duplicate, and the other's object stays."""
    driver.faults.hooks["copy"] = lambda _: driver.objects.setdefault("new", (b"winner", "other"))
    with pytest.raises(Duplicate):
        run(driver)
    assert driver.objects["new"] == (b"winner", "other")
    assert driver.aborted == ["new"]


@pytest.mark.parametrize("error", [NotFound, StorageFull, KeyboardInterrupt])
def test_other_errors_end_it(driver: MemoryDriver, error: type[BaseException]) -> None:
    """What no repeat can help against comes out at once; the writer is aborted once."""
    driver.faults.times("copy", 1, error)
    with pytest.raises(error):
        run(driver)
    assert driver.aborted == ["new"]
    assert "new" not in driver.objects


def test_the_error_of_abort_is_a_note(driver: MemoryDriver) -> None:
    """What the clean-up raises is added to the first error and does not hide it."""
    driver.faults.times("copy", 1, StorageFull)
    driver.faults.times("abort", 1, lambda: BackendException("cannot clean"))
    with pytest.raises(StorageFull) as caught:
        run(driver)
    assert any("cannot clean" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("hook", ["copied", "stat"])
def test_a_copy_that_raises_after_publishing_is_withdrawn(driver: MemoryDriver, hook: str) -> None:
    """An interrupt after the object was published, or while it is looked at, removes it."""
    driver.faults.times(hook, 1, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(driver)
    assert list(driver.objects) == ["old"]
    assert driver.aborted == []


def test_a_copy_whose_size_cannot_be_told_is_withdrawn(driver: MemoryDriver) -> None:
    """Looking is repeated; when it fails for good, nothing is left."""
    driver.faults.times("stat", 2, RemoteServiceUnavailable)
    assert run(driver).size == 3
    del driver.objects["new"]
    driver.faults.times("stat", 1, lambda: BackendException("no"))
    with pytest.raises(BackendException, match="no"):
        run(driver)
    assert list(driver.objects) == ["old"]


@pytest.mark.parametrize("hook", ["copied", "stat"])
def test_the_time_of_a_copy_is_no_stall(driver: MemoryDriver, hook: str) -> None:
    """A copy may take longer than a transfer may stall; what follows is repeated all the same."""
    driver.faults.hooks["copy"] = lambda _: threading.Event().wait(0.2)
    driver.faults.times(hook, 1, RemoteServiceUnavailable)
    assert run(driver, stall=0.5).size == 3


def test_a_writer_that_comes_too_late_is_aborted(
    driver: MemoryDriver, hang: threading.Event
) -> None:
    """Where creating it hung, it copies nothing."""
    driver.faults.hooks["create"] = lambda *_: hang.wait(60)
    with pytest.raises(TimeoutError):
        run(driver, timeout=SOON)
    hang.set()
    _wait_for_guards()
    assert driver.aborted == ["new"]
    assert "copy" not in driver.faults.calls
