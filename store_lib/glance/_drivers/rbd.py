"""The RBD store."""

from store_lib.glance._impl.adapter import StoreAdapter


class Store(StoreAdapter):
    """Stores objects as images in a Ceph pool."""

    DRIVER = "rbd"

    @property
    def chunk_size(self) -> int:
        """Size in bytes of the RADOS objects of an image."""
        return int(self.store_conf.rbd_store_chunk_size) * 1024 * 1024

    @property
    def pool(self) -> str:
        """Name of the pool."""
        return str(self.store_conf.rbd_store_pool)

    @property
    def thin_provisioning(self) -> bool:
        """Whether blocks of zeros are stored as holes."""
        return bool(self.store_conf.rbd_thin_provisioning)
