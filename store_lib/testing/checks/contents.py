"""Contents: objects of every size, from every kind of source, come back byte for byte."""

import os
from collections.abc import Iterator

from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_bytes, expect_equal
from store_lib.testing.sources import SOURCE_KINDS
from store_lib.testing.target import Target

#: Upper limit in bytes for a check that combines every kind of source with every size.
_MAX_TOTAL = 160 * 1024 * 1024


def _sizes(target: Target) -> list[int]:
    """Return sizes around every threshold: chunks, parts, the largest single request."""
    chunk = target.chunk_size
    sizes = {0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk - 1, 2 * chunk, 2 * chunk + 1}
    sizes |= {3 * chunk + 7}
    for threshold in target.profile.thresholds:
        sizes |= {threshold - 1, threshold, threshold + 1, 2 * threshold + 1}
    return sorted(size for size in sizes if size >= 0)


def _cases(target: Target) -> Iterator[tuple[str, Content]]:
    """Yield kinds of sources with contents: all combinations, or in turn if these are too many."""
    sizes = _sizes(target)
    names = list(SOURCE_KINDS)
    if target.settings.short:
        for number, size in enumerate(sizes):
            yield names[number % len(names)], Content(size, seed=number)
        return
    everything = sum(sizes) * len(names) <= _MAX_TOTAL and target.has_time_for(
        len(sizes) * len(names)
    )
    for number, size in enumerate(sizes):
        tried = names if everything else [names[(2 * number + k) % len(names)] for k in range(2)]
        for name in tried:
            yield name, Content(size, seed=number)


def _round_trip(target: Target, name: str, content: Content, size: int | None) -> None:
    what = f"{content.size} bytes from a {name}, declared as {size}"
    object_id = target.new_id()
    source = SOURCE_KINDS[name](content, target.directory)
    result = target.add(source, object_id, size=size)
    expect_equal(result.size, content.size, f"{what}: size in the result")
    expect_equal(result.store, target.store_id, f"{what}: store in the result")
    expect_equal(
        dict(result.digests), {"sha512": content.digest("sha512")}, f"{what}: digests in the result"
    )
    expect_equal(result.report.bytes, content.size, f"{what}: bytes in the report")
    expect(isinstance(result.uri, str) and "://" in result.uri, f"{what}: got URI {result.uri!r}")
    target.expect_content(result.uri, content, what)
    if "delete" in target.capabilities:
        target.store.delete(result.uri)


@check(needs="add")
def check_every_declared_size_comes_back(target: Target) -> None:
    """Check 6: objects of every size around the thresholds come back, with the size declared."""
    for name, content in _cases(target):
        _round_trip(target, name, content, content.size)


@check(needs="add")
def check_every_unknown_size_comes_back(target: Target) -> None:
    """Check 7: objects of every size around the thresholds come back, with the size unknown."""
    for name, content in _cases(target):
        _round_trip(target, name, content, None)


@check(needs="add")
def check_zeros_come_back(target: Target) -> None:
    """Check 6: zeros at the start, in the middle and at the end of an object come back."""
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
            result = target.add(content.chunks(70_001), size=size)
            expect_equal(result.digests["sha512"], content.digest("sha512"), f"{name}: digest")
            target.expect_content(result.uri, content, name)


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
        chunks = []
        for number in range(10_000_000):
            chunks.append(reader.read((1, 4097, 70_001, 1_000_003)[number % 4]))
            if not chunks[-1]:
                break
        expect_bytes(b"".join(chunks), whole, "read(n) of odd sizes")
    with target.store.get(uri) as reader:
        buffer = bytearray(65_521)
        data = bytearray()
        while count := reader.readinto(buffer):
            data += buffer[:count]
        expect_bytes(bytes(data), whole, "readinto")
    with target.store.get(uri) as reader:
        if hasattr(reader, "fileno"):
            from_file = os.pread(reader.fileno(), len(whole) + 1, 0)
            expect_bytes(from_file, whole, "the descriptor of the reader")
    with target.store.get(uri) as reader:
        begun = reader.read(11)
        mixed = begun + next(iter(reader), b"") + reader.read(3)
        expect_bytes(mixed + b"".join(reader), whole, "read, iteration and read mixed")
        expect_equal(reader.read(0), b"", "read(0)")


@check()
def check_closing_a_reader_is_idempotent(target: Target) -> None:
    """Check 5: a reader can be closed at any time, and more than once."""
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
