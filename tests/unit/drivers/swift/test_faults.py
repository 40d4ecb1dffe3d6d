"""Adds, reads and deletes of which single requests fail: what comes out, and what is left."""

import dataclasses
import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from store_lib import Store
from store_lib.drivers.swift.client import Container, ContainerPolicy, SwiftResponse
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    Duplicate,
    ErrorStatus,
    Forbidden,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
)
from store_lib.transfer.budget import Budget
from tests.garbage import collected
from tests.scripted_server import Reply, Request
from tests.unit.drivers.swift.small_swift import SmallSwift

SEGMENT = 1000 * 1024
LARGE = os.urandom(2 * SEGMENT + 5)
SMALL = b"small"
NONCE = "x-object-meta-store-lib-nonce"


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    ("status", "error", "word"),
    [
        (413, StorageFull, "swift_store_large_object_size"),
        (507, StorageFull, "no space"),
        (403, Forbidden, "access lists"),
        (408, RemoteServiceUnavailable, "408"),
        (498, RemoteServiceUnavailable, "498"),
        (503, RemoteServiceUnavailable, "503"),
        (401, NotAuthenticated, "401"),
        (301, BackendException, "301"),
    ],
)
def test_a_refused_put_is_its_error_and_leaves_nothing(
    small: SmallSwift, store: Store, data: bytes, status: int, error: type[StoreError], word: str
) -> None:
    """Every refusal of bytes is the documented error, and nothing is left in the containers."""
    small.fail(r"^PUT .*/glance/", Reply(status, b"said so"))
    with pytest.raises(error, match=word) as caught:
        store.add("id", [data])
    assert not small.names
    assert caught.value.operation == "add"
    busy = error in (RemoteServiceUnavailable, NotAuthenticated)
    assert caught.value.status is (ErrorStatus.EXHAUSTED if busy else ErrorStatus.PERMANENT)
    assert ("said so" in str(caught.value)) == (status in (408, 413, 498, 503, 507))


def test_a_quota_is_told(small: SmallSwift, store: Store) -> None:
    """A quota that is used up is StorageFull with what the server said."""
    small.fail(r"^PUT .*/glance/", Reply(413, b"Upload exceeds quota."))
    with pytest.raises(StorageFull, match=r"Upload exceeds quota\."):
        store.add("id", [SMALL], len(SMALL))


@pytest.mark.parametrize("status", [408, 498, 503])
def test_bursts_are_outlived(
    small: SmallSwift, open_store: Callable[..., Store], status: int
) -> None:
    """Every request that fails for a while is made again, and the add succeeds."""
    store = open_store(**small.options(transfer_attempts=4))
    seen: dict[str, int] = {}

    def burst(request: Request) -> Reply | None:
        key = f"{request.method} {request.target}"
        seen[key] = seen.get(key, 0) + 1
        return Reply(status) if seen[key] == 1 else None

    small.fail(r"/glance", burst)
    uri = store.add("id", [LARGE]).uri
    with store.get(uri) as reader:
        assert reader.read() == LARGE
    store.delete(uri)
    assert not small.names


@pytest.mark.parametrize("then", ["fin", "rst"])
def test_a_connection_cut_in_a_segment_is_repeated(
    small: SmallSwift, store: Store, then: Any
) -> None:
    """A segment whose answer never comes is sent again, and the object is whole."""
    small.fail(r"^PUT .*/00000002", Reply(raw=b"", then=then), times=1)
    uri = store.add("id", [LARGE]).uri
    with store.get(uri) as reader:
        assert reader.read() == LARGE


def test_a_refused_token_is_renewed_and_the_segment_repeated(
    small: SmallSwift, store: Store
) -> None:
    """Tokens that are revoked in the middle of an add cost one login and no bytes."""

    def source() -> Iterator[bytes]:
        yield LARGE[:SEGMENT]
        small.tokens.clear()
        yield LARGE[SEGMENT:]

    uri = store.add("id", source()).uri
    assert small.logins == 2
    with store.get(uri) as reader:
        assert reader.read() == LARGE


def test_a_refused_token_is_renewed_where_nothing_is_repeated(
    small: SmallSwift, store: Store
) -> None:
    """A listing, and the clean-up of a failed add, get a new token by themselves."""
    store.add("id", [SMALL])
    small.tokens.clear()
    assert [each.object_id for each in store.list()] == ["id"]

    def source() -> Iterator[bytes]:
        yield LARGE
        small.tokens.clear()
        raise LookupError

    with pytest.raises(LookupError):
        store.add("other", source())
    assert small.names == ["glance/id"]


def test_a_login_that_no_longer_works_is_told(small: SmallSwift, store: Store) -> None:
    """When the new login is refused too, the error says so, and is final."""
    store.add("id", [SMALL])
    small.tokens.clear()
    small.fail(r"/auth/", Reply(401))
    with pytest.raises(AuthorizationFailure, match="user and key") as caught:
        store.get("swift+config://ref1/glance/id")
    assert caught.value.status is ErrorStatus.PERMANENT


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("lose", [Reply(raw=b"", then="rst"), Reply(503)], ids=["cut", "503"])
def test_a_lost_answer_is_resolved(
    small: SmallSwift, store: Store, data: bytes, lose: Reply
) -> None:
    """What was stored although its answer was lost is found by its nonce, and is no duplicate."""

    def stored_but_lost(request: Request) -> Reply:
        small.usual(request)
        return lose

    small.fail(r"^PUT .*/glance/id(\?|$)", stored_but_lost, times=1)
    result = store.add("id", [data])
    with store.get(result.uri) as reader:
        assert reader.read() == data
    assert len([each for each in small.sent("PUT") if "/glance/id" in each]) == 1


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_201_is_no_proof(small: SmallSwift, store: Store, data: bytes) -> None:
    """An object that is not there after its 201 is stored again."""

    def told_only(request: Request) -> Reply:
        reply = small.usual(request)
        del small.objects["glance/id"]
        return reply

    small.fail(r"^PUT .*/glance/id(\?|$)", told_only, times=1)
    with store.get(store.add("id", [data]).uri) as reader:
        assert reader.read() == data


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_the_loser_of_a_race_is_told(small: SmallSwift, store: Store, data: bytes) -> None:
    """An add whose object another one has overwritten is Duplicate, and takes its segments away."""

    def overtaken(request: Request) -> Reply:
        reply = small.usual(request)
        small.objects["glance/id"] = b"the other's", {NONCE: "0" * 32}
        return reply

    small.fail(r"^PUT .*/glance/id(\?|$)", overtaken)
    with pytest.raises(Duplicate, match="at the same moment"):
        store.add("id", [data])
    assert small.names == ["glance/id"]
    assert small.objects["glance/id"][0] == b"the other's"


def test_a_manifest_that_is_refused_leaves_nothing(small: SmallSwift, store: Store) -> None:
    """A segment that is gone when the manifest is made fails the add, in the report of a 202."""

    def without_one(request: Request) -> None:
        small.objects.pop(next(iter(small.segments)))

    small.fail(r"^PUT .*/glance/id\?", without_one, times=1)
    with pytest.raises(BackendException, match="404 Not Found"):
        store.add("id", [LARGE])
    assert not small.names


@pytest.mark.parametrize("status", ["503 Service Unavailable", "504 Gateway Timeout"])
def test_a_temporary_status_in_the_report_is_repeated(
    small: SmallSwift, store: Store, status: str
) -> None:
    """A manifest that got 202 and failed for a while in its body is put again."""
    body = json.dumps({"Response Status": status, "Errors": []}).encode()
    small.fail(r"^PUT .*/glance/id\?", Reply(202, body), times=1)
    with store.get(store.add("id", [LARGE]).uri) as reader:
        assert reader.read() == LARGE


def test_a_failed_clean_up_is_a_note_and_a_leftover(small: SmallSwift, store: Store) -> None:
    """Segments that could not be removed are listed as incomplete and swept later."""
    small.fail(r"^(POST|DELETE) ", Reply(400), times=1)
    begun = threading.Event()
    small.fail(r"^PUT .*/00000001", lambda _: begun.set())

    def source() -> Iterator[bytes]:
        yield LARGE
        assert begun.wait(60)
        raise LookupError

    with pytest.raises(LookupError) as caught:
        store.add("a ä", source())
    assert "Cleaning up failed" in "".join(caught.value.__notes__)
    (left,) = store.list_incomplete()
    assert (left.object_id, left.live) == ("a ä", False)
    assert left.size == sum(len(data) for data, _ in small.objects.values())
    assert not list(store.list())
    assert [each.key for each in store.sweep(0)] == [left.key]
    assert not small.names


def test_a_leftover_that_is_published_or_alive_is_spared(small: SmallSwift, store: Store) -> None:
    """A discard looks again: neither a published upload nor one that went on is touched."""
    driver = store.driver
    assert driver is not None
    store.add("id", [LARGE])
    (prefix,) = {each.rpartition("/")[0] + "/" for each in small.names if ".segments" in each}
    held = store.stat("swift+config://ref1/glance/id")
    assert held.size == len(LARGE)
    incomplete = dataclasses.replace(_incomplete(prefix), modified=2e9)
    assert not driver.discard(incomplete, context=None)
    del small.objects["glance/id"]
    assert not driver.discard(dataclasses.replace(incomplete, modified=1.0), context=None)
    assert len(small.names) == 3
    assert driver.discard(incomplete, context=None)
    assert not small.names
    assert not driver.discard(incomplete, context=None)


def _incomplete(key: str) -> Any:
    from store_lib import Incomplete

    return Incomplete(key, None, None, 0.0)


@pytest.mark.parametrize("cut_at", [0, 1, 300_000])
def test_a_cut_download_goes_on(small: SmallSwift, store: Store, cut_at: int) -> None:
    """A body that is cut is asked for from there on, of the very same object."""
    uri = store.add("id", [LARGE]).uri

    def cut(request: Request) -> Reply:
        return dataclasses.replace(small.usual(request), cut=cut_at, then="fin")

    small.fail(r"^GET .*/glance/id$", cut, times=1)
    with store.get(uri) as reader:
        assert reader.read() == LARGE
        assert reader.report.retries == 1


def test_retry_get_count_adds_repeats(small: SmallSwift, open_store: Callable[..., Store]) -> None:
    """A download is resumed as often as swift_store_retry_get_count says beyond the engine's."""
    store = open_store(**small.options(swift_store_retry_get_count=2, transfer_attempts=1))
    uri = store.add("id", [LARGE]).uri

    def cut(request: Request) -> Reply:
        return dataclasses.replace(small.usual(request), cut=1000, then="fin")

    small.fail(r"^GET .*/glance/id$", cut, times=2)
    with store.get(uri) as reader:
        assert reader.read() == LARGE
        assert reader.report.retries == 2
    small.fail(r"^GET .*/glance/id$", cut, times=3)
    with store.get(uri) as reader, pytest.raises(RemoteServiceUnavailable, match="was cut"):
        reader.read()


def test_repeats_of_a_cut_download_are_added_and_not_multiplied(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """swift_store_retry_get_count counts once for a download, and not for each of its repeats."""
    store = open_store(**small.options(swift_store_retry_get_count=5, transfer_attempts=3))
    uri = store.add("id", [LARGE]).uri
    before = len(small.sent("GET"))

    def cut(request: Request) -> Reply:
        return dataclasses.replace(small.usual(request), cut=0, then="fin")

    small.fail(r"^GET .*/glance/id$", cut)
    with store.get(uri) as reader, pytest.raises(RemoteServiceUnavailable, match="was cut"):
        reader.read()
    assert len(small.sent("GET")) - before == 5 + 3


def test_new_metadata_during_a_download_are_no_new_object(small: SmallSwift, store: Store) -> None:
    """A POST alters the time of an object and not its bytes: a cut download goes on."""
    uri = store.add("id", [LARGE]).uri
    days = iter(range(1, 10))

    def cut(request: Request) -> Reply:
        reply = small.usual(request)
        date = f"Mon, 0{next(days)} Jan 2001 00:00:00 GMT"
        reply.headers["Last-Modified"] = date
        return dataclasses.replace(reply, cut=1000, then="fin")

    small.fail(r"^GET .*/glance/id$", cut, times=2)
    with store.get(uri) as reader:
        assert reader.read() == LARGE


def test_without_an_etag_nothing_is_resumed(small: SmallSwift, store: Store) -> None:
    """Of a dynamic object of very many segments no answer says whether it is the same still."""
    uri = store.add("id", [LARGE]).uri

    def cut(request: Request) -> Reply:
        reply = small.usual(request)
        reply.headers |= {"ETag": None, "Last-Modified": "Mon, 01 Jan 2001 00:00:00 GMT"}
        reply.headers["Date"] = "Mon, 01 Jan 2001 01:00:00 GMT"
        return dataclasses.replace(reply, cut=1000, then="fin")

    small.fail(r"^GET .*/glance/id$", cut, times=1)
    with store.get(uri) as reader, pytest.raises(RemoteServiceUnavailable, match="was cut"):
        reader.read()


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("then", ["other bytes", "other length", "gone", "no ETag"])
def test_an_object_replaced_under_its_reader_is_told(
    small: SmallSwift, store: Store, quoted: bool, then: str
) -> None:
    """The rest of another object is never read in place of the rest of this one.

    Swift leaves out the quotation marks of ETags but for large objects.
    """
    from store_lib.exceptions import ObjectChanged

    uri = store.add("id", [LARGE]).uri
    answers = 0

    def cut(request: Request) -> Reply:
        nonlocal answers
        answers += 1
        reply = small.usual(request)
        tag = reply.headers.get("ETag")
        if then == "no ETag" and answers > 1:
            reply.headers["ETag"] = None
        elif tag is not None and quoted:
            reply.headers["ETag"] = f'"{tag}"'
        other = {"other bytes": LARGE[::-1], "other length": LARGE[:-1]}
        if then in other:
            small.objects["glance/id"] = other[then], {}
        elif then == "gone":
            small.objects.pop("glance/id", None)
        return dataclasses.replace(reply, cut=1000, then="fin") if answers == 1 else reply

    small.fail(r"^GET .*/glance/id$", cut)
    with store.get(uri) as reader, pytest.raises(ObjectChanged):
        reader.read()


def test_stat_raises_what_happened(small: SmallSwift, store: Store) -> None:
    """A size that cannot be asked for is an error, and never 0."""
    uri = store.add("id", [SMALL]).uri
    small.fail(r"^HEAD .*/glance/id$", Reply(503))
    with pytest.raises(RemoteServiceUnavailable, match="503"):
        store.stat(uri)


@pytest.mark.parametrize("silent", [r"^GET .*/auth/", r"^HEAD .*/glance/id$"])
def test_a_silent_server_is_given_up(
    small: SmallSwift, open_store: Callable[..., Store], silent: str
) -> None:
    """Whoever is asked, for a login or for an object, has swift_store_read_timeout to answer."""
    store = open_store(**small.options(swift_store_read_timeout=0.2, transfer_attempts=1))
    small.fail(silent, Reply(raw=b"", then="stall"))
    with pytest.raises(RemoteServiceUnavailable):
        store.stat("swift+config://ref1/glance/id")


def test_a_large_object_without_its_segments_is_told(small: SmallSwift, store: Store) -> None:
    """Swift's 409 of a manifest whose segments are gone is no object to be retried."""
    uri = store.add("id", [LARGE]).uri
    small.fail(r"^GET .*/glance/id$", Reply(409))
    with pytest.raises(BackendException, match="segments are missing"):
        store.get(uri)


def test_a_segment_too_large_for_memory_is_streamed(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """A single segment above the memory budget is streamed in one request with its true length."""
    budget = Budget(4 << 20)
    size = budget.limit + 1_000_003
    store = open_store(budget, **small.options(swift_store_large_object_size=5000))
    piece = bytes(1 << 20)

    def source() -> Iterator[bytes]:
        left = size
        while left:
            yield piece[:left]
            left -= min(left, len(piece))

    lengths = []

    def swallow(request: Request) -> None:
        lengths.append(request.headers["content-length"])

    small.fail(r"^PUT .*/\.segments/id/(?!0{32})", swallow)
    uri = store.add("id", source(), size, digests=()).uri
    assert lengths == [str(size)]
    assert store.stat(uri).size == size


def test_a_missing_container_is_told(small: SmallSwift, open_store: Callable[..., Store]) -> None:
    """Without leave to make containers the error names the option, and nothing is made."""
    store = open_store(**small.options(swift_store_create_container_on_put=False))
    for data in (SMALL, LARGE):
        for size in (len(data), None):
            with pytest.raises(BackendException, match="swift_store_create_container_on_put"):
                store.add("id", [data], size)
    assert not small.containers
    assert not list(store.list())
    with pytest.raises(NotFound):
        store.stat("swift+config://ref1/glance/id")


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_a_container_that_goes_under_an_add_is_made_again(
    small: SmallSwift, store: Store, data: bytes, times: int
) -> None:
    """Deletes of the same id may remove the empty container several times, and the add succeeds."""
    small.fail(r"^PUT .*/glance/", lambda _: small.containers.clear(), times)  # type: ignore[func-returns-value]
    with store.get(store.add("id", [data]).uri) as reader:
        assert reader.read() == data


def test_a_container_that_goes_before_the_manifest_is_made_again(
    small: SmallSwift, store: Store
) -> None:
    """So it may while listings do not show what is in it yet."""
    small.fail(r"^PUT .*manifest=put", lambda _: small.containers.clear(), 2)  # type: ignore[func-returns-value]
    with store.get(store.add("id", [LARGE]).uri) as reader:
        assert reader.read() == LARGE


def test_a_container_that_goes_again_and_again_is_told(small: SmallSwift, store: Store) -> None:
    """The error names the container, and nothing is left."""
    small.fail(r"^PUT .*/glance/", lambda _: small.containers.clear())  # type: ignore[func-returns-value]
    with pytest.raises(BackendException, match="container glance was removed") as caught:
        store.add("id", [LARGE])
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert not small.names


@pytest.mark.parametrize("what", ["container", "origin"])
def test_a_copy_is_told_what_is_missing(small: SmallSwift, store: Store, what: str) -> None:
    """Swift answers alike where the container is missing and where the origin is."""
    uri = store.add("id", [SMALL]).uri

    def lost(_: Request) -> Reply:
        if what == "container":
            small.containers.clear()
        else:
            small.objects.clear()
        return Reply(404)

    small.fail(r"^COPY ", lost)
    kind, text = (
        (BackendException, "was removed") if what == "container" else (NotFound, "glance/id")
    )
    with pytest.raises(kind, match=text):
        store.copy(uri, "copied")


@pytest.mark.parametrize(
    ("what", "times"), [("/glance_id/id", 1), ("/glance_id", 1), ("/glance_id", 3)]
)
def test_a_delete_that_is_repeated_takes_the_container_too(
    small: SmallSwift, open_store: Callable[..., Store], what: str, times: int
) -> None:
    """Whichever answer was lost, and whoever repeats: the engine, or the user."""
    store = open_store(
        swift_store_multi_tenant=True,
        swift_store_create_container_on_put=True,
        swift_store_endpoint=f"{small.server.url}/v1/TEMP_test",
    )
    small.tokens.add("token-of-a-user")
    context = SimpleNamespace(auth_token="token-of-a-user", project_id="p", user_id="u")
    uri = store.add("id", [SMALL], context=context).uri
    assert small.containers == {"glance_id"}

    def lose(request: Request) -> Reply:
        small.usual(request)
        return Reply(503)

    small.fail(f"^DELETE .*{what}$", lose, times)
    if times == 3:
        with pytest.raises(RemoteServiceUnavailable):
            store.delete(uri, context=context)
        with pytest.raises(NotFound):
            store.delete(uri, context=context)
    else:
        store.delete(uri, context=context)
    assert not small.containers


class _Account:
    """An account with one container, of which only the head is asked for."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.asked: list[str] = []

    def head(self, _: str) -> SwiftResponse | None:
        return SwiftResponse(204, self.headers, b"") if self.headers else None

    def ask(self, method: str, path: str, *_: int) -> None:
        self.asked.append(f"{method} {path}")


MADE = "Fri, 20 Nov 2026 16:30:27 GMT"


@pytest.mark.parametrize(
    ("headers", "old"),
    [
        ({"Last-Modified": MADE, "Date": "Fri, 20 Nov 2026 17:30:30 GMT"}, True),
        ({"Last-Modified": MADE, "Date": "Fri, 20 Nov 2026 17:30:20 GMT"}, False),
        ({"Last-Modified": MADE, "Date": "Fri, 20 Nov 2026 16:00:00 GMT"}, False),
        ({"Last-Modified": MADE, "Date": "today"}, False),
        ({"Last-Modified": MADE}, False),
        ({"Date": MADE}, False),
        ({}, False),
    ],
)
def test_a_young_container_is_left_to_the_add_that_made_it(
    headers: dict[str, str], old: bool
) -> None:
    """Only an old one is what a delete has left; the server's own clock tells."""
    account: Any = _Account(headers)
    container = Container(account, "c_id")
    ContainerPolicy(True, {}, own=True).delete_old(container)
    assert account.asked == (["DELETE /c_id"] if old else [])
    account.asked.clear()
    ContainerPolicy(True, {}, own=False).delete_old(container)
    assert not account.asked


def test_the_token_is_in_no_error_and_no_log(
    small: SmallSwift, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither key nor token shows, whatever fails."""
    caplog.set_level(0)
    store.add("id", [SMALL])
    small.fail(r"^GET", Reply(500))
    with pytest.raises(RemoteServiceUnavailable) as caught:
        store.get("swift+config://ref1/glance/id")
    texts = caplog.text + str(caught.value) + repr(vars(caught.value)) + repr(store.driver)
    assert "token-1" not in texts
    assert "key-5eCr" not in texts


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_certificates_are_verified(open_store: Callable[..., Store], tmp_path: Path) -> None:
    """A server is trusted by the configured authority, or not at all, unless that is asked for."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    with SmallSwift(tls=context) as small:
        for trusted in ({"swift_store_cacert": str(file)}, {"swift_store_auth_insecure": True}):
            store = open_store(**small.options(**trusted))
            uri = store.add("id", [LARGE]).uri
            with store.get(uri) as reader:
                assert reader.read() == LARGE
            store.delete(uri)
        store = open_store(**small.options())
        with pytest.raises(RemoteServiceUnavailable, match="swift_store_cacert") as caught:
            store.stat(uri)
        assert caught.value.status is ErrorStatus.PERMANENT


def test_a_forked_child_uses_nothing_of_its_parents(small: SmallSwift, store: Store) -> None:
    """After a fork the child logs in and connects by itself, and the parent goes on."""
    uri = store.add("id", [SMALL]).uri
    before = small.server.connections
    child = os.fork()
    if not child:
        with store.get(uri) as reader:
            os._exit(0 if reader.read() == SMALL else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert small.logins == 2
    made = small.server.connections - before
    with store.get(uri) as reader:
        assert reader.read() == SMALL
    assert small.server.connections - before == made


def test_an_add_leaves_nothing_to_the_garbage_collector(store: Store) -> None:
    """What an add held in memory is free when it returns: nothing of it is in a cycle."""
    store.add("warm", iter([LARGE]))
    with collected() as left:
        store.add("large", iter([LARGE]))
        store.add("small", b"x")
    assert left == []
