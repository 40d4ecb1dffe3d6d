"""The conformance suite against real Swift, in each of the three ways to log in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conformance import passed, run_kit, write_config, write_inventory
from tests.functional.swift.accounts import Raw, context_file, tenants, v1, v3
from tests.servers.keystone import Keystone
from tests.servers.swift import Swift

#: Just above what tells a bound of memory from none.
_BIG = "--store-big-size=70"
#: Of every login but the first.
_PROFILES = pytest.mark.parametrize(
    "profile", ["short", pytest.param("long", marks=pytest.mark.deep("kits"))]
)


#: The names of all objects in a container, asked of Swift itself.
_LOOK = "urllib.request.urlopen(request).read().decode().split()"


def _run(
    directory: Path, options: dict[str, Any], profile: str, *arguments: str, raw: Raw | None = None
) -> int:
    lines = [f"{name} = {value}" for name, value in options.items()]
    config = write_config(directory, "swift", *lines)
    if raw is not None:
        url, headers = f"{raw.url}/{options['swift_store_container']}", {"X-Auth-Token": raw.token}
        request = f"request = urllib.request.Request({url!r}, headers={headers!r})"
        look = write_inventory(directory, _LOOK, "import urllib.request", request)
        arguments += ("--store-inventory", look)
    return passed(
        run_kit(
            directory,
            *("--store-config", config, "--store", "it", _BIG, *arguments),
            profile=profile,
        )
    )


@pytest.mark.deep("kits", always=True)
def test_single_tenant_v1(tmp_path: Path, swift: Swift, raw: Raw, container: str) -> None:
    """The whole suite passes with the old login, and leaves an empty container."""
    assert _run(tmp_path, v1(swift, container), "long", raw=raw) > 50
    assert raw.names(container) == []


@_PROFILES
def test_single_tenant_v3_by_reference(
    profile: str,
    tmp_path: Path,
    keystone: Keystone,
    raw_keystone: Callable[[str], Raw],
    container: str,
) -> None:
    """The whole suite passes with Keystone and a file of references."""
    account = raw_keystone("glance")
    assert _run(tmp_path, v3(keystone, container, tmp_path), profile, raw=account) > 50
    assert account.names(container) == []


@_PROFILES
def test_multi_tenant_v3(
    profile: str,
    tmp_path: Path,
    keystone: Keystone,
    raw_keystone: Callable[[str], Raw],
    container: str,
) -> None:
    """The whole suite passes with the token of a tenant's request, and leaves no container."""
    account = raw_keystone("demo")
    context = context_file(keystone.login("demo"), tmp_path / "context.py")
    options = tenants(keystone, container)
    assert _run(tmp_path, options, profile, "--store-context", context) > 50
    assert container not in account("GET").data.decode()
