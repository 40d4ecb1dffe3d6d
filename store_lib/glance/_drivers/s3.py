"""An S3 bucket as Glance sees it."""

from typing import Any

from store_lib.display import get_logger
from store_lib.glance.backed import BackedStore

LOG = get_logger(__name__)

_MIB = 1024 * 1024


class Store(BackedStore):
    """Objects in an S3 bucket.

    glance_store never looked at the host of a URI, so that images are found after the server got
    another name.  They still are; it is warned of, once.
    """

    DRIVER = "s3"
    _warned = False

    @property
    def s3_store_large_object_size(self) -> int:
        """Bytes from which on objects are uploaded in parts."""
        return int(self.store_conf.s3_store_large_object_size) * _MIB

    @property
    def s3_store_large_object_chunk_size(self) -> int:
        """Bytes of a part."""
        return int(self.store_conf.s3_store_large_object_chunk_size) * _MIB

    @property
    def s3_store_thread_pools(self) -> int:
        """How many parts are uploaded at once."""
        return int(self.store_conf.s3_store_thread_pools)

    def meant(self, uri: str) -> str:
        driver: Any = self.driver
        if driver is None or driver.owns(place := driver.parse(uri)):
            return uri
        if not self._warned:
            self._warned = True
            LOG.warning(
                "Store %s: the URI %s names another server than %s, which is asked all the same, "
                "for this image and others. List the places that the store has moved from in its "
                "option former_places.",
                self.backend_group or self.driver_name,
                place,
                driver.url_prefix,
            )
        found: str = driver.here(place).uri
        return found
