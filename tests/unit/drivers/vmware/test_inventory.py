"""Which datastore is taken, by what the server tells of them."""

from typing import Any

import pytest

from store_lib.driver import Space
from store_lib.drivers.vmware.inventory import Inventory
from store_lib.drivers.vmware.options import Datastore
from store_lib.exceptions import ErrorStatus, RemoteServiceUnavailable, StorageFull

LIGHT, HEAVY = Datastore("dc", "light", 1), Datastore("dc", "heavy", 2)


@pytest.fixture
def inventory(monkeypatch: pytest.MonkeyPatch) -> Inventory:
    """Two datastores, of which the heavier one is the largest and not accessible."""
    session: Any = None
    made = Inventory("vm", session, [LIGHT, HEAVY])
    spaces = {LIGHT: Space(10, 5), HEAVY: None}
    monkeypatch.setattr(made, "spaces", lambda: spaces)
    return made


def test_what_is_not_accessible_is_passed_over(inventory: Inventory) -> None:
    """An object goes to a datastore that can be reached, or is refused for its size."""
    assert inventory.choose(5) == LIGHT
    assert inventory.choose(None) == LIGHT
    with pytest.raises(StorageFull, match=r"dc:light \(5 free\), dc:heavy \(not accessible\)"):
        inventory.choose(6)
    assert inventory.space().free == 5


def test_no_accessible_datastore_is_no_full_one(inventory: Inventory) -> None:
    """Where none can be reached, another attempt may succeed: that is not StorageFull."""
    del inventory.spaces()[LIGHT]
    with pytest.raises(RemoteServiceUnavailable, match="none of dc:heavy") as caught:
        inventory.choose(1)
    assert caught.value.status is ErrorStatus.TEMPORARY
