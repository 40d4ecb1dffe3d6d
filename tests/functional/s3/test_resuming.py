"""Uploads in parts that a killed process leaves, continued on a real S3 gateway."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from store_lib import Store
from store_lib.driver import PartWriter
from store_lib.drivers.s3 import S3Driver
from store_lib.exceptions import Duplicate, Invalid, NotFound
from store_lib.transfer.bodies import MemoryBody
from tests.functional.s3.conftest import LARGE, MIB, MakeStore, assert_nothing_is_left
from tests.functional.s3.places import Place

PARTS = [LARGE[: 5 * MIB], LARGE[5 * MIB : 10 * MIB], LARGE[10 * MIB :]]
NONCE = "0123456789abcdef" * 2


class StalledBody(MemoryBody):
    """A body of which only the beginning comes."""

    def views(self) -> Iterator[memoryview]:
        yield memoryview(PARTS[1])[:MIB]
        time.sleep(600)


def driver_of(store: Store) -> S3Driver:
    """Return the store's driver."""
    assert isinstance(store.driver, S3Driver), store.error
    return store.driver


def put(writer: PartWriter, number: int) -> Any:
    """Store a part, and return its token."""
    return writer.put_part(number, MemoryBody([PARTS[number - 1]]))


def killed_amid_a_part(store: Store, size: int | None) -> dict[str, Any]:
    """Begin an upload in a process that is killed while it sends its third request.

    Returns the state that it gave after parts 3 and 1.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            writer = driver_of(store).create("id", size, nonce=NONCE, context=None)
            assert isinstance(writer, PartWriter)
            put(writer, 3)
            put(writer, 1)
            os.write(theirs, json.dumps(writer.state()).encode() + b"\n")
            writer.put_part(2, StalledBody([PARTS[1]]))
        finally:
            os._exit(1)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        state: dict[str, Any] = json.loads(pipe.readline())
    time.sleep(0.5)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return state


@pytest.fixture
def store(place: Place, make_store: MakeStore) -> Store:
    """A store without signed payloads: a body that stalls cannot be read before it is sent."""
    store = make_store(place, s3_store_payload_signing="never")
    store.add("before", b"x")
    return store


@pytest.mark.parametrize("size", [len(LARGE), None], ids=["size told", "size not told"])
def test_an_upload_goes_on_where_a_killed_process_left_it(store: Store, size: int | None) -> None:
    """What it had stored is not sent again; the object is whole, and nothing else is left."""
    state = killed_amid_a_part(store, size)
    tokens = {part["number"]: part["token"] for part in state["parts"]}
    assert sorted(tokens) == [1, 3]
    (left,) = store.list_incomplete()
    assert (left.object_id, left.size) == ("id", len(PARTS[0]) + len(PARTS[2]))
    writer = driver_of(store).resume(state, context=None)
    assert writer.part_size(2) == 5 * MIB
    tokens[2] = put(writer, 2)
    assert writer.resolve() is None
    location = writer.commit([tokens[number] for number in (1, 2, 3)])
    assert writer.resolve() == location
    with store.get(location.uri) as reader:
        assert reader.read() == LARGE
    # The state is good for as long as the object is the upload's own.
    again = driver_of(store).resume(state, context=None)
    assert again.resolve() == location
    again.abort()
    assert_nothing_is_left(store, "before")
    with pytest.raises(NotFound):
        driver_of(store).resume(state, context=None)


def test_an_upload_that_is_continued_can_be_aborted(store: Store) -> None:
    """Its parts are gone then, and the state is good for nothing."""
    state = killed_amid_a_part(store, len(LARGE))
    writer = driver_of(store).resume(state, context=None)
    writer.abort()
    assert_nothing_is_left(store, "before")
    with pytest.raises(NotFound):
        driver_of(store).resume(state, context=None)


def test_an_id_that_was_taken_meanwhile_is_a_duplicate(store: Store) -> None:
    """The object that another add has stored stays as it is."""
    state = killed_amid_a_part(store, len(LARGE))
    uri = store.add("id", b"theirs").uri
    writer = driver_of(store).resume(state, context=None)
    put(writer, 2)
    told = writer.state()
    assert told is not None
    with pytest.raises(Duplicate):
        writer.commit([part["token"] for part in told["parts"]])
    writer.abort()
    with store.get(uri) as reader:
        assert reader.read() == b"theirs"
    assert_nothing_is_left(store, "before", "id")


def test_parts_are_held_against_the_gateways(store: Store) -> None:
    """A state that speaks of other parts than the gateway has is Invalid."""
    state = killed_amid_a_part(store, None)
    state["parts"][0]["token"]["ETag"] = state["parts"][1]["token"]["ETag"]
    with pytest.raises(Invalid, match="part 1 of an upload of id"):
        driver_of(store).resume(state, context=None)
    assert len(store.sweep(0)) == 1
    assert_nothing_is_left(store, "before")
