"""A Ceph pool as Glance sees it."""

from store_lib.glance.backed import BackedStore


class Store(BackedStore):
    """Images in a Ceph pool."""

    DRIVER = "rbd"

    @property
    def chunk_size(self) -> int:
        """Bytes of one of an image's objects."""
        return int(self.store_conf.rbd_store_chunk_size) * 1024 * 1024

    @property
    def pool(self) -> str:
        """The pool's name."""
        return str(self.store_conf.rbd_store_pool)

    @property
    def thin_provisioning(self) -> bool:
        """Whether blocks of zeros are left out."""
        return bool(self.store_conf.rbd_thin_provisioning)
