"""Ceph's own Python modules, loaded when a store is configured, and what is open in them.

Nothing that librados or librbd opened survives a fork: in the child their threads are gone, and
using such an object, or closing it, hangs.  So all of them are held here while they are open; a
child lets go of them without touching them.
"""

import atexit
import contextlib
import ctypes
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from store_lib.exceptions import BackendException, DriverLoadFailure

#: The modules ``rados`` and ``rbd``, once :func:`load` has found them.
rados: Any = None
rbd: Any = None

_HOW = (
    "No package index has them: install python3-rados and python3-rbd of the distribution, which "
    "fit its own python3. A virtual environment made with that Python sees them once its "
    "site-packages, or a directory named in PYTHONPATH, has links to the two files rados.*.so and "
    "rbd.*.so of /usr/lib/python3/dist-packages."
)


def load(store_id: str) -> None:
    """Import the modules.

    :raises DriverLoadFailure: they are not installed for this Python
    """
    global rados, rbd
    try:
        rados, rbd = importlib.import_module("rados"), importlib.import_module("rbd")
    except ImportError as error:
        raise DriverLoadFailure(
            driver_name="rbd",
            reason=f"it needs Ceph's Python modules rados and rbd ({error}). {_HOW}",
            store=store_id,
        ) from error


#: Everything that is open: connections, pools, images.
_OPEN: set[Any] = set()


def keep(native: Any) -> Any:
    """Take an object of librados or librbd into account, and return it."""
    _OPEN.add(native)
    return native


def is_ours(native: Any) -> bool:
    """Tell whether it is open and was opened in this process."""
    return native in _OPEN


def release(native: Any, close: Callable[[], object]) -> None:
    """Close an object by ``close``, unless it is closed or was opened before a fork."""
    if is_ours(native):
        _OPEN.discard(native)
        close()


@contextlib.contextmanager
def opened(ioctx: Any, name: str | None, snapshot: str | None = None, **how: Any) -> Iterator[Any]:
    """Have an image open for the time of a ``with`` block."""
    image = open_image(ioctx, name, snapshot, **how)
    try:
        yield image
    finally:
        close_image(image)


def open_image(
    ioctx: Any, name: str | None, snapshot: str | None = None, *, read_only: bool = False, **by: Any
) -> Any:
    """Open an image, or a snapshot of it.  Unless ``read_only``, it has a watcher from now on."""
    at_once = None if read_only else snapshot
    image = keep(rbd.Image(ioctx, name, at_once, read_only=read_only, **by))
    if snapshot != at_once:
        # Not at once: what librbd 16 opens read-only and at a snapshot makes it crash, one time
        # in a thousand, when it is closed.
        try:
            image.set_snap(snapshot)
        except BaseException:
            close_image(image)
            raise
    return image


def close_image(image: Any) -> None:
    """Close an image; idempotent, and safe after a fork."""
    release(image, image.close)


def check_ours(image: Any) -> None:
    """Refuse an image that was opened before a fork, or that is closed.

    :raises BackendException: it is one
    """
    if not is_ours(image):
        raise BackendException(
            "Expected an image that this process has open, got one that is closed or was opened "
            "before a fork. Begin again in this process."
        )


def _forget_inherited() -> None:
    for native in _OPEN:
        # One reference that nobody gives back: its destructor, which would hang, never runs.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
    _OPEN.clear()


def _close_images() -> None:
    """At the interpreter's end: an image that is not closed keeps its watcher for half a minute,
    in which it can be neither deleted nor, when it is unfinished, taken over."""
    for native in list(_OPEN):
        if rbd is not None and isinstance(native, rbd.Image):
            with contextlib.suppress(Exception):
                close_image(native)


atexit.register(_close_images)
os.register_at_fork(after_in_child=_forget_inherited)
