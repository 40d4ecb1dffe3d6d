"""Tests of the set of stores: which store is asked, and what a broken one does to the others."""

import io
import multiprocessing
import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from store_lib import Stores
from store_lib.driver import Incomplete
from store_lib.drivers.filesystem.writer import FileWriter
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    DriverLoadFailure,
    Duplicate,
    Invalid,
    NotFound,
    NotSupported,
    RemoteServiceUnavailable,
    StoreAddDisabled,
    StoreClosed,
    StoreDeleteNotSupported,
    StoreGetNotSupported,
    UnknownScheme,
    UnknownStore,
)
from tests.garbage import collected
from tests.unit.memory_driver import memory_store


def section(path: Path, **options: Any) -> dict[str, Any]:
    """Return a filesystem store's section."""
    return {
        "filesystem_store_datadir": str(path),
        "filesystem_store_durable": False,
        **options,
    }


@pytest.fixture
def two(tmp_path: Path) -> Stores:
    """Two filesystem stores."""
    return Stores.from_mapping(
        {
            "DEFAULT": {"enabled_backends": "fast:file, slow:filesystem"},
            "glance_store": {"default_backend": "slow"},
            "fast": section(tmp_path / "fast", weight=10, store_description="quick"),
            "slow": section(tmp_path / "slow", description="cheap"),
        },
        strict=True,
    )


def test_the_set(two: Stores) -> None:
    """Stores are in configured order, know what the operator says of them, and sort by weight."""
    assert [store.id for store in two] == ["fast", "slow"]
    assert len(two) == 2
    assert "fast" in two
    assert "other" not in two
    assert two.default is two["slow"]
    assert two["slow"].is_default
    assert [store.id for store in two.by_weight()] == ["fast", "slow"]
    assert (two["fast"].description, two["slow"].description) == ("quick", "cheap")
    assert two["fast"].driver_name == "file"
    assert {"add", "delete", "list", "ranges"} <= two["fast"].capabilities
    with pytest.raises(UnknownStore, match="configured are: fast, slow"):
        _ = two["nope"]
    with pytest.raises(UnknownStore):
        two.add("x", b"", store="nope")


def test_round_trip(two: Stores, tmp_path: Path) -> None:
    """An object goes to the default store or the named one, and is found by its URI alone."""
    first = two.add("a", b"first")
    second = two.add("a", b"second", store="fast")
    assert (first.store, second.store) == ("slow", "fast")
    assert first.uri == f"file://{tmp_path}/slow/a"
    assert two.get(second.uri).read() == b"second"
    assert two.get(second.uri, 1, 3).read() == b"eco"
    assert two.stat(first.uri).size == 5
    with pytest.raises(Duplicate):
        two.add("a", b"third")
    assert [entry.object_id for entry in two["fast"].list()] == ["a"]
    two.delete(first.uri)
    with pytest.raises(NotFound):
        two.get(first.uri)
    assert two.get(second.uri, store="fast").read() == b"second"


def test_uri_of_nobody(two: Stores) -> None:
    """A URI with no store for its scheme, or outside of every store, is refused clearly."""
    with pytest.raises(UnknownScheme, match="rbd"):
        two.get("rbd://x/y/z/snap")
    for uri in ("file:///etc/passwd", "file://", "file://relative", "nothing", ""):
        with pytest.raises(BadStoreUri):
            two.get(uri)


def test_default_by_weight(tmp_path: Path) -> None:
    """Without default_backend the heaviest store that can be written to is the default."""
    values: dict[str, Any] = {
        "DEFAULT": {"enabled_backends": "web:http, a:file, b:file, c:file"},
        "web": {"weight": 99},
        "a": section(tmp_path / "a"),
        "b": section(tmp_path / "b", weight=5),
        "c": section(tmp_path / "c", weight=5),
    }
    stores = Stores.from_mapping(values)
    assert stores.default is stores["b"]
    values["DEFAULT"]["enabled_backends"] = "web:http"
    with pytest.raises(StoreAddDisabled, match="web is read-only"):
        Stores.from_mapping(values).add("x", b"")
    values["DEFAULT"]["enabled_backends"] = "web:http, other:http"
    with pytest.raises(StoreAddDisabled, match="no default"):
        Stores.from_mapping(values).add("x", b"")
    values["glance_store"] = {"default_backend": "nope"}
    with pytest.raises(BadStoreConfiguration, match="'nope'"):
        Stores.from_mapping(values)


def test_broken_store_does_not_stop_the_others(tmp_path: Path) -> None:
    """A misconfigured store is listed with its reason, refuses clearly, and the rest works."""
    (tmp_path / "file").write_text("")
    values: dict[str, Any] = {
        "DEFAULT": {"enabled_backends": "bad:file, odd:nonsense, worse:file, good:file"},
        "bad": section(tmp_path / "file"),
        "worse": section(tmp_path / "w", filesystem_store_chunk_size="big"),
        "good": section(tmp_path / "good"),
    }
    stores = Stores.from_mapping(values)
    uri = stores.add("x", b"fine").uri
    assert stores.get(uri).read() == b"fine"
    bad, odd, worse = stores["bad"], stores["odd"], stores["worse"]
    assert bad.error is not None
    assert "file" in str(bad.error)
    assert isinstance(odd.error, DriverLoadFailure)
    assert "known are: " in str(odd.error)
    assert worse.error is not None
    assert "filesystem_store_chunk_size" in str(worse.error)
    for store in (bad, odd, worse):
        assert not store.writable
        assert store.error is not None
        reason = str(store.error)
        for error, call in (
            (StoreAddDisabled, lambda store=store: store.add("x", b"")),
            (StoreDeleteNotSupported, lambda store=store: store.delete(uri)),
            (StoreGetNotSupported, lambda store=store: store.get(uri)),
            (StoreGetNotSupported, lambda store=store: store.stat(uri)),
            (NotSupported, lambda store=store: store.list()),
        ):
            with pytest.raises(error) as caught:
                call()
            assert reason in str(caught.value)
    with pytest.raises(BadStoreConfiguration):
        Stores.from_mapping(values, strict=True)


def test_strict_passes_what_is_right(two: Stores) -> None:
    """In strict mode a good configuration raises nothing."""
    assert all(store.error is None for store in two)


def test_single_store_form(tmp_path: Path) -> None:
    """The old form works, with its default by scheme."""
    stores = Stores.from_mapping(
        {"glance_store": {"stores": "http,file", "default_store": "file", **section(tmp_path)}}
    )
    assert [store.id for store in stores] == ["http", "file"]
    assert stores.default is stores["file"]
    assert stores.get(stores.add("x", b"y").uri).read() == b"y"


def test_from_a_service_configuration(tmp_path: Path) -> None:
    """Two sets on one service configuration work side by side, and it stays the service's."""
    path = tmp_path / "svc.conf"
    path.write_text(
        "[DEFAULT]\nenabled_backends = one:file\n"
        f"[one]\nfilesystem_store_datadir = {tmp_path}/one\n"
    )
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    conf(args=[], default_config_files=[str(path)])
    with Stores.from_config(conf) as first, Stores.from_config(conf) as second:
        uri = first.add("x", b"data").uri
        assert second.get(uri).read() == b"data"
        first.close()
        second.delete(uri)
        with pytest.raises(StoreClosed):
            first.stat(uri)
    with Stores.from_files(path) as third:
        assert third.add("y", b"").size == 0


def test_close_waits_for_what_is_under_way() -> None:
    """Closing refuses new work at once and closes the driver after the last reader."""
    store, driver = memory_store()
    uri = store.add("x", b"data").uri
    reader = store.get(uri)
    store.close()
    store.close()
    for call in (
        lambda: store.add("y", b""),
        lambda: store.get(uri),
        lambda: store.stat(uri),
        lambda: store.delete(uri),
        lambda: store.list(),
    ):
        with pytest.raises(StoreClosed):
            call()
    assert driver.closed == 0
    assert reader.read() == b"data"
    assert driver.closed == 1


def test_copy(two: Stores) -> None:
    """A copy within a store is the backend's, one between stores goes through here; both verify."""
    data = os.urandom(3_000_000)
    origin = two.add("a", data, store="fast", digests=("sha256",))
    within = two.copy(origin.uri, "b", to="fast")
    assert (within.size, within.digests) == (len(data), {})
    assert two.get(within.uri).read() == data
    across = two.copy(origin.uri, "a", digests=("sha256",), expected=origin.digests)
    assert across.store == "slow"
    assert across.digests == origin.digests
    assert two.get(across.uri).read() == data
    with pytest.raises(Duplicate):
        two.copy(origin.uri, "b", to="fast")
    with pytest.raises(NotFound):
        two.copy(origin.uri + "x", "c")


def test_a_copy_whose_size_is_not_told_at_once(
    two: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that was made is not lost to a temporary error of the question how large it is."""
    origin = two.add("a", b"bytes", store="fast")
    driver = two["fast"].driver
    assert driver is not None
    stat, failures = driver.stat, [RemoteServiceUnavailable("busy")]

    def fail_once(*arguments: Any, **further: Any) -> Any:
        if failures:
            raise failures.pop()
        return stat(*arguments, **further)

    monkeypatch.setattr(driver, "stat", fail_once)
    assert two.copy(origin.uri, "b", to="fast").size == 5


def test_a_copy_that_the_backend_cannot_make(two: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a backend that copies cannot copy, from another account say, goes through here."""
    origin = two.add("a", b"bytes", store="fast", digests=("sha256",))

    def refuse(*_: Any) -> Any:
        raise NotSupported("It lies in another account.")

    monkeypatch.setattr(FileWriter, "copy_from", refuse)
    made = two.copy(origin.uri, "b", to="fast", digests=("sha256",))
    assert made.digests == origin.digests
    assert two.get(made.uri).read() == b"bytes"


def test_sweep(two: Stores, tmp_path: Path) -> None:
    """Leftovers are removed by age, and what is at work is left alone."""
    store = two["fast"]
    driver = store.driver
    assert driver is not None
    started, finish = threading.Event(), threading.Event()

    def slow() -> Any:
        yield bytes(3_000_000)
        started.set()
        finish.wait(30)
        yield b"end"

    thread = threading.Thread(target=lambda: store.add("live", slow()))
    thread.start()
    started.wait(30)
    assert [each.live for each in store.list_incomplete()] == [True]
    assert store.sweep(0) == []
    finish.set()
    thread.join(30)
    assert list(store.list_incomplete()) == []
    leftover = tmp_path / "fast" / (".store_lib-" + "0" * 32 + "-gone")
    leftover.write_bytes(b"half")
    os.utime(leftover, (time.time() - 100,) * 2)
    assert store.sweep(1000) == []
    assert [each.object_id for each in store.sweep(50, dry_run=True)] == ["gone"]
    assert [each.object_id for each in store.sweep(50)] == ["gone"]
    assert not leftover.exists()
    with pytest.raises(Invalid, match="older_than"):
        store.sweep(-1)


def test_sweep_of_any_age(two: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of whole seconds a leftover can be of the next second; 0 takes it all the same."""
    store, now = two["fast"], time.time()
    young = Incomplete(key="young", object_id="young", size=1, modified=now + 0.9, now=now)
    removed: list[str] = []
    monkeypatch.setattr(store.driver, "list_incomplete", lambda *, context: iter([young]))
    monkeypatch.setattr(
        store.driver, "discard", lambda each, *, context: not removed.append(each.key)
    )
    assert store.sweep(0.001) == []
    assert store.sweep(0) == [young]
    assert removed == ["young"]


def test_pickle(two: Stores, tmp_path: Path) -> None:
    """A pickled set is made anew from the same options, wherever they came from."""
    uri = two.add("a", b"x", store="fast").uri
    copy = pickle.loads(pickle.dumps(two))
    assert copy.get(uri).read() == b"x"
    assert copy.default.id == "slow"
    assert copy["fast"].weight == 10
    assert copy["fast"].options.filesystem_store_durable is False
    old = Stores.from_mapping({"glance_store": {"stores": "file", **section(tmp_path)}})
    again = pickle.loads(pickle.dumps(old))
    assert again.add("b", b"y").uri == f"file://{tmp_path}/b"
    broken = Stores.from_mapping(
        {"DEFAULT": {"enabled_backends": "s:file"}, "s": {"filesystem_store_chunk_size": "big"}}
    )
    with pytest.raises(TypeError, match="misconfigured"):
        pickle.dumps(broken)


def test_unsupported_operations(two: Stores) -> None:
    """What a driver cannot do is refused by name."""
    uri = two.add("a", b"x").uri
    with pytest.raises(NotSupported, match="temporary URLs"):
        two["slow"].url(uri)
    with pytest.raises(NotSupported, match="access control"):
        two["slow"].set_acls(uri, public=True)


def test_after_a_fork(two: Stores) -> None:
    """A child of a fork that happened in the middle of an add can use the stores at once."""
    outcome: list[int] = []

    def pieces() -> Any:
        yield bytes(2_000_000)
        child = os.fork()
        if not child:
            status = 1
            try:
                uri = two.add("a", b"the child's", store="fast").uri
                if two.get(uri).read() == b"the child's":
                    status = 0
            finally:
                os._exit(status)
        outcome.append(os.waitpid(child, 0)[1])
        yield b"x"

    result = two.add("a", pieces(), store="slow")
    assert outcome == [0]
    assert two.stat(result.uri).size == 2_000_001


def _add_many(values: dict[str, Any], barrier: Any, wins: Any, number: int) -> None:
    stores = Stores.from_mapping(values)
    for name in range(20):
        barrier.wait(60)
        try:
            stores.add(str(name), io.BytesIO(str(number).encode() * 100_000))
            wins.put((name, number))
        except Duplicate:
            pass


def test_processes_race_for_one_id(tmp_path: Path) -> None:
    """Several processes that add one id have exactly one winner, and its bytes stand."""
    values = {"DEFAULT": {"enabled_backends": "s:file"}, "s": section(tmp_path / "s")}
    context = multiprocessing.get_context("spawn")
    barrier, wins = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=_add_many, args=(values, barrier, wins, number))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    winners = dict(wins.get(timeout=60) for _ in range(20))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert wins.empty()
    for name, number in winners.items():
        assert (tmp_path / "s" / str(name)).read_bytes() == str(number).encode() * 100_000
    assert len(list((tmp_path / "s").iterdir())) == 20


@pytest.mark.parametrize("broken", [False, True])
def test_an_add_leaves_nothing_to_the_garbage_collector(
    tmp_path: Path, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an add held is free when it returns, also where a directory was passed over."""
    directories = [f"{tmp_path}/{name}:{number}" for number, name in enumerate("ab")]
    values = {
        "DEFAULT": {"enabled_backends": "it:file"},
        "it": {"filesystem_store_datadirs": directories},
    }
    with Stores.from_mapping(values, strict=True) as stores:
        stores.add("warm", iter([bytes(3_000_000)]))
        if broken:
            (tmp_path / "b").rename(tmp_path / "gone")
        with collected() as left:
            stores.add("large", iter([bytes(3_000_000)]))
            stores.add("small", b"x")
    assert left == []
