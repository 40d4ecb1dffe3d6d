"""The command line of the benchmarks: ``python -m benchmarks``.

The exit status is 0 if all cases ran, even if targets were missed; 1 if a case failed (wrong bytes,
a crash); 2 if the run could not start.
"""

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, peer_environment, report, scratch
from benchmarks.case import CASE_MODULES, MIB, REGISTRY, Case, Settings
from benchmarks.runner import ROOT, ChildFailed, Runner


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print the report; return the exit status."""
    for module in CASE_MODULES:
        importlib.import_module(module)
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        for name, make in REGISTRY.items():
            print(f"{name:20} {make(Settings()).title}")
        return 0
    settings = Settings(
        size=given.size * MIB,
        objects=given.objects,
        rounds=given.rounds,
        peer=not given.without_peer,
        peer_chunk_size=given.peer_chunk_size,
    )
    unknown = sorted(set(given.cases) - set(REGISTRY))
    if unknown:
        parser.error(f"unknown cases {', '.join(unknown)}; there are {', '.join(REGISTRY)}")
    cases = [make(settings) for name, make in REGISTRY.items() if name in given.cases]
    try:
        return _run(cases, settings, given)
    except (machine.TooLittleRoom, peer_environment.PeerNotInstalled, ChildFailed) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"The run cannot begin: {error}", file=sys.stderr)
    return 2


def _run(cases: Sequence[Case], settings: Settings, given: argparse.Namespace) -> int:
    commands = {
        "ours": [sys.executable, "-m", "benchmarks.ours_driver"],
        "plain": [sys.executable, "-m", "benchmarks.plain_driver"],
    }
    if settings.peer:
        python = str(given.peer_python or "") or peer_environment.interpreter(given.peer_venv, _say)
        commands["peer"] = [python, "-m", "benchmarks.peer_driver"]
    given.directory.mkdir(parents=True, exist_ok=True)
    rooms = {
        "scratch": machine.Room.of(given.scratch),
        "disk": machine.Room.of(given.directory),
    }
    machine.check_room(cases, rooms)
    found: dict[str, Any] = machine.facts(given.scratch, given.directory)
    with (
        scratch.directory(given.scratch) as fast,
        scratch.directory(given.directory) as disk,
    ):
        runner = Runner(commands, fast, disk, settings, say=_say, timeout=given.timeout)
        for side in ("ours", "peer"):
            if side in commands:
                found[side] = runner.facts(side)
        outcomes = [runner.run(case) for case in cases]
    print(report.as_text(outcomes, settings, found), end="")
    if given.json:
        given.json.write_text(
            json.dumps(report.as_json(outcomes, settings, found), indent=1) + "\n"
        )
    return 1 if any(outcome.failure for outcome in outcomes) else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure store_lib side by side with glance_store, in turn and in one run.",
    )
    add = parser.add_argument
    add("--cases", type=_names, default=list(REGISTRY), metavar="NAME[,NAME...]")
    add("--list", action="store_true", help="name the cases and end")
    add("--rounds", type=_positive, default=5, help="runs of each contestant (default: 5)")
    add("--size", type=_positive, default=1024, help="MiB of a large object (default: 1024)")
    add("--objects", type=_positive, default=1000, help="how many small ones (default: 1000)")
    add("--json", type=_path, metavar="FILE", help="write everything measured to FILE, too")
    add(
        "--scratch",
        type=_path,
        default=Path("/dev/shm"),
        metavar="DIRECTORY",
        help="where the stores in memory lie, in a directory that is removed (default: /dev/shm)",
    )
    add(
        "--directory",
        type=_path,
        default=ROOT / ".cache" / "bench",
        help="where durable stores lie, on a real disk (default: .cache/bench)",
    )
    add("--without-peer", action="store_true", help="measure store_lib and the bounds alone")
    add(
        "--peer-python",
        type=_path,
        metavar="FILE",
        help="an interpreter that has glance_store, instead of installing it",
    )
    add(
        "--peer-venv",
        type=_path,
        default=ROOT / ".cache" / "bench-peer-venv",
        metavar="DIRECTORY",
        help="where glance_store is installed (default: .cache/bench-peer-venv)",
    )
    add(
        "--peer-chunk-size",
        type=_positive,
        metavar="BYTES",
        help="glance_store's filesystem_store_chunk_size (default: its own)",
    )
    add("--timeout", type=_positive, default=1800, help="seconds for one process (default: 1800)")
    return parser


def _path(text: str) -> Path:
    return Path(os.path.abspath(text))  # links stay: an environment's interpreter is one


if __name__ == "__main__":
    for each in (signal.SIGTERM, signal.SIGHUP):
        # As an exception, so that everything is cleared away on the way out.
        signal.signal(each, lambda received, _: sys.exit(128 + received))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
