"""What drivers of others import from ``glance_store.common``."""

from store_lib.glance.common import pieces as utils

__all__ = ["utils"]
