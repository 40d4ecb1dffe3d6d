"""Claims: small objects that say that somebody is about to publish an object of some id.

Servers decide ``If-None-Match`` on a put, but several ignore it where parts or a copy become an
object.  So whoever is about to publish puts a claim first, and only then looks whether the object
is there.
"""

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import ClassVar, Self

from store_lib.display import get_logger
from store_lib.drivers.s3.bucket import IF_NONE, NONCE, Bucket
from store_lib.drivers.s3.errors import ConditionFailed
from store_lib.exceptions import BackendException, Duplicate, StoreError

LOG = get_logger(__name__)

#: What the keys of claims begin with; ids have no slash, so no object's key does.
PREFIX = ".store_lib/claims/"

_LIFE = "store-lib-life"
#: Bytes of the longest claim.
_LONGEST = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """A claim that was found.

    Body and metadata say the same.  Metadata may be missing, as some servers keep none, and
    somebody may have changed them: a claim is ours, or has ended, only if neither says otherwise.
    """

    #: Nonces of the uploads that it may belong to.
    owners: frozenset[str]
    #: Seconds for which it holds.
    life: float
    #: Seconds since it was put, by the server's own clock; ``None`` where that is not told.
    age: float | None

    @property
    def lives(self) -> bool:
        """Whether somebody may still rely on it."""
        return self.age is None or self.age <= self.life

    @classmethod
    def read(cls, bucket: Bucket, key: str) -> Self | None:
        """Return the claim of a key, ``None`` when there is none."""
        found = bucket.read(key, _LONGEST + 1)
        if found is None:
            return None
        head, body = found
        nonce, life, *_ = [*body.decode("ascii", "replace").split(), "", ""]
        owners = frozenset({nonce, head.nonce} - {""})
        lives = [float(each) for each in (life, head.metadata.get(_LIFE, "")) if each.isdecimal()]
        # What is longer is somebody's object, and no claim: it stays.
        longest = math.inf if len(body) > _LONGEST else max(lives, default=Claim.life)
        return cls(owners, longest, head.age)


class Claim:
    """The right to publish under one id, held for a short time.

    :param nonce: names the upload that claims
    """

    #: Seconds after which a claim is taken for one that a crash left, besides those that the
    #: publishing request may rightly take.
    life: ClassVar[float] = 30

    def __init__(self, bucket: Bucket, object_id: str, nonce: str) -> None:
        self._bucket = bucket
        self.key = PREFIX + object_id
        self._object_id = object_id
        self._nonce = nonce
        self._asked = False
        self._sure_until = 0.0

    def take(self, seconds: float) -> bool | None:
        """Put the claim, in place of one that has ended its life.

        :param seconds: that the publishing request may rightly take
        :return: whether the bucket keeps versions, where the server says so
        :raises Duplicate: somebody else holds it
        """
        life = round(self.life + seconds)
        versioned: bool | None = None
        found: Claimed | None = None
        # What stood in the way may be gone, or have been removed, once we have looked.
        for _ in range(3):
            began = time.monotonic()
            try:
                versioned = self.put(IF_NONE, life)
            except ConditionFailed:
                versioned = None
            # A server may let several puts through at once: the last one holds.
            found = self.read()
            if found is None:
                continue
            ours = found.owners == {self._nonce}
            age = time.monotonic() - began if found.age is None else found.age
            if ours and age <= life / 2:
                self._sure_until = began + life / 2
                return versioned
            if not ours and found.lives:
                break
            self._bucket.delete(self.key)
        self._asked = False
        if found is None:
            raise refused_though_absent(self._bucket, self.key, self._object_id)
        raise self._held()

    def put(self, condition: Mapping[str, str], life: int = round(life)) -> bool:
        """Make one request to put the claim, and return whether the bucket keeps versions.

        :raises ConditionFailed: there is one, and ``condition`` forbids that
        """
        self._asked = True
        # Not empty: the answer to an empty put can wait for a delayed acknowledgement.
        body = f"{self._nonce} {life}\n".encode()
        metadata = {NONCE: self._nonce, _LIFE: str(life)}
        answer = self._bucket.put(self.key, body, len(body), metadata, condition)
        return bool(answer.get("VersionId", "null") != "null")

    def read(self) -> Claimed | None:
        """Return the claim that is there, anybody's."""
        return Claimed.read(self._bucket, self.key)

    def release(self) -> None:
        """Remove the claim, if it is ours; one that cannot be removed ends by itself."""
        if not self._asked:
            return
        self._asked = False
        try:
            self._bucket.client.retry(self._remove)
        except StoreError as error:
            LOG.warning("The claim %s could not be removed: %s", self.key, error)

    def _remove(self) -> None:
        if time.monotonic() < self._sure_until or self._is_ours():
            self._bucket.delete(self.key)

    def _is_ours(self) -> bool:
        found = self.read()
        return found is not None and found.owners == {self._nonce}

    def _held(self) -> Duplicate:
        return Duplicate(
            f"Object {self._object_id} is being added by somebody else right now. Where that one "
            f"was killed, its claim {self.key} ends by itself within minutes."
        )


def refused_though_absent(bucket: Bucket, key: str, object_id: str) -> StoreError:
    """Return the error for a put that a server refuses because of an object that is not there."""
    versioning = bucket.versioning()
    if versioning == "":
        return Duplicate(
            f"Object {object_id} is being added, or deleted, by somebody else right now."
        )
    known = f"is {versioning} for this bucket" if versioning else "may be on or suspended"
    return BackendException(
        f"The server refuses to make {bucket.name}/{key}, as if it were there (412), and says that "
        f"it is not there (404). Versioning {known}: Ceph's gateway counts what was once deleted "
        "as there where it is suspended. Use a bucket that never had versioning, or set "
        "s3_store_create_only to look."
    )
