"""Deletion: final, reported truthfully, and safe with concurrent readers and adds."""

import contextlib
import threading

from store_lib.exceptions import InUseByStore, NotFound, StoreError
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_bytes, raises
from store_lib.testing.sources import PausedAdd
from store_lib.testing.target import Target


@check(needs="delete add")
def check_delete_is_final(target: Target) -> None:
    """Check 23: a deleted object is NotFound for everyone, and its id can be added again."""
    for size in (0, 100, target.profile.long_size):
        content = Content(size, seed=1)
        object_id = target.new_id()
        uri = target.add(content, object_id).uri
        target.store.delete(uri)
        with raises(NotFound, doing="a second delete") as caught:
            target.store.delete(uri)
        expect(
            caught.error.store == target.store_id and caught.error.operation == "delete",
            f"expected an error with store {target.store_id} and operation delete, got "
            f"{caught.error.store} and {caught.error.operation}",
        )
        with target.open() as others, raises(NotFound, doing="a delete by another Stores object"):
            others[target.store_id].delete(uri)
        with raises(NotFound, doing="a stat after delete"):
            target.store.stat(uri)
        with raises(NotFound, doing="a get after delete"), target.store.get(uri):
            pass
        target.expect_not_added(object_id, "an object that was deleted")


@check(needs="delete add")
def check_delete_of_an_absent_object_is_not_found(target: Target) -> None:
    """Check 23: delete, stat and get of an object that never existed raise NotFound."""
    uri = target.profile.uri_of(target.new_id())
    if uri is None:  # the URIs of this store do not contain the id
        uri = target.add(Content(1)).uri
        target.store.delete(uri)
    with raises(NotFound, doing="a delete of an object that never existed"):
        target.store.delete(uri)
    with raises(NotFound, doing="a stat of an object that never existed"):
        target.store.stat(uri)
    with raises(NotFound, doing="a get of an object that never existed"), target.store.get(uri):
        pass


@check(needs="delete add")
def check_delete_under_a_reader(target: Target) -> None:
    """Check 23: a reader of a deleted object gets all its bytes or an error."""
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
                expect_bytes(begun + rest, content.whole(), "a reader whose object was deleted")
        if not deleted:
            target.store.delete(uri)
        target.expect_not_added(object_id, "an object deleted while it was read")


@check(needs="delete add")
def check_delete_under_an_add(target: Target) -> None:
    """Check 23: a delete during an add raises NotFound, and the add succeeds."""
    size = target.profile.long_size
    content = Content(size, seed=3)
    object_id = target.new_id()
    with PausedAdd(target.store, object_id, content, at=size // 2) as add:
        uri = target.profile.uri_of(object_id)
        if uri is not None:
            for _ in range(2):
                with raises(NotFound, doing="a delete during an add"):
                    target.store.delete(uri)
                with (
                    target.open() as others,
                    raises(NotFound, doing="a delete by another Stores object"),
                ):
                    others[target.store_id].delete(uri)
        result = add.finish()
    target.track_uri(result.uri)
    target.expect_content(result.uri, content, "an object that was deleted during its add")


@check(needs="delete add")
def check_get_racing_delete(target: Target) -> None:
    """Check 23: a get during a delete returns the whole object or raises, never a part of it."""
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
                wrong.append(f"{len(data)} bytes that differ from the {content.size} of the object")

        readers = [
            threading.Thread(target=read, args=(uri, begin, wrong), daemon=True) for _ in range(2)
        ]
        for thread in readers:
            thread.start()
        begin.wait()
        while True:
            try:
                target.store.delete(uri)
            except InUseByStore:
                continue
            break
        for thread in readers:
            thread.join()
        expect(not wrong, f"a get during a delete: expected all bytes or a StoreError, got {wrong}")
