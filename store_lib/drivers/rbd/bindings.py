"""Ceph's own Python modules, loaded when a store is configured, and what is open in them.

librados and librbd end the process when what is open in them is used wrongly, so all of it is held
here, and

* nothing is closed twice, or while a call is in it: the last call closes it;
* what lies on a connection is closed before that: images, pools, the connection;
* a forked child lets go of what it inherited without touching it: the threads behind it are gone,
  and using or closing it hangs;
* at the interpreter's end everything is closed in order, once the calls under way have come back,
  and no thread that is left begins another.  What a call hangs in stays as it is.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import importlib
import os
import threading
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


#: Seconds that calls under way are waited for at the interpreter's end.
_LAST_WAIT = 5.0


@dataclasses.dataclass(slots=True)
class _Held:
    """Something that is open.

    :param close: closes it
    :param base: what it lies on, which stays open as long
    """

    close: Callable[[], object]
    base: Any
    #: How many calls are in it, and how many others lie on it.
    users: int = 0
    #: Whether the last of them is to close it.
    released: bool = False


class _State:
    """What is open in this process, and how many calls are under way."""

    def __init__(self) -> None:
        # Reentrant, as a garbage collection may close something in the middle of anything.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.open: dict[Any, _Held] = {}
        self.calls = 0
        #: Whether no call may begin any more, ...
        self.ended = False
        #: ... and whether what could be closed is closed.
        self.closed = False


_state = _State()


def keep(native: Any, close: Callable[[], object], base: Any = None) -> Any:
    """Take an object of librados or librbd into account, and return it.

    :param close: closes it
    :param base: what it lies on: the connection of a pool, the pool of an image
    """
    with _state.lock:
        below = _state.open.get(base)
        if below is not None:
            below.users += 1
        _state.open[native] = _Held(close, None if below is None else base)
        if _state.closed:  # by a call that hung
            _forget()
    return native


def is_ours(native: Any) -> bool:
    """Tell whether it is open and was opened in this process."""
    held = _state.open.get(native)
    return held is not None and not held.released


def release(native: Any) -> None:
    """Close an object, now or at the end of the last call that is in it.

    Does nothing if it is closed already, or was opened before a fork.
    """
    with _state.lock:
        held = _state.open.get(native)
        if held is None or held.released:
            return
        held.released = True
        if held.users:
            return
        del _state.open[native]
    _close(held)


def _close(held: _Held) -> None:
    try:
        held.close()
    finally:
        if held.base is not None:
            _leave(held.base)


def _leave(native: Any) -> None:
    with _state.lock:
        held = _state.open.get(native)
        if held is None:  # in a child, by a call that forked
            return
        held.users -= 1
        if held.users or not held.released:
            return
        del _state.open[native]
    with contextlib.suppress(Exception):  # who released it has gone on
        _close(held)


@contextlib.contextmanager
def using(native: Any) -> Iterator[None]:
    """Keep an object open for the time of a ``with`` block.

    :raises BackendException: it is closed, or was opened before a fork
    """
    with _state.lock:
        held = _state.open.get(native)
        if held is None or held.released:
            raise BackendException(
                "Expected something that this process has open in Ceph, got what is closed or was "
                "opened before a fork. Begin again in this process."
            )
        held.users += 1
    try:
        yield
    finally:
        _leave(native)


@contextlib.contextmanager
def calling() -> Iterator[None]:
    """Announce calls of librados or librbd.

    :raises BackendException: the interpreter is at its end
    """
    state = _state
    with state.lock:
        if state.ended:
            raise BackendException("The process is ending: nothing more is asked of Ceph.")
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
    """Have an image open for the time of a ``with`` block."""
    image = open_image(ioctx, name, snapshot, **how)
    try:
        yield image
    finally:
        release(image)


def open_image(
    ioctx: Any, name: str | None, snapshot: str | None = None, *, read_only: bool = False, **by: Any
) -> Any:
    """Open an image, or a snapshot of it.  Unless ``read_only``, it has a watcher from now on."""
    at_once = None if read_only else snapshot
    native = rbd.Image(ioctx, name, at_once, read_only=read_only, **by)
    image = keep(native, native.close, ioctx)
    if snapshot != at_once:
        # Not at once: the thread in which librbd 16 opens a snapshot read-only locks the image
        # once more after its caller was told, and may find it closed and freed by then, which
        # ends the process.  set_snap tells from a queue that a close waits for; and so does,
        # in effect, whatever else is opened here.
        try:
            image.set_snap(snapshot)
        except BaseException:
            release(image)
            raise
    return image


def _forget() -> None:
    """Let go of everything without touching it."""
    for native in _state.open:
        # One reference that nobody gives back: its destructor, which would close it, never runs.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
    _state.open.clear()


def _after_fork() -> None:
    global _state
    _forget()
    _state = _State()


def _end() -> None:
    """Close everything at the interpreter's end.

    An image that is not closed keeps its watcher for half a minute, in which it can be neither
    deleted nor, when it is unfinished, taken over.
    """
    with _state.lock:
        _state.ended = True
        if _state.changed.wait_for(lambda: not _state.calls, _LAST_WAIT):
            for native in reversed(list(_state.open)):
                with contextlib.suppress(Exception):
                    release(native)
        _state.closed = True
        _forget()


atexit.register(_end)
os.register_at_fork(after_in_child=_after_fork)
