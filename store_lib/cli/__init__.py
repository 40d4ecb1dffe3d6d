"""The ``store-lib`` command; requires the extra ``cli``."""
