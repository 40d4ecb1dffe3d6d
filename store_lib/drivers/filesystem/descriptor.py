"""A file descriptor that is never closed under the feet of a call that is using it, nor lost."""

import contextlib
import os
import weakref
from collections.abc import Iterator
from types import TracebackType

from store_lib.display import get_logger
from store_lib.exceptions import StoreClosed

LOG = get_logger(__name__)


class Descriptor:
    """An open file, closed once nobody uses it any more.

    A call that hangs on a dead mount is given up by the engine, which then closes the file.
    Were the number free at once, the next file opened anywhere in the process could get it, and
    the rest of the given-up call would go to that file.  So the last user closes.

    ``with descriptor as fd`` uses it; before it is open and after :meth:`close` that raises
    ``StoreClosed``.

    It is made before the file is opened, so that an interrupt (an exception from a signal's
    handler) finds it and no bare number is lost.  After a fork the child closes its copies: a
    lock would otherwise outlive the parent.

    :param fd: a descriptor that is open already; -1 for none yet
    """

    __slots__ = ("__weakref__", "_closing", "_open", "_users")

    def __init__(self, fd: int = -1) -> None:
        #: The number, in a list: it is taken out and closed on one line, so that an interrupt
        #: neither loses it nor lets it be closed twice.
        self._open = [fd] if fd >= 0 else []
        #: An entry for each user.  There is no lock, since every piece that is read or written
        #: would take it twice: who comes enters itself before it looks whether the file is
        #: closed, and who closes says so before it looks whether there are users.
        self._users: list[None] = []
        self._closing = False
        _ALL[id(self)] = weakref.ref(self)

    def open(self, path: str, flags: int, *, directory: int | None = None) -> None:
        """Open a file, or make one that only this user may open; once.

        :param directory: descriptor of the directory that a relative ``path`` starts from
        :raises OSError: it cannot be opened
        """
        self._open.append(os.open(path, flags, 0o600, dir_fd=directory))

    def __enter__(self) -> int:
        self._users.append(None)
        try:
            if not self._closing:
                return self._open[0]
        except IndexError:  # not opened yet
            pass
        self._leave()
        raise StoreClosed(
            "The file is closed: its upload or download has ended, or was begun by the "
            "parent of this process."
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        """Use it no longer, and close it if that is left to the last user."""
        if self._users:  # else this is a child, made by one of them
            self._users.pop()
        if self._closing and not self._users:
            self._close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing

    def close(self) -> None:
        """Close now, or when the last call at work on it has returned.  Idempotent."""
        self._closing = True
        if not self._users:
            self._close()

    def _close(self) -> None:
        try:
            if self._open:
                os.close(self._open.pop())
        except IndexError:
            pass  # another thread was quicker
        except OSError as error:
            # No harm: a writer asks for errors held back until close before it publishes.
            LOG.debug("Closing a file: %s", error)

    def __del__(self) -> None:
        # Whatever happened to close(): nobody can use it any more.
        _ALL.pop(id(self), None)
        if getattr(self, "_open", None):
            self._closing = True
            self._close()

    def _after_fork(self) -> None:
        """In the child: close its copy, whoever of the parent was using the file."""
        self._users.clear()
        self._closing = True
        self._close()


def closed() -> Descriptor:
    """Return one that is closed already."""
    file = Descriptor()
    file.close()
    return file


@contextlib.contextmanager
def opened(path: str, flags: int, *, directory: int | None = None) -> Iterator[int]:
    """Open a file for the length of a block.

    :param directory: descriptor of the directory that a relative ``path`` starts from
    :raises OSError: it cannot be opened
    """
    file = Descriptor()
    try:
        file.open(path, flags, directory=directory)
        with file as fd:
            yield fd
    finally:
        file.close()


#: By id.  Not a WeakSet: its Python code would run twice for each small object.
_ALL: dict[int, weakref.ref[Descriptor]] = {}


def _after_fork() -> None:
    for each in list(_ALL.values()):
        if (file := each()) is not None:
            file._after_fork()


os.register_at_fork(after_in_child=_after_fork)
