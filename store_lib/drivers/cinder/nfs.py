"""Volumes that are files on NFS shares: mounted by os-brick, and unmounted when nobody is there."""

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Any

from store_lib.drivers.cinder.volume import Grant, Volume
from store_lib.exceptions import BackendException

if TYPE_CHECKING:
    from store_lib.drivers.cinder.brick import Host


def check(volume: Volume, connection: dict[str, Any]) -> None:
    """Refuse a file whose bytes are not the volume's.

    :raises BackendException: it is encrypted, or in qcow2 format
    """
    kind = "encrypted" if volume.encrypted else connection.get("format")
    if kind not in (None, "raw"):
        raise BackendException(
            f"Volume {volume.id} is a file on NFS in {kind} form, and its bytes would be stored "
            "wrongly. Use a volume type that is not encrypted, on a backend with "
            "nfs_qcow2_volumes = false in Cinder."
        )


class Share:
    """A share that volumes lie on.

    Nobody counts who uses it: the kernel refuses to unmount what somebody has open.  A lock keeps
    others from unmounting it between its mounting and the opening of a file there.
    """

    def __init__(self, host: "Host", grant: Grant) -> None:
        self._host = host
        self._export: str = grant.connection["export"]
        name = hashlib.sha256(self._export.encode()).hexdigest()
        self._lock = host.lock(f"share-{name[:32]}")
        self.base = os.path.join(host.mount_base, "nfs")

    def connector(self, connection: dict[str, Any]) -> Any:
        """Return os-brick's connector, which mounts below our directory."""
        return self._host.connector(connection, nfs_mount_point_base=self.base)

    def pinned(self) -> contextlib.AbstractContextManager[None]:
        """Keep the share from being unmounted by others for a block."""
        return self._lock.held()

    def leave(self, connection: dict[str, Any], connected: dict[str, Any] | None) -> None:
        """Unmount the share of a file, unless somebody else on this host uses it.

        :param connected: what os-brick told when it mounted; ``None`` for another process's
        """
        if connected is None:
            connected = self.connector(connection).connect_volume(connection)
        mount = os.path.dirname(connected["path"])
        with self._lock.held():
            # "target is busy" is all that is wrong with it, where somebody uses it.
            with contextlib.suppress(Exception):
                self._host.as_root("umount", mount)
            with contextlib.suppress(OSError):
                os.rmdir(mount)
