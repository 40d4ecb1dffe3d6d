"""Replaces glance_store: importing it imports store_lib's interface under that name."""

import importlib
import sys

import store_lib

del sys.modules[__name__]
store_lib.install_as_glance_store()
sys.modules[__name__] = importlib.import_module("store_lib.glance")
