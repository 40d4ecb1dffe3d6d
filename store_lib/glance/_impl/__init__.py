"""The private half of :mod:`store_lib.glance`: whatever glance_store has no module for."""
