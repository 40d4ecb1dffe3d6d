"""The actions of child processes: killed adds, races, memory, forks, the interpreter's exit.

The command line is ``python -m store_lib.testing.worker CONFIGS STORE CONTEXT ACTION SPEC``:
configuration files separated as in ``PATH``, a store id, the file for ``--store-context`` or an
empty string, the name of an action below, and its arguments as a JSON object.  An action prints
its messages as JSON, one on each line.
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


class WorkerArgs:
    """The store under test, from the command line."""

    def __init__(self, configs: list[str], store_id: str, context: str) -> None:
        self._configs = configs
        self._store_id = store_id
        self._context = context

    def open(self) -> Stores:
        """Open the configured stores anew."""
        return open_stores(self._configs, self._context)

    def store_in(self, stores: Stores) -> Store:
        """Return the store under test."""
        return stores[self._store_id]


def report(**message: Any) -> None:
    """Print a message for the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


# Killed adds


def crash(args: WorkerArgs, spec: dict[str, Any]) -> None:
    """For each plan, fork a process that adds an object and is killed; report its messages.

    A plan has ``id``, ``size``, ``seed``, ``declared`` and one of ``at`` (the process dies when
    the source is asked for the bytes from this offset) and ``commit`` (it dies after the last byte
    was read, when this fraction of the usual time of a commit has passed).  A process whose add
    succeeds reports the URI and then dies.

    After ``enough`` seconds and ``least`` deaths, the remaining plans are skipped.
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
                _add_and_die(args, plan, usual.get(kind, 0.0), write)
            except BaseException as error:
                _write_line(write, error=f"{type(error).__name__}: {error}")
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read) as pipe:
            result: dict[str, Any] = {}
            for line in pipe:
                result.update(json.loads(line))
        _, status = os.waitpid(child, 0)
        if plan.get("measure"):
            usual[kind] = result.get("seconds", 0.0)
        report(id=plan["id"], killed=os.WIFSIGNALED(status), **result)


def _add_and_die(args: WorkerArgs, plan: dict[str, Any], usual: float, pipe: int) -> None:
    content = Content(plan["size"], plan["seed"])
    last = [0.0]

    def chunks() -> Iterator[bytes]:
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

    store = args.store_in(args.open())
    result = store.add(plan["id"], chunks(), content.size if plan["declared"] else None)
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


def inspect(args: WorkerArgs, spec: dict[str, Any]) -> None:
    """Report the ``state`` of each object (``id``, ``uris``, ``size``, ``seed``).

    It is ``absent``, ``complete``, or a text that says what is wrong.
    """
    with args.open() as stores:
        store = args.store_in(stores)
        listed: dict[str, list[str]] = {}
        if "list" in store.capabilities:
            for entry in store.list():
                listed.setdefault(entry.object_id, []).append(entry.location.uri)
        for item in spec["objects"]:
            content = Content(item["size"], item["seed"])
            states = {
                uri: _state(store, uri, content)
                for uri in dict.fromkeys([*item["uris"], *listed.get(item["id"], [])])
            }
            present = {uri: state for uri, state in states.items() if state != "absent"}
            uri, state = next(iter(present.items()), (None, "absent"))
            if item["id"] in listed and uri is None:
                state = "listed, but neither stat nor get finds it"
            report(id=item["id"], uri=uri, state=state)


def _state(store: Store, uri: str, content: Content) -> str:
    sizes: list[int | None] = []
    with contextlib.suppress(NotFound):
        sizes.append(store.stat(uri).size)
    try:
        with store.get(uri) as reader:
            data = reader.read()
    except NotFound:
        return "absent" if not sizes else "stat finds it, but get does not"
    except StoreError as error:
        return f"get raises {type(error).__name__}: {error}"
    if sizes != [content.size]:
        return f"stat returns {sizes or 'no size'}, but the object had {content.size} bytes"
    if data == content.whole():
        return "complete"
    return f"get returns {len(data)} bytes that differ from the {content.size} of the object"


# Races


def race(args: WorkerArgs, spec: dict[str, Any]) -> None:
    """For each line on standard input, add an object at a given time and report the result.

    A line has ``id``, ``size``, ``seed``, ``start`` (when to begin) and ``meet`` (the last byte is
    held back until then), both in seconds of the monotonic clock.  If ``origin`` is not null, that
    object is copied within the backend instead.
    """
    with args.open() as stores:
        store = args.store_in(stores)
        report(ready=True)
        for line in sys.stdin:
            round_ = json.loads(line)
            content = Content(round_["size"], round_["seed"])
            held = max(0, content.size - 1)

            def chunks(
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
                    result = store.add(round_["id"], chunks(), content.size)
            except StoreError as error:
                report(won=False, error=type(error).__name__, text=str(error))
            else:
                report(won=True, uri=result.uri)


def _sleep_until(moment: float) -> None:
    pause = moment - time.monotonic()
    if pause > 0:
        time.sleep(pause)


# Memory


def memory(args: WorkerArgs, spec: dict[str, Any]) -> None:
    """Transfer ``size`` bytes several times and report by how much the memory grew at most.

    For each list in ``ids``, its objects are added at once, from sources that hold no memory.  Up
    to ``gets`` of them are then read at once, slowly at first, and all are deleted if the store
    can do that.  Without ``ids``, the object of ``uri`` is read.

    The cyclic garbage collector is off, since it may run late: what a transfer held must be freed
    when it ends.
    """
    gc.disable()
    with args.open() as stores:
        store = args.store_in(stores)
        block = Content(_MIB).whole()

        def add(object_id: str, size: int, uris: dict[str, str]) -> None:
            uris[object_id] = store.add(object_id, _RepeatedBlock(block, size)).uri

        def get(uri: str) -> None:
            with store.get(uri) as reader:
                for number, _ in enumerate(reader):
                    if number < 2:
                        time.sleep(0.2)  # enough time for an unbounded prefetch

        def move(ids: list[str], size: int, gets: int) -> tuple[int, int]:
            uris: dict[str, str] = {}
            added = _peak_of(lambda object_id: add(object_id, size, uris), ids)
            got = _peak_of(get, list(uris.values())[:gets])
            if "delete" in store.capabilities:
                for uri in uris.values():
                    store.delete(uri)
            return added, got

        for object_id in spec["warm"]:
            move([object_id], 3 * _MIB, 1)
        for ids in spec["ids"]:
            gets = min(len(ids), spec["gets"])
            added, got = move(ids, spec["size"] // len(ids), gets)
            report(action="adds", at_once=len(ids), growth=added)
            report(action="gets", at_once=gets, growth=got)
        if spec["uri"] is not None:
            report(action="gets", at_once=1, growth=_peak_of(get, [spec["uri"]]))


class _RepeatedBlock:
    """A source of ``size`` bytes that has ``readinto``, as a file or a pipe has."""

    def __init__(self, block: bytes, size: int) -> None:
        self._block = memoryview(block)
        self._left = size

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._left, len(self._block))
        buffer[:count] = self._block[:count]
        self._left -= count
        return count


def _peak_of(action: Callable[[str], None], arguments: list[str]) -> int:
    """Run ``action`` in a thread for each argument; return the growth of resident memory."""
    gc.collect()
    start = _resident("VmRSS")
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
    failed: list[BaseException] = []

    def run(argument: str) -> None:
        try:
            action(argument)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(argument,)) for argument in arguments]
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


def fork(args: WorkerArgs, spec: dict[str, Any]) -> None:
    """Use the stores, fork and use them in the children; report the results of all processes.

    ``how`` is the state of the parent: ``idle``; ``paused`` (another thread runs an add whose
    source pauses half-way); or ``busy`` (threads transfer all the time).

    ``ids`` are object ids for the parent, for the paused add and for each of the ``children``
    children.  Without ``ids``, the object of ``uri`` is read.  After ``enough`` seconds and
    ``least`` children, the remaining ones are skipped.
    """
    faulthandler.register(signal.SIGUSR1)
    stores = args.open()
    store = args.store_in(stores)
    content = Content(spec["size"], 1)
    ids: list[str] = spec["ids"]
    uri: str = spec["uri"] or store.add(ids[0], content.chunks()).uri
    whole = _read(store, uri)
    reader = store.get(uri)
    begun = reader.read(10)
    ending = threading.Event()
    paused = threading.Event()
    added_uris: list[str] = []

    def chunks() -> Iterator[bytes]:
        yield content.slice(0, content.size // 2)
        paused.set()
        ending.wait()
        yield content.slice(content.size // 2)

    def pause() -> None:
        added_uris.append(store.add(ids[1], chunks()).uri)

    def work() -> None:
        try:
            while not ending.is_set():
                store.stat(uri)
                _read(store, uri)
                if ids and "delete" in store.capabilities:
                    store.delete(store.add(str(uuid.uuid4()), content.chunks()).uri)
        except BaseException as error:
            report(thread=f"{type(error).__name__}: {error}")

    tasks = {"idle": [], "paused": [pause], "busy": [work] * 3}[spec["how"]]
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    if spec["how"] == "paused":
        paused.wait()
    sys.setswitchinterval(1e-6)  # forks then interrupt threads anywhere
    end = time.monotonic() + spec["enough"]
    for number in range(spec["children"]):
        if number >= spec["least"] and time.monotonic() > end:
            break
        pid = os.fork()
        if pid == 0:
            _be_child(store, ids[2 + number] if ids else None, content, uri, whole)
        status = _wait(pid, spec["limit"])
        report(status=status)
        if status != 0:
            break
    ending.set()
    for thread in threads:
        thread.join()
    read = begun + reader.read()
    reader.close()
    again = _read(store, uri)
    added = [uri for uri in added_uris if _read(store, uri) == content.whole()]
    stores.close()
    report(uri=uri, reader=read == whole, again=again == whole, added=added)


def _be_child(
    store: Store, object_id: str | None, content: Content, uri: str, whole: bytes
) -> NoReturn:
    """Read and add an object in a forked child, and end the process."""
    try:
        expect_bytes(_read(store, uri), whole, "the parent's object, read in a forked child")
        if object_id is not None:
            own = store.add(object_id, content.chunks()).uri
            expect_bytes(_read(store, own), content.whole(), "an object added in a forked child")
            if "delete" in store.capabilities:
                store.delete(own)
        os._exit(0)
    except BaseException as error:
        report(child=f"{type(error).__name__}: {error}")
    finally:
        os._exit(1)


def _read(store: Store, uri: str) -> bytes:
    with store.get(uri) as reader:
        return reader.read()


def _wait(pid: int, limit: float) -> int | None:
    """Return the exit status of a process, or ``None`` after killing it at the time limit."""
    deadline = Deadline(limit)
    while not deadline.passed:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGUSR1)  # makes it print the stacks of its threads
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


# The interpreter's exit


def leave(args: WorkerArgs, spec: dict[str, Any]) -> None:
    """Use the store and let the interpreter exit without closing anything.

    ``how`` is what is open: nothing but the stores (``idle``), a ``reader``, or a suspended
    ``generator`` that reads from it.
    """
    stores = args.open()
    reader = args.store_in(stores).get(spec["uri"])

    def generate() -> Iterator[bytes]:
        with reader:
            yield from reader

    chunks = generate() if spec["how"] == "generator" else iter(reader)
    first = next(chunks)
    if spec["how"] == "idle":
        for _ in chunks:
            pass
    report(first=len(first))
    globals()["_kept"] = (stores, reader, chunks)


_ACTIONS: dict[str, Callable[[WorkerArgs, dict[str, Any]], None]] = {
    action.__name__: action for action in (crash, inspect, race, memory, fork, leave)
}


def main(arguments: list[str]) -> None:
    """Run the action that the command line names."""
    configs, store_id, *context, action, spec = arguments
    args = WorkerArgs(configs.split(os.pathsep), store_id, "".join(context))
    _ACTIONS[action](args, json.loads(spec))


if __name__ == "__main__":
    main(sys.argv[1:])
