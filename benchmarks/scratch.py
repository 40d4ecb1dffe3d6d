"""A directory of a run's own, removed at its end; one that a killed run left, at the next start."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "store_lib-bench-"

#: Seconds after which an unlocked directory is a leftover: one just made is not locked yet.
_GRACE = 60.0


@contextlib.contextmanager
def directory(parent: Path) -> Iterator[Path]:
    """Make a directory in ``parent``, locked while the run lives, and remove it at the end."""
    _sweep(parent)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        with _locked(path) as held:
            assert held
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove what earlier runs of this user left behind when they were killed."""
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > _GRACE:
                with _locked(path) as held:
                    if held:
                        shutil.rmtree(path, ignore_errors=True)
