"""Turns outcomes into a table for people and JSON for programs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.case import MIB, Outcome, Settings, Target

FORMAT = 1

_HEADINGS = (
    "case",
    "who",
    "median",
    "least - most",
    "MiB/s",
    "CPU s",
    "servers'",
    "peak MiB",
    "ours is",
    "target",
)
#: Columns whose entries are numbers, aligned to the right.
_RIGHT = frozenset({2, 3, 4, 5, 6, 7, 8})


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result for a target."""

    target: Target
    #: ``None`` when it was not measured.
    value: float | None

    @property
    def met(self) -> bool | None:
        """Whether the target was met; ``None`` if it was not measured."""
        return None if self.value is None else self.target.met(self.value)

    def __str__(self) -> str:
        word = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        return f"{_bound(self.target)}: {word}"


def verdicts(outcome: Outcome) -> list[Verdict]:
    """Return the result for each target of a case."""
    found = []
    for target in outcome.case.targets:
        medians = outcome.medians(target.phase)
        ours = medians.get("ours", {})
        other = medians.get(target.against) if target.against else None
        # A failed case proves nothing, even if its first rounds succeeded.
        value = None if outcome.failure else target.value(ours, other)
        found.append(Verdict(target, value))
    return found


def as_json(
    outcomes: Sequence[Outcome], settings: Settings, machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all measurements; times are in seconds, sizes in bytes."""
    return {
        "format": FORMAT,
        "machine": dict(machine),
        "settings": dataclasses.asdict(settings),
        "full_size": _full_size(settings),
        "cases": [_case_as_json(outcome) for outcome in outcomes],
    }


def _case_as_json(outcome: Outcome) -> dict[str, Any]:
    results = []
    for phase, contestants in outcome.samples.items():
        medians = outcome.medians(phase)
        for name, samples in contestants.items():
            results.append(
                {
                    "phase": phase,
                    "contestant": name,
                    "medians": medians[name],
                    "ours_is_times_as_fast": _ratio(medians, name),
                    "samples": [dict(sample) for sample in samples],
                }
            )
    return {
        "name": outcome.case.name,
        "title": outcome.case.title,
        "bytes": outcome.case.size,
        "operations": outcome.case.operations,
        "place": outcome.case.place,
        "rounds": outcome.rounds,
        "failure": outcome.failure,
        "results": results,
        "targets": [
            {**dataclasses.asdict(each.target), "value": each.value, "met": each.met}
            for each in verdicts(outcome)
        ],
    }


def as_text(outcomes: Sequence[Outcome], settings: Settings, machine: Mapping[str, Any]) -> str:
    """Return the machine, the table and the results for the targets as text."""
    lines = [f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in machine.items()]
    if not _full_size(settings):
        lines.append(
            f"NOTE: targets are set for 1024 MiB, 1000 objects and 5 rounds; this run took "
            f"{settings.size // MIB} MiB, {settings.objects} objects and {settings.rounds}."
        )
    if machine.get("load", 0) > 0.5:
        lines.append("NOTE: the machine was not idle when the run began; see its load above.")
    lines.append("")
    lines.extend(f"{each.case.name}: {each.case.title}" for each in outcomes)
    lines.append("")
    rows: list[Sequence[str]] = [_HEADINGS]
    for outcome in outcomes:
        rows.extend(_rows(outcome))
    lines.extend(_aligned(rows))
    lines.append("")
    lines.append(
        '"ours is" says how many times as fast ours is. "peak MiB" is memory above what the '
        'idle process holds, its imports done and its store configured. "servers\'" are the CPU '
        "seconds of the servers' processes, where the run has started them."
    )
    every = [verdict for outcome in outcomes for verdict in verdicts(outcome)]
    counted = {word: sum(each.met is word for each in every) for word in (True, False, None)}
    lines.append(
        f"targets: {counted[True]} met, {counted[False]} missed, {counted[None]} not measured"
    )
    lines.extend(f"FAILED: {each.case.name}: {each.failure}" for each in outcomes if each.failure)
    return "\n".join(lines) + "\n"


def _rows(outcome: Outcome) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    case = outcome.case
    for phase, contestants in outcome.samples.items():
        medians = outcome.medians(phase)
        for name, samples in contestants.items():
            median = medians[name]
            seconds = [sample["seconds"] for sample in samples]
            peak = median.get("peak_bytes")
            served = median.get("server_cpu_seconds")
            ratio = None if name == "ours" else _ratio(medians, name)
            wanted = [
                str(each)
                for each in verdicts(outcome)
                if each.target.phase == phase and (each.target.against or "ours") == name
            ]
            rows.append(
                (
                    case.name if phase == "run" else f"{case.name} {phase}",
                    name,
                    _time(median["seconds"], case.operations),
                    f"{_time(min(seconds), case.operations).split()[0]} - "
                    f"{_time(max(seconds), case.operations)}",
                    f"{case.size / MIB / median['seconds']:.0f}" if median["seconds"] else "-",
                    f"{median['user_seconds'] + median['system_seconds']:.2f}",
                    "-" if served is None else f"{served:.2f}",
                    "-" if peak is None else f"{peak / MIB:.1f}",
                    "-" if ratio is None else f"{ratio:.3g}x",
                    "; ".join(wanted) or "-",
                )
            )
    # A target against an absent contestant still has its line.
    for each in verdicts(outcome):
        if each.value is None:
            target = each.target
            label = case.name if target.phase == "run" else f"{case.name} {target.phase}"
            present = outcome.samples.get(target.phase, {})
            if (target.against or "ours") not in present:
                rows.append((label, target.against or "ours", *("-" * 7), str(each)))
    return rows


def _bound(target: Target) -> str:
    """Return a target's bound as text, such as ``>= 1.9x``."""
    unit, scale = ("x", 1.0) if target.against else (" MiB", float(MIB))
    if target.against is None and target.metric.endswith("seconds"):
        unit, scale = " s", 1.0
    label = "" if target.metric == "seconds" else target.metric.removesuffix("_bytes") + " "
    bounds = []
    if target.at_least is not None:
        bounds.append(f"{label}>= {target.at_least / scale:g}{unit}")
    if target.at_most is not None:
        bounds.append(f"{label}<= {target.at_most / scale:g}{unit}")
    return ", ".join(bounds)


def _ratio(medians: Mapping[str, Mapping[str, float]], name: str) -> float | None:
    ours = medians.get("ours", {}).get("seconds")
    other = medians[name].get("seconds")
    return None if not ours or other is None else other / ours


def _time(seconds: float, operations: int | None) -> str:
    if operations:
        return f"{seconds / operations * 1e6:.1f} us"
    return f"{seconds:.3f} s"


def _full_size(settings: Settings) -> bool:
    full = Settings()
    return (
        settings.size >= full.size
        and settings.objects >= full.objects
        and settings.rounds >= full.rounds
    )


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    return "unknown" if value is None else str(value)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
