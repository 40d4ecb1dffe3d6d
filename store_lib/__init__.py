"""Pluggable storage backends for disk images and other big blobs: one add, get and delete."""

from store_lib import exceptions
from store_lib.alias import install_as_glance_store
from store_lib.driver import CreateOnly, Entry, Incomplete, Space, Stat, capabilities
from store_lib.exceptions import StoreError
from store_lib.store import AddResult, Store
from store_lib.stores import Stores
from store_lib.transfer.budget import Budget
from store_lib.transfer.reader import ObjectReader, ReadLayer
from store_lib.transfer.report import TransferReport
from store_lib.transfer.retry import retry_at_most
from store_lib.version import VERSION as __version__

__all__ = [
    "AddResult",
    "Budget",
    "CreateOnly",
    "Entry",
    "Incomplete",
    "ObjectReader",
    "ReadLayer",
    "Space",
    "Stat",
    "Store",
    "StoreError",
    "Stores",
    "TransferReport",
    "__version__",
    "capabilities",
    "exceptions",
    "install_as_glance_store",
    "retry_at_most",
]
