"""The vmware store on the vSphere simulator, against glance_store's and against curl, over TLS."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.case import Case, Contestant, Settings, Target, register

BOTH = ("md5", "sha512")

_DATASTORE = "/DC0:ds-b"


@contextlib.contextmanager
def vcenter() -> Iterator[Mapping[str, Any]]:
    """Run the simulator and yield the options of a store on it.

    It listens on port 443 of a separate loopback address, since the peer cannot use another port;
    this needs root.
    """
    from tests.servers.vsphere import vsphere

    address = f"127.77.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}"
    with (
        tempfile.TemporaryDirectory(prefix="store_lib-vsphere-") as place,
        vsphere(Path(place), address=address) as running,
    ):
        options = running.options(_DATASTORE)
        # Neither the data server nor the peer creates directories.
        (running.directories[_DATASTORE] / "openstack_glance").mkdir()
        peer = {
            **options,
            "vmware_datastores": [f"{each}:0" for each in options["vmware_datastores"]],
        }
        yield {"driver": "vmware", "options": options, "peer_options": peer}


def _case(settings: Settings, name: str, title: str, operation: str, curl: str) -> Case:
    fetched = operation == "get"
    prepare = "add" if fetched else None
    return Case(
        name=name,
        title=f"vmware: {title}",
        size=settings.size,
        contestants=(
            Contestant("ours", "ours", operation, prepare=prepare),
            Contestant(
                "peer",
                "peer",
                f"benchmarks.peer_vmware:{operation}",
                prepare="benchmarks.peer_vmware:add" if fetched else None,
                collector="ours",
            ),
            Contestant(
                "curl",
                "plain",
                f"benchmarks.plain_vmware:{curl}",
                prepare="benchmarks.plain_vmware:put" if fetched else None,
            ),
        ),
        targets=(Target(against="peer", at_least=1.0 if fetched else 1.5),),
        place="server",
        request={"digests": BOTH},
        fixture=vcenter,
    )


@register
def vmware_add(settings: Settings) -> Case:
    """The main job."""
    return _case(
        settings, "vmware-add", "add random bytes of known size, md5 + sha512", "add", "put"
    )


@register
def vmware_add_unknown(settings: Settings) -> Case:
    """Adding data of unknown length, as an import does."""
    return _case(
        settings,
        "vmware-add-unknown",
        "add random bytes of unknown size, md5 + sha512",
        "add_unknown",
        "put_chunked",
    )


@register
def vmware_get(settings: Settings) -> Case:
    """Reading an object as a WSGI server does, by iterating."""
    return _case(settings, "vmware-get", "get random bytes, by iterating", "get", "get")
