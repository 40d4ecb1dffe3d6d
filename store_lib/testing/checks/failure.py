"""Adds that fail: errors propagate, nothing is stored, and existing objects do not change."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from typing import Any

from store_lib import CreateOnly
from store_lib.exceptions import (
    Duplicate,
    Invalid,
    NotFound,
    RemoteServiceUnavailable,
    SizeMismatch,
)
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_equal, raises
from store_lib.testing.sources import (
    SOURCE_KINDS,
    FileLike,
    endless_chunks,
    failing_chunks,
)
from store_lib.testing.target import Target


class _Uncatchable(BaseException):
    """An error that no ``except Exception`` catches."""


_ERRORS: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("the source broke"),
    lambda: OSError(errno.EIO, "the source's disk broke"),
    lambda: TimeoutError("the source's network broke"),
    lambda: KeyboardInterrupt(),
    lambda: SystemExit(3),
    lambda: _Uncatchable("stop"),
    lambda: NotFound("the source is another store's reader", store="elsewhere"),
    lambda: RemoteServiceUnavailable("the source is another store's reader, and may come back"),
    lambda: MemoryError(),
)


@check(needs="add")
def check_errors_of_a_source_propagate_unchanged(target: Target) -> None:
    """Check 2: an error that the source raises, at any byte, propagates as the same object."""
    chunk = target.chunk_size
    content = Content(target.profile.long_size, seed=8)
    places = (0, 1, chunk // 2, chunk, chunk + 1, 2 * chunk + chunk // 2, content.size)
    short = target.settings.short
    for number, at in enumerate(places):
        # All errors at one offset, and two errors at each of the others.
        errors = _ERRORS if at == chunk + 1 else (_ERRORS[0], _ERRORS[3 + number % 3])
        for make in errors[number % 2 :: 2] if short else errors:
            sizes = (content.size, None)
            for size in (sizes[number % 2],) if short else sizes:
                for file_like in (
                    (False, True) if not short and target.has_time_for(100) else (False,)
                ):
                    _fail(target, content, at, make(), size, file_like)
    object_id = target.new_id()
    with contextlib.suppress(ValueError):
        target.add(failing_chunks(content, chunk + 1, ValueError()), object_id, size=None)
    target.expect_not_added(object_id, "an add whose source raised")


def _fail(
    target: Target,
    content: Content,
    at: int,
    error: BaseException,
    size: int | None,
    file_like: bool,
) -> None:
    what = f"an add whose source raises {type(error).__name__} at byte {at}"
    object_id = target.new_id()
    text, state = str(error), dict(vars(error))
    reading = FileLike(content, at=at, error=error)
    source: Any = reading if file_like else failing_chunks(content, at, error)
    with raises(type(error), doing=what) as caught:
        target.add(source, object_id, size=size)
    expect(caught.error is error, f"{what}: expected the same error object, got {caught.error!r}")
    expect(
        str(error) == text and vars(error) == {**state, **_notes(error)},
        f"{what}: expected an unchanged error, got {error!r} with {vars(error)}",
    )
    expect(
        reading.raised <= 1, f"{what}: expected no read after the error, got {reading.raised - 1}"
    )
    target.expect_absent(object_id, what)


def _notes(error: BaseException) -> dict[str, Any]:
    """Return the notes of an error, which others may add to it."""
    return {"__notes__": error.__notes__} if hasattr(error, "__notes__") else {}


@check(needs="add")
def check_a_wrong_size_stores_nothing(target: Target) -> None:
    """Check 8: a source of another size than declared raises SizeMismatch; nothing is stored."""
    chunk, long = target.chunk_size, target.profile.long_size
    cases = [(0, 1), (1, 0), (1, 2), (100, 99), (chunk, chunk + 1), (chunk + 1, chunk)]
    cases += [(long, long + 1), (long, long - 1), (long, 2 * long), (long, chunk), (0, long)]
    kinds = ("file-like", "odd chunks", "path", "bytearray", "short-reading file-like")
    chosen = target.subset(cases, 6)
    for number, (real, declared) in enumerate(chosen):
        content = Content(real, seed=9)
        for name in target.rotate(kinds, number, len(chosen)):
            what = f"an add of {real} bytes from a {name}, declared as {declared}"
            object_id = target.new_id()
            with raises(SizeMismatch, doing=what):
                target.add(SOURCE_KINDS[name](content, target.directory), object_id, size=declared)
            target.expect_absent(object_id, what)
        target.expect_not_added(object_id, what)
    for declared in target.subset((0, 1, long), 2):
        object_id = target.new_id()
        what = f"an add of an endless source, declared as {declared} bytes"
        with raises(SizeMismatch, doing=what):
            target.add(endless_chunks(Content(chunk, seed=9)), object_id, size=declared)
        target.expect_not_added(object_id, what)


@check(needs="add")
def check_invalid_sources_are_refused(target: Target) -> None:
    """Check 8: a source of a wrong type, or that does not give bytes, is Invalid."""

    class Text:
        def read(self, amount: int = -1) -> Any:
            return "text"

    class Blocked:
        def read(self, amount: int = -1) -> Any:
            return None

    content = Content(100)
    cases: dict[str, Any] = {
        "a str": "/etc/hostname",
        "an int": 5,
        "None": None,
        "an iterable of str": iter(["abc"]),
        "an iterable of ints": [1, 2, 3],
        "a text file": Text(),
        "a non-blocking file": Blocked(),
        "a path of a missing file": target.directory / "missing",
    }
    for name, data in cases.items():
        object_id = target.new_id()
        with raises(Invalid, doing=f"an add of {name}"):
            target.add(data, object_id)
        target.expect_absent(object_id, f"an add of {name}")
    sizes: tuple[Any, ...] = (-1, "100", 1.5)
    for size in target.subset(sizes, 2):
        object_id = target.new_id()
        source = FileLike(content)
        with raises(Invalid, doing=f"an add with size {size!r}"):
            target.add(source, object_id, size=size)
        expect_equal(source.reads, 0, f"an add with size {size!r}: reads of its source")
        target.expect_not_added(object_id, f"an add with size {size!r}")


def _second_adds(target: Target) -> Iterator[tuple[Content, Content]]:
    """Yield the contents of an existing object and of the add that must not replace it."""
    long = target.profile.long_size
    pairs = ((long, long), (100, long), (long, 100), (0, 100), (100, 0))
    for first, second in target.subset(pairs, 3):
        yield Content(first, seed=10), Content(second, seed=11)


@check(needs="add")
def check_a_second_add_never_alters_the_first(target: Target) -> None:
    """Check 4: an add of an existing id raises Duplicate or makes a separate object."""
    for first, second in _second_adds(target):
        for size in (second.size, None):
            object_id = target.new_id()
            what = f"an add of {second.size} bytes over an existing object of {first.size}"
            uri = target.add(first, object_id).uri
            if target.create_only is CreateOnly.NEW_LOCATION:
                other = target.add(second, object_id, size=size).uri
                expect(other != uri, f"{what}: expected another URI, got the same")
                target.expect_content(other, second, what)
            else:
                with raises(Duplicate, doing=what):
                    target.add(second, object_id, size=size)
                with (
                    target.open() as others,
                    raises(Duplicate, doing=f"{what}, by another Stores object"),
                ):
                    others[target.store_id].add(object_id, second.chunks(), size)
            target.expect_content(uri, first, f"{what}: the first object")
            target.expect_no_upload(object_id, what)


@check(needs="add")
def check_a_failed_second_add_never_alters_the_first(target: Target) -> None:
    """Check 4: an add of an existing id that fails half-way does not change that object."""
    chunk = target.chunk_size
    for first, second in _second_adds(target):
        object_id = target.new_id()
        what = f"a failing add of {second.size} bytes over an existing object of {first.size}"
        uri = target.add(first, object_id).uri
        error = ValueError("the source broke")
        for size in (second.size, None):
            source = failing_chunks(second, min(second.size, chunk + 1), error)
            with raises(ValueError, Duplicate, doing=what):
                target.add(source, object_id, size=size)
        with raises(SizeMismatch, Duplicate, doing=f"{what} (wrong size)"):
            target.add(second.chunks(), object_id, size=second.size + 1)
        target.expect_content(uri, first, f"{what}: the first object")
        target.expect_no_upload(object_id, what)
