"""Claims: of several uploads that race for one id, at most one gets the right to publish.

Swift has no atomic "create unless it exists".  It checks ``If-None-Match: *`` when a request begins
and stores the object when the request ends; requests in between pass the same check, and the one
that began last, by its ``X-Timestamp``, overwrites the others' objects, even if their uploads have
already seen them stored.

But once Swift has answered a write, a read of all replicas returns that write or a later one.  With
such reads, two objects let at most one upload pass (the splitter of Lamport's "A Fast Mutual
Exclusion Algorithm", 1987).  An upload

1. writes a value of its own to the *mark*,
2. writes the *door* unless that exists,
3. reads the mark, and may publish if it still has that value.

Suppose that A and B both may.  Both found no door in step 2, so each had written the mark before
the other wrote the door, and so before the other read the mark.  But then both have read the later
of the two values.

It may be that no upload passes.  Then the last one that wrote the door goes on, after a pause in
which all others that found no door must have read the mark or published (Lamport's first algorithm,
which relies on time; the steps above do not).
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
from store_lib.exceptions import Duplicate, ErrorStatus, StoreError, being_added, duplicate

_LOG = get_logger(__name__)

#: Seconds after which the server removes the door that a killed process has left.  The duration of
#: the publishing request is added.
LIFE = 40
#: Seconds after which the server removes the mark, which keeps no other upload from publishing.
_MARK_LIFE = 3600
#: Seconds after which any other upload that found no door has published, or has read the mark; and
#: the maximum of the longer pause for a slow server, which is less than ``transfer_retry_seconds``.
SETTLE, _LONGEST_SETTLE = 5, 12


class Empty(io.BytesIO):
    """An empty body."""

    size: int | None = 0
    rewindable = True

    def views(self) -> Iterator[memoryview]:
        return iter(())


#: Stores a body as an object of the container; takes the name, the body and the headers.
Put = Callable[[str, Body, Mapping[str, str]], SwiftResponse]


class Claim:
    """One upload's claim on its id.

    :param nonce: of the upload
    """

    def __init__(self, object_id: str, nonce: str) -> None:
        self._object_id = object_id
        self._nonce = nonce
        self._mark_name, self._door_name = (
            f"{prefix_of(object_id, CLAIM)}{number:08}" for number in (1, 2)
        )
        self._tries = 0
        #: The value that the latest try has written to mark and door.
        self._mark = ""
        #: Time of the monotonic clock after which the last writer of the door holds the claim.
        self._settled = math.inf
        #: Time of the monotonic clock until which the server keeps the door.
        self._until = 0.0
        self._held = False

    def take(self, container: Container, put: Put, seconds: float = 0) -> None:
        """Claim the id.

        :param put: stores an object, and creates the container if that is missing
        :param seconds: maximum duration of the publishing request
        :raises Duplicate: an object with this id exists; or, if the error's status is temporary,
            another upload may be publishing one
        """
        if self._held and time.monotonic() < self._until:
            return
        self._held = False
        life = round(LIFE + seconds)
        if self._tries == 0 or not self._door_stands(container, life):
            self._try(container, put, life)
        if not self._held:
            raise being_added(
                self._object_id,
                "if that process was killed, the id is free again within a minute",
                status=ErrorStatus.TEMPORARY,
            )

    def _door_stands(self, container: Container, life: float) -> bool:
        """Return whether the door exists.

        If this upload has written the door, and has waited long enough, it holds the claim now.
        """
        door = self._read(container, self._door_name)
        self._check_object(container)
        if door == self._mark and self._settled < time.monotonic() < self._until - life / 3:
            self._held = True
        return door is not None

    def _try(self, container: Container, put: Put, life: int) -> None:
        self._tries += 1
        self._mark = f"{self._nonce}-{self._tries}"
        headers = {NONCE: self._mark, "X-Delete-After": str(_MARK_LIFE)}
        retry = container.account.retry
        began = time.monotonic()
        self._until = began + life - 1  # the server counts whole seconds
        retry(lambda: put(self._mark_name, Empty(), headers))
        once = {"If-None-Match": "*", **headers, "X-Delete-After": str(life)}
        status = retry(lambda: put(self._door_name, Empty(), once)).status
        # With 412 the door may be this upload's own, if the response to an earlier put was lost.
        # With 202 nothing was stored.
        passed = status == 201 or (
            status == 412 and self._read(container, self._door_name) == self._mark
        )
        self._held = passed and self._read(container, self._mark_name) == self._mark
        if self._held:
            return
        # Wait longer if the server is slow, as it is slow for the other uploads too.
        now = time.monotonic()
        pause = min(SETTLE + 2 * (now - began), _LONGEST_SETTLE)
        self._settled = now + pause if passed else math.inf
        try:
            self._check_object(container)
        except Duplicate:
            if passed:  # the door is not needed any more, as later uploads see the object
                self._remove(container, self._door_name)
            raise

    def _check_object(self, container: Container) -> None:
        if self._head(container, self._object_id) is not None:
            raise duplicate(self._object_id)

    def _read(self, container: Container, name: str) -> str | None:
        head = self._head(container, name)
        return None if head is None else head.headers.get(NONCE, "")

    def _head(self, container: Container, name: str) -> SwiftResponse | None:
        return container.account.retry(lambda: container.object(name).itself(newest=True))

    def release(self, container: Container) -> None:
        """Release the claim if it is held.  What cannot be removed now expires on the server."""
        if self._held:
            # Remove the mark last: an upload that writes a new mark after that finds no door, and
            # removes both itself.
            self._remove(container, self._door_name, self._mark_name)
        self._held = False

    def _remove(self, container: Container, *names: str) -> None:
        def remove(name: str) -> None:
            # After that time the door may be another upload's.
            if name == self._mark_name or time.monotonic() < self._until:
                container.account.ask("DELETE", container.object(name).path, 404)

        try:
            for name in names:
                container.account.retry(functools.partial(remove, name))
        except StoreError as error:
            _LOG.warning(
                "The claim %s/%s could not be removed, and will expire: %s",
                container.name,
                prefix_of(self._object_id, CLAIM),
                error,
            )
