"""What a server has to do so that an id is used once, found out before anything relies on it."""

import os
from collections.abc import Callable, Mapping
from typing import TypeAlias

from store_lib.drivers.s3.bucket import IF_NONE, Bucket
from store_lib.drivers.s3.claim import Claim
from store_lib.drivers.s3.errors import ConditionFailed, NotImplementedThere
from store_lib.drivers.s3.options import ATOMIC, LOOK
from store_lib.exceptions import BackendException, ErrorStatus, Forbidden, StoreError

#: Makes a request that has an object appear, with the condition that it is handed.
Make: TypeAlias = Callable[[Mapping[str, str]], object]

_REMEDY = (
    "set s3_store_create_only to look, which accepts that, of adds of one id that race, one may be "
    "lost"
)


class Proof:
    """What is known of a store's bucket; one for each process.

    :param mode: a value of s3_store_create_only, but for auto
    """

    def __init__(self, bucket: Bucket, mode: str) -> None:
        self.mode = mode
        self._bucket = bucket
        #: Whether the bucket kept versions each time that it passed.
        self._passed: set[bool] = set()

    def hold(self, versioned: bool | None = None) -> None:
        """Put the server to the proof, unless it has passed.

        :param versioned: whether the bucket keeps versions now, where that is known: it may have
            begun to, and Ceph's gateway ignores the condition then
        :raises BackendException: objects cannot be added safely
        """
        passed = bool(self._passed) if versioned is None else versioned in self._passed
        if passed or self.mode == ATOMIC:
            return
        claim = self._claim()
        try:
            self._passed.add(self._try(claim))
        finally:
            claim.release()

    def _try(self, claim: Claim) -> bool:
        """Put a claim twice, and return whether the bucket keeps versions."""
        condition = {} if self.mode == LOOK else IF_NONE
        try:
            versioned = claim.put(condition)
        except (BackendException, Forbidden) as error:
            self._blame_the_condition(error)
            raise
        found = self._bucket.head(claim.key)  # as objects are looked at
        if found is not None and not found.nonce:
            raise BackendException(
                f"{self._bucket.client.endpoint} keeps no metadata of an object (x-amz-meta-...), "
                "by which a store knows what it has added itself. Use a server that does, or see "
                "that what is between lets these headers pass."
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
            "being used twice. Ceph's gateway does so where the bucket has versioning. Use a "
            f"bucket without it, or {_REMEDY}."
        )

    def send(self, make: Make) -> None:
        """Make the request that has an object appear, if there is none.

        :raises ConditionFailed: there is one
        :raises NotImplementedThere: the condition may be what the server does not know there
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
        claim = self._claim()
        try:
            claim.put(IF_NONE)
        except StoreError as refused:
            try:
                claim.put({})
            except StoreError:
                return
            raise BackendException(
                f"The server takes a put, but none with If-None-Match: {refused} Without that "
                "header nothing keeps an id from being used twice. Use another server, or "
                f"{_REMEDY}."
            ) from error
        finally:
            claim.release()

    def _claim(self) -> Claim:
        """Return a claim of an id that nobody has."""
        nonce = os.urandom(16).hex()
        return Claim(self._bucket, nonce, nonce)
