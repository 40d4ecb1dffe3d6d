"""The operations of a measured process on glance_store with Cinder, as fast as possible.

glance_store starts os-brick's helper through sudo even as root.  Here privileged code runs in the
process, as root, which is faster.
"""

from os_brick import privileged  # type: ignore[import-untyped, import-not-found, unused-ignore]

from benchmarks import peer_driver
from benchmarks.child import Answer, Measures, Request

privileged.default.set_client_mode(False)


def add(request: Request, measures: Measures) -> Answer:
    """Add a file of known size."""
    return peer_driver.add(request, measures)


def add_unknown(request: Request, measures: Measures) -> Answer:
    """Add a file without declaring its size."""
    return peer_driver.add_unknown(request, measures)


def get(request: Request, measures: Measures) -> Answer:
    """Read an object."""
    return peer_driver.get(request, measures)
