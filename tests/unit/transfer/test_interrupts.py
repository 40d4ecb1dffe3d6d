"""An interrupt (an exception from a signal's handler) at any line of the library leaves nothing.

Each operation is run once to see which lines it passes, and then once for each of them, with an
exception raised there by a trace function.  Where the line belongs to cleaning up, Python gives no
way to be safe; there the id is free, nothing is published, a sweep removes the rest, and no thread,
descriptor or memory stays once garbage has been collected.
"""

import ast
import contextlib
import functools
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import store_lib
from store_lib import Store
from store_lib.driver import HangPolicy
from store_lib.drivers.filesystem import FilesystemDriver
from store_lib.drivers.filesystem.location import staged_name
from store_lib.exceptions import NotSupported
from store_lib.options import StoreOptions
from store_lib.transfer.budget import PROCESS_BUDGET
from tests.unit.memory_driver import CHUNK, MemoryParts, memory_store

LIBRARY = f"{Path(store_lib.__file__).parent}/"
#: Makes a store, and a function that returns the ids of its objects.
Maker = Callable[[Path], tuple[Store, Callable[[], set[str]]]]
#: A line of code, and how often it had been passed when the interrupt came.
Place = tuple[str, int, int]

#: Functions that only clean up, by name.
CLEANING = frozenset(
    {
        *("abort", "close", "discard", "end", "finish", "free", "give_back", "release"),
        *("shrink", "stop", "withdraw", "__exit__"),
    }
)


class Interrupt(BaseException):
    """What a signal's handler raises."""


@functools.cache
def cleaning_lines(path: str) -> frozenset[int]:
    """Return the lines of ``finally`` and ``except`` blocks, and of functions that clean up."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(Path(path).read_text())):
        found: list[Any] = []
        if isinstance(node, ast.Try):
            found = [*node.finalbody, *node.handlers]
        elif isinstance(node, ast.FunctionDef) and (
            node.name in CLEANING or node.name.lstrip("_") in CLEANING
        ):
            found = [node]
        for each in found:
            lines.update(range(each.lineno, (each.end_lineno or each.lineno) + 1))
    return frozenset(lines)


def frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that called it, as far as they are the library's."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(LIBRARY):
            yield frame
        frame = frame.f_back


class Tracer:
    """Counts the lines of the library that a call passes in this thread, and raises at one.

    :param at: where to raise; ``None``: nowhere
    """

    def __init__(self, at: Place | None = None) -> None:
        self._at = at
        self._seen: dict[tuple[str, int], int] = {}
        self.passed: list[Place] = []
        #: Whether the line was one that cleans up, once it has been raised.
        self.cleaning: bool | None = None

    def __call__(self, frame: FrameType, event: str, argument: object) -> Any:
        path = frame.f_code.co_filename
        # An exception in __del__ goes nowhere.
        if not path.startswith(LIBRARY) or frame.f_code.co_name == "__del__":
            return None
        if event == "line":
            line = (path, frame.f_lineno)
            count = self._seen[line] = self._seen.get(line, 0) + 1
            place = (*line, count)
            self.passed.append(place)
            if place == self._at and not self._in_collection(frame):
                self.cleaning = any(
                    each.f_lineno in cleaning_lines(each.f_code.co_filename)
                    for each in frames(frame)
                )
                raise Interrupt(f"{path}:{frame.f_lineno}")
        return self

    def _in_collection(self, frame: FrameType) -> bool:
        return any(each.f_code.co_name == "__del__" for each in frames(frame))

    def run(self, call: Callable[[], object]) -> BaseException | None:
        """Make the call; return what it raised."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            call()
        except BaseException as error:
            # Without the frames, which hold what the call had.
            error.__context__ = error.__cause__ = None
            return error.with_traceback(None)
        finally:
            sys.settrace(before)
        return None


def content(size: int) -> Iterator[bytes]:
    """Yield so many bytes in pieces."""
    while size > 0:
        yield b"x" * min(size, CHUNK)
        size -= CHUNK


class Bench:
    """A store to interrupt, with checks of what is left afterwards."""

    def __init__(self, make: Maker, path: Path) -> None:
        self._path = path
        self.store, self.ids = make(path)
        self.abilities = {*self.store.capabilities}
        if "discard" in self.abilities:
            self.abilities.add("sweep")
        self.uri = self.store.add("origin", content(3 * CHUNK), 3 * CHUNK).uri
        self.number = 0

    def leave_something(self) -> None:
        """Put what a killed add leaves into the store's first directory."""
        (self._path / "0" / staged_name("old", "0" * 32)).write_bytes(b"x")

    def new_id(self) -> str:
        self.number += 1
        return f"it-{self.number}"

    def check(self, object_id: str, threads: set[threading.Thread], *, gone: bool) -> list[str]:
        """Return what is left that should not be, after a call that was interrupted."""
        wrong = []
        if gone and object_id in self.ids():
            wrong.append("published")
        deadline = time.monotonic() + 10
        while set(threading.enumerate()) - threads and time.monotonic() < deadline:
            time.sleep(0.001)  # until running writes have ended
            gc.collect()
        if left := set(threading.enumerate()) - threads:
            wrong.append(f"threads {left}")
        if PROCESS_BUDGET.used or PROCESS_BUDGET.contended:
            wrong.append(f"memory {PROCESS_BUDGET.used}")
        if object_id in self.store._calls._adding:
            wrong.append("id")
        if self.store._calls._running:
            wrong.append("call")
        return wrong

    def leftovers(self) -> list[str]:
        try:
            return [each.key for each in self.store.list_incomplete()]
        except NotSupported:
            return []

    def sweep(self) -> None:
        with contextlib.suppress(NotSupported):
            self.store.sweep(0)


def memory(parts: bool, timeout: float, once: int = 0) -> tuple[Store, Callable[[], set[str]]]:
    """Return a store in memory."""
    store, driver = memory_store(transfer_attempts=2)
    driver.copies = True
    if parts:
        driver.writer_class = MemoryParts
        driver.writer_settings = {"chunk_size": CHUNK, "once_limit": once or None, "concurrency": 2}
        driver.part_sizes = lambda number: CHUNK
    if timeout:
        driver.hang_policy = HangPolicy(timeout)
        store = Store("mem", "memory", driver, store.options)
    return store, lambda: set(driver.objects)


def filesystem(root: Path, directories: int, timeout: int) -> tuple[Store, Callable[[], set[str]]]:
    """Return a store on the file system."""
    paths = [root / f"{number}" for number in range(directories)]
    options = {"filesystem_store_datadirs": [str(path) for path in paths]}
    if directories == 1:
        options = {"filesystem_store_datadir": str(paths[0])}
    resolved = StoreOptions.of(
        FilesystemDriver.options,
        filesystem_store_timeout=timeout,
        filesystem_store_durable=False,
        filesystem_store_chunk_size=CHUNK,
        **options,
    )
    driver = FilesystemDriver("disk", resolved)
    driver.configure()

    def ids() -> set[str]:
        return {entry.object_id for entry in driver.list(context=None)}

    return Store("disk", "file", driver, resolved), ids


#: How each store is made, by name.
STORES: dict[str, Maker] = {
    "memory": lambda _: memory(False, 0),
    "memory, bounded": lambda _: memory(False, 30),
    "parts": lambda _: memory(True, 0, CHUNK // 2),
    "one request": lambda _: memory(True, 0),
    "file": lambda path: filesystem(path, 1, 0),
    "file, bounded": lambda path: filesystem(path, 1, 30),
    "files": lambda path: filesystem(path, 3, 0),
    "files, bounded": lambda path: filesystem(path, 3, 30),
}


def add(bench: Bench, object_id: str, size: int, known: bool) -> None:
    bench.store.add(object_id, content(size), size if known else None, digests=("md5", "sha1"))


def add_path(bench: Bench, object_id: str) -> None:
    bench.store.add(object_id, Path(__file__))


def broken_add(bench: Bench, object_id: str) -> None:
    """An add whose source fails, so that all the cleaning up is passed."""

    def broken() -> Iterator[bytes]:
        yield from content(3 * CHUNK)
        raise KeyError("broken")

    bench.store.add(object_id, broken())


def copy(bench: Bench, object_id: str) -> None:
    bench.store.copy(bench.uri, object_id)


def get(bench: Bench, object_id: str) -> None:
    with bench.store.get(bench.uri) as reader:
        reader.read(10)
        reader.read()


def get_range(bench: Bench, object_id: str) -> None:
    for _ in bench.store.get(bench.uri, 5, 2 * CHUNK):
        pass


def delete(bench: Bench, object_id: str) -> None:
    bench.store.delete(bench.store.add(object_id, b"x", 1).uri)


def sweep(bench: Bench, object_id: str) -> None:
    bench.leave_something()
    bench.store.sweep(0)


OPERATIONS: dict[str, Callable[[Bench, str], None]] = {
    "add small": functools.partial(add, size=10, known=True),
    "add": functools.partial(add, size=3 * CHUNK + 1, known=True),
    "add of unknown size": functools.partial(add, size=3 * CHUNK + 1, known=False),
    "add a path": add_path,
    "broken add": broken_add,
    "copy": copy,
    "get": get,
    "get a range": get_range,
    "delete": delete,
    "sweep": sweep,
}


def interrupt(bench: Bench, operation: Callable[[Bench, str], None], at: Place) -> str | None:
    """Run an operation with an interrupt at one place; return what is wrong afterwards."""
    object_id = bench.new_id()
    threads = set(threading.enumerate())
    descriptors = set(os.listdir("/proc/self/fd"))
    tracer = Tracer(at)
    error = tracer.run(functools.partial(operation, bench, object_id))
    if tracer.cleaning is None:
        return None  # this time it was not passed
    adds = operation not in (get, get_range, delete, sweep)
    if tracer.cleaning:
        gc.collect()
    if operation is sweep:
        bench.sweep()
    wrong = bench.check(object_id, threads, gone=error is not None and adds)
    left = bench.leftovers()
    if left and tracer.cleaning:
        bench.sweep()
        left = bench.leftovers()
    if left:
        wrong.append(f"left {left}")
        bench.sweep()
    if not set(os.listdir("/proc/self/fd")) <= descriptors:
        wrong.append("descriptors")
        gc.collect()
    if error is not None and not wrong and adds:
        bench.store.add(object_id, b"x", 1)  # the id is free
    if not wrong:
        return None
    path, line, count = at
    where = "cleaning, " if tracer.cleaning else ""
    return f"{path.removeprefix(LIBRARY)}:{line} ({where}{count}): {', '.join(wrong)}, {error!r}"


def places(bench: Bench, operation: Callable[[Bench, str], None]) -> list[Place]:
    """Return where to interrupt: each line when it is first passed."""
    found: dict[Place, None] = {}
    for _ in range(2):  # the first time is not like the others
        tracer = Tracer()
        tracer.run(functools.partial(operation, bench, bench.new_id()))
        found.update(dict.fromkeys(tracer.passed))
    return [place for place in found if place[2] == 1]


def interrupted(store: str, operation: str, tmp_path: Path, step: int = 1) -> list[str]:
    """Interrupt an operation at every ``step``-th line, and return what was wrong afterwards."""
    bench = Bench(STORES[store], tmp_path)
    if operation in ("copy", "sweep") and operation not in bench.abilities:
        return []
    found = places(bench, OPERATIONS[operation])[::step]
    assert len(found) > 9
    wrong = [interrupt(bench, OPERATIONS[operation], place) for place in found]
    bench.store.close()
    return [each for each in wrong if each is not None]


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Leave what is there already out of garbage collections."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    ("store", "operation"),
    [
        ("memory", "add"),
        ("memory, bounded", "add small"),
        ("memory", "copy"),
        ("parts", "broken add"),
        ("one request", "add"),
        ("file", "add small"),
        ("file, bounded", "get"),
        ("files", "copy"),
        ("files", "sweep"),
    ],
)
def test_an_interrupt_at_some_lines(store: str, operation: str, tmp_path: Path) -> None:
    """An exception at one line in nine leaves nothing behind."""
    wrong = interrupted(store, operation, tmp_path, step=9)
    assert not wrong, "\n".join(wrong)


@pytest.mark.deep("interrupts")
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("store", STORES)
def test_an_interrupt_at_each_line(store: str, operation: str, tmp_path: Path) -> None:
    """An exception at any line leaves nothing behind."""
    wrong = interrupted(store, operation, tmp_path)
    assert not wrong, "\n".join(wrong)
