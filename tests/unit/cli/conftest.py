"""Runs the command in this process, with the user's directories in a temporary place."""

import dataclasses
import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib.cli.shell import Shell


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a command."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Restore the usual signal handlers: tests in the background ignore some signals."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary home directory, without the configuration of the real user."""
    for variable in ("STORE_LIB_CONFIG", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    directory = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(directory))
    return directory


@pytest.fixture
def datadir(home: Path) -> Path:
    """The directory of the store that is used without a configuration."""
    return home / ".local/share/store_lib/objects"


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs the command: ``run("add", "-", stdin=b"data")``."""

    def run(*argv: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        status = Shell().run([str(each) for each in argv])
        out, err = capfdbinary.readouterr()
        return Outcome(status, out, err.decode())

    return run


@pytest.fixture
def added(run: Run) -> Callable[..., str]:
    """A function that adds bytes to the local store and returns their URI."""

    def added(data: bytes = b"some bytes", *options: object) -> str:
        outcome = run("add", "-", *options, "-f", "json", stdin=data)
        assert outcome.status == 0, outcome.err
        uri: str = outcome.json["uri"]
        return uri

    return added
