"""The Swift store."""

from store_lib.glance._impl.adapter import StoreAdapter

#: The unit of the options for sizes.
_MB = 1000 * 1024


class BaseStore(StoreAdapter):
    """Stores objects in Swift."""

    DRIVER = "swift"

    @property
    def container(self) -> str:
        """Name of the container, or its prefix if there are several containers."""
        return str(self.store_conf.swift_store_container)

    @property
    def large_object_size(self) -> int:
        """Size in bytes from which objects are stored in segments."""
        return int(self.store_conf.swift_store_large_object_size) * _MB

    @property
    def large_object_chunk_size(self) -> int:
        """Size in bytes of a segment."""
        return int(self.store_conf.swift_store_large_object_chunk_size) * _MB


class Store(BaseStore):
    """glance_store's name for the class."""
