"""Making an object appear under an id that is not taken, whatever the server decides by itself."""

from store_lib.drivers.s3.bucket import Bucket
from store_lib.drivers.s3.claim import Claim, refused_though_absent
from store_lib.drivers.s3.errors import ConditionFailed, NotImplementedThere
from store_lib.drivers.s3.options import ATOMIC, CHECKED
from store_lib.drivers.s3.proof import Make, Proof
from store_lib.exceptions import BackendException, Duplicate


class Publication:
    """One upload's, or one copy's, way to its final name.

    :param key: the object's key, which is its id
    :param proof: of what the server does
    """

    def __init__(self, bucket: Bucket, key: str, nonce: str, proof: Proof) -> None:
        self._bucket = bucket
        self._key = key
        self._nonce = nonce
        self._proof = proof
        self._claim = Claim(bucket, key, nonce)
        self._tried = False

    def check(self) -> None:
        """Look whether the id is taken already.

        :raises Duplicate: it is
        """
        if self._holder() is not None:
            raise Duplicate(image=self._key)

    def publish(self, make: Make, seconds: float, *, optional: bool = False) -> None:
        """Have the object made, unless there is one.

        May be called again after a temporary error.

        :param make: makes the request that has it appear, with the condition that it is handed
        :param seconds: that this request may rightly take, roughly
        :param optional: it can be made again, and without the condition where a claim is held
        :raises Duplicate: there is one, or somebody else is about to make one
        """
        if self._proof.mode == CHECKED:
            self._proof.hold(self._claim.take(seconds))
        if self._proof.mode == ATOMIC:
            self._make(make, optional)
        else:
            self._look_and_make(make, optional)
        self._claim.release()

    def _look_and_make(self, make: Make, optional: bool) -> None:
        holder = self._holder()
        if holder is None:
            self._make(make, optional)
            # Somebody who does not know of claims, or whose claim came through beside ours.
            holder = self._holder()
            if holder is None:
                raise BackendException(
                    f"Object {self._key} was gone as soon as it was stored: a delete, or another "
                    "add of this id, has crossed it. Add it again."
                )
        if holder != self._nonce:
            raise Duplicate(image=self._key)

    def _make(self, make: Make, optional: bool) -> None:
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
            holder = self._holder()
            if holder is None and optional:
                make({})  # Swift holds the condition of a copy against its source
            elif holder is None:
                raise refused_though_absent(self._bucket, self._key, self._key) from error
            elif holder != self._nonce:  # else it was made by a request that was not answered
                raise Duplicate(image=self._key) from error

    def succeeded(self) -> bool:
        """Whether the object that is there is the one to publish."""
        if self._holder() != self._nonce:
            return False
        self._claim.release()
        return True

    def withdraw(self) -> None:
        """Remove what a request without a reply may have published, and the claim."""
        try:
            # Only what says that it is ours: in doubt it stays.
            if self._tried and self._holder() == self._nonce:
                self._bucket.delete(self._key)
            self._tried = False
        finally:
            self._claim.release()

    def _holder(self) -> str | None:
        """Return the nonce of the object that is there, ``None`` when there is none."""
        found = self._bucket.head(self._key)
        return None if found is None else found.nonce
