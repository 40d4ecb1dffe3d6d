"""The command as a separate process: exit statuses, signals, pipes and terminals."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from store_lib import Stores
from store_lib.exceptions import NotFound

COMMAND = [sys.executable, "-m", "store_lib.cli"]
MIB = 1024 * 1024


def until(condition: Callable[[], object]) -> None:
    """Wait up to a minute for an effect of another process."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_the_module_runs(datadir):
    """python -m store_lib.cli runs the command, with the right exit status."""
    add = [*COMMAND, "add", "-", "-f", "value", "-c", "uri"]
    uri = subprocess.run(add, input=b"data", capture_output=True, check=True).stdout.strip()
    got = subprocess.run([*COMMAND, "get", uri], capture_output=True, check=True)
    assert (got.stdout, got.stderr) == (b"data", b"")
    absent = subprocess.run([*COMMAND, "get", uri + b"x"], capture_output=True, check=False)
    assert absent.returncode == 3
    assert absent.stdout == b""
    assert re.fullmatch(rb"store-lib: error: [^\n]+\n", absent.stderr)


def test_debug_shows_the_traceback(run, added):
    """--debug prints the traceback before the line, with the same status."""
    outcome = run("--debug", "get", added() + "x")
    assert outcome.status == 3
    lines = outcome.err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("store-lib: error: ")


def test_no_secret_is_printed(run):
    """An error does not contain a URI's credentials, with or without the traceback."""
    for options in ((), ("--debug",), ("-v", "-v")):
        outcome = run(*options, "get", "swift+https://user:s3cr3t@host/container/object")
        assert outcome.status == 5
        assert "s3cr3t" not in outcome.err


def test_any_error_is_one_line_without_secrets(run, monkeypatch):
    """Any unexpected error is printed as one line without secrets."""

    def fail(*_: object) -> None:
        error = RuntimeError("two\nlines: https://user:s3cr3t@host/")
        error.add_note("and a note")
        raise error

    monkeypatch.setattr(Stores, "stat", fail)
    outcome = run("stat", "file:///x")
    assert outcome.status == 1
    assert outcome.err == "store-lib: error: two lines: https://***@host/ (and a note)\n"


def test_no_command_shows_the_help(run):
    """Without a command, the help is printed; there is no interactive mode."""
    outcome = run()
    assert outcome.status == 0
    for command in ("add", "get", "stat", "delete", "list", "stores", "incomplete", "sweep"):
        assert f"\n  {command} " in outcome.text


def test_help_and_completion(run):
    """help prints the options of a command, and complete a completion for bash."""
    assert "--expect" in run("help", "get").text
    assert "--expect" in run("get", "--help").text
    assert "\n  sweep " in run("--help").text
    assert "cmds_sweep=" in run("complete").text
    assert run("--version").text.startswith("store-lib ")


def test_log_file(run, tmp_path, monkeypatch):
    """The log is written to --log-file too, without secrets."""

    def warn(*_: object) -> None:
        logging.getLogger("somebody").warning("slow: https://user:s3cr3t@host/")
        raise NotFound(image="x")

    monkeypatch.setattr(Stores, "stat", warn)
    log = tmp_path / "log"
    outcome = run("--log-file", log, "stat", "file:///x")
    assert outcome.err.startswith("store-lib: warning: slow: https://***@host/\n")
    assert "somebody slow: https://***@host/" in log.read_text()


def test_without_the_extra():
    """If cliff or tqdm is not installed, one line says which extra to install."""
    for package in ("cliff", "tqdm"):
        code = (
            f"import sys; sys.modules[{package!r}] = None\n"
            "from store_lib.cli.app import main; sys.exit(main(['stores']))"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert ended.returncode == 1
        assert package.encode() in ended.stderr
        assert b"store_lib[cli]" in ended.stderr
        assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_undoes_an_add(datadir, number, status):
    """Ctrl-C, SIGTERM and SIGHUP interrupt an add and leave nothing in the store."""
    with subprocess.Popen(
        [*COMMAND, "add", "-", "--id", "x"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write(bytes(4 * MIB))
        child.stdin.flush()
        until(lambda: datadir.is_dir() and list(datadir.iterdir()))
        child.send_signal(number)
        assert child.stderr.read() == b"store-lib: interrupted\n"
        assert child.wait(60) == status
    assert list(datadir.iterdir()) == []


def test_an_ignored_signal_stays_ignored(datadir):
    """Under nohup, SIGHUP does not end the command."""
    with subprocess.Popen(
        ["nohup", *COMMAND, "add", "-", "--id", "x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdin is not None
        child.stdin.write(bytes(4 * MIB))
        child.stdin.flush()
        until(lambda: datadir.is_dir() and list(datadir.iterdir()))
        child.send_signal(signal.SIGHUP)
        child.stdin.close()
        assert child.wait(60) == 0
    assert (datadir / "x").stat().st_size == 4 * MIB


@pytest.fixture
def stalling_server() -> Iterator[str]:
    """The URL of a web object whose second half is not sent before the end of the test."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(4 * MIB))
            self.end_headers()
            self.wfile.write(bytes(2 * MIB))
            ended.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/object"
    ended.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_signal_removes_half_a_file(tmp_path, stalling_server):
    """Ctrl-C during a get leaves no file, not even a hidden one."""
    conf = tmp_path / "web.conf"
    conf.write_text("[DEFAULT]\nenabled_backends = web:http\n")
    target = tmp_path / "out" / "copy"
    target.parent.mkdir()
    with subprocess.Popen(
        [*COMMAND, "--config-file", conf, "get", stalling_server, "-o", target]
    ) as child:
        until(lambda: any(path.stat().st_size for path in target.parent.iterdir()))
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    assert list(target.parent.iterdir()) == []


def test_a_reader_that_goes_away(added):
    """A broken pipe ends the command quietly, with the status that a shell expects."""
    uri = added(bytes(4 * MIB))
    with subprocess.Popen(
        [*COMMAND, "get", uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read(1) == b"\0"
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(60) == 141


def test_a_reader_that_is_gone_already(monkeypatch):
    """A pipe that is closed from the start ends the command quietly too."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as output:
        ended = subprocess.run(
            [*COMMAND, "stores"], stdout=output, stderr=subprocess.PIPE, check=False
        )
    assert (ended.returncode, ended.stderr) == (141, b"")


def on_a_terminal(*argv: str, stdout: bool = False) -> tuple[int, str]:
    """Run the command with a terminal as standard error; return its status and output there."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        with subprocess.Popen(
            [*COMMAND, *argv], stdout=theirs if stdout else subprocess.DEVNULL, stderr=theirs
        ) as child:
            os.close(theirs)
            drawn = b""
            try:
                while data := screen.read(65536):
                    drawn += data
            except OSError:  # the other end of the terminal was closed
                pass
        return child.returncode, drawn.decode()


def test_progress_on_a_terminal(tmp_path):
    """A progress bar is drawn on a terminal, but not with -q or --no-progress."""
    source = tmp_path / "disk"
    source.write_bytes(bytes(3 * MIB))
    status, drawn = on_a_terminal("add", str(source), "--id", "x")
    assert status == 0
    assert "add: 100%" in drawn
    assert "3.00M/3.00M" in drawn
    for option in ("-q", "--no-progress"):
        assert on_a_terminal(option, "add", str(source)) == (0, "")


def test_progress_of_a_get(added, tmp_path):
    """The progress bar of a get counts the bytes that were read."""
    status, drawn = on_a_terminal("get", added(bytes(3 * MIB)), "-o", str(tmp_path / "copy"))
    assert status == 0
    assert "get: 100%" in drawn


def test_no_bytes_to_a_terminal(added):
    """get refuses to write an object's bytes to a terminal."""
    status, drawn = on_a_terminal("get", added(b"\x1b[2J"), stdout=True)
    assert status == 1
    assert drawn.startswith("store-lib: error: ")
    assert "\x1b[2J" not in drawn


@pytest.mark.parametrize("command", ["get", "stat"])
def test_a_full_output(added, monkeypatch, command):
    """A full output device ends with one line and status 1."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*COMMAND, command, added(b"data")], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ended.returncode == 1
    assert re.fullmatch(rb"store-lib: error: [^\n]*No space left on device\n", ended.stderr)


def test_documented_examples(run, tmp_path):
    """The examples at the top of the command line page work."""
    source = Path(tmp_path / "disk.iso")
    source.write_bytes(os.urandom(64 * 1024))
    added = run("add", source, "--digest", "sha256", "-f", "value", "-c", "uri")
    part = run("get", added.text.strip(), "--offset", 32768, "--length", 2048)
    assert part.out == source.read_bytes()[32768 : 32768 + 2048]
    assert run("stores", "-f", "json").json
