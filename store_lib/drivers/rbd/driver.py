"""The rbd driver: objects are images in a pool of a Ceph cluster, named by their id."""

import functools
import math
import time
from collections.abc import Iterator
from urllib.parse import quote

from store_lib.display import get_logger
from store_lib.driver import CreateOnly, Driver, Entry, Incomplete, RequestContext, Space, Stat
from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.client import Cluster
from store_lib.drivers.rbd.images import SNAPSHOT, ImageInfo, Images
from store_lib.drivers.rbd.location import RbdLocation
from store_lib.drivers.rbd.options import MIB, OPTIONS, ConnectionSettings, UploadSettings
from store_lib.drivers.rbd.reader import PIECE, RbdReader
from store_lib.drivers.rbd.writer import RbdWriter
from store_lib.exceptions import (
    BadStoreUri,
    Forbidden,
    StorageFull,
    StoreError,
)

LOG = get_logger(__name__)

#: MiB of the largest RADOS objects of librbd.
_LARGEST_OBJECT = 32
#: The share of a transfer's stall timeout that one operation may take, so that Ceph's own, more
#: exact error comes first.
_OPERATION_SHARE = 0.8


class RbdDriver(Driver[RbdLocation]):
    """Objects are images with a snapshot; see :doc:`/drivers/rbd`."""

    schemes = RbdLocation.schemes
    options = OPTIONS
    location_class = RbdLocation
    create_only = CreateOnly.ATOMIC
    ranges = True
    copies = True
    read_concurrency = 4
    read_size = PIECE

    #: ``None`` if the configuration is invalid.
    _configured: Cluster | None = None
    _images: Images
    _settings: UploadSettings

    def configure(self) -> None:
        """Check the options and import Ceph's modules, without connecting.

        :raises DriverLoadFailure: Ceph's modules are missing
        :raises BadStoreConfiguration: an option, or Ceph's configuration file, is invalid
        """
        conf = self.conf
        if not conf.rbd_store_pool:
            raise self.misconfigured("rbd_store_pool: expected the name of a pool, got none")
        bindings.load(self.store_id)
        settings = ConnectionSettings(
            pool=conf.rbd_store_pool,
            user=conf.rbd_store_user or None,
            conf_file=conf.rbd_store_ceph_conf or "",
            connect_timeout=conf.rados_connect_timeout,
            operation_timeout=math.ceil(conf.transfer_stall_timeout * _OPERATION_SHARE),
        )
        self._configured = Cluster(self.store_id, settings)
        self._images = Images(self._cluster, conf.rbd_store_pool, self.retry)
        chunk = conf.rbd_store_chunk_size
        if chunk & (chunk - 1) or not 0 < chunk <= _LARGEST_OBJECT:
            raise self.misconfigured(
                f"rbd_store_chunk_size: expected a power of two up to {_LARGEST_OBJECT} (MiB), as "
                f"Ceph cuts images into objects of such sizes only, got {chunk}",
                readable=True,
            )
        self._settings = UploadSettings(chunk * MIB, conf.rbd_thin_provisioning)

    @property
    def url_prefix(self) -> str:
        """``rbd://<fsid>/<pool>/``.  Connects if the Ceph configuration has no fsid."""
        return f"rbd://{quote(self._cluster.fsid, safe='')}/{quote(self._pool, safe='')}/"

    def id_problem(self, object_id: str) -> str | None:
        if "@" in object_id:
            return "it has an '@', which Ceph's tools put before a snapshot."
        return None

    def holds(self, location: RbdLocation) -> bool:
        if location.pool is None:
            return True
        known = self._configured.known_fsid if self._configured is not None else None
        return location.pool == self._pool and (
            known in (None, location.fsid) or self._moved_from(location)
        )

    def create(
        self, object_id: str, size: int | None, *, nonce: str, context: RequestContext | None
    ) -> RbdWriter:
        settings = self._settings
        if size is not None and size > settings.object_size and not settings.thin:
            self._check_space(size)

        location = RbdLocation(object_id, self._cluster.fsid, self._pool, SNAPSHOT)
        writer = RbdWriter(self._images, location, nonce, settings, self._images_of)
        if size == 0:  # a copy makes its own image
            self._images.check_free(object_id)
            return writer
        with writer:
            # Before any byte is read: a process that is killed while Ceph creates an image leaves
            # a name without an image.
            writer.resize(size or 0)
            return writer

    def read(
        self,
        location: RbdLocation,
        offset: int,
        length: int | None,
        *,
        context: RequestContext | None,
    ) -> RbdReader:
        images = self._images_of(location)
        snapshot = location.snapshot
        if snapshot is None and images.find(location.image, None).complete:
            snapshot = SNAPSHOT
        return RbdReader(self._cluster, images.ioctx, location.image, snapshot, offset, length)

    def stat(self, location: RbdLocation, *, context: RequestContext | None) -> Stat:
        info = self._images_of(location).find(location.image, location.snapshot)
        return Stat(info.size, info.modified)

    def delete(self, location: RbdLocation, *, context: RequestContext | None) -> None:
        self._images_of(location).delete(location.image, location.snapshot)

    def list(self, *, context: RequestContext | None) -> Iterator[Entry]:
        fsid = self._cluster.fsid
        for name, image_id in self._images.entries():
            info = self.retry(functools.partial(self._images.inspect, name))
            if info is not None and info.complete and info.image_id == image_id:
                location = RbdLocation(name, fsid, self._pool, SNAPSHOT)
                yield Entry(name, location, info.size, info.modified)

    def list_incomplete(self, *, context: RequestContext | None) -> Iterator[Incomplete]:
        now: float | None = None
        for name, image_id in self._images.entries():
            info = self.retry(functools.partial(self._inspect_entry, name, image_id))
            if info is None or not info.unfinished:
                continue
            if now is None:
                now = self._now()
            modified = min(info.modified, now)  # another OSD's clock may be ahead
            yield Incomplete(image_id, name, info.size, modified, info.watched, now)

    def discard(self, incomplete: Incomplete, *, context: RequestContext | None) -> bool:
        if incomplete.object_id is None:
            raise self.unknown_upload(incomplete.key)
        return self._images.discard(incomplete.object_id, incomplete.key)

    def space(self, *, context: RequestContext | None) -> Space:
        return self._cluster.space(self._cluster.data_pool(self._pool))

    def close(self) -> None:
        if self._configured is not None:
            self._configured.close()

    @property
    def _cluster(self) -> Cluster:
        if self._configured is None:
            raise self.misconfigured("the store is not configured")
        return self._configured

    @property
    def _pool(self) -> str:
        name: str = self.conf.rbd_store_pool
        return name

    def _images_of(self, location: RbdLocation) -> Images:
        """Return the images of the location's pool.

        :raises BadStoreUri: it is in another cluster
        """
        if location.pool is None:
            return self._images
        own = self._cluster.fsid
        if location.fsid != own and not self._moved_from(location):
            raise BadStoreUri(
                f"Expected the URI of an image in the cluster {own}, got %(uri)s. If its images "
                "have moved here, list the other cluster's fsid in former_places.",
                uri=location.uri,
            )
        return Images(self._cluster, location.pool, self.retry)

    def _moved_from(self, location: RbdLocation) -> bool:
        return self.conf.moved_from(str(location.fsid), f"{location.fsid}/{location.pool}")

    def _check_space(self, size: int) -> None:
        try:
            pool = self._cluster.data_pool(self._pool)
            free = self._cluster.space(pool).free
        except StoreError:
            return  # the write itself will fail if there is none
        if free is not None and size > free:
            raise StorageFull(
                f"Expected room for {size} bytes in the pool {pool}, but {free} are free."
            )

    def _inspect_entry(self, name: str, image_id: str) -> ImageInfo | None:
        info = self._images.inspect(name)
        if info is None or info.image_id != image_id:
            return self._images.inspect_half_removed(name, image_id)
        return info

    def _now(self) -> float:
        """Return the cluster's time, against which the age of an image is measured."""
        try:
            return self.retry(functools.partial(self._cluster.now, self._pool))
        except (StorageFull, Forbidden) as error:
            # A full pool needs a sweep all the same.  A live upload has a watcher.
            LOG.info(
                "Store %s: ages are measured by this machine's clock: %s", self.store_id, error
            )
            return time.time()
