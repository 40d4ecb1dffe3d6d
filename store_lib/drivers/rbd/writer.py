"""An upload: an image that is filled at any position and then gets its snapshot."""

import contextlib
import dataclasses

from store_lib.driver import Chunk, PositionWriter
from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.client import Cluster
from store_lib.drivers.rbd.images import Claimed, Images, Mark, State, publish, restore_features
from store_lib.drivers.rbd.location import RbdLocation
from store_lib.exceptions import StoreError

MIB = 1024 * 1024

#: The largest chunk that bytes are handed over in; larger objects are filled by several, which
#: is no slower and takes less memory.
LARGEST_CHUNK = 4 * MIB
#: Smallest hole worth making: each run of data between holes is a request of its own.
HOLE_SIZE = 256 * 1024
#: How an image of unknown size grows: it doubles, by no less and no more than this.
FIRST_STEP, LAST_STEP = 64 * MIB, 8192 * MIB


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What the options say of every upload."""

    object_size: int
    thin: bool

    @property
    def order(self) -> int:
        """The object size as Ceph has it, a power of two."""
        return self.object_size.bit_length() - 1


class RbdWriter(PositionWriter):
    """Fills an image that was claimed, and publishes it.

    :param location: where the object will be
    """

    concurrency = 4

    def __init__(
        self,
        cluster: Cluster,
        images: Images,
        claimed: Claimed,
        location: RbdLocation,
        settings: Settings,
    ) -> None:
        self.chunk_size = min(settings.object_size, LARGEST_CHUNK)
        self.hole_size = HOLE_SIZE if settings.thin else None
        self._cluster = cluster
        self._images = images
        self._claimed = claimed
        self._image = claimed.image
        self._location = location

    def reserve(self, end: int) -> int:
        return self.resize(grown(self.reserved, end))

    def resize(self, size: int) -> int:
        """Give the image this size, and return it."""
        with self._writing("resize"):
            self._image.resize(size)
        self.reserved = size
        return size

    def write_at(self, offset: int, data: Chunk) -> None:
        with self._writing("write to"):
            # librbd takes no views.  A call that writes at once costs no more than one that is
            # waited for: the other threads of the window are at work meanwhile.
            self._image.write(bytes(data), offset)

    def zero(self, offset: int, length: int) -> None:
        """Leave the hole that is there: the image was new and empty."""

    def copied(self) -> RbdLocation:
        """Make the image, a clone, independent of what it was cloned from, and publish it."""
        with self._writing("copy to"):
            self._image.flatten()
            self.reserved = self._image.size()
        return self.commit(self.reserved)

    def commit(self, size: int) -> RbdLocation:
        if self.reserved != size:
            self.resize(size)
        with self._writing("publish"):
            self._image.flush()
        return self._publish()

    def _publish(self) -> RbdLocation:
        with self._writing("publish"):
            publish(self._image)
            Mark(State.STORED, self._claimed.nonce).put(self._image)
            restore_features(self._claimed)
        self._close()
        return self._location

    def abort(self) -> None:
        self._images.withdraw(self._claimed)

    def resolve(self) -> RbdLocation | None:
        found = self._images.look(self._claimed.name)
        if found is None or not found.complete or found.mark is None:
            return None
        if found.mark.nonce != self._claimed.nonce:
            return None
        return self._publish()

    def _close(self) -> None:
        with contextlib.suppress(StoreError), self._cluster.calling("close", self._claimed.name):
            bindings.release(self._image)

    def _writing(self, doing: str) -> contextlib.AbstractContextManager[None]:
        return self._cluster.using(self._image, doing, self._claimed.name)


def grown(reserved: int, end: int) -> int:
    """Return the size that an image of ``reserved`` bytes is to have for ``end`` to fit.

    Few steps, however long the upload, and not so much too large at the end that trimming it
    takes long.
    """
    step = min(max(reserved, FIRST_STEP), LAST_STEP)
    return max(end, reserved + step)
