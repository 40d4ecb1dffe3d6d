"""Making an object appear under an id that is not taken, whatever the server decides by itself."""

from collections.abc import Callable
from typing import TypeAlias

from store_lib.drivers.s3.bucket import Bucket
from store_lib.drivers.s3.claim import Claim
from store_lib.drivers.s3.errors import ConditionFailed, NoSuchBucket
from store_lib.exceptions import BackendException, Duplicate

Make: TypeAlias = Callable[[dict[str, str]], object]


class Publication:
    """One upload's, or one copy's, way to its final name.

    :param key: the object's key, which is its id
    :param atomic: the server itself decides ``If-None-Match`` on whatever makes an object
    """

    def __init__(self, bucket: Bucket, key: str, nonce: str, *, atomic: bool) -> None:
        self._bucket = bucket
        self._key = key
        self._nonce = nonce
        self._atomic = atomic
        self._claim = Claim(bucket, key, nonce)
        self._tried = False

    def check(self) -> None:
        """Look whether the id is taken already.

        :raises Duplicate: it is
        """
        if self._holder() is not None:
            raise Duplicate(image=self._key)

    def publish(self, make: Make, seconds: float) -> None:
        """Have the object made, unless there is one.

        May be called again after a temporary error.

        :param make: makes the request that has it appear, with the condition that it is handed
        :param seconds: that this request may rightly take, roughly
        :raises Duplicate: there is one, or somebody else is about to make one
        """
        try:
            if self._atomic:
                self._make(make)
            else:
                self._claim.take(seconds)
                self._make_claimed(make)
                self._claim.release()
        except ConditionFailed as error:
            raise Duplicate(image=self._key) from error
        except NoSuchBucket as error:
            raise BackendException(error.msg) from error

    def _make(self, make: Make) -> None:
        self._tried = True
        make({"IfNoneMatch": "*"} if self._atomic else {})

    def _make_claimed(self, make: Make) -> None:
        holder = self._holder()
        if holder is None:
            self._make(make)
            # Somebody who does not know of claims, or whose claim came through beside ours.
            holder = self._holder()
            if holder is None:
                raise BackendException(
                    f"Object {self._key} was gone as soon as it was stored: a delete, or another "
                    "add of this id, has crossed it. Add it again."
                )
        if holder != self._nonce:
            raise Duplicate(image=self._key)

    def succeeded(self) -> bool:
        """Whether the object that is there is the one to publish."""
        if self._holder() != self._nonce:
            return False
        self._claim.release()
        return True

    def withdraw(self) -> None:
        """Remove what a request without a reply may have published, and the claim."""
        if self._tried and self._holder() == self._nonce:
            self._bucket.delete(self._key)
        self._tried = False
        self._claim.release()

    def _holder(self) -> str | None:
        """Return the nonce of the object that is there, ``None`` when there is none."""
        found = self._bucket.head(self._key)
        return None if found is None else found.nonce
