"""The rbd driver's rules that need no cluster: options, ids, sizes, errors, holes, forks."""

import contextlib
import errno
import os
import random
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

from store_lib.driver import FIRST_PIECE, capabilities
from store_lib.drivers.rbd import RbdDriver, bindings
from store_lib.drivers.rbd.client import Cluster
from store_lib.drivers.rbd.errors import translate, translated
from store_lib.drivers.rbd.options import ConnectionSettings, UploadSettings
from store_lib.drivers.rbd.reader import PIECE, Holes, RbdReader, has_blank, zeros
from store_lib.drivers.rbd.writer import FIRST_STEP, LAST_STEP, grown
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    BadStoreUri,
    DriverLoadFailure,
    Duplicate,
    ErrorStatus,
    Forbidden,
    HasSnapshot,
    InUseByStore,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StorageWriteDenied,
    StoreError,
    TimeoutError,
)
from store_lib.options import StoreOptions

MIB = 1024 * 1024


class CephError(Exception):
    """Stands for the errors of Ceph's modules."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Stand-ins for Ceph's modules, which know their errors alone."""
    stand_in = types.SimpleNamespace(Error=CephError)
    monkeypatch.setattr(bindings, "rados", stand_in)
    monkeypatch.setattr(bindings, "rbd", stand_in)
    return stand_in


def _driver(**options: Any) -> RbdDriver:
    return RbdDriver("it", StoreOptions.of(RbdDriver.options, **options))


def test_ceph_modules_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ceph's modules the driver says how they come to where it runs, and stays tidy."""
    monkeypatch.setitem(sys.modules, "rados", None)
    driver = _driver()
    with pytest.raises(DriverLoadFailure, match=r"python3-rados.*PYTHONPATH"):
        driver.configure()
    assert driver.holds(driver.parse("rbd://a"))
    with pytest.raises(BadStoreConfiguration):
        driver.stat(driver.parse("rbd://f/images/a/snap"), context=None)
    driver.close()


def test_no_pool() -> None:
    """An empty pool name is refused before anything else."""
    with pytest.raises(BadStoreConfiguration, match="rbd_store_pool"):
        _driver(rbd_store_pool="").configure()


def test_what_the_driver_can_do() -> None:
    """All that a store can do, but for access lists and temporary URLs."""
    assert capabilities(RbdDriver) == {
        *("add", "copy", "delete", "discard", "list", "list_incomplete", "ranges", "space")
    }


def test_ids_refused() -> None:
    """An id that Ceph's tools would take for an image and a snapshot is refused, saying why."""
    assert "an '@'" in str(_driver().id_problem("a@b"))


@pytest.mark.parametrize("object_id", ["a", "x" * 255, "\u20ac" * 85, "a b", "%2F", "..a"])
def test_ids_taken(object_id: str) -> None:
    """Any other id is taken."""
    assert _driver().id_problem(object_id) is None


def test_another_clusters_images_are_this_stores_where_they_have_moved_here() -> None:
    """Pool and image of a URI then count; without the option it is refused."""
    driver = _driver(former_places=["old", "older/images"])
    driver._configured = types.SimpleNamespace(known_fsid="new", fsid="new")  # type: ignore[assignment]
    for place, obeyed, held in (
        ("new/images", True, True),
        ("new/other", True, False),
        ("old/images", True, True),
        ("old/other", True, False),
        ("older/images", True, True),
        ("older/other", False, False),
        ("else/images", False, False),
    ):
        location = driver.parse(f"rbd://{place}/a/snap")
        assert driver.holds(location) is held
        if obeyed:
            driver._images_of(location)
            continue
        with pytest.raises(BadStoreUri, match="fsid in former_places"):
            driver.stat(location, context=None)


def test_order() -> None:
    """The object size is told to Ceph as a power of two."""
    assert [UploadSettings(mib * MIB, False).order for mib in (1, 8, 32)] == [20, 23, 25]


def test_growth() -> None:
    """An image of unknown size doubles, by at least and at most a step, and always suffices."""
    assert grown(0, 1) == FIRST_STEP
    assert grown(FIRST_STEP, FIRST_STEP + 1) == 2 * FIRST_STEP
    assert grown(10 * LAST_STEP, 10 * LAST_STEP + 1) == 11 * LAST_STEP
    assert grown(0, 3 * LAST_STEP) == 3 * LAST_STEP
    size = steps = 0
    while size < 2**40:
        size = grown(size, size + 1)
        steps += 1
    assert steps < 150


@pytest.mark.parametrize(
    ("number", "kind", "status"),
    [
        (errno.ENOENT, NotFound, ErrorStatus.PERMANENT),
        (errno.EEXIST, Duplicate, ErrorStatus.PERMANENT),
        (errno.EPERM, Forbidden, ErrorStatus.PERMANENT),
        (errno.EACCES, Forbidden, ErrorStatus.PERMANENT),
        (errno.EBUSY, InUseByStore, ErrorStatus.TEMPORARY),
        (errno.ENOTEMPTY, HasSnapshot, ErrorStatus.PERMANENT),
        (errno.ENOSPC, StorageFull, ErrorStatus.PERMANENT),
        (errno.EDQUOT, StorageFull, ErrorStatus.PERMANENT),
        (errno.EROFS, StorageWriteDenied, ErrorStatus.PERMANENT),
        (errno.ETIMEDOUT, TimeoutError, ErrorStatus.EXHAUSTED),
        (errno.ESHUTDOWN, RemoteServiceUnavailable, ErrorStatus.TEMPORARY),
        (errno.EIO, BackendException, ErrorStatus.PERMANENT),
        (None, BackendException, ErrorStatus.PERMANENT),
    ],
)
def test_errors(number: int | None, kind: type[StoreError], status: ErrorStatus) -> None:
    """Each error of Ceph's is one of ours, and says truly whether trying again can help."""
    error = translate(CephError("what Ceph said", number), number, "write to", "image")
    assert (type(error), error.status) == (kind, status)
    assert "image" in str(error)


def test_translated(modules: types.SimpleNamespace) -> None:
    """What Ceph raises comes out as ours, with its cause; what is not Ceph's passes."""
    noticed: list[int | None] = []
    with (
        pytest.raises(TimeoutError) as raised,
        translated("read from", "image", on_error=noticed.append),
    ):
        raise CephError("timed out", -errno.ETIMEDOUT)
    assert isinstance(raised.value.__cause__, CephError)
    assert noticed == [errno.ETIMEDOUT]
    with pytest.raises(ZeroDivisionError), translated("read from"):
        raise ZeroDivisionError


class SparseImage:
    """An image with data at some places, which counts how often it is asked for them."""

    def __init__(self, *extents: tuple[int, int], error: Exception | None = None) -> None:
        self.extents = extents
        self.error = error
        self.asked: list[tuple[int, int]] = []

    def diff_iterate(
        self,
        offset: int,
        length: int,
        since: str | None,
        note: Callable[[int, int, bool], None],
        include_parent: bool,
        whole_object: bool,
    ) -> None:
        assert since is None
        assert include_parent
        assert whole_object
        self.asked.append((offset, length))
        if self.error is not None:
            raise self.error
        for start, size in self.extents:
            if start < offset + length and offset < start + size:
                note(start, size, True)


def test_holes(modules: types.SimpleNamespace) -> None:
    """A piece is a hole only if no data touches it, however the extents lie; each span of an
    image is asked about once."""
    size = 300 * PIECE
    data = [*range(5, 9), 127, 128, 299]
    image = SparseImage(*((number * PIECE, PIECE) for number in data))
    checks: list[int] = []
    holes = Holes(image, size, lambda: checks.append(len(image.asked)))
    found = [number for number in range(300) if not holes.cover(number * PIECE, PIECE)]
    assert found == data
    assert holes.cover(4 * PIECE, PIECE)
    assert not holes.cover(9 * PIECE - 1, 1)
    assert holes.cover(9 * PIECE, 1)
    span = 128 * PIECE
    assert image.asked == [(0, span), (span, span), (2 * span, size - 2 * span)]
    assert checks == [1, 2, 3]  # a look whether the image is there, after what it said


def test_holes_that_cannot_be_told(modules: types.SimpleNamespace) -> None:
    """Where the cluster does not tell the holes, everything is read."""
    holes = Holes(SparseImage(error=CephError("no")), 4 * PIECE, lambda: None)
    assert not any(holes.cover(number * PIECE, PIECE) for number in range(4))


def test_small_images_are_just_read(modules: types.SimpleNamespace) -> None:
    """Of an image of one piece the holes are not asked for: it is one request either way."""
    image = SparseImage()
    assert not Holes(image, PIECE, lambda: None).cover(0, PIECE)
    assert image.asked == []


def test_zeros() -> None:
    """Zeros are zeros, of the right number, and a whole piece of them is there once."""
    assert zeros(5) == bytes(5)
    assert zeros(PIECE) is zeros(PIECE)
    assert zeros(PIECE) == bytes(PIECE)


@pytest.mark.parametrize(
    ("data", "first", "blank"),
    [
        (b"", 8, False),
        (bytes(5), 8, True),
        (b"\0\0\0\0x", 8, False),
        (b"x" * 8 + bytes(8) + b"x" * 8, 8, True),
        (b"x" * 7 + bytes(8) + b"x" * 9, 8, False),
        (b"x" * 3 + bytes(8) + b"x", 3, True),
        (b"x" * 8 + bytes(3), 8, True),
    ],
)
def test_blanks(data: bytes, first: int, blank: bool) -> None:
    """An object's worth of zeros is found where objects begin, and no other zeros are."""
    assert has_blank(data, first, 8) is blank


class Native:
    """Something that librados opened: must not be touched after a fork."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def close(self) -> None:
        if os.getpid() != self.pid:
            os._exit(3)

    __del__ = close


class FakeImage:
    """Notes how it was opened."""

    def __init__(
        self, ioctx: object, name: str | None, snapshot: str | None, *, read_only: bool
    ) -> None:
        self.how = [snapshot, read_only]

    def set_snap(self, name: str) -> None:
        if name == "missing":
            raise CephError("no such snapshot", errno.ENOENT)
        self.how.append(name)

    def close(self) -> None:
        """Nothing is open."""


def test_a_snapshot_is_not_opened_read_only_at_once(modules: types.SimpleNamespace) -> None:
    """An image is opened read-only first, and moved to its snapshot then: librbd crashes else."""
    modules.Image = FakeImage
    for read_only, how in ((True, [None, True, "snap"]), (False, ["snap", False])):
        with bindings.opened(None, "image", "snap", read_only=read_only) as image:
            assert image.how == how
    with pytest.raises(CephError), bindings.opened(None, "image", "missing", read_only=True):
        pass
    assert not [each for each in bindings._state.handles if isinstance(each, FakeImage)]


def _in_child(action: Callable[[], object]) -> int:
    """Fork, and return the exit status of the child after ``action``."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_what_was_inherited_is_not_touched() -> None:
    """A forked child neither uses nor closes nor destroys what its parent has open."""
    native = Native()
    natives = [bindings.register(native, native.close)]
    del native

    def act() -> None:
        with pytest.raises(BackendException, match="fork"), bindings.using(natives[0]):
            pass
        bindings.release(natives[0])
        natives.clear()

    with bindings.calling(), bindings.using(natives[0]):
        assert _in_child(act) == 0
    assert bindings.is_open(natives[0])
    bindings.release(natives[0])
    bindings.release(natives[0])
    assert not bindings.is_open(natives[0])


class Thing:
    """Something that is open until it is closed, once."""

    def __init__(self, name: str, closed: list[str], base: "Thing | None" = None) -> None:
        bindings.register(self, lambda: closed.append(name), base)


def test_nothing_is_closed_while_it_is_used() -> None:
    """What is closed while a call is in it closes with the end of that, once, and what it lies
    on after it; nobody else begins to use it meanwhile."""
    closed: list[str] = []
    connection = Thing("connection", closed)
    pool = Thing("pool", closed, connection)
    images = [Thing(name, closed, pool) for name in ("first", "second")]
    with bindings.using(images[0]):
        with bindings.using(images[0]):
            for each in (connection, pool, *images):
                bindings.release(each)
            assert closed == ["second"]
            with pytest.raises(BackendException), bindings.using(images[0]):
                pass
            bindings.release(images[0])
        assert closed == ["second"]
    assert closed == ["second", "first", "pool", "connection"]


_ENDING = """
import contextlib, sys, threading
from store_lib.drivers.rbd import bindings
from store_lib.exceptions import BackendException

class Thing:
    def __init__(self, name, base=None):
        bindings.register(self, lambda: print("closed", name, flush=True), base)

connection = Thing("connection")
image = Thing("image", connection)
bindings._EXIT_TIMEOUT = 0.1 if sys.argv[1] == "hangs" else 60
entered, leave = threading.Event(), threading.Event()

def use():
    with bindings.calling(), bindings.using(image):
        entered.set()
        leave.wait()
        print("used", flush=True)
    with contextlib.suppress(BackendException), bindings.calling():
        print("used again", flush=True)
    threading.Event().wait()

threading.Thread(target=use, daemon=True).start()
entered.wait()
if sys.argv[1] == "ends":
    real = bindings._state.changed.wait_for
    def wait_for(*arguments):
        leave.set()
        return real(*arguments)
    bindings._state.changed.wait_for = wait_for
"""


@pytest.mark.parametrize(
    ("how", "said"), [("ends", ["used", "closed image", "closed connection"]), ("hangs", [])]
)
def test_the_interpreters_end(how: str, said: list[str]) -> None:
    """A call under way is waited for, and everything closed then, in order; a thread that is left
    begins nothing more.  Where a call hangs, nothing is closed under its feet."""
    done = subprocess.run(
        [sys.executable, "-c", _ENDING, how], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == said


class FakeRados:
    """A connection that takes until it is told, and then fails or not."""

    made = 0
    waiting = threading.Semaphore(0)
    proceed = threading.Event()
    fails = False

    def __init__(self, conffile: str, rados_id: str | None) -> None:
        self.settings = {"fsid": "", "rados_osd_op_timeout": "0", "rados_mon_op_timeout": "7"}

    def conf_get(self, name: str) -> str:
        return self.settings.get(name, "")

    def conf_set(self, name: str, value: str) -> None:
        self.settings[name] = value

    def connect(self) -> None:
        type(self).made += 1
        self.waiting.release()
        assert self.proceed.wait(60)
        if self.fails:
            raise CephError("timed out", errno.ETIMEDOUT)

    def get_fsid(self) -> str:
        return "the-fsid"

    def shutdown(self) -> None:
        """Nothing is open."""


def _cluster(
    modules: types.SimpleNamespace, *, fails: bool, user: str | None = None
) -> tuple[Cluster, type[FakeRados]]:
    class Rados(FakeRados):
        waiting = threading.Semaphore(0)
        proceed = threading.Event()

    Rados.fails = fails
    modules.Rados = Rados
    return Cluster("it", ConnectionSettings("images", user, "", 5, 240)), Rados


@pytest.mark.parametrize("fails", [True, False])
def test_who_waits_for_a_connection_shares_it(modules: types.SimpleNamespace, fails: bool) -> None:
    """Threads that come while one connects get its connection, or its failure, and do not try
    one after the other."""
    cluster, rados = _cluster(modules, fails=fails)
    outcomes: list[object] = []
    started = threading.Barrier(5)

    def use() -> None:
        started.wait()
        try:
            outcomes.append(cluster.fsid)
        except TimeoutError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    assert rados.waiting.acquire(timeout=60)
    while len([each for each in threads if each.is_alive()]) < 4:
        pass
    cluster_waits = cluster._opening.lock
    while not cluster_waits.locked():
        pass
    rados.proceed.set()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    if fails:
        assert {type(each) for each in outcomes} == {TimeoutError}
        assert len({id(each) for each in outcomes}) == 4  # each has its own to write into
    else:
        assert outcomes == ["the-fsid"] * 4
        assert rados.made == 1
    cluster.close()


def test_time_limits(modules: types.SimpleNamespace) -> None:
    """Limits go by the options that librados honours; what the Ceph configuration sets stays."""
    cluster, _ = _cluster(modules, fails=False)
    settings = cluster._prepare().settings
    assert settings["client_mount_timeout"] == "5"
    assert settings["rados_osd_op_timeout"] == "240"
    assert settings["rados_mon_op_timeout"] == "7"
    assert settings["rbd_cache"] == "false"


def test_a_reader_fetches_what_memory_is_there_for(
    modules: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little before it is first asked for a piece, and then pieces as large as the engine says."""
    data = random.Random(0).randbytes(PIECE)
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return data[offset : offset + length]

    image = types.SimpleNamespace(
        size=lambda: PIECE, stat=lambda: {"obj_size": PIECE}, read=read, close=lambda: None
    )
    monkeypatch.setattr(bindings, "open_image", lambda *_: image)
    monkeypatch.setattr(bindings, "is_open", lambda _: False)
    quiet = contextlib.nullcontext()
    cluster: Any = types.SimpleNamespace(calling=lambda *_: quiet, using=lambda *_: quiet)
    reader = RbdReader(cluster, None, "it", "snap", 0, None)
    assert asked == [(0, FIRST_PIECE)]
    got = []
    assert reader.first is not None
    for piece in reader.first:
        got.append(piece)
        reader.piece_size = MIB if len(got) < 3 else PIECE
    assert [length for _, length in asked] == [
        FIRST_PIECE,
        MIB,
        MIB,
        PIECE - 2 * MIB - FIRST_PIECE,
    ]
    assert b"".join(got) == data
