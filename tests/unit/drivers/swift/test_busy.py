"""A server that is busy for a second fails nothing."""

from collections.abc import Callable

import pytest

from store_lib import Store
from tests.clock import SkippingClock
from tests.scripted_server import Reply, Request
from tests.unit.drivers.swift.small_swift import SmallSwift
from tests.unit.drivers.swift.test_faults import LARGE


@pytest.mark.parametrize("size", [1000, len(LARGE)])
def test_a_server_that_is_busy_for_a_second(
    size: int, small: SmallSwift, open_store: Callable[..., Store], clock: SkippingClock
) -> None:
    """An add, a get and a delete succeed though each kind of request meets 503 for a second."""
    store = open_store(**small.options(transfer_attempts=None))
    began: dict[tuple[str, str], float] = {}

    def busy(request: Request) -> Reply | None:
        kind = request.method, request.target.partition("?")[0]
        busy = clock.now() - began.setdefault(kind, clock.now()) < 1
        return Reply(503) if busy else None

    small.fail(".", busy)
    data = LARGE[:size]
    uri = store.add("id", [data]).uri
    with store.get(uri) as reader:
        assert reader.read() == data
    store.delete(uri)
    assert not small.names
    assert clock.pauses
