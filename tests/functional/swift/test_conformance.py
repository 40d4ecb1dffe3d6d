"""The conformance suite against real Swift, in each of the three ways to log in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.functional.conformance import passed, run_kit, write_config
from tests.functional.swift.accounts import Raw, context_file, tenants, v1, v3
from tests.servers.keystone import Keystone
from tests.servers.swift import Swift

#: Just above what tells a bound of memory from none.
_BIG = "--store-big-size=70"


def _run(directory: Path, options: dict[str, Any], *arguments: str) -> int:
    lines = [f"{name} = {value}" for name, value in options.items()]
    config = write_config(directory, "swift", *lines)
    return passed(run_kit(directory, "--store-config", config, "--store", "it", _BIG, *arguments))


def test_single_tenant_v1(tmp_path: Path, swift: Swift, raw: Raw, container: str) -> None:
    """The whole suite passes with the old login, and leaves an empty container."""
    assert _run(tmp_path, v1(swift, container)) > 50
    assert raw.names(container) == []


def test_single_tenant_v3_by_reference(
    tmp_path: Path,
    keystone: Keystone,
    raw_keystone: Callable[[str], Raw],
    container: str,
) -> None:
    """The whole suite passes with Keystone and a file of references."""
    account = raw_keystone("glance")
    assert _run(tmp_path, v3(keystone, container, tmp_path)) > 50
    assert account.names(container) == []


def test_multi_tenant_v3(
    tmp_path: Path,
    keystone: Keystone,
    raw_keystone: Callable[[str], Raw],
    container: str,
) -> None:
    """The whole suite passes with the token of a tenant's request, and leaves no container."""
    account = raw_keystone("demo")
    context = context_file(keystone.login("demo"), tmp_path / "context.py")
    assert _run(tmp_path, tenants(keystone, container), "--store-context", context) > 50
    assert container not in account("GET").data.decode()
