"""The two ways to run Glance on store_lib, each by itself, and the way back."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.glance.deployments import Deployments
from tests.servers.glance import Glance, files, glance, run
from tests.servers.glance_api import ImageApi
from tests.servers.glance_environment import Library
from tests.servers.installed import NotInstalled, python_environment
from tests.servers.process import eventually

DATA = os.urandom(3 * 1024 * 1024 + 7)

#: What `import glance_store` gives, and what pip knows of it.
_ASK = (
    "import importlib.metadata, json\n{first}import glance_store, glance_store.location\n"
    "print(json.dumps([glance_store.add_with_multihash.__module__.split('.')[0],"
    " importlib.metadata.version('glance_store')]))"
)


def python_of(deployments: Deployments, library: Library) -> Path:
    """Return an interpreter with a library, or skip."""
    try:
        return deployments.python(library)
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("library", "first", "expected"),
    [
        ("script", "", ["glance_store", "5.7.0"]),
        (
            "script",
            "import store_lib; store_lib.install_as_glance_store()\n",
            ["store_lib", "5.7.0"],
        ),
        ("distribution", "", ["store_lib", "5.7.0+storelib"]),
    ],
    ids=["beside", "script", "distribution"],
)
def test_who_answers(
    deployments: Deployments, library: Library, first: str, expected: list[str]
) -> None:
    """Beside store_lib glance_store stays what it is until the script or the distribution come."""
    python = python_of(deployments, library)
    done = subprocess.run(
        [python, "-c", _ASK.format(first=first)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("library", ["script", "distribution"])
def test_pip_check(deployments: Deployments, library: Library) -> None:
    """pip finds every requirement of Glance's met."""
    python = python_of(deployments, library)
    command: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "No broken requirements found.")


#: Prints the paths of what a distribution has in bin and in etc, in its environment.
_LIST = (
    "import importlib.metadata, os, sys\n"
    "for each in importlib.metadata.files('glance_store'):\n"
    "    place = os.path.relpath(each.locate(), sys.prefix)\n"
    "    if place.startswith(('bin/', 'etc/')):\n"
    "        print(place)"
)


def test_same_programs_and_files(deployments: Deployments) -> None:
    """Upgrading to the distribution takes away no program and no file of glance_store's."""
    try:
        original = python_environment("glance_store") / "bin" / "python"
    except NotInstalled as error:
        pytest.skip(str(error))
    listed = [
        subprocess.run([python, "-c", _LIST], capture_output=True, text=True, check=True).stdout
        for python in (original, python_of(deployments, "distribution"))
    ]
    assert sorted(listed[0].splitlines()) == sorted(listed[1].splitlines())
    assert "bin/glance-rootwrap" in listed[1].splitlines()


#: Asks rootwrap whether filters let a command through; prints what it would run.
_FILTERED = (
    "import sys; from oslo_rootwrap import wrapper\n"
    "filters = wrapper.load_filters(sys.argv[1:2])\n"
    "found = wrapper.match_filter(filters, sys.argv[3:], exec_dirs=sys.argv[2:3])\n"
    "print(*found.get_command(sys.argv[3:], exec_dirs=sys.argv[2:3]))"
)


@pytest.mark.parametrize(
    ("command", "allowed"), [("privsep-helper", True), ("chown", False), ("mount", False)]
)
def test_rootwrap_lets_the_helper_through(
    deployments: Deployments, command: str, allowed: bool
) -> None:
    """With the files of the distribution rootwrap runs os-brick's helper, and nothing else."""
    python = python_of(deployments, "distribution")
    try:
        rootwrap = python_environment("openstack") / "bin"
    except NotInstalled as error:
        pytest.skip(str(error))
    filters = python.parents[1] / "etc" / "glance" / "rootwrap.d"
    words = [command, "--config-file", "/etc/glance/glance-api.conf"]
    asked = [rootwrap / "python", "-c", _FILTERED, filters, rootwrap, *words]
    done = subprocess.run(asked, capture_output=True, text=True)
    if allowed:
        assert done.stdout.split() == [str(rootwrap / command), *words[1:]], done.stderr
    else:
        assert "NoFilterMatched" in done.stderr


def test_there_and_back(deployments: Deployments, tmp_path: Path) -> None:
    """Images added by either library are read and deleted by the other, on one database."""
    images: list[str] = []
    order: list[Library] = ["glance_store", "script", "distribution", "glance_store"]
    for library in order:
        python = python_of(deployments, library)
        with glance(tmp_path, library=library, python=python, processes=1) as running:
            with ImageApi(running.url) as api:
                for image in images:
                    assert api.read(image) == (200, DATA)
                    assert api.read(image, "bytes=-9") == (206, DATA[-9:])
                if len(images) == len(order) - 1:
                    for image in images:
                        api.delete(image)
                else:
                    images.append(api.create())
                    api.upload(images[-1], DATA, len(DATA))
                    assert api.show(images[-1])["checksum"] == hashlib.md5(DATA).hexdigest()
            assert_ends_by_itself(running)
    assert files(tmp_path / "data") == []


def assert_ends_by_itself(running: Glance) -> None:
    """Glance ends when it is told to, without a complaint."""
    running.server.stop()
    assert running.server.process.returncode == 0
    assert "Traceback" not in running.server.log.read_text()


def test_scrubber(deployments: Deployments, tmp_path: Path) -> None:
    """With the distribution Glance's other programs run on store_lib, too."""
    python = python_of(deployments, "distribution")
    options = "[DEFAULT]\ndelayed_delete = True\nscrub_time = 0\n"
    with (
        glance(tmp_path, python=python, processes=1, options=options) as running,
        ImageApi(running.url) as api,
    ):
        image = api.create()
        api.upload(image, DATA, len(DATA))
        api.delete(image)
        assert files(running.data) == [image]
        run(python, "glance.cmd.scrubber", "--config-dir", tmp_path / "etc")
        assert files(running.data) == []


def test_killed_while_staging(deployments: Deployments, tmp_path: Path) -> None:
    """What a worker that was killed has staged is seen, and goes with its image."""
    python = python_of(deployments, "distribution")
    command: list[str | Path] = [sys.executable, "-m", "store_lib.cli"]
    command += ["--config-dir", tmp_path / "etc", "incomplete", "-f", "json"]
    with glance(tmp_path, python=python, processes=1) as running, ImageApi(running.url) as api:
        image = api.create()
        with api.cut(image, DATA, size=4 * len(DATA), target="stage"):
            eventually(lambda: files(running.data, "staging"), "staged file")
            master = running.server.pid
            (worker,) = Path(f"/proc/{master}/task/{master}/children").read_text().split()
            os.kill(int(worker), signal.SIGKILL)
        seen = subprocess.run(command, capture_output=True, text=True, check=True)
        assert [(row["store"], row["id"]) for row in json.loads(seen.stdout)] == [
            ("os_glance_staging_store", image)
        ]
        api.delete(image)
        assert files(running.data) == []
