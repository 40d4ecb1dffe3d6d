"""An upload to Swift: one small object, or segments that a manifest makes an object of."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import quote

from store_lib.driver import Body, PartWriter
from store_lib.drivers.swift.account import COPYING, Account, Answer, path_of
from store_lib.drivers.swift.claim import Claim, Empty
from store_lib.drivers.swift.location import SwiftLocation
from store_lib.drivers.swift.manifests import (
    ManifestLost,
    Segment,
    dynamic_of,
    dynamic_segments,
    is_static,
    names_any,
    put_dynamic,
    put_static,
    static_segments,
)
from store_lib.drivers.swift.names import NONCE, prefix_of
from store_lib.drivers.swift.places import ContainerLost, Containers, Place
from store_lib.exceptions import BackendException, Duplicate, NotFound, NotSupported, StoreError

#: Bytes of a chunk, and of the largest object that is stored by a single, short request.
_CHUNK = 1024 * 1024
#: Seconds that a manifest takes for each of its entries at most, which the server looks up.
_ENTRY = 0.1
#: Other headers of an object, and of its manifest.
_HEADERS = {"Content-Type": "application/octet-stream"}


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a store lays out large objects."""

    #: Bytes from which on an object of known size is cut.
    cut_from: int
    #: Bytes of a segment.
    segment: int
    #: Segments sent at once.
    at_once: int
    #: Entries of a static manifest.
    entries: int
    dynamic: bool

    @property
    def chunk(self) -> int:
        """Bytes of a chunk, and of the largest object that is stored by one request."""
        return min(_CHUNK, self.segment)


#: Gives an account whose login outlives the user's token, and what ends that.
Lasting = Callable[[], tuple[Account, Callable[[], None]]]


class SwiftWriter(PartWriter):
    """One upload.

    :param size: bytes to come, ``None`` when unknown
    :param made_container: whether the object's container was made for this upload
    :param lasting: asked once, before the first segment
    """

    def __init__(
        self,
        place: Place,
        containers: Containers,
        plan: Plan,
        nonce: str,
        size: int | None,
        *,
        made_container: bool = False,
        lasting: Lasting | None = None,
    ) -> None:
        self._place = place
        self._account = place.account
        self._containers = containers
        self._plan = plan
        self._nonce = nonce
        self._size = size
        self._made_container = made_container
        self._lasting = lasting
        self._release: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._prefix = prefix_of(place.name, nonce)
        self._claim = Claim(place.container, place.name, nonce)
        #: Names of segments that may be there.
        self._begun: dict[str, None] = {}
        #: Whether the object itself may be there.
        self._publishing = False
        #: The ETag of an object that was stored by one request.
        self._tag: str | None = None
        self.chunk_size = self.once_limit = plan.chunk
        self.concurrency = plan.at_once

    def write_once(self, body: Body) -> SwiftLocation:
        """Store the object by one request.

        :raises Duplicate: an object of this id is there
        """
        self._take_claim()
        headers = {"If-None-Match": "*", NONCE: self._nonce, **_HEADERS}
        answer = self._put(self._place.name, body, headers)
        if answer.status == 412:
            raise Duplicate(image=self._place.name)
        self._tag = answer.headers.get("Etag")
        return self._confirmed()

    def part_size(self, number: int) -> int:
        """Return the size of a segment: all of an object that is not to be cut."""
        if self._size is not None and self._size < self._plan.cut_from:
            return max(self._size, 1)
        return self._plan.segment

    def put_part(self, number: int, body: Body) -> Segment:
        """Store a segment."""
        self._last_long()
        name = f"{self._prefix}{number:08}"
        self._begun[name] = None
        answer = self._put(name, body, {})
        return self._segment(name, body.tell() if body.size is None else body.size, answer)

    def fill_from(self, origin: Place, head: Answer) -> SwiftLocation:
        """Make the object of one that is there, whose head this is.

        By copies of its segments, or of itself as the only segment: published by a manifest, as
        the server's own copy of an object overwrites what is there.

        :raises NotSupported: it is in another account
        """
        account = self._account
        if origin.account.storage_url != account.storage_url:
            raise NotSupported(
                f"Swift does not copy between accounts: {origin.shown} is in another one."
            )
        if head.followed and not head.is_in(account.storage_url):
            raise NotSupported(
                f"Swift does not copy between accounts: {origin.shown} is a symbolic link "
                "into another one."
            )
        manifest = dynamic_of(head.headers)
        segments: Iterable[Segment]
        if is_static(head.headers):
            segments = static_segments(account, origin.container, origin.name)
        elif manifest is not None:
            segments = dynamic_segments(account, *manifest)
        elif not head.size:
            return self._publish(lambda: self.write_once(Empty()))
        else:
            etag = head.headers.get("Etag", "")
            segments = [Segment(origin.container, origin.name, head.size, etag)]
        made = self._copied(segments)
        return self._publish(lambda: self.commit(made))

    def _publish(self, call: Callable[[], SwiftLocation]) -> SwiftLocation:
        """Make a request that publishes; after a lost answer, find out whether it did."""
        try:
            return self._account.retry(call)
        except StoreError:
            found = self.resolve()
            if found is None:
                raise
            return found

    def commit(self, tokens: Sequence[Segment]) -> SwiftLocation:
        """Publish the object by its manifest.

        :raises Duplicate: an object of this id is there
        """
        try:
            self._put_manifest(tokens)
        except NotFound as error:  # a segment that is not there is told otherwise
            self._make_container()
            raise ContainerLost(container=self._place.container) from error
        return self._confirmed()

    def _put_manifest(self, segments: Sequence[Segment]) -> None:
        place, headers = self._place, {NONCE: self._nonce, **_HEADERS}
        if self._plan.dynamic:
            put_dynamic(
                self._account,
                place.container,
                place.name,
                segments,
                headers,
                prefix=self._prefix,
                claim=self._take_claim,
            )
        else:
            put_static(
                self._account,
                place.container,
                place.name,
                segments,
                headers,
                most=self._plan.entries,
                prefix=self._prefix,
                claim=self._take_claim,
            )

    def _take_claim(self, entries: int = 0) -> None:
        self._claim.take(self._account, self._put, entries * _ENTRY)
        self._publishing = True

    def resolve(self) -> SwiftLocation | None:
        """Look whether what is stored is this upload's."""
        head = self._head()
        if head is None or not self._made(head):
            return None
        self._end()
        return self._place.location

    def abort(self) -> None:
        """Remove the segments, and the object if a lost answer has left it published."""
        container = self._place.container
        head = self._head() if self._publishing else None
        made = head is not None and self._made(head)
        if made is None:
            raise BackendException(
                f"It is not known whether {container}/{self._place.name} is made of this upload's "
                "segments, so they were left. Sweep the store later."
            )
        if made:
            self._account.delete(self._place.path)
        names = dict(self._begun)
        if len(names) > self._plan.entries:  # there may be manifests of manifests too
            listed = self._account.listing(container, prefix=self._prefix)
            names |= dict.fromkeys(each.name for each in listed)
        self._account.delete_all(path_of(container, name) for name in names)
        self._claim.release(self._account)
        if self._made_container:
            self._account.retry(lambda: self._containers.drop(self._account, container))
        self._end()  # not before: after a failure this is done again

    def _head(self) -> Answer | None:
        return self._account.itself("HEAD", self._place.path, newest=True)

    def _made(self, head: Answer) -> bool | None:
        """Tell whether what is stored is what this upload has made, ``None`` if that is not known.

        A POST by somebody else takes the nonce away; then what the object is made of tells.
        """
        nonce = head.headers.get(NONCE)
        if nonce is not None:
            return nonce == self._nonce
        if not self._begun:
            return self._tag is not None and head.headers.get("Etag") == self._tag
        place = self._place
        return names_any(self._account, place.container, place.name, head, self._prefix)

    def _confirmed(self) -> SwiftLocation:
        """Return the location, if it is this upload that is stored there now.

        Swift lets several through that say "only if there is none" at the same moment, and what
        it said it stored may already be overwritten by one of them.
        """
        head = self._head()
        if head is None:
            raise ManifestLost()
        if not self._made(head):
            raise Duplicate(
                f"Object {self._place.name} was added by another at the same moment; that one is "
                "stored."
            )
        self._end()
        return self._place.location

    def _copied(self, origin: Iterable[Segment]) -> list[Segment]:
        """Have the server copy segments, several at once, as segments of this object."""
        made: dict[int, Segment] = {}

        def copy(number: int, each: Segment) -> None:
            name = f"{self._prefix}{number:08}"
            self._begun[name] = None
            headers = {
                "Destination": quote(f"{self._place.container}/{name}"),
                "X-Fresh-Metadata": "true",
            }
            path = path_of(each.container, each.name)
            ask = functools.partial(
                self._account.ask, "COPY", path, headers=headers, silence=COPYING
            )
            try:
                answer = self._account.retry(ask)
            except NotFound as error:
                if self._account.head(path) is None:
                    raise
                raise ContainerLost(container=self._place.container) from error
            made[number] = copied = self._segment(name, each.size, answer)
            if copied.etag != each.etag:
                raise NotSupported(
                    f"Expected Swift to copy {each.container}/{each.name} with the ETag "
                    f"{each.etag[:40]!r} that its object tells, got {copied.etag[:40]!r}."
                )

        calls = [functools.partial(copy, *each) for each in enumerate(origin, 1)]
        self._account.run_concurrently(calls, self._plan.at_once)
        return [made[number] for number in sorted(made)]

    def _put(self, name: str, body: Body, headers: Mapping[str, str]) -> Answer:
        """Store bytes under a name, once more if its container has to be made first.

        :raises ContainerLost: it is missing again: deletes of the same id remove it while it is
            empty, and servers remember for some seconds that it was missing, until it is made anew
        """
        path = path_of(self._place.container, name)
        answer = self._account.ask("PUT", path, 404, 412, headers=headers, body=body)
        if answer.status == 404:
            self._make_container()
            if not body.rewindable:
                raise ContainerLost(container=self._place.container)
            body.seek(0)
            answer = self._account.ask("PUT", path, 404, 412, headers=headers, body=body)
        if answer.status == 404:
            raise ContainerLost(container=self._place.container)
        return answer

    def _make_container(self) -> None:
        self._containers.make(self._account, self._place.container)
        self._made_container = True

    def _segment(self, name: str, size: int, answer: Answer) -> Segment:
        etag = answer.headers.get("Etag", "").strip('"')
        return Segment(self._place.container, name, size, etag)

    def _last_long(self) -> None:
        """See to it that the login outlasts the upload."""
        with self._lock:
            if self._lasting is not None:
                lasting, self._lasting = self._lasting, None
                self._account, self._release = lasting()

    def _end(self) -> None:
        self._claim.release(self._account)
        with self._lock:
            release, self._release = self._release, None
            self._lasting = None
        if release is not None:
            release()
            self._account = self._place.account
