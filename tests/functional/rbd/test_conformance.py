"""The conformance suite against a real Ceph cluster, kill -9 and races included."""

from pathlib import Path

import pytest

from tests.functional.conformance import passed, run_kit, write_config, write_inventory
from tests.functional.rbd.behind import Behind
from tests.servers.ceph import IMAGES, Ceph

#: Just above what tells a bound of memory from none.
_BIG = "--store-big-size=160"
#: A connection to Ceph, made once, keeps threads and sockets of its own.
_KEPT = ("--store-allow-threads=40", "--store-allow-fds=20")


#: Names of images and of their RADOS objects, asked of the cluster itself; the pool keeps
#: a few others for good, such as ``rbd_children`` from the first copy on.
_LOOK = (
    "import rados, rbd",
    "cluster = rados.Rados(conffile={conf!r}, name='client.admin')",
    "cluster.connect()",
    "pool = cluster.open_ioctx({pool!r})",
)
_NAMES = (
    "[*rbd.RBD().list(pool), *(each.key for each in pool.list_objects() if each.key.startswith("
    "('rbd_data.', 'rbd_header.', 'rbd_id.', 'rbd_object_map.')))]"
)


def _run(directory: Path, ceph: Ceph, *arguments: str, profile: str, **options: str) -> int:
    options = {"rbd_store_ceph_conf": str(ceph.conf), "rbd_store_user": "glance", **options}
    lines = [f"{name} = {value}" for name, value in options.items()]
    config = write_config(directory, "rbd", *lines)
    setup = [line.format(conf=str(ceph.conf), pool=IMAGES) for line in _LOOK]
    look = write_inventory(directory, _NAMES, *setup)
    return passed(
        run_kit(
            directory,
            *("--store-config", config, "--store", "it", "--store-inventory", look),
            *(_BIG, *_KEPT, *arguments),
            profile=profile,
        )
    )


@pytest.mark.deep("kits", always=True)
def test_the_whole_suite(tmp_path: Path, ceph: Ceph, behind: Behind) -> None:
    """Every check passes, and leaves an empty pool."""
    assert _run(tmp_path, ceph, "--store-no-skip", profile="long") > 50


@pytest.mark.parametrize("profile", ["short", pytest.param("long", marks=pytest.mark.deep("kits"))])
def test_thin_provisioning_and_small_objects(
    profile: str, tmp_path: Path, ceph: Ceph, behind: Behind
) -> None:
    """What depends on chunks and zeros passes with other sizes and with holes too."""
    chosen = "size or zeros or ranges or digests or cop or source"
    options = {"rbd_thin_provisioning": "true", "rbd_store_chunk_size": "1"}
    assert _run(tmp_path, ceph, "-k", chosen, profile=profile, **options) > 10
