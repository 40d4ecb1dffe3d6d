"""Options, files of accounts, and what of them is refused when a store is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store_lib import Store, Stores, capabilities
from store_lib.drivers.swift import SwiftDriver
from store_lib.drivers.swift.location import prefix_of
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    DriverLoadFailure,
)

GOOD = {
    "swift_store_auth_address": "http://127.0.0.1:1/v3",
    "swift_store_user": "service:glance",
    "swift_store_key": "key-5eCr",
}


def _make(**options: Any) -> Store:
    """Return a store as it was made, its error kept with it."""
    stores = Stores.from_mapping({"DEFAULT": {"enabled_backends": "it:swift"}, "it": options})
    return stores["it"]


def _from_file(directory: Path, text: str, **options: Any) -> Store:
    path = directory / "accounts.conf"
    path.write_text(text)
    return _make(swift_store_config_file=str(path), **options)


def _driver(store: Store) -> SwiftDriver:
    assert isinstance(store.driver, SwiftDriver)
    return store.driver


def _account(store: Store, name: str = "a") -> Any:
    tenancy: Any = _driver(store)._tenancy
    return tenancy.known.account(name)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "swift_store_config_file"),
        ({**GOOD, "swift_store_key": None}, "missing: key"),
        ({**GOOD, "swift_store_auth_address": None}, "missing: auth_address"),
        ({**GOOD, "swift_store_auth_version": "2"}, "auth_version = 3"),
        ({**GOOD, "swift_store_auth_version": "x"}, "got version x"),
        ({**GOOD, "swift_store_auth_address": "http://h:5000/v2.0/"}, "/v2.0"),
        ({**GOOD, "swift_store_auth_address": "http://u:key-5eCr@h/v3"}, "without '@'"),
        ({**GOOD, "swift_store_auth_address": "ftp://h/v3"}, "http or https"),
        ({**GOOD, "swift_store_endpoint": "http://u:key-5eCr@h/v1"}, "URL without a login"),
        ({**GOOD, "swift_store_endpoint": "http://[::1"}, "an http or https URL"),
        ({**GOOD, "swift_store_user": "glance"}, "project:user"),
        ({**GOOD, "default_swift_reference": ""}, "default_swift_reference"),
        ({**GOOD, "swift_store_container": "a/b"}, "swift_store_container"),
        ({**GOOD, "swift_store_container": ""}, "swift_store_container"),
        ({**GOOD, "swift_store_cacert": "/nowhere"}, "swift_store_cacert"),
        ({**GOOD, "swift_store_config_file": "/nowhere"}, "cannot be read"),
        ({**GOOD, "swift_store_config_file": "/a\0b"}, "/a\\x00b cannot be read"),
        ({**GOOD, "swift_store_config_file": "/dev/zero"}, "not a regular file"),
        (
            {"swift_store_multi_tenant": True, "swift_store_config_file": "/nowhere"},
            "Unset one of them",
        ),
        ({**GOOD, "swift_store_multiple_containers_seed": 33}, "to 32"),
        ({**GOOD, "swift_store_large_object_chunk_size": 0}, "chunk_size"),
        ({**GOOD, "swift_store_endpoint_type": "public"}, "endpoint_type"),
        (
            {
                "swift_store_auth_address": "http://h/v3",
                "swift_store_application_credential_id": "abc",
            },
            "missing: application_credential_secret",
        ),
    ],
)
def test_bad_options_are_told(options: dict[str, Any], word: str) -> None:
    """Each wrong option is BadStoreConfiguration naming it, with no secret."""
    error = _make(**options).error
    assert isinstance(error, BadStoreConfiguration)
    assert word in str(error)
    assert "key-5eCr" not in str(error)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("key-5eCr\n[a]", "line 1"),
        ("[a]\nuser = p:u\nkey-5eCr\n", "line 3"),
        ("[a]\n[a]\n", "DuplicateSectionError"),
        ("[a]\nuser = p:u\nauth_address = h\n", "missing: key"),
        ("[a]\nuser = p:u\nkey = 'key-5eCr\nauth_address = h\n", "closing quotation mark"),
        ('[a]\nuser = p:u\nkey = "\nauth_address = h\n', "closing quotation mark"),
        ("[a]\nuser = p:u\nkey = 50%key-5eCr\nauth_address = h\n", "written twice"),
        ("[a]\nuser = p:u\nkey = key-5eCr\nauth_address = h\nauth_version = 2\n", "version 2"),
        ("", "it has: none"),
        ("[b]\nuser=p:u\nkey=k\nauth_address=h\n[c]\nuser=p:u\nkey=k\nauth_address=h\n", "b, c"),
    ],
)
def test_bad_files_of_accounts_are_told(tmp_path: Path, text: str, word: str) -> None:
    """A malformed file is BadStoreConfiguration with the place, and with no word of a key."""
    error = _from_file(tmp_path, text).error
    assert isinstance(error, BadStoreConfiguration)
    assert word in str(error)
    assert "key-5eCr" not in str(error) + repr(vars(error)) + repr(error.__context__)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are told."""
    path = tmp_path / "accounts.conf"
    path.write_bytes(b"[a]\nkey = key-5eCr\nuser = \xff\n")
    error = _make(swift_store_config_file=str(path)).error
    assert isinstance(error, BadStoreConfiguration)
    assert "UTF-8" in str(error)
    assert "key-5eCr" not in repr(error.__context__) + repr(error.__cause__)


FILE = """
[a]
user = "project:with:colons"
key = 'quoted %% key'
auth_address = keystone.example.org/v3/
[b]
user = someone
key = b
project_name = named
user_domain_name = users
project_domain_id = pd
auth_address = http://127.0.0.1:1
auth_version = 3.0
[c]
user = test:tester
key = c
auth_version = 1
auth_address = http://127.0.0.1:1/auth/v1.0
[d]
application_credential_id = id
application_credential_secret = secret
auth_address = http://127.0.0.1:1
[broken]
user = test:tester
"""


def test_a_file_of_accounts(tmp_path: Path) -> None:
    """Every form of an account is understood, quotation marks and domains as in glance_store."""
    store = _from_file(tmp_path, FILE, default_swift_reference="a")
    assert store.error is None
    a, b, c, d = (_account(store, each) for each in "abcd")
    assert a.credentials.auth_url == "https://keystone.example.org/v3/"
    assert (a.credentials.project_name, a.credentials.username) == ("project", "with:colons")
    assert a.credentials.password == "quoted % key"
    assert a.credentials.user_domain_id == a.credentials.project_domain_id == "default"
    assert (b.credentials.project_name, b.credentials.username) == ("named", "someone")
    assert (b.credentials.user_domain_name, b.credentials.user_domain_id) == ("users", None)
    assert b.credentials.project_domain_id == "pd"
    assert (c.version, c.credentials.username) == (1, "test:tester")
    assert d.credentials.application_credential_id == "id"
    with pytest.raises(BadStoreConfiguration, match="missing: auth_address, key"):
        store.stat("swift+config://broken/c/o")
    with pytest.raises(BadStoreUri, match="a, b, c, d, broken"):
        store.stat("swift+config://nobody/c/o")
    assert "quoted" not in repr(a) + repr(d)


def test_the_project_beside_the_user() -> None:
    """Without a file too the project may be told by its name or its id."""
    alone = {**GOOD, "swift_store_user": "glance"}
    named = _account(_make(**alone, swift_store_project_name="p"), "ref1").credentials
    assert (named.username, named.project_name, named.project_id) == ("glance", "p", None)
    by_id = _account(_make(**alone, swift_store_project_id="p-id"), "ref1").credentials
    assert (by_id.username, by_id.project_name, by_id.project_id) == ("glance", None, "p-id")


def test_trusts_need_a_password(caplog: pytest.LogCaptureFixture) -> None:
    """An application credential cannot act on a trust: a warning says what to set."""
    trusting = _make(**GOOD, swift_store_multi_tenant=True)
    assert _driver(trusting)._tenancy.trustee is not None
    assert not caplog.records
    options = {
        "swift_store_auth_address": "http://h/v3",
        "swift_store_application_credential_id": "id",
        "swift_store_application_credential_secret": "key-5eCr",
        "swift_store_multi_tenant": True,
    }
    assert _driver(_make(**options))._tenancy.trustee is None
    assert "swift_store_user" in caplog.text
    assert "key-5eCr" not in caplog.text
    caplog.clear()
    assert _driver(_make(**options, swift_store_use_trusts=False))._tenancy.trustee is None
    assert not caplog.records


def test_the_only_account_is_the_default(tmp_path: Path) -> None:
    """An unset default_swift_reference with one section is that section; else ref1 or an error."""
    only = "[only]\nuser=p:u\nkey=k\nauth_address=h\n"
    store = _from_file(tmp_path, only)
    assert _driver(store).url_prefix == "swift+config://only/glance/"
    wrong = _from_file(tmp_path, only, default_swift_reference="ref1").error
    assert wrong is not None
    assert "got 'ref1'; it has: only" in str(wrong)
    assert wrong.readable
    both = only + only.replace("only", "ref1")
    assert "//ref1/" in _driver(_from_file(tmp_path, both)).url_prefix


def test_a_broken_default_leaves_the_others_readable(tmp_path: Path) -> None:
    """With a broken default account, those of other accounts can be read and none added."""
    store = _from_file(tmp_path, FILE, default_swift_reference="broken")
    assert store.error is not None
    assert store.readable
    assert not store.writable
    assert _account(store).version == 3
    assert _driver(store).url_prefix == "swift+config://broken/glance/"


def test_new_uris_begin_with_the_prefix(tmp_path: Path) -> None:
    """Whatever the reference and the container are called."""
    text = "[a ref]\nuser=p:u\nkey=k\nauth_address=h\n"
    for seed in (0, 3):
        driver = _driver(
            _from_file(
                tmp_path,
                text,
                swift_store_container="c d",
                swift_store_multiple_containers_seed=seed,
            )
        )
        place = driver._tenancy.new("0123abcd", None)
        assert place.location.uri.startswith(driver.url_prefix)
        assert driver.url_prefix == "swift+config://a%20ref/c%20d" + ("" if seed else "/")


def test_containers_by_the_documents_rule() -> None:
    """Dashes of an id are kept and do not count; these are the document's own two examples."""
    image = "fdae39a1-bac5-4238-aba4-69bcc726e848"
    expected = {
        0: "glance",
        1: "glance_f",
        3: "glance_fda",
        8: "glance_fdae39a1",
        10: "glance_fdae39a1-ba",
        13: "glance_fdae39a1-bac5-4",
        32: f"glance_{image}",
    }
    for seed, container in expected.items():
        driver = _driver(_make(**GOOD, swift_store_multiple_containers_seed=seed))
        assert driver._tenancy.container_of(image) == container


def test_ids_that_can_be_names() -> None:
    """What every store holds Swift does too; the longest id leaves room for a segment's name."""
    for object_id in ("x" * 255, "...", "a b%2F?#", "\u4e2d" * 85):
        assert _driver(_make(**GOOD)).id_problem(object_id) is None
        assert len(prefix_of(object_id, "0" * 32) + "m1-000000") <= 1024


def test_ids_that_cannot_be_containers() -> None:
    """Where the container's name is made of the id, that has to be possible."""
    tenants = _driver(_make(swift_store_multi_tenant=True))
    assert "container" in str(tenants.id_problem("x" * 250))
    assert tenants.id_problem("x" * 249) is None


def test_access_lists_are_for_tenants_only() -> None:
    """A store claims access lists in multi-tenant mode, and nowhere else."""
    assert "set_acls" in capabilities(SwiftDriver)
    assert "set_acls" in _make(swift_store_multi_tenant=True).capabilities
    assert "set_acls" not in _make(**GOOD).capabilities


def test_a_missing_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its client libraries the store says what to install."""
    import sys

    for name in ("swiftclient", "swiftclient.client", "keystoneauth1.session"):
        monkeypatch.setitem(sys.modules, name, None)
    error = _make(**GOOD).error
    assert isinstance(error, DriverLoadFailure)
    assert "pip install store_lib[swift]" in str(error)


def test_options_without_effect_are_taken(
    open_store: Callable[..., Store], caplog: pytest.LogCaptureFixture
) -> None:
    """Options of glance_store that no longer mean anything do no harm."""
    open_store(
        **GOOD,
        swift_store_ssl_compression=False,
        swift_buffer_on_upload=True,
        swift_upload_buffer_dir="/nowhere",
    )
    assert not caplog.records
