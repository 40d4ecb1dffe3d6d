"""Cleans up after a test run that was killed: processes, mounts, loop devices, directories.

A run gets its own mount namespace, so that its mounts end with its processes, and a watcher: a
process of this file that waits for the end of the run and then removes what is left.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: Environment variable with the file that lists what to remove; child processes inherit it.
_VARIABLE = "STORE_LIB_TEST_LEFTOVERS"

# Flags of unshare(2) and mount(2).
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def watch_this_run() -> None:
    """Give this process and its children a mount namespace and a watcher, once in a run.

    Without the rights for a namespace (root) the run cannot mount anything either, and gets only
    the watcher.
    """
    if _VARIABLE in os.environ:
        return
    handle, path = tempfile.mkstemp(prefix="store_lib-leftovers-")
    os.close(handle)
    os.environ[_VARIABLE] = path
    outside = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    namespaces = [outside]
    if _leave_mount_namespace():
        namespaces.append(os.open("/proc/self/ns/mnt", os.O_RDONLY))
    watcher = subprocess.Popen(
        [sys.executable, "-I", __file__, str(os.getpid()), path, *map(str, namespaces)],
        stdin=subprocess.DEVNULL,
        pass_fds=namespaces,
        start_new_session=True,  # a kill of the run's process group must not hit it
    )
    watcher.returncode = 0  # nobody waits for it
    for each in namespaces:
        os.close(each)


def remove_afterwards(path: Path) -> None:
    """Remove a file or a directory after the run, even if the run is killed."""
    _note("remove", path)


def detach_afterwards(directory: Path) -> None:
    """Detach the loop devices for files below ``directory`` after the run."""
    _note("detach", directory)


def _note(what: str, path: Path) -> None:
    if file := os.environ.get(_VARIABLE):
        line = json.dumps({"what": what, "path": str(path)}) + "\n"
        with open(file, "ab", buffering=0) as opened:
            opened.write(line.encode())


def _leave_mount_namespace() -> bool:
    """Make a private mount namespace and return whether that succeeded."""
    system = ctypes.CDLL(None)
    return (
        os.geteuid() == 0
        and system.unshare(_CLONE_NEWNS) == 0
        and system.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0
    )


# The watcher


def watch(run: int, path: str, outside: int, inside: int | None = None) -> None:
    """Wait for the end of the process ``run``, then kill and remove what it left.

    :param outside: descriptor of the original mount namespace
    :param inside: descriptor of the run's mount namespace; open, so that its number is not reused
    """
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(run)], [], [])
    if inside is not None:
        _end_all_in(inside)
        if ctypes.CDLL(None).setns(outside, _CLONE_NEWNS) != 0:
            sys.exit("The watcher of a test run cannot leave the run's mount namespace.")
        os.close(inside)  # and with it everything that is mounted there
    for line in Path(path).read_text().splitlines():
        note = json.loads(line)
        if note["what"] == "detach":
            _detach(note["path"])
        else:
            with contextlib.suppress(OSError):
                os.unlink(note["path"])
            shutil.rmtree(note["path"], ignore_errors=True)
    os.unlink(path)


def _end_all_in(namespace: int) -> None:
    """Kill all other processes in the mount namespace until none is left."""
    wanted = os.fstat(namespace)
    while True:
        found = []
        for each in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError):  # it has ended; a dead one has no namespace
                if os.path.samestat(os.stat(f"/proc/{each}/ns/mnt"), wanted):
                    found.append(each)
        found.remove(os.getpid())
        if not found:
            return
        for each in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        time.sleep(0.05)


def _detach(directory: str) -> None:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().startswith(f"{directory}/"):
                subprocess.run(["losetup", "--detach", f"/dev/{backing.parts[3]}"], check=False)


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
