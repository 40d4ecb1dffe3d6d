"""Real Glance with its images in other stores: what goes in comes out, in ranges too."""

import contextlib
import dataclasses
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional.glance.deployments import Deployments
from tests.functional.swift.accounts import v1
from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.glance import glance
from tests.servers.glance_api import ImageApi, Refused
from tests.servers.installed import NotInstalled
from tests.servers.keystone import password
from tests.servers.process import eventually
from tests.servers.swift import Swift
from tests.servers.vsphere import VSphere
from tests.servers.web import nginx

MIB = 1024 * 1024
DATA = os.urandom(7 * MIB + 12345)


def rbd_options(ceph: Ceph) -> dict[str, Any]:
    """Return the options of a store in a Ceph pool."""
    return {"driver": "rbd", "rbd_store_user": "glance", "rbd_store_ceph_conf": ceph.conf}


def s3_options(ceph: Ceph) -> dict[str, Any]:
    """Return the options of a store in a bucket, with parts of the least size."""
    return {
        "driver": "s3",
        "s3_store_host": ceph.s3_endpoint,
        "s3_store_access_key": ceph.s3_access_key,
        "s3_store_secret_key": ceph.s3_secret_key,
        "s3_store_bucket": f"glance-{uuid.uuid4()}",
        "s3_store_create_bucket_on_put": True,
        "s3_store_bucket_url_format": "path",
        "s3_store_large_object_size": 6,
        "s3_store_large_object_chunk_size": 5,
    }


def swift_options(swift: Swift) -> dict[str, Any]:
    """Return the options of a store in Swift, with segments of 1 MiB."""
    return {"driver": "swift", **v1(swift, "glance")}


def cinder_options(cinder: Cinder) -> dict[str, Any]:
    """Return the options of a store on volumes of one type."""
    return {
        "driver": "cinder",
        "cinder_store_auth_address": cinder.keystone.url,
        "cinder_store_user_name": "glance",
        "cinder_store_password": password("glance"),
        "cinder_store_project_name": "service",
        "cinder_volume_type": "fast",
    }


#: By store: the fixture of its server, and its options.
STORES: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "ceph": ("ceph", rbd_options),
    "bucket": ("ceph", s3_options),
    "swift": ("swift", swift_options),
    "volumes": ("cinder", cinder_options),
}


@dataclasses.dataclass(frozen=True)
class Running:
    """Glance with all stores whose servers are there."""

    api: ImageApi
    #: Why a store is not.
    missing: dict[str, str]


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    deployments: Deployments,
    request: pytest.FixtureRequest,
) -> Iterator[Running]:
    """One Glance under uWSGI with every store."""
    directory = tmp_path_factory.mktemp("glance-other-stores")
    old = {"driver": "filesystem", "filesystem_store_datadir": directory / "old"}
    stores, missing = {"old": old}, {}
    for store, (server, options) in STORES.items():
        try:
            stores[store] = options(request.getfixturevalue(server))
        except pytest.skip.Exception as skipped:
            missing[store] = str(skipped)
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(
                glance(
                    directory,
                    python=deployments.python("distribution"),
                    stores=stores,
                )
            )
        except NotInstalled as error:
            pytest.skip(str(error))
        yield Running(stack.enter_context(ImageApi(started.url)), missing)


@pytest.fixture
def image(running: Running) -> Iterator[str]:
    """The id of an image without data, which is deleted in the end."""
    api = running.api
    made = api.create()
    yield made

    def deleted() -> bool:
        try:
            api.delete(made)
        except Refused as refused:
            # A volume is detached when its last byte has been sent, which the client may see first.
            if refused.status != 409 or "attached" not in refused.text:
                raise
            return False
        return True

    eventually(deleted, f"the end of {made}")


def assert_ranges(api: ImageApi, image: str) -> None:
    """The image comes whole, and every kind of Range request answers 206 with its bytes."""
    size = len(DATA)
    assert api.read(image) == (200, DATA)
    for asked, start, end in [
        ("bytes=0-0", 0, 1),
        ("bytes=1048570-5242990", 1048570, 5242991),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-70000", size - 70000, size),
    ]:
        with api.download(image, asked) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
            assert answer.read() == DATA[start:end]


either_way = pytest.mark.parametrize("size", [len(DATA), None], ids=["length", "chunked"])


def assert_stored(api: ImageApi, image: str, size: int | None, store: str) -> None:
    """An upload goes into the store that it names, comes out whole, and in ranges."""
    api.upload(image, DATA, size, store=store)
    shown = api.show(image)
    assert (shown["status"], shown["size"], shown["stores"]) == ("active", len(DATA), store)
    assert shown["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
    assert_ranges(api, image)


@pytest.mark.parametrize("store", STORES)
@either_way
def test_upload_and_ranges(running: Running, image: str, store: str, size: int | None) -> None:
    """An image goes into each kind of store, and is served in ranges from there."""
    if store in running.missing:
        pytest.skip(running.missing[store])
    assert_stored(running.api, image, size, store)


def test_copy_to_every_store(running: Running, image: str) -> None:
    """copy-image brings an image to all stores, and each serves it by itself."""
    stores = [store for store in STORES if store not in running.missing]
    if not stores:
        pytest.skip("; ".join(running.missing.values()))
    running.api.upload(image, DATA, len(DATA))
    running.api.start_import(image, "copy-image", stores=stores)
    shown = running.api.wait_imported(image)
    assert sorted(shown["stores"].split(",")) == sorted(["fast", *stores])
    left = ["fast", *stores]
    while len(left) > 1:
        running.api.json("DELETE", f"/v2/stores/{left.pop(0)}/{image}")
        assert running.api.read(image) == (200, DATA)


def test_details_of_every_store(running: Running, request: pytest.FixtureRequest) -> None:
    """The details of each kind of store are told as Glance knows them."""
    told = {
        each["id"]: each for each in running.api.json("GET", "/v2/info/stores/detail")["stores"]
    }
    properties: dict[str, dict[str, object]] = {
        "ceph": {"chunk_size": 8 * MIB, "pool": "images", "thin_provisioning": False},
        "bucket": {
            "s3_store_large_object_size": 6 * MIB,
            "s3_store_large_object_chunk_size": 5 * MIB,
            "s3_store_thread_pools": 10,
        },
        # Glance always told this in units of 1,024,000 bytes.
        "swift": {"container": "glance", "large_object_size": 1_024_000},
        "volumes": {"volume_type": "fast", "use_multipath": False},
    }
    if "ceph" not in running.missing:
        properties["ceph"]["fsid"] = request.getfixturevalue("ceph").fsid
    for store in STORES:
        if store not in running.missing:
            assert told[store]["properties"].items() >= properties[store].items()


def test_ranges_of_a_web_location(
    running: Running, image: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An image whose location is on a web server is served whole and in ranges."""
    directory = tmp_path_factory.mktemp("web")
    (directory / "image").write_bytes(DATA)
    site = f"server {{ listen 127.0.0.1:9292; root {directory}; }}"
    with contextlib.ExitStack() as stack:
        try:
            (url,) = stack.enter_context(nginx(directory / "nginx", [site]))
        except NotInstalled as error:
            pytest.skip(str(error))
        location = {"url": f"{url}/image", "metadata": {"store": "web"}}
        running.api.json(
            "PATCH",
            f"/v2/images/{image}",
            [{"op": "add", "path": "/locations/-", "value": location}],
            content_type="application/openstack-images-v2.1-json-patch",
        )
        assert running.api.show(image)["status"] == "active"
        assert_ranges(running.api, image)


def test_a_store_of_type_filesystem(running: Running, image: str) -> None:
    """What old configurations call filesystem is told as file, which Glance knows."""
    assert_stored(running.api, image, len(DATA), "old")
    stores = running.api.json("GET", "/v2/info/stores/detail")["stores"]
    assert [each["type"] for each in stores if each["id"] == "old"] == ["file"]


@pytest.fixture(scope="module")
def on_vsphere(
    tmp_path_factory: pytest.TempPathFactory, deployments: Deployments, vcenter: VSphere
) -> Iterator[ImageApi]:
    """Glance with a store in vSphere, by itself: with one Glance cannot tell details of any."""
    options = {"driver": "vmware", **vcenter.options(), "vmware_datastores": "DC0:ds-a"}
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(
                glance(
                    tmp_path_factory.mktemp("glance-vsphere"),
                    library="script",
                    python=deployments.python("script"),
                    stores={"vsphere": options},
                    processes=1,
                )
            )
        except NotInstalled as error:
            pytest.skip(str(error))
        yield stack.enter_context(ImageApi(started.url))


@either_way
def test_vsphere(on_vsphere: ImageApi, vcenter: VSphere, size: int | None) -> None:
    """An image goes into a datastore, is served in ranges from there, and is deleted."""
    with on_vsphere.image() as image:
        assert_stored(on_vsphere, image, size, "vsphere")
        assert vcenter.files() == [f"openstack_glance/{image}"]
    assert vcenter.files() == []


def test_glance_knows_no_details_of_vsphere(on_vsphere: ImageApi) -> None:
    """Glance itself answers 500 when asked for details, and names the stores all the same."""
    with pytest.raises(Refused) as refused:
        on_vsphere.json("GET", "/v2/info/stores/detail")
    assert refused.value.status == 500
    stores = on_vsphere.json("GET", "/v2/info/stores")["stores"]
    assert [each["id"] for each in stores] == ["fast", "slow", "web", "vsphere"]
