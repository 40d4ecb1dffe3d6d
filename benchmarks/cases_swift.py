"""The Swift store on real Swift and Keystone, against glance_store's and the swift command."""

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.case import MIB, Case, Contestant, Settings, Target, register
from benchmarks.child import SMALL

BOTH = ("md5", "sha512")
CONTAINER = "benchmark"

#: Segments of the deleted object, of one "MB" each.
SEGMENTS = 200


@contextlib.contextmanager
def cluster(segment: int = 64) -> Iterator[Mapping[str, Any]]:
    """Run Swift and Keystone and yield the options of a store that uses a reference.

    Each of Swift's servers runs in a separate process, as in a real deployment.

    :param segment: size of a segment in "MB", for both sides
    """
    from tests.servers.keystone import keystone, password
    from tests.servers.swift import swift

    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="store_lib-swift-")))
        login = stack.enter_context(keystone(place / "keystone"))
        (place / "swift").mkdir()
        served = stack.enter_context(
            swift(place / "swift", login, max_file_size=5 << 30, processes=True)
        )
        file = place / "references.conf"
        file.write_text(
            f"[main]\nauth_version = 3\nauth_address = {login.url}\nuser = service:glance\n"
            f"key = {password('glance')}\nuser_domain_id = default\nproject_domain_id = default\n"
        )
        options = {
            "swift_store_config_file": str(file),
            "default_swift_reference": "main",
            "swift_store_container": CONTAINER,
            "swift_store_create_container_on_put": True,
            "swift_store_large_object_size": segment,
            "swift_store_large_object_chunk_size": segment,
        }
        yield {"driver": "swift", "options": options, "servers": served.pids}


@register
def swift_add_unknown(settings: Settings) -> Case:
    """The main job, of unknown size: with a known one the peer fails unless segments fit."""
    return Case(
        name="swift-add-unknown",
        title="swift: add random bytes of unknown size in segments of 64 MB, md5 + sha512",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "add_unknown"),
            Contestant("peer", "peer", "add_unknown"),
        ),
        targets=(
            Target(against="peer", at_least=1.5),
            Target(metric="peak_bytes", at_most=(256 + 64) * MIB),
        ),
        place="server",
        request={"digests": BOTH},
        fixture=cluster,
    )


@register
def swift_bare(settings: Settings) -> Case:
    """The speed of the connection without digests."""
    command = "swift upload, 4 segment threads"
    return Case(
        name="swift-bare",
        title="swift: upload random bytes in segments of 64 MB, no digests",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "add"),
            Contestant(command, "plain", "benchmarks.plain_swift:command"),
        ),
        targets=(Target(against=command, at_least=0.9),),
        place="server",
        request={"digests": ()},
        fixture=cluster,
    )


@register
def swift_get(settings: Settings) -> Case:
    """Reading an object of several segments, by iterating."""
    return Case(
        name="swift-get",
        title="swift: get random bytes, by iterating",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "get", prepare="add_unknown"),
            Contestant("peer", "peer", "get", prepare="add_unknown"),
        ),
        targets=(Target(against="peer", at_least=1.0),),
        place="server",
        request={"digests": BOTH},
        fixture=cluster,
    )


@register
def swift_delete(settings: Settings) -> Case:
    """Deleting an object with many segments."""
    return Case(
        name="swift-delete",
        title=f"swift: delete an object of {SEGMENTS} segments",
        size=SEGMENTS,
        contestants=(
            Contestant("ours", "ours", "benchmarks.swift_delete:ours"),
            Contestant("peer", "peer", "benchmarks.swift_delete:peer"),
        ),
        targets=(Target(against="peer", at_least=3),),
        payload=None,
        place="server",
        max_rounds=3,
        request={"segments": SEGMENTS},
        fixture=functools.partial(cluster, 1),
    )


@register
def swift_small(settings: Settings) -> Case:
    """What an operation costs by itself."""
    count = min(300, settings.objects)
    return Case(
        name="swift-small",
        title=f"swift: {count} objects of 64 KiB, md5 + sha512",
        size=count * SMALL,
        contestants=(
            Contestant("ours", "ours", "benchmarks.whole_small:ours"),
            Contestant("peer", "peer", "benchmarks.whole_small:peer"),
        ),
        targets=(Target(against="peer", phase="all", at_least=1.5),),
        payload=None,
        operations=count,
        place="server",
        max_rounds=3,
        request={"count": count},
        fixture=cluster,
    )
