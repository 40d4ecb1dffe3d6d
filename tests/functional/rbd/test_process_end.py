"""A process that ends while its threads are in Ceph's libraries: nothing crashes."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

from store_lib import Store
from store_lib.testing.pace import slowness
from tests.functional.rbd.behind import Behind, content, no_watcher

MIB = 1024 * 1024

_BEGIN = """
    import contextlib, io, sys, threading, store_lib
    store = store_lib.Stores.from_files(sys.argv[1])["it"]
    uri = sys.argv[2]
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


def test_a_process_that_ends_in_the_middle_does_not_crash(
    store: Store, behind: Behind, config: Path, object_id: str
) -> None:
    """librbd ends a process that closes what a call is in, at its end too; ours never does."""
    data = content(48 * MIB)
    uri = store.add(object_id, io.BytesIO(data), len(data)).uri
    source = textwrap.dedent(_BEGIN) + textwrap.dedent(_ENDER)
    for _ in range(3):
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
