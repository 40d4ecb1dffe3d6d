"""A volume attached to this host, from Cinder's permission to an open device, and back."""

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from store_lib.drivers.cinder import nfs
from store_lib.drivers.cinder.devices import Device, FileDevice, RbdDevice
from store_lib.drivers.cinder.errors import on_attach
from store_lib.drivers.cinder.volume import Grant, Volume
from store_lib.exceptions import BackendException, NotFound, StoreError

if TYPE_CHECKING:
    from store_lib.drivers.cinder.api import Cinder
    from store_lib.drivers.cinder.brick import Host

_LOG = logging.getLogger(__name__)


class Attachment:
    """A volume that is attached here.

    Made only whole: what goes wrong on the way is undone.

    :param mode: ``ro`` or ``rw``
    :param patience: seconds to wait for others who are about to attach it
    """

    #: The volume's bytes.
    device: Device

    def __init__(
        self, cinder: "Cinder", host: "Host", volume: Volume, *, mode: str, patience: float
    ) -> None:
        self.volume_id = volume.id
        self._host = host
        self._volume = volume
        self._writable = mode == "rw"
        self._process = os.getpid()
        self._lock = host.lock(f"volume-{volume.id}")
        self._owner: tuple[str, int] | None = None
        self._disconnected = self._release_asked = False
        # One at a time on this host: "Cinder" lets nobody in between, and os-brick must not take
        # away a device that somebody is about to open.
        with self._lock.held():
            self._id = cinder.reserve(volume.id, mode, patience)
            try:
                self._grant = self._connect(cinder)
            except BaseException as error:
                host.forget_properties()
                self._undo(cinder, error)
                raise

    def _connect(self, cinder: "Cinder") -> Grant:
        try:
            properties = self._host.properties()
        except Exception as error:
            raise on_attach(error, "attach", self.volume_id, self._host.helper) from error
        grant = cinder.connect(self._id, properties)
        try:
            self._open(grant)
        except Exception as error:
            raise on_attach(error, "attach", self.volume_id, self._host.helper) from error
        try:
            cinder.complete(self._id)
            self.device.check_size(self._volume.size)
        except BaseException:
            self._close(grant)
            raise
        return grant

    def _open(self, grant: Grant) -> None:
        """Let os-brick bring the volume here, and open it."""
        connection = grant.connection
        if connection.get("driver_volume_type") == "nfs":
            nfs.check(self._volume, connection)
            self._open_share(nfs.Share(self._host, grant), connection)
            return
        connector = self._host.connector(connection)
        self._connected = connector.connect_volume(connection)
        try:
            self._open_path(self._connected["path"])
        except BaseException:
            connector.disconnect_volume(connection, self._connected, force=True)
            raise

    def _open_share(self, share: nfs.Share, connection: dict[str, Any]) -> None:
        try:
            with share.pinned():
                self._connected = share.connector(connection).connect_volume(connection)
                self._open_path(self._connected["path"])
        except BaseException:
            with contextlib.suppress(Exception):
                share.leave(connection, None)
            raise

    def _open_path(self, path: Any) -> None:
        if hasattr(path, "rbd_image"):
            self.device = RbdDevice(self.volume_id, path)
            return
        path = os.fsdecode(path)
        self._own(path)
        self.device = FileDevice(self.volume_id, path, writable=self._writable)

    def _own(self, path: str) -> None:
        """Get the right to open a device that root has made."""
        owner, user = os.stat(path).st_uid, os.geteuid()
        wanted = os.R_OK | (os.W_OK if self._writable else 0)
        if user == 0 or os.access(path, wanted, effective_ids=True):
            return
        self._host.as_root("chown", str(user), path)
        self._owner = (path, owner)

    def grown(self, volume: Volume) -> None:
        """Let this host see that the volume has been extended while attached.

        :raises BackendException: it does not
        """
        if volume.size == self._volume.size:
            return
        self._volume = volume
        if self.device.is_block:  # whose size the kernel has to be told
            connection = self._grant.connection
            try:
                self._host.connector(connection).extend_volume(connection)
            except Exception as error:
                raise on_attach(error, "extend", self.volume_id, self._host.helper) from error
        self.device.check_size(volume.size)

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
            self.device.close()  # the descriptor is a child's own, all else its parent's
            return
        with self._lock.held():
            try:
                if not self._disconnected:
                    # Others of this host have the same block device; all else is one's own.
                    last = not self.device.is_block or self._is_last(cinder)
                    self._disconnected = True
                    if last:
                        self._close(self._grant)
                    else:
                        self.device.close()
            finally:
                self._release(cinder)

    def _release(self, cinder: "Cinder") -> None:
        asked, self._release_asked = self._release_asked, True
        try:
            cinder.release(self._id)
        except NotFound:
            if not asked:
                raise

    def _is_last(self, cinder: "Cinder") -> bool:
        """Tell whether no other process of this host has the volume's device."""
        if not self._volume.multiattach:
            return True
        try:
            return cinder.get(self.volume_id).hosts.count(self._host.name) <= 1
        except NotFound:
            return True

    def _close(self, grant: Grant) -> None:
        """Close the device and take it away from this host, as far as that goes."""
        if self._owner is not None:
            path, owner = self._owner
            try:
                self._host.as_root("chown", str(owner), path)
            except Exception as error:
                _LOG.warning("The owner of %s could not be restored: %s", path, error)
        self.device.close()
        disconnect(self._host, self.volume_id, grant, self._connected)

    def _undo(self, cinder: "Cinder", error: BaseException) -> None:
        try:
            cinder.release(self._id)
        except StoreError as trouble:
            error.add_note(f"The attachment of volume {self.volume_id} is left over: {trouble}")


def disconnect(host: "Host", volume_id: str, grant: Grant, connected: Any) -> None:
    """Take a volume's device away from this host.

    :param connected: what os-brick told when it connected; ``None`` for another process's
    :raises BackendException: os-brick could not
    """
    connection = grant.connection
    kind = connection.get("driver_volume_type")
    if kind is None:
        return  # it was never connected
    try:
        if kind == "nfs":
            nfs.Share(host, grant).leave(connection, connected)
            return
        # By force, so that nothing of it is left on this host (CVE-2023-2088).
        host.connector(connection).disconnect_volume(connection, connected, force=True)
    except BackendException:
        raise
    except Exception as error:
        raise on_attach(error, "detach", volume_id, host.helper) from error
