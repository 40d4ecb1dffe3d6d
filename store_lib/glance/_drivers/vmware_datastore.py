"""The VMware store."""

from store_lib.glance._impl.adapter import StoreAdapter


class Store(StoreAdapter):
    """Stores objects as files in vSphere datastores."""

    DRIVER = "vmware"
