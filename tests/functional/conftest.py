"""The servers that tests share, one of each for a test session."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
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

_HERE = Path(__file__).parent


def pytest_configure() -> None:
    """Let nothing of this run outlive it, though it be killed."""
    watch_this_run()


#: Roughly how long the tests of a backend take, in seconds; to spread them over workers.
_SECONDS = {"cinder": 850, "swift": 420, "s3": 400, "glance": 380, "rbd": 330, "vmware": 190}
_OTHERS = 180
#: Whose tests take minutes.
_LONG = {"test_conformance.py", "test_glance_own_tests.py"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each worker the tests of some backends, the longest first.

    A server is started by the worker that has its tests, and not by all of them.  A worker that has
    done its share takes tests from the end of another's.
    """
    here = [each for each in items if _HERE in each.path.parents]
    others = [each for each in items if _HERE not in each.path.parents]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = [*others, *itertools.chain.from_iterable(_shares(here, workers))]


def _shares(items: list[pytest.Item], workers: int) -> list[list[pytest.Item]]:
    """Return each worker's share: as many tests for each, as pytest-xdist deals them out."""
    backends: dict[str, list[pytest.Item]] = {}
    for each in items:
        backend = each.path.relative_to(_HERE).parts[0]
        backends.setdefault(backend if backend in _SECONDS else "others", []).append(each)
    shares: list[list[pytest.Item]] = [[] for _ in range(workers)]
    seconds = [0] * workers
    for name in sorted(backends, key=lambda name: -_SECONDS.get(name, _OTHERS)):
        least = seconds.index(min(seconds))
        seconds[least] += _SECONDS.get(name, _OTHERS)
        shares[least] += backends[name]
    for share in shares:
        share.sort(key=lambda each: each.path.name not in _LONG)
    sizes: list[int] = []
    for number in range(workers):
        sizes.append((len(items) - sum(sizes)) // (workers - number))
    spare: list[pytest.Item] = []
    for share, size in zip(shares, sizes, strict=True):
        spare += share[size:]
        del share[size:]
    for share, size in zip(shares, sizes, strict=True):
        while len(share) < size:
            share.append(spare.pop())
    return shares


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
