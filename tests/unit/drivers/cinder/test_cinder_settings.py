"""What a store on Cinder needs before it can be used, and what it makes of its options."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from store_lib.drivers.cinder import CinderDriver, CinderLocation
from store_lib.drivers.cinder.access import Access
from store_lib.exceptions import BadStoreConfiguration, InvalidObjectId
from store_lib.options import StoreOptions

_LOGIN = {
    "cinder_store_auth_address": "http://127.0.0.1:9/v3",
    "cinder_store_user_name": "glance",
    "cinder_store_password": "opensesame",
    "cinder_store_project_name": "service",
}

#: Configures a store in a process of its own, without a package where one is named.
_CONFIGURE = """
import json, sys
values, lock_path, missing = json.loads(sys.argv[1])
if missing:
    sys.modules[missing] = None
from store_lib.config import Configuration
from store_lib.stores import Stores
values = {"DEFAULT": {"enabled_backends": {"it": "cinder"}}, "it": values}
if lock_path:
    values["oslo_concurrency"] = {"lock_path": lock_path}
with Stores(Configuration(values=values)) as stores:
    print(repr(str(stores["it"].error)))
"""


def _configure(lock_path: str | None = None, missing: str | None = None, **values: Any) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CONFIGURE, json.dumps([values, lock_path, missing])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("missing", ["os_brick", "cinderclient", "keystoneauth1"])
def test_a_missing_package_is_named(missing: str, tmp_path: pathlib.Path) -> None:
    """With the extra that brings it."""
    told = _configure(str(tmp_path), missing)
    assert "pip install store_lib[cinder]" in told
    assert missing in told


def test_a_lock_path_is_needed(tmp_path: pathlib.Path) -> None:
    """It is read from the section where os-brick has it, and must be there."""
    assert "lock_path in [oslo_concurrency]" in _configure()
    assert str(tmp_path / "absent") in _configure(str(tmp_path / "absent"))


def _driver(section: str = "it", **values: Any) -> CinderDriver:
    options = StoreOptions.of(CinderDriver.options, **values)
    return CinderDriver("it", StoreOptions(dict(options), frozenset(values), section))


def test_uris_begin_with_the_store_where_there_are_several() -> None:
    """In the old single-store form they name the volume alone."""
    assert _driver().url_prefix == "cinder://it"
    assert _driver("glance_store").url_prefix == "cinder://"


def test_a_store_holds_uris_that_name_it_or_none() -> None:
    """Which of several is meant by none is for Cinder to tell."""
    volume = "0123abcd-4567-89ef-0123-456789abcdef"
    driver = _driver()
    assert driver.holds(CinderLocation(volume))
    assert driver.holds(CinderLocation(volume, "it"))
    assert not driver.holds(CinderLocation(volume, "other"))


@pytest.mark.parametrize("object_id", ["a", "0123abcd-4567-89ef-0123-456789abcdef", "ä " * 124])
def test_usual_ids_are_taken(object_id: str) -> None:
    """As long as a volume's name has room for them."""
    _driver().check_object_id(object_id)


@pytest.mark.parametrize("object_id", ["a" * 250, "a\U0001f600", "a\ud800"])
def test_ids_that_a_database_may_alter_are_refused(object_id: str) -> None:
    """Long ones, and those with characters that MySQL's utf8 has no room for."""
    with pytest.raises(InvalidObjectId):
        _driver().check_object_id(object_id)


@pytest.mark.parametrize("text", ["volumev3", "volumev3:publicURL", ":a:b", "a:b:", "a:b:c:d"])
def test_malformed_catalog_entries_are_refused(text: str) -> None:
    """cinder_catalog_info has three parts, of which the middle one may be empty."""
    options = StoreOptions.of(CinderDriver.options, cinder_catalog_info=text)
    with pytest.raises(BadStoreConfiguration, match="service_type:service_name:interface"):
        Access("it", options)


@pytest.mark.parametrize("left_out", [None, *_LOGIN])
def test_a_login_is_complete_or_none(left_out: str | None) -> None:
    """Where a part of it is missing, the request's context is used."""
    values = {name: value for name, value in _LOGIN.items() if name != left_out}
    access = Access("it", StoreOptions.of(CinderDriver.options, **values))
    assert access.has_login == (left_out is None)
    if left_out is not None:
        with pytest.raises(BadStoreConfiguration, match="cinder_store_user_name") as caught:
            access.cinder(None)
        assert "opensesame" not in str(caught.value)


def test_a_template_that_cannot_be_filled_in_is_told() -> None:
    """With what is missing."""

    class Context:
        auth_token = "token"
        project_id = "project"

    options = StoreOptions.of(
        CinderDriver.options, cinder_endpoint_template="http://127.0.0.1/%(nothing)s"
    )
    with pytest.raises(BadStoreConfiguration, match=r"cinder_endpoint_template.*nothing"):
        Access("it", options).cinder(Context())


def test_attempts_are_told_as_seconds() -> None:
    """As long as glance_store's pauses take."""
    for attempts, seconds in ((1, 0), (2, 2), (5, 24), (6, 34)):
        assert _driver(cinder_attachment_retry_attempts=attempts)._attach_patience == seconds
