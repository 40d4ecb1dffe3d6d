"""Accounts with a key for temporary URLs, and containers that no other test uses."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.transfer.budget import PROCESS_BUDGET, Budget
from tests.functional.swift.accounts import TEMP_URL_KEY, Raw, raw_v1, raw_v3
from tests.servers.keystone import Keystone
from tests.servers.swift import Swift


@pytest.fixture
def container() -> str:
    """The name of a container that is not there."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def raw(swift: Swift) -> Raw:
    """Plain requests to the account of the old login."""
    found = raw_v1(swift)
    found("POST", X_Account_Meta_Temp_Url_Key=TEMP_URL_KEY)
    return found


@pytest.fixture(scope="session")
def raw_keystone(swift: Swift, keystone: Keystone) -> Callable[[str], Raw]:
    """Plain requests to the account of a user's project."""

    def of(user: str) -> Raw:
        found = raw_v3(keystone, swift, user)
        found("POST", X_Account_Meta_Temp_Url_Key=TEMP_URL_KEY)
        return found

    return of


@pytest.fixture
def open_store() -> Iterator[Callable[..., Store]]:
    """Make a store with the given options, and a budget of its own; closed at the end."""
    opened: list[Stores] = []

    def make(options: dict[str, Any], budget: Budget = PROCESS_BUDGET) -> Store:
        stores = Stores.from_mapping(
            {"DEFAULT": {"enabled_backends": "it:swift"}, "it": options},
            strict=True,
            budget=budget,
        )
        opened.append(stores)
        return stores["it"]

    yield make
    for stores in opened:
        stores.close()
