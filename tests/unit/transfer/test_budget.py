"""Tests of the memory budget: no dead-lock, first come first served, nothing lost."""

import contextlib
import io
import os
import random
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store_lib.exceptions import DeadlineExceeded, TransferStalled
from store_lib.options import MEMORY_LIMIT
from store_lib.transfer.budget import MIB, PROCESS_BUDGET, Budget, Reservation, _Waiter
from store_lib.transfer.timeouts import Limits, TransferClock
from tests.unit.memory_driver import CHUNK, MemoryParts, memory_store


def test_reserve_and_grow() -> None:
    """Growing takes only what is free up to three quarters, and release gives everything back."""
    budget = Budget(100)
    with budget.reserve(60) as first:
        assert first.grow(15)
        assert not first.grow(1)
        assert budget.used == 75
        first.shrink(50)
        assert budget.used == 25
    assert budget.used == 0
    first.release()
    assert budget.used == 0


def test_a_lost_reservation_is_given_back() -> None:
    """A reservation that an interrupt has lost holds nothing once it is collected."""
    budget = Budget(100)
    lost = budget.reserve(60)
    assert budget.used == 60
    del lost
    assert budget.used == 0
    with budget.reserve(80):
        assert budget.used == 80


def test_the_largest_limit_asked_for_holds() -> None:
    """What is asked for replaces the default, also when it is less; of several the largest."""
    budget = Budget(100)
    budget.set_limit(30)
    assert budget.limit == 30
    budget.set_limit(20)
    assert budget.limit == 30
    budget.set_limit(200)
    assert budget.limit == 200


def test_waiting_in_order() -> None:
    """Who came first is served first, and nobody grows past those who wait."""
    budget = Budget(100)
    order: list[str] = []
    queued = threading.Event()

    def big() -> None:
        with budget.reserve(80):
            order.append("big")

    def small() -> None:
        with budget.reserve(10):
            order.append("small")

    held = budget.reserve(50)
    first = threading.Thread(target=big)
    first.start()
    while not budget._queue:
        queued.wait(0.001)
    assert not held.grow(1), "growing overtook a waiting transfer"
    second = threading.Thread(target=small)
    second.start()
    while len(budget._queue) < 2:
        queued.wait(0.001)
    assert order == []
    held.release()
    first.join(10)
    second.join(10)
    assert order == ["big", "small"]
    assert budget.used == 0


def test_the_default_is_that_of_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes what the documentation says changes the limit."""
    monkeypatch.setattr(MEMORY_LIMIT, "default", 64)
    assert Budget().limit == 64 * MIB


def test_only_whose_turn_it_can_be_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given back wakes none of those for whom it is too little, and all come in order."""
    budget = Budget(1000)
    woken: list[int] = []
    plain = _Waiter.wake

    def wake(waiter: _Waiter) -> None:
        woken.append(waiter.amount)
        plain(waiter)

    monkeypatch.setattr(_Waiter, "wake", wake)
    order: list[int] = []

    def client(amount: int) -> None:
        with budget.reserve(amount):
            order.append(amount)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(budget.reserve, 875).result(10)
    small = Reservation(budget)
    small.take(31)
    threads = []
    for number in range(20):
        threads.append(threading.Thread(target=client, args=(500 + number,)))
        threads[-1].start()
        while len(budget._queue) <= number:
            threading.Event().wait(0.001)
    for _ in range(50):
        held.shrink(1)
        small.shrink(31)
        small.take(31)
    assert not woken
    held.release()
    for each in threads:
        each.join(10)
    assert order == [500 + number for number in range(20)]
    assert len(woken) < 60
    small.release()
    assert budget.used == 0
    assert not budget._by_amount


def test_who_waits_for_the_least_gets_a_small_amount_first() -> None:
    """What a small amount gives back goes to a small amount, though others have waited longer."""
    budget = Budget(3200)
    # A thread each: one that holds a minimum would not have to wait.
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two, ThreadPoolExecutor(1) as three:
        held = one.submit(budget.reserve, 2800).result(10)
        smalls = [Reservation(budget) for _ in range(4)]
        for each in smalls:
            each.take((400 - budget._small) // 4)
        started = two.submit(budget.reserve, 1000)
        while len(budget._queue) < 1:
            threading.Event().wait(0.001)
        wanted = smalls[-1].amount
        overtakes = three.submit(budget.reserve, wanted)
        while len(budget._queue) < 2:
            threading.Event().wait(0.001)
        smalls[-1].release()
        got = overtakes.result(10)
        assert got.amount == wanted
        assert not started.done()
        got.release()
        held.release()
        assert started.result(10).amount == 1000


def test_a_thread_of_the_same_number_is_another_one() -> None:
    """A minimum that outlives its thread makes none of those after it overtake."""
    budget = Budget(100)
    kept: list[tuple[int, Reservation]] = []

    def reserve() -> None:
        kept.append((threading.get_ident(), budget.reserve(90)))

    first = threading.Thread(target=reserve)
    first.start()
    first.join(10)
    granted: list[bool] = []

    def try_again() -> None:
        with budget._lock:
            granted.append(budget._grant(Reservation(budget), 90, first=True))
        same.append(threading.get_ident() == kept[0][0])

    same: list[bool] = []
    while not any(same) and len(same) < 1000:
        thread = threading.Thread(target=try_again)
        thread.start()
        thread.join(10)
    assert not any(granted)
    kept.pop()[1].release()
    assert budget.used == 0


def test_more_than_the_whole_runs_alone() -> None:
    """A minimum above the limit is granted once nobody else holds anything."""
    budget = Budget(100)
    held = budget.reserve(10)
    done = threading.Event()

    def huge() -> None:
        with budget.reserve(500):
            done.set()

    thread = threading.Thread(target=huge)
    thread.start()
    assert not done.wait(0.05)
    held.release()
    assert done.wait(10)
    thread.join(10)


class Holder:
    """A transfer that holds more than it cannot do without, and says when it is asked for it."""

    def __init__(self, budget: Budget, asked: list["Holder"]) -> None:
        self._asked = asked
        self.memory = Reservation(budget)
        budget.register(self)

    def give_back(self) -> None:
        """Keep the last 50 bytes."""
        self._asked.append(self)
        self.memory.shrink(self.memory.amount - 50)


def test_what_others_can_do_without_is_called_in() -> None:
    """Who waits gets back what others hold beyond their minimum, and no more than is needed."""
    budget = Budget(1000)
    asked: list[Holder] = []
    holders = [Holder(budget, asked) for _ in range(3)]
    for each in holders:
        assert each.memory.grow(250)
    assert not holders[0].memory.grow(1)
    with budget.reserve(300):
        assert len(asked) == 1
        assert budget.used == 850
    with budget.reserve(700):
        assert set(asked) == set(holders)
        assert budget.used == 850
    for each in holders:
        each.memory.release()
    assert budget.used == 0


def test_small_amounts_have_a_share_of_their_own() -> None:
    """However much is held and waited for, there is room for something smaller at once."""
    budget = Budget(8 * 1024)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(budget.reserve, 7 * 1024).result(10)
    waiting = threading.Thread(target=lambda: budget.reserve(1024).release())
    waiting.start()
    while not budget.contended:
        threading.Event().wait(0.001)
    granted = []
    amount = 256
    while amount:
        granted.append(Reservation(budget))
        with budget._lock:
            if not budget._grant(granted[-1], amount, first=False):
                amount //= 2
    assert len(granted) > 16
    assert budget.used <= budget.limit
    assert waiting.is_alive()
    for each in granted:
        each.release()
    assert budget._small == 0
    held.release()
    waiting.join(10)
    assert budget.used == 0


def test_a_wait_for_memory_ends() -> None:
    """Who gets no memory for as long as the stall limit says raises, and leaves the queue."""
    budget = Budget(100)
    with budget.reserve(100):
        watch = TransferClock(Limits(stall=0.01))
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(budget.reserve, 50, watch).exception(10)
    assert isinstance(error, TransferStalled)
    assert "needs 50 bytes, and others hold 100 of 100" in str(error)
    assert not budget.contended
    assert budget.used == 0


def test_stalled_clients_keep_nobody_from_a_small_add() -> None:
    """Hundreds of uploads and downloads that stand still leave memory for a small object."""
    budget = Budget(64 * CHUNK)
    store, driver = memory_store(budget=budget)
    driver.objects["origin"] = (random.Random(0).randbytes(16 * CHUNK), "nonce")
    driver.read_concurrency, driver.read_size = 4, 2 * CHUNK
    goes_on = threading.Event()
    standing = threading.Semaphore(0)

    def client(size: int) -> Iterator[bytes]:
        yield b"x" * (size // 2)
        standing.release()
        goes_on.wait(60)
        yield b"x" * (size - size // 2)

    sizes = [*[20 * CHUNK] * 64, *[CHUNK // 2] * 64, *[10] * 64]
    threads = [
        threading.Thread(target=store.add, args=(f"{number}", client(size)), kwargs={"size": size})
        for number, size in enumerate(sizes)
    ]
    readers = [store.get("memory://mem/origin") for _ in range(256)]
    for each in readers:
        assert each.read(100) == driver.objects["origin"][0][:100]
    for each in threads:
        each.start()
    for _ in range(64):  # the smallest ones, and some of the others
        standing.acquire()
    assert store.add("small", b"x" * 1024, 1024).size == 1024
    assert readers[0].read(CHUNK) == driver.objects["origin"][0][100 : 100 + CHUNK]
    assert budget.used <= budget.limit
    goes_on.set()
    for each in threads:
        each.join(60)
    assert len(driver.objects) == len(sizes) + 2
    for number, each in enumerate(readers):
        if number % 16 == 0:
            assert each.read() == driver.objects["origin"][0][100 + (number == 0) * CHUNK :]
        each.close()


def test_an_add_of_a_reader_that_was_begun() -> None:
    """A reader whose beginning was looked at can be the source of an add on a full budget."""
    budget = Budget(8 * CHUNK)
    store, driver = memory_store(budget=budget, transfer_deadline=10)
    data = random.Random(0).randbytes(16 * CHUNK)
    driver.objects["origin"] = (data, "nonce")
    driver.read_concurrency, driver.read_size = 8, CHUNK
    reader = store.get("memory://mem/origin")
    head = reader.read(10)
    while budget.used < 4 * CHUNK:
        threading.Event().wait(0.001)

    def rest() -> Iterator[bytes]:
        yield head
        yield from reader

    store.add("copy", rest(), len(data))
    assert driver.objects["copy"][0] == data
    assert budget.used == 0


@pytest.mark.parametrize("size", [10, 10 * CHUNK], ids=["small", "large"])
def test_what_a_client_takes_counts(size: int) -> None:
    """Uploads wait until there is memory for their clients too."""
    budget = Budget(40 * CHUNK)
    store, driver = memory_store(budget=budget)
    driver.writer_settings["client_memory"] = 30 * CHUNK
    seen: list[int] = []
    driver.faults.hooks["commit"] = lambda *_: seen.append(budget.used)

    def add(name: str) -> None:
        store.add(name, b"x" * size, size)

    threads = [threading.Thread(target=add, args=(str(each),)) for each in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert len(driver.objects) == len(seen) == 4
    assert all(30 * CHUNK <= each <= 40 * CHUNK for each in seen)
    assert budget.used == 0


def test_a_thread_does_not_wait_for_itself() -> None:
    """A transfer whose source is itself a transfer gets its memory in the same thread."""
    budget = Budget(100)
    with budget.reserve(90), budget.reserve(90):
        assert budget.used == 180
    assert budget.used == 0


def test_deadline_bounds_the_wait() -> None:
    """Waiting for memory ends at the transfer's deadline, and leaves the queue."""
    budget = Budget(100)
    held = budget.reserve(100)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            budget.reserve(10, TransferClock(Limits(stall=9, deadline=0.05)))
        except DeadlineExceeded as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(10)
    assert len(errors) == 1
    assert not budget._queue
    held.release()
    assert budget.used == 0


@pytest.mark.parametrize("parts", [False, True])
def test_many_slow_transfers_on_little_memory(parts: bool) -> None:
    """Many transfers on a budget too small for two all come through, and within it."""
    budget = Budget(5 * CHUNK)
    store, driver = memory_store(budget=budget)
    if parts:
        driver.writer_class = MemoryParts
        driver.writer_settings = {"chunk_size": CHUNK, "once_limit": 0, "concurrency": 3}
        driver.part_sizes = lambda number: 3 * CHUNK
    used: list[int] = []
    pause = threading.Event()

    class Slow(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._file = io.BytesIO(data)

        def read(self, amount: int = -1, /) -> bytes:
            used.append(budget.used)
            pause.wait(0.0005)
            return self._file.read(min(amount, CHUNK // 2))

    def add(number: int) -> None:
        store.add(str(number), Slow(random.Random(number).randbytes(7 * CHUNK)), digests=("md5",))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(driver.objects) == 24
    for number in range(24):
        assert driver.objects[str(number)][0] == random.Random(number).randbytes(7 * CHUNK)
    assert max(used) <= budget.limit
    assert budget.used == 0


def test_fork_while_held() -> None:
    """A child begins with the whole budget; what it inherited neither grows nor gives back."""
    with PROCESS_BUDGET.reserve(10) as held:
        child = os.fork()
        if not child:
            clean = PROCESS_BUDGET.used == 0 and not held.grow(1) and PROCESS_BUDGET.used == 0
            held.release()
            with PROCESS_BUDGET.reserve(PROCESS_BUDGET.limit):
                pass
            os._exit(0 if clean and PROCESS_BUDGET.used == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert PROCESS_BUDGET.used == 10


def test_what_readers_cannot_give_back_keeps_no_upload_waiting() -> None:
    """Where no other minimum is held one is granted, whatever readers hold and however large."""
    budget = Budget(1000)
    reader = Reservation(budget)
    assert reader.grow(700)
    with budget.reserve(2000) as upload:
        assert upload.amount == 2000
        assert budget.used == 2700
    reader.release()
    assert budget.used == 0


#: Bytes of which one less is small.
SMALL = 16 * 1024
SOURCES: dict[str, Callable[[bytes], Any]] = {
    "buffers": io.BytesIO,
    "read": lambda data: types.SimpleNamespace(read=io.BytesIO(data).read),
    "one piece": lambda data: iter([data]),
    "pieces": lambda data: iter([data[at : at + 999] for at in range(0, len(data), 999)]),
    "mutable pieces": lambda data: iter([bytearray(data[:7]), memoryview(bytearray(data[7:]))]),
}


@pytest.mark.parametrize("size", [0, 1024, SMALL - 1, SMALL, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize("source", SOURCES)
def test_a_small_object_of_unknown_size_waits_for_nobody(source: str, size: int) -> None:
    """While others hold the memory, an object that turns out small is stored at once.

    One that does not waits, and is whole.
    """
    budget = Budget(32 * CHUNK)
    store, driver = memory_store(budget=budget)
    data = random.Random(size).randbytes(size)
    with ThreadPoolExecutor(1) as another, ThreadPoolExecutor(1) as pool:
        held = another.submit(budget.reserve, 28 * CHUNK).result()
        added = pool.submit(store.add, "it", SOURCES[source](data))
        if size >= SMALL:
            while not budget.contended:
                threading.Event().wait(0.001)
            held.release()
        assert added.result(30).size == size
        held.release()
    assert driver.objects["it"][0] == data
    assert budget.used == 0


def test_a_budget_of_a_service_is_forgotten_by_a_child() -> None:
    """After a fork, the memory that the parent's transfers hold does not count in the child."""
    budget = Budget(100)

    def available() -> bool:
        with ThreadPoolExecutor(1) as pool:  # the thread that holds memory need not wait
            return pool.submit(budget.available, 80).result(10)

    with budget.reserve(80):
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                os._exit(0 if available() else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert not available()
