"""Stores on real S3 servers, each with a bucket of its own."""

import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store_lib import Store, Stores
from tests.functional.s3.places import LOOK_UP, SMALL_PARTS, Place, find_place

#: Makes a store at a place, with further options.
MakeStore = Callable[..., Store]


@pytest.fixture
def make_store() -> Iterator[MakeStore]:
    """Makes stores; what is left in their buckets fails the test."""
    made: list[Stores] = []

    def make(place: Place, **options: Any) -> Store:
        values = {
            "s3_store_bucket": f"box-{uuid.uuid4()}",
            "s3_store_create_bucket_on_put": True,
            **SMALL_PARTS,
            **place.options,
            **options,
        }
        values = {name: value for name, value in values.items() if value is not None}
        made.append(Stores.from_mapping({"DEFAULT": {"enabled_backends": "it:s3"}, "it": values}))
        return made[-1]["it"]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=["Ceph, http, path", "Ceph, https, virtual"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Ceph's gateway, in both ways of asking it."""
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)
    exec(LOOK_UP, {})
    return find_place(request.param, request)
