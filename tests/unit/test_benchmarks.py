"""Tests of the benchmark harness: its arithmetic, its checks and a tiny run; never of a speed."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import child, machine, pattern, report, scratch
from benchmarks.case import MIB, Case, Contestant, Outcome, Settings, Target, medians
from benchmarks.payload import FilePayload, PipePayload, WrongBytes, check_object
from benchmarks.runner import ROOT, Runner

SETTINGS = Settings(size=3 * MIB, objects=3, rounds=3, peer=False)


def _case(**changes: Any) -> Case:
    given: dict[str, Any] = {
        "name": "toy",
        "title": "a toy",
        "size": 3 * MIB,
        "contestants": (Contestant("ours", "ours", "add"),),
        "request": {"digests": ("md5",)},
    }
    return Case(**{**given, **changes})


def _sample(seconds: float, **more: Any) -> Mapping[str, Any]:
    return {
        "seconds": seconds,
        "user_seconds": seconds,
        "system_seconds": 0.0,
        "peak_bytes": MIB,
        **more,
    }


def _outcome(case: Case, **seconds: list[float]) -> Outcome:
    outcome = Outcome(case, rounds=3)
    for name, each in seconds.items():
        for value in each:
            outcome.add("run", name, _sample(value))
    return outcome


#: A driver in one file: copies the source as it is told to, and says what it did.
TOY_DRIVER = """
import hashlib, json, os, shutil, sys
request = json.loads(sys.argv[1])
if request["operation"] == "crash":
    sys.exit("toy broke")
if request["operation"] == "collect":
    shutil.copyfile(request["uri"].removeprefix("toy://"), request["target"])
    if not request["keep"]:
        os.unlink(request["uri"].removeprefix("toy://"))
    sys.exit(print("{}"))
path = request.get("server", request["datadir"]) + "/" + request["object_id"]
shutil.copyfile(request["source"], path)
data = open(path, "rb").read()
if request["operation"] == "alter":
    data = bytes([data[0] ^ 1]) + data[1:]
    open(path, "wb").write(data)
digests = {name: hashlib.new(name, data).hexdigest() for name in request["digests"]}
if request["operation"] == "misdigest":
    digests = {name: "00" for name in digests}
measured = {"seconds": 1.0, "user_seconds": 1.0, "system_seconds": 0.0, "peak_bytes": None}
print("a library says hello")
scheme = "toy://" if "server" in request else "file://"
print(json.dumps({"uri": scheme + path, "size": len(data), "digests": digests,
                  "phases": {"run": measured}, "told": request.get("told")}))
"""


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Return a runner whose only contestant is the toy driver."""
    driver = tmp_path / "toy_driver.py"
    driver.write_text(TOY_DRIVER)
    fast, disk = tmp_path / "fast", tmp_path / "disk"
    fast.mkdir()
    disk.mkdir()
    return Runner({"ours": [sys.executable, str(driver)]}, fast, disk, SETTINGS)


class TestArithmetic:
    """Medians, ratios and targets."""

    def test_median_skips_what_was_not_told(self) -> None:
        """The median of a measure is taken over the runs that have it."""
        samples = [_sample(3.0), _sample(1.0, peak_bytes=None), _sample(2.0, report={})]
        found = medians(samples)
        assert found["seconds"] == 2.0
        assert found["peak_bytes"] == MIB
        assert "report" not in found

    @pytest.mark.parametrize(("ours", "met"), [([1.0, 9.0, 2.0], True), ([2.0, 2.1, 9.0], False)])
    def test_ratio_is_the_others_median_over_ours(self, ours: list[float], met: bool) -> None:
        """A target of twice as fast is met at half of the other's median, and not above."""
        case = _case(targets=(Target(against="peer", at_least=2.0),))
        (verdict,) = report.verdicts(_outcome(case, ours=ours, peer=[1.0, 4.0, 5.0]))
        assert verdict.value == pytest.approx(4.0 / sorted(ours)[1])
        assert verdict.met is met

    def test_bound_of_ours_alone(self) -> None:
        """A target without an opponent is compared with the measure itself."""
        case = _case(targets=(Target(metric="peak_bytes", at_most=MIB - 1),))
        (verdict,) = report.verdicts(_outcome(case, ours=[1.0]))
        assert verdict.value == MIB
        assert verdict.met is False

    def test_without_the_other_nothing_is_met(self) -> None:
        """A target against one who did not run is neither met nor missed, and is shown."""
        case = _case(targets=(Target(against="peer", at_least=2.0),))
        outcome = _outcome(case, ours=[1.0])
        assert [each.met for each in report.verdicts(outcome)] == [None]
        assert ">= 2x: not measured" in report.as_text([outcome], SETTINGS, {})

    def test_failed_case_meets_nothing(self) -> None:
        """Rounds before a failure prove no target."""
        case = _case(targets=(Target(against="peer", at_least=1.0),))
        outcome = _outcome(case, ours=[1.0], peer=[2.0])
        outcome.failure = "WrongBytes: here"
        assert [each.met for each in report.verdicts(outcome)] == [None]
        assert "FAILED: toy: WrongBytes: here" in report.as_text([outcome], SETTINGS, {})

    def test_report_says_missed(self) -> None:
        """A missed target is printed as such, counted, and in the JSON."""
        case = _case(targets=(Target(against="peer", at_least=2.0),))
        outcome = _outcome(case, ours=[1.0], peer=[1.5])
        text = report.as_text([outcome], SETTINGS, {"cpu": "abacus"})
        assert "1.5x" in text
        assert ">= 2x: MISSED" in text
        assert "targets: 0 met, 1 missed, 0 not measured" in text
        assert "NOTE: targets are set for 1024 MiB" in text
        found = json.loads(json.dumps(report.as_json([outcome], SETTINGS, {"cpu": "abacus"})))
        assert found["full_size"] is False
        assert found["cases"][0]["targets"][0]["met"] is False
        ratios = {
            each["contestant"]: each["ours_is_times_as_fast"]
            for each in found["cases"][0]["results"]
        }
        assert ratios == {"ours": 1.0, "peer": 1.5}

    def test_time_of_one_operation(self) -> None:
        """Where a run is many operations, the time of one is shown."""
        outcome = _outcome(_case(operations=1000), ours=[0.25])
        assert "250.0 us" in report.as_text([outcome], SETTINGS, {})

    def test_room_counts_source_and_stores(self) -> None:
        """A case needs its payload and every object that lies there at once."""
        prepared = Contestant("ours", "ours", "get", prepare="add")
        needed = _case(contestants=(prepared, prepared)).room()
        assert needed["scratch"] >= 3 * 3 * MIB
        assert _case(place="disk").room()["disk"] == 3 * MIB

    def test_too_little_room_names_the_case(self, tmp_path: Path) -> None:
        """A place that is too small is refused with what is needed and what can be done."""
        rooms = {place: machine.Room(tmp_path, "tmpfs", MIB) for place in ("scratch", "disk")}
        with pytest.raises(machine.TooLittleRoom, match=r"Case toy needs .*\(--size\)"):
            machine.check_room([_case()], rooms)


class TestPayload:
    """What is added, and the comparison with what is stored."""

    def test_pattern_is_the_same_every_time(self) -> None:
        """The stream has the size asked for, and no two blocks alike."""
        size = 2 * pattern.BLOCK + 100
        pieces = list(pattern.blocks(size))
        assert [len(each) for each in pieces] == [pattern.BLOCK, pattern.BLOCK, 100]
        assert pieces == list(pattern.blocks(size))
        assert len(set(pieces)) == 3

    def test_pipe_carries_the_pattern(self) -> None:
        """What comes out of the pipe is what the check expects."""
        with child.pipe_of(MIB + 5) as source:
            assert source.read() == b"".join(PipePayload(MIB + 5).blocks())

    def test_zeros_are_written_out(self, tmp_path: Path) -> None:
        """The source of zeros has exactly the size asked for, and no other byte."""
        payload = FilePayload.zeros(tmp_path / "zeros", MIB + 3)
        assert b"".join(payload.blocks()) == bytes(MIB + 3)

    @pytest.mark.parametrize(
        "damage", ["none", "flip", "short", "long", "missing", "digest", "size"]
    )
    def test_every_difference_is_seen(self, tmp_path: Path, damage: str) -> None:
        """A stored file that differs in any way, or a false claim, fails the check."""
        payload = FilePayload.random(tmp_path / "source", MIB + 3)
        data = (tmp_path / "source").read_bytes()
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        kept = {"flip": flipped, "short": data[:-1], "long": data + b"x"}.get(damage, data)
        stored = tmp_path / "stored"
        if damage != "missing":
            stored.write_bytes(kept)
        digests = payload.digests(("md5", "sha256"))
        if damage == "digest":
            digests["sha256"] = digests["sha256"][::-1]
        size = payload.size + (damage == "size")
        if damage == "none":
            check_object(stored, payload, size, digests)
        else:
            with pytest.raises(WrongBytes):
                check_object(stored, payload, size, digests)


class TestRunner:
    """Turns, checks and clearing away, with a toy driver as the contestant."""

    def test_contestants_take_turns(self, runner: Runner, tmp_path: Path) -> None:
        """Every round runs each contestant once, one object lies there, and none is left."""
        contestants = (Contestant("ours", "ours", "add"), Contestant("other", "ours", "add"))
        seen: list[str] = []
        objects: list[int] = []
        fast = tmp_path / "fast"

        def say(line: str) -> None:
            seen.append(line)
            objects.append(sum(path.is_file() for path in (fast / "stores-toy").rglob("*")))

        runner._say = say
        outcome = runner.run(_case(contestants=contestants))
        assert outcome.failure is None
        names = [line.split()[2].rstrip(":") for line in seen]
        assert names == ["ours", "other"] * SETTINGS.rounds
        assert objects == [1] * len(seen)
        assert len(outcome.samples["run"]["ours"]) == SETTINGS.rounds
        assert [path.name for path in fast.iterdir()] == ["payload"]

    def test_absent_peer_does_not_run(self, runner: Runner) -> None:
        """Without the peer, its turns are left out."""
        both = (Contestant("ours", "ours", "add"), Contestant("peer", "peer", "add"))
        outcome = runner.run(_case(contestants=both))
        assert list(outcome.samples["run"]) == ["ours"]

    def test_fewer_rounds_where_the_case_says_so(self, runner: Runner) -> None:
        """A case can bound its rounds."""
        outcome = runner.run(_case(max_rounds=1))
        assert outcome.rounds == len(outcome.samples["run"]["ours"]) == 1

    @pytest.mark.parametrize(("operation", "reason"), [("add", None), ("alter", "differs")])
    def test_what_a_server_holds_is_fetched_and_deleted(
        self, runner: Runner, tmp_path: Path, operation: str, reason: str | None
    ) -> None:
        """What was added to a server is read back, compared, and deleted there."""
        server = tmp_path / "server"
        server.mkdir()
        case = _case(
            place="server",
            contestants=(Contestant("ours", "ours", operation),),
            fixture=lambda: contextlib.nullcontext({"server": str(server)}),
        )
        outcome = runner.run(case)
        assert list(server.iterdir()) == []
        if reason is None:
            assert outcome.failure is None
            assert len(outcome.samples["run"]["ours"]) == outcome.rounds
        else:
            assert reason in str(outcome.failure)

    @pytest.mark.parametrize(
        ("operation", "reason"),
        [("alter", "WrongBytes: .* differs"), ("misdigest", "WrongBytes: .*md5"), ("crash", "toy")],
    )
    def test_failure_is_told(
        self, runner: Runner, tmp_path: Path, operation: str, reason: str
    ) -> None:
        """Wrong bytes, wrong digests and a crash fail the case and leave nothing behind."""
        outcome = runner.run(_case(contestants=(Contestant("ours", "ours", operation),)))
        assert outcome.failure is not None
        assert re.search(reason, outcome.failure)
        assert [path.name for path in (tmp_path / "fast").iterdir()] == ["payload"]


class TestScratch:
    """The directory of a run."""

    def test_removed_at_the_end_of_an_error(self, tmp_path: Path) -> None:
        """An error in the run removes the directory too."""

        def fail() -> None:
            with scratch.directory(tmp_path) as path:
                (path / "file").write_bytes(b"x")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        assert list(tmp_path.iterdir()) == []

    def test_leftover_of_a_killed_run_goes(self, tmp_path: Path) -> None:
        """An old directory that nobody holds is removed; a live one and a new one stay."""
        dead, new = tmp_path / f"{scratch.PREFIX}dead", tmp_path / f"{scratch.PREFIX}new"
        other = tmp_path / "something-else"
        for path in (dead, new, other):
            path.mkdir()
        past = time.time() - 3600
        os.utime(dead, (past, past))
        os.utime(other, (past, past))
        with scratch.directory(tmp_path) as live:
            os.utime(live, (past, past))
            with scratch.directory(tmp_path):
                assert live.exists()
                assert not dead.exists()
        assert sorted(tmp_path.iterdir()) == sorted([new, other])


class TestCommand:
    """The whole of it, as a user starts it, without the peer."""

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "benchmarks", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    def test_tiny_run(self, tmp_path: Path) -> None:
        """Every case without a server runs at a small size, checks what it stored, and reports."""
        names = ["add", "sha256", "durable", "get", "get-read", "get-read-small", "zeros"]
        names += ["small", "memory"]
        found = tmp_path / "found.json"
        places = [tmp_path / "fast", tmp_path / "disk"]
        places[0].mkdir()
        done = self._run(
            *("--without-peer", "--size", "2", "--objects", "5", "--rounds", "1"),
            *("--cases", ",".join(names)),
            *("--scratch", str(places[0]), "--directory", str(places[1]), "--json", str(found)),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told = json.loads(found.read_text())
        assert [each["name"] for each in told["cases"]] == names
        assert all(each["failure"] is None for each in told["cases"])
        assert {each["phase"] for each in told["cases"][7]["results"]} == {"add", "get", "delete"}
        assert "not measured" in done.stdout
        assert [list(place.iterdir()) for place in places] == [[], []]

    def test_unknown_case_is_refused(self) -> None:
        """A case that does not exist is refused with those that do."""
        done = self._run("--cases", "add,teleport")
        assert done.returncode == 2
        assert "unknown cases teleport" in done.stderr

    def test_missing_scratch_is_refused(self, tmp_path: Path) -> None:
        """A place that is not there ends the run before it begins, with one line."""
        done = self._run(
            *("--without-peer", "--size", "1", "--scratch", str(tmp_path / "nowhere")),
            *("--directory", str(tmp_path)),
        )
        assert done.returncode == 2
        assert "The run cannot begin" in done.stderr
        assert "Traceback" not in done.stderr
