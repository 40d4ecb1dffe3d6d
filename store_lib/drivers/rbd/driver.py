"""The rbd driver: objects are images in a pool of a Ceph cluster, named by the object's id."""

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from store_lib.display import get_logger
from store_lib.driver import CreateOnly, Driver, Entry, Incomplete, Space, Stat
from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.client import Access, Cluster
from store_lib.drivers.rbd.images import SNAPSHOT, Found, Images
from store_lib.drivers.rbd.location import RbdLocation
from store_lib.drivers.rbd.options import OPTIONS
from store_lib.drivers.rbd.reader import PIECE, RbdReader
from store_lib.drivers.rbd.writer import MIB, RbdWriter, Settings
from store_lib.exceptions import (
    BadStoreUri,
    Forbidden,
    Invalid,
    NotFound,
    StorageFull,
    StoreError,
)
from store_lib.location import Location

LOG = get_logger(__name__)

#: The largest objects that librbd makes, in MiB.
_LARGEST_OBJECT = 32
#: The share of a transfer's stall limit that one operation may take, so that Ceph's own, more
#: exact error comes first.
_PATIENCE = 0.8


class RbdDriver(Driver[RbdLocation]):
    """Objects are images with a snapshot; see :doc:`/drivers/rbd`."""

    schemes = RbdLocation.schemes
    options = OPTIONS
    location_class = RbdLocation
    create_only = CreateOnly.ATOMIC
    ranges = True
    read_concurrency = 4
    read_size = PIECE

    #: ``None`` when the configuration is no good.
    _configured: Cluster | None = None
    _images: Images
    _settings: Settings

    def configure(self) -> None:
        """Check the options and load Ceph's modules; nothing is connected to.

        :raises DriverLoadFailure: Ceph's modules are missing
        :raises BadStoreConfiguration: an option, or Ceph's configuration file, is no good
        """
        conf = self.conf
        if not conf.rbd_store_pool:
            raise self.misconfigured("rbd_store_pool: expected the name of a pool, got none")
        bindings.load(self.store_id)
        access = Access(
            pool=conf.rbd_store_pool,
            user=conf.rbd_store_user or None,
            conf_file=conf.rbd_store_ceph_conf or "",
            connect_timeout=conf.rados_connect_timeout,
            operation_timeout=math.ceil(conf.transfer_stall_timeout * _PATIENCE),
        )
        self._configured = Cluster(self.store_id, access)
        self._images = Images(self._cluster, conf.rbd_store_pool, self.retry)
        chunk = conf.rbd_store_chunk_size
        if chunk & (chunk - 1) or not 0 < chunk <= _LARGEST_OBJECT:
            # What is there can be read all the same.
            raise self.misconfigured(
                f"rbd_store_chunk_size: expected a power of two up to {_LARGEST_OBJECT} (MiB), as "
                f"Ceph cuts images into objects of such sizes only, got {chunk}",
                readable=True,
            )
        self._settings = Settings(chunk * MIB, conf.rbd_thin_provisioning)

    @property
    def url_prefix(self) -> str:
        """``rbd://<fsid>/<pool>/``; connects where the Ceph configuration has no fsid."""
        return f"rbd://{quote(self._cluster.fsid, safe='')}/{quote(self._pool, safe='')}/"

    @property
    def _cluster(self) -> Cluster:
        if self._configured is None:
            raise self.misconfigured("the store is not configured")
        return self._configured

    @property
    def _pool(self) -> str:
        name: str = self.conf.rbd_store_pool
        return name

    def id_problem(self, object_id: str) -> str | None:
        return (
            "it has an '@', which Ceph's tools put before a snapshot." if "@" in object_id else None
        )

    def holds(self, location: Location) -> bool:
        place = _checked(location)
        known = self._configured.known_fsid if self._configured is not None else None
        return place.pool is None or (
            place.pool == self._pool and (known in (None, place.fsid) or self._was_in(place))
        )

    def _was_in(self, place: RbdLocation) -> bool:
        return self.conf.moved_from(str(place.fsid), f"{place.fsid}/{place.pool}")

    def create(self, object_id: str, size: int | None, *, nonce: str, context: Any) -> RbdWriter:
        settings = self._settings
        if size is not None and size > settings.object_size and not settings.thin:
            self._check_room(size)

        writer = self._claim(object_id, nonce, functools.partial(self._make, object_id))
        if size:
            try:
                writer.resize(size)
            except BaseException:
                writer.abort()
                raise
        return writer

    def _make(self, name: str, ioctx: Any) -> None:
        order = self._settings.order
        bindings.rbd.RBD().create(ioctx, name, 0, order, old_format=False)

    def _claim(
        self, object_id: str, nonce: str, make: Callable[[Any], None], *, anew: bool = False
    ) -> RbdWriter:
        location = RbdLocation(object_id, self._cluster.fsid, self._pool, SNAPSHOT)
        claimed = self._images.claim(object_id, nonce, make, anew=anew)
        return RbdWriter(self._cluster, self._images, claimed, location, self._settings)

    def _check_room(self, size: int) -> None:
        try:
            pool = self._cluster.data_pool(self._pool)
            free = self._cluster.space(pool).free
        except StoreError:
            return  # the write itself will tell
        if free is not None and size > free:
            raise StorageFull(
                f"Expected room for {size} bytes in the pool {pool}, but {free} are free."
            )

    def read(
        self, location: Location, offset: int, length: int | None, *, context: Any
    ) -> RbdReader:
        images, place = self._place(location)
        snapshot = place.snapshot
        if snapshot is None:
            snapshot = self._snapshot_of(images, place.image)
        return RbdReader(self._cluster, images.ioctx, place.image, snapshot, offset, length)

    def _snapshot_of(self, images: Images, name: str) -> str | None:
        """Return the snapshot that a URI without one means, ``None`` for the image as it is."""
        found = images.look(name)
        if found is None or found.unfinished:
            raise NotFound(image=name)
        return SNAPSHOT if found.complete else None

    def stat(self, location: Location, *, context: Any) -> Stat:
        images, place = self._place(location)
        found = images.look(place.image, place.snapshot or SNAPSHOT)
        if found is None or found.unfinished or not (found.complete or place.snapshot is None):
            raise NotFound(image=place.image)
        return Stat(found.size, found.modified)

    def delete(self, location: Location, *, context: Any) -> None:
        images, place = self._place(location)
        images.delete(place.image, place.snapshot)

    def list(self, *, context: Any) -> Iterator[Entry]:
        images = self._images
        fsid = self._cluster.fsid
        for name, image_id in images.entries():
            found = self.retry(functools.partial(images.look, name))
            if found is not None and found.complete and found.image_id == image_id:
                location = RbdLocation(name, fsid, self._pool, SNAPSHOT)
                yield Entry(name, location, found.size, found.modified)

    def list_incomplete(self, *, context: Any) -> Iterator[Incomplete]:
        now: float | None = None
        for name, image_id in self._images.entries():
            found = self.retry(functools.partial(self._look_at_entry, name, image_id))
            if found is None or not found.unfinished:
                continue
            if now is None:
                now = self._now()
            modified = min(found.modified, now)  # another OSD's clock may be ahead
            yield Incomplete(image_id, name, found.size, modified, found.watched, now)

    def _look_at_entry(self, name: str, image_id: str) -> Found | None:
        found = self._images.look(name)
        if found is None or found.image_id != image_id:
            return self._images.look_half_removed(name, image_id)
        return found

    def _now(self) -> float:
        """Return the cluster's time, by which images' ages are measured."""
        try:
            return self.retry(functools.partial(self._cluster.now, self._pool))
        except (StorageFull, Forbidden) as error:
            # A full pool is one to be swept.  What an upload is at work on has a watcher.
            LOG.info(
                "Store %s: ages are measured by this machine's clock: %s", self.store_id, error
            )
            return time.time()

    def discard(self, incomplete: Incomplete, *, context: Any) -> bool:
        if incomplete.object_id is None:
            raise Invalid(
                f"Expected a leftover with the name of its image, got {incomplete.key!a} alone. "
                "Take it from a listing of this store."
            )
        return self._images.discard(incomplete.object_id, incomplete.key)

    def copy(self, location: Location, object_id: str, *, nonce: str, context: Any) -> Location:
        images, place = self._place(location)
        snapshot = place.snapshot or SNAPSHOT
        found = images.look(place.image, snapshot)
        if found is None or found.unfinished or not (found.complete or place.snapshot is None):
            raise NotFound(image=place.image)
        if not found.complete:
            raise self._unsupported(
                f"clone the image {place.image}: it has no snapshot {snapshot!r}"
            )
        source = images.ioctx

        def make(ioctx: Any) -> None:
            bindings.rbd.RBD().clone(source, place.image, snapshot, ioctx, object_id)

        if not found.size:  # which cannot be cloned
            with self.create(object_id, 0, nonce=nonce, context=context) as writer:
                return writer.commit(0)
        with self._claim(object_id, nonce, make, anew=True) as writer:
            return writer.copied()

    def space(self, *, context: Any) -> Space:
        return self._cluster.space(self._cluster.data_pool(self._pool))

    def close(self) -> None:
        if self._configured is not None:
            self._configured.close()

    def _place(self, location: Location) -> tuple[Images, RbdLocation]:
        """Return where an image lies, and what of it.

        :raises BadStoreUri: it lies in another cluster
        """
        place = _checked(location)
        if place.pool is None:
            return self._images, place
        if place.fsid != (mine := self._cluster.fsid) and not self._was_in(place):
            raise BadStoreUri(
                f"Expected the URI of an image in the cluster {mine}, got %(uri)s. If its images "
                "have moved here, list the other cluster's fsid in former_places.",
                uri=place.uri,
            )
        return Images(self._cluster, place.pool, self.retry), place


def _checked(location: Location) -> RbdLocation:
    if not isinstance(location, RbdLocation):
        raise BadStoreUri("Expected an rbd:// URI, got %(uri)s", uri=location.uri)
    return location
