"""Ranges: the right bytes at every boundary, and errors for invalid ranges."""

from typing import Any

from store_lib.exceptions import Invalid, InvalidRange, StoreRandomGetNotSupported
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content, FileContent
from store_lib.testing.expect import expect, expect_bytes, expect_equal, raises
from store_lib.testing.target import Target


def _expect_range(
    target: Target, uri: str, content: Content | FileContent, offset: int, length: int | None
) -> None:
    what = f"range from {offset}, length {length}, of {content.size} bytes"
    expected = content.slice(offset, length)
    with target.store.get(uri, offset, length) as reader:
        expect(reader.size in (content.size, None), f"{what}: got size {reader.size}")
        expect(
            reader.length in (len(expected), None),
            f"{what}: expected length {len(expected)}, got {reader.length}",
        )
        if offset or length is not None:  # a descriptor gives access to the whole object
            expect(not hasattr(reader, "fileno"), f"{what}: expected no fileno()")
        expect_bytes(reader.read(), expected, what)
        expect_equal(reader.read(1), b"", f"{what}: read after the end")


@check(needs="ranges")
def check_ranges_give_the_right_bytes(target: Target) -> None:
    """Check 22: ranges at every boundary, and 50 random ones, return the right bytes."""
    uri, content = target.sample()
    size, chunk = content.size, min(target.chunk_size, max(1, content.size // 2))
    marks = sorted({0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, size - 1, size})
    marks = [mark for mark in marks if 0 <= mark <= size]
    for offset in marks:
        for length in {0, 1, chunk - 1, chunk, chunk + 1, size - offset, None}:
            _expect_range(target, uri, content, offset, length)
    for _ in range(10 if target.settings.short else 50):
        offset = target.random.randrange(size + 1)
        _expect_range(target, uri, content, offset, target.random.randrange(size - offset + 1))


@check(needs="ranges")
def check_ranges_past_the_end_are_clipped_or_refused(target: Target) -> None:
    """Check 22: a range is clipped at the object's end; beyond it, InvalidRange is raised."""
    uri, content = target.sample()
    size = content.size
    _expect_range(target, uri, content, size - 1, 10)
    _expect_range(target, uri, content, 0, size + 1)
    _expect_range(target, uri, content, size, 10)
    _expect_range(target, uri, content, size, None)
    for offset, length in ((size + 1, None), (size + 1, 0), (size + 1, 1), (2 * size + 9, 10)):
        with (
            raises(InvalidRange, doing=f"a get from {offset} of {size} bytes, length {length}"),
            target.store.get(uri, offset, length),
        ):
            pass


@check()
def check_invalid_ranges_are_refused(target: Target) -> None:
    """Check 22: ``get`` raises Invalid for a negative or non-integer range."""
    uri, _ = target.sample(100)
    wrong: list[tuple[Any, Any]] = [(-1, None), (0, -1), (-5, 5), ("1", None), (0, 1.5)]
    for offset, length in wrong:
        with (
            raises(Invalid, doing=f"a get from {offset!r}, length {length!r}"),
            target.store.get(uri, offset, length),
        ):
            pass


@check(needs="add ranges")
def check_ranges_of_tiny_objects(target: Target) -> None:
    """Check 22: ranges of an empty and of a one-byte object return the right bytes."""
    for size in (0, 1):
        content = Content(size)
        uri = target.add(content).uri
        for length in (0, 1, None):
            _expect_range(target, uri, content, 0, length)
            _expect_range(target, uri, content, size, length)
        with raises(InvalidRange, doing="a get beyond the end"), target.store.get(uri, size + 1):
            pass


@check(lacks="ranges")
def check_ranges_are_refused_where_not_claimed(target: Target) -> None:
    """Check 22: a store without ranges refuses them, and reads the whole object."""
    uri, content = target.sample()
    for offset, length in ((1, None), (0, 1), (5, 5)):
        with (
            raises(StoreRandomGetNotSupported, doing=f"a get from {offset}, length {length}"),
            target.store.get(uri, offset, length),
        ):
            pass
    target.expect_content(uri, content, "the whole object")
