"""The ``store-lib`` command; needs the extra ``cli``."""
