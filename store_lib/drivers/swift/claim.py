"""The right to publish under an id, which at most one gets of those who ask for it at once.

Swift decides no condition.  Between the check of ``If-None-Match: *`` and the moment at which an
object is there other requests pass the same check, and the one that began last, by ``X-Timestamp``,
overwrites what another has stored, and has looked at, by then.  Nothing in Swift compares and
swaps.

What Swift does keep is this: once a write was answered, whoever asks all replicas reads it, or
what a later request wrote.  Two objects of that kind let at most one pass (the splitter of
Lamport's "A Fast Mutual Exclusion Algorithm", 1987):

1. put the *mark* with a value of one's own,
2. put the *door* unless it is there,
3. read the mark: who finds the own value may publish.

Say that A and B both do.  Each found no door in step 2, so each had marked before the other's door
was there, and so before the other read the mark.  Both then read the later one of the two marks.

Where all have lost, the one whose door is there goes on after a pause in which the requests of all
others who passed have ended (Lamport's first algorithm, which relies on time; the fast way above
does not).
"""

import functools
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping

from store_lib.display import get_logger
from store_lib.driver import Body
from store_lib.drivers.swift.client import Container, SwiftResponse
from store_lib.drivers.swift.location import CLAIM, NONCE, prefix_of
from store_lib.exceptions import Duplicate, ErrorStatus, StoreError

_LOG = get_logger(__name__)

#: Seconds after which the server removes the door of one who was killed, besides those that
#: publishing may rightly take.  Less than ``transfer_retry_seconds``, for which others wait.
LIFE = 15
#: Seconds in which whoever passed the door has published, or read another's mark.
SETTLE = 5


class Empty(io.BytesIO):
    """A body of nothing."""

    size: int | None = 0
    rewindable = True

    def views(self) -> Iterator[memoryview]:
        return iter(())


#: Stores a body under a name of the container, with headers.
Put = Callable[[str, Body, Mapping[str, str]], SwiftResponse]


class Claim:
    """The right to publish under one id, held for a short time.

    :param nonce: names the upload that claims
    """

    def __init__(self, object_id: str, nonce: str) -> None:
        self._object_id = object_id
        self._nonce = nonce
        self._mark_name, self._door_name = (
            f"{prefix_of(object_id, CLAIM)}{number:08}" for number in (1, 2)
        )
        self._tries = 0
        #: What mark and door have that this try has put.
        self._mark = ""
        #: When, by the monotonic clock, the door is nobody's but the one's who put it last.
        self._settled = math.inf
        #: Until when, by the same clock, the server cannot have removed the door.
        self._until = 0.0
        self._held = False

    def take(self, container: Container, put: Put, seconds: float = 0) -> None:
        """Claim the id.

        :param put: stores an object in the container, which it makes where it is missing
        :param seconds: that the publishing request may rightly take
        :raises Duplicate: there is an object of this id; or, for now, somebody else is publishing
        """
        if self._held and time.monotonic() < self._until:
            return
        self._held = False
        life = round(LIFE + seconds)
        if self._tries == 0 or not self._door_stands(container, life):
            self._try(container, put, life)
        if not self._held:
            raise Duplicate(
                f"Object {self._object_id} is being added by another at the same moment. Where "
                "that one was killed, the id is free again within a minute.",
                status=ErrorStatus.TEMPORARY,
            )

    def _door_stands(self, container: Container, life: float) -> bool:
        """Look whether a door is there still; if it is this one's, and has settled, it is held."""
        door = self._read(container, self._door_name)
        self._check_object(container)
        if door == self._mark and self._settled < time.monotonic() < self._until - life / 3:
            self._held = True
        return door is not None

    def _try(self, container: Container, put: Put, life: int) -> None:
        self._tries += 1
        self._mark = f"{self._nonce}-{self._tries}"
        headers = {NONCE: self._mark, "X-Delete-After": str(life)}
        retry = container.account.retry
        began = time.monotonic()
        self._until = began + life - 1  # the server counts whole seconds
        retry(lambda: put(self._mark_name, Empty(), headers))
        once = {"If-None-Match": "*", **headers}
        status = retry(lambda: put(self._door_name, Empty(), once)).status
        # 412 may be about our own, put by a request without an answer; with 202 nothing was stored.
        passed = status == 201 or (
            status == 412 and self._read(container, self._door_name) == self._mark
        )
        self._held = passed and self._read(container, self._mark_name) == self._mark
        if self._held:
            return
        # Where the server is slow, it is for the others too.
        now = time.monotonic()
        self._settled = now + SETTLE + 4 * (now - began) if passed else math.inf
        try:
            self._check_object(container)
        except Duplicate:
            if passed:  # a door is of no more use: who passes meets the object
                self._remove(container, self._door_name)
            raise

    def _check_object(self, container: Container) -> None:
        if self._head(container, self._object_id) is not None:
            raise Duplicate(image=self._object_id)

    def _read(self, container: Container, name: str) -> str | None:
        head = self._head(container, name)
        return None if head is None else head.headers.get(NONCE, "")

    def _head(self, container: Container, name: str) -> SwiftResponse | None:
        return container.account.retry(lambda: container.object(name).itself(newest=True))

    def release(self, container: Container) -> None:
        """Give the id free, where it is held; what cannot be removed the server removes."""
        if self._held:
            # The mark last: whoever marks after that finds no door, and removes both himself.
            self._remove(container, self._door_name, self._mark_name)
        self._held = False

    def _remove(self, container: Container, *names: str) -> None:
        def remove(name: str) -> None:
            if time.monotonic() < self._until:  # later the door may be another's
                container.account.ask("DELETE", container.object(name).path, 404)

        try:
            for name in names:
                container.account.retry(functools.partial(remove, name))
        except StoreError as error:
            _LOG.warning(
                "The claim %s/%s could not be removed, and ends by itself: %s",
                container.name,
                prefix_of(self._object_id, CLAIM),
                error,
            )
