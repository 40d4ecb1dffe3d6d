"""A file descriptor that is never closed under the feet of a call that is using it."""

import logging
import os
import threading
from types import TracebackType

from store_lib.exceptions import StoreClosed

LOG = logging.getLogger(__name__)


class Descriptor:
    """An open file, closed once nobody uses it any more.

    A call that hangs on a dead mount is given up by the engine, which then closes the file.
    Were the number free at once, the next file opened anywhere in the process could get it, and
    the rest of the given-up call would go to that file.  So the last user closes.

    ``with descriptor as fd`` uses it; after :meth:`close` that raises ``StoreClosed``.
    """

    __slots__ = ("_closing", "_fd", "_lock", "_users")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False

    def __enter__(self) -> int:
        with self._lock:
            if self._closing:
                raise StoreClosed("The file is closed: its upload or download has ended.")
            self._users += 1
        return self._fd

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._users -= 1
            last = self._closing and not self._users
        if last:
            _close(self._fd)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing

    def close(self) -> None:
        """Close now, or when the last call at work on it has returned.  Idempotent."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            last = not self._users
        if last:
            _close(self._fd)

    def __del__(self) -> None:
        if not getattr(self, "_closing", True):
            self.close()


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError as error:
        # No harm: a writer asks for errors held back until close before it publishes.
        LOG.debug("Closing a file: %s", error)
