"""Attachments that the readers of one process share, so that each volume is attached once."""

import atexit
import contextlib
import dataclasses
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from store_lib.clients.process import PerProcess
from store_lib.display import get_logger
from store_lib.drivers.cinder.attachment import Attachment
from store_lib.exceptions import ErrorStatus, StoreError

if TYPE_CHECKING:
    from store_lib.drivers.cinder.api import Cinder

_LOG = get_logger(__name__)


@dataclasses.dataclass
class _Shared:
    """One volume's attachment and how many readers have it."""

    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    users: int = 0
    attachment: Attachment | None = None
    #: Whom the attachment was made through.
    cinder: "Cinder | None" = None


class _Table:
    def __init__(self) -> None:
        # Taken again by a thread that has it, where the collector drops a reader just then.
        self.lock = threading.RLock()
        self.volumes: dict[str, _Shared] = {}
        #: Attachments that could not be ended when their last reader did.
        self.owed: list[tuple[Attachment, Cinder]] = []


class SharedAttachments:
    """The volumes that readers have attached."""

    def __init__(self) -> None:
        # A child must neither use nor end what its parent has attached.
        self._table = PerProcess(_Table)
        _all.add(self)

    def take(
        self, volume_id: str, cinder: "Cinder", attach: Callable[[], Attachment]
    ) -> Attachment:
        """Return a volume's attachment, made by ``attach`` when there is none yet."""
        table = self._table.get()
        with table.lock:
            shared = table.volumes.setdefault(volume_id, _Shared())
            shared.users += 1
        try:
            with shared.lock:
                if shared.attachment is None:
                    shared.attachment, shared.cinder = attach(), cinder
                return shared.attachment
        except BaseException:
            self._leave(table, volume_id, shared)
            raise

    def owe(self, attachment: Attachment, cinder: "Cinder") -> None:
        """Remember to end an attachment that was never whole."""
        self._table.get().owed.append((attachment, cinder))

    def give(self, attachment: Attachment, cinder: "Cinder") -> None:
        """Say that a reader has ended; the last one's end detaches the volume.

        :raises StoreError: that did not work; :meth:`settle` tries again what may work later
        """
        table = self._table.get()
        with table.lock:
            shared = table.volumes.get(attachment.volume_id)
        if shared is None or shared.attachment is not attachment:
            attachment.detach(cinder)  # inherited: it ends with the parent
        elif self._leave(table, attachment.volume_id, shared):
            self._detach(table, attachment, cinder)

    def settle(self) -> None:
        """End the attachments that could not be ended before."""
        table = self._table.get()
        while table.owed:
            try:
                attachment, cinder = table.owed.pop()
            except IndexError:  # another thread was faster
                return
            try:
                self._detach(table, attachment, cinder)
            except StoreError as error:
                _LOG.warning("Volume %s is still attached: %s", attachment.volume_id, error)
                return

    @staticmethod
    def _detach(table: _Table, attachment: Attachment, cinder: "Cinder") -> None:
        try:
            attachment.detach(cinder)
        except StoreError as error:
            if error.status is not ErrorStatus.PERMANENT:
                table.owed.append((attachment, cinder))
            raise

    @staticmethod
    def _leave(table: _Table, volume_id: str, shared: _Shared) -> bool:
        """Count one reader less, and say whether it was the last."""
        with table.lock:
            shared.users -= 1
            if not shared.users:
                del table.volumes[volume_id]
        return not shared.users

    def end(self) -> None:
        """End all attachments, whoever reads: the process ends."""
        table = self._table.get()
        for shared in list(table.volumes.values()):
            if shared.attachment is not None and shared.cinder is not None:
                with contextlib.suppress(StoreError):
                    shared.attachment.detach(shared.cinder)
        self.settle()


_all: "weakref.WeakSet[SharedAttachments]" = weakref.WeakSet()


@atexit.register
def _end() -> None:
    """Detach while there still is an interpreter to do it; readers may be left open."""
    for each in list(_all):
        each.end()
