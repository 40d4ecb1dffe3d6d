"""A volume's device on this host: brought here by os-brick, opened, and taken away again."""

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from store_lib.clients.library_calls import LibraryCall
from store_lib.display import get_logger
from store_lib.drivers.cinder import nfs
from store_lib.drivers.cinder.devices import Device, FileDevice, RbdDevice
from store_lib.drivers.cinder.errors import on_attach
from store_lib.drivers.cinder.volume import Grant, Volume

if TYPE_CHECKING:
    from store_lib.drivers.cinder.brick import Host

_LOG = get_logger(__name__)

#: Kinds of connections that are a process's own, whoever else on the host has the volume.
_OWN = frozenset({"nfs", "rbd"})


class Connection:
    """A volume on this host.

    :param grant: Cinder's attachment, with how to connect to the volume
    """

    #: The volume's bytes, once it is open.
    device: Device

    def __init__(self, host: "Host", volume: Volume, grant: Grant, *, writable: bool) -> None:
        self._host = host
        self._volume = volume
        self._grant = grant
        self._kind = grant.connection.get("driver_volume_type")
        self._share = nfs.Share(host, grant) if self._kind == "nfs" else None
        self._writable = writable
        self._connected: Any = None
        self._owner: tuple[str, int] | None = None

    def open(self) -> None:
        """Bring the device here and open it; :meth:`close` is due even where this failed."""
        with self._telling("attach"), contextlib.ExitStack() as stack:
            if self._share is not None:
                nfs.check(self._volume, self._grant.connection)
                stack.enter_context(self._share.pinned())
            self._connected = self._connector().connect_volume(self._grant.connection)
            self.device = self._opened(self._connected["path"])

    def _opened(self, path: Any) -> Device:
        if hasattr(path, "rbd_image"):
            return RbdDevice(self._volume.id, path)
        path = os.fsdecode(path)
        self._borrow(path)
        return FileDevice(self._volume.id, path, writable=self._writable)

    def _borrow(self, path: str) -> None:
        """Get the right to open a device that root has made."""
        wanted = os.R_OK | (os.W_OK if self._writable else 0)
        if os.geteuid() == 0 or os.access(path, wanted, effective_ids=True):
            return
        owner = os.stat(path).st_uid
        self._host.as_root("chown", str(os.geteuid()), path)
        self._owner = (path, owner)

    def grow(self, size: int) -> None:
        """Let this host see that the volume has ``size`` bytes now."""
        if self.device.is_block:  # whose size the kernel has to be told
            with self._telling("extend"):
                self._connector().extend_volume(self._grant.connection)
        self.device.check_size(size)

    def close(self, *, others: Callable[[], bool]) -> None:
        """Close the device and take it away from this host, as far as it came.

        :param others: tells whether other processes of this host have the volume too
        :raises BackendException: os-brick could not
        """
        if hasattr(self, "device"):
            self.device.close()
        if self._connected is None or (self._kind not in _OWN and others()):
            return
        self._give_back()
        disconnect(self._host, self._volume.id, self._grant, self._connected, self._share)

    def _give_back(self) -> None:
        if self._owner is not None:
            path, owner = self._owner
            try:
                self._host.as_root("chown", str(owner), path)
            except Exception as error:
                _LOG.warning("The owner of %s could not be restored: %s", path, error)

    def _connector(self) -> Any:
        if self._share is not None:
            return self._share.connector(self._grant.connection)
        return self._host.connector(self._grant.connection)

    def _telling(self, doing: str) -> LibraryCall:
        return _telling(self._host, doing, self._volume.id)


def _telling(host: "Host", doing: str, volume_id: str) -> LibraryCall:
    # os-brick's frames hold the passwords of targets.
    return LibraryCall(lambda error: on_attach(error, doing, volume_id, host.helper))


def disconnect(
    host: "Host",
    volume_id: str,
    grant: Grant,
    connected: Any,
    share: nfs.Share | None = None,
) -> None:
    """Take a volume's device away from this host.

    :param grant: Cinder's attachment, with how to connect to the volume
    :param connected: what os-brick told when it connected; ``None`` for another process's
    :raises BackendException: os-brick could not
    """
    with _telling(host, "detach", volume_id):
        if share is not None:
            share.leave(grant.connection, connected)
        else:
            # By force, so that nothing of it is left on this host (CVE-2023-2088).
            host.connector(grant.connection).disconnect_volume(
                grant.connection, connected, force=True
            )


def disconnect_left_over(host: "Host", volume_id: str, grant: Grant) -> None:
    """Take away what a process of this host that is dead had brought here.

    :raises BackendException: os-brick could not
    """
    kind = grant.connection.get("driver_volume_type")
    if kind is not None:  # else it was never brought
        share = nfs.Share(host, grant) if kind == "nfs" else None
        disconnect(host, volume_id, grant, None, share)
