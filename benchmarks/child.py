"""The main program of every measured process: read the request, measure, print the result.

The request is a JSON object in the first argument, the result a JSON object in the last line of
standard output.  Imports only the standard library, since it also runs in the peer's interpreter.

A request names the store by ``driver`` (default: ``file``), its ``options``, and ``peer_options``
if the peer's differ; ``context``, the attributes of a request context; ``python_path``, additional
directories to import from; ``servers``, ids of the processes that serve the store.
"""

import contextlib
import gc
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import ssl
import subprocess
import sys
import threading
import time
import types
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

BLOCK = 1024 * 1024

#: Bytes of one small object.
SMALL = 64 * 1024

#: Bytes that a client sends before it stalls, and the number of adds meanwhile.
STALLED_AT = 20 * 1024 * 1024
BESIDE = 50

#: Number of small objects that are added, read and deleted before the measurement, so that lazy
#: imports do not count.
WARM_UP = 20


def memory(field: str) -> int | None:
    """Return ``VmRSS`` (now) or ``VmHWM`` (the peak) of this process in bytes.

    Not ``ru_maxrss``: after a fork and exec that starts at what the parent held.
    """
    try:
        with open("/proc/self/status") as status:
            found = re.search(rf"^{field}:\s+(\d+) kB$", status.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def cpu_of(processes: Iterable[int]) -> float:
    """Return the CPU seconds that other processes have used so far, all together."""
    ticks = 0
    for process in processes:
        with open(f"/proc/{process}/stat") as status:
            fields = status.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Measures:
    """The measures of a process, by phase: seconds, CPU seconds and peak memory."""

    def __init__(self) -> None:
        #: Whether the peak memory of the imports could be reset.
        self.peak_reset = False
        #: Ids of the processes that serve the store; their CPU seconds count too.
        self.servers: list[int] = []
        self.phases: dict[str, dict[str, float | int | None]] = {}
        self.idle()

    def idle(self) -> None:
        """Take the current memory of the process as the base of peaks.

        Call it when the store is configured: then all modules are imported, which one library does
        with its own import and another when it loads a driver.
        """
        gc.collect()
        self._idle = memory("VmRSS")

    @contextlib.contextmanager
    def phase(self, name: str = "run") -> Iterator[None]:
        """Measure the block; checks belong outside."""
        gc.collect()
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as control:
            control.write("5")  # the peak is now what is held now
            self.peak_reset = True
        served = cpu_of(self.servers)
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        served = cpu_of(self.servers) - served
        peak = memory("VmHWM")
        self.phases[name] = {
            "seconds": seconds,
            "user_seconds": (user := after.ru_utime - before.ru_utime),
            "system_seconds": (system := after.ru_stime - before.ru_stime),
            "cpu_seconds": user + system,
            "server_cpu_seconds": served if self.servers else None,
            "idle_bytes": self._idle,
            "peak_bytes": None if peak is None or self._idle is None else peak - self._idle,
        }


Request = dict[str, Any]
Answer = dict[str, Any]
Operation = Callable[[Request, Measures], Answer]


def serve(operations: Mapping[str, Operation]) -> None:
    """Carry out the request and print the result; an exception ends the process."""
    measures = Measures()
    request = json.loads(sys.argv[1])
    sys.path[1:1] = request.get("python_path", [])
    measures.servers = request.get("servers", [])
    if request.get("touch"):
        touch_memory(request["datadir"], request["size"])
    module, _, name = request["operation"].rpartition(":")
    operation: Operation
    operation = getattr(importlib.import_module(module), name) if module else operations[name]
    answer = operation(request, measures)
    answer.setdefault("phases", measures.phases)
    answer.setdefault("peak_reset", measures.peak_reset)
    print(json.dumps(answer), flush=True)


def touch_memory(directory: str, size: int) -> None:
    """Fill and free as much memory as will be needed for the stored bytes.

    The host of a virtual machine may have reclaimed idle memory, and returns it page by page at the
    first access.  The time for that must not be measured.
    """
    path = f"{directory}.touched"
    block = bytes(BLOCK)
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(size // BLOCK):
                file.write(block)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def facts(*distributions: str) -> Answer:
    """Return the versions of this interpreter and of some packages."""
    packages: dict[str, str] = {}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": ssl.OPENSSL_VERSION,
        "packages": packages,
    }


def file_of(uri: str) -> str:
    """Return the path in a file URI."""
    if not uri.startswith("file://"):
        raise SystemExit(f"expected a file URI, got {uri}")
    return urllib.parse.unquote(uri.removeprefix("file://"))


@contextlib.contextmanager
def pipe_of(size: int) -> Iterator[IO[bytes]]:
    """Yield the reading end of a pipe to which another process writes ``size`` bytes."""
    command = [sys.executable, "-m", "benchmarks.pattern", str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        try:
            yield writer.stdout
        except BaseException:
            writer.kill()
            raise
    if writer.returncode:
        raise SystemExit(f"the writer at the pipe ended with status {writer.returncode}")


def compare(pieces: Iterable[bytes], path: str) -> None:
    """Check that ``pieces`` are exactly the bytes of a file."""
    with open(path, "rb", buffering=0) as file:
        for piece in pieces:
            if file.read(len(piece)) != piece:
                raise SystemExit("WrongBytes: what was read is not what was added")
        if file.read(1):
            raise SystemExit("WrongBytes: what was read ends early")


def write_out(pieces: Iterable[bytes], path: str) -> None:
    """Write the bytes read from a store to a file, for the parent to check."""
    with open(path, "wb") as file:
        for piece in pieces:
            file.write(piece)


def context_of(request: Request) -> Any:
    """Return the request context to call a store with, or ``None``."""
    attributes = request.get("context")
    return None if attributes is None else types.SimpleNamespace(**attributes)


class _Stalled:
    """A source that stalls half-way until it is released."""

    def __init__(self, go_on: threading.Event) -> None:
        self.sent = 0
        self._go_on = go_on

    def read(self, amount: int = -1) -> bytes:
        if self.sent >= STALLED_AT or self._go_on.is_set():
            self._go_on.wait()
            return b""
        self.sent += BLOCK
        return bytes(BLOCK)


@contextlib.contextmanager
def stalled_clients(count: int, upload: Callable[[str, Any], object]) -> Iterator[None]:
    """Run stalled uploads in the background for the duration of the block.

    :param upload: a function that stores an object, given its id and a source
    """
    go_on = threading.Event()
    sources = [_Stalled(go_on) for _ in range(count)]
    threads = [
        threading.Thread(target=upload, args=(f"stalled-{number}", source))
        for number, source in enumerate(sources)
    ]
    for thread in threads:
        thread.start()
    sent = -1
    while sent != (sent := sum(each.sent for each in sources)):
        time.sleep(1)  # until all have sent their part, or wait for memory
    try:
        yield
    finally:
        go_on.set()
        for thread in threads:
            thread.join()


def add_beside(
    measures: Measures, count: int, upload: Callable[[str, Any], object], add: Callable[[str], Any]
) -> Answer:
    """Measure adds of 1 KiB while other uploads are stalled."""
    for number in range(WARM_UP):
        add(f"warm-up-{number}")
    measures.idle()
    worst = 0.0
    with stalled_clients(count, upload), measures.phase():
        for number in range(BESIDE):
            began = time.perf_counter()
            add(f"small-{number}")
            worst = max(worst, time.perf_counter() - began)
    measures.phases["run"]["worst_seconds"] = worst
    return {"size": BESIDE * 1024}


class SmallObjects:
    """Many different small objects, and checks of operations on them.

    :param count: the number of objects
    """

    def __init__(self, count: int) -> None:
        common = os.urandom(SMALL - 8)
        self.contents = [number.to_bytes(8, "little") + common for number in range(count)]

    def check_added(self, added: list[tuple[str, str, str]]) -> None:
        """Check the digests of ``(uri, md5, sha512)`` of each object."""
        for content, (uri, md5, sha512) in zip(self.contents, added, strict=True):
            digests = (hashlib.md5(content).hexdigest(), hashlib.sha512(content).hexdigest())
            if digests != (md5, sha512):
                raise SystemExit(f"WrongBytes: wrong digests for {uri}")

    def check_read(self, read: Iterable[bytes]) -> None:
        """Check the bytes that gets returned."""
        for content, data in zip(self.contents, read, strict=True):
            if data != content:
                raise SystemExit("WrongBytes: a get returned something else than was added")

    def check_deleted(self, uris: Iterable[str], there: Callable[[str], bool]) -> None:
        """Check that ``there`` is false for every object."""
        for uri in uris:
            if there(uri):
                raise SystemExit(f"WrongBytes: {uri} is still there after its delete")
