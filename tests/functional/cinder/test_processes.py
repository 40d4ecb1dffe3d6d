"""Forks, killed processes, and processes that are not root."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from store_lib import Stores
from store_lib.testing.pace import slowness
from tests.functional.cinder.conftest import Deployment

Open = Callable[..., Stores]

_START = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
from store_lib import Stores
config, uri, *users = json.loads(sys.argv[1])
"""

#: Adds an object and stands still half way.
_ADD = f"""{_START}
def pieces():
    for _ in range(4):
        yield b"x" * 1024 * 1024
    print("half way", flush=True)
    time.sleep(600)
Stores.from_files(config).add("killed", pieces(), 8 * 1024 * 1024)
"""

#: Reads, forks while reading, and reads in the child and the parent; both end in time.
_FORK = f"""{_START}
with Stores.from_files(config) as stores:
    reader = stores.get(uri)
    first = reader.read(1)
    child = os.fork()
    if not child:
        status = 1
        try:
            own = stores.get(uri)
            assert own.read() == b"bytes", "other bytes"
            reader.close()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), (first + reader.read()).decode(), flush=True)
"""

#: Reads and adds as a user who is not root.  What is to be imported is imported before: that user
#: may not be able to get at this interpreter's modules.  Then its real, effective and saved ids
#: are set.
_UNPRIVILEGED = f"""{_START}
with Stores.from_files(config) as stores:
    stores.stat(uri)
os.setgroups([])
os.setresuid(*users)
told = []
with Stores.from_files(config) as stores:
    for call in (lambda: stores.get(uri).read(), lambda: stores.add("own", b"bytes")):
        try:
            told.append(["no error", repr(call())])
        except Exception as error:
            told.append([type(error).__name__, str(error)])
print(json.dumps(told))
"""


_NOBODY = 65534


def _run(script: str, config: str, uri: str, *users: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script, json.dumps([config, uri, *users])],
        capture_output=True,
        text=True,
        timeout=120 * slowness(),
    )


def _open_to_all(*directories: pathlib.Path) -> None:
    """Let users who are not root work in directories, and get there."""
    for directory in directories:
        directory.chmod(0o777)
        for each in directory.parents:
            if "pytest" in str(each):
                each.chmod(0o755)


@pytest.mark.parametrize("kind", ["fast", "nfs"])
def test_a_sweep_removes_what_a_killed_add_left(
    kind: str, deployment: Deployment, opened: Open
) -> None:
    """While it lives a sweep spares it; once it is dead volume, attachment and device go."""
    store = opened(it=deployment.lines(kind))["it"]
    adding = subprocess.Popen(
        [
            *(sys.executable, "-c", _ADD),
            json.dumps([str(deployment.directory / "stores.conf"), ""]),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert adding.stdout is not None
        assert adding.stdout.readline() == "half way\n"
        [alive] = store.list_incomplete()
        assert (alive.object_id, alive.live) == ("killed", True)
        assert store.sweep(0) == []
        assert store.driver.discard(alive, context=None) is False
    finally:
        adding.send_signal(signal.SIGKILL)
        adding.communicate()
    assert deployment.left()
    [dead] = store.list_incomplete()
    assert dead.live is False
    assert store.sweep(3600) == []
    assert [each.key for each in store.sweep(0)] == [dead.key]
    assert store.driver.discard(dead, context=None) is False


@pytest.mark.parametrize("helper", [False, True], ids=["in the process", "by a helper"])
def test_a_fork_while_reading_harms_neither(
    helper: bool, deployment: Deployment, opened: Open
) -> None:
    """The child attaches for itself and leaves its parent's attachment and helper alone."""
    made = opened(it=deployment.lines("multi")).add("it", b"bytes")
    path = deployment.config(it=deployment.lines("multi"))
    if helper:
        command = os.path.join(sys.prefix, "bin", "privsep-helper")
        with open(path, "a") as file:
            file.write(f"[privsep_osbrick]\nhelper_command = {command} --config-file {path}\n")
    result = _run(_FORK, path, made.uri)
    assert result.stdout == "0 bytes\n", result.stderr
    assert deployment.cinder.attachments() == []
    with Stores.from_files(path) as stores:
        stores.delete(made.uri)


def _with_helper(deployment: Deployment, command: str) -> str:
    """Write the configuration of a store whose os-brick starts its helper by a command."""
    path = deployment.config(it=deployment.lines("fast"))
    with open(path, "a") as file:
        file.write(f"[privsep_osbrick]\nhelper_command = {command}\n")
    _open_to_all(deployment.locks)
    return path


def test_without_root_and_without_a_helper_one_error_says_so(
    deployment: Deployment, opened: Open
) -> None:
    """The error of a get and of an add tells what is missing, and nothing is left."""
    made = opened(it=deployment.lines("fast")).add("it", b"bytes")
    path = _with_helper(deployment, "/nowhere/privsep-helper")
    result = _run(_UNPRIVILEGED, path, made.uri, _NOBODY, _NOBODY, _NOBODY)
    assert result.returncode == 0, result.stderr
    for name, text in json.loads(result.stdout):
        assert name == "BadStoreConfiguration", text
        assert "`/nowhere/privsep-helper`" in text
        assert "helper_command" in text
    with Stores.from_files(path) as stores:
        stores.delete(made.uri)


def test_without_root_a_helper_does_what_needs_it(deployment: Deployment, opened: Open) -> None:
    """A device that root alone may open is lent to the service's user."""
    made = opened(it=deployment.lines("fast")).add("it", b"bytes")
    # Stands for sudo: a shell takes the rights of its real user, which is root here.
    helper = deployment.directory / "helper"
    helper.write_text(f'exec {os.path.join(sys.prefix, "bin", "privsep-helper")} "$@"\n')
    path = _with_helper(deployment, f"/bin/sh {helper}")
    result = _run(_UNPRIVILEGED, path, made.uri, 0, _NOBODY, 0)
    assert result.returncode == 0, result.stderr
    [read, (name, text)] = json.loads(result.stdout)
    assert read == ["no error", "b'bytes'"]
    assert name == "no error", text
    with Stores.from_files(path) as stores:
        for each in list(stores["it"].list()):
            stores.delete(each.location.uri)
