"""Large objects: segments, the manifests that join them, and what incomplete uploads have left.

A static manifest lists its segments, or other manifests.  A dynamic one holds the prefix of its
segments' names.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote, unquote

from store_lib.clients.decoding import Unexpected, decoding, entries, parse_json, size, text
from store_lib.display import get_logger
from store_lib.driver import Incomplete
from store_lib.drivers.swift.client import (
    Container,
    ListedObject,
    ObjectRef,
    SwiftResponse,
    path_of,
)
from store_lib.drivers.swift.location import (
    CLAIM,
    NONCE,
    NUMBER,
    SEGMENTS,
    all_of,
    has_dots,
    is_segment,
    prefix_of,
    upload_of,
)
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    NotSupported,
    RemoteServiceUnavailable,
    StoreError,
    duplicate,
    not_found,
)

_LOG = get_logger(__name__)

#: Matches what follows the prefix in the name of a segment that other software has stored.
_NUMBER = re.compile(NUMBER)
#: Matches the name of an object that may be a segment of a dynamic manifest in the same container.
_NUMBERED = re.compile(rf"(.*[^0-9]){NUMBER}", re.DOTALL)
#: Maximum depth of nested static manifests in Swift.
_DEEPEST = 10
#: Where a listing continues behind all segments: every name that is greater than those of the
#: segments is greater than this one.
_BEHIND_SEGMENTS = f"{SEGMENTS}\x7f"


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A stored segment, or a stored manifest of several segments."""

    container: str
    name: str
    size: int
    etag: str


@dataclasses.dataclass(frozen=True, slots=True)
class ManifestEntry:
    """An entry of a static manifest: a segment, or a nested manifest."""

    container: str
    name: str
    size: int
    etag: str
    nested: bool
    #: Whether the entry is the whole object that it names, and not a range of its bytes.
    whole: bool


class ManifestLost(BackendException):
    """Swift has reported that an object was stored, but the object is missing."""

    message = "Swift answered that the object was stored, but it is not there."
    default_status = ErrorStatus.TEMPORARY


@dataclasses.dataclass(frozen=True, slots=True)
class Segments:
    """The segments of one upload, in the container of their object."""

    container: Container
    object_id: str
    nonce: str

    @property
    def prefix(self) -> str:
        """The common prefix of the segments' names."""
        return prefix_of(self.object_id, self.nonce)

    @property
    def object(self) -> ObjectRef:
        """The object that the segments are for."""
        return self.container.object(self.object_id)

    def name_of(self, number: int) -> str:
        """Return the name of the segment with this number."""
        return f"{self.prefix}{number:08}"

    # Publishing

    def put_static(
        self,
        segments: Sequence[Segment],
        headers: Mapping[str, str],
        most: int,
        claim: Callable[[int], None],
    ) -> None:
        """Publish the object by a static manifest; the server checks each segment.

        :param most: maximum number of entries of a manifest; with more segments, manifests are
            nested
        :param claim: called before the request that publishes, with the number of entries that the
            server looks up for it
        :raises Duplicate: an object with this id exists
        """
        entries = list(segments)
        level = 0
        while len(entries) > most:
            level += 1
            groups = [entries[at : at + most] for at in range(0, len(entries), most)]
            entries = [
                self._put_manifest(f"{self.prefix}m{level}-{number:06}", group, {})
                for number, group in enumerate(groups, 1)
            ]
        claim(len(entries))
        self._put_manifest(self.object_id, entries, {"If-None-Match": "*", **headers})

    def _put_manifest(
        self, name: str, segments: Sequence[Segment], headers: Mapping[str, str]
    ) -> Segment:
        listed = [
            {
                "path": f"/{segment.container}/{segment.name}",
                "etag": segment.etag,
                "size_bytes": segment.size,
            }
            for segment in segments
        ]
        container = self.container
        status, report = container.account.ask_with_heartbeat(
            "PUT",
            container.object(name).path,
            412,
            query={"multipart-manifest": "put", "heartbeat": "on"},
            headers=headers,
            body=json.dumps(listed).encode(),
        )
        if status == 412:
            raise duplicate(name)
        whole = sum(segment.size for segment in segments)
        return Segment(container.name, name, whole, str(report.get("Etag", "")).strip('"'))

    def put_dynamic(
        self,
        segments: Sequence[Segment],
        headers: Mapping[str, str],
        claim: Callable[[int], None],
    ) -> None:
        """Publish the object by a dynamic manifest, if the listing has exactly these segments.

        :param claim: called before the request that publishes, with the number of entries that the
            server looks up for it, which is 0
        :raises Duplicate: an object with this id exists
        :raises RemoteServiceUnavailable: the listing is not up to date yet
        """
        container = self.container
        listed = {item.name: item.size for item in container.list(prefix=self.prefix)}
        if listed != {segment.name: segment.size for segment in segments}:
            raise RemoteServiceUnavailable(
                f"Expected {len(segments)} segments in the listing of {container.name}, got "
                f"{len(listed)}, or others: it is not up to date yet."
            )
        claim(0)
        manifest = quote(f"{container.name}/{self.prefix}")
        headers = {"X-Object-Manifest": manifest, "If-None-Match": "*", **headers}
        response = container.account.ask("PUT", self.object.path, 412, headers=headers, body=b"")
        if response.status == 412:
            raise duplicate(self.object_id)

    def named_by(self, head: SwiftResponse) -> bool | None:
        """Return whether the manifest of the object names any of these segments.

        :param head: the object's metadata
        :returns: ``None`` if unknown: the manifest cannot be read, or may have been lost
        """
        dynamic = dynamic_manifest(head.headers)
        if dynamic is not None:
            beside, prefix = dynamic[0] == self.container.name, dynamic[1]
            if beside and (self.prefix.startswith(prefix) or prefix.startswith(self.prefix)):
                return True
        if is_static(head.headers):
            return self._in_static_manifest()
        # A POST of metadata removes the header of a dynamic manifest, which leaves an empty object.
        return None if dynamic is None and not head.size else False

    def _in_static_manifest(self) -> bool | None:
        named, prefix = None, f"{self.container.name}/{self.prefix}"
        try:
            for _, entry in _walk(self.object):
                if entry is not None and f"{entry.container}/{entry.name}".startswith(prefix):
                    return True
                named = False
        except StoreError as error:
            if error.status is not ErrorStatus.PERMANENT:
                raise
            return None
        return named

    # Incomplete uploads

    def may_be_published(self) -> bool:
        """Return whether the object may consist of these segments.

        The metadata may not have the upload's nonce any more, as any POST replaces it; then the
        manifest decides.  The result is true in case of doubt.
        """
        head = self.object.itself(newest=True)
        if head is None:
            # An object that is missing but listed may have expired, which can be undone, or may be
            # on servers that are down.
            first = next(self.container.list(prefix=self.object_id, limit=1), None)
            return first is not None and first.name == self.object_id
        if head.headers.get(NONCE) == self.nonce or head.link is not None:
            return True
        return self.named_by(head) is not False

    def remove(self, seen: float) -> bool:
        """Remove the segments, unless the upload is published; return whether any were removed.

        :param seen: time of the upload's last change in the listing that the caller has seen; after
            a later change the segments are kept
        """
        upload = self.object_id, self.nonce
        listed = self.container.list(prefix=self.prefix)
        segments = [item for item in listed if upload_of(item.name) == upload]
        if not segments or max(item.modified for item in segments) > seen:
            return False
        if self.may_be_published():
            return False
        self.container.delete_objects(item.name for item in segments)
        return True

    def incomplete(self, listed: Iterable[ListedObject]) -> Incomplete:
        """Describe the upload as an incomplete one.

        :param listed: the upload's segments, and manifests of these
        """
        total, modified, now = 0, 0.0, None
        for item in listed:
            if not item.name.rpartition("/")[2].startswith("m"):  # a manifest of counted segments
                total += item.size
            if item.modified >= modified:
                modified, now = item.modified, item.now
        key = f"{self.container.name}/{self.prefix}"
        return Incomplete(key, self.object_id, total, modified, now=now)


def incomplete_uploads(container: Container) -> Iterator[Incomplete]:
    """Yield the uploads that have segments in a container, but no object."""
    listed = container.list(prefix=SEGMENTS)
    for upload, item in groupby(listed, key=lambda segment: upload_of(segment.name)):
        if upload is None:
            continue
        segments = Segments(container, *upload)
        incomplete = segments.incomplete(item)
        if not segments.may_be_published():
            yield incomplete


def complete_objects(container: Container) -> Iterator[tuple[ListedObject, int | None]]:
    """Yield the complete objects of a container, with their sizes if known.

    A dynamic large object is listed with 0 bytes, so its size is looked up.  glance_store stores
    the segments of ``id`` in the same container as ``id-00001`` and so on; these are left out.
    """
    prefixes: set[str] = set()
    for item in _outside_segments(container):
        numbered = _NUMBERED.fullmatch(item.name)
        if has_dots(item.name) or (numbered and numbered[1] in prefixes):
            continue
        if item.size:
            yield item, item.size
            continue
        ref = container.object(item.name)
        head = container.account.ask("HEAD", ref.path, 403, 404, 409)
        if head.status >= 300:
            # A symbolic link whose target is missing or forbidden to this login; or an object that
            # has been deleted meanwhile.
            if ref.itself() is not None:
                yield item, None
            continue
        manifest = dynamic_manifest(head.headers)
        if manifest is None or head.followed:
            yield item, head.size if lost_segments(ref, head) is None else None
            continue
        if manifest[0] == container.name:
            prefixes.add(manifest[1])
        yield item, dynamic_size(container.account.container(manifest[0]), manifest[1])


def _outside_segments(container: Container) -> Iterator[ListedObject]:
    yield from container.list(before=SEGMENTS)
    yield from container.list(after=_BEHIND_SEGMENTS)


# Dynamic manifests


def dynamic_manifest(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the container and the prefix of a dynamic large object's segments.

    Return ``None`` if by its metadata the object is not a dynamic large object.
    """
    manifest = unquote(headers.get("X-Object-Manifest", "")).lstrip("/")
    container, slash, prefix = manifest.partition("/")
    return (container, prefix) if slash and prefix and not has_dots(container) else None


def dynamic_segments(container: Container, prefix: str) -> Iterator[Segment]:
    """Yield the segments that belong to a dynamic large object.

    Swift takes all objects whose names begin with the prefix.  With ``img-`` these include the
    segments of ``img-copy``.  So unless the prefix ends with a slash, only objects whose names
    continue with a number, as glance_store writes it, count as segments.
    """
    for item in container.list(prefix=prefix):
        if prefix.endswith("/") or _NUMBER.fullmatch(item.name[len(prefix) :]):
            yield Segment(container.name, item.name, item.size, item.etag)


def dynamic_size(container: Container, prefix: str) -> int:
    """Return the total bytes of a dynamic large object's segments."""
    return sum(segment.size for segment in dynamic_segments(container, prefix))


def lost_segments(ref: ObjectRef, head: SwiftResponse) -> str | None:
    """Return where an empty object has segments that its metadata no longer names, or ``None``.

    A POST of metadata removes the header that makes the object a dynamic large one, unless the
    client sends the header again.
    """
    headers = head.headers
    if head.size != 0 or head.followed or NONCE in headers or is_static(headers):
        return None
    if dynamic_manifest(headers) is not None:
        return None
    # The prefixes that this library and glance_store give to segments.
    own, other = all_of(ref.name), f"{ref.name}-"
    claimed = f"{prefix_of(ref.name, CLAIM)}\x7f"
    if ref.container.contains(own, after=claimed):
        return f"{ref.container.name}/{own}"
    return f"{ref.container.name}/{other}" if ref.container.contains(f"{other}00001") else None


def delete_dynamic(ref: ObjectRef, container: Container, prefix: str) -> None:
    """Delete a dynamic large object, and then its segments.

    The object is deleted first: with some segments missing, it would be read as a shorter one.

    :raises NotFound: the object was deleted meanwhile
    :raises BackendException: the object is deleted, but segments are left, so that another delete
        would raise NotFound
    """
    listed = list(dynamic_segments(container, prefix))
    own = [segment.name for segment in listed if _belongs(segment, ref)]
    if not ref.delete():
        raise not_found(ref)
    try:
        container.delete_objects(own)
    except StoreError as error:
        left = BackendException(
            f"{ref} is deleted, but not all of its segments, whose names begin with "
            f"{container.name}/{prefix}: {error} Delete them, or sweep the store if it made them."
        )
        for note in getattr(error, "__notes__", ()):
            left.add_note(note)
        raise left from error
    _warn_of_others(len(listed) - len(own), ref)


# Static manifests


def is_static(headers: Mapping[str, str]) -> bool:
    """Return whether, by its metadata, an object is a static large object."""
    return headers.get("X-Static-Large-Object", "").lower() == "true"


def parse_manifest(body: bytes) -> list[ManifestEntry | None]:
    """Parse a static manifest.  An entry that is inline data is ``None``.

    :raises BackendException: the manifest is malformed
    """
    with decoding("a static manifest from Swift"):
        return [
            None if "data" in item else _parse_entry(item) for item in entries(parse_json(body))
        ]


def _parse_entry(item: Mapping[str, Any]) -> ManifestEntry:
    container, _, name = text(item["name"]).lstrip("/").partition("/")
    if not container or not name:
        raise Unexpected("a container and an object", item["name"])
    return ManifestEntry(
        container,
        name,
        size(item["bytes"]),
        text(item["hash"]),
        item.get("sub_slo") is True,
        "range" not in item,
    )


def static_segments(ref: ObjectRef) -> Iterator[Segment]:
    """Yield the segments of a static large object in order, including those of nested manifests.

    :raises NotSupported: the manifest has ranges or inline data, or a nested manifest twice
    """
    nested: set[tuple[str, str]] = set()
    for _, entry in _walk(ref, follow_links=True):
        if entry is None or not entry.whole or (entry.container, entry.name) in nested:
            raise NotSupported(
                "Swift copies whole segments only, and this manifest has ranges or data in it, or "
                "one manifest twice."
            )
        if entry.nested:
            nested.add((entry.container, entry.name))
        else:
            yield Segment(entry.container, entry.name, entry.size, entry.etag)


def delete_static(ref: ObjectRef) -> None:
    """Delete a static large object: its segments, then its nested manifests, then the object.

    All manifests of one depth are deleted before those that list them, the deepest first.  So a
    delete that failed half-way can be repeated: if a nested manifest is missing, all that it lists
    has been deleted.

    :raises NotFound: the object was deleted meanwhile
    """
    segments: dict[str, None] = {}
    nested: dict[int, dict[str, None]] = {}
    others = 0
    for depth, entry in _walk(ref):
        if entry is None:
            continue
        if not _belongs(entry, ref):
            others += 1
            continue
        paths = nested.setdefault(depth, {}) if entry.nested else segments
        paths[path_of(entry.container, entry.name)] = None
    for paths in (segments, *(nested[depth] for depth in sorted(nested, reverse=True))):
        ref.account.delete_all(paths)
    if not ref.delete():
        raise not_found(ref)
    _warn_of_others(others, ref)


def _warn_of_others(count: int, ref: ObjectRef) -> None:
    if count:
        _LOG.warning(
            "%s is deleted. %d segments that its manifest named were left, as they lie in another "
            "container or were uploaded for another object.",
            ref,
            count,
        )


def _belongs(segment: Segment | ManifestEntry, ref: ObjectRef) -> bool:
    """Return whether a segment is deleted with the object whose manifest names it.

    The manifest may have been written by any user who may write to the object's container.  So a
    segment is deleted only if it is in that container, and was not uploaded for another object.
    """
    own = not is_segment(segment.name) or segment.name.startswith(all_of(ref.name))
    return own and segment.container == ref.container.name


def _walk(
    ref: ObjectRef, *, follow_links: bool = False
) -> Iterator[tuple[int, ManifestEntry | None]]:
    """Yield the entries of a static manifest with their depth.

    The entries of a nested manifest are yielded before the entry that names it.  Each nested
    manifest is read once.  One that is missing counts as empty, as does a symbolic link unless
    ``follow_links`` is set.

    :raises BackendException: manifests are nested deeper than Swift allows
    """
    seen = {(ref.container.name, ref.name)}

    def walk(ref: ObjectRef, depth: int) -> Iterator[tuple[int, ManifestEntry | None]]:
        if depth > _DEEPEST:
            raise BackendException(
                f"Expected manifests nested {_DEEPEST} times at most, got more below {ref}."
            )
        for entry in _read_manifest(ref, follow_links=follow_links):
            if entry is not None and entry.nested and (entry.container, entry.name) not in seen:
                seen.add((entry.container, entry.name))
                nested = ref.account.container(entry.container).object(entry.name)
                yield from walk(nested, depth + 1)
            yield depth, entry

    return walk(ref, 0)


def _read_manifest(ref: ObjectRef, *, follow_links: bool) -> list[ManifestEntry | None]:
    query = {"multipart-manifest": "get"}
    if follow_links:
        return parse_manifest(ref.account.ask("GET", ref.path, query=query).body)
    response = ref.itself("GET", query=query)
    return [] if response is None or response.link is not None else parse_manifest(response.body)
