"""The Cinder store on a real Cinder and Keystone, against glance_store's."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.case import MIB, Case, Contestant, Fixture, Settings, Target, register

BOTH = ("md5", "sha512")

#: Kinds of volumes, by their part of a case's name.
KINDS = {"loop": "fast", "file": "file", "rbd": "rbd"}


@contextlib.contextmanager
def cloud(volume_type: str) -> Iterator[Mapping[str, Any]]:
    """Run Keystone and Cinder, and Ceph if needed for volumes; yield the options of a store."""
    from tests.servers.ceph import bindings, ceph
    from tests.servers.cinder import NFS_PATH, cinder
    from tests.servers.keystone import keystone, password

    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="store_lib-cinder-")))
        cluster, python_path = None, []
        if volume_type == "rbd":
            python_path = [str(bindings())]
            cluster = stack.enter_context(ceph(place / "ceph", gateway=False))
        login = stack.enter_context(keystone(place / "keystone"))
        stack.enter_context(cinder(place / "cinder", login, cluster))
        (place / "locks").mkdir()
        stack.enter_context(
            _environment(
                OSLO_LOCK_PATH=str(place / "locks"), PATH=f"{NFS_PATH}:{os.environ['PATH']}"
            )
        )
        user = login.login("glance")
        yield {
            "driver": "cinder",
            "python_path": python_path,
            "options": {
                "cinder_volume_type": volume_type,
                "cinder_store_auth_address": login.url,
                "cinder_store_user_name": "glance",
                "cinder_store_password": password("glance"),
                "cinder_store_project_name": "service",
                "cinder_mount_point_base": str(place / "mounts"),
            },
            # The peer refuses to add without a context, although it has its own login.
            "context": {
                "auth_token": user.token,
                "project_id": user.project_id,
                "user_id": user.user_id,
            },
        }


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables for the measured processes."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _fixture(kind: str) -> Fixture:
    return functools.partial(cloud, KINDS[kind])


def _contestants(operation: str, prepare: str | None = None) -> tuple[Contestant, ...]:
    peer = "benchmarks.peer_cinder:"
    return (
        Contestant("ours", "ours", operation, prepare=prepare),
        Contestant(
            "peer",
            "peer",
            peer + operation,
            prepare=peer + prepare if prepare else None,
            collector="ours",
        ),
    )


def _add(kind: str, settings: Settings) -> Case:
    return Case(
        name=f"cinder-{kind}-add",
        title=f"cinder: add random bytes to a volume ({kind}), md5 + sha512",
        size=min(settings.size, 512 * MIB),
        contestants=_contestants("add"),
        targets=(Target(against="peer", at_least=1.5),),
        place="server",
        request={"digests": BOTH},
        fixture=_fixture(kind),
    )


def _get(kind: str, settings: Settings) -> Case:
    return Case(
        name=f"cinder-{kind}-get",
        title=f"cinder: get random bytes from a volume ({kind})",
        size=min(settings.size, 512 * MIB),
        contestants=_contestants("get", prepare="add"),
        targets=(Target(against="peer", at_least=1.0),),
        place="server",
        request={"digests": BOTH},
        fixture=_fixture(kind),
    )


@register
def cinder_loop_add(settings: Settings) -> Case:
    """Adding to a block device."""
    return _add("loop", settings)


@register
def cinder_loop_get(settings: Settings) -> Case:
    """Reading from a block device."""
    return _get("loop", settings)


@register
def cinder_file_add(settings: Settings) -> Case:
    """Adding to a plain file."""
    return _add("file", settings)


@register
def cinder_file_get(settings: Settings) -> Case:
    """Reading from a plain file."""
    return _get("file", settings)


@register
def cinder_rbd_add(settings: Settings) -> Case:
    """Adding to an image in Ceph."""
    return _add("rbd", settings)


@register
def cinder_rbd_get(settings: Settings) -> Case:
    """Reading from an image in Ceph."""
    return _get("rbd", settings)


@register
def cinder_add_unknown(settings: Settings) -> Case:
    """A volume that must grow: four extensions with the peer, two with us."""
    return Case(
        name="cinder-add-unknown",
        title="cinder: add random bytes of unknown size to a volume (loop), md5 + sha512",
        size=3 * min(settings.size, 1024 * MIB) + 5,
        contestants=_contestants("add_unknown"),
        targets=(Target(against="peer", at_least=2.0),),
        place="server",
        max_rounds=3,
        request={"digests": BOTH},
        fixture=_fixture("loop"),
    )


@register
def cinder_add_small(settings: Settings) -> Case:
    """A small image: most of the time goes into creating and attaching the volume."""
    return Case(
        name="cinder-add-small",
        title="cinder: add 1 MiB to a volume (loop), md5 + sha512",
        size=MIB,
        contestants=_contestants("add"),
        targets=(Target(against="peer", at_least=1.5),),
        place="server",
        request={"digests": BOTH},
        fixture=_fixture("loop"),
    )
