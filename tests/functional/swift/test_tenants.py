"""Multi-tenant stores on real Swift and Keystone: contexts, access lists, trusts."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    Forbidden,
    NotAuthenticated,
    NotFound,
)
from tests.functional.swift.accounts import Raw, context_of, tenants, v3
from tests.servers.keystone import Keystone
from tests.servers.process import eventually
from tests.servers.swift import Swift

SEGMENT = 1000 * 1024
LARGE = os.urandom(2 * SEGMENT + 5)


@pytest.fixture
def demo(keystone: Keystone, swift: Swift) -> SimpleNamespace:
    """The context of a request of a tenant."""
    return context_of(keystone.login("demo"))


@pytest.fixture
def store(
    keystone: Keystone, swift: Swift, container: str, open_store: Callable[..., Store]
) -> Store:
    """A multi-tenant store that the project of demo2 may read and write everything in."""
    return open_store(tenants(keystone, container))


def test_every_call_needs_a_context(store: Store, swift: Swift) -> None:
    """Without a context, or without a token or a catalog in it, the error says what is missing."""
    uri = f"swift+{swift.keystone_url}x/c_id/id"
    calls: list[Callable[[Any], Any]] = [
        lambda context: store.add("id", [b"x"], context=context),
        lambda context: store.get(uri, context=context),
        lambda context: list(store.list(context=context)),
    ]
    for call in calls:
        with pytest.raises(BadStoreConfiguration, match="needs the context"):
            call(None)
        with pytest.raises(NotAuthenticated, match="auth_token"):
            call(SimpleNamespace())
        with pytest.raises(BadStoreConfiguration, match="service_catalog"):
            call(SimpleNamespace(auth_token="x"))


def test_a_token_that_is_refused(store: Store, demo: SimpleNamespace) -> None:
    """A user's token that has ended cannot be renewed, and the error says so."""
    demo.auth_token = "no-token"
    with pytest.raises(NotAuthenticated, match="expired or was revoked"):
        store.add("id", [b"x"], context=demo)


def test_a_token_goes_to_the_catalogs_server_only(store: Store, demo: SimpleNamespace) -> None:
    """A URI that leads elsewhere gets no token."""
    for uri in (
        "swift+http://127.0.0.1:1/v1/AUTH_x/c_id/id",
        "swift+https://example.org/v1/AUTH_x/c_id/id",
        "swift+config://ref1/c/id",
        "swift+http://user:key@127.0.0.1:1/v1/AUTH_x/c_id/id",
    ):
        with pytest.raises(BadStoreUri):
            store.get(uri, context=demo)


def test_a_single_tenant_store_beside_a_multi_tenant_one(
    keystone: Keystone, swift: Swift, demo: SimpleNamespace, container: str, tmp_path: Path
) -> None:
    """A tenant's URI is the multi-tenant store's, however much the other's login may do."""
    conf = {
        "DEFAULT": {"enabled_backends": "one:swift, many:swift"},
        "glance_store": {"default_backend": "one"},
        "one": v3(keystone, container, tmp_path),
        "many": tenants(keystone, container),
    }
    with Stores.from_mapping(conf, strict=True) as stores:
        uri = stores.add("id", b"the tenant's", store="many", context=demo).uri
        own = stores.add("a%20b", b"the service's").uri
        with stores.get(uri, context=demo) as reader:
            assert reader.read() == b"the tenant's"
        for call in (stores.get, stores.stat, stores.delete):
            with pytest.raises(BadStoreUri, match="in the account of store one"):
                call(uri, store="one")
        other = context_of(keystone.login("demo2"))
        with pytest.raises(Forbidden):
            stores.delete(uri, context=other)
        stores.delete(uri, context=demo)
        account = f"{swift.keystone_url}{keystone.login('glance').project_id}"
        storage = f"swift+{account}/{container}/a%2520b"
        for each in (own, storage, own.replace("%2520", "%20")):
            with stores.get(each, context=demo) as reader:
                assert reader.read() == b"the service's"
        stores.delete(own.replace("%2520", "%20"))
    account_of_demo = Raw(swift.keystone_url + demo.project_id, demo.auth_token)
    assert container not in account_of_demo("GET").data.decode()


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
def test_access_lists(
    keystone: Keystone,
    open_store: Callable[..., Store],
    demo: SimpleNamespace,
    container: str,
    data: bytes,
) -> None:
    """Others read an object, its segments too, once they are let, and write as they are let."""
    other = keystone.login("demo2")
    context = context_of(other)
    store = open_store(tenants(keystone, container, swift_store_admin_tenants="abc, *:boss"))
    uri = store.add("id", [data], context=demo).uri
    with pytest.raises(Forbidden, match="access lists"):
        store.get(uri, context=context)
    store.set_acls(uri, read_tenants=[other.project_id], context=demo)
    with store.get(uri, context=context) as reader:
        assert reader.read() == data
    with pytest.raises(Forbidden):
        store.delete(uri, context=context)
    store.set_acls(uri, context=demo)
    with pytest.raises(Forbidden):
        store.stat(uri, context=context)
    store.set_acls(uri, public=True, context=demo)
    assert store.stat(uri, context=context).size == len(data)
    store.delete(uri, context=demo)
    with pytest.raises(NotFound):
        store.set_acls(uri, public=True, context=demo)


def test_admin_tenants_read_and_write_all_containers(
    keystone: Keystone,
    open_store: Callable[..., Store],
    demo: SimpleNamespace,
    container: str,
    raw_keystone: Callable[[str], Raw],
) -> None:
    """Admin tenants stand in both access lists from the start, and stay when others are set."""
    other = keystone.login("demo2")
    admins = f"{other.project_id}, *:boss"
    store = open_store(tenants(keystone, container, swift_store_admin_tenants=admins))
    uri = store.add("id", [b"x"], context=demo).uri
    account = raw_keystone("demo")
    for _ in range(2):
        headers = account("HEAD", f"/{container}_id").headers
        for name in ("X-Container-Read", "X-Container-Write"):
            assert headers[name].split(",")[-2:] == [f"{other.project_id}:*", "*:boss"]
        store.set_acls(uri, read_tenants=["abc"], write_tenants=["def"], context=demo)
    assert account("HEAD", f"/{container}_id").headers["X-Container-Write"].startswith("def:*,")
    with store.get(uri, context=context_of(other)) as reader:
        assert reader.read() == b"x"
    # The object goes, and its container is its owner's.
    store.delete(uri, context=context_of(other))
    with pytest.raises(NotFound):
        store.stat(uri, context=demo)
    assert account("DELETE", f"/{container}_id").status == 204


def _trusts(keystone: Keystone) -> set[str]:
    found = keystone.call("GET", "/OS-TRUST/trusts")["trusts"]
    return {each["id"] for each in found}


@pytest.mark.parametrize("fails", [False, True])
def test_a_trust_lasts_as_long_as_an_add_in_segments(
    keystone: Keystone, store: Store, demo: SimpleNamespace, fails: bool
) -> None:
    """While it is at work there is one; afterwards there is none, however it ended."""
    during: list[int] = []
    earlier = _trusts(keystone)  # adds that were killed leave theirs to expire

    def source() -> Iterator[bytes]:
        yield LARGE[:SEGMENT]
        eventually(lambda: _trusts(keystone) != earlier, "a trust")
        during.append(len(_trusts(keystone) - earlier))
        yield LARGE[SEGMENT:]
        if fails:
            raise LookupError

    try:
        uri = store.add("id", source(), context=demo).uri
    except LookupError:
        assert fails
    assert during == [1]
    assert _trusts(keystone) == earlier
    if not fails:
        store.delete(uri, context=demo)
    assert list(store.list(context=demo)) == []
    assert list(store.list_incomplete(context=demo)) == []


def test_adds_at_once_have_a_trust_each(
    keystone: Keystone, store: Store, demo: SimpleNamespace
) -> None:
    """Keystone refuses trusts that are alike: those of one user differ in when they end."""
    earlier = _trusts(keystone)

    def source(deep: int) -> Iterator[bytes]:
        yield LARGE
        eventually(lambda: len(_trusts(keystone) - earlier) == deep, "a trust for each")
        if deep < 4:
            uris.append(store.add(str(deep), source(deep + 1), context=demo).uri)
        yield LARGE

    uris: list[str] = []
    uris.append(store.add("0", source(1), context=demo).uri)
    assert _trusts(keystone) == earlier
    for uri in uris:
        store.delete(uri, context=demo)


def test_tokens_that_end_while_an_add_is_at_work(
    keystone: Keystone,
    swift: Swift,
    open_store: Callable[..., Store],
    container: str,
    tmp_path: Path,
) -> None:
    """Past the end of every token: trusts and the store's own login go on, a user alone cannot."""
    soon = {"swift_store_expire_soon_interval": 1}
    trusting = open_store(tenants(keystone, container, **soon))
    alone = open_store(tenants(keystone, container, **soon, swift_store_use_trusts=False))
    single = open_store(v3(keystone, container, tmp_path, **soon))
    earlier = _trusts(keystone)
    uris: list[str] = []

    def while_alone() -> Iterator[bytes]:
        yield LARGE
        result = trusting.add("trusting", while_trusting(), context=demo)
        assert not result.report.retries
        uris.append(result.uri)
        yield LARGE

    def while_trusting() -> Iterator[bytes]:
        yield LARGE
        result = single.add("single", while_single())
        assert not result.report.retries
        with single.get(result.uri) as reader:
            assert reader.read() == LARGE * 2
        single.delete(result.uri)
        yield LARGE

    def while_single() -> Iterator[bytes]:
        yield LARGE
        eventually(
            lambda: _trusts(keystone) != earlier and not keystone.knows(newest.token),
            "a trust, and the token's end",
        )
        yield LARGE

    with keystone.short_tokens(5):
        demo = context_of(keystone.login("demo"))
        small = single.add("small", [b"x"]).uri
        newest = keystone.login("demo")
        with pytest.raises(NotAuthenticated, match="expired or was revoked") as caught:
            alone.add("alone", while_alone(), context=demo)
        assert "Cleaning up failed" in caught.value.__notes__[0]
        single.delete(small)
    assert _trusts(keystone) == earlier
    again = context_of(keystone.login("demo"))
    with trusting.get(uris[0], context=again) as reader:
        assert reader.read() == LARGE * 2
    trusting.delete(uris[0], context=again)
    assert [each.object_id for each in alone.list_incomplete(context=again)] == ["alone"]
    assert len(alone.sweep(0, context=again)) == 1
    assert list(alone.list_incomplete(context=again)) == []


def test_no_trust_is_made_where_none_is_needed(
    keystone: Keystone,
    open_store: Callable[..., Store],
    demo: SimpleNamespace,
    container: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Off by option, or refused by Keystone, the user's own token does, with a warning."""
    options = tenants(keystone, container, swift_store_use_trusts=False)
    uri = open_store(options).add("id", [LARGE], context=demo).uri
    assert not caplog.records
    wrong = open_store({**options, "swift_store_use_trusts": True, "swift_store_key": "wrong"})
    wrong.delete(uri, context=demo)
    uri = wrong.add("id", [LARGE], context=demo).uri
    assert "No trust" in caplog.text
    assert "wrong" not in caplog.text
    wrong.delete(uri, context=demo)


@pytest.mark.parametrize("told", [True, False], ids=["size told", "size not told"])
def test_deletes_do_not_take_the_container_from_under_an_add(
    store: Store,
    demo: SimpleNamespace,
    container: str,
    raw_keystone: Callable[[str], Raw],
    told: bool,
) -> None:
    """Deletes of an id that is just being added find nothing, and the add succeeds."""
    account = raw_keystone("demo")
    ended = threading.Event()
    wrong: list[str] = []

    def delete(uri: str) -> None:
        while not ended.is_set():
            try:
                store.delete(uri, context=demo)
                wrong.append("a delete found what was not there yet")
            except NotFound:
                pass
            # As a delete does that has just removed an object of this id.
            account("DELETE", f"/{container}_id")
            ended.wait(0.1)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(LARGE), 100_000):
            time.sleep(0.02)
            yield LARGE[start : start + 100_000]
        ended.set()
        for each in threads:
            each.join()

    uri = store.add("id", [b"first"], context=demo).uri
    store.delete(uri, context=demo)
    for _ in range(5):
        ended.clear()
        threads = [threading.Thread(target=delete, args=(uri,), daemon=True) for _ in range(2)]
        for each in threads:
            each.start()
        store.add("id", pieces(), len(LARGE) if told else None, context=demo)
        assert not wrong
        with store.get(uri, context=demo) as reader:
            assert reader.read() == LARGE
        store.delete(uri, context=demo)
        assert f"{container}_id" not in account("GET").data.decode()


def test_an_application_credential_cannot_be_trusted(
    keystone: Keystone, open_store: Callable[..., Store], demo: SimpleNamespace, container: str
) -> None:
    """It cannot act on a trust, so none is made, and the user's own token does."""
    made, secret = keystone.application_credential("glance")
    options = tenants(keystone, container)
    del options["swift_store_user"], options["swift_store_key"]
    options["swift_store_application_credential_id"] = made
    options["swift_store_application_credential_secret"] = secret
    store = open_store(options)
    earlier = _trusts(keystone)
    uri = store.add("id", [LARGE], context=demo).uri
    assert _trusts(keystone) == earlier
    with store.get(uri, context=demo) as reader:
        assert reader.read() == LARGE
    store.delete(uri, context=demo)
