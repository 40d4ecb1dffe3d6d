"""Glance's API on store_lib: what the WSGI server loads in place of ``glance.wsgi.api``."""

import store_lib

store_lib.install_as_glance_store()  # before anything imports glance_store

from glance.wsgi.api import application  # noqa: E402, F401
