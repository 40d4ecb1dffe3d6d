"""An id is used once, or the store says why it cannot be held: servers as they were seen."""

import io
import logging

import pytest

from store_lib import Store
from store_lib.drivers.s3 import S3Driver
from store_lib.drivers.s3.publishing import PREFIX
from store_lib.exceptions import BackendException, Duplicate, ErrorStatus, Forbidden
from tests.s3_faults import refusal, times
from tests.scripted_server import Reply, Request
from tests.unit.drivers.s3.conftest import CHUNK, MakeStore
from tests.unit.drivers.s3.server import S3Server
from tests.unit.drivers.s3.test_adding import LARGE, assert_nothing_is_left, stream

#: What remains: a put that is small, one that is not, and parts.
SIZES = (3, 4 * CHUNK, len(LARGE))
REMEDY = "s3_store_create_only to look"


def unproved(store: Store) -> Store:
    """Return the store as it is in a new process, which has found out nothing."""
    assert isinstance(store.driver, S3Driver)
    store.driver._proof._passed.clear()
    return store


def add_all(store: Store, s3: S3Server) -> None:
    """Add and copy in every way, and see that each id is used once."""
    for size in SIZES:
        uri = store.add(f"{size}", stream(LARGE[:size]), size).uri
        store.copy(uri, f"copy-{size}")
        with pytest.raises(Duplicate):
            store.add(f"{size}", stream(LARGE[:size][::-1]), size)
        with pytest.raises(Duplicate):
            store.copy(uri, f"copy-{size}")
        assert s3.objects[f"{size}"].data == s3.objects[f"copy-{size}"].data == LARGE[:size]
    assert_nothing_is_left(s3, *(f"{kind}{size}" for size in SIZES for kind in ("", "copy-")))


def refused(store: Store, s3: S3Server, match: str) -> None:
    """See that no add of any kind is made, none reads its source, and nothing is left."""
    source = iter(lambda: pytest.fail("the source was read"), None)
    for size in (*SIZES, None):
        with pytest.raises(BackendException, match=match) as caught:
            store.add("id", source, size)
        assert caught.value.status is ErrorStatus.PERMANENT
        assert_nothing_is_left(s3)
    s3.store("old", b"data")
    with pytest.raises(BackendException, match=match):
        store.copy(f"{store.driver.url_prefix}/old", "new")  # type: ignore[union-attr]
    assert_nothing_is_left(s3, "old")


@pytest.mark.parametrize(
    ("create_only", "decides"),
    [
        ("auto", {"put"}),
        ("checked", {"put"}),
        ("checked", {"put", "copy", "complete"}),
        ("atomic", {"put", "copy", "complete"}),
    ],
)
def test_the_condition_goes_with_all_that_makes_an_object(
    make_store: MakeStore, s3: S3Server, create_only: str, decides: set[str]
) -> None:
    """Put, complete and copy have it, whether or not the server is known to decide it there."""
    s3.decides = decides
    store = unproved(make_store(s3_store_create_only=create_only))
    add_all(store, s3)
    making = [
        each
        for each in [*s3.made("PUT"), *s3.made("POST", "uploadId=")]
        if "partNumber" not in each.target
    ]
    assert {each.headers.get("if-none-match") for each in making} == {"*"}


def test_look_makes_no_conditional_request(make_store: MakeStore, s3: S3Server) -> None:
    """It looks before and after, on servers that refuse the header, ignore it, or keep versions."""
    for refuses, versioning in ((True, ""), (False, ""), (False, "Enabled"), (False, "Suspended")):
        s3.reset()
        s3.versioning = versioning
        s3.decides = set()
        if refuses:
            s3.refuses = dict.fromkeys(("put", "copy", "complete"), refusal(501, "NotImplemented"))
        store = unproved(make_store(s3_store_create_only="look"))
        add_all(store, s3)
        uri = f"{store.driver.url_prefix}/3"  # type: ignore[union-attr]
        store.delete(uri)
        store.add("3", io.BytesIO(b"abc"), 3)
        assert not [each for each in s3.made() if "if-none-match" in each.headers]


def test_look_sees_who_was_faster(make_store: MakeStore, s3: S3Server) -> None:
    """An object that replaced ours at once is a Duplicate, and stays."""
    store = unproved(make_store(s3_store_create_only="look"))

    def overwrite(request: Request) -> None:
        if request.method == "PUT" and request.target.startswith("/box/id"):
            s3.store("id", b"theirs", {"store-lib-nonce": "somebody"})

    s3.after.append(overwrite)
    with pytest.raises(Duplicate):
        store.add("id", io.BytesIO(b"new"), 3)
    assert s3.objects["id"].data == b"theirs"
    assert_nothing_is_left(s3, "id")


@pytest.mark.parametrize("versioning", ["", "Enabled"])
def test_a_server_that_ignores_the_condition_is_found_out(
    make_store: MakeStore, s3: S3Server, versioning: str
) -> None:
    """Two puts of one claim show that claims do not hold: adds are refused, and nothing is read."""
    s3.versioning = versioning
    s3.decides = {"put"} if versioning else set()
    store = unproved(make_store(s3_store_create_only="checked"))
    refused(store, s3, f"ignores If-None-Match.*versioning.*{REMEDY}")


def test_a_put_that_is_not_modified_is_one_that_was_refused(
    make_store: MakeStore, s3: S3Server
) -> None:
    """Some servers answer 304 where it should be 412."""
    answer = s3.server.handler
    assert answer is not None

    def not_modified(request: Request) -> Reply:
        reply = answer(request)
        return Reply(304) if reply.status == 412 else reply

    s3.server.handler = not_modified
    add_all(unproved(make_store(s3_store_create_only="checked")), s3)


def test_the_proof_is_made_once(make_store: MakeStore, s3: S3Server) -> None:
    """The first add of a process pays for it, and no other one."""
    store = unproved(make_store())
    counts = []
    for number in range(3):
        s3.server.requests.clear()
        store.add(f"{number}", io.BytesIO(b"abc"), 3)
        counts.append(len(s3.made()))
    assert counts[0] > counts[1] == counts[2]


def test_versions_that_are_switched_on_later_are_noticed(
    make_store: MakeStore, s3: S3Server
) -> None:
    """A claim's answer names a version: what was found out before does not count any more."""
    store = unproved(make_store())
    store.add("before", io.BytesIO(b"abc"), 3)
    s3.versioning = "Enabled"
    for size in SIZES:
        with pytest.raises(BackendException, match="ignores If-None-Match"):
            store.add("id", stream(LARGE[:size]), size)
    assert_nothing_is_left(s3, "before")


@pytest.mark.parametrize("create_only", ["checked", "atomic"])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (501, "NotImplemented"),
        (400, "InvalidArgument"),
        (400, "InvalidRequest"),
        (400, "BadHeader"),
        (403, "AccessDenied"),
    ],
)
def test_a_server_that_refuses_the_condition_is_named(
    make_store: MakeStore, s3: S3Server, create_only: str, status: int, code: str
) -> None:
    """Whatever its answer, the header is found to be the reason, and the remedy is in the error."""
    s3.refuses = dict.fromkeys(("put", "copy", "complete"), refusal(status, code))
    store = unproved(make_store(s3_store_create_only=create_only))
    match = f"not with If-None-Match.*{code}.*{REMEDY}"
    if create_only == "checked":
        refused(store, s3, match)
    else:
        for size in SIZES:
            with pytest.raises(BackendException, match=match):
                store.add("id", stream(LARGE[:size]), size)
            assert_nothing_is_left(s3)


@pytest.mark.parametrize("create_only", ["checked", "atomic"])
def test_the_condition_is_not_blamed_for_other_refusals(
    make_store: MakeStore, s3: S3Server, create_only: str
) -> None:
    """A put that is refused without it too is what the server says it is."""
    s3.before.append(times(999, lambda: refusal(403, "AccessDenied"), "PUT"))
    store = unproved(make_store(s3_store_create_only=create_only))
    with pytest.raises(Forbidden, match="AccessDenied") as caught:
        store.add("id", io.BytesIO(b"abc"), 3)
    assert "If-None-Match" not in str(caught.value)
    s3.before[:] = [times(1, lambda: refusal(403, "AccessDenied"), "PUT", "/box/id")]
    with pytest.raises(Forbidden, match="AccessDenied"):
        store.add("id", io.BytesIO(b"abc"), 3)
    assert_nothing_is_left(s3)


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_what_knows_the_condition_on_a_put_alone_will_do(
    make_store: MakeStore, s3: S3Server, status: int, code: str
) -> None:
    """Under a claim, parts are joined and copies made without it where it is refused."""
    s3.refuses = dict.fromkeys(("copy", "complete"), refusal(status, code))
    add_all(unproved(make_store(s3_store_create_only="checked")), s3)
    atomic = make_store(s3_store_create_only="atomic")
    with pytest.raises(BackendException, match="set s3_store_create_only to checked"):
        atomic.add("id", stream(LARGE), len(LARGE))
    assert "id" not in s3.objects
    assert not s3.uploads


def test_a_copys_condition_may_be_held_against_its_source(
    make_store: MakeStore, s3: S3Server
) -> None:
    """Swift does that: under a claim the copy is made without it."""
    s3.decides = {"put", "source"}
    add_all(unproved(make_store(s3_store_create_only="checked")), s3)


@pytest.mark.parametrize("create_only", ["checked", "look"])
@pytest.mark.parametrize("got", [True, False], ids=["GET has it", "nothing has it"])
def test_a_server_that_keeps_no_metadata_is_told(
    make_store: MakeStore, s3: S3Server, create_only: str, got: bool
) -> None:
    """What HEAD does not say is not known: one clear error, and no claim is left."""
    if got:

        def strip(request: Request) -> Reply | None:
            reply = s3.answer(request) if request.method == "HEAD" else None
            if reply is not None:
                reply.headers = {
                    name: value
                    for name, value in reply.headers.items()
                    if not name.startswith("x-amz-meta")
                }
            return reply

        s3.before.append(strip)
    else:
        s3.spelling = None
    store = unproved(make_store(s3_store_create_only=create_only))
    refused(store, s3, "keeps no metadata")


@pytest.mark.parametrize("create_only", ["checked", "atomic"])
def test_versioning_that_is_suspended_is_told(
    make_store: MakeStore, s3: S3Server, create_only: str
) -> None:
    """On Ceph 16 an id that was once deleted stays taken there: nobody is adding it right now."""
    s3.versioning = "Suspended"
    s3.decides = {"put", "copy", "complete"}
    store = unproved(make_store(s3_store_create_only=create_only))
    for size in SIZES:
        uri = store.add(f"id-{size}", stream(LARGE[:size]), size).uri
        store.delete(uri)
        with pytest.raises(BackendException, match=f"Suspended.*{REMEDY}") as caught:
            store.add(f"id-{size}", stream(LARGE[:size]), size)
        assert caught.value.status is ErrorStatus.PERMANENT
        assert_nothing_is_left(s3)
    s3.before.append(times(99, lambda: refusal(403, "AccessDenied"), "GET", "?versioning"))
    with pytest.raises(BackendException, match="may be on or suspended"):
        store.add("id-3", io.BytesIO(b"abc"), 3)


def test_who_is_overtaken_again_and_again_is_no_victim_of_versioning(
    make_store: MakeStore, s3: S3Server
) -> None:
    """A claim that is gone whenever it is looked at was somebody's where there are no versions."""
    store = make_store()
    s3.before.append(times(9, lambda: refusal(412, "PreconditionFailed"), "PUT", "claims/id"))
    for _ in range(2):
        with pytest.raises(Duplicate, match=r"right now.*or being deleted"):
            store.add("id", io.BytesIO(b"abc"), 3)
        s3.before.append(times(9, lambda: refusal(501, "NotImplemented"), "GET", "?versioning"))


@pytest.mark.parametrize("metadata", [{}, {"note": "x"}, {"store-lib-nonce": "somebody"}])
def test_claims_whose_metadata_was_changed_hold(
    store: Store, s3: S3Server, metadata: dict[str, str]
) -> None:
    """The body says the same: what somebody else's metadata say never ends a claim."""
    s3.store(PREFIX + "id", b"0123456789abcdef0123456789abcdef 500\n", metadata)
    s3.objects[PREFIX + "id"].modified -= 100
    with pytest.raises(Duplicate, match="being added right now"):
        store.add("id", io.BytesIO(b"new"), 3)
    assert store.sweep(0) == []
    (left,) = store.list_incomplete()
    assert left.live
    s3.objects[PREFIX + "id"].modified -= 401
    assert [each.object_id for each in store.sweep(0)] == ["id"]


def test_what_is_no_claim_is_not_swept(store: Store, s3: S3Server) -> None:
    """Somebody's object under the name of a claim stays, however old it is."""
    s3.store(PREFIX + "notes", b"something that somebody keeps there" * 10)
    s3.objects[PREFIX + "notes"].modified -= 1e6
    assert store.sweep(0) == []
    assert_nothing_is_left(s3, PREFIX + "notes")


@pytest.mark.parametrize("size", SIZES)
def test_a_claim_that_may_not_be_deleted_is_told(
    store: Store, s3: S3Server, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """Without s3:DeleteObject objects are added, and a warning names each claim that stays."""
    s3.before.append(times(999, lambda: refusal(403, "AccessDenied"), "DELETE"))
    with caplog.at_level(logging.WARNING):
        unproved(store).add("id", stream(LARGE[:size]), size)
    left = [key for key in s3.objects if key != "id"]
    assert len(left) == 2
    for key in left:
        assert key in caplog.text
    assert "s3:DeleteObject" in caplog.text


@pytest.mark.parametrize("create_only", ["checked", "atomic", "look"])
@pytest.mark.parametrize("size", SIZES)
def test_without_the_right_to_list_no_claim_is_left(
    make_store: MakeStore, s3: S3Server, create_only: str, size: int
) -> None:
    """Amazon answers 403 for what is not there then; the right is named, and nothing stays."""

    def forbid(request: Request) -> Reply | None:
        key = request.target.partition("?")[0].removeprefix("/box/")
        missing = request.method in ("GET", "HEAD") and key not in s3.objects
        return refusal(403, "AccessDenied") if missing else None

    s3.store("old", b"data")
    s3.before.append(forbid)
    store = unproved(make_store(s3_store_create_only=create_only))
    if create_only != "atomic":
        with pytest.raises(Forbidden, match="s3:ListBucket"):
            store.add("id", stream(LARGE[:size]), size)
        assert_nothing_is_left(s3, "old")
    with pytest.raises(Forbidden, match="s3:ListBucket"):
        store.copy(f"{store.driver.url_prefix}/old", "new")  # type: ignore[union-attr]
    assert_nothing_is_left(s3, "old")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_copy_that_fails_in_a_look_leaves_no_claim(
    store: Store, s3: S3Server, method: str
) -> None:
    """Whether it was made could not be seen: the claim goes all the same."""
    s3.store("old", b"data")

    def spoil(request: Request) -> Reply | None:
        if request.method == "PUT" and request.target == "/box/new":
            s3.before.append(times(999, lambda: refusal(403, "AccessDenied"), method, "/box/new"))
            s3.before.append(times(999, lambda: refusal(403, "AccessDenied"), "HEAD", "/box/new"))
            return refusal(400, "Odd")
        return None

    s3.before.append(spoil)
    with pytest.raises((BackendException, Forbidden)):
        store.copy(f"{store.driver.url_prefix}/old", "new")  # type: ignore[union-attr]
    assert_nothing_is_left(s3, "old")


def test_an_abort_that_is_forbidden_leaves_no_claim(store: Store, s3: S3Server) -> None:
    """Without s3:AbortMultipartUpload the upload stays and is reported; the claim goes."""
    s3.before.append(times(99, lambda: refusal(403, "AccessDenied"), "DELETE", "uploadId"))
    s3.before.append(times(1, lambda: refusal(400, "Odd"), "POST", "uploadId"))
    with pytest.raises(BackendException, match="Odd") as caught:
        store.add("id", stream(LARGE), len(LARGE))
    assert "Cleaning up failed too" in caught.value.__notes__[0]
    assert not s3.objects
    assert len(s3.uploads) == 1
