"""What glance_store 5.7.0 stored is read, sized and deleted; and it reads what store_lib stored.

Both are real, on the same real server, each in a process of its own.
"""

import dataclasses
import hashlib
import json
import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.exceptions import NotFound
from tests.functional.glance.deployments import Deployments
from tests.functional.glance.test_other_stores import cinder_options, rbd_options, s3_options
from tests.functional.swift.accounts import v3
from tests.servers.installed import NotInstalled

#: os-brick imports eventlet, which warns of every fork from then on.
pytestmark = pytest.mark.filterwarnings(r"ignore:Using fork\(\)")

PEER = Path(__file__).with_name("peer.py")

#: More than a part of the least size, and no multiple of one for those that store parts.
SIZE = 6 * 1024 * 1024 + 4321


@dataclasses.dataclass
class Both:
    """One configuration, read by store_lib here and by glance_store there."""

    python: Path
    configuration: Path
    store: Store
    data: Path

    def peer(self, action: str, *arguments: str | Path | int) -> Any:
        """Have glance_store do something, and return what it gave."""
        command = [self.python, PEER, self.configuration, action, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


def file_store(request, directory):
    return {"driver": "file", "filesystem_store_datadir": directory / "images"}


def rbd_store(request, directory):
    return rbd_options(request.getfixturevalue("ceph"))


def s3_store(request, directory):
    return s3_options(request.getfixturevalue("ceph"))


def swift_store(request, directory):
    keystone = request.getfixturevalue("keystone")
    request.getfixturevalue("swift")
    options = v3(keystone, f"glance-{uuid.uuid4()}", directory)
    # glance_store waits for bytes that never come unless the size is a multiple of a segment.
    return {"driver": "swift", **options, "swift_store_large_object_size": 100}


def vmware_store(request, directory):
    return {"driver": "vmware", **request.getfixturevalue("vcenter").options("/DC0:ds-a")}


def cinder_store(request, directory):
    (directory / "locks").mkdir()
    options = cinder_options(request.getfixturevalue("cinder"))
    return {**options, "cinder_mount_point_base": directory}


STORES: dict[str, Callable[..., dict[str, Any]]] = {
    "file": file_store,
    "rbd": rbd_store,
    "s3": s3_store,
    "swift": swift_store,
    "vmware": vmware_store,
    "cinder": cinder_store,
}

#: Each in the old form of configuration and in the new one, where glance_store has no way to add
#: to a vmware store.
FORMS = [
    (name, form)
    for name in STORES
    for form in ("single", "several")
    if (name, form) != ("vmware", "several")
]

#: The scheme of a driver whose name is not one.
SCHEMES = {"vmware": "vsphere"}


@pytest.fixture(params=FORMS, ids="-".join)
def both(request, tmp_path, deployments: Deployments):
    """A store of each kind, in the old form of configuration and in the new one."""
    name, form = request.param
    try:
        python = deployments.python("glance_store")
    except NotInstalled as error:
        pytest.skip(str(error))
    options = STORES[name](request, tmp_path)
    driver = options.pop("driver")
    scheme = SCHEMES.get(driver, driver)
    lines = [
        f"{key} = {each}"
        for key, value in options.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    if form == "single":
        head = ["[glance_store]", f"stores = {driver}", f"default_store = {scheme}"]
    else:
        head = ["[DEFAULT]", f"enabled_backends = store:{driver}"]
        head += ["[glance_store]", "default_backend = store", "[store]"]
    configuration = tmp_path / "stores.conf"
    locks = ["[oslo_concurrency]", f"lock_path = {tmp_path}/locks"]
    configuration.write_text("\n".join([*head, *lines, *locks, ""]))
    data = tmp_path / "data"
    data.write_bytes(os.urandom(SIZE))
    with Stores.from_files(configuration, strict=True) as stores:
        (store,) = stores
        if name == "vmware":  # glance_store does not make the directory
            store.delete(store.add("first", b"").uri)
        yield Both(python, configuration, store, data)


def test_what_glance_store_stored(both: Both) -> None:
    """Its object is sized, read whole and in a range, and deleted, by its URI."""
    name, data = str(uuid.uuid4()), both.data.read_bytes()
    uri = both.peer("add", name, both.data, SIZE)
    assert both.store.stat(uri).size == SIZE
    with both.store.get(uri) as reader:
        assert reader.read() == data
    with both.store.get(uri, 1_000_000, 77) as reader:
        assert reader.read() == data[1_000_000:1_000_077]
    both.store.delete(uri)
    with pytest.raises(NotFound):
        both.store.stat(uri)


def test_what_store_lib_stored(both: Both) -> None:
    """Its object is sized, read and deleted by glance_store, by the URI that store_lib gave."""
    name, data = str(uuid.uuid4()), both.data.read_bytes()
    uri = both.store.add(name, data, SIZE).uri
    assert both.peer("size", uri) == SIZE
    assert both.peer("get", uri) == hashlib.sha256(data).hexdigest()
    both.peer("delete", uri)
    with pytest.raises(NotFound):
        both.store.stat(uri)
