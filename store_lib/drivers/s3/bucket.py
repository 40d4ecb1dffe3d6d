"""The requests that the driver makes about an object, and what their answers say of it."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from store_lib.clients.answers import content_range, seconds_of
from store_lib.drivers.s3.client import Client
from store_lib.drivers.s3.errors import (
    NoSuchBucket,
    NotImplementedThere,
    UnknownRegion,
)
from store_lib.exceptions import BackendException, Forbidden, InvalidRange, NotFound

#: Name under which an object's metadata has the nonce of the upload that made it.
NONCE = "store-lib-nonce"
#: Has an object made only where there is none of its key.
IF_NONE: Mapping[str, str] = {"IfNoneMatch": "*"}


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a bucket reports about an object; ``None`` for what it leaves out."""

    size: int | None
    #: What identifies these very bytes.
    etag: str | None
    #: Seconds since the epoch.
    modified: float | None
    #: Seconds since then, by the server's own clock.
    age: float | None
    metadata: Mapping[str, str]

    @property
    def nonce(self) -> str:
        """The nonce of the upload that made it; empty where the server does not say it."""
        return self.metadata.get(NONCE, "")


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of a server."""

    client: Client
    name: str

    def call(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        """Make a request about ``key``."""
        return self.client.call(operation, Bucket=self.name, Key=key, **arguments)

    def head(self, key: str) -> Head | None:
        """Tell of an object; ``None`` when there is none."""
        try:
            return _head(self.call("head_object", key))
        except NotFound:
            return None
        except (Forbidden, BackendException):
            return self._head_by_get(key)

    def _head_by_get(self, key: str) -> Head | None:
        """Ask again, in a way to which the answer has a body that tells what is wrong."""
        try:
            answer = self.call("get_object", key, Range="bytes=0-0")
        except NotFound:
            return None
        except InvalidRange:
            answer = self.call("get_object", key)
        answer["Body"].close()
        return _head(answer)

    def read(self, key: str, most: int) -> tuple[Head, bytes] | None:
        """Return an object and its first bytes; ``None`` when there is none."""
        try:
            answer = self.call("get_object", key)
        except NotFound:
            return None
        asked = f"get_object {self.name}/{key}"
        with contextlib.closing(answer["Body"]) as body, self.client.answering(asked):
            return _head(answer), body.read(most)

    def put(
        self,
        key: str,
        body: Any,
        size: int | None,
        metadata: Mapping[str, str],
        condition: Mapping[str, str],
    ) -> dict[str, Any]:
        """Make an object in one request, and return the answer.

        :raises ConditionFailed: ``condition`` does not hold
        """
        return self.call(
            "put_object",
            key,
            Body=body,
            ContentLength=size,
            Metadata=dict(metadata),
            **condition,
        )

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        self.call("delete_object", key)

    def versioning(self) -> str | None:
        """Return ``Enabled`` or ``Suspended``, empty where it never was; ``None`` if not told."""
        try:
            answer = self.client.call("get_bucket_versioning", Bucket=self.name)
        except NotImplementedThere:
            return ""  # a server without versions
        except (Forbidden, BackendException):
            return None
        status: str = answer.get("Status", "")
        return status

    def ensure(self, region: str, *, named: bool) -> None:
        """Make the bucket unless it is there.

        :param region: where to make it
        :param named: whether that was said of this very server; otherwise one that does not know
            the region makes the bucket where it likes
        """
        try:
            self._look()
        except NoSuchBucket:
            try:
                self._make(region, named=named)
            except BackendException as refused:
                try:
                    self._look()  # somebody else may have made it at the same moment
                except NoSuchBucket:
                    raise refused from None

    def _make(self, region: str, *, named: bool) -> None:
        # Amazon's first region is the one that must not be named.
        place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self.client.call(
                "create_bucket", Bucket=self.name, **({} if region == "us-east-1" else place)
            )
        except UnknownRegion:
            if named:
                raise
            self.client.call("create_bucket", Bucket=self.name)

    def _look(self) -> None:
        # Not by a HEAD: its answer would not tell what is wrong.
        self.client.call("list_objects_v2", Bucket=self.name, MaxKeys=1)


def server_time(answer: Mapping[str, Any]) -> float:
    """Return the time of an answer by the server's clock, by this machine's where it gives none."""
    now = seconds_of(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
    return time.time() if now is None else now


def _head(answer: dict[str, Any]) -> Head:
    size = answer.get("ContentLength")
    if span := answer.get("ContentRange"):
        found = content_range(span)
        size = None if found is None else found[2]
    modified = answer.get("LastModified")
    return Head(
        size=size,
        etag=answer.get("ETag"),
        modified=modified,
        age=None if modified is None else server_time(answer) - modified,
        # Several servers, and what is made with Go's net/http, give names in a case of their own.
        metadata={name.lower(): value for name, value in answer.get("Metadata", {}).items()},
    )
