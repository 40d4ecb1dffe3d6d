"""An upload to Swift: one small object, or segments that a manifest joins to an object."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from store_lib.driver import Body, PartWriter
from store_lib.drivers.swift.claim import Claim, Empty
from store_lib.drivers.swift.client import (
    Container,
    ContainerLost,
    ContainerPolicy,
    ObjectRef,
    SwiftResponse,
)
from store_lib.drivers.swift.location import NONCE, SwiftLocation
from store_lib.drivers.swift.options import SegmentLayout
from store_lib.drivers.swift.segments import (
    ManifestLost,
    Segment,
    Segments,
    dynamic_manifest,
    dynamic_segments,
    is_static,
    static_segments,
)
from store_lib.drivers.swift.trusts import UploadLogin
from store_lib.exceptions import BackendException, NotFound, NotSupported, duplicate

#: Read timeout in seconds while the server copies a segment.
_COPY_TIMEOUT = 3600.0
#: Maximum seconds in which the server looks up one entry of a manifest.
_ENTRY = 0.1
#: Headers of every object or manifest, in addition to the nonce.
_HEADERS = {"Content-Type": "application/octet-stream"}


@dataclasses.dataclass(frozen=True, slots=True)
class NewObject:
    """Where and how an upload stores its object."""

    ref: ObjectRef
    location: SwiftLocation
    policy: ContainerPolicy
    login: UploadLogin


class SwiftWriter(PartWriter):
    """Adds one object.

    :param size: the object's size in bytes; ``None`` if unknown
    :param find: returns the object at a location of the store, and its metadata
    """

    def __init__(
        self,
        target: NewObject,
        nonce: str,
        size: int | None,
        layout: SegmentLayout,
        find: Callable[[SwiftLocation], tuple[ObjectRef, SwiftResponse]],
    ) -> None:
        self._target = target
        self._nonce = nonce
        self._size = size
        self._layout = layout
        self._find = find
        self._claim = Claim(target.ref.name, nonce)
        #: Whether the object's container was created for this upload.
        self._created_container = False
        #: Names of segments that may have been stored.
        self._names: dict[str, None] = {}
        #: Whether the object itself may have been stored.
        self._publishing = False
        #: The ETag of the object, if it was stored by one request.
        self._etag: str | None = None
        self.chunk_size = self.once_limit = layout.chunk
        self.concurrency = layout.concurrency

    def prepare(self) -> None:
        """Create the container if it is missing, and check that the id is not taken.

        :raises Duplicate: the id is taken
        """
        policy = self._target.policy
        # An object that is sent in one short request needs no check in advance: the request itself
        # fails as soon.
        if not self._size or self._size > self._layout.chunk or policy.own:
            self._created_container = policy.ensure(self._container)
            # A new container has no objects.
            if not self._created_container and self._ref.exists():
                raise duplicate(self._object_id)

    def write_once(self, body: Body) -> SwiftLocation:
        self._take_claim()
        headers = {"If-None-Match": "*", **self._headers}
        response = self._put(self._object_id, body, headers)
        if response.status == 412:
            raise duplicate(self._object_id)
        self._etag = response.headers.get("Etag")
        return self._confirm()

    def part_size(self, number: int) -> int:
        """Return the size of a segment; the object's size if it is not divided."""
        if self._size is not None and self._size < self._layout.cut_from:
            return max(self._size, 1)
        return self._layout.segment

    def put_part(self, number: int, body: Body) -> Segment:
        self._target.login.extend()
        name = self._segments.name_of(number)
        self._names[name] = None
        response = self._put(name, body, {})
        return self._segment(name, body.tell() if body.size is None else body.size, response)

    def copy_from(self, location: Any) -> SwiftLocation:
        """Copy the segments of an object, or the object itself as the only segment.

        A manifest then publishes the segments.  Swift's own copy of an object is not used for that,
        as it would overwrite an existing object.

        :raises NotSupported: the object is in another account
        """
        origin, head = self._find(location)
        account = self._target.login.account
        another = origin.account.storage_url != account.storage_url
        if another or (head.followed and not head.is_in(account.storage_url)):
            what = "is in another one" if another else "is a symbolic link into another one"
            raise NotSupported(f"Swift does not copy between accounts: {origin} {what}.")
        manifest = dynamic_manifest(head.headers)
        segments: Iterable[Segment]
        if is_static(head.headers):
            segments = static_segments(origin)
        elif manifest is not None:
            segments = dynamic_segments(origin.account.container(manifest[0]), manifest[1])
        elif not head.size:
            return account.retry(lambda: self.write_once(Empty()))
        else:
            etag = head.headers.get("Etag", "")
            segments = [Segment(origin.container.name, origin.name, head.size, etag)]
        copied = self._copy_segments(segments)
        # Repeat only the commit, and keep the copied segments, while another add holds the id.
        return account.retry(lambda: self.commit(copied))

    def commit(self, tokens: Sequence[Segment]) -> SwiftLocation:
        try:
            if self._layout.dynamic:
                self._segments.put_dynamic(tokens, self._headers, self._take_claim)
            else:
                most = self._layout.entries
                self._segments.put_static(tokens, self._headers, most, self._take_claim)
        except NotFound as error:  # the container is missing; a missing segment is another error
            self._create_container()
            raise ContainerLost(container=self._container.name) from error
        return self._confirm()

    def resolve(self) -> SwiftLocation | None:
        head = self._ref.itself(newest=True)
        if head is None or not self._is_own(head):
            return None
        self._end()
        return self._target.location

    def abort(self) -> None:
        """Remove the segments, and the object if it was published but the response was lost."""
        head = self._ref.itself(newest=True) if self._publishing else None
        own = head is not None and self._is_own(head)
        if own is None:
            raise BackendException(
                f"It is not known whether {self._ref} is made of this upload's segments, so they "
                "were left. Sweep the store later."
            )
        if own:
            self._ref.delete()
        container, names = self._container, dict(self._names)
        if len(names) > self._layout.entries:  # there may be nested manifests too
            listed = container.list(prefix=self._segments.prefix)
            names |= dict.fromkeys(item.name for item in listed)
        container.delete_objects(names)
        self._claim.release(container)
        if self._created_container:
            container.account.retry(lambda: self._target.policy.delete(container))
        self._target.login.end()  # last, as abort is repeated with this login after a failure

    @property
    def _object_id(self) -> str:
        return self._target.ref.name

    @property
    def _container(self) -> Container:
        """The object's container, accessed by the current login."""
        return dataclasses.replace(self._target.ref.container, account=self._target.login.account)

    @property
    def _ref(self) -> ObjectRef:
        return self._container.object(self._object_id)

    @property
    def _segments(self) -> Segments:
        return Segments(self._container, self._object_id, self._nonce)

    @property
    def _headers(self) -> dict[str, str]:
        return {NONCE: self._nonce, **_HEADERS}

    def _take_claim(self, entries: int = 0) -> None:
        self._claim.take(self._container, self._put, entries * _ENTRY)
        self._publishing = True

    def _is_own(self, head: SwiftResponse) -> bool | None:
        """Return whether this upload has stored the object; ``None`` if unknown.

        If a client's POST of metadata has removed the nonce, the object's segments or its ETag
        decide.
        """
        nonce = head.headers.get(NONCE)
        if nonce is not None:
            return nonce == self._nonce
        if not self._names:
            return self._etag is not None and head.headers.get("Etag") == self._etag
        return self._segments.named_by(head)

    def _confirm(self) -> SwiftLocation:
        """Check that the stored object is this upload's, and return its location.

        A client that does not use claims may have overwritten it: of several requests at the same
        time with ``If-None-Match: *``, Swift accepts all.
        """
        head = self._ref.itself(newest=True)
        if head is None:
            raise ManifestLost()
        if not self._is_own(head):
            raise duplicate(self._object_id, "added by another at the same moment")
        self._end()
        return self._target.location

    def _end(self) -> None:
        self._claim.release(self._container)
        self._target.login.end()

    def _copy_segments(self, origin: Iterable[Segment]) -> list[Segment]:
        """Have the server copy segments concurrently, as segments of this object."""
        account, container = self._target.login.account, self._container
        copies: dict[int, Segment] = {}

        def copy(number: int, segment: Segment) -> None:
            name = self._segments.name_of(number)
            self._names[name] = None
            headers = {
                "Destination": quote(f"{container.name}/{name}"),
                "X-Fresh-Metadata": "true",
            }
            path = account.container(segment.container).object(segment.name).path
            ask = functools.partial(
                account.ask, "COPY", path, headers=headers, read_timeout=_COPY_TIMEOUT
            )
            try:
                response = account.retry(ask)
            except NotFound as error:
                if account.head(path) is None:
                    raise
                raise ContainerLost(container=container.name) from error
            copies[number] = copied = self._segment(name, segment.size, response)
            if copied.etag != segment.etag:
                raise NotSupported(
                    f"Expected Swift to copy {segment.container}/{segment.name} with the ETag "
                    f"{segment.etag[:40]!r} of its manifest or metadata, got {copied.etag[:40]!r}."
                )

        calls = [functools.partial(copy, *numbered) for numbered in enumerate(origin, 1)]
        account.run_concurrently(calls, self._layout.concurrency)
        return [copies[number] for number in sorted(copies)]

    def _put(self, name: str, body: Body, headers: Mapping[str, str]) -> SwiftResponse:
        """Store a body under a name; if the container is missing, create it and try once more.

        :raises ContainerLost: the container is missing again: a delete of the same id may have
            removed it while it was empty, or a server still remembers that it was missing
        """
        container = self._container
        put = functools.partial(
            container.account.ask,
            *("PUT", container.object(name).path, 404, 412),
            headers=headers,
            body=body,
        )
        response = put()
        if response.status == 404:
            self._create_container()
            if not body.rewindable:
                raise ContainerLost(container=container.name)
            body.seek(0)
            response = put()
        if response.status == 404:
            raise ContainerLost(container=container.name)
        return response

    def _create_container(self) -> None:
        self._target.policy.create(self._container)
        self._created_container = True

    def _segment(self, name: str, size: int, response: SwiftResponse) -> Segment:
        etag = response.headers.get("Etag", "").strip('"')
        return Segment(self._container.name, name, size, etag)
