"""What the kit does in processes of its own: adds that are killed, races, memory, forks, exits.

``python -m store_lib.testing.worker CONFIGS STORE ACTION SPEC``: configuration files separated
like a PATH, a store's id, the name of a function below, and its arguments as a JSON object.  Each
action prints JSON, a line for each message.
"""

import contextlib
import faulthandler
import gc
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from store_lib import Store, Stores
from store_lib.exceptions import NotFound, StoreError
from store_lib.testing.content import Content
from store_lib.testing.contexts import open_stores
from store_lib.testing.expect import expect_bytes
from store_lib.testing.pace import Deadline

_MIB = 1024 * 1024


class Here:
    """What the process is to work on."""

    def __init__(self, configs: list[str], store_id: str, context: str) -> None:
        self._configs = configs
        self._store_id = store_id
        self._context = context

    def open(self) -> Stores:
        """Return the stores, made anew."""
        return open_stores(self._configs, self._context)

    def store_in(self, stores: Stores) -> Store:
        """Return the store under test."""
        return stores[self._store_id]


def say(**message: Any) -> None:
    """Print a message for the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


# Killed adds


def crash(here: Here, spec: dict[str, Any]) -> None:
    """Fork a process for each plan; each adds an object and is killed; say what each said.

    Once ``enough`` seconds have passed and ``least`` have died, the other plans are left out.  A
    plan has ``id``, ``size``, ``seed``, ``declared`` and one of ``at`` (dies when the source
    was asked for the bytes from there on) and ``commit`` (dies that share of a usual commit's time
    after the last byte was handed over).  One that lives to see its add succeed says so and then
    dies.
    """
    usual: dict[tuple[int, bool], float] = {}
    end = time.monotonic() + spec["enough"]
    for number, plan in enumerate(spec["plans"]):
        if number >= spec["least"] and time.monotonic() > end:
            break
        kind = plan["size"], plan["declared"]
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            try:
                _add_and_die(here, plan, usual.get(kind, 0.0), write)
            except BaseException as error:
                _write_line(write, error=f"{type(error).__name__}: {error}")
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read) as pipe:
            told: dict[str, Any] = {}
            for line in pipe:
                told.update(json.loads(line))
        _, status = os.waitpid(child, 0)
        if plan.get("measure"):
            usual[kind] = told.get("seconds", 0.0)
        say(id=plan["id"], killed=os.WIFSIGNALED(status), **told)


def _add_and_die(here: Here, plan: dict[str, Any], usual: float, pipe: int) -> None:
    content = Content(plan["size"], plan["seed"])
    last = [0.0]

    def pieces() -> Iterator[bytes]:
        step = max(1, content.size // 23)
        for offset in range(0, content.size, step):
            at = plan.get("at")
            if at is not None and offset + step > at:
                yield content.slice(offset, at - offset)
                _die()
            time.sleep(0.0005)
            if offset + step >= content.size:
                last[0] = time.perf_counter()
                if "commit" in plan:
                    _die_after(plan["commit"] * usual)
            yield content.slice(offset, step)
        if plan.get("at") is not None:
            _die()

    store = here.store_in(here.open())
    result = store.add(plan["id"], pieces(), content.size if plan["declared"] else None)
    _write_line(pipe, uri=result.uri, seconds=time.perf_counter() - last[0])
    _die()


def _write_line(pipe: int, **message: Any) -> None:
    os.write(pipe, json.dumps(message).encode() + b"\n")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_after(seconds: float) -> None:
    def run() -> None:
        time.sleep(seconds)
        _die()

    if seconds <= 0:
        _die()
    threading.Thread(target=run, daemon=True).start()


def inspect(here: Here, spec: dict[str, Any]) -> None:
    """Say of each object (``id``, ``uris``, ``size``, ``seed``) what of it is there.

    ``state`` is ``absent``, ``complete``, or a text that says what is wrong.
    """
    with here.open() as stores:
        store = here.store_in(stores)
        listed: dict[str, list[str]] = {}
        if "list" in store.capabilities:
            for entry in store.list():
                listed.setdefault(entry.object_id, []).append(entry.location.uri)
        for each in spec["objects"]:
            content = Content(each["size"], each["seed"])
            states = {
                uri: _state(store, uri, content)
                for uri in dict.fromkeys([*each["uris"], *listed.get(each["id"], [])])
            }
            there = {uri: state for uri, state in states.items() if state != "absent"}
            uri, state = next(iter(there.items()), (None, "absent"))
            if each["id"] in listed and uri is None:
                state = "listed, but neither stat nor get finds it"
            say(id=each["id"], uri=uri, state=state)


def _state(store: Store, uri: str, content: Content) -> str:
    sizes: list[int | None] = []
    with contextlib.suppress(NotFound):
        sizes.append(store.stat(uri).size)
    try:
        with store.get(uri) as reader:
            data = reader.read()
    except NotFound:
        return "absent" if not sizes else "stat finds it, get does not"
    except StoreError as error:
        return f"get raises {type(error).__name__}: {error}"
    if sizes != [content.size]:
        return f"stat tells a size of {sizes or 'nothing'}, the object had {content.size} bytes"
    if data == content.whole():
        return "complete"
    return f"get gives {len(data)} bytes that are not the {content.size} of the object"


# Races


def race(here: Here, spec: dict[str, Any]) -> None:
    """For each line on standard input, add an object at a given moment; say how it went.

    A line has ``id``, ``size``, ``seed``, ``start`` (when to begin) and ``meet`` (before when the
    last byte is held back), both on the system's monotonic clock; or an ``origin``, which is
    copied within the backend instead.
    """
    with here.open() as stores:
        store = here.store_in(stores)
        say(ready=True)
        for line in sys.stdin:
            round_ = json.loads(line)
            content = Content(round_["size"], round_["seed"])
            held = max(0, content.size - 1)

            def pieces(
                content: Content = content, held: int = held, meet: float = round_["meet"]
            ) -> Iterator[bytes]:
                for offset in range(0, held, _MIB):
                    yield content.slice(offset, min(_MIB, held - offset))
                _sleep_until(meet)
                yield content.slice(held)

            _sleep_until(round_["start"])
            try:
                if round_["origin"]:
                    result = store.copy(round_["origin"], round_["id"])
                else:
                    result = store.add(round_["id"], pieces(), content.size)
            except StoreError as error:
                say(won=False, error=type(error).__name__, text=str(error))
            else:
                say(won=True, uri=result.uri)


def _sleep_until(moment: float) -> None:
    pause = moment - time.monotonic()
    if pause > 0:
        time.sleep(pause)


# Memory


def memory(here: Here, spec: dict[str, Any]) -> None:
    """Move ``size`` bytes in all, several times; say how far the peak rose above the start.

    For each list in ``ids``, as many objects are added at once, from sources that hold no memory
    themselves; as many as ``gets`` of them are read at once, slowly at first; and all are deleted
    where that can be.  Without ``ids`` the object of ``uri`` is read.

    The cyclic garbage collector is off: it may come late, and what a transfer held must be free
    when it is over.
    """
    gc.disable()
    with here.open() as stores:
        store = here.store_in(stores)
        block = Content(_MIB).whole()

        def add(object_id: str, size: int, found: dict[str, str]) -> None:
            found[object_id] = store.add(object_id, _Filling(block, size)).uri

        def get(uri: str) -> None:
            with store.get(uri) as reader:
                for number, _ in enumerate(reader):
                    if number < 2:
                        time.sleep(0.2)  # all the time that a prefetch without bound could want

        def move(ids: list[str], size: int, gets: int) -> tuple[int, int]:
            found: dict[str, str] = {}
            added = _peak_of(lambda each: add(each, size, found), ids)
            got = _peak_of(get, list(found.values())[:gets])
            if "delete" in store.capabilities:
                for uri in found.values():
                    store.delete(uri)
            return added, got

        for each in spec["warm"]:
            move([each], 3 * _MIB, 1)
        for ids in spec["ids"]:
            gets = min(len(ids), spec["gets"])
            added, got = move(ids, spec["size"] // len(ids), gets)
            say(action="adds", at_once=len(ids), risen=added)
            say(action="gets", at_once=gets, risen=got)
        if spec["uri"] is not None:
            say(action="gets", at_once=1, risen=_peak_of(get, [spec["uri"]]))


class _Filling:
    """A source of ``size`` bytes that fills the buffers it is given, as a file or a pipe does."""

    def __init__(self, block: bytes, size: int) -> None:
        self._block = memoryview(block)
        self._left = size

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._left, len(self._block))
        buffer[:count] = self._block[:count]
        self._left -= count
        return count


def _peak_of(action: Callable[[str], None], arguments: list[str]) -> int:
    """Return by how many bytes the resident memory rose while ``action`` ran, in threads."""
    gc.collect()
    start = _resident("VmRSS")
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from now on
    failed: list[BaseException] = []

    def run(argument: str) -> None:
        try:
            action(argument)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return _resident("VmHWM") - start


def _resident(name: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name} in /proc/self/status")


# Forks


def fork(here: Here, spec: dict[str, Any]) -> None:
    """Use the stores, fork, use them in the child; say how each child fared, and the parent then.

    ``how``: ``idle``; ``standing`` (an add stands in the middle of its source in another thread
    meanwhile); or ``busy`` (threads are at work without a pause).  ``ids`` are for what is added,
    one for the parent, one for the add that stands, one for each of the children; without, the
    object of ``uri`` is read, and there are as many children as ``children`` says.  Once ``enough``
    seconds have passed and ``least`` children have ended, the others are left out.
    """
    faulthandler.register(signal.SIGUSR1)
    stores = here.open()
    store = here.store_in(stores)
    content = Content(spec["size"], 1)
    ids: list[str] = spec["ids"]
    uri: str = spec["uri"] or store.add(ids[0], content.pieces()).uri
    whole = _read(store, uri)
    reader = store.get(uri)
    begun = reader.read(10)
    ending = threading.Event()
    standing = threading.Event()
    made: list[str] = []

    def pieces() -> Iterator[bytes]:
        yield content.slice(0, content.size // 2)
        standing.set()
        ending.wait()
        yield content.slice(content.size // 2)

    def stand() -> None:
        made.append(store.add(ids[1], pieces()).uri)

    def work() -> None:
        try:
            while not ending.is_set():
                store.stat(uri)
                _read(store, uri)
                if ids and "delete" in store.capabilities:
                    store.delete(store.add(str(uuid.uuid4()), content.pieces()).uri)
        except BaseException as error:
            say(thread=f"{type(error).__name__}: {error}")

    tasks = {"idle": [], "standing": [stand], "busy": [work] * 3}[spec["how"]]
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    if spec["how"] == "standing":
        standing.wait()
    sys.setswitchinterval(1e-6)  # so that forks meet threads in the middle of anything
    end = time.monotonic() + spec["enough"]
    for number in range(spec["children"]):
        if number >= spec["least"] and time.monotonic() > end:
            break
        pid = os.fork()
        if pid == 0:
            _be_child(store, ids[2 + number] if ids else None, content, uri, whole)
        status = _wait(pid, spec["limit"])
        say(status=status)
        if status != 0:
            break
    ending.set()
    for thread in threads:
        thread.join()
    rest = begun + reader.read()
    reader.close()
    again = _read(store, uri)
    added = [each for each in made if _read(store, each) == content.whole()]
    stores.close()
    say(uri=uri, reader=rest == whole, again=again == whole, added=added)


def _be_child(
    store: Store, object_id: str | None, content: Content, uri: str, whole: bytes
) -> NoReturn:
    """Do in a forked child what every process must be able to do, and end it."""
    try:
        expect_bytes(_read(store, uri), whole, "what a forked child reads of the parent's object")
        if object_id is not None:
            mine = store.add(object_id, content.pieces()).uri
            expect_bytes(_read(store, mine), content.whole(), "what a forked child added")
            if "delete" in store.capabilities:
                store.delete(mine)
        os._exit(0)
    except BaseException as error:
        say(child=f"{type(error).__name__}: {error}")
    finally:
        os._exit(1)


def _read(store: Store, uri: str) -> bytes:
    with store.get(uri) as reader:
        return reader.read()


def _wait(pid: int, limit: float) -> int | None:
    """Return the exit status of ``pid``, or ``None`` if it had to be killed after ``limit`` s."""
    deadline = Deadline(limit)
    while not deadline.passed:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGUSR1)  # it tells where it hangs
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


# The interpreter's end


def leave(here: Here, spec: dict[str, Any]) -> None:
    """Use the store, close nothing, and let the interpreter end.

    ``how``: ``idle``, ``reader`` (an open reader) or ``generator`` (a suspended one around it).
    """
    stores = here.open()
    reader = here.store_in(stores).get(spec["uri"])

    def through() -> Iterator[bytes]:
        with reader:
            yield from reader

    pieces = through() if spec["how"] == "generator" else iter(reader)
    first = next(pieces)
    if spec["how"] == "idle":
        for _ in pieces:
            pass
    say(first=len(first))
    globals()["_kept"] = (stores, reader, pieces)


_ACTIONS: dict[str, Callable[[Here, dict[str, Any]], None]] = {
    each.__name__: each for each in (crash, inspect, race, memory, fork, leave)
}


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    configs, store_id, *context, action, spec = arguments
    here = Here(configs.split(os.pathsep), store_id, "".join(context))
    _ACTIONS[action](here, json.loads(spec))


if __name__ == "__main__":
    main(sys.argv[1:])
