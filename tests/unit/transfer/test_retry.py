"""Tests of repeats: how long, how often, after which pauses, and what the log says of each."""

import itertools
import logging
import threading
from collections.abc import Callable

import pytest

from store_lib.driver import HangPolicy
from store_lib.exceptions import (
    DeadlineExceeded,
    ErrorStatus,
    InUseByStore,
    NotFound,
    RemoteServiceUnavailable,
    TransferStalled,
)
from store_lib.options import STORE_OPTIONS, StoreOptions
from store_lib.transfer.retry import Backoff, Retry, retry_at_most
from store_lib.transfer.timeouts import HangGuard
from store_lib.transfer.workers import run_concurrently
from tests.clock import SetClock
from tests.unit.memory_driver import CHUNK, MemoryDriver, MemoryParts, memory_store


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """A clock that stands still but for the pauses."""
    clock = SetClock()
    monkeypatch.setattr("store_lib.transfer.timeouts.CLOCK", clock)
    return clock


def busy_until(time: SetClock, end: float, takes: float = 0) -> Callable[[], str]:
    """Return a call that fails until ``end``, each time after ``takes`` seconds."""

    def call() -> str:
        time.passed += takes
        if time.now() < end:
            raise RemoteServiceUnavailable("got 503")
        return "done"

    return call


def failing() -> None:
    raise RemoteServiceUnavailable("got 503")


@pytest.mark.parametrize("seconds", [0.05, 1, 5, 19, 19.99])
def test_a_server_that_is_busy_for_less_than_the_time(time: SetClock, seconds: float) -> None:
    """A call succeeds however long within the time the server is busy."""
    assert Retry(20).call(busy_until(time, seconds)) == "done"
    assert len(time.pauses) < 16


def test_a_server_that_is_busy_for_longer(time: SetClock) -> None:
    """The last try comes when the time is up; its error is EXHAUSTED, and names no new one."""
    with pytest.raises(RemoteServiceUnavailable) as caught:
        Retry(20).call(busy_until(time, 21))
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert time.now() == pytest.approx(20)


def test_the_tries_themselves_take_of_the_time(time: SetClock) -> None:
    """Tries of eight seconds are made three times within twenty seconds."""
    calls = itertools.count()
    with pytest.raises(RemoteServiceUnavailable):
        Retry(20).call(busy_until(time, 99, takes=8), on_retry=lambda: next(calls))
    assert next(calls) == 2
    assert time.now() < 25


def test_a_first_try_that_took_longer_is_repeated_once(time: SetClock) -> None:
    """What was cut after a minute is tried once more, and not twice."""
    assert Retry(20).call(busy_until(time, 120, takes=60)) == "done"
    time.passed = 0
    with pytest.raises(RemoteServiceUnavailable):
        Retry(20).call(busy_until(time, 999, takes=60))
    assert time.passed == 120


def test_no_time_is_no_repeat(time: SetClock) -> None:
    """With 0 seconds a call is made once."""
    with pytest.raises(RemoteServiceUnavailable) as caught:
        Retry(0).call(failing)
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert time.pauses == []


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_stay_an_upper_bound(time: SetClock, attempts: int) -> None:
    """As many tries as the operator allows are made, though there is time for more."""
    with pytest.raises(RemoteServiceUnavailable):
        Retry(20, attempts).call(failing)
    assert len(time.pauses) == attempts - 1


def test_pauses_grow_and_are_not_alike(time: SetClock) -> None:
    """Pauses double up to the longest one, each between half of that and the whole."""
    with pytest.raises(RemoteServiceUnavailable):
        Retry(1000, 12).call(failing)
    for number, pause in enumerate(time.pauses):
        most = min(5.0, 0.1 * 2**number)
        assert most / 2 <= pause <= most
    assert len(set(time.pauses)) == len(time.pauses)


def after(seconds: float | None) -> Callable[[], None]:
    """Return a call that fails and says when to come again."""

    def call() -> None:
        raise RemoteServiceUnavailable("got 503", retry_after=seconds)

    return call


def test_what_the_server_asks_for_is_kept(time: SetClock) -> None:
    """No try comes sooner than Retry-After says; one beyond the time is cut to what is left."""
    with pytest.raises(RemoteServiceUnavailable):
        Retry(20).call(after(7))
    assert time.pauses == [7, 7, 6]
    time.pauses.clear()
    with pytest.raises(RemoteServiceUnavailable):
        Retry(20).call(after(3600))
    assert time.pauses == [20]


@pytest.mark.parametrize("odd", [0, -5, float("nan"), None])
def test_an_odd_answer_to_when_changes_nothing(time: SetClock, odd: float | None) -> None:
    """A Retry-After that asks for nothing leaves the pauses as they are."""
    with pytest.raises(RemoteServiceUnavailable):
        Retry(20, 3).call(after(odd))
    assert 0.05 <= time.pauses[0] <= 0.1


def test_an_endless_retry_after_ends_with_the_time(time: SetClock) -> None:
    """An infinite Retry-After waits for the time that is left."""
    with pytest.raises(RemoteServiceUnavailable):
        Retry(20).call(after(float("inf")))
    assert time.pauses == [20]


def test_what_must_answer_soon(time: SetClock) -> None:
    """Within a block of a shorter time no call is repeated for longer, nor a slow one at all."""
    retry = Retry(20)
    with retry_at_most(2):
        with retry_at_most(5), pytest.raises(RemoteServiceUnavailable):
            retry.call(busy_until(time, 3))
        assert time.now() == pytest.approx(2, abs=0.11)  # the last pause is FIRST_PAUSE at least
        with pytest.raises(RemoteServiceUnavailable):
            retry.call(busy_until(time, 999, takes=60))
        assert time.passed == 60
    assert retry.call(busy_until(time, time.now() + 3)) == "done"


def test_what_must_answer_soon_in_other_threads(time: SetClock) -> None:
    """The shorter time holds in the threads of guarded calls and of calls side by side too."""
    retry = Retry(20)

    def fail() -> None:
        with pytest.raises(RemoteServiceUnavailable):
            retry.call(failing)

    with retry_at_most(0):
        HangGuard(HangPolicy(60, 9, 100)).call(fail)
        run_concurrently([fail] * 3, 3)
    assert time.pauses == []


@pytest.mark.parametrize("hook", ["write_at", "put_part", "piece"])
def test_what_must_answer_soon_in_the_threads_of_a_transfer(hook: str, time: SetClock) -> None:
    """The shorter time holds for the chunks that an add sends, and for what a get reads ahead."""
    store, driver = memory_store(transfer_attempts=None)
    driver.read_concurrency, driver.read_size = 2, CHUNK
    uri = store.add("there", bytes(5 * CHUNK)).uri
    if hook == "put_part":
        driver.writer_class = MemoryParts
        driver.writer_settings = {"chunk_size": CHUNK, "once_limit": 0, "concurrency": 3}
    reader = store.get(uri)
    driver.faults.hooks[hook] = lambda offset, *_: failing() if offset else None
    source = iter([bytes(CHUNK)] * 9)
    with retry_at_most(0), pytest.raises(RemoteServiceUnavailable):
        reader.read() if hook == "piece" else store.add("it", source)
    assert time.pauses == []
    reader.close()


def test_requests_that_share_a_time(time: SetClock) -> None:
    """Requests that belong together are repeated for the time of one."""
    retry = Retry(20).since()
    for _ in range(2):
        with pytest.raises(RemoteServiceUnavailable):
            retry.call(failing)
    assert time.now() == pytest.approx(20, abs=0.2)


def test_only_temporary_errors_are_repeated(time: SetClock) -> None:
    """A permanent error comes out at once and as it is."""

    def missing() -> None:
        raise NotFound

    with pytest.raises(NotFound) as caught:
        Retry(20).call(missing)
    assert caught.value.status is ErrorStatus.PERMANENT
    assert time.pauses == []


def test_what_is_in_use_is_not_waited_for_long(time: SetClock) -> None:
    """Somebody who uses an object has a moment to let go of it, and not the whole time."""

    def used() -> None:
        raise InUseByStore(status=ErrorStatus.TEMPORARY)

    with pytest.raises(InUseByStore):
        Retry(20).call(used)
    assert time.now() == pytest.approx(2)


def test_nested_repeats_do_not_multiply(time: SetClock) -> None:
    """What was repeated inside is not repeated outside."""
    retry = Retry(20, 3)
    with pytest.raises(RemoteServiceUnavailable):
        retry.call(lambda: retry.call(failing))
    assert len(time.pauses) == 2


def test_a_pause_ends_when_the_transfer_failed_elsewhere(time: SetClock) -> None:
    """Once the event is set the error at hand is raised, without another try."""
    stop = threading.Event()
    stop.set()
    backoff = Backoff(Retry(20), stop=stop)
    error = RemoteServiceUnavailable()
    assert not backoff.wait(error)
    assert error.status is ErrorStatus.EXHAUSTED


def test_each_repeat_is_one_line(time: SetClock, caplog: pytest.LogCaptureFixture) -> None:
    """A warning says what failed, why, when it is tried again, and for how long it will be."""
    retry = Retry(20, 2, "fast").for_operation("add", "img")
    with caplog.at_level(logging.INFO), pytest.raises(RemoteServiceUnavailable):
        retry.call(failing, "part 3")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "Store fast: add of img: part 3 failed (RemoteServiceUnavailable: got 503); trying again "
        "in 0.1 s (try 2, for 20 s more)"
    )


def test_options() -> None:
    """By default requests are tried for 20 seconds, however often."""
    assert Retry.of("fast", StoreOptions.of(STORE_OPTIONS)) == Retry(20.0, None, "fast")


@pytest.mark.parametrize("hook", ["create", "reserve", "write_at", "commit", "read", "stat"])
def test_every_request_outlasts_a_busy_second(hook: str, time: SetClock) -> None:
    """An object is stored and read though the store is busy for a second at any request."""
    store, driver = memory_store(transfer_attempts=None)
    driver.writer_settings["reserved"] = 0
    began: list[float] = []

    def busy(*_: object) -> None:
        began.append(time.now())
        if time.now() - began[0] < 1:
            raise RemoteServiceUnavailable("got 503")

    driver.faults.hooks[hook] = busy
    uri = store.add("it", bytes(5 * CHUNK)).uri
    assert store.stat(uri).size == 5 * CHUNK
    assert store.get(uri).read() == bytes(5 * CHUNK)
    assert len(began) > 3


def test_publishing_and_looking_share_one_time(time: SetClock) -> None:
    """A store that is away while an upload is published is given up after one time, not two."""
    store, driver = memory_store(transfer_attempts=None)
    driver.writer_class = MemoryParts
    for hook in ("commit", "write_once", "resolve"):
        driver.faults.hooks[hook] = lambda *_: failing()
    with pytest.raises(RemoteServiceUnavailable):
        store.add("it", b"x")
    assert time.now() < 22


@pytest.mark.parametrize(
    ("limit", "kind"),
    [("transfer_deadline", DeadlineExceeded), ("transfer_stall_timeout", TransferStalled)],
)
@pytest.mark.parametrize("hook", ["create", "reserve", "write_at", "commit", "read", "piece"])
def test_the_limits_of_a_transfer_end_its_repeats(
    limit: str, kind: type[Exception], hook: str, time: SetClock
) -> None:
    """A transfer whose store is away ends with its own limit, however long it could repeat."""
    store, driver = memory_store(transfer_attempts=None, **{limit: 3})
    driver.writer_settings["reserved"] = 0
    uri = store.add("there", b"x").uri
    driver.faults.hooks[hook] = lambda *_: failing()
    reading = hook in ("read", "piece")
    with pytest.raises(kind):
        store.get(uri).read() if reading else store.add("it", b"x")
    assert time.now() == pytest.approx(3)


def test_a_driver_repeats_by_the_store_s_options(time: SetClock) -> None:
    """What a driver hands to ``retry`` is repeated as the store's options say."""
    _, driver = memory_store(transfer_retry_seconds=3, transfer_attempts=None)
    with pytest.raises(RemoteServiceUnavailable):
        driver.retry(failing)
    assert time.now() == pytest.approx(3)


def test_a_driver_by_itself_calls_once() -> None:
    """A driver that no engine has taken makes each call once."""
    driver = MemoryDriver("alone", StoreOptions.of(()))
    assert driver.retry(lambda: 5) == 5
