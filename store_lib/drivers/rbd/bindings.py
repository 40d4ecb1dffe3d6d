"""Ceph's Python modules, imported when a store is configured, and the handles open in them.

librados and librbd crash the process when a handle (a connection, a pool, an image) is misused.  So
every handle is registered here, and these rules hold:

* A handle is never closed twice, nor during a call: the last call closes it.
* Handles are closed in order: images, then their pool, then its connection.
* A forked child drops inherited handles without touching them.  The threads behind them are gone,
  so that using or closing one hangs.
* At interpreter exit all handles are closed in order, after the running calls have returned.  No
  thread can start another call.  Handles in a call that hangs are left alone.
"""

import atexit
import contextlib
import ctypes
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from store_lib.clients.process import DeferredClose
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


_CLOSED = (
    "Expected a connection or an image that this process has open in Ceph, got one that is closed "
    "or was opened before a fork. Open it again in this process."
)

#: Seconds to wait for running calls at interpreter exit.
_EXIT_TIMEOUT = 5.0


class _State:
    """The open handles and the running calls of this process."""

    def __init__(self) -> None:
        # Reentrant, since a garbage collection may release a handle at any point.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.handles: dict[Any, DeferredClose] = {}
        self.calls = 0
        #: Whether interpreter exit has begun: no further call may start.
        self.exiting = False
        #: Whether exit has closed the handles that it could.
        self.closed = False


_state = _State()


def register(native: Any, close: Callable[[], object], parent: Any = None) -> Any:
    """Register a handle of librados or librbd, and return it.

    :param close: closes it
    :param parent: the handle it depends on, kept open until this one is closed: for a pool its
        connection, for an image its pool
    :raises BackendException: the parent is being closed
    """
    with _state.lock:
        handles = _state.handles
        above = handles.get(parent)
        if above is not None and not above.enter():
            close()
            raise BackendException(_CLOSED)

        def close_and_leave() -> None:
            handles.pop(native, None)
            try:
                close()
            finally:
                if above is not None:
                    with contextlib.suppress(Exception):
                        above.leave()

        handles[native] = DeferredClose(close_and_leave)
        if _state.closed:  # opened by a call that hung at exit
            _forget_handles()
    return native


def is_open(native: Any) -> bool:
    """Return whether a handle is open and was opened in this process."""
    handle = _state.handles.get(native)
    return handle is not None and not handle.closing


def release(native: Any) -> None:
    """Close a handle now, or at the end of its last running call.

    Does nothing if the handle is closed already or was opened before a fork.
    """
    handle = _state.handles.get(native)
    if handle is not None:
        handle.close()


@contextlib.contextmanager
def using(native: Any) -> Iterator[None]:
    """Keep a handle open during a ``with`` block.

    :raises BackendException: it is closed, or was opened before a fork
    """
    handle = _state.handles.get(native)
    if handle is None or not handle.enter():
        raise BackendException(_CLOSED)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # its release() has returned long ago
            handle.leave()


@contextlib.contextmanager
def calling() -> Iterator[None]:
    """Count the block as a running call of librados or librbd.

    :raises BackendException: the interpreter is exiting
    """
    state = _state
    with state.lock:
        if state.exiting:
            raise BackendException("The process is exiting: no further call to Ceph is made.")
        state.calls += 1
    try:
        yield
    finally:
        if state is _state:  # and not in a child
            with state.lock:
                state.calls -= 1
                if not state.calls:
                    state.changed.notify_all()


@contextlib.contextmanager
def opened(ioctx: Any, name: str | None, snapshot: str | None = None, **how: Any) -> Iterator[Any]:
    """Open an image for a ``with`` block; the parameters are those of :func:`open_image`."""
    image = open_image(ioctx, name, snapshot, **how)
    try:
        yield image
    finally:
        release(image)


def open_image(
    ioctx: Any, name: str | None, snapshot: str | None = None, *, read_only: bool = False, **by: Any
) -> Any:
    """Open an image, or a snapshot of it.  It then has a watcher, unless ``read_only``."""
    at_once = None if read_only else snapshot
    native = rbd.Image(ioctx, name, at_once, read_only=read_only, **by)
    image = register(native, native.close, ioctx)
    if snapshot != at_once:
        # In two steps: when librbd 16 opens a snapshot read-only, its thread locks the image once
        # more after the call has returned.  If the image is closed and freed by then, the process
        # crashes.  set_snap completes on a queue that close waits for, as does every other way
        # of opening used here.
        try:
            image.set_snap(snapshot)
        except BaseException:
            release(image)
            raise
    return image


def _forget_handles() -> None:
    """Drop all handles without touching them."""
    for native, handle in _state.handles.items():
        handle.forget()
        # A reference that is never returned: the destructor, which would close it, never runs.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
    _state.handles.clear()


def _after_fork() -> None:
    global _state
    _forget_handles()
    _state = _State()


def _at_exit() -> None:
    """Close all handles at interpreter exit.

    An image that is left open keeps its watcher for half a minute.  Until then it can be neither
    deleted nor, if unfinished, taken over.
    """
    with _state.lock:
        _state.exiting = True
        if _state.changed.wait_for(lambda: not _state.calls, _EXIT_TIMEOUT):
            for native in reversed(list(_state.handles)):
                with contextlib.suppress(Exception):
                    release(native)
        _state.closed = True
        _forget_handles()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
