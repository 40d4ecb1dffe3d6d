"""The servers that tests share, one of each for a test session."""

import contextlib
import os
from collections.abc import Iterator
from typing import TypeVar

import pytest

from tests.servers.ceph import Ceph, ceph_directory
from tests.servers.ceph import ceph as run_ceph
from tests.servers.cinder import Cinder
from tests.servers.cinder import cinder as run_cinder
from tests.servers.installed import NotInstalled
from tests.servers.keystone import Keystone
from tests.servers.keystone import keystone as run_keystone
from tests.servers.leftovers import watch_this_run
from tests.servers.swift import Swift
from tests.servers.swift import swift as run_swift

Server = TypeVar("Server")


def pytest_configure() -> None:
    """Let nothing of this run outlive it, though it be killed."""
    watch_this_run()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker begin with its share of the conformance runs, which take longest.

    Each of them is given a run of neighbours at first, so that tests of one server stay together.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [each for each in items if each.path.name == "test_conformance.py"]
    rest = [each for each in items if each.path.name != "test_conformance.py"]
    share = -(-len(rest) // workers)
    items.clear()
    for number in range(workers):
        items += long[number::workers] + rest[number * share : (number + 1) * share]


@contextlib.contextmanager
def served(server: contextlib.AbstractContextManager[Server]) -> Iterator[Server]:
    """Enter a server's context; what it needs and cannot get skips the tests, saying so."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(server)
        except NotInstalled as error:
            pytest.skip(str(error))
        yield running


@pytest.fixture(scope="session")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    """Keystone; other servers enter themselves into its catalog."""
    with served(run_keystone(tmp_path_factory.mktemp("keystone"))) as running:
        yield running


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory, keystone: Keystone) -> Iterator[Swift]:
    """Swift with every login that it has."""
    with served(run_swift(tmp_path_factory.mktemp("swift"), keystone)) as running:
        yield running


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A Ceph cluster with pools, users and an S3 gateway."""
    place = tmp_path_factory.getbasetemp()
    with ceph_directory(place) as directory, served(run_ceph(directory)) as running:
        yield running


@pytest.fixture(scope="session")
def cinder(
    tmp_path_factory: pytest.TempPathFactory, keystone: Keystone, request: pytest.FixtureRequest
) -> Iterator[Cinder]:
    """Cinder with volumes of several kinds; those in Ceph are missing where there is none."""
    try:
        ceph = request.getfixturevalue("ceph")
    except pytest.skip.Exception:
        ceph = None
    with served(run_cinder(tmp_path_factory.mktemp("cinder") / "data", keystone, ceph)) as running:
        yield running
