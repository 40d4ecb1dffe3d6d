"""The report of a transfer: bytes, requests, and the time of each stage."""

import threading
from typing import Any, Literal, NamedTuple

#: The stages of a transfer, one of which limits it.
Stage = Literal["source", "digest", "store"]


class TransferReport(NamedTuple):
    """The report of one transfer.

    The stages of a transfer run at the same time, so their seconds, in wall time, overlap.
    """

    #: Bytes moved.
    bytes: int
    #: Seconds from the start of the transfer to its end.
    seconds: float
    #: Seconds spent in the source's ``read`` (add), or by the caller between two chunks (get).
    source_seconds: float
    #: Seconds spent in the slowest digest.
    digest_seconds: float
    #: Seconds spent in calls to the backend: their sum, divided by the number that may run
    #: concurrently.
    store_seconds: float
    #: Seconds spent waiting for a free buffer.
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

    Several threads may call the methods at the same time.  Only the caller's thread may use the
    attributes.
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
        :param digest: seconds spent in the slowest digest
        :param concurrency: number of calls to the backend that may run concurrently
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
