"""Large objects: segments, the manifests that make objects of them, and what uploads have left.

A static manifest lists its segments, or other manifests.  A dynamic one names a prefix.
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

#: What follows the prefix in the name of a segment that others have made.
_NUMBER = re.compile(NUMBER)
#: An object beside a dynamic manifest that may be one of its segments.
_NUMBERED = re.compile(rf"(.*[^0-9]){NUMBER}", re.DOTALL)
#: How deep Swift nests static manifests.
_DEEPEST = 10
#: Greater than every segment's name, and less than any other that is greater.
_BEHIND_SEGMENTS = f"{SEGMENTS}\x7f"


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A stored segment, or a manifest of some."""

    container: str
    name: str
    size: int
    etag: str


@dataclasses.dataclass(frozen=True, slots=True)
class ManifestEntry:
    """What a static manifest lists: a segment, or a manifest of some."""

    container: str
    name: str
    size: int
    etag: str
    nested: bool
    #: Whether it is the whole of what it names.
    whole: bool


class ManifestLost(BackendException):
    """Swift has said that an object was stored, and it is not there."""

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
        """The beginning of their names."""
        return prefix_of(self.object_id, self.nonce)

    @property
    def object(self) -> ObjectRef:
        """Their object."""
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

        :param most: entries of one manifest; of more, manifests of manifests are made
        :param claim: called before the request that publishes, with the number of its entries
        :raises Duplicate: an object of this id is there
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
        """Publish the object by a dynamic manifest, once the listing has just these segments.

        :param claim: called before the request that publishes, with the number of its entries
        :raises Duplicate: an object of this id is there
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
        :returns: ``None`` if that is not known: it cannot be read, or may have been lost
        """
        dynamic = dynamic_manifest(head.headers)
        if dynamic is not None:
            beside, prefix = dynamic[0] == self.container.name, dynamic[1]
            if beside and (self.prefix.startswith(prefix) or prefix.startswith(self.prefix)):
                return True
        if is_static(head.headers):
            return self._named_by_static()
        # A POST of metadata takes a dynamic manifest's header away, and leaves an empty object.
        return None if dynamic is None and not head.size else False

    def _named_by_static(self) -> bool | None:
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
        """Return whether the object may be made of these segments.

        Its manifest decides, and not its metadata, which any POST replaces.  In doubt it may be.
        """
        head = self.object.itself(newest=True)
        if head is None:
            # What is listed all the same has expired and may come back, or lies on servers that
            # are down.
            first = next(self.container.list(prefix=self.object_id, limit=1), None)
            return first is not None and first.name == self.object_id
        if head.headers.get(NONCE) == self.nonce or head.link is not None:
            return True
        return self.named_by(head) is not False

    def remove(self, seen: float) -> bool:
        """Remove the segments of an upload that is not published; return whether there were any.

        :param seen: the time of the last sign of life in the listing; a later one spares them
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
        """Return the upload as an incomplete one.

        :param listed: its segments, and manifests of them
        """
        total, modified, now = 0, 0.0, None
        for item in listed:
            if not item.name.rpartition("/")[2].startswith("m"):  # a manifest of what is counted
                total += item.size
            if item.modified >= modified:
                modified, now = item.modified, item.now
        key = f"{self.container.name}/{self.prefix}"
        return Incomplete(key, self.object_id, total, modified, now=now)


def incomplete_uploads(container: Container) -> Iterator[Incomplete]:
    """Yield the uploads in a container of which there are segments and no object."""
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

    A dynamic large object is listed with no bytes.  Its size is looked up, and its segments are
    left out, which glance_store puts beside it: ``id-00001`` and so on behind ``id``.
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
            # A symbolic link that leads to nothing, or where this login must not go; or the object
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
    """Return container and prefix of a dynamic large object's segments, by its metadata."""
    manifest = unquote(headers.get("X-Object-Manifest", "")).lstrip("/")
    container, slash, prefix = manifest.partition("/")
    return (container, prefix) if slash and prefix and not has_dots(container) else None


def dynamic_segments(container: Container, prefix: str) -> Iterator[Segment]:
    """Yield the segments that belong to a dynamic large object.

    Swift serves whatever begins with the prefix.  With ``img-`` those are also the segments of
    ``img-copy``, so where it does not end with a slash only a number may follow, as glance_store
    writes it.
    """
    for item in container.list(prefix=prefix):
        if prefix.endswith("/") or _NUMBER.fullmatch(item.name[len(prefix) :]):
            yield Segment(container.name, item.name, item.size, item.etag)


def dynamic_size(container: Container, prefix: str) -> int:
    """Return the bytes of the segments that belong to a dynamic large object."""
    return sum(segment.size for segment in dynamic_segments(container, prefix))


def lost_segments(ref: ObjectRef, head: SwiftResponse) -> str | None:
    """Return where an empty object has segments that its metadata no longer name, if it has some.

    A POST of metadata takes the header away which makes it a dynamic large object, unless that is
    sent again.
    """
    headers = head.headers
    if head.size != 0 or head.followed or NONCE in headers or is_static(headers):
        return None
    if dynamic_manifest(headers) is not None:
        return None
    # As this library lays segments out, and as glance_store does.
    own, other = all_of(ref.name), f"{ref.name}-"
    claimed = f"{prefix_of(ref.name, CLAIM)}\x7f"
    if ref.container.contains(own, after=claimed):
        return f"{ref.container.name}/{own}"
    return f"{ref.container.name}/{other}" if ref.container.contains(f"{other}00001") else None


def delete_dynamic(ref: ObjectRef, container: Container, prefix: str) -> None:
    """Delete a dynamic large object, and then its segments.

    The object goes first: with segments missing it would read as a shorter one.

    :raises NotFound: it was deleted meanwhile
    :raises BackendException: it is gone, and segments are left; repeated, it would not be item
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
    """Return whether an object is a static large one, by its metadata."""
    return headers.get("X-Static-Large-Object", "").lower() == "true"


def parse_manifest(body: bytes) -> list[ManifestEntry | None]:
    """Parse a static manifest; ``None`` stands for data within it.

    :raises BackendException: it is malformed
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
    """Yield the segments of a static large object in order, those of nested manifests too.

    :raises NotSupported: there is more in it than whole segments, each manifest once
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
    """Delete a static large object: first its segments, then nested manifests, itself last.

    The deepest manifests go first, and all of them, before any that lists them: so what failed
    half-way can be repeated.  If a nested manifest is gone, so is all that it lists.

    :raises NotFound: it was deleted meanwhile
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
    """Return whether a segment is deleted with the object that names it.

    Anybody who may write in the object's container can have written its manifest.  So a segment
    goes only if it lies beside its object, and was not uploaded for another one.
    """
    own = not is_segment(segment.name) or segment.name.startswith(all_of(ref.name))
    return own and segment.container == ref.container.name


def _walk(
    ref: ObjectRef, *, follow_links: bool = False
) -> Iterator[tuple[int, ManifestEntry | None]]:
    """Yield the entries of a static manifest with their depth; before a nested one its own.

    Each nested manifest is read once.  If it is not there, or is a symbolic link, it is empty.

    :raises BackendException: they are nested deeper than Swift allows
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
