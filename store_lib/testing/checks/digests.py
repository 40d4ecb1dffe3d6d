"""Digests: adds return the right ones and refuse wrong ones before publishing."""

from typing import Any

from store_lib.exceptions import DigestMismatch, UnknownHashingAlgo
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_bytes, expect_equal, raises
from store_lib.testing.sources import FileLike
from store_lib.testing.target import Target

_ALGORITHMS = ("md5", "sha1", "sha256", "sha512", "blake2b", "blake2s", "sha3_256")


@check(needs="add")
def check_digests_are_of_the_stored_bytes(target: Target) -> None:
    """Check 9: the digests of every algorithm, alone or together, match the stored bytes."""
    for size in (0, 100, target.profile.long_size):
        content = Content(size, seed=size % 97)
        right = {name: content.digest(name) for name in _ALGORITHMS}
        cases: tuple[tuple[str, ...], ...] = (_ALGORITHMS, (), ("md5", "sha512"), ("sha256",))
        for names in target.subset(cases, 2):
            result = target.add(content, digests=names)
            expect_equal(
                dict(result.digests), {name: right[name] for name in names}, f"digests {names}"
            )
            with target.store.get(result.uri, expected=right) as reader:
                expect_bytes(reader.read(), content.whole(), "a get verified by every digest")
        result = target.add(content, digests=("md5",), expected={"sha256": right["sha256"]})
        expect_equal(
            dict(result.digests),
            {name: right[name] for name in ("md5", "sha256")},
            "requested and expected digests",
        )


@check(needs="add")
def check_a_wrong_expected_digest_stores_nothing(target: Target) -> None:
    """Check 9: a wrong expected digest raises DigestMismatch, and nothing is stored."""
    for size in (0, 100, target.profile.long_size):
        content = Content(size, seed=4)
        other = Content(size + 1, seed=4)
        for declared in (size, None):
            wrong = (
                {"sha512": other.digest("sha512")},
                {"sha256": content.digest("sha256"), "md5": other.digest("md5")},
                {"sha512": "0" * 128},
            )
            for expected in wrong[1:2] if target.settings.short else wrong:
                object_id = target.new_id()
                what = f"an add of {size} bytes with a wrong expected digest"
                with raises(DigestMismatch, doing=what):
                    target.add(content, object_id, size=declared, expected=expected)
                target.expect_absent(object_id, what)
        target.expect_not_added(object_id, what)


@check(needs="add")
def check_an_unknown_algorithm_reads_nothing(target: Target) -> None:
    """Check 9: an unknown algorithm is refused before a byte is read."""
    options: list[dict[str, Any]] = [
        {"digests": ("sha512", "no-such-digest")},
        {"digests": ("",)},
        {"expected": {"no-such-digest": "00"}},
    ]
    for option in options:
        object_id = target.new_id()
        source = FileLike(Content(100))
        with raises(UnknownHashingAlgo, doing=f"an add with {option}"):
            target.add(source, object_id, **option)
        expect_equal(source.reads, 0, f"an add with {option}: reads of its source")
        target.expect_not_added(object_id, f"an add with {option}")


@check()
def check_get_verifies_expected_digests(target: Target) -> None:
    """Check 9: a get with the right digests succeeds; with a wrong one it raises at the end."""
    uri, content = target.sample()
    right = {"sha256": content.digest("sha256"), "md5": content.digest("md5")}
    wrong = {"sha256": "0" * 64}
    with target.store.get(uri, expected=right) as reader:
        target.expect_reads(reader, content, "iteration with the right digests")
    with target.store.get(uri, expected=right) as reader:
        expect(
            not hasattr(reader, "fileno"),
            "expected no fileno(), which would bypass the verification",
        )
        expect_bytes(reader.read(), content.whole(), "read() with the right digests")
    with (
        raises(DigestMismatch, doing="iteration with a wrong digest"),
        target.store.get(uri, expected=wrong) as reader,
    ):
        for _ in reader:
            pass
    with (
        raises(DigestMismatch, doing="read(n) with a wrong digest"),
        target.store.get(uri, expected=wrong) as reader,
    ):
        while reader.read(50_021):
            pass
    with (
        raises(DigestMismatch, doing="read() with a wrong digest"),
        target.store.get(uri, expected=wrong) as reader,
    ):
        reader.read()
    with (
        raises(UnknownHashingAlgo, doing="a get with an unknown digest"),
        target.store.get(uri, expected={"no-such-digest": "00"}),
    ):
        pass


class _Verifier:
    """A signature verifier as services pass it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.data = bytearray()
        self.calls = 0
        self._error = error

    def update(self, data: bytes) -> None:
        self.data += data

    def verify(self) -> None:
        self.calls += 1
        if self._error is not None:
            raise self._error


@check(needs="add")
def check_a_verifiers_refusal_stores_nothing(target: Target) -> None:
    """Check 9: a verifier gets all bytes in order; if it raises, nothing is stored."""
    for size in target.subset((0, 100, 2 * target.chunk_size + 1), 2):
        content = Content(size, seed=6)
        verifier = _Verifier()
        target.add(content, verifier=verifier)
        expect_bytes(bytes(verifier.data), content.whole(), "the data passed to the verifier")
        expect_equal(verifier.calls, 1, "calls of verify()")
        error = LookupError("the signature is wrong")
        object_id = target.new_id()
        with raises(LookupError, doing="an add whose verifier raises") as caught:
            target.add(content, object_id, verifier=_Verifier(error))
        expect(caught.error is error, f"expected the same error object, got {caught.error!r}")
        target.expect_not_added(object_id, "an add whose verifier raised")
