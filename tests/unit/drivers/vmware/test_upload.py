"""An upload whose last requests are in trouble: what it takes for its own, and what it removes."""

import io
from typing import Any

import pytest

from store_lib.driver import Stat
from store_lib.drivers.vmware.location import VmwareLocation
from store_lib.drivers.vmware.options import Datastore
from store_lib.drivers.vmware.writer import VmwareWriter
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
    TimeoutError,
)

HERE, THERE = Datastore("dc", "here"), Datastore("dc", "there")
UPLOAD = "store_lib-upload-nonce-an-id"
DATA = b"some bytes"


class Datastores:
    """Files by datastore and name, with what goes wrong next: both sides of the server at once."""

    def __init__(self) -> None:
        self.files: dict[tuple[Datastore, str], Stat] = {}
        #: Errors of the next moves, and whether the file is moved all the same.
        self.moves: list[tuple[BaseException | None, bool]] = []
        self.clock = 100.0

    def put(self, target: str, body: Any) -> None:
        self.clock += 1
        self.files[self._key(target)] = Stat(len(body.read()), self.clock)

    def stat(self, target: str) -> Stat | None:
        return self.files.get(self._key(target))

    def create_directory(self, datastore: Datastore) -> None:
        pass

    def move(self, datastore: Datastore, name: str, new_name: str) -> None:
        error, done = self.moves.pop(0) if self.moves else (None, True)
        if error is None and (datastore, new_name) in self.files:
            raise Duplicate("there is one")
        if error is None and (datastore, name) not in self.files:
            raise NotFound("there is none")
        if done:
            self.files[datastore, new_name] = self.files.pop((datastore, name))
        if error is not None:
            raise error

    def delete(self, datastore: Datastore, name: str) -> None:
        if self.files.pop((datastore, name), None) is None:
            raise NotFound("there is none")

    def _key(self, target: str) -> tuple[Datastore, str]:
        location = VmwareLocation.parse(f"vsphere://h{target}")
        return location.datastore, location.name


class Body(io.BytesIO):
    size = len(DATA)
    rewindable = True


@pytest.fixture
def server() -> Datastores:
    return Datastores()


@pytest.fixture
def upload(server: Datastores) -> VmwareWriter:
    fake: Any = server
    location = VmwareLocation("h", 443, "dir", "an-id", HERE)
    return VmwareWriter(fake, fake, location, UPLOAD, [THERE])


def lost(done: bool) -> tuple[StoreError, bool]:
    return RemoteServiceUnavailable("the answer was lost"), done


def test_a_lost_answer_is_found_to_be_a_success(server: Datastores, upload: VmwareWriter) -> None:
    """A file that went from one name to the other, with size and time, is this upload."""
    server.moves = [lost(done=True)]
    with pytest.raises(RemoteServiceUnavailable):
        upload.write_once(Body(DATA))
    found = upload.resolve()
    assert found is not None
    assert found.name == "an-id"
    assert list(server.files) == [(HERE, "an-id")]


def test_a_lost_request_is_made_again(server: Datastores, upload: VmwareWriter) -> None:
    """A move that did not happen is brought to its end, without the bytes being sent again."""
    server.moves = [lost(done=False), lost(done=False)]
    with pytest.raises(RemoteServiceUnavailable):
        upload.write_once(Body(DATA))
    with pytest.raises(RemoteServiceUnavailable):
        upload.resolve()
    assert upload.resolve() is not None
    assert list(server.files) == [(HERE, "an-id")]


@pytest.mark.parametrize("gone", [False, True])
def test_somebody_elses_object_is_not_taken_for_ours(
    server: Datastores, upload: VmwareWriter, gone: bool
) -> None:
    """After a lost answer, an object of the same id by another add stays another's."""
    server.moves = [lost(done=False)]
    with pytest.raises(RemoteServiceUnavailable):
        upload.write_once(Body(DATA))
    theirs = server.files[HERE, "an-id"] = Stat(len(DATA), 999.0)
    if gone:  # swept, while the answer was waited for
        del server.files[HERE, UPLOAD]
    assert upload.resolve() is None
    assert upload.resolve() is None
    upload.abort()
    assert server.files == {(HERE, "an-id"): theirs}


def test_a_duplicate_is_final(server: Datastores, upload: VmwareWriter) -> None:
    """An object that was there first is Duplicate, and resolving does not change that."""
    theirs = server.files[HERE, "an-id"] = Stat(len(DATA), 101.0)
    with pytest.raises(Duplicate, match="dc:here"):
        upload.write_once(Body(DATA))
    assert upload.resolve() is None
    upload.abort()
    assert server.files == {(HERE, "an-id"): theirs}


@pytest.mark.parametrize(
    "error", [RemoteServiceUnavailable("lost"), TimeoutError("too long"), KeyboardInterrupt()]
)
def test_an_abort_in_doubt_removes_what_was_published(
    server: Datastores, upload: VmwareWriter, error: BaseException
) -> None:
    """When the engine gives up after a move that did happen, the object goes."""
    server.moves = [(error, True)]
    with pytest.raises(type(error)):
        upload.write_once(Body(DATA))
    upload.abort()
    assert server.files == {}


def test_the_bytes_can_be_sent_again(server: Datastores, upload: VmwareWriter) -> None:
    """After a failed request an upload begins anew, over what the failed one left."""

    def put(target: str, body: Any) -> None:
        server.files[HERE, UPLOAD] = Stat(3, 1.0)
        raise RemoteServiceUnavailable("cut")

    server.put, put_well = put, server.put  # type: ignore[method-assign]
    with pytest.raises(RemoteServiceUnavailable):
        upload.write_once(Body(DATA))
    assert upload.resolve() is None
    server.put = put_well  # type: ignore[method-assign]
    assert upload.write_once(Body(DATA)).name == "an-id"
    assert server.files[HERE, "an-id"].size == len(DATA)


def test_an_upload_that_vanished_is_told(server: Datastores, upload: VmwareWriter) -> None:
    """A file that somebody removed before it was published is an error of its own."""
    server.moves = []
    original = server.move

    def move(datastore: Datastore, name: str, new_name: str) -> None:
        server.files.clear()
        original(datastore, name, new_name)

    server.move = move  # type: ignore[method-assign]
    with pytest.raises(BackendException, match="Sweep only what is older") as caught:
        upload.write_once(Body(DATA))
    assert caught.value.status is ErrorStatus.PERMANENT


def test_an_object_elsewhere_is_found_before_and_after(
    server: Datastores, upload: VmwareWriter
) -> None:
    """An id on another datastore is Duplicate, also where it shows up during the move."""
    server.files[THERE, "an-id"] = Stat(1, 1.0)
    with pytest.raises(Duplicate, match="dc:there"):
        upload.write_once(Body(DATA))
    assert (HERE, "an-id") not in server.files
    upload.abort()
    assert list(server.files) == [(THERE, "an-id")]


def test_what_cannot_be_withdrawn_is_removed_by_the_abort(
    server: Datastores, upload: VmwareWriter
) -> None:
    """Where taking the own object back fails, the abort does it."""
    original, failing = server.move, server.delete

    def move(datastore: Datastore, name: str, new_name: str) -> None:
        original(datastore, name, new_name)
        server.files[THERE, "an-id"] = Stat(1, 1.0)

    def delete(datastore: Datastore, name: str) -> None:
        server.delete = failing  # type: ignore[method-assign]
        raise RemoteServiceUnavailable("lost")

    server.move, server.delete = move, delete  # type: ignore[method-assign]
    with pytest.raises(RemoteServiceUnavailable):
        upload.write_once(Body(DATA))
    assert upload.resolve() is None
    upload.abort()
    assert list(server.files) == [(THERE, "an-id")]
