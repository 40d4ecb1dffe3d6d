"""Tests of time limits, and of calls that hang."""

import io
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from store_lib.driver import HangPolicy
from store_lib.exceptions import (
    DeadlineExceeded,
    NotFound,
    RemoteServiceUnavailable,
    TimeoutError,
    TransferStalled,
)
from store_lib.store import Store
from store_lib.transfer import timeouts
from store_lib.transfer.timeouts import HangGuard, checkpoint
from tests.unit.memory_driver import CHUNK, MemoryDriver, MemoryParts, memory_store


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What a hanging call waits for; set at the end."""
    monkeypatch.setattr(timeouts, "GRACE", 0.05)
    event = threading.Event()
    yield event
    event.set()


def again(driver: MemoryDriver, store: Store, timeout: float = 0) -> Store:
    """Return a store made after the driver's call limit was set."""
    driver.hang_policy = HangPolicy(timeout)
    return Store("mem", "memory", driver, store.options)


@pytest.mark.parametrize("parts", [False, True])
def test_stalled_store(hang: threading.Event, parts: bool) -> None:
    """A write that hangs is given up after the stall limit, and the upload is aborted."""
    store, driver = memory_store(transfer_stall_timeout=1)
    hook = "write_at"
    if parts:
        driver.writer_class = MemoryParts
        driver.writer_settings = {"chunk_size": CHUNK, "once_limit": 0}
        hook = "put_part"
    driver.faults.hooks[hook] = lambda *_: hang.wait(30)
    with pytest.raises(TransferStalled, match=r"No progress for 1 s .* after \d+ bytes"):
        store.add("it", io.BytesIO(bytes(50 * CHUNK)))
    assert driver.aborted == ["it"]


def test_a_source_that_fails_while_a_write_hangs(hang: threading.Event) -> None:
    """The source's error comes out within the stall limit, although a write never ends."""
    store, driver = memory_store(transfer_stall_timeout=1)
    hanging = threading.Event()
    ended: list[bool] = []

    def write_at(*_: object) -> None:
        hanging.set()
        ended.append(hang.wait(30))

    def source() -> Iterator[bytes]:
        yield bytes(CHUNK)
        yield bytes(CHUNK)
        hanging.wait(30)
        raise KeyError("the source broke")

    driver.faults.hooks["write_at"] = write_at
    with pytest.raises(KeyError, match="the source broke"):
        store.add("it", source())
    assert ended == []
    assert driver.aborted == ["it"]


def test_deadline() -> None:
    """A transfer that moves, but for too long, is given up at its deadline."""
    store, driver = memory_store(transfer_deadline=1)
    driver.faults.hooks["write_at"] = lambda *_: threading.Event().wait(0.05)

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(CHUNK)

    with pytest.raises(DeadlineExceeded, match="Not finished within 1 s"):
        store.add("it", endless())
    assert driver.aborted == ["it"]


def test_hanging_calls_are_bounded(hang: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    """Calls that hang are given up, warned of, and past the limit refused at once."""
    guard = HangGuard(HangPolicy(0.05, 2, 50))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"0\.05s"):
                guard.call(lambda: hang.wait(30))
    assert "2 calls to the storage hang" in caplog.text
    with pytest.raises(TimeoutError, match="not trying one more"):
        guard.call(lambda: None)
    hang.set()
    for _ in range(500):
        try:
            assert guard.call(lambda: 5) == 5
            break
        except TimeoutError:
            threading.Event().wait(0.01)
    else:
        pytest.fail("the guard never recovered")


def test_guard_passes_results_and_errors() -> None:
    """A call in time gives its result or its error, with a limit and without one."""
    for timeout in (0, 30):
        guard = HangGuard(HangPolicy(timeout, 1, 100))
        assert guard.call(lambda: "x") == "x"
        with pytest.raises(KeyError):
            guard.call(lambda: {}["missing"])


def test_late_result_is_given_back(hang: threading.Event) -> None:
    """What a call returns after it was given up is released."""
    late: list[str] = []
    closed = threading.Event()
    guard = HangGuard(HangPolicy(0.05, 1, 100))

    def slow() -> str:
        hang.wait(30)
        return "reader"

    def release(result: str) -> None:
        late.append(result)
        closed.set()

    with pytest.raises(TimeoutError):
        guard.call(slow, on_late_result=release)
    hang.set()
    assert closed.wait(10)
    assert late == ["reader"]


def test_what_cleans_up_after_a_late_result_goes_on(hang: threading.Event) -> None:
    """A checkpoint ends what was given up, and not the clean-up after it."""
    cleaned = threading.Event()
    guard = HangGuard(HangPolicy(0.05, 1, 100))

    def clean_up(_: bool) -> None:
        checkpoint()
        cleaned.set()

    with pytest.raises(TimeoutError):
        guard.call(lambda: hang.wait(30), on_late_result=clean_up)
    hang.set()
    assert cleaned.wait(10)


def test_an_interrupt_while_the_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that nobody waits for by the time that its thread runs is not made."""
    bodies: list[Callable[[], object]] = []
    calls: list[str] = []

    class Slow(threading.Thread):
        def start(self) -> None:
            bodies.append(self.run)
            raise KeyboardInterrupt

    guard = HangGuard(HangPolicy(30, 1, 100))
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Slow)
        with pytest.raises(KeyboardInterrupt):
            guard.call(lambda: calls.append("made"))
    bodies.pop()()
    assert not calls
    assert guard.call(lambda: "free") == "free"


def test_store_with_a_call_limit(hang: threading.Event) -> None:
    """Every call of such a store is bounded, and works as always when nothing hangs."""
    store, driver = memory_store(transfer_stall_timeout=1)
    driver.writer_settings["reserved"] = 0
    store = again(driver, store, 0.2)
    uri = store.add("it", bytes(5 * CHUNK)).uri
    small = store.add("small", b"x").uri
    assert store.stat(uri).size == 5 * CHUNK
    assert store.get(uri).read() == bytes(5 * CHUNK)
    store.delete(small)
    calls: dict[str, Callable[[Store], object]] = {
        "stat": lambda each: each.stat(uri),
        "read": lambda each: each.get(uri),
        "delete": lambda each: each.delete(uri),
        "create": lambda each: each.add("other", b"x"),
        "commit": lambda each: each.add("another", b"x"),
        "write_at": lambda each: each.add("a small one", b"x"),
        "reserve": lambda each: each.add("a large one", bytes(5 * CHUNK)),
    }
    for operation, call in calls.items():
        hanging = again(driver, store, 0.05)
        driver.faults.hooks[operation] = lambda *_: hang.wait(30)
        with pytest.raises(TimeoutError):
            call(hanging)
        del driver.faults.hooks[operation]


def test_delete_whose_reply_was_lost() -> None:
    """A delete that is repeated and then finds nothing has succeeded."""
    store, driver = memory_store()
    uri = store.add("it", b"x").uri
    driver.faults.times("deleted", 1, RemoteServiceUnavailable)
    store.delete(uri)
    with pytest.raises(NotFound):
        store.delete(uri)
