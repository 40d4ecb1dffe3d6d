"""Publishing an object under an id that is not taken.

Servers obey ``If-None-Match`` on a put, but several ignore it when parts or a copy become an
object.  So an upload that is about to publish first puts a *claim*, a small object that keeps other
uploads away, and only then checks whether the object exists.  A *proof*, once for each process,
shows that the server obeys the header on the put of a claim at all.
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

#: What the keys of claims begin with.  Ids have no slash, so no object's key does.
PREFIX = ".store_lib/claims/"
#: The condition that no object of the key exists.
IF_NONE: Mapping[str, str] = {"IfNoneMatch": "*"}

_LIFE = "store-lib-life"
#: Bytes of the longest claim.
_LONGEST = 64
_REMEDY = (
    "set s3_store_create_only to look, which accepts that, of adds of one id that race, one may be "
    "lost"
)

#: Makes the request that publishes an object, with the condition it is given.
Make: TypeAlias = Callable[[Mapping[str, str]], object]


@dataclasses.dataclass(frozen=True, slots=True)
class StoredClaim:
    """A claim as the bucket has it.

    Body and metadata hold the same facts.  Some servers keep no metadata, and others may have
    changed it: a claim is ours, or has expired, only if neither contradicts that.
    """

    #: Nonces of the uploads that it may belong to.
    owners: frozenset[str]
    #: Seconds for which it holds.
    life: float
    #: Seconds since it was put, by the server's own clock; ``None`` if unknown.
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
        # A longer body is another's object, and no claim: it stays.
        longest = math.inf if len(body) > _LONGEST else max(lives, default=Claim.life)
        return cls(owners, longest, head.age)


class Claim:
    """The right to publish under one id, held for a short time.

    :param nonce: names the upload that claims
    :param taken: whether the upload may have put it before, in another process
    """

    #: Seconds after which a claim counts as left by a crash, besides those that the publishing
    #: request may take.
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

        :param seconds: that the publishing request may take
        :return: whether the bucket keeps versions; ``None`` if the server does not say so
        :raises Duplicate: another upload holds it
        """
        life = round(self.life + seconds)
        versioned: bool | None = None
        stored: StoredClaim | None = None
        # A claim that stood in the way may be gone, or removed here, before the next try.
        for _ in range(3):
            began = time.monotonic()
            try:
                versioned = self.put(IF_NONE, life)
            except ConditionFailed:
                versioned = None
            # A server may let several puts through at once: the last one holds.
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

        :raises ConditionFailed: there is one, and ``condition`` forbids that
        """
        self._taken = True
        # Not empty: the response to an empty put can wait for a delayed acknowledgement.
        body = f"{self._nonce} {life}\n".encode()
        metadata = {NONCE: self._nonce, _LIFE: str(life)}
        response = self._bucket.put(self.key, body, len(body), metadata, condition)
        return bool(response.get("VersionId", "null") != "null")

    def read(self) -> StoredClaim | None:
        """Return the claim that is stored for this id, ours or another's."""
        return StoredClaim.read(self._bucket, self.key)

    def release(self) -> None:
        """Remove the claim if it is ours; one that cannot be removed expires."""
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
    """Return the error for a put that was refused because of an object that does not exist."""
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
    """Whether a key can be a claim's."""
    return key.startswith(PREFIX) and is_object_key(key.removeprefix(PREFIX))


def list_claims(bucket: Bucket) -> Iterator[Incomplete]:
    """Yield every claim of a bucket."""
    for page in bucket.client.pages("list_objects_v2", Bucket=bucket.name, Prefix=PREFIX):
        for entry in page.get("Contents", ()):
            key = entry["Key"]
            if is_claim(key) and (
                claim := bucket.client.retry(functools.partial(StoredClaim.read, bucket, key))
            ):
                now = time.time()  # from which the age, by the server's clock, is counted back
                object_id, since = key.removeprefix(PREFIX), now - (claim.age or 0)
                yield Incomplete(key, object_id, 0, since, claim.live, now)


def remove_expired_claim(bucket: Bucket, key: str) -> bool:
    """Remove the claim at ``key`` unless it is live, and return whether it was removed."""
    claim = StoredClaim.read(bucket, key)
    if claim is None or claim.live:
        return False
    bucket.delete(key)
    return True


class Proof:
    """Tests, once for each process, whether the server keeps an id from being used twice.

    :param mode: a value of s3_store_create_only, but for auto
    """

    def __init__(self, bucket: Bucket, mode: str) -> None:
        self.mode = mode
        self._bucket = bucket
        #: Whether the bucket kept versions, for each time that it passed.
        self._passed: set[bool] = set()

    def ensure(self, versioned: bool | None = None) -> None:
        """Test the server, unless it has passed.

        :param versioned: whether the bucket keeps versions now, if known: it may have begun to,
            and Ceph's gateway ignores the condition then
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
        """Put a claim twice, and return whether the bucket keeps versions."""
        condition = {} if self.mode == LOOK else IF_NONE
        try:
            versioned = claim.put(condition)
        except (BackendException, Forbidden) as error:
            self._blame_the_condition(error)
            raise
        head = self._bucket.head(claim.key)  # as objects are checked
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
        """Make the request that publishes an object, if none exists.

        :raises ConditionFailed: one exists
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
        """Raise what to do, if a put is refused because of ``If-None-Match``."""
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
        """Return a claim of an id that nobody has."""
        nonce = os.urandom(16).hex()
        return Claim(self._bucket, nonce, nonce)


class Publication:
    """The publishing of one upload under its id.

    :param target: the object to publish
    :param proof: that the server keeps the id from being used twice
    :param tried: whether it may have been published before, in another process
    """

    def __init__(self, target: NewObject, proof: Proof, *, tried: bool = False) -> None:
        self._target = target
        self._proof = proof
        self._claim = Claim(target.bucket, target.key, target.nonce, taken=tried)
        self._tried = tried

    def check(self) -> None:
        """Check that no other upload's object has the id.

        :raises Duplicate: one has
        """
        if self._target.holder() not in (None, self._target.nonce):
            raise duplicate(self._target.key)

    def publish(self, make: Make, seconds: float, *, optional: bool = False) -> None:
        """Publish the object, unless one exists.

        May be called again after a temporary error.

        :param make: makes the request that publishes it, with the condition it is given
        :param seconds: that this request may take, roughly
        :param optional: it can be made again, and without the condition if a claim is held
        :raises Duplicate: one exists, or another upload is about to publish one
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
            # Another upload may not know of claims, or its claim came through beside ours.
            holder = target.holder()
            if holder is None:
                raise BackendException(
                    f"Object {target.key} disappeared as soon as it was stored: it was deleted, or "
                    "replaced by another add of this id. Add it again."
                )
        if holder != target.nonce:
            raise duplicate(target.key)

    def _make(self, make: Make, optional: bool) -> None:
        target = self._target
        self._tried = True
        # The claim does what the condition would.
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
                make({})  # Swift holds the condition of a copy against its source
            elif holder is None:
                raise refused_though_absent(target.bucket, target.key, target.key) from error
            elif holder != target.nonce:  # else it was made by a request that was not answered
                raise duplicate(target.key) from error

    def succeeded(self) -> bool:
        """Whether the object that exists is the one to publish."""
        if self._target.holder() != self._target.nonce:
            return False
        self._claim.release()
        return True

    def withdraw(self) -> None:
        """Remove what a request without a reply may have published, and the claim."""
        target = self._target
        try:
            # An object with another nonce, or none, stays.
            if self._tried and target.holder() == target.nonce:
                target.bucket.delete(target.key)
            self._tried = False
        finally:
            self._claim.release()
