"""Claims: small objects that say that somebody is about to publish an object of some id.

Servers decide ``If-None-Match`` on a put, but several ignore it where parts or a copy become an
object.  So whoever is about to publish puts a claim first, and only then looks whether the object
is there.
"""

import contextlib
import logging
import time
from typing import ClassVar

from store_lib.drivers.s3.bucket import NONCE, Bucket, Head
from store_lib.drivers.s3.errors import ConditionFailed
from store_lib.exceptions import Duplicate, ErrorStatus, StoreError

LOG = logging.getLogger(__name__)

#: What the keys of claims begin with; ids have no slash, so no object's key does.
PREFIX = ".store_lib/claims/"

_LIFE = "store-lib-life"

#: How often the removal of a claim is tried, at once: the object is stored, and the add would not
#: be repeated for a claim.
_RELEASES = 3


def lives(claim: Head) -> bool:
    """Whether somebody may still rely on a claim."""
    return claim.age is None or claim.age <= _life(claim)


def _life(claim: Head) -> float:
    text = claim.metadata.get(_LIFE, "")
    return float(text) if text.isdecimal() else Claim.life


class Claim:
    """The right to publish under one id, held for a short time.

    :param nonce: names the upload that claims
    """

    #: Seconds after which a claim is taken for one that a crash left, besides those that the
    #: publishing request may rightly take.
    life: ClassVar[float] = 30

    def __init__(self, bucket: Bucket, object_id: str, nonce: str) -> None:
        self._bucket = bucket
        self._key = PREFIX + object_id
        self._object_id = object_id
        self._nonce = nonce
        self._asked = False
        self._sure_until = 0.0

    def take(self, seconds: float) -> None:
        """Put the claim, in place of one that has ended its life.

        :param seconds: that the publishing request may rightly take
        :raises Duplicate: somebody else holds it
        """
        life = round(self.life + seconds)
        metadata = {NONCE: self._nonce, _LIFE: str(life)}
        # Not empty: the answer to an empty put can wait for a delayed acknowledgement.
        body = self._nonce.encode()
        # What stood in the way may be gone, or have been removed, once we have looked.
        for _ in range(3):
            began = time.monotonic()
            self._asked = True
            with contextlib.suppress(ConditionFailed):
                self._bucket.put(self._key, body, len(body), metadata)
            # A server may let several puts through at once: the last one holds.
            found = self._bucket.head(self._key)
            if found is None:
                continue
            if found.nonce != self._nonce and lives(found):
                break
            age = time.monotonic() - began if found.age is None else found.age
            if found.nonce == self._nonce and age <= life / 2:
                self._sure_until = began + life / 2
                return
            self._bucket.delete(self._key)
        self._asked = False
        raise Duplicate(
            f"Object {self._object_id} is being added by somebody else right now. Where that one "
            f"was killed, its claim {self._key} ends by itself within minutes."
        )

    def release(self) -> None:
        """Remove the claim, if it is ours; one that cannot be removed ends by itself."""
        if not self._asked:
            return
        self._asked = False
        for attempt in range(1, _RELEASES + 1):
            try:
                if time.monotonic() < self._sure_until or self._is_ours():
                    self._bucket.delete(self._key)
                return
            except StoreError as error:
                if attempt == _RELEASES or error.status is not ErrorStatus.TEMPORARY:
                    LOG.warning("The claim %s could not be removed: %s", self._key, error)
                    return

    def _is_ours(self) -> bool:
        found = self._bucket.head(self._key)
        return found is not None and found.nonce == self._nonce
