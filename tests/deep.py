"""The parts of the tests that take too long for each change: ``make deep PARTS=kits,...``.

A test that belongs to a part is marked ``deep("part")`` and is left out of other runs; with
``always=True`` it is made in those too.  ``--deep PARTS`` makes just the tests of some parts.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

#: Every part, and what it is.  A later one is added here, and its tests are marked with it.
PARTS = {
    "kits": "the conformance suite in its long profile, on every configuration of every backend",
    "interrupts": "an interrupt at every line of the engine and the filesystem driver",
    "fuzz": "a million inputs of each parser, and hostile servers under whole operations",
}

#: The property of a test that has the counts of a fuzzer's inputs.
COUNTS = "fuzz"

#: Carries the chosen parts to the tests.
_VARIABLE = "STORE_LIB_TEST_DEEP"


def add_option(parser: pytest.Parser) -> None:
    """Add ``--deep``."""
    told = "; ".join(f"{name}: {what}" for name, what in PARTS.items())
    parser.addoption(
        "--deep",
        metavar="PARTS",
        help=f"make the tests of these parts alone, separated by commas, or of 'all' ({told})",
    )


def chosen_parts(config: pytest.Config) -> frozenset[str]:
    """Return the parts that are to be made; none in a usual run.

    :raises pytest.UsageError: there is no such part
    """
    told = config.getoption("deep")
    if told is None:
        return frozenset()
    names = frozenset(filter(None, (each.strip() for each in told.split(","))))
    if names <= {"all"}:
        return frozenset(PARTS)
    if unknown := names - PARTS.keys():
        raise pytest.UsageError(
            f"no such part of the deep tests: {', '.join(sorted(unknown))}; "
            f"there are: {', '.join(sorted(PARTS))}"
        )
    return names


def is_deep(part: str) -> bool:
    """Tell whether this run makes the deep tests of a part."""
    return part in os.environ.get(_VARIABLE, "").split(",")


def choose(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are not of the chosen parts, or those of any part."""
    chosen = chosen_parts(config)
    os.environ[_VARIABLE] = ",".join(chosen)
    made, left_out = [], []
    for item in items:
        marks = list(item.iter_markers("deep"))
        parts = {each.args[0] for each in marks}
        if unknown := parts - PARTS.keys():
            raise pytest.UsageError(f"{item.nodeid}: no such part of the deep tests: {unknown}")
        usual = all(each.kwargs.get("always") for each in marks)
        (made if parts & chosen or (usual and not chosen) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = made


def counted(reports: Iterable[Any]) -> Iterator[str]:
    """Yield a line for each parser that fuzzers have fed: what became of the inputs."""
    totals: dict[str, Counter[str]] = {}
    notes: dict[str, tuple[float, str]] = {}
    for report in reports:
        for name, text in getattr(report, "user_properties", ()):
            if name == COUNTS and report.when == "call":
                told = json.loads(text)
                parser = told["name"]
                totals.setdefault(parser, Counter()).update(told["counts"])
                slowest = max(told["slowest"], notes.get(parser, (0.0, ""))[0])
                notes[parser] = slowest, told["why"]
    for parser, counts in sorted(totals.items()):
        slowest, why = notes[parser]
        parts = ", ".join(f"{number:,} {what}" for what, number in counts.most_common())
        line = f"{parser}: {counts.total():,} inputs: {parts}; the slowest {slowest * 1000:.0f} ms"
        yield f"{line}; {why}" if why else line
