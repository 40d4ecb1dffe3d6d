"""An S3 bucket as Glance sees it."""

from store_lib.glance.backed import BackedStore

_MIB = 1024 * 1024


class Store(BackedStore):
    """Objects in an S3 bucket."""

    DRIVER = "s3"

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
