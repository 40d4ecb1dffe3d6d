"""What every measured process does: read its request, take the measures, print the answer.

A request is one JSON object in the first argument, the answer one JSON object in the last line
of the standard output.  Needs the standard library alone: it also runs in the peer's interpreter.

Which store a request is about: ``driver`` (``file`` when left out), its ``options``, on the peer's
side ``peer_options`` where they differ; ``context``, the attributes of a request context;
``python_path``, further places to import from; ``servers``, ids of the processes that serve it.
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

#: Bytes that a client sends before it stops sending, and how many adds are made beside such.
STALLED_AT = 20 * 1024 * 1024
BESIDE = 50

#: Small objects added, read and deleted before the measured ones, so that neither side pays for
#: its lazy imports in them.
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
    """The measures of one process, by phase: seconds, CPU seconds and peak memory."""

    def __init__(self) -> None:
        #: Whether the process could forget the peak of its imports.
        self.peak_reset = False
        #: Ids of the processes that serve the store, whose CPU seconds are counted too.
        self.servers: list[int] = []
        self.phases: dict[str, dict[str, float | int | None]] = {}
        self.idle()

    def idle(self) -> None:
        """Take what the process holds now as idle, above which peaks are counted.

        To be called when the store is configured: by then all that it needs is imported, which
        one library does with its own import and another when it loads a driver.
        """
        gc.collect()
        self._idle = memory("VmRSS")

    @contextlib.contextmanager
    def phase(self, name: str = "run") -> Iterator[None]:
        """Measure what happens inside; checks belong outside."""
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
    """Do what the request asks for and print the answer; an exception ends the process."""
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
    """Fill and free as much memory as is about to be stored in.

    On a virtual machine the host may have taken back what lay idle, and gives it again page by
    page at the first touch: seconds that say nothing of whoever is measured.
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
    """Return what this interpreter is made of, and the versions of some packages."""
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
    """Return the path that a file URI names."""
    if not uri.startswith("file://"):
        raise SystemExit(f"expected a file URI, got {uri}")
    return urllib.parse.unquote(uri.removeprefix("file://"))


@contextlib.contextmanager
def pipe_of(size: int) -> Iterator[IO[bytes]]:
    """Give the reading end of a pipe that another process fills with ``size`` bytes."""
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
    """Check that ``pieces`` are a file's bytes, all of them and in order."""
    with open(path, "rb", buffering=0) as file:
        for piece in pieces:
            if file.read(len(piece)) != piece:
                raise SystemExit("WrongBytes: what was read is not what was added")
        if file.read(1):
            raise SystemExit("WrongBytes: what was read ends early")


def write_out(pieces: Iterable[bytes], path: str) -> None:
    """Write what was read from a store to a file, for the parent to check."""
    with open(path, "wb") as file:
        for piece in pieces:
            file.write(piece)


def context_of(request: Request) -> Any:
    """Return the request context to call a store with, or ``None``."""
    attributes = request.get("context")
    return None if attributes is None else types.SimpleNamespace(**attributes)


class _Stalled:
    """The bytes of a client that sends some of them, and the rest only when it is let go on."""

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
    """Within the block, as many uploads are at work whose clients have stopped sending.

    :param upload: stores an object under an id, from a source
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
    """Measure adds of a KiB beside uploads of clients that have stopped sending."""
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
    """Many small objects, no two alike, and the checks of what was done with them.

    :param count: how many
    """

    def __init__(self, count: int) -> None:
        common = os.urandom(SMALL - 8)
        self.contents = [number.to_bytes(8, "little") + common for number in range(count)]

    def check_added(self, added: list[tuple[str, str, str]]) -> None:
        """Check the digests told: ``(uri, md5, sha512)`` of each; a later get shows the bytes."""
        for content, (uri, md5, sha512) in zip(self.contents, added, strict=True):
            told = (hashlib.md5(content).hexdigest(), hashlib.sha512(content).hexdigest())
            if told != (md5, sha512):
                raise SystemExit(f"WrongBytes: wrong digests for {uri}")

    def check_read(self, read: Iterable[bytes]) -> None:
        """Check what gets returned."""
        for content, data in zip(self.contents, read, strict=True):
            if data != content:
                raise SystemExit("WrongBytes: a get returned something else than was added")

    def check_deleted(self, uris: Iterable[str], there: Callable[[str], bool]) -> None:
        """Check that nothing is left, as ``there`` tells."""
        for uri in uris:
            if there(uri):
                raise SystemExit(f"WrongBytes: {uri} is still there after its delete")
