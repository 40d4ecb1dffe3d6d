"""Object ids: kept exactly as they are, or refused before anything happens."""

import unicodedata
from typing import Any

from store_lib import CreateOnly
from store_lib.exceptions import Duplicate, InvalidObjectId
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_equal, raises
from store_lib.testing.sources import FileLike, PausedAdd
from store_lib.testing.target import Target

#: Number of ids at the beginning that a backend may confuse with each other.
_SIMILAR = 7


def _ids(base: str) -> list[str]:
    """Return ids that some backends and file systems change."""
    composed = unicodedata.normalize("NFC", f"{base}-\u00e9\u1e69\uac00")
    return [
        base,
        f"{base}b",
        f"{base}.b",
        composed,
        unicodedata.normalize("NFD", composed),
        f"{base}-case",
        f"{base}-CASE",
        base.ljust(255, "x"),
        base.ljust(256, "x"),
        base.ljust(10_000, "x"),
        f"{base}-" + "\u4e2d" * 72,  # 253 bytes
        f"{base}-" + "\u4e2d" * 100,
        f"{base} ",
        f" {base}",
        f"{base}.",
        f".{base}",
        f"-{base}",
        f"~{base}",
        f"{base}%2F",
        f"%2F{base}",
        f"{base}/",
        f"{base}%2Fb",
        f"{base}/b",
        f"/{base}",
        f"//{base}",
        f"../{base}",
        f"..%2F{base}",
        f"{base}/../../b",
        f"{base}/.",
        f"{base}\\b",
        f"{base}?a=b",
        f"{base}#part",
        f"{base}@host:80",
        f"{base}:b",
        f"{base}*",
        f"{base}+b c",
        f"{base}%",
        f"{base}%zz",
        f"{base}%00",
        f"{base}\0",
        f"{base}\0b",
        f"{base}\n",
        f"{base}\r\nX-Header: b",
        f"{base}\t\x01\x1b[31m\x7f",
        f"{base}\u202e\u200b",
        f"{base}\U0001f4be",
        f"{base}\udc80",
        f"{base}'\"`$(b)<b>&b;",
        "",
        ".",
        "..",
        "/",
        "\0",
    ]


@check(needs="add")
def check_ids_come_back_exactly_or_are_refused_at_once(target: Target) -> None:
    """Check 10: an id is kept exactly or refused before a byte is read, and no two collide."""
    kept: dict[str, tuple[str, Content]] = {}
    ids = _ids(target.new_id())
    ids = ids[:_SIMILAR] + list(target.subset(ids[_SIMILAR:], 10))
    for number, object_id in enumerate(ids):
        what = f"an add of id {_show(object_id)}"
        content = Content(100 + number, seed=number)
        source = FileLike(content)
        target.track_id(object_id)
        try:
            result = target.add(source, object_id, size=content.size)
        except InvalidObjectId as error:
            expect_equal(source.reads, 0, f"{what}, which was refused: reads of its source")
            expect(str(error).isprintable(), f"{what}: expected a printable message, got {error!r}")
            _expect_nothing_listed(target, object_id, what)
            continue
        result.uri.encode("utf-8")  # a database can store it
        kept[object_id] = result.uri, content
    expect(
        len({uri for uri, _ in kept.values()}) == len(kept),
        f"expected {len(kept)} different URIs for as many ids, got "
        f"{sorted(uri for uri, _ in kept.values())}",
    )
    if "list" in target.capabilities:
        target.eventually_none(
            lambda: _unlisted(target, kept), "ids missing in the listing, or with another URI"
        )
    for object_id, (uri, content) in kept.items():
        target.expect_content(uri, content, f"the object of id {_show(object_id)}")
        if target.create_only is not CreateOnly.NEW_LOCATION:
            with raises(Duplicate, doing=f"a second add of id {_show(object_id)}"):
                target.add(Content(3), object_id)
    if "delete" in target.capabilities:
        _expect_deletes_are_independent(target, kept)


def _unlisted(target: Target, kept: dict[str, tuple[str, Content]]) -> list[str]:
    listing = target.listing()
    return [_show(name) for name, (uri, _) in kept.items() if uri not in listing.get(name, ())]


def _expect_nothing_listed(target: Target, object_id: str, what: str) -> None:
    expect_equal(target.listed(object_id), [], f"{what}, which was refused: listed objects")
    expect_equal(target.uploads_of(object_id), [], f"{what}, which was refused: incomplete uploads")


def _expect_deletes_are_independent(target: Target, kept: dict[str, tuple[str, Content]]) -> None:
    """Delete one object after the other; each must leave the remaining ones unchanged."""
    remaining = dict(kept)
    for object_id, (uri, _) in kept.items():
        target.store.delete(uri)
        del remaining[object_id]
        for other, (other_uri, content) in list(remaining.items())[:3]:
            size = target.store.stat(other_uri).size
            expect(
                size == content.size,
                f"id {_show(other)} after id {_show(object_id)} was deleted: expected "
                f"{content.size} bytes, got {size}",
            )


def _show(object_id: str) -> str:
    text = ascii(object_id)
    return text if len(text) < 60 else f"{text[:57]}... ({len(object_id)} characters)"


@check(needs="add")
def check_non_string_ids_are_refused(target: Target) -> None:
    """Check 10: an id that is not a string raises InvalidObjectId before a byte is read."""
    for object_id in (None, 5, b"abc", ["a"]):
        source = FileLike(Content(10))
        wrong: Any = object_id
        with raises(InvalidObjectId, doing=f"an add of id {object_id!r}"):
            target.store.add(wrong, source, 10)
        expect_equal(source.reads, 0, f"an add of id {object_id!r}: reads of its source")


@check(needs="add list_incomplete")
def check_ids_like_the_stores_own_names_do_no_harm(target: Target) -> None:
    """Check 10: an id like the name of an upload in progress is refused or makes another object."""
    size = target.profile.long_size
    content = Content(size, seed=3)
    object_id = target.new_id()
    with PausedAdd(target.store, object_id, content, at=size // 2) as add:
        target.eventually(
            lambda: any(
                upload.object_id in (object_id, None) for upload in target.incomplete_uploads()
            ),
            "an add in progress among the incomplete uploads",
        )
        for key in {upload.key for upload in target.incomplete_uploads()}:
            for name in {key, key.rstrip("/").rpartition("/")[2]}:
                other = Content(50, seed=4)
                source = FileLike(other)
                target.track_id(name)
                try:
                    uri = target.add(source, name, size=50).uri
                except InvalidObjectId:
                    expect_equal(
                        source.reads, 0, f"an add of id {name!r}, refused: reads of its source"
                    )
                    continue
                target.expect_content(uri, other, f"the object of id {name!r}")
        result = add.finish()
    target.track_uri(result.uri)
    target.expect_content(result.uri, content, "the add that was in progress meanwhile")
