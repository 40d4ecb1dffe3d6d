"""What is added comes back byte for byte: every size, every shape of source, zeros too."""

import os
from collections.abc import Iterator

from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_bytes, expect_equal
from store_lib.testing.sources import SHAPES
from store_lib.testing.target import Target

#: Bytes that one check moves when it tries every shape with every size.
_PLENTY = 160 * 1024 * 1024


def _sizes(target: Target) -> list[int]:
    """Return sizes around every boundary: of a chunk, of a part, of the largest single request."""
    chunk = target.chunk_size
    sizes = {0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk - 1, 2 * chunk, 2 * chunk + 1}
    sizes |= {3 * chunk + 7}
    for step in target.profile.steps:
        sizes |= {step - 1, step, step + 1, 2 * step + 1}
    return sorted(size for size in sizes if size >= 0)


def _cases(target: Target) -> Iterator[tuple[str, Content]]:
    """Yield a shape's name and a content: all shapes at all sizes, or in turn when that is much."""
    sizes = _sizes(target)
    names = list(SHAPES)
    if target.settings.short:
        for number, size in enumerate(sizes):
            yield names[number % len(names)], Content(size, seed=number)
        return
    everything = sum(sizes) * len(names) <= _PLENTY and target.affords(len(sizes) * len(names))
    for number, size in enumerate(sizes):
        tried = names if everything else [names[(2 * number + k) % len(names)] for k in range(2)]
        for name in tried:
            yield name, Content(size, seed=number)


def _round_trip(target: Target, name: str, content: Content, size: int | None) -> None:
    what = f"{content.size} bytes from a {name}, declared as {size}"
    object_id = target.new_id()
    source = SHAPES[name](content, target.directory)
    result = target.add(source, object_id, size=size)
    expect_equal(result.size, content.size, f"{what}: size in the result")
    expect_equal(result.store, target.store_id, f"{what}: store in the result")
    expect_equal(
        dict(result.digests), {"sha512": content.digest("sha512")}, f"{what}: digests in the result"
    )
    expect_equal(result.report.bytes, content.size, f"{what}: bytes in the report")
    expect(isinstance(result.uri, str) and "://" in result.uri, f"{what}: got URI {result.uri!r}")
    target.expect_holds(result.uri, content, what)
    if "delete" in target.capabilities:
        target.store.delete(result.uri)


@check(needs="add")
def check_every_declared_size_comes_back(target: Target) -> None:
    """Check 6: objects of every size around the boundaries come back whole, size declared."""
    for name, content in _cases(target):
        _round_trip(target, name, content, content.size)


@check(needs="add")
def check_every_unknown_size_comes_back(target: Target) -> None:
    """Check 7: objects of every size around the boundaries come back whole, size unknown."""
    for name, content in _cases(target):
        _round_trip(target, name, content, None)


@check(needs="add")
def check_zeros_come_back(target: Target) -> None:
    """Check 6: zeros at the start, within and at the end come back, thin store or not."""
    chunk = target.chunk_size
    contents = {
        "nothing but zeros": Content(3 * chunk + 7, blank=True),
        "a few zeros": Content(5, blank=True),
        "whole zero chunks between others": Content(5 * chunk, seed=1, zeros=chunk),
        "zeros to the end": Content(2 * chunk, seed=2, zeros=chunk),
        "zeros that fit no chunk": Content(3 * chunk + 1, seed=3, zeros=max(1, chunk // 3 + 1)),
    }
    for number, (name, content) in enumerate(contents.items()):
        sizes = (content.size, None)
        for size in (sizes[number % 2],) if target.settings.short else sizes:
            result = target.add(content.pieces(70_001), size=size)
            expect_equal(result.digests["sha512"], content.digest("sha512"), f"{name}: digest")
            target.expect_holds(result.uri, content, name)


@check()
def check_readers_read_in_every_way(target: Target) -> None:
    """Check 6: ``read``, ``read(n)``, ``readinto`` and iteration give the same bytes."""
    uri, content = target.sample()
    whole = content.whole()
    with target.store.get(uri) as reader:
        expect_bytes(reader.read(), whole, "read()")
        expect_equal(reader.read(), b"", "read() at the end")
        expect_equal(reader.read(5), b"", "read(5) at the end")
        expect_equal(list(reader), [], "iteration at the end")
    with target.store.get(uri) as reader:
        pieces = []
        for number in range(10_000_000):
            pieces.append(reader.read((1, 4097, 70_001, 1_000_003)[number % 4]))
            if not pieces[-1]:
                break
        expect_bytes(b"".join(pieces), whole, "read(n) of odd sizes")
    with target.store.get(uri) as reader:
        buffer = bytearray(65_521)
        found = bytearray()
        while count := reader.readinto(buffer):
            found += buffer[:count]
        expect_bytes(bytes(found), whole, "readinto")
    with target.store.get(uri) as reader:
        if hasattr(reader, "fileno"):
            found_there = os.pread(reader.fileno(), len(whole) + 1, 0)
            expect_bytes(found_there, whole, "what the reader's descriptor gives")
    with target.store.get(uri) as reader:
        begun = reader.read(11)
        mixed = begun + next(iter(reader), b"") + reader.read(3)
        expect_bytes(mixed + b"".join(reader), whole, "read, iteration and read mixed")
        expect_equal(reader.read(0), b"", "read(0)")


@check()
def check_a_readers_closing_is_idempotent(target: Target) -> None:
    """Check 5: a reader can be closed at any moment, and again."""
    uri, _ = target.sample()
    reader = target.store.get(uri)
    reader.close()
    reader.close()
    with target.store.get(uri) as reader:
        reader.read(1)
        reader.close()
    with target.store.get(uri) as reader:
        reader.read()
    reader.close()
