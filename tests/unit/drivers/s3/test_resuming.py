"""Uploads in parts that another process has begun, and this one continues."""

import copy
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from store_lib import Store
from store_lib.driver import PartWriter
from store_lib.drivers.s3 import S3Driver
from store_lib.drivers.s3.publishing import PREFIX
from store_lib.exceptions import Duplicate, Invalid, NotFound
from store_lib.transfer.bodies import MemoryBody
from tests.s3_faults import refusal, times
from tests.scripted_server import Reply
from tests.unit.drivers.s3.conftest import CHUNK, MakeStore
from tests.unit.drivers.s3.server import S3Server, Started
from tests.unit.drivers.s3.test_adding import LARGE, assert_nothing_is_left

PARTS = [LARGE[: 5 * CHUNK], LARGE[5 * CHUNK : 10 * CHUNK], LARGE[10 * CHUNK :]]
NONCE = "0123456789abcdef" * 2


def driver_of(store: Store) -> S3Driver:
    """Return the store's driver."""
    assert isinstance(store.driver, S3Driver), store.error
    return store.driver


def create(store: Store, size: int | None = len(LARGE)) -> PartWriter:
    """Begin an upload."""
    return driver_of(store).create("id", size, nonce=NONCE, context=None)


def resume(store: Store, state: Any) -> PartWriter:
    """Continue an upload."""
    return driver_of(store).resume(state, context=None)


def put(writer: PartWriter, *numbers: int) -> list[Any]:
    """Store parts, and return their tokens."""
    return [writer.put_part(number, MemoryBody([PARTS[number - 1]])) for number in numbers]


def state_of(writer: PartWriter) -> dict[str, Any]:
    """Return a writer's state as it comes back from JSON."""
    state: dict[str, Any] = json.loads(json.dumps(writer.state()))
    return state


def begun(store: Store, *numbers: int) -> dict[str, Any]:
    """Return the state of an upload with some of its parts."""
    writer = create(store)
    put(writer, *numbers)
    return state_of(writer)


@pytest.mark.parametrize("create_only", ["checked", "atomic", "look"])
@pytest.mark.parametrize("size", [len(LARGE), None])
def test_an_upload_goes_on_where_a_killed_process_left_it(
    make_store: MakeStore, s3: S3Server, size: int | None, create_only: str
) -> None:
    """Its parts count, the rest is sent here, and the object has the first writer's nonce."""
    store = make_store(s3_store_create_only=create_only)
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            writer = create(store, size)
            put(writer, 3, 1)
            os.write(theirs, json.dumps(writer.state()).encode())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        state = json.loads(pipe.read())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [(part["number"], part["size"]) for part in state["parts"]] == [
        (1, len(PARTS[0])),
        (3, len(PARTS[2])),
    ]
    writer = resume(store, state)
    assert [writer.part_size(number) for number in (1, 2)] == [5 * CHUNK] * 2
    tokens = {part["number"]: part["token"] for part in state["parts"]}
    [tokens[2]] = put(writer, 2)
    location = writer.commit([tokens[number] for number in (1, 2, 3)])
    assert s3.objects["id"].data == LARGE
    assert s3.objects["id"].metadata["store-lib-nonce"] == NONCE
    with store.get(location.uri) as reader:
        assert reader.read() == LARGE
    assert_nothing_is_left(s3, "id")


def test_what_has_not_begun_cannot_be_continued(store: Store) -> None:
    """Before the first part there is nothing to go on with, and after an abort neither."""
    writer = create(store)
    assert writer.state() is None
    put(writer, 1)
    assert writer.state() is not None
    writer.abort()
    assert writer.state() is None


def test_a_state_says_nothing_secret(store: Store, s3: S3Server) -> None:
    """It is made to be kept: ids, sizes, tags and the nonce."""
    state = begun(store, 1, 2)
    assert "-of-tests" not in json.dumps(state)
    assert resume(store, state).state() == state


def test_parts_keep_their_size_when_the_option_changes(make_store: MakeStore, s3: S3Server) -> None:
    """The sizes of parts are the upload's, and no more the configuration's."""
    state = begun(make_store(), 1)
    other = make_store(s3_store_equal_parts=True)
    assert resume(other, {**state, "size": None}).part_size(10_000) > 5 * CHUNK
    assert resume(other, {**state, "part_size": 7 * CHUNK}).part_size(2) == 7 * CHUNK


def test_an_upload_that_is_gone_is_told(store: Store, s3: S3Server) -> None:
    """One that was aborted or swept is NotFound."""
    state = begun(store, 1)
    store.sweep(0)
    with pytest.raises(NotFound, match=r"NoSuchUpload.*aborted, swept"):
        resume(store, state)
    s3.store("id", b"theirs", {"store-lib-nonce": "f" * 32})
    with pytest.raises(NotFound, match="NoSuchUpload"):
        resume(store, state)


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.pop(name)


def _with(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.update(values)


def _with_part(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["parts"][0].update(values)


SPOILED = {
    **{
        f"no {name}": _without(name)
        for name in ("object_id", "bucket", "nonce", "upload_id", "size", "part_size", "parts")
    },
    "a number": _with(upload_id=5),
    "a path": _with(object_id="a/b"),
    "no nonce": _with(nonce="nonce"),
    "no size": _with(size=-1),
    "no part": _with(part_size=0),
    "no list": _with(parts={}),
    "no parts": _with(parts=["1"]),
    "part 10,001": _with_part(number=10_001),
    "no tag": _with_part(token={}),
    "an empty tag": _with_part(token={"ETag": '""'}),
    "another field": _with_part(token={"ETag": "x", "PartNumber": "7"}),
    "no part size": _with_part(size="5"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_state_that_is_none_is_refused(
    store: Store, s3: S3Server, spoil: Callable[[dict[str, Any]], object]
) -> None:
    """What no writer has given is Invalid, and nothing is asked of the server for it."""
    state = copy.deepcopy(begun(store, 1))
    spoil(state)
    s3.server.requests.clear()
    with pytest.raises(Invalid, match="the state of an S3 upload"):
        resume(store, state)
    for nothing in ([], None, "", {}):
        with pytest.raises(Invalid, match="the state of an S3 upload"):
            resume(store, nothing)
    assert not s3.made()


def test_a_state_of_another_bucket_is_refused(store: Store, s3: S3Server) -> None:
    """An upload goes on in the bucket in which it was begun."""
    with pytest.raises(Invalid, match="into bucket box, got one into 'other'"):
        resume(store, {**begun(store, 1), "bucket": "other"})


@pytest.mark.parametrize(
    "other",
    [{}, {1: b"other"}, {1: PARTS[0][::-1]}, {2: PARTS[0]}],
    ids=lambda parts: f"{[*parts]}",
)
def test_parts_are_held_against_the_servers(
    store: Store, s3: S3Server, other: dict[int, bytes]
) -> None:
    """A part that is missing there, or is another one, is Invalid; more parts than said are none
    of its business: they are put again."""
    state = begun(store, 1)
    upload = s3.uploads[state["upload_id"]]
    upload.parts[2] = PARTS[1]
    resume(store, state)
    upload.parts = other
    with pytest.raises(Invalid, match="part 1 of an upload of id"):
        resume(store, state)


def test_the_pages_of_a_listing_of_parts_are_repeated(store: Store, s3: S3Server) -> None:
    """A server that is busy costs a repeat."""
    state = begun(store, 1)
    s3.before.append(times(2, lambda: refusal(503, "SlowDown"), "GET", "uploadId"))
    resume(store, state)
    assert len(s3.made("GET", "uploadId")) == 3


@pytest.mark.parametrize("create_only", ["checked", "atomic", "look"])
@pytest.mark.parametrize("end", ["resolve", "commit", "abort"])
def test_what_was_published_without_an_answer(
    make_store: MakeStore, s3: S3Server, create_only: str, end: str
) -> None:
    """The first process was killed after its last request: that object is found, or removed."""
    store = make_store(s3_store_create_only=create_only)
    writer = create(store)
    tokens = put(writer, 1, 2, 3)
    state = state_of(writer)
    writer.commit(tokens)
    s3.store(PREFIX + "id", f"{NONCE} 30\n".encode(), {"store-lib-nonce": NONCE})
    writer = resume(store, state)
    if end == "abort":
        writer.abort()
        assert_nothing_is_left(s3)
        return
    location = writer.resolve() if end == "resolve" else writer.commit(tokens)
    assert location is not None
    assert s3.objects["id"].data == LARGE
    assert_nothing_is_left(s3, "id")


def test_an_abort_removes_the_upload_and_its_claim(store: Store, s3: S3Server) -> None:
    """What the first process had put is gone; others' uploads of the id stay."""
    state = begun(store, 1)
    s3.uploads["theirs"] = Started("id", parts={1: b"x"})
    s3.store(PREFIX + "id", f"{NONCE} 30\n".encode(), {"store-lib-nonce": NONCE})
    writer = resume(store, state)
    assert writer.resolve() is None
    writer.abort()
    assert list(s3.uploads) == ["theirs"]
    assert not s3.objects


@pytest.mark.parametrize("create_only", ["checked", "atomic", "look"])
def test_an_id_that_was_taken_meanwhile_is_a_duplicate(
    make_store: MakeStore, s3: S3Server, create_only: str
) -> None:
    """What another add has published meanwhile stays."""
    store = make_store(s3_store_create_only=create_only)
    s3.decides = {"put", "complete"}
    state = begun(store, 1, 2, 3)
    store.add("id", b"theirs")
    writer = resume(store, state)
    with pytest.raises(Duplicate):
        writer.commit([part["token"] for part in state["parts"]])
    writer.abort()
    assert s3.objects["id"].data == b"theirs"
    assert_nothing_is_left(s3, "id")


def test_a_claim_of_the_killed_process_does_not_hold_it_up(store: Store, s3: S3Server) -> None:
    """It has the upload's own nonce."""
    state = begun(store, 1, 2, 3)
    s3.store(PREFIX + "id", f"{NONCE} 30\n".encode(), {"store-lib-nonce": NONCE})
    writer = resume(store, state)
    s3.after.append(times(1, lambda: Reply(raw=b"", then="rst"), "DELETE", "claims"))
    writer.commit([part["token"] for part in state["parts"]])
    assert_nothing_is_left(s3, "id")
