"""The read-only HTTP store."""

from typing import Any

from store_lib.glance._impl.adapter import StoreAdapter
from store_lib.glance.exceptions import (
    BadStoreUri,
    GlanceStoreException,
    NotFound,
    UnknownScheme,
)


class Store(StoreAdapter):
    """Reads objects from web servers."""

    DRIVER = "http"

    def get_size(self, location: Any, context: Any = None) -> int:
        """Return the size of an object in bytes, 0 if the server does not send it.

        :raises BadStoreUri: the server cannot be reached or refuses the request
        """
        try:
            return self._stat_size(location, context)
        except (NotFound, UnknownScheme, BadStoreUri):
            raise
        except GlanceStoreException as error:
            # For a size of 0, a service would accept the URI.
            raise BadStoreUri(f"The size of the object cannot be read: {error}") from error
