"""Closing: idempotent, final, and without a hang, even at the interpreter's exit."""

import contextlib
from collections.abc import Callable
from typing import Any

from store_lib.exceptions import StoreClosed, StoreError
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_bytes, expect_equal, raises
from store_lib.testing.sources import FileLike, PausedAdd
from store_lib.testing.target import Target

#: Seconds for an interpreter to exit.
_EXIT = 30


@check()
def check_close_is_idempotent_and_final(target: Target) -> None:
    """Check 25: stores can be closed twice, and any use afterwards raises StoreClosed."""
    uri, _ = target.sample(100)
    stores = target.open()
    store = stores[target.store_id]
    stores.close()
    stores.close()
    source = FileLike(Content(10))
    object_id = target.new_id()
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: store.get(uri),
        "stat": lambda: store.stat(uri),
        "get of Stores": lambda: stores.get(uri, store=target.store_id),
        "stat of Stores": lambda: stores.stat(uri, store=target.store_id),
    }
    if "add" in target.capabilities:
        calls["add"] = lambda: store.add(object_id, source, 10)
        calls["add of Stores"] = lambda: stores.add(object_id, source, 10, target.store_id)
    if "delete" in target.capabilities:
        calls["delete"] = lambda: store.delete(uri)
    if "list" in target.capabilities:
        calls["list"] = lambda: list(store.list())
    if "space" in target.capabilities:
        calls["space"] = store.space
    for name, call in calls.items():
        with raises(StoreClosed, doing=f"{name} after close"):
            call()
    expect_equal(source.reads, 0, "an add after close: reads of its source")
    expect(repr(store) and repr(stores), "repr() after close: expected a text, got none")
    stores.close()
    target.store.stat(uri)  # another Stores object still works


@check()
def check_close_in_finally_keeps_the_error(target: Target) -> None:
    """Check 25: an error in the ``with`` block propagates, and the stores are closed."""
    uri, _ = target.sample(100)
    error = LookupError("the caller's own")
    stores = target.open()
    try:
        with stores:
            reader = stores[target.store_id].get(uri)
            raise error
    except LookupError as caught:
        expect(caught is error, f"expected the caller's own error, got {caught!r}")
    with raises(StoreClosed, doing="a stat after the with block"):
        stores[target.store_id].stat(uri)
    reader.close()


@check()
def check_close_with_a_reader_open(target: Target) -> None:
    """Check 25: closing with an open reader returns; the reader works on or raises an error."""
    uri, content = target.sample(target.profile.long_size)
    stores = target.open()
    reader = stores[target.store_id].get(uri)
    begun = reader.read(1)
    stores.close()
    with contextlib.suppress(StoreError), reader:
        rest = reader.read()
        expect_bytes(begun + rest, content.whole(), "a reader whose stores were closed")
    reader.close()
    stores.close()


@check(needs="add")
def check_close_with_an_add_under_way(target: Target) -> None:
    """Check 25: an add in progress at the close succeeds, or fails and leaves nothing."""
    size = target.profile.long_size
    content = Content(size, seed=2)
    object_id = target.new_id()
    stores = target.open()
    with PausedAdd(stores[target.store_id], object_id, content, at=size // 2) as add:
        stores.close()
        try:
            uri = target.track_uri(add.finish().uri)
        except StoreError:
            target.expect_not_added(object_id, "an add that failed because of a close")
        else:
            target.expect_content(uri, content, "an add that succeeded in spite of a close")


@check()
def check_the_interpreter_ends_with_nothing_closed(target: Target) -> None:
    """Check 25: with open stores and readers, the interpreter exits at once and quietly."""
    uri, _ = target.sample(target.profile.long_size)
    for how in target.subset(("idle", "reader", "generator"), 2):
        with target.child("leave", uri=uri, how=how) as child:
            size = child.receive()["first"]
            expect(size > 0, f"expected a first chunk of at least one byte, got {size} bytes")
            status, stderr = child.wait(_EXIT)
            what = f"an interpreter that exits with stores open ({how})"
            expect_equal(status, 0, f"{what}: exit status (standard error: {stderr[-500:]!r})")
            expect_equal(stderr, "", f"{what}: standard error")
