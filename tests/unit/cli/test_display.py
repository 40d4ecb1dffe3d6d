"""Untrusted names and URIs in the output, in every format."""

import json
import shlex

import pytest

from store_lib.cli.formatting import Pairs, Words, printable_cells
from store_lib.display import printable

#: A name with line breaks, control sequences, shell code and a change of text direction.
ODD = "a\nb\x1b[31m\x7f\u202e$(x)`y`z"
PRINTED = printable(ODD)


def clean(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("form", ["table", "value", "csv", "json", "yaml"])
def test_a_list(run, datadir, added, form):
    """An unusual file name is one line in every format; JSON has it unchanged."""
    added()
    (datadir / ODD).write_bytes(b"x")
    outcome = run("list", "-f", form, "-c", "id", "-c", "uri")
    assert outcome.status == 0
    if form == "json":
        assert ODD in [each["id"] for each in json.loads(outcome.text)]
        assert clean(outcome.text.replace("\x7f", ""))  # JSON does not escape this one
        return
    assert clean(outcome.text)
    if form != "yaml":
        printed = PRINTED.replace("\\", "\\\\") if form == "csv" else PRINTED
        assert outcome.text.count(printed) == 2
        extra = {"table": 4, "value": 0, "csv": 1}[form]
        assert len(outcome.text.splitlines()) == 2 + extra


@pytest.mark.parametrize("form", ["table", "value", "shell"])
def test_an_object(run, datadir, added, form):
    """An untrusted URI is printed as one line, and quoted for a shell."""
    added()
    (datadir / ODD).write_bytes(b"x")
    outcome = run("stat", f"file://{datadir}/{ODD}", "-f", form, "-c", "uri")
    assert outcome.status == 0
    assert clean(outcome.text)
    if form == "shell":
        value = outcome.text.strip().removeprefix("uri=")
        for mark in "$`":
            assert value.count(mark) == value.count(f"\\{mark}") > 0
        assert shlex.split(value) == [
            f"file://{datadir}/{PRINTED}".replace("$", "\\$").replace("`", "\\`")
        ]  # a shell removes these backslashes too, but shlex does not


def test_values_of_several_texts():
    """Texts in lists and pairs are made printable, for people and for programs."""
    row = printable_cells([Words([ODD]), Pairs({ODD: ODD}), 5, None], "value")
    assert row[2:] == [5, None]
    for cell in row[:2]:
        assert cell.human_readable().isprintable()
        assert PRINTED in cell.human_readable()
    assert row[0].machine_readable() == [PRINTED]
    assert row[1].machine_readable() == {PRINTED: PRINTED}


@pytest.mark.parametrize("options", [(), ("--debug",), ("-v", "-v")])
@pytest.mark.parametrize("odd", [ODD, "\udcff", "\x85", "\r\n\x07"])
def test_errors(run, options, odd, tmp_path):
    """An error is one line for any argument; only a traceback has more lines."""
    log = tmp_path / "log"
    for command in (
        ("get", f"file:///nowhere/{odd}"),
        ("get", f"x{odd}"),
        ("stat", "file:///x", "--store", odd),
        ("add", f"nothing{odd}"),
        ("add", "-", "--id", odd),
        ("add", "-", "--digest", odd),
        ("list", "-c", odd),
        ("stat", "file:///x", odd),
        ("sweep", "--older-than", odd),
        (f"c{odd}",),
        (f"--o{odd}",),
    ):
        outcome = run("--log-file", log, *options, *command)
        assert outcome.status, command
        assert clean(outcome.err)
        lines = outcome.err.rstrip("\n").split("\n")
        assert len(lines) == 1 or options
        assert lines[-1].startswith("store-lib: ")
        assert clean(log.read_text())


@pytest.mark.parametrize(
    "uri", ["s3:/AK:s3cr3t@h/b/k", "http:/u:s3cr3t@h/x", "://u:s3cr3t@h", "s3://AK:s3 s3cr3t@h/b/k"]
)
def test_mistyped_uris(run, uri, tmp_path):
    """No secret of a mistyped or misplaced URI is printed."""
    log = tmp_path / "log"
    for command in (
        ("get", uri),
        ("stat", "file:///x", uri),
        *([] if " " in uri else [("add", uri)]),  # that would be a file name
        (uri,),
        ("sweep", "--older-than", uri),
        ("add", "-", "--expect", uri),
        ("copy", uri, "--to", "local"),
    ):
        for options in ((), ("--debug",), ("-v", "-v")):
            outcome = run("--log-file", log, *options, *command)
            assert outcome.status
            shown = outcome.text + outcome.err + log.read_text()
            assert "s3cr3t" not in shown, command
            assert "AK:s3 " not in shown, command
