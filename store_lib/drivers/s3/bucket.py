"""The requests that the driver makes about an object, and what their answers say of it."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from store_lib.clients.answers import content_range, seconds_of
from store_lib.drivers.s3.client import Client
from store_lib.drivers.s3.errors import NoSuchBucket
from store_lib.exceptions import BackendException, Forbidden, InvalidRange, NotFound

#: Name under which an object's metadata has the nonce of the upload that made it.
NONCE = "store-lib-nonce"


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a bucket tells of an object; ``None`` where it does not."""

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

    def put(self, key: str, body: Any, size: int | None, metadata: Mapping[str, str]) -> None:
        """Make an object in one request, if there is none of this key.

        :raises ConditionFailed: there is one
        """
        self.call(
            "put_object",
            key,
            Body=body,
            ContentLength=size,
            Metadata=dict(metadata),
            IfNoneMatch="*",
        )

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        self.call("delete_object", key)

    def ensure(self, region: str | None) -> None:
        """Make the bucket unless it is there.

        :param region: where to make it; ``None`` for the server's own choice
        """
        try:
            self._look()
        except NoSuchBucket:
            # Amazon's first region is the one that must not be named.
            named = region is not None and region != "us-east-1"
            place = {"CreateBucketConfiguration": {"LocationConstraint": region}} if named else {}
            try:
                self.client.call("create_bucket", Bucket=self.name, **place)
            except BackendException as refused:
                try:
                    self._look()  # somebody else may have made it at the same moment
                except NoSuchBucket:
                    raise refused from None

    def _look(self) -> None:
        # Not by a HEAD: its answer would not tell what is wrong.
        self.client.call("list_objects_v2", Bucket=self.name, MaxKeys=1)


def _head(answer: dict[str, Any]) -> Head:
    size = answer.get("ContentLength")
    if span := answer.get("ContentRange"):
        found = content_range(span)
        size = None if found is None else found[2]
    told = answer.get("LastModified")
    modified = None if told is None else told.timestamp()
    now = seconds_of(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
    return Head(
        size=size,
        etag=answer.get("ETag"),
        modified=modified,
        age=None if modified is None else (time.time() if now is None else now) - modified,
        # Several servers, and what is made with Go's net/http, give names in a case of their own.
        metadata={name.lower(): value for name, value in answer.get("Metadata", {}).items()},
    )
