"""Cases: contestants, what they do, and the targets; and the registry of cases."""

import contextlib
import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

MIB = 1024 * 1024

#: The modules with cases, which register them when imported.
CASE_MODULES = (
    "benchmarks.cases_filesystem",
    "benchmarks.cases_s3",
    "benchmarks.cases_rbd",
    "benchmarks.cases_swift",
    "benchmarks.cases_vmware",
    "benchmarks.cases_cinder",
    "benchmarks.cases_glance",
)

#: The measures of a phase of a run, by name; ``None`` if the system does not provide one.
Sample = Mapping[str, Any]

#: A fixture is a context manager that runs a server; it returns request items for every child
#: process of the case (see :mod:`benchmarks.child`).
Fixture = Callable[[], contextlib.AbstractContextManager[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings from the command line."""

    #: Bytes of a large object; the memory case takes four times as many.
    size: int = 1024 * MIB
    #: How many small objects.
    objects: int = 1000
    #: How often each contestant runs.
    rounds: int = 5
    #: Whether glance_store takes part.
    peer: bool = True
    #: The peer's ``filesystem_store_chunk_size``; ``None`` leaves it at its default.
    peer_chunk_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A participant of a case; each round runs in a new process."""

    name: str
    #: Whose interpreter and driver: ``ours``, ``peer`` or ``plain``.
    side: Literal["ours", "peer", "plain"]
    #: The operation of the side's driver that is measured, or a function elsewhere that is
    #: called in its place, as ``module:function``.
    operation: str
    #: An operation that runs once before the rounds, in another process, and leaves an object
    #: for all of them.
    prepare: str | None = None
    #: Who fetches what was added to a server, to check it and delete it; when left out, the
    #: same side, or ``ours`` for a plain one, whose URI is then to be one of ours.
    collector: Literal["ours", "peer"] | None = None
    #: What this contestant's request says beyond the case's.
    request: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Target:
    """The value that our median must reach, absolute or relative to another contestant."""

    #: The contestant compared with: the value is its median divided by ours, so that 2 means
    #: that ours takes half.  ``None``: the value is the median of ours itself.
    against: str | None = None
    metric: str = "seconds"
    phase: str = "run"
    at_least: float | None = None
    at_most: float | None = None

    def value(self, ours: Mapping[str, float], other: Mapping[str, float] | None) -> float | None:
        """Return the measured value, ``None`` if it was not measured."""
        mine = ours.get(self.metric)
        if self.against is None or mine is None:
            return mine
        theirs = None if other is None else other.get(self.metric)
        return None if theirs is None or not mine else theirs / mine

    def met(self, value: float) -> bool:
        """Return whether ``value`` reaches the target."""
        if self.at_least is not None and value < self.at_least:
            return False
        return self.at_most is None or value <= self.at_most


@dataclasses.dataclass(frozen=True)
class Case:
    """A measurement."""

    name: str
    title: str
    contestants: Sequence[Contestant]
    #: Bytes that one run moves.
    size: int
    targets: Sequence[Target] = ()
    #: What is added: a file of random bytes, one of zeros, one of which a tenth is random bytes
    #: and the rest zeros, a pipe; ``None``: nothing, or what the driver makes itself.
    payload: Literal["random", "zeros", "sparse", "pipe"] | None = "random"
    #: Where the stores lie: in memory, on a real disk, or with a server that the fixture starts.
    place: Literal["scratch", "disk", "server"] = "scratch"
    #: Operations in one phase; given, the report shows the time of one.
    operations: int | None = None
    #: Rounds at most, where more would tell nothing more.
    max_rounds: int | None = None
    #: What every contestant's request says.
    request: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixture: Fixture | None = None

    def room(self) -> dict[str, int]:
        """Return the bytes that the case needs at once, by place."""
        kept = sum(1 for each in self.contestants if each.prepare)
        needed = {"scratch": 32 * MIB, "disk": 0}
        if self.place == "server":
            needed["scratch"] += self.size  # what is fetched from it to be checked
        else:
            needed[self.place] += self.size * max(kept, 1)
        if self.payload in ("random", "zeros", "sparse"):
            needed["scratch"] += self.size
        return needed


@dataclasses.dataclass
class Outcome:
    """The results of the rounds of a case."""

    case: Case
    rounds: int
    #: By phase, then by contestant, in the order in which they ran.
    samples: dict[str, dict[str, list[Sample]]] = dataclasses.field(default_factory=dict)
    #: Why the case did not get to its end, if it did not.
    failure: str | None = None

    def add(self, phase: str, contestant: str, sample: Sample) -> None:
        """Add the measures of a run."""
        self.samples.setdefault(phase, {}).setdefault(contestant, []).append(sample)

    def medians(self, phase: str) -> dict[str, dict[str, float]]:
        """Return every contestant's median measures of a phase."""
        return {name: medians(samples) for name, samples in self.samples.get(phase, {}).items()}


def medians(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the median of each measure that is a number in some of the samples."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        for metric, value in sample.items():
            if isinstance(value, (int, float)):
                values.setdefault(metric, []).append(value)
    return {metric: statistics.median(each) for metric, each in values.items()}


#: Makes each case for the settings, by name, in the order in which they run.
REGISTRY: dict[str, Callable[[Settings], Case]] = {}


def register(make: Callable[[Settings], Case]) -> Callable[[Settings], Case]:
    """Register a case under the function's name, with hyphens."""
    name = make.__name__.replace("_", "-")
    if name in REGISTRY:
        raise ValueError(f"two cases are called {name}")
    REGISTRY[name] = make
    return make
