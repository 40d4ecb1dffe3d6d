"""Tests of object ids: one rule for all stores, so that copies carry an id between them."""

from pathlib import Path

import pytest

from store_lib import Stores
from store_lib.arguments import RESERVED, check_portable, invalid_id
from store_lib.drivers.filesystem import location as filesystem
from store_lib.drivers.s3 import publishing as s3
from store_lib.drivers.swift import location as swift
from store_lib.drivers.vmware import location as vmware
from store_lib.exceptions import InvalidObjectId
from tests.unit.memory_driver import memory_store

REFUSED = [
    "",
    ".",
    "..",
    "a/b",
    "/",
    "../a",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\u0085b",
    "a\u202eb",
    "a\udc80b",
    "x" * 256,
    "\u4e2d" * 86,
    "x" * 10**6,
    *(f"{each}x" for each in RESERVED),
]
TAKEN = ["5ed3f1e2-0a1c-4e5a-9d43-0f8c5b9c2b11", "a b", "...", ".a", "x" * 255, "\u00e9" * 127]


@pytest.mark.parametrize("object_id", REFUSED, ids=lambda each: ascii(each[:12]))
def test_what_is_refused(object_id: str) -> None:
    """Such an id is refused by the engine, whatever the driver could hold, in a printable text."""
    store, driver = memory_store()
    with pytest.raises(InvalidObjectId, match="Expected 1 to 255 bytes in UTF-8") as caught:
        store.add(object_id, b"x")
    assert driver.faults.calls == []
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("object_id", TAKEN, ids=lambda each: ascii(each[:12]))
def test_what_is_taken(object_id: str) -> None:
    """An id that every kind of store can hold, a UUID among them, comes back as it is."""
    check_portable(object_id)
    store, driver = memory_store()
    store.add(object_id, b"x")
    assert list(driver.objects) == [object_id]


def test_an_id_that_is_no_text() -> None:
    """Something else than a str is refused with its type."""
    store, _ = memory_store()
    with pytest.raises(InvalidObjectId, match="a str was expected, got bytes"):
        store.add(b"id", b"x")  # type: ignore[arg-type]


def test_a_file_is_refused_like_an_object_elsewhere(tmp_path: Path) -> None:
    """Another backend gives the same reason for the same id."""
    values = {
        "DEFAULT": {"enabled_backends": "a:file"},
        "a": {"filesystem_store_datadir": str(tmp_path)},
    }
    with Stores.from_mapping(values, strict=True) as stores:
        for object_id in REFUSED:
            with pytest.raises(InvalidObjectId, match="Expected 1 to 255 bytes in UTF-8"):
                stores.add(object_id, b"x")


def test_a_reason_of_the_backend_s_own() -> None:
    """A driver's own refusal shows as much of the id as one can read."""
    error = invalid_id("\u4e2d" * 1000, "it is odd.")
    assert str(error).startswith("The object id '\\u4e2d")
    assert str(error).endswith("... cannot be used: it is odd.")
    assert len(str(error)) < 150


@pytest.mark.parametrize(
    "prefix",
    [
        filesystem.PRIVATE_PREFIX,
        *filesystem.HIDDEN_PREFIXES,
        s3.PREFIX,
        swift.SEGMENTS,
        vmware.UPLOAD_PREFIX,
    ],
)
def test_names_of_drivers_are_reserved(prefix: str) -> None:
    """No id is a name that some driver gives to what is no object."""
    with pytest.raises(InvalidObjectId):
        check_portable(f"{prefix.rstrip('/')}x".replace("/", "-"))
    assert prefix.startswith(RESERVED)
