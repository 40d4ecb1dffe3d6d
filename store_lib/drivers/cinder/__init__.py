"""The Cinder backend: an object is a volume, attached to this host while it is written or read."""

from store_lib.drivers.cinder.driver import CinderDriver
from store_lib.drivers.cinder.location import CinderLocation

__all__ = ["CinderDriver", "CinderLocation"]
