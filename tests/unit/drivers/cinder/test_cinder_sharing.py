"""Readers of one process share a volume's attachment, and the last one ends it."""

import gc
import os
import pathlib
import random
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib.driver import FIRST_PIECE
from store_lib.drivers.cinder import CinderDriver, CinderLocation
from store_lib.drivers.cinder import attachment as module
from store_lib.drivers.cinder.attachment import SharedAttachments
from store_lib.drivers.cinder.reader import VolumeReader
from store_lib.drivers.cinder.volume import SIZE
from store_lib.exceptions import BackendException, StoreError
from store_lib.options import StoreOptions
from tests.unit.drivers.cinder.small_cinder import SmallHost, volume_of


class _Attachment:
    """A volume in memory, attached."""

    def __init__(self, volume_id: str = "it", data: bytes = b"0123456789") -> None:
        self.volume_id = volume_id
        self.data = data
        self.begun = self.ended = 0
        self.device, self.read_size = self, 4
        self.is_pending = False

    def attach(self, cinder: Any, timeout: float) -> None:
        self.begun += 1
        self.is_pending = True

    def read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def detach(self, cinder: Any) -> None:
        self.ended += 1


def test_the_last_reader_ends_it() -> None:
    """One attachment for all that come before; the next one after gets its own."""
    shared: Any = SharedAttachments()
    first, second = (shared.acquire(_Attachment(), None, 0) for _ in range(2))
    other = shared.acquire(_Attachment("other"), None, 0)
    assert first is second
    assert first.begun == other.begun == 1
    assert other is not first
    shared.release(first, None)
    assert first.ended == 0
    shared.release(first, None)
    assert first.ended == 1
    later = shared.acquire(_Attachment(), None, 0)
    assert later is not first
    assert later.begun == 1


def test_a_reader_that_the_collector_drops_harms_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be dropped anywhere, by a thread that just counts another one."""
    shared: Any = SharedAttachments()
    made = shared.acquire(_Attachment(), None, 0)
    usual = module._Shared

    def collected() -> Any:
        monkeypatch.setattr(module, "_Shared", usual)
        shared.release(made, None)
        return usual()

    monkeypatch.setattr(module, "_Shared", collected)
    taken: list[_Attachment] = []
    take = threading.Thread(
        target=lambda: taken.append(shared.acquire(_Attachment(), None, 0)), daemon=True
    )
    take.start()
    take.join(10)
    assert made.ended == 1
    assert taken
    assert taken[0] is not made


def test_a_failed_attachment_is_tried_anew() -> None:
    """The error comes out, and nobody inherits it."""
    shared: Any = SharedAttachments()

    class Broken(_Attachment):
        def attach(self, cinder: Any, timeout: float) -> None:
            raise StoreError("no way")

    with pytest.raises(StoreError, match="no way"):
        shared.acquire(Broken(), None, 0)
    made = shared.acquire(_Attachment(), None, 0)
    shared.release(made, None)
    assert made.ended == 1


def test_readers_that_come_meanwhile_wait_for_the_one_attachment() -> None:
    """Threads that begin together attach once."""
    shared: Any = SharedAttachments()
    offered = [_Attachment() for _ in range(4)]
    taken: list[_Attachment] = []
    ready = threading.Barrier(4)

    def read(attachment: _Attachment) -> None:
        ready.wait()
        taken.append(shared.acquire(attachment, None, 0))

    threads = [threading.Thread(target=read, args=(each,)) for each in offered]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(each.begun for each in offered) == 1
    [shared_one] = set(taken)
    for _ in range(4):
        assert shared_one.ended == 0
        shared.release(shared_one, None)
    assert shared_one.ended == 1


def test_what_is_open_when_the_process_ends_is_detached() -> None:
    """There is nobody left to read then; a reader that is dropped later does nothing more."""
    shared: Any = SharedAttachments()
    made = shared.acquire(_Attachment(), object(), 0)
    shared.detach_all()
    assert made.ended == 1


def test_a_child_counts_for_itself() -> None:
    """It neither finds nor counts what its parent has attached."""
    shared: Any = SharedAttachments()
    inherited = shared.acquire(_Attachment(), None, 0)
    child = os.fork()
    if not child:
        own = shared.acquire(_Attachment(), None, 0)
        shared.release(own, None)
        os._exit(0 if own is not inherited and own.ended == 1 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    shared.release(inherited, None)
    assert inherited.ended == 1


def test_a_reader_gives_its_attachment_back_once() -> None:
    """However often it is closed; afterwards it reads no more."""
    given: list[int] = []
    attachment: Any = _Attachment()
    reader = VolumeReader(attachment, 8, 2, None, lambda: given.append(1))
    assert reader.first is not None
    assert b"".join(reader.first) == b"234567"
    assert b"".join(reader.stream(2, 6)) == b"234567"
    assert b"".join(reader.stream(0, 3)) == b"012"
    assert b"".join(reader.stream(7, None)) == b"7"
    assert b"".join(reader.stream(8, None)) == b""
    reader.close()
    reader.close()
    with pytest.raises(BackendException, match="closed"):
        list(reader.stream(0, 3))
    del reader
    assert given == [1]


def test_a_reader_fetches_what_memory_is_there_for() -> None:
    """Little before it is first asked for a piece, and then pieces as large as the engine says."""
    attachment: Any = _Attachment(data=random.Random(0).randbytes(300_000))
    attachment.read_size = 200_000
    lengths: list[int] = []
    plain = attachment.read_at

    def read_at(offset: int, length: int) -> bytes:
        lengths.append(length)
        return plain(offset, length)

    attachment.read_at = read_at
    reader = VolumeReader(attachment, 300_000, 0, None, lambda: None)
    assert lengths == [FIRST_PIECE]
    assert reader.piece_size == 200_000
    got = []
    assert reader.first is not None
    for piece in reader.first:
        got.append(piece)
        reader.piece_size = 100_000
    assert lengths == [FIRST_PIECE, 100_000, 100_000, 100_000 - FIRST_PIECE]
    assert b"".join(got) == attachment.data
    reader.close()


def test_a_reader_that_cannot_begin_takes_nothing_from_another(tmp_path: pathlib.Path) -> None:
    """It gives the shared attachment back once, so that the other one reads on."""
    location = CinderLocation("0123abcd-4567-89ef-0123-456789abcdef")
    volume = volume_of(location.volume_id, status="in-use", metadata={SIZE: "10"})
    driver: Any = CinderDriver("it", StoreOptions.of(CinderDriver.options))
    driver._clients = SimpleNamespace(get=lambda _: SimpleNamespace(get=lambda _: volume))
    driver._host = SmallHost(tmp_path)
    driver._attachments = SharedAttachments()
    made = driver._attachments.acquire(_Attachment(volume.id), None, 0)
    usual = made.read_at

    def broken(offset: int, length: int) -> bytes:
        raise BackendException("a bad sector")

    made.read_at = broken
    with pytest.raises(BackendException, match="a bad sector"):
        driver.read(location, 4, None, context=None)
    gc.collect()
    assert made.ended == 0
    made.read_at = usual
    reader = driver.read(location, 0, None, context=None)
    assert b"".join(reader.stream(0, None)) == b"0123456789"
    reader.close()
    assert made.ended == 0
    driver._attachments.release(made, None)
    assert made.ended == 1


def test_what_fails_at_a_readers_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Its bytes are read already; the attachment that is left is told."""

    def fail() -> None:
        raise StoreError("Cinder is gone")

    attachment: Any = _Attachment()
    VolumeReader(attachment, 8, 0, None, fail).close()
    assert "Cinder is gone" in caplog.text
