"""Deletes an object with many segments, which the same side has stored."""

from io import BytesIO, RawIOBase
from typing import Any

from benchmarks.child import Answer, Measures, Request

SEGMENT = 1000 * 1024


class _Zeros(RawIOBase):
    """A source of zeros for all segments."""

    def __init__(self, segments: int) -> None:
        self._left = segments * SEGMENT

    def readable(self) -> bool:
        return True

    def read(self, amount: int = -1, /) -> bytes:
        piece = bytes(self._left if amount < 0 else min(amount, self._left))
        self._left -= len(piece)
        return piece


def ours(request: Request, measures: Measures) -> Answer:
    """Delete with store_lib."""
    from benchmarks import ours_driver
    from store_lib.exceptions import NotFound

    segments = request["segments"]
    with ours_driver._store(request, measures) as store:
        store.delete(store.add("warm-up", BytesIO(b"x"), 1).uri)
        uri = store.add("deleted", _Zeros(segments), digests=()).uri
        with measures.phase():
            store.delete(uri)
        try:
            store.stat(uri)
        except NotFound:
            return {"size": segments}
    raise AssertionError("it is still there")


def peer(request: Request, measures: Measures) -> Answer:
    """Delete with glance_store."""
    from benchmarks import peer_driver

    segments = request["segments"]
    store = peer_driver._store(request, measures)

    def added(name: str, source: Any) -> Any:
        return peer_driver._location(store.add(name, source, 0, "sha512")[0])

    store.delete(added("warm-up", BytesIO(b"x")))
    place = added("deleted", _Zeros(segments))
    with measures.phase():
        store.delete(place)
    return {"size": segments}
