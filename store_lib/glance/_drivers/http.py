"""A web store as Glance sees it."""

from store_lib.glance.backed import BackedStore


class Store(BackedStore):
    """Objects on web servers, read-only."""

    DRIVER = "http"
