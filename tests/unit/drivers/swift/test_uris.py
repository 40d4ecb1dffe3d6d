"""Which object a URI means: of which account, of which store, and by which of two names."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    BadStoreConfiguration,
    BadStoreUri,
    Forbidden,
    Invalid,
    NotFound,
)
from tests.scripted_server import Reply
from tests.unit.drivers.swift.small_swift import KEY, SmallSwift


def _read(store: Store | Stores, uri: str, **more: Any) -> bytes:
    with store.get(uri, **more) as reader:
        return bytes(reader.read())


def _storage(small: SmallSwift, account: str, path: str) -> str:
    return f"swift+{small.server.url}/v1/{account}/{path}"


@pytest.mark.parametrize("endpoint", [False, True])
def test_only_the_stores_own_account_is_obeyed(
    small: SmallSwift, open_store: Callable[..., Store], endpoint: bool
) -> None:
    """The service's login may do more in other accounts than whoever wrote a URI into them."""
    more = {"swift_store_endpoint": f"{small.server.url}/v1/TEMP_test/"} if endpoint else {}
    store = open_store(**small.options(**more))
    store.add("id", [b"own"])
    own = _storage(small, "TEMP_test", "glance/id")
    assert _read(store, own) == _read(store, own.replace("TEMP_", "%54EMP%5F")) == b"own"
    for account in ("TEMP_other", "TEMP_test/TEMP_other", "TEMP_tes", ""):
        foreign = _storage(small, account, "glance/id")
        for call in (store.get, store.stat, store.delete, store.url):
            with pytest.raises(BadStoreUri, match="Expected a URI in the account of store it"):
                call(foreign)
        with pytest.raises(BadStoreUri):
            store.copy(foreign, "copy")
    assert not [each for each in small.server.requests if "TEMP_other" in each.target]
    store.delete(own)
    assert not small.names


def test_an_account_that_the_store_has_left_is_named_by_an_option(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """Its URIs mean the same container and object in the account that is configured now."""
    store = open_store(**small.options(former_places=["https://old.example/v1/AUTH_gone"]))
    store.add("id", [b"moved"])
    uri = "swift+https://old.example/v1/AUTH_gone/glance/id"
    assert _read(store, uri) == b"moved"
    for other in (
        "old.example/v1/AUTH_other",
        "old.example/AUTH_gone",
        "else.example/v1/AUTH_gone",
    ):
        with pytest.raises(BadStoreUri, match="list it in former_places"):
            store.delete(f"swift+https://{other}/glance/id")
    store.delete(uri)
    assert not small.names


def test_a_server_that_tenants_have_left_is_named_by_an_option(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """Account, container and object of a URI are those of the server that the catalog names."""
    small.tokens.add("token-of-a-user")
    url = f"{small.server.url}/v1/TEMP_other"
    catalog = [{"type": "object-store", "endpoints": [{"publicURL": url}]}]
    context = SimpleNamespace(
        auth_token="token-of-a-user", project_id="p", user_id="u", service_catalog=catalog
    )
    small.containers.add("v1")
    small.objects["v1/TEMP_other/glance_id/id"] = b"moved", {}
    store = open_store(swift_store_multi_tenant=True, former_places=["old.example:8080"])
    path = "v1/TEMP_other/glance_id/id"
    assert _read(store, f"swift+https://old.example:8080/{path}", context=context) == b"moved"
    with pytest.raises(BadStoreUri, match=r"list old\.example in former_places"):
        store.stat(f"swift+https://old.example/{path}", context=context)
    store.delete(f"swift+https://old.example:8080/{path}", context=context)
    assert path not in small.objects


@pytest.mark.parametrize("order", ["one:swift, many:swift", "many:swift, one:swift"])
@pytest.mark.parametrize("endpoint", [False, True])
def test_of_two_kinds_of_stores_the_right_one_is_asked(
    small: SmallSwift, order: str, endpoint: bool
) -> None:
    """A tenant's URI goes to the multi-tenant store, with the tenant's token and none other."""
    small.tokens.add("token-of-a-user")
    url = f"{small.server.url}/v1/TEMP_other"
    catalog = [{"type": "object-store", "endpoints": [{"publicURL": url}]}]
    context = SimpleNamespace(
        auth_token="token-of-a-user", project_id="p", user_id="u", service_catalog=catalog
    )
    own = {"swift_store_endpoint": f"{small.server.url}/v1/TEMP_test"} if endpoint else {}
    small.containers.add("v1")
    small.objects["v1/TEMP_other/glance_id/id"] = b"the tenant's", {}
    conf = {
        "DEFAULT": {"enabled_backends": order},
        "glance_store": {"default_backend": "one"},
        "one": {**small.options(**own), "transfer_attempts": 1},
        "many": {"swift_store_multi_tenant": True, "transfer_attempts": 1},
    }
    with Stores.from_mapping(conf, strict=True) as stores:
        uri = _storage(small, "TEMP_other", "glance_id/id")
        assert _read(stores, uri, context=context) == b"the tenant's"
        assert stores.stat(uri, context=context).size == 12
        stores.delete(uri, context=context)
        with pytest.raises(NotFound):
            stores.stat(uri, context=context)
        with pytest.raises(BadStoreUri):
            stores.delete(uri, "one", context=context)
    asked = [each for each in small.server.requests if "TEMP_other" in each.target]
    assert {each.headers["x-auth-token"] for each in asked} == {"token-of-a-user"}
    assert "DELETE /v1/TEMP_other/glance_id" in [f"{each.method} {each.target}" for each in asked]


def test_a_percent_sign_of_glance_store_is_found(small: SmallSwift, store: Store) -> None:
    """It wrote ids as they are, and here they are written encoded: both are read."""
    uri = "swift+config://ref1/glance/a%20b"
    assert store.add("a b", [b"decoded"]).uri == uri
    assert store.add("a%20b", [b"as it stands"]).uri == "swift+config://ref1/glance/a%2520b"
    assert _read(store, uri) == b"decoded"
    assert store.stat(uri).size == 7
    with pytest.raises(BackendException, match="two objects, glance/a b and glance/a%20b"):
        store.delete(uri)
    assert len(small.names) == 2
    store.delete("swift+config://ref1/glance/a b")
    assert _read(store, uri) == b"as it stands"
    assert store.stat(uri).size == 12
    store.delete(uri)
    assert not small.names
    for call in (store.get, store.stat, store.delete):
        with pytest.raises(NotFound, match="glance/a b"):
            call(uri)


def test_a_delete_by_one_of_two_names_can_be_repeated(small: SmallSwift, store: Store) -> None:
    """What a first request deleted is not told as missing."""
    store.add("a%20b", [b"x"])
    small.fail(
        r"^DELETE ", lambda request: Reply(503) if small.usual(request).status < 300 else None, 1
    )
    store.delete("swift+config://ref1/glance/a%20b")
    assert not small.names


def test_a_container_with_a_percent_sign_is_found(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """Container and object are taken together, decoded or as they stand."""
    store = open_store(**small.options(swift_store_container="c%41"))
    store.add("a%20b", [b"x"])
    assert _read(store, "swift+config://ref1/c%41/a%20b") == b"x"
    for mixed in ("c%2541/a%20b", "c%41/a%2520b"):
        with pytest.raises(NotFound):
            store.stat(f"swift+config://ref1/{mixed}")


def _write(path: Path, small: SmallSwift, key: str, name: str = "main") -> None:
    """Write the file of accounts anew, so that it differs whatever the clock's steps are."""
    text = (
        f"[{name}]\nauth_version = 1\nuser = test:tester\nkey = {key}\n"
        f"auth_address = {small.server.url}/auth/v1.0\n"
    )
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_a_file_of_accounts_that_was_mended_is_read_again(
    small: SmallSwift,
    open_store: Callable[..., Store],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No restart is needed for a new key or a new account; a bad change leaves the old ones."""
    path = tmp_path / "swift.conf"
    _write(path, small, "wrong")
    options = {**small.options(), "swift_store_config_file": str(path)}
    for each in ("auth_version", "auth_address", "user", "key"):
        options.pop(f"swift_store_{each}")
    store = open_store(**options)
    with pytest.raises(AuthorizationFailure):
        store.add("id", [b"x"])
    _write(path, small, KEY)
    uri = store.add("id", [b"x"]).uri
    assert uri == "swift+config://main/glance/id"
    path.write_text("no section and no sense")
    small.tokens.clear()
    assert _read(store, uri) == _read(store, uri) == b"x"
    assert caplog.text.count("has changed and cannot be used") == 1
    assert "no sense" not in caplog.text
    path.unlink()
    assert _read(store, uri) == b"x"
    assert caplog.text.count("cannot be read") == 1
    _write(path, small, KEY, "other")
    assert store.add("id2", [b"y"]).uri == "swift+config://other/glance/id2"
    with pytest.raises(BadStoreUri, match="Its accounts are: other"):
        store.stat(uri)
    assert KEY not in caplog.text


def test_access_lists_name_whole_tenants_only(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """What would let others in, or write other headers, is refused before anything is sent."""
    store = open_store(
        swift_store_multi_tenant=True,
        swift_store_admin_tenants=["service:glance"],
        swift_store_endpoint=f"{small.server.url}/v1/TEMP_test",
    )
    small.tokens.add("token-of-a-user")
    context = SimpleNamespace(auth_token="token-of-a-user", project_id="p", user_id="u")
    small.containers.add("glance_id")
    uri = _storage(small, "TEMP_test", "glance_id/id")
    wrong = [
        "",
        "a,b",
        "a,.r:*,b",
        ".r",
        ".rlistings",
        "a:b",
        "*",
        "a b",
        "a\r\nX-B: c",
        "a\n",
        "\0",
    ]
    for tenant in wrong:
        for kind in ("read_tenants", "write_tenants"):
            with pytest.raises(Invalid, match="a tenant"):
                store.set_acls(uri, context=context, **{kind: [tenant]})
    assert not small.sent("POST")
    store.set_acls(
        uri, read_tenants=["a.b-c", "\u00e4\u20ac"], write_tenants=["w"], context=context
    )
    (sent,) = [each for each in small.server.requests if each.method == "POST"]
    readers = sent.headers["x-container-read"].encode("latin-1").decode()
    assert readers == "a.b-c:*,\u00e4\u20ac:*,service:glance"
    assert sent.headers["x-container-write"] == "w:*,service:glance"


def test_a_login_in_a_uri_reaches_named_hosts_only(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """Whoever can choose a URI does not choose whom the service asks, nor what for."""
    options = small.options()
    store = open_store(**options)
    store.add("id", [b"own"])
    key = KEY
    own = f"swift+{small.server.url.replace('//', f'//test%3Atester:{key}@')}/auth/v1.0/glance/id"
    other = own.replace("tester", "another")
    assert _read(store, own) == _read(store, other) == b"own"
    with SmallSwift() as far:
        far.server.url = far.server.url.replace("localhost", "127.0.0.1")
        foreign = f"swift+{far.server.url.replace('//', f'//a%3Ab:{key}@')}/auth/v1.0/glance/id"
        for call in (store.get, store.stat, store.delete):
            with pytest.raises(BadStoreUri, match="swift_store_uri_login_hosts") as caught:
                call(foreign)
            assert key not in str(caught.value)
        assert not far.server.requests
        far.containers.add("glance")
        far.objects["glance/id"] = b"far", {}
        named = open_store(**options, swift_store_uri_login_hosts=["127.0.0.1"])
        assert _read(named, foreign) == b"far"
        headers = {"X-Storage-Url": "http://localhost:1/v1/AUTH_p", "X-Auth-Token": "t"}
        outside = BadStoreUri, "leads to an account at"
        malformed = BackendException, "Expected a storage URL"
        for url, (kind, said) in {
            "http://localhost:1/v1/A": outside,
            "http://[::1/v1": malformed,
            "/v1/A": malformed,
            f"http://a:{key}@127.0.0.1:1/v1/A": malformed,
        }.items():
            far.fail("/auth/", Reply(200, headers={**headers, "X-Storage-Url": url}), times=1)
            with pytest.raises(kind, match=said) as caught:
                named.stat(foreign)
            assert key not in str(caught.value)


@pytest.fixture
def lookup(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ``rebound.example`` is looked up as, the first address first."""
    found: list[str] = []
    usual = socket.getaddrinfo

    def look(host: str, *args: Any, **kwargs: Any) -> Any:
        return usual(found.pop(0) if host == "rebound.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    return found


@pytest.mark.parametrize("version", ["1", "3"])
def test_a_named_host_does_not_lead_to_a_denied_address(
    version: str, small: SmallSwift, open_store: Callable[..., Store], lookup: list[str]
) -> None:
    """It is the address that is connected to that counts, at every connection."""
    options = small.options(swift_store_auth_version=version)
    options["swift_store_uri_login_denied_addresses"] = ["127.0.0.0/8", "::1"]
    port = small.server.port
    uri = f"swift+http://a%3Ab:{KEY}@rebound.example:{port}/auth/v1.0/glance/id"
    own = uri.replace("rebound.example", "127.0.0.1")
    for hosts in (["rebound.example"], ["rebound.example", "127.0.0.1"]):
        store = open_store(**options, swift_store_uri_login_hosts=hosts)
        for call in (store.get, store.stat, store.delete):
            lookup.append("127.0.0.1")
            with pytest.raises(Forbidden, match="swift_store_uri_login_denied") as caught:
                call(uri)
            assert KEY not in str(caught.value)
        if "127.0.0.1" in hosts:
            with pytest.raises(Forbidden, match="swift_store_uri_login_denied"):
                store.get(own)
    assert not small.server.requests
    assert not lookup


def test_an_account_does_not_lead_to_a_denied_address(
    small: SmallSwift, open_store: Callable[..., Store], lookup: list[str]
) -> None:
    """A name that changes its address after the login leads nowhere."""
    options = small.options(swift_store_uri_login_hosts=["rebound.example"])
    options["swift_store_uri_login_denied_addresses"] = ["127.0.0.2"]
    store = open_store(**options)
    with SmallSwift() as far:
        far.containers.add("glance")
        far.objects["glance/id"] = b"far", {}
        far.server.url = f"http://rebound.example:{far.server.port}"
        uri = f"swift+http://a%3Ab:{KEY}@rebound.example:{far.server.port}/auth/v1.0/glance/id"
        lookup.extend(["127.0.0.1"] * 3)
        assert _read(store, uri) == b"far"
        del lookup[:]
        with SmallSwift() as other:  # another port, so that a new connection is made
            account = f"http://rebound.example:{other.server.port}/v1/AUTH_test"
            headers = {"X-Storage-Url": account, "X-Auth-Token": "t"}
            far.fail("/auth/", Reply(200, headers=headers))
            lookup.extend(["127.0.0.2"] * 2)
            with pytest.raises(Forbidden, match="swift_store_uri_login_denied"):
                store.get(uri)
            assert not other.server.requests


def test_malformed_addresses_are_refused(
    small: SmallSwift, open_store: Callable[..., Store]
) -> None:
    """A list that would deny nothing is the store's fault at its start."""
    name = "swift_store_uri_login_denied_addresses"
    with pytest.raises(BadStoreConfiguration, match=f"{name}: expected a host name"):
        open_store(**small.options(**{name: ["host:80"]}))
