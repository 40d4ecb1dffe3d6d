"""Lock files: one holder at a time, gone with it, and not kept alive by a child."""

import os
import pathlib
import threading

import pytest

from store_lib.drivers.cinder import locks
from store_lib.drivers.cinder.locks import HostLocks, LockFile
from store_lib.exceptions import BackendException, TimeoutError


def test_one_holds_it_at_a_time(tmp_path: pathlib.Path) -> None:
    """A second one is refused until the first lets go, which removes the file."""
    first, second = (LockFile(str(tmp_path), "it") for _ in range(2))
    assert not second.is_held()
    assert first.try_acquire()
    assert not second.try_acquire()
    assert second.is_held()
    first.release()
    first.release()
    assert list(tmp_path.iterdir()) == []
    assert second.try_acquire()
    second.release()


def test_what_a_killed_process_left_is_not_held(tmp_path: pathlib.Path) -> None:
    """A file without a living holder can be taken, and goes then."""
    lock = LockFile(str(tmp_path), "it")
    (tmp_path / "store_lib-cinder-it").touch()
    assert not lock.is_held()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_opened_is_told(tmp_path: pathlib.Path) -> None:
    """Such as one of another user's: the error names it and the option, and a sweep passes by."""
    file = tmp_path / "store_lib-cinder-it"
    file.mkdir()
    lock = LockFile(str(tmp_path), "it")
    for call in (lock.try_acquire, lock.acquire, lock.is_held):
        with pytest.raises(BackendException, match="lock_path") as caught:
            call()
        assert str(file) in str(caught.value)
    HostLocks(str(tmp_path)).remove_dead()


def test_a_link_is_not_followed(tmp_path: pathlib.Path) -> None:
    """Nothing is made, locked or removed where a link leads that others have put there."""
    there, directory = tmp_path / "there", tmp_path / "locks"
    directory.mkdir()
    for made in (False, True):
        if made:
            there.touch()
        (directory / "store_lib-cinder-it").symlink_to(there)
        lock = LockFile(str(directory), "it")
        for call in (lock.try_acquire, lock.acquire, lock.is_held):
            with pytest.raises(BackendException, match=r"symbolic link.*lock_path"):
                call()
        HostLocks(str(directory)).remove_dead()
        assert there.exists() is made
        (directory / "store_lib-cinder-it").unlink()


def test_files_are_their_owners_alone(tmp_path: pathlib.Path) -> None:
    """Whatever the umask is, nobody else can open a lock and hold it."""
    before = os.umask(0)
    try:
        lock = LockFile(str(tmp_path), "it")
        assert lock.try_acquire()
        assert (tmp_path / "store_lib-cinder-it").stat().st_mode & 0o777 == 0o600
        lock.release()
    finally:
        os.umask(before)


def test_files_of_the_dead_are_removed(tmp_path: pathlib.Path) -> None:
    """What is held stays, and so does what is no lock of ours."""
    holder = LockFile(str(tmp_path), "held")
    assert holder.try_acquire()
    for name in ("store_lib-cinder-dead", "somebody's"):
        (tmp_path / name).touch()
    HostLocks(str(tmp_path)).remove_dead()
    assert {path.name for path in tmp_path.iterdir()} == {"store_lib-cinder-held", "somebody's"}
    holder.release()


def test_threads_take_turns(tmp_path: pathlib.Path) -> None:
    """Of many threads one at a time is inside, though each removes the file."""
    inside: list[int] = []
    wrong: list[int] = []

    def work() -> None:
        for _ in range(20):
            with LockFile(str(tmp_path), "it").held():
                inside.append(1)
                if len(inside) != 1:
                    wrong.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
    assert list(tmp_path.iterdir()) == []


def test_a_child_does_not_keep_it(tmp_path: pathlib.Path) -> None:
    """A forked child neither holds nor removes what its parent has locked."""
    lock = LockFile(str(tmp_path), "it")
    assert lock.try_acquire()
    (told, telling), (go_on, going_on) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        lock.release()
        os.write(telling, b"held" if LockFile(str(tmp_path), "it").is_held() else b"free")
        os.read(go_on, 1)  # lives on until its parent has let go
        os._exit(0)
    assert os.read(told, 4) == b"held"
    lock.release()
    assert LockFile(str(tmp_path), "it").try_acquire()
    os.write(going_on, b".")
    os.waitpid(child, 0)
    for descriptor in (told, telling, go_on, going_on):
        os.close(descriptor)


def test_waiting_for_one_that_hangs_ends(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the file, so that its holder can be found."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 0)
    holder = LockFile(str(tmp_path), "it")
    assert holder.try_acquire()
    with (
        pytest.raises(TimeoutError, match=str(tmp_path)),
        LockFile(str(tmp_path), "it").held(),
    ):
        pass
    holder.release()
