"""The s3 store on Ceph's gateway, against glance_store's and against bare clients."""

import contextlib
import dataclasses
import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.case import MIB, Case, Contestant, Settings, Target, register
from benchmarks.child import SMALL

BOTH = ("md5", "sha512")
BUCKET = "benchmark"

#: Bytes per second that the slow server receives.
SLOW = 64 * MIB

#: What the bare clients upload with.
PARTS = {"s3_store_large_object_chunk_size": 16, "s3_store_thread_pools": 4}


@contextlib.contextmanager
def gateway(
    options: Mapping[str, Any] | None = None, *, slowed: bool = False
) -> Iterator[Mapping[str, Any]]:
    """Run a cluster with its S3 gateway and yield the options of a store in it.

    :param options: additional options for our side
    :param slowed: whether the server receives slowly
    """
    import botocore.session

    from tests.servers.ceph import ceph, ceph_directory

    with contextlib.ExitStack() as stack:
        running = stack.enter_context(ceph(stack.enter_context(ceph_directory())))
        host = running.s3_endpoint
        if slowed:
            host = stack.enter_context(_slowed_down(host))
        common = {
            "s3_store_host": host,
            "s3_store_access_key": running.s3_access_key,
            "s3_store_secret_key": running.s3_secret_key,
            "s3_store_bucket": BUCKET,
            "s3_store_bucket_url_format": "path",
        }
        client = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=running.s3_endpoint,
            aws_access_key_id=running.s3_access_key,
            aws_secret_access_key=running.s3_secret_key,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield {"driver": "s3", "options": {**common, **(options or {})}, "peer_options": common}


@contextlib.contextmanager
def _slowed_down(host: str) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.slow_proxy", host.rpartition("/")[2], str(SLOW)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield f"http://{proxy.stdout.readline().strip()}"
        finally:
            proxy.kill()


@register
def s3_add(settings: Settings) -> Case:
    """The main job."""
    return Case(
        name="s3-add",
        title="s3: add random bytes of known size, md5 + sha512",
        size=settings.size,
        contestants=(Contestant("ours", "ours", "add"), Contestant("peer", "peer", "add")),
        targets=(
            Target(against="peer", at_least=1.15),
            Target(against="peer", metric="cpu_seconds", at_least=1 / 0.8),
        ),
        place="server",
        request={"digests": BOTH},
        fixture=gateway,
    )


@register
def s3_add_unsigned(settings: Settings) -> Case:
    """The main job without the SHA-256 of all bytes that signatures over http need."""
    return dataclasses.replace(
        s3_add(settings),
        name="s3-add-unsigned",
        title="s3: the same, payloads not signed (the peer always signs by http)",
        targets=(),
        fixture=functools.partial(gateway, {"s3_store_payload_signing": "never"}),
    )


@register
def s3_add_unknown(settings: Settings) -> Case:
    """Adding data of unknown length, as an import does."""
    return Case(
        name="s3-add-unknown",
        title="s3: add random bytes of unknown size, md5 + sha512",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "add_unknown"),
            Contestant("peer", "peer", "add_unknown"),
        ),
        targets=(Target(against="peer", at_least=10),),
        place="server",
        max_rounds=2,
        request={"digests": BOTH},
        fixture=gateway,
    )


@register
def s3_bare(settings: Settings) -> Case:
    """The speed of the connection without digests."""
    manager, obstore = "boto3 transfer manager, 4 x 16 MiB", "obstore, 4 x 16 MiB"
    return Case(
        name="s3-bare",
        title="s3: upload random bytes of known size, no digests",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "add"),
            Contestant(manager, "plain", "benchmarks.plain_s3:transfer_manager"),
            Contestant(obstore, "peer", "benchmarks.plain_s3:obstore_put", collector="ours"),
        ),
        targets=(
            Target(against=manager, at_least=0.9),
            Target(against=obstore, at_least=0.9),
        ),
        place="server",
        request={"digests": ()},
        fixture=functools.partial(gateway, PARTS),
    )


@register
def s3_get(settings: Settings) -> Case:
    """Reading an object as a WSGI server does, by iterating."""
    return Case(
        name="s3-get",
        title="s3: get random bytes, by iterating",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "get", prepare="add"),
            Contestant("peer", "peer", "get", prepare="add"),
            Contestant("obstore", "peer", "benchmarks.plain_s3:obstore_get", prepare="add"),
        ),
        targets=(Target(against="obstore", at_least=1.0), Target(against="peer", at_least=1.0)),
        place="server",
        request={"digests": BOTH},
        fixture=gateway,
    )


@register
def s3_small(settings: Settings) -> Case:
    """What an operation costs by itself."""
    count = min(500, settings.objects)
    return Case(
        name="s3-small",
        title=f"s3: {count} objects of 64 KiB, md5 + sha512",
        size=count * SMALL,
        contestants=(
            Contestant("ours", "ours", "benchmarks.whole_small:ours"),
            Contestant("peer", "peer", "benchmarks.whole_small:peer"),
        ),
        targets=(Target(against="peer", phase="all", at_least=5),),
        payload=None,
        operations=count,
        place="server",
        max_rounds=3,
        request={"count": count},
        fixture=gateway,
    )


@register
def s3_memory(settings: Settings) -> Case:
    """A stream of unknown length that is faster than the server."""
    return Case(
        name="s3-memory",
        title=f"s3: add from a pipe, size unknown, to a server that takes {SLOW // MIB} MiB/s",
        size=settings.size,
        contestants=(Contestant("ours", "ours", "pipe"), Contestant("peer", "peer", "pipe")),
        targets=(Target(metric="peak_bytes", at_most=200 * MIB),),
        payload="pipe",
        place="server",
        max_rounds=1,
        request={"digests": BOTH},
        fixture=functools.partial(gateway, slowed=True),
    )
