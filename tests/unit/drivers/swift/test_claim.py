"""Tests of claims: of several concurrent adds or copies of one id, at most one succeeds."""

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib import Store
from store_lib.drivers.swift import claim
from store_lib.drivers.swift.claim import Claim
from store_lib.drivers.swift.location import NONCE
from store_lib.exceptions import Duplicate, ErrorStatus
from tests.scripted_server import Reply, Request
from tests.unit.drivers.swift.small_swift import SmallSwift

SMALL = b"0123456789"
LARGE = bytes(range(256)) * 9000

_MARK = r"/\.segments/id/0{32}/00000001(\?|$)"
_DOOR = r"/\.segments/id/0{32}/00000002(\?|$)"


def _race(small: SmallSwift, first: Callable[[], object], second: Callable[[], object]) -> set[str]:
    """Begin ``second`` while the object of ``first`` is between Swift's check and being there.

    The object of ``second`` passes its own check before that, and is there last.
    """
    told: dict[str, str] = {}

    def add(name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Duplicate as error:
            told[name] = str(error)
        else:
            told[name] = "success"
        checked.set() if name == "second" else done.set()

    checked, done = threading.Event(), threading.Event()
    other = threading.Thread(target=add, args=("second", second))
    order = itertools.count()

    def landing(request: Request) -> None:
        if not request.target.partition("?")[0].endswith("/glance/id"):
            return
        if next(order) == 0:
            other.start()
            assert checked.wait(60)
        else:
            checked.set()
            assert done.wait(60)

    small.landing = landing
    add("first", first)
    other.join(60)
    return {name for name, text in told.items() if text == "success"}


@pytest.mark.parametrize("manifest", ["static", "dynamic"])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("copied", [False, True], ids=["add", "copy"])
def test_one_of_two_is_told_success(
    small: SmallSwift, open_store: Callable[..., Store], copied: bool, data: bytes, manifest: str
) -> None:
    """An object that is there later, by an older check, does not make two adds succeed."""
    options = small.options(swift_store_manifest=manifest, transfer_retry_seconds=0.2)
    stores = [open_store(**options) for _ in range(2)]
    contents = [data, data[::-1]]
    calls: list[Callable[[], object]] = []
    for number, (store, content) in enumerate(zip(stores, contents, strict=True)):
        if copied:
            uri = store.add(f"origin-{number}", content).uri
            calls.append(lambda store=store, uri=uri: store.copy(uri, "id"))  # type: ignore[misc]
        else:
            calls.append(lambda store=store, content=content: store.add("id", content))  # type: ignore[misc]
    told = _race(small, *calls)
    assert told == {"first"}
    with stores[0].get("swift+config://ref1/glance/id") as reader:
        assert reader.read() == contents[0]
    assert not list(stores[0].list_incomplete())


class _Registers:
    """A container of objects as the newest write has left them, which one step alters at a time."""

    def __init__(self) -> None:
        self.stored: dict[str, tuple[int, str]] = {}
        self.clock = itertools.count(1)
        self.times: dict[str, int] = {}

    @property
    def account(self) -> "_Registers":
        return self

    def object(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(itself=functools.partial(self._read, name.rpartition("/")[2]))

    def _read(self, name: str, *, newest: bool) -> "_Head | None":
        _step()
        found = self.stored.get(name)
        return None if found is None else _Head({NONCE: found[1]})

    def retry(self, call: Callable[[], Any]) -> Any:
        return call()

    def ask(self, method: str, path: str, *allowed: int) -> None:
        raise AssertionError("Expected that nothing is removed here.")

    def put(self, name: str, body: object, headers: Mapping[str, str]) -> "_Head":
        name = name.rpartition("/")[2]
        _step()
        time = next(self.clock)
        if "If-None-Match" in headers and name in self.stored:
            return _Head({}, 412)
        _step()
        if time > self.stored.get(name, (0, ""))[0]:
            self.stored[name] = time, headers[NONCE]
        return _Head({}, 201)


class _Head:
    def __init__(self, headers: Mapping[str, str], status: int = 200) -> None:
        self.headers, self.status = headers, status


class _Turns(threading.local):
    turn: "_Turn | None" = None


class _Turn:
    """A claim that is taken in a thread of its own, one step for each call of :meth:`go`."""

    def __init__(self, registers: _Registers, nonce: str) -> None:
        self.won, self.over = False, False
        self._mine, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._claim = Claim("id", nonce)
        self._registers: Any = registers
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._back.acquire()

    def _run(self) -> None:
        _TURNS.turn = self
        self.pause()
        try:
            self._claim.take(self._registers, self._registers.put)
            self.won = True
        except Duplicate:
            pass
        self.over = True
        self._back.release()

    def pause(self) -> None:
        self._back.release()
        self._mine.acquire()

    def go(self) -> None:
        if not self.over:
            self._mine.release()
            self._back.acquire()

    def again(self) -> bool:
        """Take the claim once more, all at once, and tell whether that was won."""
        _TURNS.turn = None
        try:
            self._claim.take(self._registers, self._registers.put)
        except Duplicate:
            return False
        return True

    def finish(self) -> None:
        while not self.over:
            self.go()
        self._thread.join()


_TURNS = _Turns()


def _step() -> None:
    if _TURNS.turn is not None:
        _TURNS.turn.pause()


#: The beginning of a claim, and one for each half of a put and for each look.
_STEPS = 7


def _orders() -> Iterator[tuple[int, ...]]:
    for places in itertools.combinations(range(2 * _STEPS), _STEPS):
        yield tuple(int(at in places) for at in range(2 * _STEPS))


def test_at_most_one_of_two_claims_in_any_order() -> None:
    """Of two claims at most one is held, however the steps of their requests interleave."""
    winners = set()
    for order in _orders():
        registers = _Registers()
        turns = [_Turn(registers, nonce) for nonce in ("a", "b")]
        for number in order:
            turns[number].go()
        for turn in turns:
            turn.finish()
        won = tuple(turn.won for turn in turns)
        assert won != (True, True), order
        winners.add(won)
    assert winners == {(True, False), (False, True), (False, False)}


@pytest.mark.parametrize("first", [0, 1])
def test_where_both_have_lost_the_last_door_goes_on(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """After a pause just one of those who raced in vain may publish, whoever asks first."""
    monkeypatch.setattr(claim, "SETTLE", -60)
    lost = 0
    for order in itertools.islice(_orders(), 0, None, 7):
        registers = _Registers()
        turns = [_Turn(registers, nonce) for nonce in ("a", "b")]
        for number in order:
            turns[number].go()
        for turn in turns:
            turn.finish()
        if not any(turn.won for turn in turns):
            lost += 1
            again = [turns[first].again(), turns[1 - first].again()]
            assert sorted(again) == [False, True], order
    assert lost


def test_a_lost_answer_about_a_claim_costs_nothing(small: SmallSwift, store: Store) -> None:
    """A claim that was put, and whose answer was lost, is this add's own."""

    def lose(request: Request) -> Reply:
        small.usual(request)
        return Reply(503)

    for pattern in (_MARK, _DOOR):
        small.fail(rf"^PUT .*{pattern}", lose, times=1)
    store.add("id", SMALL)
    assert small.names == ["glance/id"]


def test_a_claim_of_another_is_waited_for(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """An add goes on once a claim that stands in its way has ended."""
    store = open_store(**small.options(transfer_attempts=9))
    small.containers.add("glance")
    door = f"glance/.segments/id/{'0' * 32}/00000002"
    small.objects[door] = b"", {}
    looks = itertools.count()

    def end(request: Request) -> None:
        if next(looks) == 3:  # Swift itself removes it
            del small.objects[door]

    small.fail(rf"^(PUT|HEAD) .*{_DOOR}", end)
    store.add("id", SMALL)
    assert small.names == ["glance/id"]


def test_a_claim_that_stays_is_a_duplicate(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """While another claims the id, an add is Duplicate, and leaves what is not its own."""
    store = open_store(**small.options(transfer_retry_seconds=0.2))
    small.containers.add("glance")
    door = f"glance/.segments/id/{'0' * 32}/00000002"
    small.objects[door] = b"", {}
    with pytest.raises(Duplicate, match=r"right now.*within a minute") as it:
        store.add("id", LARGE)
    assert it.value.status is ErrorStatus.EXHAUSTED
    assert small.names == [door.replace("2", "1"), door]
    assert all(each.age > 0 for each in store.list_incomplete())


def test_a_claim_ends_by_itself(small: SmallSwift, store: Store) -> None:
    """Swift is asked to remove a claim, should nobody do that; its removal fails no add."""
    asked: dict[str, str] = {}

    def put(request: Request) -> None:
        asked[request.target[-1]] = request.headers["x-delete-after"]

    small.fail(r"^PUT .*/0{32}/", put)
    small.fail(r"^DELETE .*/0{32}/", Reply(403))
    store.add("id", SMALL)
    assert asked == {"1": "3600", "2": "40"}
