"""The Cinder store."""

from typing import Any

from store_lib.display import get_logger
from store_lib.glance._impl.adapter import StoreAdapter

LOG = get_logger(__name__)


class Store(StoreAdapter):
    """Stores each object as a Cinder volume."""

    DRIVER = "cinder"

    def is_image_associated_with_store(self, context: Any, volume_id: str) -> bool:
        """Return whether a volume has the volume type of this store.

        Glance uses this to find the store of an image that has an old URI.  It tries one store
        after the other, so an error is only logged, and the result is false.
        """
        try:
            driver: Any = self.driver
            return driver is not None and bool(
                driver.is_image_associated_with_store(context, volume_id)
            )
        except Exception as error:  # an error in one store must not hide an image in another
            LOG.warning(
                "Whether volume %s belongs to store %s is unknown for now: %s",
                volume_id,
                self.backend_group,
                error,
            )
            return False
