"""Large objects: segments put together by static manifests, nested ones too, or a dynamic one."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from store_lib.drivers.swift.account import Account, path_of
from store_lib.exceptions import (
    BackendException,
    Duplicate,
    ErrorStatus,
    NotFound,
    NotSupported,
    RemoteServiceUnavailable,
    StoreError,
)

#: Of a dynamic manifest that others have made: what behind its prefix is a segment.
_NUMBERED = re.compile(r"[0-9]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A stored segment, or a manifest of some."""

    container: str
    name: str
    size: int
    etag: str


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
) -> None:
    """Publish an object made of ``segments``, each checked by the server.

    :param most: entries of one manifest; of more, manifests of manifests are made
    :param prefix: what the names of those begin with
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
    account: Account, container: str, name: str, prefix: str, size: int, headers: Mapping[str, str]
) -> None:
    """Publish an object made of whatever begins with ``prefix``.

    :raises Duplicate: an object of this name is there
    :raises RemoteServiceUnavailable: the listing does not have all the segments yet
    """
    listed = sum(each.size for each in account.listing(container, prefix=prefix))
    if listed != size:
        raise RemoteServiceUnavailable(
            f"Expected segments of {size} bytes in the listing of {container}, got {listed}: it "
            "is not up to date yet."
        )
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
    return (container, prefix) if slash and prefix else None


def dynamic_segments(account: Account, container: str, prefix: str) -> Iterator[Segment]:
    """Yield the segments that belong to a dynamic large object.

    Swift serves whatever begins with the prefix.  With ``img-`` those are also the segments of
    ``img-copy``, so where it does not end with a slash only a number may follow.
    """
    for each in account.listing(container, prefix=prefix):
        if prefix.endswith("/") or _NUMBERED.fullmatch(each.name[len(prefix) :]):
            yield Segment(container, each.name, each.size, each.etag)


def delete_dynamic(
    account: Account, container: str, name: str, segments_in: str, prefix: str
) -> None:
    """Delete a dynamic large object, and then its segments, without some of which it would read as
    a shorter one.

    :raises NotFound: it was deleted meanwhile
    :raises BackendException: it is gone, and segments are left; repeated, it would not be found
    """
    segments = list(dynamic_segments(account, segments_in, prefix))
    if not account.delete(path_of(container, name)):
        raise NotFound(image=f"{container}/{name}")
    try:
        account.delete_all(path_of(each.container, each.name) for each in segments)
    except StoreError as error:
        raise BackendException(
            f"{container}/{name} is deleted, but not all of its segments, whose names begin with "
            f"{segments_in}/{prefix}: {error} Delete them, or sweep the store if it made them."
        ) from error


def static_segments(account: Account, container: str, name: str) -> Iterator[Segment]:
    """Yield the segments of a static large object in order, those of nested manifests too.

    :raises NotSupported: there is more in it than whole segments
    """
    for _, each in _entries(account, container, name):
        if "range" in each or "data" in each:
            raise NotSupported(
                "Swift copies whole segments only, and this manifest has ranges or data in it."
            )
        if not each.get("sub_slo"):
            yield Segment(*_place(each), int(each["bytes"]), str(each["hash"]))


def delete_static(account: Account, container: str, name: str) -> None:
    """Delete a static large object: first its segments, then nested manifests, itself last.

    The deepest manifests go first, and all of them, before any that lists them: so what failed
    half-way can be repeated.  Of a nested manifest that is gone, so is all that it lists.

    :raises NotFound: it was deleted meanwhile
    """
    segments: dict[str, None] = {}
    nested: dict[int, dict[str, None]] = {}
    for depth, each in _entries(account, container, name, 404):
        if "data" not in each:
            paths = nested.setdefault(depth, {}) if each.get("sub_slo") else segments
            paths[path_of(*_place(each))] = None
    for paths in (segments, *(nested[depth] for depth in sorted(nested, reverse=True))):
        account.delete_all(paths)
    if not account.delete(path_of(container, name)):
        raise NotFound(image=f"{container}/{name}")


def _entries(
    account: Account, container: str, name: str, *allowed: int, depth: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what a static manifest lists, with its depth; before a nested one what that lists.

    :param allowed: 404, where one that is not there has no entries
    """
    query = {"multipart-manifest": "get"}
    answer = account.ask("GET", path_of(container, name), *allowed, query=query)
    for each in [] if answer.status == 404 else _parsed(answer.body):
        if each.get("sub_slo"):
            yield from _entries(account, *_place(each), *allowed, depth=depth + 1)
        yield depth, each


def _place(entry: Mapping[str, Any]) -> tuple[str, str]:
    container, _, name = str(entry["name"]).lstrip("/").partition("/")
    return container, name


def _parsed(body: bytes) -> list[dict[str, Any]]:
    try:
        entries = json.loads(body)
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise BackendException("Expected a manifest in JSON from Swift, got something else.")
    return entries
