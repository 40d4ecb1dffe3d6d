"""A vSphere datastore as Glance sees it."""

from store_lib.glance.backed import BackedStore


class Store(BackedStore):
    """Files in vSphere datastores."""

    DRIVER = "vmware"
