"""The operations of a measured process on glance_store with vSphere, bypassing its defects.

Its multi-store form looks for stores under the scheme ``vmware``, but registers them under
``vsphere``; and certificate authorities in the environment take precedence over configured ones.
"""

import os

import glance_store  # type: ignore[import-not-found, unused-ignore]
from glance_store import location  # type: ignore[import-not-found, unused-ignore]

from benchmarks import peer_driver
from benchmarks.child import Answer, Measures, Request

for _name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
    os.environ.pop(_name, None)

_create = glance_store.create_multi_stores


def _create_and_enter(conf: object) -> None:
    _create(conf)
    entered = location.SCHEME_TO_CLS_BACKEND_MAP
    entered["vmware"] = entered["vsphere"]


glance_store.create_multi_stores = _create_and_enter


def add(request: Request, measures: Measures) -> Answer:
    """Add a file of known size."""
    return peer_driver.add(request, measures)


def add_unknown(request: Request, measures: Measures) -> Answer:
    """Add a file without declaring its size."""
    return peer_driver.add_unknown(request, measures)


def get(request: Request, measures: Measures) -> Answer:
    """Read an object with the iterator that the peer returns."""
    return peer_driver.get(request, measures)
