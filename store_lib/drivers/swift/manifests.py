"""Large objects: segments put together by static manifests, nested ones too, or a dynamic one."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from store_lib.clients.decoding import Unexpected, decoding, entries, parse_json, size, text
from store_lib.display import get_logger
from store_lib.drivers.swift.account import Account, Answer, path_of
from store_lib.drivers.swift.names import (
    CLAIM,
    NONCE,
    NUMBER,
    all_of,
    has_dots,
    is_segment,
    prefix_of,
)
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    NotFound,
    NotSupported,
    RemoteServiceUnavailable,
    StoreError,
)

_LOG = get_logger(__name__)

#: Of a dynamic manifest that others have made: what behind its prefix is a segment.
_NUMBERED = re.compile(NUMBER)
#: How deep Swift nests static manifests.
_DEEPEST = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A stored segment, or a manifest of some."""

    container: str
    name: str
    size: int
    etag: str


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What a static manifest lists: a segment, or a manifest of some."""

    container: str
    name: str
    size: int
    etag: str
    nested: bool
    #: Whether it is the whole of what it names.
    whole: bool


def parts_of(body: bytes) -> list[Part | None]:
    """Return what a static manifest lists in order; ``None`` stands for data within it.

    :raises BackendException: it is no such manifest
    """
    with decoding("a static manifest from Swift"):
        return [None if "data" in each else _part(each) for each in entries(parse_json(body))]


def _part(listed: Mapping[str, Any]) -> Part:
    container, _, name = text(listed["name"]).lstrip("/").partition("/")
    if not container or not name:
        raise Unexpected("a container and an object", listed["name"])
    return Part(
        container,
        name,
        size(listed["bytes"]),
        text(listed["hash"]),
        listed.get("sub_slo") is True,
        "range" not in listed,
    )


class ManifestLost(BackendException):
    """Swift has said that an object was stored, and it is not there."""

    message = "Swift answered that the object was stored, but it is not there."
    default_status = ErrorStatus.TEMPORARY


def put_static(
    account: Account,
    container: str,
    name: str,
    segments: Sequence[Segment],
    headers: Mapping[str, str],
    *,
    most: int,
    prefix: str,
    claim: Callable[[int], None],
) -> None:
    """Publish an object made of ``segments``, each checked by the server.

    :param most: entries of one manifest; of more, manifests of manifests are made
    :param prefix: what the names of those begin with
    :param claim: called before the request that publishes, with the number of its entries
    :raises Duplicate: an object of this name is there
    """
    entries = list(segments)
    level = 0
    while len(entries) > most:
        level += 1
        groups = [entries[at : at + most] for at in range(0, len(entries), most)]
        entries = [
            _put(account, container, f"{prefix}m{level}-{number:06}", group, {})
            for number, group in enumerate(groups, 1)
        ]
    claim(len(entries))
    _put(account, container, name, entries, {"If-None-Match": "*", **headers})


def _put(
    account: Account,
    container: str,
    name: str,
    entries: Sequence[Segment],
    headers: Mapping[str, str],
) -> Segment:
    manifest = [
        {"path": f"/{each.container}/{each.name}", "etag": each.etag, "size_bytes": each.size}
        for each in entries
    ]
    status, report = account.reported(
        "PUT",
        path_of(container, name),
        412,
        query={"multipart-manifest": "put", "heartbeat": "on"},
        headers=headers,
        body=json.dumps(manifest).encode(),
    )
    if status == 412:
        raise Duplicate(image=name)
    size = sum(each.size for each in entries)
    return Segment(container, name, size, str(report.get("Etag", "")).strip('"'))


def put_dynamic(
    account: Account,
    container: str,
    name: str,
    segments: Sequence[Segment],
    headers: Mapping[str, str],
    *,
    prefix: str,
    claim: Callable[[int], None],
) -> None:
    """Publish an object made of ``segments``, which are all that begins with ``prefix``.

    :param claim: called before the request that publishes, with the number of its entries
    :raises Duplicate: an object of this name is there
    :raises RemoteServiceUnavailable: the listing does not have just these segments yet
    """
    listed = {each.name: each.size for each in account.listing(container, prefix=prefix)}
    if listed != {each.name: each.size for each in segments}:
        raise RemoteServiceUnavailable(
            f"Expected {len(segments)} segments in the listing of {container}, got {len(listed)}, "
            "or others: it is not up to date yet."
        )
    claim(0)
    manifest = quote(f"{container}/{prefix}")
    answer = account.ask(
        "PUT",
        path_of(container, name),
        412,
        headers={"X-Object-Manifest": manifest, "If-None-Match": "*", **headers},
        body=b"",
    )
    if answer.status == 412:
        raise Duplicate(image=name)


def is_static(headers: Mapping[str, str]) -> bool:
    """Tell by its head whether an object is a static large one."""
    return headers.get("X-Static-Large-Object", "").lower() == "true"


def dynamic_of(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return container and prefix of a dynamic large object's segments, by its head."""
    manifest = unquote(headers.get("X-Object-Manifest", "")).lstrip("/")
    container, slash, prefix = manifest.partition("/")
    return (container, prefix) if slash and prefix and not has_dots(container) else None


def dynamic_segments(account: Account, container: str, prefix: str) -> Iterator[Segment]:
    """Yield the segments that belong to a dynamic large object.

    Swift serves whatever begins with the prefix.  With ``img-`` those are also the segments of
    ``img-copy``, so where it does not end with a slash only a number may follow, as glance_store
    writes it.
    """
    for each in account.listing(container, prefix=prefix):
        if prefix.endswith("/") or _NUMBERED.fullmatch(each.name[len(prefix) :]):
            yield Segment(container, each.name, each.size, each.etag)


def dynamic_size(account: Account, container: str, prefix: str) -> int:
    """Return the bytes of the segments that belong to a dynamic large object."""
    return sum(each.size for each in dynamic_segments(account, container, prefix))


def lost_segments(account: Account, container: str, name: str, head: Answer) -> str | None:
    """Return where an empty object has segments that its metadata no longer name, if it has some.

    A POST of metadata takes the header away which makes it a dynamic large object, unless that is
    sent again.
    """
    headers = head.headers
    if head.size != 0 or head.followed or NONCE in headers or is_static(headers):
        return None
    if dynamic_of(headers) is not None:
        return None
    # As this library lays segments out, and as glance_store does.
    claimed = f"{prefix_of(name, CLAIM)}\x7f"
    for prefix, first, after in ((all_of(name), "", claimed), (f"{name}-", "00001", "")):
        listed = account.listing(container, prefix=f"{prefix}{first}", after=after, most=1)
        if next(listed, None) is not None:
            return f"{container}/{prefix}"
    return None


def names_any(
    account: Account, container: str, name: str, head: Answer, segments: str
) -> bool | None:
    """Tell whether the manifest of an object names segments of its own container.

    :param segments: what the names of those begin with
    :returns: ``None`` where the manifest does not tell: it cannot be read, or may have been lost
    """
    dynamic = dynamic_of(head.headers)
    if dynamic is not None:
        beside, prefix = dynamic[0] == container, dynamic[1]
        if beside and (segments.startswith(prefix) or prefix.startswith(segments)):
            return True
    if is_static(head.headers):
        return _static_names_any(account, container, name, segments)
    # A POST of metadata takes a dynamic manifest's header away, and leaves an empty object.
    return None if dynamic is None and not head.size else False


def _static_names_any(account: Account, container: str, name: str, segments: str) -> bool | None:
    found, names = None, f"{container}/{segments}"
    try:
        for _, part in _parts(account, container, name):
            if part is not None and f"{part.container}/{part.name}".startswith(names):
                return True
            found = False
    except StoreError as error:
        if error.status is not ErrorStatus.PERMANENT:
            raise
        return None
    return found


def delete_dynamic(
    account: Account, container: str, name: str, segments_in: str, prefix: str
) -> None:
    """Delete a dynamic large object, and then its segments, without some of which it would read as
    a shorter one.

    :raises NotFound: it was deleted meanwhile
    :raises BackendException: it is gone, and segments are left; repeated, it would not be found
    """
    listed = list(dynamic_segments(account, segments_in, prefix))
    own = [each for each in listed if _belongs(each, container, name)]
    segments = [path_of(each.container, each.name) for each in own]
    if not account.delete(path_of(container, name)):
        raise NotFound(image=f"{container}/{name}")
    try:
        account.delete_all(segments)
    except StoreError as error:
        left = BackendException(
            f"{container}/{name} is deleted, but not all of its segments, whose names begin with "
            f"{segments_in}/{prefix}: {error} Delete them, or sweep the store if it made them."
        )
        for note in getattr(error, "__notes__", ()):
            left.add_note(note)
        raise left from error
    _tell_of_others(len(listed) - len(own), container, name)


def static_segments(account: Account, container: str, name: str) -> Iterator[Segment]:
    """Yield the segments of a static large object in order, those of nested manifests too.

    :raises NotSupported: there is more in it than whole segments, each manifest once
    """
    nested: set[tuple[str, str]] = set()
    for _, part in _parts(account, container, name, links=True):
        place = None if part is None else (part.container, part.name)
        if part is None or not part.whole or place in nested:
            raise NotSupported(
                "Swift copies whole segments only, and this manifest has ranges or data in it, or "
                "one manifest twice."
            )
        if part.nested:
            nested.add((part.container, part.name))
        else:
            yield Segment(part.container, part.name, part.size, part.etag)


def delete_static(account: Account, container: str, name: str) -> None:
    """Delete a static large object: first its segments, then nested manifests, itself last.

    The deepest manifests go first, and all of them, before any that lists them: so what failed
    half-way can be repeated.  Of a nested manifest that is gone, so is all that it lists.

    :raises NotFound: it was deleted meanwhile
    """
    segments: dict[str, None] = {}
    nested: dict[int, dict[str, None]] = {}
    others = 0
    for depth, part in _parts(account, container, name):
        if part is None:
            continue
        if not _belongs(part, container, name):
            others += 1
            continue
        paths = nested.setdefault(depth, {}) if part.nested else segments
        paths[path_of(part.container, part.name)] = None
    for paths in (segments, *(nested[depth] for depth in sorted(nested, reverse=True))):
        account.delete_all(paths)
    if not account.delete(path_of(container, name)):
        raise NotFound(image=f"{container}/{name}")
    _tell_of_others(others, container, name)


def _tell_of_others(count: int, container: str, name: str) -> None:
    if count:
        _LOG.warning(
            "%s/%s is deleted. %d segments that its manifest named were left, as they lie in "
            "another container or were uploaded for another object.",
            container,
            name,
            count,
        )


def _belongs(segment: Segment | Part, container: str, name: str) -> bool:
    """Tell whether a segment goes with its object, which names it.

    Anybody who may write in the object's container can have written its manifest.  So a segment
    goes only where it lies beside its object, and is none that was uploaded for another one.
    """
    mine = not is_segment(segment.name) or segment.name.startswith(all_of(name))
    return mine and segment.container == container


def _parts(
    account: Account, container: str, name: str, *, links: bool = False
) -> Iterator[tuple[int, Part | None]]:
    """Yield what a static manifest lists, with its depth; before a nested one what that lists.

    Each nested manifest is read once.  One that is not there lists nothing, and neither does a
    symbolic link in place of one.

    :param links: follow symbolic links
    :raises BackendException: they are nested deeper than Swift allows
    """
    seen = {(container, name)}

    def of(container: str, name: str, depth: int) -> Iterator[tuple[int, Part | None]]:
        if depth > _DEEPEST:
            raise BackendException(
                f"Expected manifests nested {_DEEPEST} times at most, got more below "
                f"{container}/{name}."
            )
        for part in _read(account, container, name, links=links):
            if part is not None and part.nested and (part.container, part.name) not in seen:
                seen.add((part.container, part.name))
                yield from of(part.container, part.name, depth + 1)
            yield depth, part

    return of(container, name, 0)


def _read(account: Account, container: str, name: str, *, links: bool) -> list[Part | None]:
    path, query = path_of(container, name), {"multipart-manifest": "get"}
    if links:
        return parts_of(account.ask("GET", path, query=query).body)
    answer = account.itself("GET", path, query=query)
    return [] if answer is None or answer.link is not None else parts_of(answer.body)
