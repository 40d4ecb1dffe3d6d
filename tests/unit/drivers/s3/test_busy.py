"""A server that is busy for a second fails nothing."""

import pytest

from store_lib import Store
from tests.clock import SkippingClock
from tests.scripted_server import Reply, Request
from tests.unit.drivers.s3.server import S3Server
from tests.unit.drivers.s3.test_adding import LARGE, SLOW, stream


@pytest.mark.parametrize("size", [1000, len(LARGE)])
def test_a_server_that_is_busy_for_a_second(
    size: int, store: Store, s3: S3Server, clock: SkippingClock
) -> None:
    """An add, a get and a delete succeed though each kind of request meets 503 for a second."""
    began: dict[tuple[str, str], float] = {}

    def busy(request: Request) -> Reply | None:
        if "claims" in request.target and request.method == "DELETE":
            return None
        kind = request.method, request.target.partition("?")[2][:10]
        return SLOW() if clock.now() - began.setdefault(kind, clock.now()) < 1 else None

    s3.before.append(busy)
    data = LARGE[:size]
    uri = store.add("id", stream(data), size).uri
    with store.get(uri) as reader:
        assert reader.read() == data
    store.delete(uri)
    assert not s3.objects
    assert clock.pauses
