"""S3 answers that are cut, or are not what they should be: none is believed."""

import contextlib
import io
import re
from collections.abc import Callable

import pytest

from store_lib import Store
from store_lib.driver import Incomplete
from store_lib.drivers.s3 import connections
from store_lib.drivers.s3.writer import S3Writer
from store_lib.exceptions import (
    BackendException,
    Invalid,
    RemoteServiceUnavailable,
    StoreError,
)
from tests.s3_faults import xml_answer
from tests.scripted_server import Reply, Request
from tests.unit.drivers.s3.conftest import CHUNK, MakeStore
from tests.unit.drivers.s3.server import S3Server, Started

DATA = bytes(range(256)) * 4


def _spoil(s3: S3Server, asked: Callable[[Request], bool], spoil: Callable[[str], str]) -> None:
    """Change the body of each good answer to some requests."""

    def answer(request: Request) -> Reply | None:
        if not asked(request):
            return None
        reply = s3.answer(request)
        reply.body = spoil(reply.body.decode()).encode()
        return reply

    s3.before = [answer]


def _is_listing(request: Request) -> bool:
    return request.method == "GET" and "list-type" in request.target and "prefix" in request.target


def _is_objects(request: Request) -> bool:
    return request.method == "GET" and "list-type" in request.target


def _is_uploads(request: Request) -> bool:
    return request.method == "GET" and "?uploads" in request.target


def _is_parts(request: Request) -> bool:
    return request.method == "GET" and "uploadId=" in request.target


@pytest.fixture
def once(make_store: MakeStore) -> Store:
    """A store that repeats nothing."""
    return make_store(transfer_retry_seconds=0)


def _uri(store: Store, key: str = "id") -> str:
    return f"{store.driver.url_prefix}/{key}"  # type: ignore[union-attr]


def _make_of_parts(store: Store) -> object:
    return store.add("new", io.BytesIO(bytes(11 * CHUNK)))


def _copy(store: Store) -> object:
    return store.copy(_uri(store), "new")


CUT: dict[str, tuple[Callable[[Store], object], Callable[[Request], bool]]] = {
    "objects": (lambda store: list(store.list()), _is_objects),
    "uploads": (lambda store: list(store.list_incomplete()), _is_uploads),
    "parts": (lambda store: list(store.list_incomplete()), _is_parts),
    "claims": (lambda store: list(store.list_incomplete()), _is_listing),
    "begin": (_make_of_parts, lambda each: each.method == "POST" and "?uploads" in each.target),
    "complete": (_make_of_parts, lambda each: each.method == "POST" and "uploadId=" in each.target),
    "copy": (_copy, lambda each: "x-amz-copy-source" in each.headers),
}


@pytest.mark.parametrize("what", CUT)
def test_a_body_that_ends_with_the_connection_is_not_believed_when_cut(
    once: Store, s3: S3Server, what: str
) -> None:
    """At whichever byte: either the whole came, or it is an error that may go away."""
    call, asked = CUT[what]
    for length in (0, 1, 30, *range(-40, 0), None):
        _fill(s3)

        def cut(request: Request, length: int | None = length) -> Reply | None:
            if not asked(request):
                return None
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n"
            return Reply(raw=head + s3.answer(request).body[:length], then="fin")

        s3.before = [cut]
        found: object = None
        with contextlib.suppress(RemoteServiceUnavailable):
            found = call(once)
        if what == "complete" or (what == "copy" and length is not None):
            # What was made although the answer was lost is found by its nonce.
            assert (found is not None) == ("new" in s3.objects)
        else:
            assert (found is not None) == (length is None)
        assert found != []


def _fill(s3: S3Server) -> None:
    """Have the server hold an object, a claim and an upload with a part."""
    s3.before = []
    s3.objects.clear()
    s3.uploads.clear()
    s3.store("id", DATA)
    s3.store(".store_lib/claims/x", b"nonce 30\n")
    s3.uploads["upload"] = Started("left", {}, {1: DATA})


@pytest.mark.parametrize(
    ("asked", "pattern", "other", "told"),
    [
        (_is_objects, "<Key>.*?</Key>", "", "an object with Key"),
        (_is_objects, "<Key>.*?</Key>", "<Key></Key>", "not empty"),
        (_is_objects, "<Size>.*?<", "<Size>-1<", "a number of bytes"),
        (_is_objects, "<Size>.*?<", f"<Size>{2**63}<", "a number of bytes"),
        (_is_objects, "<Size>.*?<", f"<Size>{'9' * 5000}<", "boto3"),
        (_is_objects, "<Size>.*?<", "<Size>many<", "boto3"),
        (_is_objects, "<LastModified>.*?<", "<LastModified>once<", "boto3"),
        (_is_objects, "<IsTruncated>.*?</IsTruncated>", "", "IsTruncated"),
        (_is_objects, "<IsTruncated>.*?<", "<IsTruncated>true<", "where it continues"),
        (_is_uploads, "<UploadId>.*?</UploadId>", "", "an object with UploadId"),
        (_is_uploads, "<Initiated>.*?</Initiated>", "", "an object with Initiated"),
        (_is_uploads, "<IsTruncated>.*?</IsTruncated>", "", "IsTruncated"),
        (_is_parts, "<Size>.*?</Size>", "", "an object with Size"),
        (_is_parts, "<LastModified>.*?</LastModified>", "", "an object with LastModified"),
        (_is_parts, "<IsTruncated>.*?</IsTruncated>", "", "IsTruncated"),
    ],
)
def test_a_listing_that_lacks_something_is_an_error(
    once: Store,
    s3: S3Server,
    asked: Callable[[Request], bool],
    pattern: str,
    other: str,
    told: str,
) -> None:
    """What was expected is said, and of which server."""
    _fill(s3)
    _spoil(s3, asked, lambda body: re.sub(pattern, other, body))
    with pytest.raises(StoreError, match=told) as caught:
        list(once.list() if asked is _is_objects else once.list_incomplete())
    assert s3.server.url in str(caught.value)


@pytest.mark.parametrize("listing", ["list", "list_incomplete"])
@pytest.mark.parametrize("circle", [1, 3])
def test_a_listing_that_leads_back_ends(
    once: Store, s3: S3Server, listing: str, circle: int
) -> None:
    """Marks that were there before lead to no further requests."""
    pages = iter(range(1000))

    def more(_: Request) -> Reply:
        mark = f"m{next(pages) % circle}"
        return xml_answer(
            f"<X><IsTruncated>true</IsTruncated><NextContinuationToken>{mark}"
            f"</NextContinuationToken><NextKeyMarker>{mark}</NextKeyMarker></X>"
        )

    s3.before = [more]
    with pytest.raises(BackendException, match="leads back"):
        list(getattr(once, listing)())
    assert len(s3.server.requests) == circle + 1


@pytest.mark.parametrize(
    ("what", "pattern", "told"),
    [
        ("begin", "<UploadId>.*?</UploadId>", "UploadId"),
        ("begin", "upload-[0-9]+", "UploadId"),
        ("complete", "<ETag>.*?</ETag>", "ETag"),
        ("copy", "<CopyObjectResult>.*", "CopyObjectResult"),
    ],
)
def test_what_an_answer_must_have_is_needed(
    once: Store, s3: S3Server, what: str, pattern: str, told: str
) -> None:
    """An upload has an id; what was published has an ETag."""
    call, asked = CUT[what]
    _fill(s3)

    # The object itself is not made, else it would be found by its nonce.
    def spoil(body: str) -> str:
        s3.objects.pop("new", None)
        return re.sub(pattern, "", body)

    _spoil(s3, asked, spoil)
    with pytest.raises(StoreError, match=told):
        call(once)
    assert "new" not in s3.objects


@pytest.mark.parametrize("body", ["", "<CopyPartResult></CopyPartResult>", "<ETag>x</ETag>"])
def test_a_part_that_was_copied_has_an_etag(
    once: Store, s3: S3Server, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one the upload could not be completed; it is aborted."""
    monkeypatch.setattr(S3Writer, "copy_limit", 100)
    monkeypatch.setattr(S3Writer, "copy_part", CHUNK)
    s3.store("id", DATA)
    _spoil(s3, lambda each: "partNumber" in each.target, lambda _: body)
    with pytest.raises(StoreError, match=r"CopyPartResult|ETag"):
        _copy(once)
    assert not s3.uploads


def test_an_endless_answer_is_cut_off(
    once: Store, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that would be read into memory has a longest length; an object has none."""
    monkeypatch.setattr(connections, "_LONGEST", 2000)
    s3.store("id", DATA * 100)
    with once.get(_uri(once)) as reader:
        assert reader.read() == DATA * 100
    with once.get(_uri(once), 7, 5000) as reader:
        assert len(reader.read()) == 5000
    for status in (200, 403):
        s3.before = [lambda _, status=status: xml_answer(f"<X>{'x' * 3000}</X>", status)]
        with pytest.raises(BackendException, match="at most 2000 bytes"):
            list(once.list())
    with pytest.raises(BackendException, match="at most 2000 bytes"):
        once.get(_uri(once))


def test_keys_that_are_no_objects_are_left_alone(once: Store, s3: S3Server) -> None:
    """Dots alone would be taken for a path's, and an upload without a name for the object."""
    for key in (".", "..", "id"):
        s3.store(key, DATA)
        s3.uploads[f"upload of {key}"] = Started(key, {}, {1: DATA})
    s3.store(".store_lib/claims/../../id", b"nonce 0\n")
    assert [each.object_id for each in once.list()] == ["id"]
    assert [each.key for each in once.list_incomplete()] == ["id/upload of id"]
    s3.server.requests.clear()
    claims = ".store_lib/claims/"
    for key in ("id", "id/", "/x", "../x", "./x", claims, f"{claims}..", f"{claims}../../id"):
        with pytest.raises(Invalid, match="Take it from a listing"):
            once.driver.discard(Incomplete(key, "id", 1, 0.0), context=None)  # type: ignore[union-attr]
    assert not s3.server.requests


def test_an_empty_answer_about_versions_says_nothing(once: Store, s3: S3Server) -> None:
    """It may have been cut: a bucket that never had versions answers by an element all the same."""
    bucket = once.driver._bucket  # type: ignore[union-attr]
    assert bucket.versioning() == ""
    _spoil(s3, lambda each: "versioning" in each.target, lambda _: "")
    with pytest.raises(RemoteServiceUnavailable):
        bucket.versioning()
