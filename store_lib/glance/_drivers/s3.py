"""The S3 store."""

from typing import Any

from store_lib.display import get_logger
from store_lib.glance._impl.adapter import StoreAdapter

LOG = get_logger(__name__)

_MIB = 1024 * 1024


class Store(StoreAdapter):
    """Stores objects in an S3 bucket.

    glance_store ignored the host of a URI, so that it found images after the server was renamed.
    This class finds them too, and logs a warning once.
    """

    DRIVER = "s3"
    _warned = False

    @property
    def s3_store_large_object_size(self) -> int:
        """Size in bytes from which objects are uploaded in parts."""
        return int(self.store_conf.s3_store_large_object_size) * _MIB

    @property
    def s3_store_large_object_chunk_size(self) -> int:
        """Size in bytes of a part."""
        return int(self.store_conf.s3_store_large_object_chunk_size) * _MIB

    @property
    def s3_store_thread_pools(self) -> int:
        """Number of parts uploaded at once."""
        return int(self.store_conf.s3_store_thread_pools)

    def current_uri(self, uri: str) -> str:
        driver: Any = self.driver
        if driver is None or driver.owns(place := driver.parse(uri)):
            return uri
        if not self._warned:
            self._warned = True
            LOG.warning(
                "Store %s: the URI %s names another server than %s, which is used nevertheless for "
                "this and other images. List the former places of the store in its option "
                "former_places.",
                self.backend_group or self.driver_name,
                place,
                driver.url_prefix,
            )
        current: str = driver.here(place).uri
        return current
