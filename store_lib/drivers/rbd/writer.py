"""The upload: an image that is filled at any position and then gets its snapshot."""

import contextlib
from collections.abc import Callable
from typing import Any

from store_lib.driver import Chunk, PositionWriter
from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.images import Claim, Images, Mark, State, publish
from store_lib.drivers.rbd.location import RbdLocation
from store_lib.drivers.rbd.options import MIB, UploadSettings
from store_lib.exceptions import StoreError

#: Bytes of the largest chunk.  Filling a larger RADOS object by several chunks is no slower and
#: takes less memory.
LARGEST_CHUNK = 4 * MIB
#: Bytes of the smallest hole: each run of data between holes costs a request.
HOLE_SIZE = 256 * 1024
#: Least and most bytes by which an image of unknown size grows; in between, it doubles.
FIRST_STEP, LAST_STEP = 64 * MIB, 8192 * MIB


class RbdWriter(PositionWriter):
    """Fills an image and publishes it.

    The name is claimed by the first method that needs the image, since a copy claims it by a clone.

    :param location: the location of the new object
    :param images_of: returns the images of a location's pool
    """

    concurrency = 4

    def __init__(
        self,
        images: Images,
        location: RbdLocation,
        nonce: str,
        settings: UploadSettings,
        images_of: Callable[[RbdLocation], Images],
    ) -> None:
        self.chunk_size = min(settings.object_size, LARGEST_CHUNK)
        self.hole_size = HOLE_SIZE if settings.thin else None
        self._images = images
        self._nonce = nonce
        self._settings = settings
        self._claim: Claim | None = None
        self._location = location
        self._images_of = images_of

    @property
    def _image(self) -> Any:
        return self._claimed().image

    def _claimed(self) -> Claim:
        """Return the claim on the name, made with an empty image if there is none yet."""
        if self._claim is None:
            name, order = self._location.image, self._settings.order

            def create(ioctx: Any) -> None:
                bindings.rbd.RBD().create(ioctx, name, 0, order, old_format=False)

            self._claim = self._images.claim(name, self._nonce, create)
        return self._claim

    def reserve(self, end: int) -> int:
        return self.resize(grown(self.reserved, end))

    def resize(self, size: int) -> int:
        """Set the image's size, and return it."""
        image = self._image
        with self._writing("resize"):
            image.resize(size)
        self.reserved = size
        return size

    def write_at(self, offset: int, data: Chunk) -> None:
        with self._writing("write to"):
            # librbd takes no memoryview.  A synchronous call costs no more than an asynchronous
            # one: other threads write at the same time.
            self._image.write(bytes(data), offset)

    def zero(self, offset: int, length: int) -> None:
        """Do nothing: what was never written to a new image is a hole."""

    def copy_from(self, location: RbdLocation) -> RbdLocation:
        source = self._images_of(location).clone_source(location.image, location.snapshot)
        if not source.size:  # Ceph does not clone an empty image
            return self.commit(0)
        name = self._location.image
        self._claim = self._images.claim(
            name, self._nonce, lambda ioctx: source.clone(ioctx, name), reuse=False
        )
        with self._writing("copy to"):
            self._image.flatten()
            self.reserved = self._image.size()
        return self.commit(self.reserved)

    def commit(self, size: int) -> RbdLocation:
        self._claimed()
        if self.reserved != size:
            self.resize(size)
        with self._writing("publish"):
            self._image.flush()
        return self._publish()

    def _publish(self) -> RbdLocation:
        with self._writing("publish"):
            publish(self._image)
            Mark(State.STORED, self._nonce).put(self._image)
            self._claimed().restore_features()
        self._close()
        return self._location

    def abort(self) -> None:
        if self._claim is not None:
            self._images.withdraw(self._claim)

    def resolve(self) -> RbdLocation | None:
        if self._claim is None:
            return None
        info = self._images.inspect(self._claim.name)
        if info is None or not info.complete or info.mark is None:
            return None
        if info.mark.nonce != self._nonce:
            return None
        return self._publish()

    def _close(self) -> None:
        with (
            contextlib.suppress(StoreError),
            self._images.cluster.calling("close", self._location.image),
        ):
            bindings.release(self._image)

    def _writing(self, action: str) -> contextlib.AbstractContextManager[None]:
        return self._images.cluster.using(self._image, action, self._location.image)


def grown(reserved: int, end: int) -> int:
    """Return the size to which an image of ``reserved`` bytes grows to hold ``end``.

    A long upload takes few steps, and the excess to trim at the end stays small.
    """
    step = min(max(reserved, FIRST_STEP), LAST_STEP)
    return max(end, reserved + step)
