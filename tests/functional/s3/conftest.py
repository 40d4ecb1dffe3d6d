"""Stores on real S3 servers, each with a bucket of its own."""

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.drivers.s3 import S3Driver
from tests.functional.s3.places import LOOK_UP, SMALL_PARTS, Place, find_place

MIB = 1024 * 1024
#: Three parts.
LARGE = os.urandom(MIB) * 12 + b"end"

#: Makes a store at a place, with further options.
MakeStore = Callable[..., Store]


def stream(data: bytes) -> Iterator[bytes]:
    """Return a source that does not tell its length."""
    return (data[at : at + MIB] for at in range(0, len(data), MIB))


def bucket_of(store: Store) -> dict[str, str]:
    """Return the option that puts another store into the bucket of ``store``."""
    assert isinstance(store.driver, S3Driver), store.error
    return {"s3_store_bucket": store.driver._settings.bucket}


def assert_nothing_is_left(store: Store, *kept: str) -> None:
    """The bucket holds the objects ``kept``, no claim, and no upload in parts."""
    driver = store.driver
    assert isinstance(driver, S3Driver), store.error
    client, bucket = driver._client.open(), driver._settings.bucket
    objects = client.list_objects_v2(Bucket=bucket).get("Contents", ())
    assert sorted(each["Key"] for each in objects) == sorted(kept)
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()) == ()


@pytest.fixture
def make_store() -> Iterator[MakeStore]:
    """Makes stores, each with a bucket of its own unless that is named."""
    made: list[Stores] = []

    def make(place: Place, **options: Any) -> Store:
        values = {
            "s3_store_bucket": f"{uuid.uuid4()}-box",
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
