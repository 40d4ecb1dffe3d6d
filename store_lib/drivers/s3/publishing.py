"""Publishing an object under an id that is not taken.

Servers obey ``If-None-Match`` on a put, but several ignore it on the request that joins parts or
copies an object.  So an upload that is about to publish first puts a *claim*, a small object that
keeps other uploads from publishing, and only then checks whether the object exists.  A *proof*,
made once per process, shows that the server does obey the header on the put of a claim.
"""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Self, TypeAlias

from store_lib.display import get_logger
from store_lib.driver import Incomplete
from store_lib.drivers.s3.client import NONCE, Bucket, NewObject
from store_lib.drivers.s3.errors import ConditionFailed, NotImplementedThere
from store_lib.drivers.s3.location import is_object_key
from store_lib.drivers.s3.options import ATOMIC, CHECKED, LOOK
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    Forbidden,
    StoreError,
    being_added,
    duplicate,
)

LOG = get_logger(__name__)

#: Prefix of the keys of claims.  Ids have no slash, so no object's key begins like this.
PREFIX = ".store_lib/claims/"
#: The condition that no object exists under the key.
IF_NONE: Mapping[str, str] = {"IfNoneMatch": "*"}

_LIFE = "store-lib-life"
#: Maximum bytes of a claim.
_LONGEST = 64
_REMEDY = (
    "set s3_store_create_only to look, which accepts that, of adds of one id that race, one may be "
    "lost"
)

#: Makes the request that publishes an object, on the condition that it is called with.
Make: TypeAlias = Callable[[Mapping[str, str]], object]


@dataclasses.dataclass(frozen=True, slots=True)
class StoredClaim:
    """A claim as it is stored in the bucket.

    Body and metadata hold the same facts.  Some servers keep no metadata, and another program may
    have changed it: a claim is an upload's own, or has expired, only if neither contradicts that.
    """

    #: Nonces of the uploads that the claim may belong to.
    owners: frozenset[str]
    #: Lifetime of the claim in seconds.
    life: float
    #: Seconds since the claim was put, by the server's clock; ``None`` if unknown.
    age: float | None

    @property
    def live(self) -> bool:
        """Whether an upload may still rely on it."""
        return self.age is None or self.age <= self.life

    @classmethod
    def read(cls, bucket: Bucket, key: str) -> Self | None:
        """Return the claim at ``key``, or ``None`` if there is none."""
        stored = bucket.read(key, _LONGEST + 1)
        if stored is None:
            return None
        head, body = stored
        nonce, life, *_ = [*body.decode("ascii", "replace").split(), "", ""]
        owners = frozenset({nonce, head.nonce} - {""})
        lives = [
            float(value) for value in (life, head.metadata.get(_LIFE, "")) if value.isdecimal()
        ]
        # An object with a longer body is no claim.  It never expires, so it is not removed.
        longest = math.inf if len(body) > _LONGEST else max(lives, default=Claim.life)
        return cls(owners, longest, head.age)


class Claim:
    """The right to publish under one id, held for a short time.

    :param nonce: of the upload that claims the id
    :param taken: whether the upload may have put the claim before, in another process
    """

    #: Seconds after which a claim counts as left by a crash; the duration of the publishing request
    #: is added.
    life: ClassVar[float] = 30

    def __init__(self, bucket: Bucket, object_id: str, nonce: str, *, taken: bool = False) -> None:
        self._bucket = bucket
        self.key = PREFIX + object_id
        self._object_id = object_id
        self._nonce = nonce
        self._taken = taken
        self._sure_until = 0.0

    def take(self, seconds: float) -> bool | None:
        """Put the claim, replacing one that has expired.

        :param seconds: maximum duration of the publishing request
        :return: whether the bucket keeps versions; ``None`` if the server does not say
        :raises Duplicate: another upload holds the claim
        """
        life = round(self.life + seconds)
        versioned: bool | None = None
        stored: StoredClaim | None = None
        # Another upload's claim may be gone by the next try, or is removed here if it has expired.
        for _ in range(3):
            began = time.monotonic()
            try:
                versioned = self.put(IF_NONE, life)
            except ConditionFailed:
                versioned = None
            # A server may let several concurrent puts through; the last one then has the claim.
            stored = self.read()
            if stored is None:
                continue
            ours = stored.owners == {self._nonce}
            age = time.monotonic() - began if stored.age is None else stored.age
            if ours and age <= life / 2:
                self._sure_until = began + life / 2
                return versioned
            if not ours and stored.live:
                break
            self._bucket.delete(self.key)
        self._taken = False
        if stored is None:
            raise refused_though_absent(self._bucket, self.key, self._object_id)
        raise self._held()

    def put(self, condition: Mapping[str, str], life: int = round(life)) -> bool:
        """Make one request to put the claim, and return whether the bucket keeps versions.

        :raises ConditionFailed: ``condition`` requires that there is no claim, and there is one
        """
        self._taken = True
        # The body is not empty, as the response to an empty put can be held up by a delayed TCP
        # acknowledgement.
        body = f"{self._nonce} {life}\n".encode()
        metadata = {NONCE: self._nonce, _LIFE: str(life)}
        response = self._bucket.put(self.key, body, len(body), metadata, condition)
        return bool(response.get("VersionId", "null") != "null")

    def read(self) -> StoredClaim | None:
        """Return the claim that is stored for this id, whichever upload put it."""
        return StoredClaim.read(self._bucket, self.key)

    def release(self) -> None:
        """Remove the claim if this upload holds it.  If that fails, the claim expires."""
        if not self._taken:
            return
        self._taken = False
        try:
            self._bucket.client.retry(self._remove)
        except StoreError as error:
            LOG.warning("The claim %s could not be removed: %s", self.key, error)

    def _remove(self) -> None:
        if time.monotonic() < self._sure_until or self._is_ours():
            self._bucket.delete(self.key)

    def _is_ours(self) -> bool:
        stored = self.read()
        return stored is not None and stored.owners == {self._nonce}

    def _held(self) -> Duplicate:
        return being_added(
            self._object_id,
            f"if that process was killed, its claim {self.key} expires within minutes",
        )


def refused_though_absent(bucket: Bucket, key: str, object_id: str) -> StoreError:
    """Return the error for a put that was refused as if an object existed, though none does."""
    versioning = bucket.versioning()
    if versioning == "":
        return being_added(object_id, "or being deleted")
    known = f"is {versioning} for this bucket" if versioning else "may be on or suspended"
    return BackendException(
        f"The server refuses to create {bucket.name}/{key} because it exists (412), but reports "
        f"that it does not (404). Versioning {known}: if it is suspended, Ceph's gateway takes "
        "deleted objects for existing ones. Use a bucket that never had versioning, or set "
        "s3_store_create_only to look."
    )


def is_claim(key: str) -> bool:
    """Return whether a key can be a claim's."""
    return key.startswith(PREFIX) and is_object_key(key.removeprefix(PREFIX))


def list_claims(bucket: Bucket) -> Iterator[Incomplete]:
    """Yield every claim of a bucket."""
    for page in bucket.client.pages("list_objects_v2", Bucket=bucket.name, Prefix=PREFIX):
        for entry in page.get("Contents", ()):
            key = entry["Key"]
            if is_claim(key) and (
                claim := bucket.client.retry(functools.partial(StoredClaim.read, bucket, key))
            ):
                now = time.time()  # the age by the server's clock is subtracted from this
                object_id, since = key.removeprefix(PREFIX), now - (claim.age or 0)
                yield Incomplete(key, object_id, 0, since, claim.live, now)


def remove_expired_claim(bucket: Bucket, key: str) -> bool:
    """Remove the claim at ``key`` if it has expired, and return whether it was removed."""
    claim = StoredClaim.read(bucket, key)
    if claim is None or claim.live:
        return False
    bucket.delete(key)
    return True


class Proof:
    """Tests, once per process, that the server does not let an id be used twice.

    :param mode: a value of s3_store_create_only other than auto
    """

    def __init__(self, bucket: Bucket, mode: str) -> None:
        self.mode = mode
        self._bucket = bucket
        #: Whether the bucket kept versions, of every test that passed.
        self._passed: set[bool] = set()

    def ensure(self, versioned: bool | None = None) -> None:
        """Test the server, unless it has passed the test before.

        :param versioned: whether the bucket keeps versions now, if known.  After a change the test
            is repeated, as Ceph's gateway ignores the condition if the bucket keeps versions.
        :raises BackendException: objects cannot be added safely
        """
        passed = bool(self._passed) if versioned is None else versioned in self._passed
        if passed or self.mode == ATOMIC:
            return
        claim = self._test_claim()
        try:
            self._passed.add(self._test(claim))
        finally:
            claim.release()

    def _test(self, claim: Claim) -> bool:
        """Check that the second put of a claim is refused.

        Return whether the bucket keeps versions.
        """
        condition = {} if self.mode == LOOK else IF_NONE
        try:
            versioned = claim.put(condition)
        except (BackendException, Forbidden) as error:
            self._blame_the_condition(error)
            raise
        head = self._bucket.head(claim.key)  # the request by which objects are recognized too
        if head is not None and not head.nonce:
            raise BackendException(
                f"{self._bucket.client.endpoint} keeps no metadata of an object (x-amz-meta-...), "
                "by which a store recognizes what it has added. Use a server that does, or check "
                "that any proxy in between lets these headers pass."
            )
        if self.mode == LOOK:
            return versioned
        try:
            claim.put(condition)
        except ConditionFailed:
            return versioned
        raise BackendException(
            f"{self._bucket.client.endpoint} ignores If-None-Match on a put into bucket "
            f"{self._bucket.name}: it has replaced an object. So nothing there keeps an id from "
            "being used twice. Ceph's gateway does so if the bucket has versioning. Use a "
            f"bucket without it, or {_REMEDY}."
        )

    def send(self, make: Make) -> None:
        """Make the request that publishes an object, on the condition that none exists.

        :raises ConditionFailed: an object exists
        :raises NotImplementedThere: the server may not know the condition on this request
        """
        try:
            make({} if self.mode == LOOK else IF_NONE)
        except ConditionFailed:
            raise
        except (BackendException, Forbidden) as error:
            if self.mode == ATOMIC:
                self._blame_the_condition(error)
                if isinstance(error, NotImplementedThere):
                    raise BackendException(
                        f"{error} If it does not know If-None-Match there, set "
                        "s3_store_create_only to checked."
                    ) from error
            raise

    def _blame_the_condition(self, error: StoreError) -> None:
        """Raise an error with advice if the server refuses a put because of ``If-None-Match``."""
        if self.mode == LOOK or error.status is not ErrorStatus.PERMANENT:
            return
        claim = self._test_claim()
        try:
            claim.put(IF_NONE)
        except StoreError as refused:
            try:
                claim.put({})
            except StoreError:
                return
            raise BackendException(
                f"The server accepts a put, but not with If-None-Match: {refused} Without that "
                "header nothing keeps an id from being used twice. Use another server, or "
                f"{_REMEDY}."
            ) from error
        finally:
            claim.release()

    def _test_claim(self) -> Claim:
        """Return a claim of a random id, which no object has."""
        nonce = os.urandom(16).hex()
        return Claim(self._bucket, nonce, nonce)


class Publication:
    """Publishes the object of one upload under its id.

    :param target: the object to publish
    :param proof: tests that the server does not let the id be used twice
    :param tried: whether another process may have published the object before
    """

    def __init__(self, target: NewObject, proof: Proof, *, tried: bool = False) -> None:
        self._target = target
        self._proof = proof
        self._claim = Claim(target.bucket, target.key, target.nonce, taken=tried)
        self._tried = tried

    def check(self) -> None:
        """Check that the id is not taken by the object of another upload.

        :raises Duplicate: it is
        """
        if self._target.holder() not in (None, self._target.nonce):
            raise duplicate(self._target.key)

    def publish(self, make: Make, seconds: float, *, optional: bool = False) -> None:
        """Publish the object, unless one of this id exists.

        May be called again after a temporary error.

        :param make: makes the publishing request, on the condition that it is called with
        :param seconds: rough maximum duration of this request
        :param optional: whether the request may be repeated, without the condition, while the claim
            is held
        :raises Duplicate: an object exists, or another upload is about to publish one
        """
        if self._proof.mode == CHECKED:
            self._proof.ensure(self._claim.take(seconds))
        if self._proof.mode == ATOMIC:
            self._make(make, optional)
        else:
            self._check_and_make(make, optional)
        self._claim.release()

    def _check_and_make(self, make: Make, optional: bool) -> None:
        target = self._target
        holder = target.holder()
        if holder is None:
            self._make(make, optional)
            # Another program may add objects without claims, or the server has let two claims
            # through.
            holder = target.holder()
            if holder is None:
                raise BackendException(
                    f"Object {target.key} disappeared as soon as it was stored: it was deleted, or "
                    "replaced by another add with this id. Add it again."
                )
        if holder != target.nonce:
            raise duplicate(target.key)

    def _make(self, make: Make, optional: bool) -> None:
        target = self._target
        self._tried = True
        # While the claim is held, the condition can be left out.
        optional = optional and self._proof.mode == CHECKED
        try:
            self._proof.send(make)
        except NotImplementedThere:
            if not optional:
                raise
            make({})
        except ConditionFailed as error:
            holder = target.holder()
            if holder is None and optional:
                make({})  # Swift applies the condition of a copy to the copy's source
            elif holder is None:
                raise refused_though_absent(target.bucket, target.key, target.key) from error
            elif holder != target.nonce:  # else an earlier request without a response published it
                raise duplicate(target.key) from error

    def succeeded(self) -> bool:
        """Return whether the object that exists is this upload's."""
        if self._target.holder() != self._target.nonce:
            return False
        self._claim.release()
        return True

    def withdraw(self) -> None:
        """Remove the claim, and the object that a request without a response may have published."""
        target = self._target
        try:
            # An object with another nonce, or without one, is kept.
            if self._tried and target.holder() == target.nonce:
                target.bucket.delete(target.key)
            self._tried = False
        finally:
            self._claim.release()
