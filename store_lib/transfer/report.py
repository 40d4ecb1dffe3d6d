"""What a transfer did, where its time went, and what held it back."""

import threading
from typing import Any, Literal, NamedTuple

Verdict = Literal["source", "digest", "store"]


class TransferReport(NamedTuple):
    """The record of one transfer; seconds are wall time, of work that runs side by side."""

    #: Bytes moved.
    bytes: int
    #: From the first to the last step.
    seconds: float
    #: In the source's ``read`` (add), or in the caller between two chunks (get).
    source_seconds: float
    #: In the busiest digest.
    digest_seconds: float
    #: In the backend's calls; with several at once, their sum over how many there may be.
    store_seconds: float
    #: Waiting for memory or for room in the window.
    wait_seconds: float
    #: Bytes that became holes instead of being sent.
    holes: int
    #: Parts or positioned writes sent.
    parts: int
    #: Requests repeated after a temporary error.
    retries: int

    @property
    def verdict(self) -> Verdict:
        """What bound the transfer: ``source`` (for get: the caller), ``digest`` or ``store``."""
        spent: dict[Verdict, float] = {
            "source": self.source_seconds,
            "digest": self.digest_seconds,
            "store": self.store_seconds,
        }
        return max(spent, key=lambda stage: spent[stage])

    @property
    def bytes_per_second(self) -> float:
        """Throughput; 0 when no time passed."""
        return self.bytes / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return everything, the verdict included, as plain values."""
        return {**self._asdict(), "verdict": self.verdict}


class Meter:
    """Adds up, while a transfer runs, what its report will say.

    What several threads may add to at once goes through :meth:`count`.
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

    def count(
        self, *, parts: int = 0, holes: int = 0, retries: int = 0, store: float = 0.0
    ) -> None:
        """Add to what threads count together."""
        with self._lock:
            self.parts += parts
            self.holes += holes
            self.retries += retries
            self.store += store

    def report(self, done: int, seconds: float, digest: float, width: int = 1) -> TransferReport:
        """Finish: ``digest`` is the busiest digest's seconds, ``width`` the store's window."""
        return TransferReport(
            bytes=done,
            seconds=seconds,
            source_seconds=self.source,
            digest_seconds=digest,
            store_seconds=self.store / max(1, width),
            wait_seconds=self.wait,
            holes=self.holes,
            parts=self.parts,
            retries=self.retries,
        )
