"""Deletion: final, told truly, and harmless to who reads or adds meanwhile."""

import contextlib
import threading

from store_lib.exceptions import InUseByStore, NotFound, StoreError
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_bytes, raises
from store_lib.testing.sources import InFlight
from store_lib.testing.target import Target


@check(needs="delete add")
def check_delete_is_final(target: Target) -> None:
    """Check 23: what was deleted is NotFound to all, a second time too, and can be added anew."""
    for size in (0, 100, target.profile.long_size):
        content = Content(size, seed=1)
        object_id = target.new_id()
        uri = target.add(content, object_id).uri
        target.store.delete(uri)
        with raises(NotFound, doing="a second delete") as caught:
            target.store.delete(uri)
        expect(
            caught.error.store == target.store_id and caught.error.operation == "delete",
            f"expected the error to tell store {target.store_id} and operation delete, got "
            f"{caught.error.store} and {caught.error.operation}",
        )
        with target.open() as others, raises(NotFound, doing="a delete by fresh stores"):
            others[target.store_id].delete(uri)
        with raises(NotFound, doing="a stat after delete"):
            target.store.stat(uri)
        with raises(NotFound, doing="a get after delete"), target.store.get(uri):
            pass
        target.expect_not_added(object_id, "an object that was deleted")


@check(needs="delete add")
def check_delete_of_what_never_was_is_not_found(target: Target) -> None:
    """Check 23: deleting, reading or asking for what was never added is NotFound."""
    uri = target.profile.uri_of(target.new_id())
    if uri is None:  # ids do not show in this store's URIs
        uri = target.add(Content(1)).uri
        target.store.delete(uri)
    with raises(NotFound, doing="a delete of what never was"):
        target.store.delete(uri)
    with raises(NotFound, doing="a stat of what never was"):
        target.store.stat(uri)
    with raises(NotFound, doing="a get of what never was"), target.store.get(uri):
        pass


@check(needs="delete add")
def check_delete_under_a_reader(target: Target) -> None:
    """Check 23: a reader of a deleted object gets the right bytes to the end, or a clear error."""
    for size in (target.chunk_size, target.profile.long_size):
        content = Content(size, seed=2)
        object_id = target.new_id()
        uri = target.add(content, object_id).uri
        with target.store.get(uri) as reader:
            begun = reader.read(1)
            deleted = True
            try:
                target.store.delete(uri)
            except InUseByStore:
                deleted = False
            with contextlib.suppress(StoreError):
                rest = reader.read()
                expect_bytes(begun + rest, content.whole(), "what a reader gets over a delete")
        if not deleted:
            target.store.delete(uri)
        target.expect_not_added(object_id, "an object deleted under its reader")


@check(needs="delete add")
def check_delete_under_an_add(target: Target) -> None:
    """Check 23: a delete during an add finds nothing, and the add is not harmed."""
    size = target.profile.long_size
    content = Content(size, seed=3)
    object_id = target.new_id()
    with InFlight(target.store, object_id, content, at=size // 2) as add:
        uri = target.profile.uri_of(object_id)
        if uri is not None:
            for _ in range(2):
                with raises(NotFound, doing="a delete during an add"):
                    target.store.delete(uri)
                with target.open() as others, raises(NotFound, doing="a delete by fresh stores"):
                    others[target.store_id].delete(uri)
        result = add.finish()
    target.watch_uri(result.uri)
    target.expect_holds(result.uri, content, "an object whose add met a delete")


@check(needs="delete add")
def check_get_racing_delete(target: Target) -> None:
    """Check 23: a get during a delete finds the whole object or none, never a piece of it."""
    content = Content(target.chunk_size + 7, seed=4)
    for _ in range(4 if target.settings.short else 12):
        uri = target.add(content).uri
        begin = threading.Barrier(3)
        wrong: list[str] = []

        def read(uri: str, begin: threading.Barrier, wrong: list[str]) -> None:
            begin.wait()
            try:
                with target.store.get(uri) as reader:
                    data = reader.read()
            except StoreError:
                return
            except BaseException as error:
                wrong.append(f"{type(error).__name__}: {error}")
                return
            if data != content.whole():
                wrong.append(f"{len(data)} bytes, not the {content.size} of the object")

        readers = [
            threading.Thread(target=read, args=(uri, begin, wrong), daemon=True) for _ in range(2)
        ]
        for each in readers:
            each.start()
        begin.wait()
        while True:
            try:
                target.store.delete(uri)
            except InUseByStore:
                continue
            break
        for each in readers:
            each.join()
        expect(not wrong, f"a get during a delete: expected all or a StoreError, got {wrong}")
