"""The conformance suite against a real Ceph cluster, kill -9 and races included."""

from pathlib import Path

from tests.functional.conformance import passed, run_kit, write_config
from tests.functional.rbd.behind import Behind
from tests.servers.ceph import Ceph

#: Just above what tells a bound of memory from none.
_BIG = "--store-big-size=160"
#: A connection to Ceph, made once, keeps threads and sockets of its own.
_KEPT = ("--store-allow-threads=40", "--store-allow-fds=20")


def _run(directory: Path, ceph: Ceph, *arguments: str, **options: str) -> int:
    options = {"rbd_store_ceph_conf": str(ceph.conf), "rbd_store_user": "glance", **options}
    lines = [f"{name} = {value}" for name, value in options.items()]
    config = write_config(directory, "rbd", *lines)
    return passed(
        run_kit(directory, "--store-config", config, "--store", "it", _BIG, *_KEPT, *arguments)
    )


def test_the_whole_suite(tmp_path: Path, ceph: Ceph, behind: Behind) -> None:
    """Every check passes, and leaves an empty pool."""
    assert _run(tmp_path, ceph, "--store-no-skip") > 50


def test_thin_provisioning_and_small_objects(tmp_path: Path, ceph: Ceph, behind: Behind) -> None:
    """What depends on chunks and zeros passes with other sizes and with holes too."""
    chosen = "size or zeros or ranges or digests or copy or source"
    options = {"rbd_thin_provisioning": "true", "rbd_store_chunk_size": "1"}
    assert _run(tmp_path, ceph, "-k", chosen, **options) > 10
