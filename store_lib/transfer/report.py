"""The report of a transfer: what it moved, and where its time went."""

import threading
from typing import Any, Literal, NamedTuple

#: The stages of a transfer, one of which limits it.
Stage = Literal["source", "digest", "store"]


class TransferReport(NamedTuple):
    """The report of one transfer.  Its stages run at the same time; seconds are wall time."""

    #: Bytes moved.
    bytes: int
    #: From the start of the transfer to its end.
    seconds: float
    #: Spent in the source's ``read`` (add), or in the caller between two chunks (get).
    source_seconds: float
    #: Spent in the busiest digest.
    digest_seconds: float
    #: Spent in calls to the backend: their sum, divided by how many may run at once.
    store_seconds: float
    #: Spent waiting for a free buffer.
    wait_seconds: float
    #: Bytes that became holes instead of being sent.
    holes: int
    #: Parts or positioned writes sent.
    parts: int
    #: Requests that were repeated after a temporary error.
    retries: int

    @property
    def bottleneck(self) -> Stage:
        """The stage that took longest: ``source`` (of a get: the caller), ``digest``, ``store``."""
        spent: dict[Stage, float] = {
            "source": self.source_seconds,
            "digest": self.digest_seconds,
            "store": self.store_seconds,
        }
        return max(spent, key=lambda stage: spent[stage])

    @property
    def bytes_per_second(self) -> float:
        """The throughput; 0 if no time has passed."""
        return self.bytes / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and the bottleneck as plain values."""
        return {**self._asdict(), "bottleneck": self.bottleneck}


class Meter:
    """Adds up the numbers of a report while the transfer runs.

    The methods may be called by several threads at once; the attributes are for the caller's.
    """

    __slots__ = ("_lock", "holes", "parts", "retries", "source", "store", "wait")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.source = 0.0
        self.store = 0.0
        self.wait = 0.0
        self.holes = 0
        self.parts = 0
        self.retries = 0

    def count_part(self) -> None:
        """Count a part, or a positioned write."""
        with self._lock:
            self.parts += 1

    def count(self, *, holes: int = 0, retries: int = 0, store: float = 0.0) -> None:
        """Add to the other numbers."""
        with self._lock:
            self.holes += holes
            self.retries += retries
            self.store += store

    def report(
        self, done: int, seconds: float, digest: float, concurrency: int = 1
    ) -> TransferReport:
        """Return the report.

        :param done: bytes moved
        :param seconds: since the start
        :param digest: seconds spent in the busiest digest
        :param concurrency: how many calls to the backend may run at once
        """
        return TransferReport(
            bytes=done,
            seconds=seconds,
            source_seconds=self.source,
            digest_seconds=digest,
            store_seconds=self.store / max(1, concurrency),
            wait_seconds=self.wait,
            holes=self.holes,
            parts=self.parts,
            retries=self.retries,
        )
