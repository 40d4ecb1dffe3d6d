"""What marks a volume that is being filled: its name, its metadata, and who is at work on it.

Metadata, which others may change, are no proof that a volume may be removed: it has to have the
name that the upload gave it too, and none of the metadata of an object.  By Cinder's own time of
its last change an upload shows that it is alive, so no clock of ours matters.
"""

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from store_lib.driver import Incomplete
from store_lib.drivers.cinder.locks import LockFile
from store_lib.drivers.cinder.volume import Volume

if TYPE_CHECKING:
    from store_lib.drivers.cinder.brick import Host

#: Metadata of a volume that is being filled: the id of the object to be, and the host where that
#: is done.
OBJECT, HOST = "store_lib_upload", "store_lib_host"
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
        self.temporary_name = _temporary_name(nonce)
        #: ... and then, as with glance_store.
        self.name = _final_name(object_id)
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
        }

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


def _final_name(object_id: str) -> str:
    return f"image-{object_id}"


def is_object(volume: Volume) -> bool:
    """Tell whether a volume bears what every image's does, whether we stored it or glance_store."""
    object_id = volume.metadata.get(IMAGE_ID)
    # Cinder takes blanks off the end of a name, not of metadata.
    return bool(object_id) and volume.name == _final_name(str(object_id)).strip()


def _temporary_name(nonce: str) -> str:
    return f"store_lib-upload-{nonce}"


def is_unfinished(volume: Volume) -> bool:
    """Tell whether a volume is being filled, or was when its process died."""
    nonce = volume.metadata.get(NONCE, "")
    return (
        OBJECT in volume.metadata
        and IMAGE_ID not in volume.metadata
        and bool(_NONCE.fullmatch(nonce))
        and volume.name == _temporary_name(nonce)
    )


def last_change(volume: Volume, now: float | None, since: float | None = None) -> float:
    """Return when a volume was changed last, by Cinder's clock; never later than ``now``.

    :param since: a later time, where known
    """
    changed = max(volume.updated or 0.0, since or 0.0)
    return changed if now is None else min(changed, now)


def describe(host: "Host", volume: Volume, now: float | None) -> Incomplete:
    """Describe a volume that is not finished.

    :param now: the time by Cinder's clock
    """
    changed = last_change(volume, now)
    if volume.metadata.get(HOST) == host.name:
        live = _lock_of(host, volume.metadata[NONCE]).is_held()
    else:
        live = (time.time() if now is None else now) - changed < DEAD
    return Incomplete(volume.id, volume.metadata[OBJECT], volume.size, changed, live, now)
