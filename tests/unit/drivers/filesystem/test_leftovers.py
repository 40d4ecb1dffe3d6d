"""What a crash leaves is listed and removed; what an upload is at work on is not touched."""

import contextlib
import dataclasses
import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib.driver import Incomplete
from store_lib.drivers.filesystem import FilesystemDriver, publishing, staging, syscalls
from store_lib.drivers.filesystem.exclusion import sole_publisher
from store_lib.drivers.filesystem.publishing import Publishing
from store_lib.drivers.filesystem.syscalls import Descriptor
from store_lib.exceptions import BackendException, ErrorStatus, Forbidden, Invalid, StoreError

#: From Python 3.12 on, forking beside pytest-xdist's thread warns; the children here take no locks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def incomplete(driver: FilesystemDriver) -> list[Incomplete]:
    return list(driver.list_incomplete(context=None))


@contextlib.contextmanager
def killed_process(work: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Run ``work`` in another process and yield, when it is done, a function that kills it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            kept = work()
            os.write(writing, b"x")
            time.sleep(600)
            del kept
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    alive = True

    def kill() -> None:
        nonlocal alive
        if alive:
            alive = False
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    try:
        yield kill
    finally:
        kill()


def test_an_upload_that_was_killed(driver, begin, put, data: Path) -> None:
    """A killed upload shows nothing, is listed, does not keep its id, and can be swept."""

    def upload() -> object:
        writer = begin(driver, "a", 5 * 2**20)
        writer.write_at(0, bytes(2**20))
        return writer

    with killed_process(upload) as kill:
        (found,) = incomplete(driver)
        assert found.live
        assert found.object_id == "a"
        assert not driver.discard(found, context=None)
        assert os.path.exists(found.key)
        kill()
        (found,) = incomplete(driver)
        assert not found.live
    assert list(driver.list(context=None)) == []
    put(driver, "a", b"again")
    before = found.modified
    assert abs(before - time.time()) < 600
    assert found.size is not None
    assert found.size >= 2**20
    assert driver.discard(found, context=None)
    assert os.listdir(data) == ["a"]
    assert not driver.discard(found, context=None)


def test_uploads_at_work_here(driver, begin, data: Path) -> None:
    """An upload of this very process is live, and neither listing nor a sweep disturbs it."""
    writer = begin(driver, "a")
    writer.write_at(0, b"x")
    for _ in range(3):
        (found,) = incomplete(driver)
        assert found.live
        assert not driver.discard(dataclasses.replace(found, live=False), context=None)
    writer.commit(1)
    assert incomplete(driver) == []
    assert not driver.discard(found, context=None)
    assert (data / "a").read_bytes() == b"x"


def test_ages_are_told_by_the_file_system(driver, data: Path, monkeypatch) -> None:
    """The age of a leftover is measured by the clock that gave its time, perhaps a server's."""
    path = leftover(data)
    os.utime(path, (path.stat().st_mtime - 1000,) * 2)
    real = staging.clock
    monkeypatch.setattr(time, "time", lambda: 0.0)
    (found,) = incomplete(driver)
    assert found.age == pytest.approx(1000, abs=60)
    monkeypatch.setattr(staging, "clock", lambda directory: real(directory) + 10_000)
    (found,) = incomplete(driver)
    assert found.age == pytest.approx(11_000, abs=60)
    assert os.listdir(data) == [path.name]


def test_ages_where_no_file_can_be_made(driver, data: Path, monkeypatch) -> None:
    """On a file system that is full or read-only this machine's clock has to do."""
    path = leftover(data)

    def fail(directory: str) -> float:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(staging, "clock", fail)
    monkeypatch.setattr(time, "time", lambda: path.stat().st_mtime + 7)
    (found,) = incomplete(driver)
    assert found.age == 7


def test_ids_that_were_cut(driver, begin) -> None:
    """An upload whose id does not fit its staged name is listed without it."""
    writer = begin(driver, "x" * 255)
    (found,) = incomplete(driver)
    assert found.object_id is None
    assert found.live
    writer.commit(0)


def test_all_directories_are_looked_through(make, begin, tmp_path: Path) -> None:
    """Leftovers of every data directory are listed."""
    x, y = f"{tmp_path}/x", f"{tmp_path}/y"
    kept = []
    for first in (x, y):
        second = y if first == x else x
        driver = make(filesystem_store_datadirs=[f"{first}:1", second])
        kept.append(begin(driver, "a"))
    assert sorted(Path(found.key).parent.name for found in incomplete(driver)) == ["x", "y"]


def test_only_private_files_are_listed(driver, put, data: Path) -> None:
    """Objects, directories and links are no leftovers, whatever they are called."""
    put(driver, "a", b"x")
    (data / ".store_lib-directory").mkdir()
    (data / ".store_lib-link").symlink_to("a")
    os.mkfifo(data / ".store_lib-pipe")
    (data / ".hidden").write_bytes(b"")
    assert incomplete(driver) == []


@pytest.mark.parametrize(
    "name",
    [".store_lib-notours", ".store_lib-", f".store_lib-{'0' * 31}-a", ".store_lib-lock-a"],
)
def test_files_that_no_upload_made(driver, data: Path, name: str) -> None:
    """A file that only begins like an upload's is neither listed nor removed."""
    (data / name).touch()
    assert incomplete(driver) == []
    with pytest.raises(Invalid, match="listing"):
        driver.discard(Incomplete(str(data / name), None, 0, time.time() + 9), context=None)
    assert os.listdir(data) == [name]


def test_a_crash_between_link_and_unlink(driver, put, contents, data: Path) -> None:
    """A staged name of a finished object is removed without harm to the object."""
    location = put(driver, "a", b"x")
    staged = data / f".store_lib-{'0' * 32}-a"
    os.link(data / "a", staged)
    (found,) = incomplete(driver)
    assert driver.discard(found, context=None)
    assert contents(driver, location) == b"x"


# What discard refuses


def leftover(data: Path, name: str = f"{'0' * 32}-a") -> Path:
    path = data / f".store_lib-{name}"
    path.write_bytes(b"left")
    return path


@pytest.mark.parametrize(
    "key",
    ["/etc/passwd", "a", "", "{data}/a", "{data}/../.store_lib-x", "{data}/sub/.store_lib-x"],
)
def test_keys_that_no_listing_gave(driver, put, tmp_path: Path, data: Path, key: str) -> None:
    """Only a private file directly in a data directory can be discarded."""
    put(driver, "a", b"x")
    (tmp_path / ".store_lib-x").write_bytes(b"")
    (data / "sub").mkdir()
    (data / "sub" / ".store_lib-x").write_bytes(b"")
    with pytest.raises(Invalid, match="listing"):
        driver.discard(Incomplete(key.format(data=data), None, 0, time.time()), context=None)
    assert (data / "a").exists()
    assert (tmp_path / ".store_lib-x").exists()
    assert (data / "sub" / ".store_lib-x").exists()


def test_written_since_it_was_listed(driver, data: Path) -> None:
    """A file with signs of life since the listing is left alone, even without a lock."""
    path = leftover(data)
    (found,) = incomplete(driver)
    os.utime(path, (found.modified + 1, found.modified + 1))
    assert not driver.discard(found, context=None)
    assert path.exists()


def test_links_and_directories(driver, data: Path) -> None:
    """A symbolic link or a directory of such a name is not discarded."""
    victim = data / "victim"
    victim.write_bytes(b"x")
    link = data / f".store_lib-{'1' * 32}-link"
    link.symlink_to(victim)
    with pytest.raises(Forbidden, match="symbolic link"):
        driver.discard(Incomplete(str(link), None, 0, time.time() + 9), context=None)
    directory = data / f".store_lib-{'1' * 32}-directory"
    directory.mkdir()
    assert not driver.discard(Incomplete(str(directory), None, 0, time.time() + 9), context=None)
    assert victim.exists()
    assert directory.exists()


def test_no_permission(make, data: Path, open_directory, request) -> None:
    """A leftover of another user is listed; that it cannot be removed is an error."""
    path = open_directory / "data"
    driver = make(filesystem_store_datadir=str(path))
    leftover(path).chmod(0)
    request.getfixturevalue("unprivileged")
    (found,) = incomplete(driver)
    assert not found.live
    with pytest.raises(Forbidden, match="Permission denied"):
        driver.discard(found, context=None)


def test_a_file_that_may_not_be_written(driver, data: Path) -> None:
    """Whether an upload lives can be told of a file that may only be read."""
    path = leftover(data)
    path.chmod(0o400)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert [found.live for found in incomplete(driver)] == [True]
    assert [found.live for found in incomplete(driver)] == [False]


@pytest.mark.parametrize(
    ("number", "error"), [(errno.EIO, BackendException), (errno.EACCES, Forbidden)]
)
def test_errors(driver, data: Path, monkeypatch, number: int, error: Any) -> None:
    """What the system says becomes one documented error."""

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise OSError(number, os.strerror(number))

    leftover(data)
    (found,) = incomplete(driver)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        with pytest.raises(error):
            driver.discard(found, context=None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        with pytest.raises(error):
            incomplete(driver)


def test_gone_while_listing(driver, begin, data: Path, monkeypatch) -> None:
    """An upload that ends while the listing is made is left out of it."""
    writer = begin(driver, "a")
    real = syscalls.lock

    def finish(path: str) -> bool:
        writer.commit(0)
        raise FileNotFoundError(path)

    monkeypatch.setattr(staging, "_is_locked", finish)
    assert incomplete(driver) == []
    assert syscalls.lock is real


@pytest.mark.parametrize("replaced", [True, False])
def test_gone_while_discarding(driver, data: Path, monkeypatch, replaced: bool) -> None:
    """A name that means another file by now, or none, is left alone."""
    path = leftover(data)
    (found,) = incomplete(driver)
    real = syscalls.lock

    def lock(fd: int, how: int) -> bool | None:
        path.rename(data / "published")
        if replaced:
            path.write_bytes(b"another")
        return real(fd, how)

    monkeypatch.setattr(syscalls, "lock", lock)
    assert not driver.discard(found, context=None)
    assert (data / "published").exists()
    assert path.exists() == replaced


# An upload that begins while a sweep looks


@pytest.fixture
def sweep_first(monkeypatch) -> Callable[[Callable[[str], None]], None]:
    """Return a function that has a sweep come between making a file and locking it, once."""

    def function(sweep: Callable[[str], None]) -> None:
        real = syscalls.lock

        def lock(fd: int, how: int) -> bool | None:
            monkeypatch.setattr(syscalls, "lock", real)
            sweep(os.readlink(f"/proc/self/fd/{fd}"))
            return real(fd, how)

        monkeypatch.setattr(syscalls, "lock", lock)

    return function


def test_swept_before_it_was_locked(driver, begin, data: Path, sweep_first) -> None:
    """An upload whose file was swept before it had its lock begins again with another one."""
    swept: list[str] = []

    def sweep(path: str) -> None:
        (found,) = incomplete(driver)
        assert found.key == path
        assert driver.discard(found, context=None)
        swept.append(path)

    sweep_first(sweep)
    writer = begin(driver, "a")
    (found,) = incomplete(driver)
    assert found.live
    assert found.key not in swept
    writer.write_at(0, b"x")
    writer.commit(1)
    assert os.listdir(data) == ["a"]


def test_looked_at_before_it_was_locked(driver, begin, data: Path, sweep_first) -> None:
    """An upload that meets the lock of a sweep leaves that name for good and begins again."""
    looking: list[int] = []

    def look(path: str) -> None:
        looking.append(os.open(path, os.O_RDONLY))
        fcntl.flock(looking[0], fcntl.LOCK_SH)
        looking.append(path)  # type: ignore[arg-type]

    sweep_first(look)
    writer = begin(driver, "a")
    held, path = looking
    assert not os.path.exists(path)
    (found,) = incomplete(driver)
    assert found.key != path
    os.close(held)
    writer.commit(0)
    assert os.listdir(data) == ["a"]


def test_something_locks_every_file(driver, begin, data: Path, monkeypatch) -> None:
    """An upload that never gets its lock is a temporary error, and nothing is left."""
    monkeypatch.setattr(syscalls, "lock", lambda fd, how: False)
    with pytest.raises(BackendException, match="locks every one first") as caught:
        begin(driver, "a")
    assert caught.value.status is ErrorStatus.TEMPORARY
    assert os.listdir(data) == []


def test_a_lock_that_fails(driver, begin, data: Path, monkeypatch) -> None:
    """An error of the lock itself leaves nothing."""

    def fail(fd: int, how: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(BackendException):
        begin(driver, "a")
    assert os.listdir(data) == []


def test_a_nonce_that_is_taken(driver, data: Path) -> None:
    """A staged file of the same name, from wherever, is not touched."""
    first = driver.create("a", None, nonce="0" * 32, context=None)
    second = driver.create("a", None, nonce="0" * 32, context=None)
    assert len(os.listdir(data)) == 2
    first.abort()
    second.abort()


# The lock under which one of several directories gets an id


def test_a_lock_that_was_left(make, put, tmp_path: Path) -> None:
    """A lock file that a crash left keeps no upload waiting, is listed and can be swept."""
    x, y = str(tmp_path / "x"), str(tmp_path / "y")
    driver = make(filesystem_store_datadirs=[x, y])

    def publish() -> object:
        lock = sole_publisher([x], "a")
        lock.__enter__()
        return lock

    with killed_process(publish) as kill:
        (found,) = incomplete(driver)
        assert found.live
        assert found.object_id is None
        assert not driver.discard(found, context=None)
        kill()
        (found,) = incomplete(driver)
        assert not found.live
    put(driver, "a", b"x")
    assert incomplete(driver) == []


def test_a_lock_that_was_removed_meanwhile(tmp_path: Path, monkeypatch) -> None:
    """A lock on a file that is not the lock file any more does not count."""
    real = syscalls.lock
    taken: list[str] = []

    def lock(fd: int, how: int) -> bool | None:
        result = real(fd, how)
        if not taken:
            (path,) = tmp_path.iterdir()
            path.unlink()
            taken.append(path.name)
        return result

    monkeypatch.setattr(syscalls, "lock", lock)
    with sole_publisher([str(tmp_path)], "a"):
        assert os.listdir(tmp_path) == taken
    assert os.listdir(tmp_path) == []


def test_a_lock_that_cannot_be_made(make, begin, tmp_path: Path, monkeypatch) -> None:
    """Without the lock nothing is published, and abort leaves nothing."""
    driver = make(filesystem_store_datadirs=[f"{tmp_path}/x", f"{tmp_path}/y"])
    writer = begin(driver, "a")

    def fail(fd: int, how: int) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(StoreError) as caught:
        writer.commit(0)
    assert caught.value.status is ErrorStatus.TEMPORARY
    writer.abort()
    assert list(driver.list(context=None)) == []


def test_probing_leaves_nothing_when_it_fails(tmp_path: Path, monkeypatch) -> None:
    """However the trial of publishing ends, its files are gone."""

    def fail(how: Publishing, staged: str, final: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Publishing, "give_name", fail)
    with pytest.raises(KeyboardInterrupt):
        publishing.probe(str(tmp_path), checked=False)
    assert os.listdir(tmp_path) == []


# Forks and interrupts


@contextlib.contextmanager
def child_forked_here() -> Iterator[None]:
    """Fork a child that does nothing, and end it with the block."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def waiter(path: Path) -> tuple[threading.Thread, int]:
    """Return a thread that waits for the lock on a file, and its descriptor."""
    fd = os.open(path, os.O_RDWR)
    thread = threading.Thread(target=fcntl.flock, args=(fd, fcntl.LOCK_EX), daemon=True)
    thread.start()
    return thread, fd


def test_a_child_keeps_no_lock_on_an_id(tmp_path: Path, monkeypatch: Any) -> None:
    """A child that was forked while an id was published does not hold the id's lock."""
    # Even a child that does not close its copy.
    monkeypatch.setattr(Descriptor, "_after_fork", lambda _: None)
    with contextlib.ExitStack() as stack:
        with sole_publisher([str(tmp_path)], "a"):
            (path,) = tmp_path.iterdir()
            stack.enter_context(child_forked_here())
            thread, fd = waiter(path)
            stack.callback(os.close, fd)
        thread.join(10)
        assert not thread.is_alive()
    assert os.listdir(tmp_path) == []


def test_a_child_keeps_nothing_of_an_upload_alive(make: Any, begin: Any) -> None:
    """A child closes its copy of a staged file, so that it does not look like an upload at work."""
    driver = make()
    writer = begin(driver, "a")
    writer.write_at(0, b"x")
    with child_forked_here():
        deadline = time.monotonic() + 10
        writer._file.close()  # as the system does when the parent is killed
        while incomplete(driver)[0].live:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    writer.abort()


def test_a_child_that_drops_an_upload_leaves_the_file(make: Any, begin: Any) -> None:
    """The staged file is its parent's: a child that forgets the writer does not remove it."""
    driver = make()
    writer = begin(driver, "a")
    child = os.fork()
    if child == 0:
        del writer
        os._exit(0 if len(incomplete(driver)) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert incomplete(driver)[0].live
    writer.abort()


def test_an_interrupt_while_the_lock_is_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    """Whoever does not have the lock leaves the lock file to its holder."""
    real = syscalls.lock

    def lock(fd: int, how: int) -> bool | None:
        if how == fcntl.LOCK_EX:
            raise KeyboardInterrupt
        return real(fd, how)

    with sole_publisher([str(tmp_path)], "a"):
        with monkeypatch.context() as patch:
            patch.setattr(syscalls, "lock", lock)
            with pytest.raises(KeyboardInterrupt), sole_publisher([str(tmp_path)], "a"):
                pass
        assert len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == []
