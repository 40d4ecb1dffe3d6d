"""Volumes attached to this host: Cinder's attachment, and os-brick's connection.

An :class:`Attachment` reserves the volume in Cinder and opens its :class:`Connection` on this host.
:class:`SharedAttachments` lets the readers of one process share an attachment.
"""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from store_lib.clients.library_calls import LibraryCall
from store_lib.clients.process import LiveObjects, PerProcess
from store_lib.display import get_logger
from store_lib.drivers.cinder.devices import Device, FileDevice, RbdDevice
from store_lib.drivers.cinder.errors import attach_error
from store_lib.drivers.cinder.volume import Volume, VolumeAttachment
from store_lib.exceptions import BackendException, ErrorStatus, NotFound, StoreError

if TYPE_CHECKING:
    from store_lib.drivers.cinder.client import Cinder
    from store_lib.drivers.cinder.host import Host

_LOG = get_logger(__name__)


class Connection:
    """A volume's device on this host, connected and disconnected by os-brick.

    :param attachment: Cinder's attachment, with the connection info
    """

    #: Whether the connection belongs to one process, even if other processes use the volume here.
    per_process = False

    def __init__(self, host: "Host", volume_id: str, attachment: VolumeAttachment) -> None:
        self._host = host
        self._volume_id = volume_id
        self._info = attachment.connection_info
        self._device_info: Any = None
        self._device: Device | None = None
        #: Path and original owner of a device that now belongs to this process's user.
        self._chowned: tuple[str, int] | None = None

    @property
    def _connector(self) -> Any:
        """os-brick's connector for the volume."""
        return self._host.connector(self._info)

    def _errors(self, action: str) -> LibraryCall:
        """Return a context manager that turns errors into the library's.

        It drops the frames of os-brick, which hold the passwords of targets.
        """
        return _brick_errors(self._host, action, self._volume_id)

    @property
    def device(self) -> Device:
        """The volume's device."""
        assert self._device is not None  # since open
        return self._device

    def open(self, volume: Volume, *, writable: bool) -> None:
        """Connect the volume and open its device; call :meth:`close` even if this fails."""
        with self._errors("attach"):
            self._check(volume)
            with self._opening():
                self._device_info = self._connector.connect_volume(self._info)
                path = self._device_info["path"]
                if hasattr(path, "rbd_image"):
                    self._device = RbdDevice(volume.id, path)
                else:
                    path = os.fsdecode(path)
                    self._chown(path, os.R_OK | (os.W_OK if writable else 0))
                    self._device = FileDevice(volume.id, path, writable=writable)

    def _check(self, volume: Volume) -> None:
        """Check that the device holds the plain bytes of the volume.

        :raises BackendException: it does not, as the volume is encrypted or has another format
        """

    def _opening(self) -> contextlib.AbstractContextManager[None]:
        """Return a context manager to hold while the volume is connected and its device opened."""
        return contextlib.nullcontext()

    def _chown(self, path: str, mode: int) -> None:
        """Make this process's user the owner of a device that it may not open."""
        if os.geteuid() == 0 or os.access(path, mode, effective_ids=True):
            return
        owner = os.stat(path).st_uid
        self._host.as_root("chown", str(os.geteuid()), path)
        self._chowned = (path, owner)

    def _restore_owner(self) -> None:
        if self._chowned is not None:
            path, owner = self._chowned
            try:
                self._host.as_root("chown", str(owner), path)
            except Exception as error:
                _LOG.warning("The owner of %s could not be restored: %s", path, error)

    def grow(self, size: int) -> None:
        """Make the device on this host ``size`` bytes long, as the volume now is."""
        if self.device.is_block:
            with self._errors("extend"):
                self._connector.extend_volume(self._info)
        self.device.check_size(size)

    def close(self, in_use: Callable[[], bool]) -> None:
        """Close the device, and disconnect the volume if it is connected.

        :param in_use: returns whether other processes of this host use the volume; the connection
            is then kept
        :raises BackendException: os-brick could not disconnect it
        """
        if self._device is not None:
            self._device.close()
        if self._device_info is not None and (self.per_process or not in_use()):
            self._restore_owner()
            self.disconnect()

    def disconnect(self) -> None:
        """Remove the device from this host, even if a dead process has connected it.

        :raises BackendException: os-brick could not remove it
        """
        with self._errors("detach"):
            self._disconnect()

    def _disconnect(self) -> None:
        # Forced, so that no part of the device is left on this host (CVE-2023-2088).
        self._connector.disconnect_volume(self._info, self._device_info, force=True)


class RbdConnection(Connection):
    """An image in Ceph, opened by librbd in this process."""

    per_process = True


class NfsConnection(Connection):
    """A file on an NFS share.

    The users of a share are not counted, as the kernel refuses to unmount a share with an open
    file.  Until the file is open, a lock prevents other processes from unmounting the share.
    """

    per_process = True

    def __init__(self, host: "Host", volume_id: str, attachment: VolumeAttachment) -> None:
        super().__init__(host, volume_id, attachment)
        self._lock = host.locks.share(self._info["export"])

    @property
    def _connector(self) -> Any:
        base = os.path.join(self._host.mount_base, "nfs")
        return self._host.connector(self._info, nfs_mount_point_base=base)

    def _check(self, volume: Volume) -> None:
        form = "encrypted" if volume.encrypted else self._info.get("format")
        if form not in (None, "raw"):
            raise BackendException(
                f"Volume {volume.id} is a file on NFS in {form} form, and its bytes would be "
                "stored wrongly. Use a volume type that is not encrypted, on a backend with "
                "nfs_qcow2_volumes = false in Cinder."
            )

    def _opening(self) -> contextlib.AbstractContextManager[None]:
        return self._lock.held()

    def _disconnect(self) -> None:
        # os-brick would unmount the share although others may use it.
        device_info = self._device_info or self._connector.connect_volume(self._info)
        mount = os.path.dirname(device_info["path"])
        with self._lock.held():
            # The only error to expect is "target is busy": others use the share.
            with contextlib.suppress(Exception):
                self._host.as_root("umount", mount)
            with contextlib.suppress(OSError):
                os.rmdir(mount)


def _brick_errors(host: "Host", action: str, volume_id: str) -> LibraryCall:
    return LibraryCall(lambda error: attach_error(error, action, volume_id, host.helper))


def make_connection(host: "Host", volume_id: str, attachment: VolumeAttachment) -> Connection:
    """Return a connection of the class for this type of volume: NFS, RBD or any other."""
    kinds = {"nfs": NfsConnection, "rbd": RbdConnection}
    kind = attachment.connection_info.get("driver_volume_type")
    return kinds.get(str(kind), Connection)(host, volume_id, attachment)


def disconnect_left_over(host: "Host", volume_id: str, attachment: VolumeAttachment) -> None:
    """Remove the device that a dead process of this host may have connected.

    :raises BackendException: os-brick could not remove it
    """
    if attachment.connection_info.get("driver_volume_type") is not None:
        make_connection(host, volume_id, attachment).disconnect()


class Attachment:
    """A volume that :meth:`attach` attaches to this host, until :meth:`detach`.

    While attached, it holds a lock on this host.  A sweep recognises the attachments that a killed
    process has left by their free locks.

    :param mode: ``ro`` or ``rw``
    """

    def __init__(self, host: "Host", volume: Volume, mode: str) -> None:
        self.volume_id = volume.id
        #: Whether Cinder has an attachment that must still be deleted.
        self.is_pending = False
        self._host = host
        self._volume = volume
        self._mode = mode
        self._process = os.getpid()
        # Held while attaching or detaching: Cinder allows one change of a volume at a time, and
        # os-brick must not remove a device that another process is about to open.
        self._volume_lock = host.locks.volume(volume.id)
        # A volume that is being written has no other attachment.
        self._exclusive = mode == "rw" or not volume.multiattach
        self._connection: Connection | None = None
        self._disconnected = self._deletion_asked = False

    def attach(self, cinder: "Cinder", timeout: float) -> None:
        """Attach the volume.  If a step fails, the steps before it are undone.

        :param timeout: seconds to wait while others attach the volume
        :raises NotFound: the volume no longer exists
        :raises BackendException: the volume is in use, or cannot be attached
        """
        with self._volume_lock.held():
            self._id = cinder.create_attachment(self.volume_id, self._mode, timeout)
            self._use_lock = self._host.locks.attachment(self._id)
            self.is_pending = True
            try:
                self._use_lock.acquire()
                self._connection = self._connect(cinder)
            except BaseException as error:
                self._host.forget_properties()
                self._disconnected = True
                try:
                    self._delete(cinder)
                except StoreError as trouble:
                    error.add_note(
                        f"The attachment of volume {self.volume_id} is left over: {trouble}"
                    )
                raise

    def _connect(self, cinder: "Cinder") -> Connection:
        with _brick_errors(self._host, "attach", self.volume_id):
            properties = self._host.properties()
        try:
            attachment = cinder.update_attachment(self._id, properties)
        except NotFound as error:
            raise self._ended_early() from error
        connection = make_connection(self._host, self.volume_id, attachment)
        try:
            connection.open(self._volume, writable=self._mode == "rw")
            try:
                cinder.complete_attachment(self._id)
            except NotFound as error:
                raise self._ended_early() from error
            connection.device.check_size(self._volume.size)
        except BaseException as error:
            try:
                connection.close(lambda: self._is_used_by_others(cinder, own=0))
            except StoreError as trouble:
                error.add_note(f"Volume {self.volume_id} is left on this host: {trouble}")
            raise
        return connection

    def _ended_early(self) -> BackendException:
        return BackendException(
            f"Another client ended the attachment of volume {self.volume_id} while it was being "
            "made. Try again, and find out which client does so."
        )

    @property
    def device(self) -> Device:
        """The volume's device."""
        assert self._connection is not None  # since attach
        return self._connection.device

    def grow(self, volume: Volume) -> None:
        """Extend the device on this host, after the volume was extended while attached.

        :raises BackendException: the device does not get the new size
        """
        if volume.size != self._volume.size:
            assert self._connection is not None
            self._volume = volume
            self._connection.grow(volume.size)

    def flush(self) -> None:
        """Make all bytes written so far durable."""
        if not self._disconnected:
            self.device.flush()

    def detach(self, cinder: "Cinder") -> None:
        """Close the device and detach the volume.  Flush written bytes first.

        May be called again after an error; it then continues with the step that failed.

        :raises NotFound: another client has deleted the attachment
        """
        if os.getpid() != self._process:
            if self._connection is not None:
                self.device.close()  # a child owns its descriptor only; the rest is its parent's
            return
        if not self.is_pending:
            return
        with self._volume_lock.held():
            try:
                if not self._disconnected and self._connection is not None:
                    self._disconnected = True
                    self._connection.close(lambda: self._is_used_by_others(cinder, own=1))
            finally:
                self._delete(cinder)

    def _delete(self, cinder: "Cinder") -> None:
        self._use_lock.release()
        asked_before, self._deletion_asked = self._deletion_asked, True
        try:
            cinder.delete_attachment(self._id)
        except NotFound:
            self.is_pending = False
            if not asked_before:
                raise
        self.is_pending = False

    def _is_used_by_others(self, cinder: "Cinder", *, own: int) -> bool:
        """Return whether other processes of this host use the volume.

        :param own: how many of the volume's complete attachments are this object's: 0 or 1
        """
        if self._exclusive:
            return False
        try:
            return cinder.get(self.volume_id).hosts.count(self._host.name) > own
        except NotFound:
            return False
        except StoreError:
            return True  # a left-over device is better than one removed while it is read


@dataclasses.dataclass
class _Shared:
    """One volume's attachment and the number of its readers."""

    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    users: int = 0
    attachment: Attachment | None = None
    #: The client that attached the volume.
    cinder: "Cinder | None" = None


class _Table:
    def __init__(self) -> None:
        # Reentrant: garbage collection may close a reader in a thread that holds the lock.
        self.lock = threading.RLock()
        self.volumes: dict[str, _Shared] = {}
        #: Attachments that could not be deleted when their last reader was closed.
        self.pending: list[tuple[Attachment, Cinder]] = []


class SharedAttachments:
    """The attachments of one process's readers: one per volume, shared by its readers."""

    def __init__(self) -> None:
        # A child must neither use nor delete its parent's attachments.
        self._table = PerProcess(_Table)
        _live.add(self)

    def acquire(self, attachment: Attachment, cinder: "Cinder", timeout: float) -> Attachment:
        """Add a reader, and return the attachment that all readers of its volume share.

        :param attachment: attached and shared if this is the volume's first reader
        :param timeout: seconds to wait while others attach the volume
        """
        table = self._table.get()
        with table.lock:
            shared = table.volumes.setdefault(attachment.volume_id, _Shared())
            shared.users += 1
        try:
            with shared.lock:
                if shared.attachment is None:
                    try:
                        attachment.attach(cinder, timeout)
                    except BaseException:
                        if attachment.is_pending:
                            table.pending.append((attachment, cinder))
                        raise
                    shared.attachment, shared.cinder = attachment, cinder
                return shared.attachment
        except BaseException:
            self._remove_user(table, attachment.volume_id, shared)
            raise

    def release(self, attachment: Attachment, cinder: "Cinder") -> None:
        """Remove a reader; the last one detaches the volume.

        :raises StoreError: detaching failed; unless it failed permanently, :meth:`retry_pending`
            repeats it
        """
        table = self._table.get()
        with table.lock:
            shared = table.volumes.get(attachment.volume_id)
        if shared is None or shared.attachment is not attachment:
            attachment.detach(cinder)  # inherited from the parent, which deletes it
        elif self._remove_user(table, attachment.volume_id, shared):
            self._detach(table, attachment, cinder)

    def retry_pending(self) -> None:
        """Try again to delete the attachments that could not be deleted before."""
        table = self._table.get()
        while table.pending:
            try:
                attachment, cinder = table.pending.pop()
            except IndexError:  # another thread has taken the last one
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
                table.pending.append((attachment, cinder))
            raise

    @staticmethod
    def _remove_user(table: _Table, volume_id: str, shared: _Shared) -> bool:
        """Remove a reader, and return whether it was the last."""
        with table.lock:
            shared.users -= 1
            if not shared.users:
                del table.volumes[volume_id]
        return not shared.users

    def detach_all(self) -> None:
        """Detach all volumes at the end of the process."""
        table = self._table.get()
        for shared in list(table.volumes.values()):
            if shared.attachment is not None and shared.cinder is not None:
                with contextlib.suppress(StoreError):
                    shared.attachment.detach(shared.cinder)
        self.retry_pending()


# Detaches the volumes of readers that are still open when the interpreter exits.
_live: LiveObjects[SharedAttachments] = LiveObjects(at_exit=SharedAttachments.detach_all)
