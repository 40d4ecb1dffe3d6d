"""A Swift container as Glance sees it."""

from store_lib.glance.backed import BackedStore

#: What this store's options count in.
_MB = 1000 * 1024


class BaseStore(BackedStore):
    """Objects in Swift."""

    DRIVER = "swift"

    @property
    def container(self) -> str:
        """The container's name, or its beginning."""
        return str(self.store_conf.swift_store_container)

    @property
    def large_object_size(self) -> int:
        """Bytes from which on objects are stored in segments."""
        return int(self.store_conf.swift_store_large_object_size) * _MB

    @property
    def large_object_chunk_size(self) -> int:
        """Bytes of a segment."""
        return int(self.store_conf.swift_store_large_object_chunk_size) * _MB


class Store(BaseStore):
    """The class that glance_store has under this name."""
