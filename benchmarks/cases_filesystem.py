"""The filesystem store, against glance_store's and against the limits of the machine."""

from benchmarks.case import MIB, Case, Contestant, Settings, Target, register
from benchmarks.child import SMALL

#: The digests that Glance asks for; the peer always computes both.
BOTH = ("md5", "sha512")


@register
def add(settings: Settings) -> Case:
    """The main job, bound by the digests only."""
    return Case(
        name="add",
        title="add random bytes from the page cache, md5 + sha512, durable off",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "add"),
            Contestant("peer", "peer", "add"),
            Contestant("bound: both digests on threads, no I/O", "plain", "hash"),
        ),
        targets=(
            Target(against="peer", at_least=1.9),
            Target(against="bound: both digests on threads, no I/O", at_least=0.9),
        ),
        request={"digests": BOTH},
    )


@register
def sha256(settings: Settings) -> Case:
    """An add with a single fast digest."""
    bound = "bound: sha256 on one thread, no I/O"
    return Case(
        name="sha256",
        title="add random bytes from the page cache, sha256 alone, durable off",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "add"),
            Contestant("peer (md5 + sha512)", "peer", "add"),
            Contestant(bound, "plain", "hash"),
        ),
        targets=(Target(against=bound, at_least=0.85),),
        request={"digests": ("sha256",)},
    )


@register
def durable(settings: Settings) -> Case:
    """An add that survives a power cut."""
    return Case(
        name="durable",
        title="durable add of random bytes to a disk, md5 + sha512",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "add"),
            Contestant("peer, then fsync", "peer", "add"),
        ),
        targets=(Target(against="peer, then fsync", at_least=1.0),),
        place="disk",
        request={
            "digests": BOTH,
            "durable": True,
            "options": {"filesystem_store_durable": True},
            "peer_options": {},
        },
    )


@register
def get(settings: Settings) -> Case:
    """Reading an object as a WSGI server does, by iterating."""
    return Case(
        name="get",
        title="get random bytes from the page cache, by iterating",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "get", prepare="add"),
            Contestant("peer", "peer", "get", prepare="add"),
            Contestant("plain 1 MiB read loop", "plain", "read"),
        ),
        targets=(Target(against="plain 1 MiB read loop", at_least=0.9),),
        request={"digests": BOTH},
    )


@register
def get_read(settings: Settings) -> Case:
    """Reading an object with the same calls as the plain loop."""
    return Case(
        name="get-read",
        title="get random bytes from the page cache, by read(1 MiB)",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "get_by_read", prepare="add"),
            Contestant("plain 1 MiB read loop", "plain", "read"),
        ),
        targets=(Target(against="plain 1 MiB read loop", at_least=0.9),),
        request={"digests": BOTH},
    )


@register
def get_read_small(settings: Settings) -> Case:
    """Reading an object in small amounts, as a caller with its own buffer does."""
    return Case(
        name="get-read-small",
        title="get random bytes from the page cache, by read(8 KiB)",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", "get_by_read", prepare="add"),
            Contestant("plain 8 KiB read loop", "plain", "read"),
        ),
        targets=(Target(against="plain 8 KiB read loop", at_least=0.66),),
        request={"digests": BOTH, "amount": 8192},
    )


@register
def zeros(settings: Settings) -> Case:
    """Zeros, as in the empty part of a disk image."""
    return Case(
        name="zeros",
        title="add zeros with thin provisioning, md5 + sha512, durable off",
        size=settings.size,
        contestants=(Contestant("ours", "ours", "add"), Contestant("peer", "peer", "add")),
        targets=(
            Target(against="peer", at_least=5.0),
            Target(metric="allocated_bytes", at_most=MIB),
        ),
        payload="zeros",
        request={"digests": BOTH, "options": {"filesystem_thin_provisioning": True}},
    )


@register
def small(settings: Settings) -> Case:
    """What an operation costs by itself."""
    return Case(
        name="small",
        title=f"{settings.objects} objects of 64 KiB, md5 + sha512, durable off",
        size=settings.objects * SMALL,
        contestants=(Contestant("ours", "ours", "small"), Contestant("peer", "peer", "small")),
        targets=tuple(
            Target(against="peer", phase=phase, at_least=1.0) for phase in ("add", "get", "delete")
        ),
        payload=None,
        operations=settings.objects,
        request={"count": settings.objects},
    )


@register
def stalled(settings: Settings) -> Case:
    """What stalled uploads cost other transfers."""
    return Case(
        name="stalled",
        title="50 adds of 1 KiB beside 32 uploads that stopped after 20 MiB, durable off",
        size=50 * 1024,
        contestants=(Contestant("ours", "ours", "stalled"), Contestant("peer", "peer", "stalled")),
        targets=(Target(metric="worst_seconds", at_most=0.1),),
        payload=None,
        operations=50,
        request={"clients": 32},
    )


@register
def waiting(settings: Settings) -> Case:
    """What transfers that wait for memory cost other transfers."""
    return Case(
        name="waiting",
        title="50 gets of 8 MiB beside 512 uploads, most of which wait for memory, durable off",
        size=50 * 8 * MIB,
        contestants=(
            Contestant("ours", "ours", "waiting", request={"clients": 512}),
            Contestant("ours, alone", "ours", "waiting", request={"clients": 0}),
        ),
        targets=(Target(against="ours, alone", at_least=0.5),),
        payload=None,
        operations=50,
    )


@register
def memory(settings: Settings) -> Case:
    """A stream of unknown length, far larger than the memory allowed for it."""
    return Case(
        name="memory",
        title="add from a pipe, size unknown, md5 + sha512, durable off",
        size=4 * settings.size,
        contestants=(Contestant("ours", "ours", "pipe"), Contestant("peer", "peer", "pipe")),
        targets=(Target(metric="peak_bytes", at_most=100 * MIB),),
        payload="pipe",
        max_rounds=2,
        request={"digests": BOTH},
    )
