"""What the tests of the rbd driver start from: stores on a cluster, and the pool behind them."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib import Store, Stores
from tests.functional.rbd.behind import Behind, MakeStore, write_store
from tests.servers.ceph import IMAGES, Ceph


@pytest.fixture
def make_store(ceph: Ceph, tmp_path: Path) -> Iterator[MakeStore]:
    """Return a function that makes a store; each is closed at the end."""
    with contextlib.ExitStack() as stack:

        def function(**options: Any) -> Store:
            options = {
                "rbd_store_user": "glance",
                "rbd_store_ceph_conf": ceph.conf,
                "transfer_attempts": 2,
                **options,
            }
            return stack.enter_context(Stores.from_files(write_store(tmp_path, options)))["it"]

        yield function


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """A store with the defaults of all options."""
    return make_store()


@pytest.fixture
def config(ceph: Ceph, tmp_path: Path) -> Path:
    """The configuration of the store, for another process."""
    return write_store(tmp_path, {"rbd_store_user": "glance", "rbd_store_ceph_conf": ceph.conf})


@pytest.fixture
def behind(ceph: Ceph) -> Iterator[Behind]:
    """The pool from behind; whatever a test left in it fails the test, and is removed."""
    with ceph.admin.open_ioctx(IMAGES) as ioctx:
        pool = Behind(ioctx)
        yield pool
        left = pool.names()
        for name in left:
            pool.remove(name)
        assert (left, pool.objects()) == ([], [])


@pytest.fixture
def object_id() -> str:
    """An id that nobody has used."""
    return str(uuid.uuid4())
