"""What real Swift and Keystone refuse, and what their restarts do to transfers."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from store_lib import Store
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    BadStoreConfiguration,
    ErrorStatus,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
)
from store_lib.transfer.budget import Budget
from tests.functional.swift.accounts import LAYOUT, Raw, raw_v1, v1, v3
from tests.relay import CuttingRelay
from tests.servers.keystone import Keystone, password, request
from tests.servers.process import eventually, free_ports
from tests.servers.swift import Swift
from tests.servers.swift import swift as run_swift

Open = Callable[..., Store]

SEGMENT = 1000 * 1024
LARGE = os.urandom(3 * SEGMENT + 5)


def _login(keystone: Keystone, **more: Any) -> dict[str, Any]:
    return {
        "swift_store_auth_address": keystone.url,
        "swift_store_user": "service:glance",
        "swift_store_key": password("glance"),
        **more,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"swift_store_key": "no such key"},
        {"swift_store_user": "service:nobody"},
        {"swift_store_user": "nothing:glance"},
        {"swift_store_user": "demo:glance"},
    ],
    ids=["password", "user", "project", "foreign project"],
)
def test_keystone_refuses_a_wrong_login(
    keystone: Keystone, swift: Swift, open_store: Open, wrong: dict[str, str]
) -> None:
    """A wrong password, user or project is AuthorizationFailure, told once and for all."""
    store = open_store(_login(keystone, **wrong))
    with pytest.raises(AuthorizationFailure, match="refuses the login of the configured") as it:
        store.add("id", [b"x"], 1)
    assert it.value.status is ErrorStatus.PERMANENT
    assert "no such key" not in str(it.value)


def test_the_old_login_refuses_a_wrong_key(swift: Swift, open_store: Open, container: str) -> None:
    """A wrong key of version 1 is AuthorizationFailure."""
    store = open_store(v1(swift, container, swift_store_key="no such key"))
    with pytest.raises(AuthorizationFailure, match="refuses the login"):
        store.stat(f"swift+config://ref1/{container}/id")


def test_a_service_that_the_catalog_has_not(
    keystone: Keystone, swift: Swift, open_store: Open
) -> None:
    """A region or a type of service that the catalog lacks is told with what to check."""
    for wrong in ({"swift_store_region": "nowhere"}, {"swift_store_service_type": "blob"}):
        store = open_store(_login(keystone, **wrong))
        with pytest.raises(BadStoreConfiguration, match="Check the service's type"):
            store.add("id", [b"x"], 1)


def test_application_credentials_and_chosen_endpoints(
    keystone: Keystone, swift: Swift, open_store: Open, container: str
) -> None:
    """An application credential logs in; a configured endpoint, interface and region are used."""
    made, secret = keystone.application_credential("glance")
    store = open_store(
        {
            "swift_store_auth_address": keystone.url,
            "swift_store_application_credential_id": made,
            "swift_store_application_credential_secret": secret,
            "swift_store_region": "RegionOne",
            "swift_store_endpoint_type": "internalURL",
            "swift_store_container": container,
            "swift_store_create_container_on_put": True,
        }
    )
    uri = store.add("id", [b"by credential"]).uri
    both = swift.both_url + "/v1/AUTH_" + keystone.login("glance").project_id
    other = open_store(_login(keystone, swift_store_endpoint=both, swift_store_container=container))
    with other.get(uri) as reader:
        assert reader.read() == b"by credential"
    other.delete(uri)


def test_references_lead_to_their_accounts(
    keystone: Keystone, swift: Swift, open_store: Open, container: str, tmp_path: Path
) -> None:
    """A URI's reference says which account an object is read from and deleted in."""
    options = v3(keystone, container, tmp_path)
    main = open_store(options)
    other = open_store({**options, "default_swift_reference": "other"})
    uri = other.add("id", [b"the other's"]).uri
    assert uri == f"swift+config://other/{container}/id"
    with main.get(uri) as reader:
        assert reader.read() == b"the other's"
    with pytest.raises(NotFound):
        main.stat(uri.replace("other", "main"))
    main.delete(uri)
    with pytest.raises(NotFound):
        other.stat(uri)


def test_a_uri_with_a_login_in_it(swift: Swift, open_store: Open, container: str) -> None:
    """An old URI is read by the configured login of its user, also after the key was changed."""
    options = v1(swift, container)
    store = open_store(options)
    store.add("id", [b"old"])
    address = swift.v1_url.removeprefix("http://")
    for key in (options["swift_store_key"], "an%3Aold%40k/ey"):
        uri = f"swift+http://test%3Atester:{key}@{address}/{container}/id"
        with store.get(uri) as reader:
            assert reader.read() == b"old"
    foreign = f"swift+http://test2%3Atester2:testing2-5eCr@{address}/{container}/id"
    with pytest.raises(NotFound):
        store.stat(foreign)
    store.delete(uri)


def test_a_missing_container_that_must_not_be_made(
    swift: Swift, open_store: Open, container: str
) -> None:
    """Without leave to make containers an add says which option is missing."""
    store = open_store(v1(swift, container, swift_store_create_container_on_put=False))
    for data in (b"small", LARGE):
        with pytest.raises(BackendException, match="swift_store_create_container_on_put"):
            store.add("id", [data])


@pytest.mark.parametrize("told", [True, False])
def test_more_than_the_server_takes_in_one_object(
    swift: Swift, raw: Raw, open_store: Open, container: str, told: bool
) -> None:
    """A segment above max_file_size is StorageFull with the options to lower; nothing is left."""
    more = {"swift_store_large_object_size": 5000, "swift_store_large_object_chunk_size": 20}
    store = open_store(v1(swift, container, **more))
    size = swift.max_file_size + 1
    pieces = itertools.chain([bytes(1 << 20)] * (size >> 20), [b"x"])
    with pytest.raises(StorageFull, match="swift_store_large_object_chunk_size"):
        store.add("id", pieces, size if told else None, digests=())
    assert raw.names(container) == []


def test_a_token_that_is_revoked_in_the_middle(
    keystone: Keystone,
    swift: Swift,
    raw_keystone: Callable[[str], Raw],
    open_store: Open,
    container: str,
) -> None:
    """Keystone no longer knows a token: Swift answers 401, and the segment is sent with another."""
    store = open_store(_login(keystone, **LAYOUT, swift_store_container=container))
    account = raw_keystone("glance")

    def source() -> Iterator[bytes]:
        yield LARGE[:SEGMENT]
        eventually(lambda: account.names(container), "a segment")
        _revoke_next(store, keystone)
        yield LARGE[SEGMENT:]

    result = store.add("id", source())
    assert result.report.retries
    with store.get(result.uri) as reader:
        assert reader.read() == LARGE
    _revoke_next(store, keystone)
    assert [each.object_id for each in store.list()] == ["id"]
    store.delete(result.uri)
    assert account.names(container) == []


def _revoke_next(store: Store, keystone: Keystone) -> None:
    """Have the store get another token, and revoke that before Swift, which remembers, sees it."""
    driver: Any = store.driver
    login = driver._tenancy.own(None).login
    login.renew(login.token())
    headers = {"X-Auth-Token": keystone.login("admin").token, "X-Subject-Token": login.token()}
    request("DELETE", f"{keystone.url}/auth/tokens", None, headers)


def test_a_token_that_ends_in_the_middle(tmp_path: Path, open_store: Open) -> None:
    """Of the old login's tokens nobody tells the end; after it Swift's 401 brings another one."""
    with run_swift(tmp_path, token_life=2) as server:
        store = open_store(v1(server, "c"))
        store.add("first", [b"x"])
        later = raw_v1(server)

        def source() -> Iterator[bytes]:
            yield LARGE[:SEGMENT]
            eventually(lambda: later("HEAD").status == 401, "the token's end")
            yield LARGE[SEGMENT:]

        result = store.add("id", source())
        assert result.report.retries
        with store.get(result.uri) as reader:
            assert reader.read() == LARGE


def test_keystone_that_does_not_answer(open_store: Open) -> None:
    """No Keystone is RemoteServiceUnavailable, tried as often as configured."""
    [port] = free_ports(1)
    store = open_store(
        {
            "swift_store_auth_address": f"http://127.0.0.1:{port}/v3",
            "swift_store_user": "service:glance",
            "swift_store_key": "x",
            "transfer_attempts": 2,
        }
    )
    with pytest.raises(RemoteServiceUnavailable, match="Keystone at") as caught:
        store.add("id", [b"x"], 1)
    assert caught.value.status is ErrorStatus.EXHAUSTED


def test_a_connection_that_is_cut_in_a_segment(
    swift: Swift, raw: Raw, open_store: Open, container: str
) -> None:
    """What lies between cuts a segment off; it is sent again, and nothing of the first is left."""
    port = urllib3.util.parse_url(swift.v1_url).port
    assert port is not None
    with CuttingRelay(port, at=SEGMENT + SEGMENT // 2) as relay:
        store = open_store(v1(swift, container, swift_store_auth_address=f"{relay.url}/auth/v1.0"))
        result = store.add("id", [LARGE])
        assert (relay.cuts, bool(result.report.retries)) == (1, True)
        with store.get(result.uri) as reader:
            assert reader.read() == LARGE
        store.delete(result.uri)
    assert raw.names(container) == []


@pytest.mark.parametrize("size", [2 * len(LARGE), None], ids=["size told", "size not told"])
def test_a_source_that_stands_still_for_too_long(
    tmp_path: Path,
    open_store: Open,
    size: int | None,
) -> None:
    """A streamed segment that Swift no longer waits for fails the add, and nothing is left.

    This release of the proxy says 499, which is for clients that went away, and not 408.
    """
    with run_swift(tmp_path, client_timeout=1) as server:
        store = open_store(v1(server, "c", swift_store_large_object_chunk_size=5), Budget(4 << 20))
        account = raw_v1(server)
        account("PUT", "/c")
        log = tmp_path / "output"

        def source() -> Iterator[bytes]:
            yield LARGE
            eventually(lambda: " 499 " in log.read_text(), "the cut request in the log")
            yield LARGE

        with pytest.raises(RemoteServiceUnavailable) as caught:
            store.add("id", source(), size)
        assert caught.value.status is ErrorStatus.EXHAUSTED
        assert account.names("c") == []


def test_a_full_disk(tmp_path: Path, open_store: Open) -> None:
    """Where a storage server has no room (507) the proxy says 503, also to deletes for a while."""
    with run_swift(tmp_path) as server:
        store = open_store(v1(server, "c", transfer_attempts=2))
        store.add("there", [b"x"])
        account = raw_v1(server)

        def source() -> Iterator[bytes]:
            yield LARGE[: 2 * SEGMENT]
            eventually(lambda: len(account.names("c")) == 3, "three segments")
            server.restart(full=True)
            yield LARGE[2 * SEGMENT :]

        for data in (source(), [b"small"]):
            with pytest.raises(RemoteServiceUnavailable, match="503") as caught:
                store.add("id", data)
            assert caught.value.status is ErrorStatus.EXHAUSTED
        assert " 507 " in (tmp_path / "output").read_text()
        server.restart()
        store.sweep(0)
        assert account.names("c") == ["there"]
        store.delete(store.add("id", [LARGE]).uri)
        assert account.names("c") == ["there"]


def test_a_restart_in_the_middle_of_an_add_and_a_get(tmp_path: Path, open_store: Open) -> None:
    """A server that is killed and comes back costs repeats and no bytes."""
    with run_swift(tmp_path) as server:
        store = open_store(v1(server, "c", transfer_attempts=8))

        def source() -> Iterator[bytes]:
            yield LARGE[:SEGMENT]
            server.restart()
            yield LARGE[SEGMENT:]

        result = store.add("id", source())
        with store.get(result.uri) as reader:
            begun = reader.read(1000)
            server.restart()
            assert begun + reader.read() == LARGE
        store.delete(result.uri)
        assert raw_v1(server).names("c") == []


def test_a_server_that_stays_away(tmp_path: Path, open_store: Open) -> None:
    """An add whose server goes away ends with an error; what it left is listed and swept later."""
    with run_swift(tmp_path) as server:
        store = open_store(v1(server, "c", transfer_attempts=2))
        store.add("there", [b"x"])
        account = raw_v1(server)

        def source() -> Iterator[bytes]:
            yield LARGE[:SEGMENT]
            eventually(lambda: len(account.names("c")) == 2, "two segments")
            server.stop()
            yield LARGE[SEGMENT:]

        with pytest.raises(RemoteServiceUnavailable) as caught:
            store.add("id", source())
        assert caught.value.status is ErrorStatus.EXHAUSTED
        assert "Cleaning up failed" in caught.value.__notes__[0]
        server.start()
        assert [each.object_id for each in store.list()] == ["there"]
        (left,) = store.list_incomplete()
        assert (left.object_id, left.size) == ("id", SEGMENT)
        assert store.sweep(3600) == []
        assert [each.key for each in store.sweep(-0.0)] == [left.key]
        assert account.names("c") == ["there"]
