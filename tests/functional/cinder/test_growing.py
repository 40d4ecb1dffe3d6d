"""Uploads of unknown length: the volume grows in steps that double, and nothing is lost by it."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from store_lib import Stores
from store_lib.exceptions import StorageFull
from tests.functional.cinder.conftest import Deployment

Open = Callable[..., Stores]

_GIB = 1024**3


def _writer(store: Any, size: int | None = None) -> Any:
    return store.driver.create("grown", size, nonce=secrets.token_hex(16), context=None)


@pytest.mark.parametrize("attached", [False, True], ids=["detached", "attached"])
@pytest.mark.parametrize("kind", ["fast", "file", "nfs", "rbd"])
def test_a_volume_grows_and_keeps_its_bytes(
    kind: str, attached: bool, deployment: Deployment, opened: Open
) -> None:
    """Bytes written before an extension are there after it, on volumes of every kind."""
    if kind not in deployment.cinder.types:
        pytest.skip("volumes in Ceph need Ceph: see the skipped tests of rbd")
    if kind == "nfs" and attached:
        pytest.skip("cannot run anywhere here: Cinder extends no NFS volume that is attached")
    store = opened(it=deployment.lines(kind, f"cinder_do_extend_attached = {attached}"))["it"]
    writer = _writer(store)
    assert writer.quiesce_to_grow is not attached
    assert writer.reserve(1) == _GIB
    writer.write_at(0, b"first")
    writer.write_at(_GIB - 4, b"last")
    assert writer.reserve(_GIB + 1) == 2 * _GIB
    writer.write_at(_GIB, b"over")
    assert writer.reserve(2 * _GIB + 5) == 4 * _GIB
    writer.write_at(2 * _GIB, b"there")
    uri = writer.commit(2 * _GIB + 5).uri
    assert store.stat(uri).size == 2 * _GIB + 5
    for offset, expected in (
        (0, b"first\0"),
        (_GIB - 4, b"lastover\0"),
        (2 * _GIB, b"there"),
    ):
        with store.get(uri, offset, len(expected)) as reader:
            assert reader.read() == expected
    store.delete(uri)


def test_an_add_of_unknown_length_goes_past_a_gibibyte(
    deployment: Deployment, opened: Open
) -> None:
    """The engine grows the volume as the bytes come."""
    piece = bytes(range(256)) * 65536
    count = _GIB // len(piece) + 1
    store = opened(it=deployment.lines("file"))["it"]
    made = store.add("long", iter([piece] * count), digests=())
    assert made.size == count * len(piece)
    with store.get(made.uri, made.size - len(piece) - 1) as reader:
        assert reader.read() == piece[-1:] + piece
    assert [each["size"] for each in deployment.cinder.volumes()] == [2]
    store.delete(made.uri)


def _set_quota(deployment: Deployment, gibibytes: int) -> None:
    """Limit what volumes of the service's project may have together."""
    project = deployment.keystone.login("glance").project_id
    body = {"quota_set": {"gigabytes": gibibytes}}
    deployment.cinder.call("PUT", f"/os-quota-sets/{project}", body)


def test_a_quota_is_used_up_to_its_last_gibibyte(deployment: Deployment, opened: Open) -> None:
    """Where twice the size is refused a smaller step is taken, down to what is needed."""
    store = opened(it=deployment.lines("file"))["it"]
    _set_quota(deployment, 5)
    try:
        writer = _writer(store, 4 * _GIB)
        assert writer.reserve(4 * _GIB + 1) == 5 * _GIB
        with pytest.raises(StorageFull, match=r"413.*Raise the project's quota"):
            writer.reserve(5 * _GIB + 1)
        writer.abort()
        writer = _writer(store, 6 * _GIB)
        with pytest.raises(StorageFull, match=r"413.*Raise the project's quota"):
            writer.reserve(1)
        writer.abort()
    finally:
        _set_quota(deployment, 1_000_000)


@pytest.mark.parametrize("attached", [False, True], ids=["detached", "attached"])
def test_a_refused_extension_ends_the_add(
    attached: bool, deployment: Deployment, opened: Open
) -> None:
    """A backend that cannot extend is told as StorageFull, and the volume is removed."""
    store = opened(it=deployment.lines("fast", f"cinder_do_extend_attached = {attached}"))["it"]
    writer = _writer(store)
    writer.reserve(1)
    with deployment.cinder.fault("loopfast", "refuse-extend"):
        with pytest.raises(StorageFull, match="error_extending"):
            writer.reserve(_GIB + 1)
        writer.abort()
