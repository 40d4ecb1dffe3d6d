"""The rbd store on a Ceph cluster, against glance_store's and against Ceph's own tool."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.case import Case, Contestant, Settings, Target, register
from benchmarks.child import SMALL

BOTH = ("md5", "sha512")

#: The part of the speed of Ceph's own tool that a transfer without digests must reach.
_BARE = 1 / 1.15


@contextlib.contextmanager
def cluster(options: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
    """Run a cluster and yield the options of a store in it, for both sides.

    :param options: additional options
    """
    from tests.servers.ceph import IMAGES, bindings, ceph, ceph_directory

    with ceph_directory() as directory, ceph(directory, gateway=False) as running:
        yield {
            "driver": "rbd",
            "options": {
                "rbd_store_ceph_conf": str(running.conf),
                "rbd_store_user": "glance",
                "rbd_store_pool": IMAGES,
                **(options or {}),
            },
            "python_path": [str(bindings())],
        }


@register
def rbd_add(settings: Settings) -> Case:
    """The main job."""
    return Case(
        name="rbd-add",
        title="rbd: add random bytes of known size, md5 + sha512",
        size=settings.size,
        contestants=(Contestant("ours", "ours", "add"), Contestant("peer", "peer", "add")),
        targets=(Target(against="peer", at_least=1.9),),
        place="server",
        request={"digests": BOTH},
        fixture=cluster,
    )


@register
def rbd_add_unknown(settings: Settings) -> Case:
    """Adding data of unknown length, as an import does."""
    return Case(
        name="rbd-add-unknown",
        title="rbd: add random bytes of unknown size, md5 + sha512",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "add_unknown"),
            Contestant("peer", "peer", "add_unknown"),
        ),
        targets=(Target(against="peer", at_least=1.9),),
        place="server",
        request={"digests": BOTH},
        fixture=cluster,
    )


@register
def rbd_sparse(settings: Settings) -> Case:
    """Adding a disk image that is mostly zeros."""
    return Case(
        name="rbd-sparse",
        title="rbd: add with thin provisioning, a tenth of it data, md5 + sha512",
        size=settings.size,
        contestants=(Contestant("ours", "ours", "add"), Contestant("peer", "peer", "add")),
        targets=(Target(against="peer", at_least=5),),
        payload="sparse",
        place="server",
        request={"digests": BOTH},
        fixture=functools.partial(cluster, {"rbd_thin_provisioning": True}),
    )


@register
def rbd_get(settings: Settings) -> Case:
    """Reading an object as a WSGI server does, by iterating."""
    return Case(
        name="rbd-get",
        title="rbd: get random bytes, by iterating",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "get", prepare="add"),
            Contestant("peer", "peer", "get", prepare="add"),
        ),
        targets=(Target(against="peer", at_least=1.5),),
        place="server",
        request={"digests": BOTH},
        fixture=cluster,
    )


@register
def rbd_import(settings: Settings) -> Case:
    """The speed of the cluster without digests."""
    return Case(
        name="rbd-import",
        title="rbd: add random bytes of known size, no digests",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "add"),
            Contestant("rbd import", "plain", "benchmarks.plain_rbd:rbd_import"),
        ),
        targets=(Target(against="rbd import", at_least=_BARE),),
        place="server",
        request={"digests": ()},
        fixture=cluster,
    )


@register
def rbd_export(settings: Settings) -> Case:
    """Reading, against the fastest reader of an image."""
    tool = Contestant("rbd export", "ours", "benchmarks.plain_rbd:rbd_export", prepare="add")
    return Case(
        name="rbd-export",
        title="rbd: get random bytes, by iterating, against Ceph's own tool",
        size=settings.size,
        contestants=(Contestant("ours", "ours", "get", prepare="add"), tool),
        targets=(Target(against="rbd export", at_least=_BARE),),
        place="server",
        request={"digests": ()},
        fixture=cluster,
    )


@register
def rbd_small(settings: Settings) -> Case:
    """What an operation costs by itself."""
    count = min(200, settings.objects)
    return Case(
        name="rbd-small",
        title=f"rbd: {count} objects of 64 KiB, md5 + sha512",
        size=count * SMALL,
        contestants=(
            Contestant("ours", "ours", "benchmarks.whole_small:ours"),
            Contestant("peer", "peer", "benchmarks.whole_small:peer"),
        ),
        targets=(Target(against="peer", phase="all", at_least=2),),
        payload=None,
        operations=count,
        place="server",
        max_rounds=3,
        request={"count": count},
        fixture=cluster,
    )
