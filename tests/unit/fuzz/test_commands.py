"""Command lines: each ends in a status, and in one line of error where it fails."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from store_lib.cli.shell import Shell
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.mutation import Mutator

_LINES = [
    [
        "add",
        "source",
        "--id",
        "a",
        "--store",
        "disk",
        "--expect",
        "md5:5eb63bbbe01eeed093cb22bb8f5acdc3",
    ],
    ["add", "source", "--size", "11", "-f", "json"],
    ["get", "file:///FOLDER/store/id", "--offset", "2", "--length", "5"],
    ["stat", "file:///FOLDER/store/id", "-f", "value", "-c", "size"],
    ["delete", "file:///FOLDER/store/other"],
    ["copy", "file:///FOLDER/store/id", "--id", "twin", "--to", "disk"],
    ["list", "--store", "disk", "-c", "id", "-f", "json"],
    ["incomplete", "-f", "csv"],
    ["sweep", "--older-than", "7d", "--dry-run"],
    ["stores", "-f", "json"],
    ["help", "list"],
    ["-v", "--no-progress", "list"],
]
_PIECES = ["--", "-", "=", "--store", "--help", "-f", "json", "file://", ":", ",", "@x", "none"]
_WRITES = {"--log-file", "--output", "-o"}


class Terminal:
    """A directory with a store, and the streams of a command."""

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Be in the directory."""
        before = os.getcwd()
        with tempfile.TemporaryDirectory(prefix="store_lib-fuzz-") as folder:
            self.folder = folder
            os.mkdir(f"{folder}/store")
            for name in ("source", "store/id", "store/other"):
                with open(f"{folder}/{name}", "wb") as file:
                    file.write(b"hello world")
            with open(f"{folder}/conf", "w") as config:
                config.write(
                    "[DEFAULT]\nenabled_backends = disk:file\n"
                    f"[disk]\nfilesystem_store_datadir = {folder}/store\n"
                )
            os.chdir(folder)
            try:
                with mock.patch.dict(os.environ, {"HOME": folder}):
                    yield
            finally:
                os.chdir(before)

    def run(self, line: list[str]) -> bool:
        """Run a command."""
        if any(each.split("=")[0] in _WRITES for each in line):
            return False
        argv = [each.replace("/FOLDER", self.folder) for each in line]
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        empty = io.TextIOWrapper(io.BytesIO())
        with (
            mock.patch.object(sys, "stdout", out),
            mock.patch.object(sys, "stderr", err),
            mock.patch.object(sys, "stdin", empty),
        ):
            status = Shell().run(["--config-file", "conf", *argv])
            for stream in (out, err):
                stream.flush()
        said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
        assert 0 <= status <= 255
        assert "Traceback" not in said or "--debug" in line, said
        assert status == 0 or said.count("\n") <= 3, said
        return status == 0

    def make(self, mutator: Mutator) -> list[str]:
        """Return a command line, of which some words are altered."""
        line = list(mutator.one(_LINES))
        for _ in range(1 + mutator.below(2)):
            at = mutator.below(len(line))
            kind = mutator.below(6)
            if kind == 0:
                del line[at]
            elif kind == 1:
                line.insert(at, mutator.one(mutator.one(_LINES)))
            else:
                # What a shell can hand over: no NUL, and bytes that may be no text.
                word = mutator.text([line[at]], _PIECES).replace("\0", "")[:4000]
                line[at] = word.encode("utf-8", "replace").decode("utf-8", "surrogateescape")
            line = line or ["list"]
        return line


pytestmark = pytest.mark.deep("fuzz", always=True)

_TERMINAL = Terminal()

PARSERS = [
    Parser(
        "command lines",
        _TERMINAL.make,
        _TERMINAL.run,
        share=0.01,
        why="each is a whole command",
        around=_TERMINAL.there,
    ),
]


def test_commands(parser: Parser, batches: range, record_property: Any) -> None:
    """No command line ends in a traceback."""
    feed(parser, batches, record_property)
