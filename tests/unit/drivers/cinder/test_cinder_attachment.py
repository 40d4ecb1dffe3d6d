"""Attaching and detaching, with the errors in between: all is undone, and done once."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from store_lib.drivers.cinder.attachment import Attachment, SharedAttachments
from store_lib.drivers.cinder.volume import CompleteAttachment, Volume, VolumeAttachment
from store_lib.exceptions import BackendException, NotFound, RemoteServiceUnavailable, StoreError
from tests.frames import frames
from tests.unit.drivers.cinder.small_cinder import SmallHost, attachment_of, volume_of


class _Host(SmallHost):
    """A host whose os-brick hands out a file."""

    def __init__(self, directory: pathlib.Path, done: list[str]) -> None:
        (directory / "locks").mkdir()
        super().__init__(directory / "locks")
        self.directory = directory
        self.done = done
        self.path = directory / "volume"
        self.path.write_bytes(b"bytes")
        self.fail: set[str] = set()

    def properties(self) -> dict[str, str]:
        return {"host": self.name}

    def forget_properties(self) -> None:
        self.done.append("forget")

    def connector(self, connection_info: Any, **_: Any) -> Any:
        return self

    def connect_volume(self, connection: Any) -> dict[str, str]:
        self.note("connect")
        return {"path": str(self.path)}

    def disconnect_volume(self, connection: Any, connected: Any, force: bool) -> None:
        self.note("disconnect")

    def as_root(self, *command: str) -> None:
        self.note(command[0])

    def note(self, what: str) -> None:
        self.done.append(what)
        if what in self.fail:
            raise ValueError(f"cannot {what}")


class _Cinder:
    """Attachments, with errors on demand."""

    def __init__(self, done: list[str]) -> None:
        self.done = done
        self.errors: dict[str, StoreError] = {}
        self.kind = "local"
        self.extra: dict[str, Any] = {}

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what in self.errors:
            raise self.errors.pop(what)

    def create_attachment(self, volume_id: str, mode: str, timeout: float) -> str:
        self._do(f"reserve {mode}")
        return "attachment"

    def update_attachment(self, attachment_id: str, connector: Any) -> VolumeAttachment:
        self._do("update")
        info = {"driver_volume_type": self.kind, **self.extra}
        return attachment_of(attachment_id, connection_info=info)

    def complete_attachment(self, attachment_id: str) -> None:
        self._do("complete")

    def delete_attachment(self, attachment_id: str) -> None:
        self._do("delete")

    def get(self, volume_id: str) -> Volume:
        self._do("get")
        here = CompleteAttachment("attachment", "here", "store_lib")
        return dataclasses.replace(_VOLUME, attachments=(here, here))


_VOLUME = volume_of()

Attach = Callable[..., Attachment]


@pytest.fixture
def done() -> list[str]:
    """What was done, in order."""
    return []


@pytest.fixture
def host(tmp_path: pathlib.Path, done: list[str]) -> _Host:
    """A host."""
    return _Host(tmp_path, done)


@pytest.fixture
def cinder(done: list[str]) -> _Cinder:
    """Cinder."""
    return _Cinder(done)


def _attach(cinder: Any, host: Any, mode: str = "rw", volume: Volume = _VOLUME) -> Attachment:
    attachment = Attachment(host, volume, mode)
    attachment.attach(cinder, 0)
    return attachment


def _locks(host: _Host) -> list[str]:
    return [path.name for path in (host.directory / "locks").iterdir()]


def test_a_volume_comes_and_goes(host: _Host, cinder: Any, done: list[str]) -> None:
    """Cinder is told that it is attached once it is, and that it is not once it is not."""
    attachment = _attach(cinder, host)
    attachment.device.write_at(0, b"B")
    attachment.flush()
    attachment.detach(cinder)
    attachment.flush()
    attachment.detach(cinder)
    assert done == [
        *("reserve rw", "update", "connect", "complete"),
        *("disconnect", "delete"),
    ]
    assert host.path.read_bytes() == b"Bytes"
    assert _locks(host) == []


@pytest.mark.parametrize("what", ["update", "complete"])
def test_what_cinder_refuses_is_undone(
    what: str, host: _Host, cinder: Any, done: list[str]
) -> None:
    """The device is taken away where it had come, and the attachment ended."""
    cinder.errors[what] = StoreError("refused")
    with pytest.raises(StoreError, match="refused"):
        _attach(cinder, host)
    ends = ["disconnect"] if what == "complete" else []
    assert done[done.index(what) + 1 :] == [*ends, "forget", "delete"]
    assert _locks(host) == []


def test_what_os_brick_refuses_is_undone(host: _Host, cinder: Any, done: list[str]) -> None:
    """And what cannot be undone is told with the error."""
    host.fail = {"connect"}
    cinder.errors["delete"] = RemoteServiceUnavailable("no answer")
    with pytest.raises(BackendException, match="could not attach volume it") as caught:
        _attach(cinder, host)
    assert "left over: no answer" in caught.value.__notes__[0]
    assert done[-1] == "delete"


def test_a_device_that_cannot_be_opened_is_taken_away(
    host: _Host, cinder: Any, done: list[str]
) -> None:
    """The connector is told so."""
    host.path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        _attach(cinder, host)
    assert done[-3:] == ["disconnect", "forget", "delete"]


def test_a_detaching_whose_answer_was_lost_goes_on(
    host: _Host, cinder: Any, done: list[str]
) -> None:
    """The device is closed once; that the attachment is gone then is no surprise."""
    attachment = _attach(cinder, host)
    cinder.errors["delete"] = RemoteServiceUnavailable("no answer")
    with pytest.raises(RemoteServiceUnavailable):
        attachment.detach(cinder)
    cinder.errors["delete"] = NotFound("gone")
    attachment.detach(cinder)
    assert done[-3:] == ["disconnect", "delete", "delete"]


def test_an_attachment_that_somebody_ended_is_told(host: _Host, cinder: Any) -> None:
    """The device is closed all the same."""
    attachment = _attach(cinder, host)
    cinder.errors["delete"] = NotFound("gone")
    with pytest.raises(NotFound):
        attachment.detach(cinder)
    with pytest.raises(BackendException):
        attachment.device.read_at(0, 1)


def test_os_bricks_trouble_with_detaching_ends_the_attachment_too(
    host: _Host, cinder: Any, done: list[str]
) -> None:
    """Cinder is told, and so is the caller."""
    attachment = _attach(cinder, host)
    host.fail = {"disconnect"}
    with pytest.raises(BackendException, match="could not detach volume it"):
        attachment.detach(cinder)
    assert done[-1] == "delete"


def test_what_a_reader_could_not_end_is_ended_later(
    host: _Host, cinder: Any, done: list[str]
) -> None:
    """Cinder was away when the last reader ended; the next call ends the attachment."""
    shared: Any = SharedAttachments()
    attachment = shared.acquire(Attachment(host, _VOLUME, "ro"), cinder, 0)
    cinder.errors["delete"] = RemoteServiceUnavailable("no answer")
    with pytest.raises(RemoteServiceUnavailable):
        shared.release(attachment, cinder)
    cinder.errors["delete"] = RemoteServiceUnavailable("still no answer")
    shared.retry_pending()
    shared.retry_pending()
    shared.retry_pending()
    assert done.count("disconnect") == 1
    assert done.count("delete") == 3


def test_what_was_never_whole_is_ended_later_too(
    host: _Host, cinder: Any, done: list[str], tmp_path: pathlib.Path
) -> None:
    """Cinder went away while a reader attached the volume; the next call ends what was begun."""
    shared: Any = SharedAttachments()
    cinder.errors = {
        "update": RemoteServiceUnavailable("no answer"),
        "delete": RemoteServiceUnavailable("still no answer"),
    }
    with pytest.raises(RemoteServiceUnavailable, match=r"^no answer"):
        shared.acquire(Attachment(host, _VOLUME, "ro"), cinder, 0)
    assert _locks(host) == []
    shared.retry_pending()
    shared.retry_pending()
    assert done.count("delete") == 2


@pytest.mark.parametrize("what", ["connect", "disconnect"])
def test_no_frame_holds_a_targets_password(host: _Host, cinder: Any, what: str) -> None:
    """What leads to the storage is in no variable that an error of os-brick's keeps alive."""
    cinder.extra = {"data": {"auth_password": "c4nary"}}
    host.fail = {what}
    with pytest.raises(BackendException, match=f"cannot {what}") as caught:
        _attach(cinder, host).detach(cinder)
    kept = dict(frames(caught.value))
    assert kept
    assert not {where: value for where, value in kept.items() if "c4nary" in value}


def test_an_attachment_in_use_shows_that(host: _Host, cinder: Any) -> None:
    """By a lock, from its beginning until it is given back, even where that fails."""
    attachment = _attach(cinder, host)
    assert _locks(host) == ["store_lib-cinder-attachment-attachment"]
    cinder.errors["delete"] = RemoteServiceUnavailable("no answer")
    with pytest.raises(RemoteServiceUnavailable):
        attachment.detach(cinder)
    assert _locks(host) == []
    attachment.detach(cinder)


@pytest.mark.parametrize("what", ["update", "complete"])
def test_an_attachment_that_somebody_ends_too_early_is_no_missing_object(
    what: str, host: _Host, cinder: Any
) -> None:
    """What is not found is the attachment, and the error says so."""
    cinder.errors[what] = NotFound("no such attachment")
    with pytest.raises(BackendException, match="ended the attachment") as caught:
        _attach(cinder, host, "ro")
    assert not isinstance(caught.value, NotFound)


@pytest.mark.parametrize(
    ("mode", "kind", "then"),
    [
        ("ro", "local", ["get", "delete"]),  # the other one's device stays
        ("rw", "local", ["disconnect", "delete"]),
        ("ro", "rbd", ["disconnect", "delete"]),
    ],
)
def test_others_with_the_same_volume_keep_its_device(
    mode: str, kind: str, then: list[str], host: _Host, cinder: Any, done: list[str]
) -> None:
    """Cinder is asked whether there are any, where there may be and a device is shared."""
    cinder.kind = kind
    volume = dataclasses.replace(_VOLUME, multiattach=True)
    attachment = _attach(cinder, host, mode, volume)
    attachment.detach(cinder)
    assert done[-2:] == then


@pytest.mark.parametrize("extra", [{"format": "qcow2"}, {"format": "vmdk"}])
def test_files_on_nfs_are_raw(extra: dict[str, str], host: _Host, cinder: Any) -> None:
    """Anything else is refused before it is mounted."""
    cinder.kind, cinder.extra = "nfs", {"export": "host:/share", "name": "volume", **extra}
    with pytest.raises(BackendException, match=f"in {extra['format']} form"):
        _attach(cinder, host)
    assert "connect" not in host.done


def test_a_share_is_unmounted_with_its_last_volume(host: _Host, cinder: Any) -> None:
    """After a failure to open too."""
    cinder.kind, cinder.extra = "nfs", {"export": "host:/share", "name": "volume"}
    attachment = _attach(cinder, host)
    attachment.detach(cinder)
    assert host.done[-2:] == ["umount", "delete"]
    host.path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        _attach(cinder, host)
    assert host.done[-3:] == ["umount", "forget", "delete"]


def test_a_child_leaves_its_parents_attachment_alone(
    host: _Host, cinder: Any, done: list[str]
) -> None:
    """It closes its descriptor, and asks nobody for anything."""
    attachment = _attach(cinder, host)
    before = list(done)
    child = os.fork()
    if not child:
        attachment.detach(cinder)
        os._exit(0 if done == before else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert attachment.device.read_at(0, 5) == b"bytes"
    attachment.detach(cinder)
