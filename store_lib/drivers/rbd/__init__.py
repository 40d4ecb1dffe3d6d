"""The Ceph block device backend: each object is an image with a protected snapshot."""

from store_lib.drivers.rbd.driver import RbdDriver
from store_lib.drivers.rbd.location import RbdLocation

__all__ = ["RbdDriver", "RbdLocation"]
