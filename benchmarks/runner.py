"""Runs cases: the contestants in turn, each time in a new process, and checks their results."""

import contextlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import child
from benchmarks.case import Case, Contestant, Outcome, Settings
from benchmarks.payload import FilePayload, Payload, PipePayload, WrongBytes, check_object

ROOT = Path(__file__).resolve().parent.parent


class ChildFailed(Exception):
    """A measured process failed, or printed no result."""


def _silent(line: str) -> None:
    """Say nothing."""


class Runner:
    """Runs cases one after another.

    :param commands: the command of each side; the request is appended as the last argument
    :param scratch: a directory in memory, for payloads and stores
    :param disk: a directory on a real disk, for durable stores
    :param settings: the settings from the command line
    :param say: called with a line of text after each step
    :param timeout: time limit for a process in seconds
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        scratch: Path,
        disk: Path,
        settings: Settings,
        *,
        say: Callable[[str], None] = _silent,
        timeout: float = 1800,
    ) -> None:
        self._commands = commands
        self._places = {"scratch": scratch, "disk": disk}
        self._settings = settings
        self._say = say
        self._timeout = timeout
        self._payload: tuple[str, int, Payload] | None = None

    def facts(self, side: str) -> dict[str, Any]:
        """Return the versions of a side's interpreter.

        :raises ChildFailed: it cannot be started
        """
        answer = self._ask(side, {"operation": "facts"})
        return {name: answer[name] for name in ("python", "openssl", "packages")}

    def run(self, case: Case) -> Outcome:
        """Run all rounds of a case; a failed case has a reason, and leaves nothing behind."""
        rounds = min(self._settings.rounds, case.max_rounds or self._settings.rounds)
        outcome = Outcome(case, rounds)
        contestants = [
            each for each in case.contestants if each.side != "peer" or self._settings.peer
        ]
        place = "scratch" if case.place == "server" else case.place
        stores = self._places[place] / f"stores-{case.name}"
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(shutil.rmtree, stores, ignore_errors=True)
                fixture_items = stack.enter_context(case.fixture()) if case.fixture else {}
                payload = self._prepare_payload(case)
                turns = [
                    _Turn(self, case, each, stores / str(number), payload, fixture_items)
                    for number, each in enumerate(contestants)
                ]
                for turn in turns:
                    turn.prepare()
                for number in range(rounds):
                    for turn in turns:
                        turn.take(outcome, f"{case.name} {number + 1}/{rounds}")
        except (ChildFailed, WrongBytes, OSError) as error:
            outcome.failure = f"{type(error).__name__}: {error}"
            self._say(f"{case.name}: FAILED: {outcome.failure}")
        return outcome

    def _prepare_payload(self, case: Case) -> Payload | None:
        """Make the payload of a case, unless the previous case had the same."""
        kind, size = case.payload or "", case.size
        if self._payload and self._payload[:2] == (kind, size):
            return self._payload[2]
        path = self._places["scratch"] / "payload"
        if kind:  # a case without a payload keeps it for the next case
            self._payload = None
            path.unlink(missing_ok=True)
        made: Payload
        match kind:
            case "random":
                made = FilePayload.random(path, size)
            case "zeros":
                made = FilePayload.zeros(path, size)
            case "sparse":
                made = FilePayload.sparse(path, size)
            case "pipe":
                made = PipePayload(size)
            case _:
                return None
        self._payload = (kind, size, made)
        return made

    def _ask(self, side: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run a process with a request and return its result."""
        command = [*self._commands[side], json.dumps(request)]
        clean = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=clean,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self._timeout,
            )
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"{side} took longer than {self._timeout:g} s") from None
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
            raise ChildFailed(f"{side} ended with status {done.returncode} and said: {said[0]}")
        try:
            answer = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            raise ChildFailed(f"{side} gave no answer but {done.stdout[-200:]!r}") from None
        if not isinstance(answer, dict):
            raise ChildFailed(f"{side} gave no answer but {done.stdout[-200:]!r}")
        return answer


class _Turn:
    """A contestant's runs in a case."""

    def __init__(
        self,
        runner: Runner,
        case: Case,
        contestant: Contestant,
        datadir: Path,
        payload: Payload | None,
        fixture_items: Mapping[str, Any],
    ) -> None:
        self._runner = runner
        self._case = case
        self._contestant = contestant
        self._datadir = datadir
        self._payload = payload
        self._prepared: dict[str, Any] = {}
        self._request = {
            "datadir": str(datadir),
            "size": case.size,
            "source": str(payload.path) if payload and payload.path else None,
            "peer_chunk_size": runner._settings.peer_chunk_size,
            **fixture_items,
            **case.request,
            **contestant.request,
        }

    def prepare(self) -> None:
        """Make the object that all rounds use, if the case needs one."""
        self._datadir.mkdir(parents=True, exist_ok=True)
        if self._contestant.prepare:
            answer = self._ask(self._contestant.prepare)
            self._check(answer, keep=True)
            self._prepared = {"uri": answer["uri"]}

    def take(self, outcome: Outcome, label: str) -> None:
        """Run once: measure, check, and clean up."""
        if self._case.place == "disk":
            os.sync()  # else a contestant pays for the dirty pages of another
        answer = self._ask(self._contestant.operation)
        extra = self._check(answer)
        if "size" in answer and answer["size"] != self._case.size:
            raise WrongBytes(
                f"{self._contestant.name} moved {answer['size']} bytes of {self._case.size}"
            )
        for phase, measured in answer["phases"].items():
            outcome.add(phase, self._contestant.name, {**measured, **extra})
            self._runner._say(
                f"{label} {self._contestant.name}"
                f"{'' if phase == 'run' else ' ' + phase}: {measured['seconds']:.3f} s"
            )
        if not self._prepared:
            shutil.rmtree(self._datadir)
            self._datadir.mkdir()

    def _ask(self, operation: str) -> dict[str, Any]:
        request = {
            **self._request,
            **self._prepared,
            "operation": operation,
            "object_id": str(uuid.uuid4()),
            "touch": self._case.place == "scratch" and not self._prepared,
        }
        return self._runner._ask(self._contestant.side, request)

    def _check(self, answer: Mapping[str, Any], *, keep: bool = False) -> dict[str, Any]:
        """Check the object that an add stored and return remarks."""
        if "uri" not in answer or self._payload is None:
            return {}
        extra = {"report": answer["report"]} if "report" in answer else {}
        if self._case.place == "server":
            path = self._collect(answer["uri"], keep)
            check_object(path, self._payload, answer["size"], answer["digests"])
            path.unlink()
            return extra
        path = Path(child.file_of(answer["uri"]))
        if path.parent.resolve() != self._datadir.resolve():
            raise WrongBytes(f"{self._contestant.name} stored at {path}, not in {self._datadir}")
        check_object(path, self._payload, answer["size"], answer["digests"])
        return {**extra, "allocated_bytes": path.stat().st_blocks * 512}

    def _collect(self, uri: str, keep: bool) -> Path:
        """Fetch an object from its server; delete it there unless it must be kept."""
        side = "peer" if self._contestant.side == "peer" else "ours"
        target = self._datadir / "collected"
        request = {
            **self._request,
            "operation": "collect",
            "uri": uri,
            "target": str(target),
            "keep": keep,
        }
        self._runner._ask(self._contestant.collector or side, request)
        return target
