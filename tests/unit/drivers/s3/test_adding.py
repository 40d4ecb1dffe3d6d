"""Adds to an S3 server in memory: what goes over the wire, and what is left when it fails."""

import base64
import contextlib
import io
import os
import pathlib
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from store_lib import Store
from store_lib.driver import PartWriter
from store_lib.drivers.s3.publishing import PREFIX, Claim
from store_lib.drivers.s3.writer import S3Writer
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    Forbidden,
    InvalidObjectId,
    ObjectChanged,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
)
from store_lib.transfer.bodies import MemoryBody
from tests.garbage import collected
from tests.relay import CuttingRelay
from tests.s3_faults import refusal, times
from tests.scripted_server import Reply, Request
from tests.unit.drivers.s3.conftest import CHUNK, MakeStore
from tests.unit.drivers.s3.server import S3Server, Started

#: Three parts of five, five and two chunks, and a bit.
LARGE = bytes(range(256)) * (12 * CHUNK // 256) + b"end"
_UNSIGNED = "UNSIGNED-PAYLOAD"
SLOW = lambda: refusal(503, "SlowDown")  # noqa: E731


def stream(data: bytes) -> list[bytes]:
    """Return a source that does not tell its length."""
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def assert_nothing_is_left(s3: S3Server, *kept: str) -> None:
    """Neither an object, nor a claim, nor an upload is in the bucket."""
    assert sorted(s3.objects) == sorted(kept)
    assert s3.uploads == {}


@pytest.mark.parametrize(
    ("size", "told", "parts"),
    [
        (0, True, 0),
        (0, False, 0),
        (100, True, 0),
        (100, False, 0),
        (5 * CHUNK - 1, False, 0),
        (5 * CHUNK, False, 1),
        (5 * CHUNK + 1, False, 2),
        (6 * CHUNK - 1, True, 0),
        (6 * CHUNK, True, 2),
        (len(LARGE), True, 3),
        (len(LARGE), False, 3),
    ],
)
def test_small_objects_are_put_and_large_ones_sent_in_parts(
    store: Store, s3: S3Server, size: int, told: bool, parts: int
) -> None:
    """One put below the limit, and where a stream ends within its first part; else parts."""
    data = LARGE[:size]
    result = store.add("id", stream(data), size if told else None)
    assert s3.objects["id"].data == data
    assert len(s3.made("PUT", "partNumber=")) == parts
    assert result.report.parts == max(1, parts)
    with store.get(result.uri) as reader:
        assert reader.read() == data
    assert_nothing_is_left(s3, "id")


@pytest.mark.parametrize("create_only", ["checked", "atomic"])
@pytest.mark.parametrize("spelling", [str.title, str.upper], ids=["title", "upper"])
def test_names_of_metadata_have_no_case(
    make_store: MakeStore, s3: S3Server, spelling: Callable[[str], str], create_only: str
) -> None:
    """MinIO, and proxies in Go, give them back in a case of their own: nothing depends on it."""
    s3.spelling = spelling
    store = make_store(s3_store_create_only=create_only)
    s3.after.append(times(1, lambda: Reply(raw=b"", then="rst"), "PUT", "/box/small"))
    uri = store.add("small", io.BytesIO(b"data"), 4).uri
    s3.after.append(times(1, lambda: Reply(raw=b"", then="rst"), "POST", "uploadId"))
    store.add("large", stream(LARGE), len(LARGE))
    store.copy(uri, "copied")
    assert set(store.stat(uri).metadata) == {"store-lib-nonce", "etag"}
    assert_nothing_is_left(s3, "small", "large", "copied")


def test_the_signature_covers_the_bytes_unless_told_not_to(
    make_store: MakeStore, s3: S3Server
) -> None:
    """Without TLS every put and part is signed with its bytes, of whatever number."""
    for signing, length in (("auto", {64}), ("always", {64}), ("never", {len(_UNSIGNED)})):
        store = make_store(s3_store_payload_signing=signing)
        for size in (100, 4 * CHUNK, len(LARGE)):
            store.add(f"{signing}-{size}", stream(LARGE[:size]), size)
            assert s3.objects[f"{signing}-{size}"].data == LARGE[:size]
        sent = s3.made("PUT", f"/box/{signing}-")
        assert {len(each.headers["x-amz-content-sha256"]) for each in sent} == length


#: Bytes of memory that are too few for a part, and for the puts of the tests that use it.
LITTLE = 3 * CHUNK


def _streamed(store: Store, s3: S3Server) -> list[Request]:
    """Add in parts and in one put what memory has no room for, and return the requests."""
    store.add("parts", stream(LARGE), len(LARGE))
    store.add("put", stream(LARGE[: 4 * CHUNK]), 4 * CHUNK)
    assert s3.objects["parts"].data == LARGE
    assert s3.objects["put"].data == LARGE[: 4 * CHUNK]
    return [*s3.made("PUT", "partNumber="), *s3.made("PUT", "/box/put")]


def test_what_memory_has_no_room_for_streams_unsigned(make_store: MakeStore, s3: S3Server) -> None:
    """A part beyond the memory limit is sent as it is read, which no signature can cover."""
    sent = _streamed(make_store(LITTLE), s3)
    assert {each.headers["x-amz-content-sha256"] for each in sent} == {_UNSIGNED}


def test_checksums_are_sent_where_both_options_say_so(make_store: MakeStore, s3: S3Server) -> None:
    """Every put and part has one, and the upload is told; off, or not both, nothing has."""
    supported = {"s3_store_request_checksum_calculation": "when_supported"}
    protected = {"s3_store_enable_data_integrity_protection": True}
    for options, sums in ((supported | protected, True), (supported, False), (protected, False)):
        s3.reset()
        store = make_store(**options)
        for size in (0, 100, 4 * CHUNK, len(LARGE)):
            store.add(f"{size}", stream(LARGE[:size]), size)
            assert s3.objects[f"{size}"].data == LARGE[:size]
        store.add("untold", stream(LARGE))
        [*begun] = s3.made("POST", "?uploads")
        assert [each.headers.get("x-amz-checksum-algorithm") for each in begun] == (
            ["CRC32"] * 2 if sums else [None] * 2
        )
        assert {"x-amz-checksum-crc32" in each.headers for each in s3.made("PUT")} == {sums}
        for each in s3.made("PUT") if sums else ():
            crc = base64.b64encode(zlib.crc32(each.body).to_bytes(4, "big")).decode()
            assert each.headers["x-amz-checksum-crc32"] == crc


def test_what_streams_has_no_checksum(make_store: MakeStore, s3: S3Server) -> None:
    """It would have to be read twice, and nothing would be left to be sent."""
    store = make_store(
        LITTLE,
        s3_store_enable_data_integrity_protection=True,
        s3_store_request_checksum_calculation="when_supported",
    )
    sent = _streamed(store, s3)
    assert not any("x-amz-checksum-crc32" in each.headers for each in sent)


def test_a_streamed_part_of_unknown_length_waits_in_a_file(
    make_store: MakeStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """S3 wants a part's length first, so where memory has no room a temporary file has it."""
    store = make_store(LITTLE)
    store.add("id", stream(LARGE))
    assert s3.objects["id"].data == LARGE
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(BackendException, match="Name a directory with room in TMPDIR"):
        store.add("other", stream(LARGE))
    assert_nothing_is_left(s3, "id")


def test_atomic_stores_leave_the_decision_to_the_server(
    make_store: MakeStore, s3: S3Server
) -> None:
    """With ``atomic`` the header goes with put, complete and copy, and there is no claim."""
    store = make_store(s3_store_create_only="atomic")
    uri = store.add("small", io.BytesIO(b"x"), 1).uri
    store.add("large", stream(LARGE), len(LARGE))
    store.copy(uri, "copied")
    publishing = [
        *s3.made("PUT", "/box/small"),
        *s3.made("POST", "uploadId="),
        *s3.made("PUT", "/box/copied"),
    ]
    assert [each.headers.get("if-none-match") for each in publishing] == ["*"] * 3
    assert not s3.made(text="claims")
    with pytest.raises(Duplicate):
        store.add("small", io.BytesIO(b"y"), 1)
    assert s3.objects["small"].data == b"x"


def test_an_id_that_is_taken_is_found_out_before_much_is_read(store: Store, s3: S3Server) -> None:
    """A large add over an object that is there is Duplicate before its source is touched."""
    s3.store("id", b"old")
    source = iter(lambda: pytest.fail("the source was read"), None)
    for size in (len(LARGE), None):
        with pytest.raises(Duplicate):
            store.add("id", source, size)
    with pytest.raises(Duplicate):
        store.add("id", io.BytesIO(b"new"), 3)
    assert s3.objects["id"].data == b"old"
    assert_nothing_is_left(s3, "id")


def test_a_claim_keeps_others_away_while_it_lives(store: Store, s3: S3Server) -> None:
    """Somebody's fresh claim makes an add Duplicate, and stays; one past its life is replaced."""
    s3.store(PREFIX + "id", b"", {"store-lib-nonce": "somebody", "store-lib-life": "30"})
    with pytest.raises(Duplicate, match=r"being added right now.*expires"):
        store.add("id", stream(LARGE), len(LARGE))
    with pytest.raises(Duplicate):
        store.add("id", io.BytesIO(b"new"), 3)
    assert_nothing_is_left(s3, PREFIX + "id")
    s3.objects[PREFIX + "id"].modified -= 31
    store.add("id", stream(LARGE), len(LARGE))
    assert s3.objects["id"].data == LARGE
    assert_nothing_is_left(s3, "id")


def test_a_claim_that_was_overwritten_does_not_hold(store: Store, s3: S3Server) -> None:
    """Where a server lets several claims through at once, only the last one's add goes on."""

    def overwrite(request: Request) -> Reply | None:
        if request.method == "PUT" and "claims" in request.target:
            s3.objects[PREFIX + "id"].metadata["store-lib-nonce"] = "somebody"
        return None

    s3.after.append(overwrite)
    with pytest.raises(Duplicate):
        store.add("id", io.BytesIO(b"new"), 3)
    assert "id" not in s3.objects
    assert s3.objects[PREFIX + "id"].metadata["store-lib-nonce"] == "somebody"


def test_who_was_overwritten_after_all_is_told(store: Store, s3: S3Server) -> None:
    """An object that somebody else's replaced at once is a Duplicate, and theirs stays."""

    def overwrite(request: Request) -> Reply | None:
        if request.method == "POST" and "uploadId" in request.target:
            s3.store("id", b"theirs", {"store-lib-nonce": "somebody"})
        return None

    s3.after.append(overwrite)
    with pytest.raises(Duplicate):
        store.add("id", stream(LARGE), len(LARGE))
    assert s3.objects["id"].data == b"theirs"
    assert_nothing_is_left(s3, "id")


def test_what_takes_long_lengthens_a_claims_life(store: Store, s3: S3Server) -> None:
    """Joining thousands of parts takes a server long, so the claim lives longer."""
    driver = store.driver
    assert driver is not None
    bucket = driver._bucket  # type: ignore[attr-defined]
    for seconds, life in ((0, "30"), (500, "530")):
        claim = Claim(bucket, f"id-{life}", "0" * 32)
        claim.take(seconds)
        assert s3.objects[PREFIX + f"id-{life}"].metadata["store-lib-life"] == life
        claim.release()
    lives = []

    def look(request: Request) -> None:
        if request.method == "PUT" and "claims" in request.target:
            lives.append(int(request.headers["x-amz-meta-store-lib-life"]))

    s3.after.append(look)
    s3.before.append(times(1, lambda: refusal(400, "InvalidPart"), "POST", "uploadId"))
    parts = [{"ETag": "x"}] * 200
    with pytest.raises(BackendException, match="InvalidPart"):
        driver.create("id", None, nonce="1" * 32, context=None).commit(parts)  # type: ignore[union-attr]
    assert lives == [40]


@pytest.mark.parametrize("create_only", ["checked", "atomic"])
@pytest.mark.parametrize(
    ("size", "text"),
    [
        (100, "PUT /box/id"),
        (4 * CHUNK, "PUT /box/id"),
        (len(LARGE), "POST /box/id?uploadId"),
        (len(LARGE), "POST /box/id?uploads"),
        (len(LARGE), "PUT /box/id?uploadId"),
        (len(LARGE), "PUT /box/.store_lib/claims"),
        (len(LARGE), "DELETE /box/.store_lib/claims"),
    ],
)
def test_a_lost_reply_is_resolved(
    make_store: MakeStore, s3: S3Server, create_only: str, size: int, text: str
) -> None:
    """A request that was carried out and not answered ends in success, never in a Duplicate."""
    store = make_store(s3_store_create_only=create_only)
    method, target = text.split()
    lost = times(1, lambda: Reply(raw=b"", then="rst"), method, target)
    s3.after.append(lost)
    store.add("id", stream(LARGE[:size]), size)
    assert s3.objects["id"].data == LARGE[:size]
    assert_nothing_is_left(s3, "id")


def test_a_repeat_that_meets_its_own_object_is_no_duplicate(
    make_store: MakeStore, s3: S3Server
) -> None:
    """412 for a request that somebody on the way has repeated is resolved by the nonce."""
    store = make_store(s3_store_create_only="atomic")
    s3.after.append(times(1, lambda: refusal(412, "PreconditionFailed"), "PUT", "/box/id"))
    store.add("id", io.BytesIO(b"data"), 4)
    s3.after.append(times(1, lambda: refusal(412, "PreconditionFailed"), "POST", "uploadId"))
    store.add("large", stream(LARGE), len(LARGE))
    assert s3.objects["large"].data == LARGE


@pytest.mark.parametrize("create_only", ["checked", "atomic"])
@pytest.mark.parametrize(
    "trouble",
    [
        SLOW,
        lambda: refusal(500, "InternalError"),
        lambda: refusal(400, "RequestTimeout"),
        lambda: refusal(409, "OperationAborted"),
        lambda: refusal(400, "BadDigest"),
        lambda: Reply(raw=b"", then="rst"),
        lambda: Reply(raw=b"", then="fin"),
        lambda: Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Le", then="fin"),
    ],
    ids=["503", "500", "timeout", "409", "digest", "rst", "fin", "half a head"],
)
def test_a_burst_of_trouble_is_overcome(
    make_store: MakeStore, s3: S3Server, trouble: "type[Reply]", create_only: str
) -> None:
    """Two bad answers to every kind of request, claims and clean-up included, do no harm."""
    store = make_store(s3_store_create_only=create_only)
    for method, text in (("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId")):
        s3.before.append(times(2, trouble, method, text))
    store.add("large", stream(LARGE), len(LARGE))
    s3.before.append(times(2, trouble, "PUT", "/box/small"))
    store.add("small", io.BytesIO(b"data"), 4)
    s3.before.append(times(2, trouble, "PUT", "claims/claimed"))
    store.add("claimed", io.BytesIO(b"data"), 4)
    s3.before.append(times(2, trouble, "PUT", "/box/middle"))
    store.add("middle", stream(LARGE[: 4 * CHUNK]), 4 * CHUNK)
    assert s3.objects["large"].data == LARGE
    assert_nothing_is_left(s3, "large", "small", "middle", "claimed")


def test_a_complete_that_fails_within_a_good_answer_is_repeated(store: Store, s3: S3Server) -> None:
    """S3 may begin a complete's answer with 200 and end it with an error."""
    s3.before.append(times(1, lambda: refusal(200, "InternalError"), "POST", "uploadId"))
    store.add("id", stream(LARGE), len(LARGE))
    assert s3.objects["id"].data == LARGE
    s3.before.append(times(99, lambda: refusal(200, "InternalError"), "POST", "uploadId"))
    with pytest.raises(RemoteServiceUnavailable, match="InternalError") as caught:
        store.add("other", stream(LARGE), len(LARGE))
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert_nothing_is_left(s3, "id")


def test_a_completes_answer_may_have_an_empty_tag(store: Store, s3: S3Server) -> None:
    """Ceph's gateway gives none: nothing is asked again because of that."""
    answer = s3.server.handler
    assert answer is not None

    def leave_out(request: Request) -> Reply:
        reply = answer(request)
        if request.method == "POST" and "uploadId" in request.target:
            reply.body = b"<X><Key>id</Key><ETag></ETag></X>"
        return reply

    s3.server.handler = leave_out
    driver = store.driver
    assert driver is not None
    writer = driver.create("id", None, nonce="1" * 32, context=None)
    assert isinstance(writer, PartWriter)
    token = writer.put_part(1, MemoryBody([LARGE]))
    writer.commit([token])
    assert s3.objects["id"].data == LARGE
    assert len(s3.made("POST", "uploadId")) == 1


def test_a_copy_that_fails_within_a_good_answer_is_repeated(store: Store, s3: S3Server) -> None:
    """The same holds for a copy, whose answer also begins early."""
    uri = store.add("id", io.BytesIO(b"data"), 4).uri
    s3.before.append(times(2, lambda: refusal(200, "InternalError"), "PUT", "/box/copied"))
    store.copy(uri, "copied")
    s3.after.append(times(1, lambda: Reply(raw=b"", then="rst"), "PUT", "/box/again"))
    store.copy(uri, "again")
    assert_nothing_is_left(s3, "id", "copied", "again")


@pytest.mark.parametrize("where", ["partNumber=2", "uploadId=upload-1", "uploads", "claims"])
def test_trouble_without_end_is_told_and_leaves_nothing(
    store: Store, s3: S3Server, where: str
) -> None:
    """A server that is busy for good is one clear error, and the upload is aborted."""

    def busy(request: Request) -> Reply | None:
        return SLOW() if where in request.target and request.method in ("PUT", "POST") else None

    s3.before.append(busy)
    with pytest.raises(RemoteServiceUnavailable, match=r"SlowDown \(503\).*request tx1") as caught:
        store.add("id", stream(LARGE), len(LARGE))
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert (caught.value.store, caught.value.object_id) == ("it", "id")
    assert_nothing_is_left(s3)


@pytest.mark.parametrize("trouble", [SLOW, lambda: Reply(raw=b"", then="rst")])
def test_the_removal_of_a_claim_is_tried_again(
    store: Store, s3: S3Server, trouble: "type[Reply]"
) -> None:
    """A claim goes although the server is busy at first; one that stays fails no add."""
    s3.before.append(times(2, trouble, "DELETE", "claims"))
    store.add("id", stream(LARGE), len(LARGE))
    assert_nothing_is_left(s3, "id")
    s3.before.append(times(999, trouble, "DELETE", "claims"))
    store.add("other", io.BytesIO(b"data"), 4)
    assert_nothing_is_left(s3, "id", "other", PREFIX + "other")


def test_the_abort_too_is_tried_again(store: Store, s3: S3Server) -> None:
    """An upload is aborted although the server is busy at first."""
    s3.before.append(times(2, SLOW, "DELETE", "uploadId"))
    begun = threading.Event()

    def tell(request: Request) -> None:
        if "partNumber=1" in request.target:
            begun.set()

    def failing() -> Iterator[bytes]:
        yield LARGE[: 6 * CHUNK]
        begun.wait(20)
        raise ValueError("the source broke")

    s3.after.append(tell)
    with pytest.raises(ValueError, match="the source broke"):
        store.add("id", failing())
    assert len(s3.made("DELETE", "uploadId")) == 3
    assert_nothing_is_left(s3)


def test_a_copy_in_parts_that_fails_is_aborted(
    make_store: MakeStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is although the server is busy; where it stays so, the copy's own error is told."""
    monkeypatch.setattr(S3Writer, "copy_limit", 100)
    store = make_store(transfer_attempts=4)
    uri = store.add("id", stream(LARGE), len(LARGE)).uri
    s3.before.append(times(9, SLOW, "PUT", "partNumber="))
    s3.before.append(times(3, SLOW, "DELETE", "uploadId"))
    with pytest.raises(RemoteServiceUnavailable, match="upload_part_copy") as caught:
        store.copy(uri, "copied")
    assert_nothing_is_left(s3, "id")
    assert not hasattr(caught.value, "__notes__")
    s3.before[:] = [times(1, lambda: refusal(403, "AccessDenied"), "PUT", "partNumber=")]
    s3.before.append(times(4, SLOW, "DELETE", "uploadId"))
    with pytest.raises(Forbidden, match="upload_part_copy") as refused:
        store.copy(uri, "copied")
    assert "Cleaning up failed too" in refused.value.__notes__[0]
    assert "listed and swept" in refused.value.__notes__[0]
    assert sorted(s3.objects) == ["id"]


def test_what_may_have_been_published_is_withdrawn(store: Store, s3: S3Server) -> None:
    """An add that is told to fail leaves no object, though its last request was carried out."""
    aborted = threading.Event()

    def trouble(request: Request) -> Reply | None:
        if request.method == "DELETE" and "uploadId" in request.target:
            aborted.set()
        lost = request.method == "HEAD" and request.target == "/box/id" and s3.objects.get("id")
        return SLOW() if lost and not aborted.is_set() else None

    s3.before.append(trouble)
    s3.after.append(times(1, lambda: Reply(raw=b"", then="rst"), "POST", "uploadId"))
    with pytest.raises(RemoteServiceUnavailable) as caught:
        store.add("id", stream(LARGE), len(LARGE))
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert_nothing_is_left(s3)


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (403, "QuotaExceeded", StorageFull, "raise the quota"),
        (400, "EntityTooLarge", StorageFull, "limit"),
        (507, "InsufficientStorage", StorageFull, "Free space"),
    ],
)
def test_a_full_store_is_told(
    store: Store, s3: S3Server, status: int, code: str, kind: type[StoreError], text: str
) -> None:
    """No room, and a quota that is used up, are StorageFull, and not tried again."""
    s3.before.append(times(9, lambda: refusal(status, code), "PUT", "partNumber=3"))
    with pytest.raises(kind, match=text):
        store.add("id", stream(LARGE), len(LARGE))
    assert len(s3.made("PUT", "partNumber=3")) == 1
    assert_nothing_is_left(s3)


@pytest.mark.parametrize("size", [3, 4 * CHUNK, len(LARGE)])
def test_a_key_that_the_server_finds_too_long_is_a_bad_id(
    store: Store, s3: S3Server, size: int
) -> None:
    """Servers have limits of their own: the id is at fault, and a shorter one is asked for."""
    s3.longest_key = 200
    with pytest.raises(InvalidObjectId, match=r"KeyTooLongError.*use a shorter id"):
        store.add("i" * 201, stream(LARGE[:size]), size)
    assert_nothing_is_left(s3)


@pytest.mark.parametrize("size", [3, 4 * CHUNK, len(LARGE)])
def test_retention_needs_checksums(make_store: MakeStore, s3: S3Server, size: int) -> None:
    """A bucket whose objects are locked by default refuses what has none; the options are named."""
    s3.retention = True
    options = "s3_store_enable_data_integrity_protection.*s3_store_request_checksum_calculation"
    for create_only in ("checked", "atomic"):
        with pytest.raises(BackendException, match=options):
            make_store(s3_store_create_only=create_only).add("id", stream(LARGE[:size]), size)
        assert_nothing_is_left(s3)
    store = make_store(
        s3_store_enable_data_integrity_protection=True,
        s3_store_request_checksum_calculation="when_supported",
    )
    store.add("id", stream(LARGE[:size]), size)
    assert_nothing_is_left(s3, "id")


def test_an_upload_that_somebody_swept_is_told(store: Store, s3: S3Server) -> None:
    """An upload that was aborted from outside ends the add, and says so."""

    def sweep(request: Request) -> Reply | None:
        if "partNumber=2" in request.target:
            s3.uploads.clear()
        return None

    s3.before.append(sweep)
    with pytest.raises(StoreError, match=r"NoSuchUpload.*aborted, swept"):
        store.add("id", stream(LARGE), len(LARGE))
    assert_nothing_is_left(s3)


def test_a_late_answer_ends_with_the_read_timeout(make_store: MakeStore, s3: S3Server) -> None:
    """A part that is not answered is tried again after s3_store_read_timeout."""
    store = make_store(s3_store_read_timeout=0.1, transfer_attempts=4)
    s3.before.append(times(1, lambda: Reply(raw=b"", then="stall"), "PUT", "partNumber=2"))
    result = store.add("id", stream(LARGE), len(LARGE))
    assert result.report.retries >= 1  # more where the machine is slow
    s3.before.append(times(9, lambda: Reply(raw=b"", then="stall"), "PUT", "partNumber=1"))
    with pytest.raises(RemoteServiceUnavailable, match="s3_store_read_timeout"):
        store.add("other", stream(LARGE), len(LARGE))
    assert_nothing_is_left(s3, "id")


@pytest.mark.parametrize("size", [4 * CHUNK, len(LARGE)])
def test_a_part_that_is_cut_half_way_is_sent_again(
    make_store: MakeStore, s3: S3Server, size: int
) -> None:
    """A connection that ends in the middle of a part, or of a put, costs a repeat of that one."""
    with CuttingRelay(s3.server.port, at=size // 2) as relay:
        store = make_store(s3_store_host=relay.url)
        result = store.add("id", stream(LARGE[:size]), size)
        assert relay.cuts == 1
    assert result.report.retries == 1
    assert s3.objects["id"].data == LARGE[:size]
    assert_nothing_is_left(s3, "id")


def test_parts_go_at_once_and_no_more_than_asked(store: Store, s3: S3Server) -> None:
    """As many parts are under way as s3_store_thread_pools says, and never more."""
    met = threading.Barrier(3)
    most, now, lock = 0, 0, threading.Lock()

    def meet(request: Request) -> Reply | None:
        nonlocal most, now
        if "partNumber=" in request.target:
            with lock:
                now += 1
                most = max(most, now)
            met.wait(20)
            with lock:
                now -= 1
        return None

    s3.before.append(meet)
    store.add("id", stream(LARGE), len(LARGE))
    assert most == 3


def test_a_missing_bucket_is_made_where_that_is_asked_for(
    make_store: MakeStore, s3: S3Server
) -> None:
    """With s3_store_create_bucket_on_put it is made, once; without, the add says what to do."""
    store = make_store(s3_store_bucket="other")
    for size in (1, len(LARGE), None):
        with pytest.raises(BackendException, match="set s3_store_create_bucket_on_put"):
            store.add("id", stream(LARGE[:size]), size)
    willing = make_store(
        s3_store_bucket="other", s3_store_create_bucket_on_put=True, s3_store_region_name="mars-1"
    )

    def create(request: Request) -> Reply | None:
        if (request.method, request.target) == ("PUT", "/other"):
            assert b"<LocationConstraint>mars-1<" in request.body
            s3.bucket = "other"
            return Reply()
        return None

    s3.before.append(create)
    willing.add("id", io.BytesIO(b"data"), 4)
    willing.add("id2", io.BytesIO(b"data"), 4)
    asked = [each.method for each in s3.made() if each.target.startswith("/other?list-type")]
    assert asked == ["GET"]


def test_a_bucket_is_made_in_the_region_of_the_environment(
    make_store: MakeStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are signed for that one, so the bucket is made there."""
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "moon-2")
    store = make_store(s3_store_bucket="new", s3_store_create_bucket_on_put=True)

    def create(request: Request) -> Reply | None:
        if (request.method, request.target) == ("PUT", "/new"):
            assert b"<LocationConstraint>moon-2<" in request.body
            s3.bucket = "new"
            return Reply()
        return None

    s3.before.append(create)
    store.add("id", io.BytesIO(b"data"), 4)
    assert_nothing_is_left(s3, "id")


@pytest.mark.parametrize("named", [True, False])
def test_a_region_that_the_server_does_not_know(
    make_store: MakeStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """One that the option names is refused; one that the environment has for others is left out."""
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "moon-2")
    region = {"s3_store_region_name": "moon-2"} if named else {}
    store = make_store(s3_store_bucket="odd", s3_store_create_bucket_on_put=True, **region)

    def create(request: Request) -> Reply | None:
        if (request.method, request.target) == ("PUT", "/odd"):
            if b"LocationConstraint" in request.body:
                return refusal(400, "InvalidLocationConstraint")
            s3.bucket = "odd"
            return Reply()
        return None

    s3.before.append(create)
    if named:
        with pytest.raises(BackendException, match="s3_store_region_name to a region of this"):
            store.add("id", io.BytesIO(b"data"), 4)
    else:
        store.add("id", io.BytesIO(b"data"), 4)
        assert_nothing_is_left(s3, "id")


@pytest.mark.parametrize("size", [len(LARGE), None])
@pytest.mark.parametrize("where", ["partNumber=2", "uploadId=upload-1", "uploads"])
def test_a_bucket_that_is_removed_meanwhile_is_told(
    store: Store, s3: S3Server, where: str, size: int | None
) -> None:
    """An add into it fails as an add into one that never was: nothing was to be found."""

    def remove(request: Request) -> None:
        if where in request.target and request.method in ("PUT", "POST"):
            s3.bucket = "another"

    store.add("before", io.BytesIO(b"data"), 4)
    s3.before.append(remove)
    with pytest.raises(BackendException, match="set s3_store_create_bucket_on_put"):
        store.add("id", stream(LARGE), size)


def test_a_bucket_that_is_removed_during_a_copy_is_told(
    store: Store, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is with the server's own copies, in one request and in parts."""
    uri = store.add("id", stream(LARGE), len(LARGE)).uri

    def remove(request: Request) -> None:
        if "x-amz-copy-source" in request.headers:
            s3.bucket = "another"

    s3.before.append(remove)
    for limit in (len(LARGE), 100):
        s3.bucket = "box"
        monkeypatch.setattr(S3Writer, "copy_limit", limit)
        with pytest.raises(BackendException, match="NoSuchBucket"):
            store.copy(uri, "copied")


@pytest.mark.parametrize("last", ["answered", "lost", "fails"])
def test_our_own_repeats_leave_no_upload(store: Store, s3: S3Server, last: str) -> None:
    """Uploads that were begun without an answer go with the add; those with parts are others'."""
    others = {"theirs": Started("id", parts={1: b"x"}), "next": Started("id-2")}
    s3.uploads.update(others)
    fails = last == "fails"
    if last == "lost":
        s3.after.append(times(1, lambda: Reply(raw=b"", then="rst"), "POST", "uploadId"))
    if fails:  # then an upload of the same id may be somebody's who has just begun
        others["old"] = s3.uploads["old"] = Started("id", begun=time.time() - 3600)
        s3.before.append(times(1, lambda: refusal(400, "Odd"), "POST", "uploadId"))
    s3.after.append(times(6, lambda: Reply(raw=b"", then="rst"), "POST", "uploads"))
    with pytest.raises(BackendException, match="Odd") if fails else contextlib.nullcontext():
        store.add("id", stream(LARGE), len(LARGE))
    assert s3.uploads == others


def test_a_copys_repeats_leave_no_upload(
    store: Store, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy in parts is begun anew after each answer that was lost."""
    monkeypatch.setattr(S3Writer, "copy_limit", 100)
    uri = store.add("id", stream(LARGE), len(LARGE)).uri
    s3.after.append(times(3, lambda: Reply(raw=b"", then="rst"), "POST", "uploads"))
    s3.before.append(times(2, SLOW, "GET", "uploads"))
    store.copy(uri, "copied")
    assert_nothing_is_left(s3, "id", "copied")


def test_what_repeats_left_is_told_where_it_cannot_be_seen(
    store: Store, s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that lists no uploads fails no add; a warning says what may be left."""
    s3.before.append(times(9, lambda: refusal(501, "NotImplemented"), "GET", "uploads"))
    s3.after.append(times(1, lambda: Reply(raw=b"", then="rst"), "POST", "uploads"))
    store.add("id", stream(LARGE), len(LARGE))
    assert "Sweep the store" in caplog.text


@pytest.mark.parametrize("create_only", ["checked", "atomic", "look"])
@pytest.mark.parametrize("limit", [len(LARGE), 100], ids=["whole", "in parts"])
def test_a_copy_that_appears_late_is_no_duplicate(
    make_store: MakeStore,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    create_only: str,
) -> None:
    """A server may carry out a copy once it was given up: a repeat finds it by its nonce."""
    monkeypatch.setattr(S3Writer, "copy_limit", limit)
    store = make_store(s3_store_create_only=create_only)
    uri = store.add("id", stream(LARGE), len(LARGE)).uri
    nonce, heads = "", -1

    def be_late(request: Request) -> Reply | None:
        nonlocal nonce, heads
        path, _, query = request.target.partition("?")
        if path != "/box/copied":
            return None
        nonce = request.headers.get("x-amz-meta-store-lib-nonce", nonce)
        publishes = "uploadId" in query if request.method == "POST" else not query
        if request.method in ("POST", "PUT") and publishes and heads < 0:
            heads = 0
            return Reply(raw=b"", then="rst")
        if request.method == "HEAD" and heads >= 0:
            heads += 1
            if heads == 3:  # when the copy was neither found nor removed
                s3.store("copied", LARGE, {"store-lib-nonce": nonce})
        return None

    s3.before.append(be_late)
    store.copy(uri, "copied")
    assert heads >= 3
    assert_nothing_is_left(s3, "id", "copied")


@pytest.mark.parametrize("matches", [True, False], ids=["obeyed", "ignored"])
def test_a_copy_in_parts_is_of_one_object(
    store: Store, s3: S3Server, monkeypatch: pytest.MonkeyPatch, matches: bool
) -> None:
    """A source that is replaced meanwhile is ObjectChanged, where the condition is ignored too."""
    monkeypatch.setattr(S3Writer, "copy_limit", 100)
    monkeypatch.setattr(S3Writer, "copy_part", 5 * CHUNK)
    s3.matches = matches
    uri = store.add("id", stream(LARGE), len(LARGE)).uri

    def replace(request: Request) -> None:
        if "partNumber=2" in request.target:
            s3.store("id", LARGE[::-1])

    s3.before.append(replace)
    with pytest.raises(ObjectChanged, match="Copy it again"):
        store.copy(uri, "copied")
    assert_nothing_is_left(s3, "id")


@pytest.mark.parametrize("size", [len(LARGE), None])
def test_parts_keep_one_size_where_the_server_wants_it(
    make_store: MakeStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    """R2 refuses parts that grow, once all are sent; the option has them keep their size."""
    monkeypatch.setattr("store_lib.drivers.s3.multipart._EVEN", 1)
    monkeypatch.setattr("store_lib.drivers.s3.multipart._STEP", 1)
    s3.equal_parts = True
    store = make_store()
    if size is None:
        with pytest.raises(BackendException, match=r"InvalidPart.*set s3_store_equal_parts"):
            store.add("id", stream(LARGE * 2), size)
        assert_nothing_is_left(s3)
    s3.server.requests.clear()
    equal = make_store(s3_store_equal_parts=True)
    equal.add("id", stream(LARGE * 2), size and 2 * size)
    assert {len(each.body) for each in s3.made("PUT", "partNumber=4")} == {5 * CHUNK}
    assert_nothing_is_left(s3, "id")


def test_parts_of_one_size_hold_what_ten_thousand_of_them_hold(
    make_store: MakeStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size that is known and too large is refused at once, another when the last part is full."""
    monkeypatch.setattr("store_lib.drivers.s3.multipart.MOST_PARTS", 3)
    store = make_store(s3_store_equal_parts=True)
    whole = LARGE[: 12 * CHUNK] + LARGE[: 3 * CHUNK]
    for size in (len(whole), None):
        store.add(f"{size}", stream(whole), size)
    source = iter(lambda: pytest.fail("the source was read"), None)
    with pytest.raises(StorageFull, match="s3_store_large_object_chunk_size"):
        store.add("id", source, len(whole) + 1)
    endless = (LARGE[:CHUNK] for _ in range(100))
    with pytest.raises(StorageFull, match="aise s3_store_large_object_chunk_size"):
        store.add("id", endless)
    assert len(list(endless)) > 2
    assert_nothing_is_left(s3, f"{len(whole)}", "None")


def test_one_client_for_each_process(make_store: MakeStore, s3: S3Server) -> None:
    """Many operations share a client and its connections; a forked child makes its own."""
    store = make_store(s3_store_region_name="elsewhere-1")  # which no other test uses
    before = s3.server.connections
    for number in range(5):
        uri = store.add(f"id-{number}", io.BytesIO(b"data"), 4).uri
    assert s3.server.connections == before + 1
    child = os.fork()
    if not child:
        try:
            with store.get(uri) as reader:
                os._exit(0 if reader.read() == b"data" else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert s3.server.connections == before + 2
    with store.get(uri) as reader:
        assert reader.read() == b"data"
    assert s3.server.connections == before + 2


def test_an_add_leaves_nothing_to_the_garbage_collector(store: Store, s3: S3Server) -> None:
    """What an add held in memory is free when it returns: nothing of it is in a cycle."""
    data = bytes(20 * CHUNK)
    store.add("warm", iter([data]))
    with collected() as left:
        store.add("id", iter([data]))
        store.add("small", b"x")
    assert left == []
