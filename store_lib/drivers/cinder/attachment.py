"""A volume attached to this host, from Cinder's permission to an open device, and back."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from store_lib.clients.library_calls import LibraryCall
from store_lib.drivers.cinder.connection import Connection
from store_lib.drivers.cinder.devices import Device
from store_lib.drivers.cinder.errors import on_attach
from store_lib.drivers.cinder.volume import Volume
from store_lib.exceptions import BackendException, NotFound, StoreError

if TYPE_CHECKING:
    from store_lib.drivers.cinder.api import Cinder
    from store_lib.drivers.cinder.brick import Host


class Attachment:
    """A volume that is attached here.

    Made only whole: what goes wrong on the way is undone.  While it is in use a lock on this host
    shows that, so that a sweep finds what a killed process has left.

    :param mode: ``ro`` or ``rw``
    :param patience: seconds to wait for others who are about to attach it
    :param owe: is given what ends the attachment later, where it was not made whole and could not
        be ended now
    """

    def __init__(
        self,
        cinder: "Cinder",
        host: "Host",
        volume: Volume,
        *,
        mode: str,
        patience: float,
        owe: "Callable[[Attachment], object] | None" = None,
    ) -> None:
        self.volume_id = volume.id
        self._host = host
        self._volume = volume
        self._process = os.getpid()
        self._lock = host.volume_lock(volume.id)
        # Nobody else has a volume that is being written.
        self._alone = mode == "rw" or not volume.multiattach
        self._connection: Connection | None = None
        self._disconnected = self._release_asked = self._ended = False
        # One at a time on this host: Cinder lets nobody in between, and os-brick must not take
        # away a device that somebody is about to open.
        with self._lock.held():
            self._id = cinder.reserve(volume.id, mode, patience)
            self._used = host.attachment_lock(self._id)
            try:
                self._used.wait()
                self._connection = self._connect(cinder, writable=mode == "rw")
            except BaseException as error:
                host.forget_properties()
                self._disconnected = True  # as far as that could be
                try:
                    self._release(cinder)
                except StoreError as trouble:
                    error.add_note(f"The attachment of volume {volume.id} is left over: {trouble}")
                    if owe is not None:
                        owe(self)
                raise

    def _connect(self, cinder: "Cinder", *, writable: bool) -> Connection:
        with LibraryCall(
            lambda error: on_attach(error, "attach", self.volume_id, self._host.helper)
        ):
            properties = self._host.properties()
        try:
            grant = cinder.connect(self._id, properties)
        except NotFound as error:
            raise self._taken_away() from error
        connection = Connection(self._host, self._volume, grant, writable=writable)
        try:
            connection.open()
            try:
                cinder.complete(self._id)
            except NotFound as error:
                raise self._taken_away() from error
            connection.device.check_size(self._volume.size)
        except BaseException as error:
            try:
                connection.close(others=lambda: self._others(cinder, own=0))
            except StoreError as trouble:
                error.add_note(f"Volume {self.volume_id} is left on this host: {trouble}")
            raise
        return connection

    def _taken_away(self) -> BackendException:
        return BackendException(
            f"Somebody ended the attachment of volume {self.volume_id} while it was being made. "
            "Try again, and look for who does so."
        )

    @property
    def device(self) -> Device:
        """The volume's bytes."""
        assert self._connection is not None  # since it is whole
        return self._connection.device

    def grown(self, volume: Volume) -> None:
        """Let this host see that the volume has been extended while attached.

        :raises BackendException: it does not
        """
        if volume.size != self._volume.size:
            assert self._connection is not None
            self._volume = volume
            self._connection.grow(volume.size)

    def flush(self) -> None:
        """Have all that was written on the storage."""
        if not self._disconnected:
            self.device.flush()

    def detach(self, cinder: "Cinder") -> None:
        """Close the device and give the volume back.  What was written must be flushed before.

        May be called again after an error, and goes on where that left it.
        :raises NotFound: somebody has ended the attachment behind our back
        """
        if os.getpid() != self._process:
            if self._connection is not None:
                self.device.close()  # the descriptor is a child's own, all else its parent's
            return
        if self._ended:
            return
        with self._lock.held():
            try:
                if not self._disconnected and self._connection is not None:
                    self._disconnected = True
                    self._connection.close(others=lambda: self._others(cinder, own=1))
            finally:
                self._release(cinder)

    def _release(self, cinder: "Cinder") -> None:
        self._used.release()
        asked, self._release_asked = self._release_asked, True
        try:
            cinder.release(self._id)
        except NotFound:
            self._ended = True
            if not asked:
                raise
        self._ended = True

    def _others(self, cinder: "Cinder", *, own: int) -> bool:
        """Tell whether other processes of this host have the volume.

        :param own: how many of its attachments are this one
        """
        if self._alone:
            return False
        try:
            return cinder.get(self.volume_id).hosts.count(self._host.name) > own
        except NotFound:
            return False
        except StoreError:
            return True  # better a device left over than one taken away from a reader
