"""The Swift backend: one account, several by reference, or each tenant's own; large objects."""

from store_lib.drivers.swift.driver import SwiftDriver
from store_lib.drivers.swift.location import SwiftLocation

__all__ = ["SwiftDriver", "SwiftLocation"]
