"""glance_store's module interface on store_lib, for services that know nothing of store_lib.

Made importable under that name by :func:`store_lib.install_as_glance_store`, or by the
distribution named ``glance_store`` that is built from this repository.
"""

# Services register what they do at the end of the process when that has begun already, as Glance
# does; this module must have registered its own before, and glance_store saw to that.
import concurrent.futures.thread  # noqa: F401

from store_lib.glance import (
    backend,
    capabilities,
    driver,
    exceptions,
    i18n,
    location,
    multi_backend,
)
from store_lib.glance.backend import *  # noqa: F403
from store_lib.glance.driver import *  # noqa: F403
from store_lib.glance.exceptions import *  # noqa: F403
from store_lib.glance.multi_backend import *  # noqa: F403

__all__ = [
    "backend",
    "capabilities",
    "driver",
    "exceptions",
    "i18n",
    "location",
    "multi_backend",
    *backend.__all__,
    *driver.__all__,
    *exceptions.__all__,
    *multi_backend.__all__,
]
