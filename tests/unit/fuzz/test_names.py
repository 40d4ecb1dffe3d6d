"""Ids of objects, names made of them on backends, and the numbers that callers hand in."""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import pytest

from store_lib.arguments import (
    LARGEST,
    check_expiry,
    check_id,
    check_range,
    check_seconds,
    check_size,
    check_tenants,
)
from store_lib.cli import arguments
from store_lib.drivers.cinder.volume import Volume
from store_lib.drivers.filesystem import location as files
from store_lib.drivers.filesystem.location import FileLocation
from store_lib.drivers.rbd.location import RbdLocation
from store_lib.drivers.s3.location import S3Location
from store_lib.drivers.swift import location as swift
from store_lib.drivers.swift.location import SwiftLocation
from store_lib.drivers.vmware import location as vmware
from store_lib.drivers.vmware.location import VmwareLocation
from store_lib.drivers.vmware.options import Datastore
from store_lib.exceptions import Invalid, InvalidObjectId, InvalidRange
from store_lib.transfer.digest import check_names, new_digest
from tests.unit.drivers.cinder.small_cinder import volume_of
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.mutation import Mutator

_NONCE = "0123456789abcdef" * 2
_IDS = [
    "b1f8a2b4-5c2e-4f1e-9d5a-1c2d3e4f5a6b",
    "cirros 0.6.2 (x86_64).qcow2",
    "a%2Fb%00",
    "émoji-\U0001f600",
    "x" * 250,
    "old-00002",
    ".segments",
    ".store_lib-lock-x",
    "store_lib-upload-x",
]
_PIECES = ["..", ".", "/", "%2F", "-00001", ".segments/", "m1-000001", ".store_lib-", _NONCE, "~"]


def _ids(object_id: str) -> bool:
    """Refuse an id, or see that every name made of it leads back to it."""
    check_id(object_id)
    assert object_id.isprintable()
    assert "/" not in object_id
    if files.id_problem(object_id) is None:
        found = FileLocation.parse(FileLocation(f"/data/{object_id}").uri)
        assert found.path == f"/data/{object_id}"
        staged = files.staged_name(object_id, _NONCE)
        assert len(staged.encode()) <= files.NAME_MAX
        assert files.is_private(staged)
        assert files.is_leftover(staged)
        assert files.staged_object_id(staged) in (object_id, None)
    if swift.container_problem("glance") is None and not swift.is_segment(object_id):
        of = SwiftLocation.of_reference("ref/1", "glance", object_id)
        found_there = SwiftLocation.parse(of.uri)
        assert (found_there.reference, found_there.name) == ("ref/1", object_id)
        of = SwiftLocation.of_storage("https://host/v1/AUTH_a", "glance", object_id)
        assert SwiftLocation.parse(of.uri).name == object_id
    if not swift.has_dots(object_id):
        prefix = swift.prefix_of(object_id, _NONCE)
        assert swift.upload_of(f"{prefix}00000001") == (object_id, _NONCE)
        assert swift.split_key(f"glance/{prefix}") == ("glance", object_id, _NONCE)
    container = swift.seeded("glance", object_id, 2)
    assert object_id.startswith(container.removeprefix("glance_"))
    if vmware.id_problem(object_id) is None:
        assert vmware.uploaded_object_id(vmware.upload_name(object_id, _NONCE)) == object_id
        place = Datastore("ha/dc", "data store")
        there = VmwareLocation("host", 443, "dir", object_id, place)
        assert VmwareLocation.parse(there.uri) == there
    if "@" not in object_id:
        image = RbdLocation(object_id, "fsid", "pool", "snap")
        assert RbdLocation.parse(image.uri) == image
    if "@" not in object_id and "://" not in object_id:
        stored = S3Location("s3", "host:9000", "bucket", object_id)
        assert S3Location.parse(stored.uri) == stored
    return True


_NAMES = [
    f".store_lib-{_NONCE}-id",
    f".store_lib-{_NONCE}~id",
    f".store_lib-lock-{_NONCE * 2}",
    f".segments/a%20b/{_NONCE}/00000001",
    f".segments/id/{_NONCE}/m1-000001",
    f"glance/.segments/id/{_NONCE}/",
    "img-00001",
    f"store_lib-upload-{_NONCE}-id",
]


def _names(name: str) -> bool:
    """Read a name that a listing of the backend has."""
    upload = swift.upload_of(name)
    if upload is not None:
        assert name.startswith(swift.prefix_of(*upload))
    key = swift.split_key(name)
    if key is not None:
        assert name == f"{key[0]}/{swift.prefix_of(*key[1:])}"
        assert not {".", ".."} & set(key[1].split("/"))
    other = swift.numbered(name)
    assert other is None or name.startswith(f"{other}-")
    swift.is_seeded("glance", name, 3)
    staged = files.staged_object_id(name)
    if staged is not None:
        assert files.is_leftover(name)
        assert name.endswith(staged)
    if files.is_leftover(name):
        assert files.is_private(name)
    uploaded = vmware.uploaded_object_id(name)
    assert uploaded is None or name.endswith(f"-{uploaded}")
    return bool(upload or key or staged or uploaded)


_VOLUMES = {
    "name": f"store_lib-upload-{_NONCE}",
    "store_lib_upload": "id",
    "store_lib_nonce": _NONCE,
    "glance_image_id": "id",
    "image_size": "12",
}


def _volume(mutator: Mutator) -> Volume:
    fields = mutator.fields(_VOLUMES, ["image-id", _NONCE])
    name = fields.pop("name", "")
    updated = mutator.one([None, 0.0, 1e9, -1.0])
    return volume_of(name=name, metadata=fields, updated_at=updated)


def _marks(volume: Volume) -> bool:
    """Tell an object's volume from one of an upload, never both."""
    unfinished, whole = volume.is_unfinished, volume.is_image
    assert not (unfinished and whole)
    assert volume.last_change(5.0) <= 5.0
    return unfinished or whole


_ODD = ["1", "[1, 5]", '{"offset": 0, "length": 10}', "1.5", "true", '"10"', f"{LARGEST}", "-1"]


def _numbers(value: Any) -> bool:
    """Hand a value in wherever there is a number to be handed in."""
    taken = 0
    for check in (check_size, check_seconds, check_expiry):
        try:
            check(value)
            taken += 1
        except Invalid:
            pass
    for offset, length in ((value, None), (0, value), (value, value)):
        try:
            whole, found = check_range(offset, length)
        except InvalidRange:
            continue
        taken += 1
        assert offset + (found or 0) <= LARGEST
        assert whole == (offset == 0 and length is None)
    try:
        check_id(value)
        taken += 1
    except InvalidObjectId:
        pass
    return taken > 0


def _tenants(tenants: list[str]) -> bool:
    check_tenants(tenants)
    text = ",".join(f"{each}:*" for each in tenants)
    assert text.split(",") == [f"{each}:*" for each in tenants]
    assert text.isprintable()
    return True


def _some_tenants(mutator: Mutator) -> list[str]:
    good = ["AUTH_a", "8f3a9c", "a,.r:*", "tenant\r\nX: y"]
    return [mutator.text(good, [",", ".r:*", "*", ":"]) for _ in range(1 + mutator.below(3))]


_DIGESTS = [
    '{"names": ["md5", "sha512"], "expected": {"md5": "' + "0" * 32 + '"}}',
    '{"names": ["sha256", "blake2b"], "expected": null}',
]


def _digests(value: Any) -> bool:
    value = value if isinstance(value, dict) else {"names": value}
    names = check_names(value.get("names", ()), value.get("expected"))
    return all(new_digest(each).digest_size for each in names)


_ARGUMENTS = {
    "count": ["0", "123", "9223372036854775807"],
    "digest": ["sha256:e3b0c442", "md5:00", "sha512:ABCDEF01"],
    "duration": ["90", "15m", "12h", "7d", "1.5w"],
}


def _argument(given: tuple[str, str]) -> bool:
    kind, text = given
    found: Any = getattr(arguments, kind)(text)
    if kind == "digest":
        assert found[0]
        bytes.fromhex(found[1])
    else:
        assert found >= 0
        assert str(found)
    return True


def _an_argument(mutator: Mutator) -> tuple[str, str]:
    kind = mutator.one(list(_ARGUMENTS))
    return kind, mutator.text(_ARGUMENTS[kind], ["m", "h", "d", ":", ".", "e9"])


_text: Callable[..., Callable[[Mutator], str]] = functools.partial(
    functools.partial, Mutator.text, pieces=_PIECES
)

pytestmark = pytest.mark.deep("fuzz", always=True)

PARSERS = [
    Parser("ids", _text(corpus=_IDS), _ids, (InvalidObjectId,)),
    Parser("names on backends", _text(corpus=[*_NAMES, *_IDS]), _names),
    Parser("marks of volumes", _volume, _marks),
    Parser("numbers of callers", functools.partial(Mutator.value, corpus=_ODD), _numbers),
    Parser("tenants", _some_tenants, _tenants, (Invalid,)),
    Parser("digests", functools.partial(Mutator.value, corpus=_DIGESTS), _digests, (Invalid,)),
    Parser("arguments of commands", _an_argument, _argument, (argparse.ArgumentTypeError,)),
]


def test_names(parser: Parser, batches: range, record_property: Any) -> None:
    """What is accepted means one thing, and every name made of it leads back to it."""
    feed(parser, batches, record_property)
