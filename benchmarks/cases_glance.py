"""Real Glance on store_lib and on glance_store, and the cost of Glance itself."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.case import Case, Contestant, Settings, Target, register

#: The digests that Glance asks its stores for.
BOTH = ("md5", "sha512")

#: uWSGI with a script that discards bodies and serves files.
BARE = "uWSGI without Glance"

_MEMORY = "/dev/shm"


@contextlib.contextmanager
def glances() -> Iterator[Mapping[str, Any]]:
    """Run Glance twice, each under uWSGI with one worker and a store in memory.

    Gives the URL and the process id of each by the name of its contestant.
    """
    from tests.servers.glance import glance
    from tests.servers.installed import python_environment
    from tests.servers.process import ServerProcess, free_ports

    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with contextlib.ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="store_lib-glance-", dir=memory)
        directory = Path(stack.enter_context(place))
        servers = {}
        for name, library in (("ours", "distribution"), ("peer", "glance_store")):
            running = stack.enter_context(
                glance(directory / name, library=library, processes=1)  # type: ignore[arg-type]
            )
            servers[name] = {"url": running.url, "pid": running.server.pid}
        (port,) = free_ports(1)
        script = Path(__file__).with_name("bare_wsgi.py")
        uwsgi = python_environment("glance") / "bin" / "uwsgi"
        command: list[str | Path] = [uwsgi, "--http-socket", f"127.0.0.1:{port}"]
        command += ["--wsgi-file", script, "--master", "--no-orphans"]
        bare = ServerProcess.start("uWSGI", command, log=directory / "bare", directory=directory)
        stack.callback(bare.stop, kill=True)
        bare.wait_for_port(port)
        servers[BARE] = {"url": f"http://127.0.0.1:{port}", "pid": bare.pid}
        yield {"glances": servers}


def _contestants(operation: str) -> tuple[Contestant, ...]:
    function = f"benchmarks.glance_client:{operation}"
    return (
        Contestant("ours", "ours", function, request={"glance": "ours"}),
        Contestant("peer", "peer", function, request={"glance": "peer"}),
        Contestant(BARE, "plain", function, request={"glance": BARE}),
    )


@register
def glance_upload(settings: Settings) -> Case:
    """Uploading an image; besides, the same add without Glance on either library."""
    return Case(
        name="glance-upload",
        title="Glance under uWSGI: upload of known length, CPU of the server, file store",
        size=settings.size,
        contestants=(
            *_contestants("upload"),
            Contestant("store_lib without Glance", "ours", "add"),
            Contestant("glance_store without Glance", "peer", "add"),
        ),
        targets=(Target(against="peer", at_least=1.3),),
        request={"digests": BOTH},
        fixture=glances,
    )


@register
def glance_upload_chunked(settings: Settings) -> Case:
    """Uploading an image in chunks, as most clients do."""
    return Case(
        name="glance-upload-chunked",
        title="Glance under uWSGI: upload in chunks of 64 KiB, CPU of the server, file store",
        size=settings.size,
        contestants=_contestants("upload_chunked")[:2],
        targets=(Target(against="peer", at_least=1.3),),
        request={"digests": BOTH},
        fixture=glances,
    )


@register
def glance_download(settings: Settings) -> Case:
    """Downloading an image."""
    return Case(
        name="glance-download",
        title="Glance under uWSGI: download, CPU of the server, file store",
        size=settings.size,
        contestants=_contestants("download"),
        request={"digests": BOTH},
        fixture=glances,
    )
