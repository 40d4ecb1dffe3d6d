"""What is a leftover in Cinder, and what only looks like one."""

import dataclasses
import pathlib
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib.drivers.cinder import CinderDriver, CinderLocation
from store_lib.drivers.cinder.attachment import SharedAttachments
from store_lib.drivers.cinder.incomplete import Cleanup
from store_lib.drivers.cinder.volume import HEARTBEAT_TIMEOUT, CompleteAttachment, Volume
from store_lib.drivers.cinder.writer import Upload
from store_lib.exceptions import BackendException, Forbidden
from store_lib.options import StoreOptions
from tests.unit.drivers.cinder.small_cinder import (
    SmallCinder,
    SmallHost,
    attachment_of,
    refusal,
    volume_of,
)

_NONCE = "0123456789abcdef" * 2


class _Host(SmallHost):
    """A host that notes what is disconnected from it."""

    def __init__(self, directory: pathlib.Path) -> None:
        super().__init__(directory)
        self.disconnected: list[Any] = []

    def connector(self, connection_info: Any, **_: Any) -> Any:
        return self

    def disconnect_volume(self, connection_info: Any, device_info: Any, force: bool) -> None:
        self.disconnected.append(connection_info)


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Any:
    """A host."""
    return _Host(tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "unfinished"),
    [
        (f"store_lib-upload-{_NONCE}", {}, True),
        (f"store_lib-upload-{_NONCE}", {"more": "of the operator's"}, True),
        # An object to whose metadata somebody has added what an upload has.
        ("image-it", {}, False),
        (f"store_lib-upload-{_NONCE}", {"glance_image_id": "it"}, False),
        ("", {}, False),
        ("renamed", {}, False),
        (f"store_lib-upload-{_NONCE}", {"store_lib_nonce": "f" * 32}, False),
        (f"store_lib-upload-{_NONCE}", {"store_lib_nonce": ""}, False),
    ],
)
def test_metadata_alone_make_no_leftover(
    name: str, changes: dict[str, str], unfinished: bool, host: Any
) -> None:
    """A volume is one only if its name says the same as its metadata; in doubt it stays."""
    metadata = {**Upload("it", _NONCE, "owner", host).initial_metadata(), **changes}
    assert volume_of(name=name, metadata=metadata).is_unfinished is unfinished


def test_a_volume_without_an_uploads_metadata_is_no_leftover() -> None:
    """Whatever its name is."""
    assert not volume_of(name=f"store_lib-upload-{_NONCE}").is_unfinished


def test_a_volume_that_cannot_be_deleted_is_told_with_its_state(host: Any) -> None:
    """And not as something that Cinder refused."""
    cinder: Any = SmallCinder()
    cinder.volumes["it"] = volume_of(status="awaiting-transfer")

    def refuse(volume_id: str) -> None:
        raise refusal("no")

    cinder.delete = refuse
    with pytest.raises(BackendException, match="'awaiting-transfer'") as caught:
        Cleanup(cinder, host).remove("it")
    assert type(caught.value) is BackendException


_OURS = CompleteAttachment("attachment", "here", "store_lib")


def _object(cinder: Any, attachment: Any, *complete: CompleteAttachment, **values: Any) -> Volume:
    """Put an object into Cinder that has one attachment."""
    usual = {"status": "in-use", "metadata": {"glance_image_id": "object"}, "updated_at": 1000.0}
    volume = volume_of(**{**usual, **values}, attachments=complete)
    cinder.volumes["it"] = volume
    cinder.attached["it"] = [attachment]
    return volume


@pytest.mark.parametrize(
    ("attachment", "complete", "dead"),
    [
        (attachment_of("attachment"), _OURS, True),
        (
            attachment_of("attachment"),
            CompleteAttachment("attachment", "there", "store_lib"),
            False,
        ),
        (attachment_of("attachment"), CompleteAttachment("attachment", None, "store_lib"), False),
        (
            attachment_of("attachment"),
            CompleteAttachment("attachment", "here", "glance_store"),
            False,
        ),
        (attachment_of("attachment", instance="a server"), _OURS, False),
        (attachment_of("attachment", "reserved"), None, True),
        (attachment_of("attachment", "reserved", instance="a server"), None, False),
        (attachment_of("attachment", "attaching", attached_at=1000.0), None, True),
        (attachment_of("attachment", "attaching", attached_at=1001.0), None, False),
        (attachment_of("attachment", "detaching"), None, False),
    ],
)
def test_attachments_that_nobody_uses(
    attachment: Any, complete: CompleteAttachment | None, dead: bool, host: Any
) -> None:
    """Ours of this host without a process, and old ones that never came to anything; a server's,
    another host's, and other software's are left alone."""
    cinder: Any = SmallCinder()
    cinder.clock = 1000.0 + HEARTBEAT_TIMEOUT
    volume = _object(cinder, attachment, *([complete] if complete else []))
    found = list(Cleanup(cinder, host).find(volume))
    assert [(each.key, each.object_id, each.live) for each in found] == (
        [("it/attachment", "object", False)] if dead else []
    )
    assert Cleanup(cinder, host).discard("it/attachment") is dead
    assert cinder.attached["it"] == ([] if dead else [attachment])


def test_an_attachment_in_use_stays(host: Any) -> None:
    """While its process holds its lock, and while somebody attaches or detaches the volume."""
    cinder: Any = SmallCinder()
    cinder.clock = 1000.0 + HEARTBEAT_TIMEOUT
    volume = _object(cinder, attachment_of("attachment"), _OURS)
    for lock in (host.locks.attachment("attachment"), host.locks.volume("it")):
        with lock.held():
            assert list(Cleanup(cinder, host).find(volume)) == []
    with host.locks.attachment("attachment").held():
        assert not Cleanup(cinder, host).discard("it/attachment")
    assert not Cleanup(cinder, host).discard("it/another")
    assert not Cleanup(cinder, host).discard("gone/attachment")


def test_what_was_only_reserved_is_not_dead_at_once(host: Any) -> None:
    """Another host may be about to attach it."""
    cinder: Any = SmallCinder()
    volume = _object(cinder, attachment_of("attachment", "reserved"), status="reserved")
    for now, dead in ((1000.0 + HEARTBEAT_TIMEOUT - 1, 0), (1000.0 + HEARTBEAT_TIMEOUT, 1)):
        cinder.clock = now
        assert len(list(Cleanup(cinder, host).find(volume))) == dead


def test_a_dead_readers_device_is_taken_away_unless_others_use_it(host: Any) -> None:
    """The attachment ends either way."""
    cinder: Any = SmallCinder()
    attachment = attachment_of("attachment", connection_info={"driver_volume_type": "local"})
    for others, taken in ((1, 0), (0, 1)):
        _object(cinder, attachment, _OURS, *[dataclasses.replace(_OURS, id="other")] * others)
        assert Cleanup(cinder, host).discard("it/attachment")
        assert len(host.disconnected) == taken
        assert cinder.attached["it"] == []


@pytest.mark.parametrize(
    ("name", "metadata", "deleted"),
    [
        ("image-it", {"glance_image_id": "it", "image_size": "5"}, True),
        ("image-it", {"glance_image_id": "it", "store_lib_nonce": _NONCE}, True),
        ("image-it", {"glance_image_id": "it "}, True),
        ("image-it", {}, False),
        ("image-other", {"glance_image_id": "it"}, False),
        ("data", {"glance_image_id": "it"}, False),
        ("image-", {"glance_image_id": ""}, False),
    ],
)
def test_only_an_images_volume_is_deleted(
    name: str, metadata: dict[str, str], deleted: bool
) -> None:
    """A URI may name any volume of the project; one that is no image's stays."""
    cinder = SmallCinder()
    location = CinderLocation("0123abcd-4567-89ef-0123-456789abcdef")
    volume = volume_of(location.volume_id, name=name, metadata=metadata)
    cinder.volumes[volume.id] = volume
    driver: Any = CinderDriver("it", StoreOptions.of(CinderDriver.options))
    driver._clients = SimpleNamespace(get=lambda _: cinder)
    driver._attachments = SharedAttachments()
    if deleted:
        driver.delete(location, context=None)
    else:
        with pytest.raises(Forbidden, match="delete it in Cinder"):
            driver.delete(location, context=None)
    assert bool(cinder.volumes) is not deleted
