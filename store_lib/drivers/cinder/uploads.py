"""What marks a volume that is being filled: its name, its metadata, and who is at work on it."""

import contextlib
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from store_lib.driver import Incomplete
from store_lib.drivers.cinder.connection import disconnect_left_over
from store_lib.drivers.cinder.errors import Refused
from store_lib.drivers.cinder.locks import LockFile
from store_lib.drivers.cinder.volume import Volume
from store_lib.exceptions import NotFound

if TYPE_CHECKING:
    from store_lib.drivers.cinder.api import Cinder
    from store_lib.drivers.cinder.brick import Host

#: Metadata of a volume that is being filled: the id of the object to be, ...
OBJECT = "store_lib_upload"
#: ... the host where that is done, and when it last showed life, in seconds since the epoch.
HOST, ALIVE = "store_lib_host", "store_lib_alive"
#: Metadata of every volume of ours: which upload made it.
NONCE = "store_lib_nonce"

#: Metadata of an object, with glance_store's names.
IMAGE_ID, SIZE, OWNER = "glance_image_id", "image_size", "image_owner"

_NONCE = re.compile(r"[0-9a-f]{32}")

#: Seconds between an upload's signs of life, and after which another host's counts as dead.
BEAT, DEAD = 60, 300


class Upload:
    """What one upload writes on its volume, and the sign that its process lives.

    :param owner: the project that the object belongs to
    """

    def __init__(self, object_id: str, nonce: str, owner: str, host: "Host") -> None:
        #: What the volume is called until it is the object, ...
        self.temporary_name = f"store_lib-upload-{nonce}"
        #: ... and then, as with glance_store.
        self.name = f"image-{object_id}"
        self.host = host
        self._object_id = object_id
        self._nonce = nonce
        self._owner = owner
        self._lock = _lock_of(host, nonce)

    def begin(self) -> None:
        """Show that this process is at work on it, until it ends or calls :meth:`end`."""
        self._lock.wait()  # a sweep may be looking at it

    def end(self) -> None:
        """Show that nobody is at work on it.  Idempotent."""
        self._lock.release()

    def begun(self) -> dict[str, str]:
        """Return the metadata of the volume until it is the object."""
        return {
            OBJECT: self._object_id,
            NONCE: self._nonce,
            HOST: self.host.name,
            **self.alive(),
        }

    def alive(self) -> dict[str, str]:
        """Return the metadata that says that somebody is at work."""
        return {ALIVE: str(int(time.time()))}

    def done(self, size: int) -> dict[str, str]:
        """Return the metadata of the object."""
        return {
            IMAGE_ID: self._object_id,
            SIZE: str(size),
            OWNER: self._owner,
            NONCE: self._nonce,
        }

    def is_published(self, metadata: Mapping[str, str]) -> bool:
        """Tell whether a volume with this metadata is the object that this upload made."""
        return metadata.get(NONCE) == self._nonce and OBJECT not in metadata


def _lock_of(host: "Host", nonce: str) -> LockFile:
    """Return the lock that an upload holds as long as its process lives."""
    return host.lock(f"upload-{nonce if _NONCE.fullmatch(nonce) else 'unknown'}")


def describe(host: "Host", volume: Volume) -> Incomplete:
    """Describe a volume that is being filled, or was when its process died."""
    beat = _number(volume.metadata.get(ALIVE))
    if volume.metadata.get(HOST) == host.name:
        live = _lock_of(host, volume.metadata.get(NONCE, "")).is_held()
    else:
        live = time.time() - beat < DEAD
    modified = max(beat, volume.updated or 0.0)
    return Incomplete(volume.id, volume.metadata.get(OBJECT), volume.size, modified, live)


def remove(cinder: "Cinder", host: "Host", volume_id: str) -> None:
    """Remove a volume that never became an object, and whatever attaches it.

    :raises StoreError: that is not possible now
    """
    with contextlib.suppress(NotFound):
        try:
            return cinder.delete(volume_id)
        except Refused:  # Cinder is at work on it, or it is attached
            _detach(cinder, host, volume_id)
        cinder.settled(volume_id)
        cinder.delete(volume_id)


def _detach(cinder: "Cinder", host: "Host", volume_id: str) -> None:
    """End the attachments of a volume that nobody is at work on any more."""
    # Reserved or attaching it stays until its attachment is ended.
    volume = cinder.settled(volume_id, ("creating", "extending", "detaching"))
    with host.volume_lock(volume_id).held():
        for grant in cinder.grants(volume_id):
            try:
                if volume.metadata.get(HOST) == host.name:
                    disconnect_left_over(host, volume_id, grant)
            finally:
                with contextlib.suppress(NotFound):
                    cinder.release(grant.id)


def _number(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() else 0.0
