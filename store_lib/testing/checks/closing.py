"""Closing: idempotent, final, and never a hang, not even at the interpreter's end."""

import contextlib
from collections.abc import Callable
from typing import Any

from store_lib.exceptions import StoreClosed, StoreError
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_bytes, expect_equal, raises
from store_lib.testing.sources import InFlight, Untouched
from store_lib.testing.target import Target

#: Seconds for an interpreter to end.
_EXIT = 30


@check()
def check_close_is_idempotent_and_final(target: Target) -> None:
    """Check 25: closing twice is fine, and every use afterwards is StoreClosed."""
    uri, _ = target.sample(100)
    stores = target.open()
    store = stores[target.store_id]
    stores.close()
    stores.close()
    source = Untouched(Content(10))
    object_id = target.new_id()
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: store.get(uri),
        "stat": lambda: store.stat(uri),
        "get of the set": lambda: stores.get(uri, store=target.store_id),
        "stat of the set": lambda: stores.stat(uri, store=target.store_id),
    }
    if "add" in target.capabilities:
        calls["add"] = lambda: store.add(object_id, source, 10)
        calls["add of the set"] = lambda: stores.add(object_id, source, 10, target.store_id)
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
    expect(repr(store) and repr(stores), "expected a representation after close")
    stores.close()
    target.store.stat(uri)  # a set of its own goes on


@check()
def check_close_in_finally_keeps_the_error(target: Target) -> None:
    """Check 25: an error in the ``with`` block comes out, and the stores are closed."""
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
    """Check 25: closing under an open reader returns; the reader goes on, or ends with an error."""
    uri, content = target.sample(target.profile.long_size)
    stores = target.open()
    reader = stores[target.store_id].get(uri)
    begun = reader.read(1)
    stores.close()
    with contextlib.suppress(StoreError), reader:
        rest = reader.read()
        expect_bytes(begun + rest, content.whole(), "a reader over a close")
    reader.close()
    stores.close()


@check(needs="add")
def check_close_with_an_add_under_way(target: Target) -> None:
    """Check 25: an add under way at a close is finished whole, or fails and leaves nothing."""
    size = target.profile.long_size
    content = Content(size, seed=2)
    object_id = target.new_id()
    stores = target.open()
    with InFlight(stores[target.store_id], object_id, content, at=size // 2) as add:
        stores.close()
        try:
            uri = target.watch_uri(add.finish().uri)
        except StoreError:
            target.expect_not_added(object_id, "an add that a close ended")
        else:
            target.expect_holds(uri, content, "an add that outlived a close")


@check()
def check_the_interpreter_ends_with_nothing_closed(target: Target) -> None:
    """Check 25: with an open reader and open stores an interpreter ends at once, and quietly."""
    uri, _ = target.sample(target.profile.long_size)
    for how in target.some(("idle", "reader", "generator"), 2):
        with target.child("leave", uri=uri, how=how) as child:
            size = child.hear()["first"]
            expect(size > 0, f"expected a first piece of a byte or more, got {size} bytes")
            status, complaints = child.end(_EXIT)
            what = f"an interpreter ending with stores open ({how})"
            expect_equal(status, 0, f"{what}: exit status, after {complaints[-500:]!r}")
            expect_equal(complaints, "", f"{what}: standard error")
