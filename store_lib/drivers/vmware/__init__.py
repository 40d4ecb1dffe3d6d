"""The VMware datastore backend: objects are files on datastores of a vCenter or ESXi server.

It has no ``reader``: :mod:`store_lib.clients.ranges` reads the files.
"""

from store_lib.drivers.vmware.driver import VmwareDriver
from store_lib.drivers.vmware.location import VmwareLocation

__all__ = ["VmwareDriver", "VmwareLocation"]
