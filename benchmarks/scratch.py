"""A temporary directory for a run; those of killed runs are removed at the next start."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "store_lib-bench-"

#: Age in seconds from which an unlocked directory is a leftover; a new one is not locked yet.
_GRACE = 60.0


@contextlib.contextmanager
def directory(parent: Path) -> Iterator[Path]:
    """Make a directory in ``parent``, keep it locked during the run, and remove it at the end."""
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
    """Remove the directories of this user's killed runs."""
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > _GRACE:
                with _locked(path) as held:
                    if held:
                        shutil.rmtree(path, ignore_errors=True)
