"""glance_store's module interface on store_lib, for services written for glance_store.

:func:`store_lib.install_as_glance_store` makes it importable under that name, and so does the
distribution ``glance_store`` that is built from this repository.  Modules, classes and functions
have glance_store's names; whatever it has no module for is in ``_impl``.
"""

# Importing this module registers an exit handler, which fails once the process is ending.  Glance
# itself imports it only then, so it must be imported here, as it was by glance_store.
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
