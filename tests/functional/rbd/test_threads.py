"""Threads that close what others are in, and processes that end in the middle: nothing crashes."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from store_lib import Store
from store_lib.testing.pace import slowness
from tests.functional.rbd.behind import Behind, content, no_watcher

MIB = 1024 * 1024

_BEGIN = """
    import contextlib, io, sys, threading, store_lib
    store = store_lib.Stores.from_files(sys.argv[1])["it"]
    uri = sys.argv[2]
"""

#: Closes readers, each while another thread is in it.
_CLOSER = """
    def read(reader, begun):
        # What it is told when it is closed in the middle depends on the moment.
        with contextlib.suppress(ValueError, store_lib.exceptions.StoreError):
            while reader.read(4 * 1024 * 1024):
                begun.set()

    for _ in range(40):
        reader, begun = store.get(uri), threading.Event()
        thread = threading.Thread(target=read, args=(reader, begun))
        thread.start()
        begun.wait()
        reader.close()
        thread.join()
    print("done")
"""

#: Opens and closes the image in the ways of stat, list and get, in several threads.
_OPENER = """
    def work():
        for _ in range(60):
            store.stat(uri)
            [entry] = store.list()
            store.get(uri, 5, 1).close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print("done")
"""

#: Ends while threads read, look, and add.
_ENDER = """
    busy = threading.Barrier(4)

    def work(action):
        action()
        busy.wait()
        with contextlib.suppress(store_lib.exceptions.StoreError):
            while True:
                action()

    def read():
        with store.get(uri) as reader:
            while reader.read(4 * 1024 * 1024):
                pass

    def add():
        store.delete(store.add("other", io.BytesIO(bytes(1000)), 1000).uri)

    for action in (read, add, lambda: store.stat(uri)):
        threading.Thread(target=work, args=(action,), daemon=True).start()
    busy.wait()
    print("done")
"""


@pytest.mark.parametrize("program", [_CLOSER, _OPENER, _ENDER], ids=["close", "open", "end"])
def test_nothing_crashes(
    store: Store, behind: Behind, config: Path, object_id: str, program: str
) -> None:
    """librbd ends a process that closes what a call is in, at its end too; ours never does."""
    data = content(48 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    source = textwrap.dedent(_BEGIN) + textwrap.dedent(program)
    for _ in range(3 if program is _ENDER else 1):
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", source, config, uri],
            capture_output=True,
            text=True,
            timeout=120 * slowness(),
        )
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
        assert no_watcher(behind, object_id)
        for name in behind.names():
            if name != object_id:  # an add that the end met in the middle
                behind.remove(name)
    store.delete(uri)
