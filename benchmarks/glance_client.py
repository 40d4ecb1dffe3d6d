"""The operations of a measured client of Glance; the CPU seconds are the server's.

Imports only urllib3 and the standard library, since it also runs in the peer's interpreter.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.child import BLOCK, Answer, Measures, Request, compare
from tests.servers.glance_api import CHUNK, ImageApi

_TICK = os.sysconf("SC_CLK_TCK")


def upload(request: Request, measures: Measures) -> Answer:
    """Send a file with its length."""
    return _upload(request, measures, request["size"])


def upload_chunked(request: Request, measures: Measures) -> Answer:
    """Send a file in chunks."""
    return _upload(request, measures, None)


def _upload(request: Request, measures: Measures, size: int | None) -> Answer:
    with _api(request) as api:
        image = _bare(request) or _warmed_up(api)
        with _phase(request, measures):
            _send(api, image, request["source"], size)
        if not _bare(request):
            _check(api, image, request)
            api.delete(image)
    return {"size": request["size"]}


def download(request: Request, measures: Measures) -> Answer:
    """Receive a file."""
    got = 0
    with _api(request) as api:
        image = _bare(request) or _warmed_up(api)
        if not _bare(request):
            _send(api, image, request["source"], request["size"])
        with _phase(request, measures), _get(api, image, request) as answer:
            while piece := answer.read(BLOCK):
                got += len(piece)
        with _get(api, image, request) as answer:
            compare(iter(lambda: answer.read(BLOCK), b""), request["source"])
        if not _bare(request):
            api.delete(image)
    return {"size": got}


def _bare(request: Request) -> str | None:
    """Return the substitute for an image id without Glance."""
    return None if request["glance"] in ("ours", "peer") else "bare"


def _warmed_up(api: ImageApi) -> str:
    """Return the id of a new image, after a small upload that triggers lazy imports."""
    with api.image() as small:
        api.upload(small, bytes(CHUNK), CHUNK)
        api.read(small)
    return api.create()


def _api(request: Request) -> ImageApi:
    return ImageApi(request["glances"][request["glance"]]["url"])


def _send(api: ImageApi, image: str, source: str, size: int | None) -> None:
    with open(source, "rb") as file:
        api.upload(image, iter(lambda: file.read(CHUNK), b""), size)


@contextlib.contextmanager
def _get(api: ImageApi, image: str, request: Request) -> Iterator[Any]:
    if _bare(request):
        answer = api.call("GET", request["source"], stream=True)
        yield answer
        answer.release_conn()
    else:
        with api.download(image) as answer:
            yield answer


def _check(api: ImageApi, image: str, request: Request) -> None:
    """Check the bytes and the digests that Glance has."""
    with open(request["source"], "rb") as file:
        sha512 = hashlib.file_digest(file, "sha512").hexdigest()
    if api.show(image)["os_hash_value"] != sha512:
        raise SystemExit("WrongBytes: Glance has another digest")
    with api.download(image) as answer:
        compare(iter(lambda: answer.read(BLOCK), b""), request["source"])


@contextlib.contextmanager
def _phase(request: Request, measures: Measures) -> Iterator[None]:
    """Measure the time, and the CPU seconds of the server's master and workers."""
    pid = request["glances"][request["glance"]]["pid"]
    before = _cpu(pid)
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    user, system = (after - was for after, was in zip(_cpu(pid), before, strict=True))
    measures.phases["run"] = {
        "seconds": seconds,
        "user_seconds": user,
        "system_seconds": system,
        "cpu_seconds": user + system,
    }


def _cpu(pid: int) -> tuple[float, float]:
    """Return the user and system seconds of a process and its children so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]) / _TICK, int(fields[12]) / _TICK
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        more = _cpu(int(child))
        user, system = user + more[0], system + more[1]
    return user, system
