"""A web store as Glance sees it."""

from typing import Any

from store_lib.glance.backed import BackedStore
from store_lib.glance.exceptions import (
    BadStoreUri,
    GlanceStoreException,
    NotFound,
    UnknownScheme,
)


class Store(BackedStore):
    """Objects on web servers, read-only."""

    DRIVER = "http"

    def get_size(self, location: Any, context: Any = None) -> int:
        """Return the size of an object; 0: the server does not say.

        :raises BadStoreUri: the server cannot be reached, or refuses to answer
        """
        try:
            return self._size_of(location, context)
        except (NotFound, UnknownScheme, BadStoreUri):
            raise
        except GlanceStoreException as error:
            # With a size of 0 a service would take the URI for a good one.
            raise BadStoreUri(f"The size of the object cannot be read: {error}") from error
