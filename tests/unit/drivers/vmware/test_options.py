"""The vmware driver's options: datastores, directory, server, and what is told of wrong ones."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from store_lib import Stores
from store_lib.driver import Incomplete
from store_lib.drivers.vmware import VmwareDriver
from store_lib.drivers.vmware.options import Datastore, parse_datastores, parse_directory
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    DriverLoadFailure,
    Invalid,
)
from store_lib.options import StoreOptions

GOOD: dict[str, Any] = {
    "vmware_server_host": "vcenter.example.org",
    "vmware_server_username": "user",
    "vmware_server_password": "s3cret",
    "vmware_datastores": ["dc:ds"],
}


def driver_for(**options: Any) -> VmwareDriver:
    return VmwareDriver("vm", StoreOptions.of(VmwareDriver.options, **{**GOOD, **options}))


@pytest.mark.parametrize(
    ("entry", "datacenter", "datastore", "weight"),
    [
        ("datacenter1:datastore1", "datacenter1", "datastore1", 0),
        ("dc_folder/datacenter2:datastore2:100", "dc_folder/datacenter2", "datastore2", 100),
        ("datacenter1:datastore3:200", "datacenter1", "datastore3", 200),
        (r"dc\:1:ds\:2:3", "dc:1", "ds:2", 3),
        (r"dc\\:ds", "dc\\", "ds", 0),
        ("/a b/dc : my ds : -5", "/a b/dc", "my ds", -5),
        ("dc:ds:+7", "dc", "ds", 7),
    ],
)
def test_datastores_are_read(entry: str, datacenter: str, datastore: str, weight: int) -> None:
    """A datastore has a path, a name and a weight, and colons in them where they are escaped."""
    (place,) = parse_datastores([entry])
    assert (place.datacenter, place.name, place.weight) == (datacenter, datastore, weight)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], "at least one"),
        (["ds"], "is to be written as"),
        (["a:b:c:1"], "is to be written as"),
        ([r"dc\1:ds"], "a backslash stands before"),
        (["dc:ds\\"], "a backslash stands before"),
        (["dc:ds:heavy"], "weight 'heavy' is not an integer"),
        (["dc:ds:1.5"], "weight '1.5' is not an integer"),
        (["dc:ds:"], "weight '' is not an integer"),
        (["dc:ds:٣"], "is not an integer"),
        ([":ds"], "the path or the name is empty"),
        (["/:ds"], "the path or the name is empty"),
        (["dc:"], "the path or the name is empty"),
        (["dc:ds:1", "/dc/:ds:2"], "listed twice"),
    ],
)
def test_wrong_datastores_are_told(entries: list[str], reason: str) -> None:
    """What is wrong with an entry is said, with the entry."""
    with pytest.raises(ValueError, match=reason) as caught:
        parse_datastores(entries)
    assert str(caught.value).startswith("vmware_datastores: ")
    with pytest.raises(BadStoreConfiguration, match=reason):
        driver_for(vmware_datastores=entries).configure()


def test_a_place_is_the_same_whatever_its_weight() -> None:
    """The place that a URI names is the configured one."""
    assert Datastore("dc", "ds", 7) == Datastore("dc", "ds")


@pytest.mark.parametrize("given", ["/openstack_glance", "openstack_glance/", " openstack_glance"])
def test_slashes_around_the_directory_do_not_matter(given: str) -> None:
    """The directory is below the datastore's root, with or without a slash."""
    assert parse_directory(given) == "openstack_glance"


@pytest.mark.parametrize("given", ["", "/", "a//b", "../a", "a/..", ".", "a\\b", "a\nb"])
def test_what_is_no_directory_is_refused(given: str) -> None:
    """A root, a way up, or a control character is no directory for objects."""
    with pytest.raises(BadStoreConfiguration, match="vmware_store_image_dir"):
        driver_for(vmware_store_image_dir=given).configure()


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:8443", "192.0.2.1:8443"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("VCenter.example.org", "vcenter.example.org"),
        ("vcenter.example.org:9443", "vcenter.example.org:9443"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:9443", "[2001:db8::1]:9443"),
    ],
)
def test_servers_may_be_given_with_a_port(given: str, host: str) -> None:
    """An address, a name, either with a port, and IPv6 with and without brackets are a server."""
    driver = driver_for(vmware_server_host=given)
    driver._parse_options()
    assert driver.url_prefix == f"vsphere://{host}/folder/openstack_glance/"
    driver.close()


@pytest.mark.parametrize(
    "given", ["https://vcenter", "user@vcenter", "vcenter:0", "vcenter:x", "a b", "[::1", "::g"]
)
def test_what_is_no_server_is_refused(given: str) -> None:
    """A URL, a login or a wrong port is told with what was expected."""
    with pytest.raises(BadStoreConfiguration, match="vmware_server_host: expected"):
        driver_for(vmware_server_host=given).configure()


@pytest.mark.parametrize("name", [name for name in GOOD if name != "vmware_datastores"])
def test_what_is_required_is_told(name: str) -> None:
    """Without a server, a user or a password nothing is tried."""
    with pytest.raises(BadStoreConfiguration, match=f"expected {name} to be set"):
        driver_for(**{name: None}).configure()


def test_a_missing_authority_file_is_told(tmp_path: Path) -> None:
    """A file of authorities that cannot be read is no reason to trust others."""
    with pytest.raises(BadStoreConfiguration, match="vmware_ca_file: expected a readable file"):
        driver_for(vmware_ca_file=str(tmp_path / "nothing.pem")).configure()


@pytest.mark.parametrize(
    "given", ["/no/such/file", "/a" * 5000, "https://elsewhere/vim.wsdl", "file://host/a"]
)
def test_a_description_is_a_local_file(given: str) -> None:
    """The API's description is not fetched from anywhere but the server."""
    with pytest.raises(BadStoreConfiguration, match="vmware_wsdl_location: expected"):
        driver_for(vmware_wsdl_location=given).configure()


def test_without_its_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver can be listed without oslo.vmware, and the error says how to install it."""
    for name in [name for name in sys.modules if name.startswith(("oslo_vmware", "suds"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "store_lib.drivers.vmware.soap", raising=False)
    monkeypatch.delattr("store_lib.drivers.vmware.soap", raising=False)
    monkeypatch.setitem(sys.modules, "oslo_vmware", None)
    sections = {"DEFAULT": {"enabled_backends": "vm:vmware"}, "vm": GOOD}
    with pytest.raises(DriverLoadFailure, match=r"pip install store_lib\[vmware\]"):
        Stores.from_mapping(sections, strict=True)


def test_eventlet_is_not_brought_along() -> None:
    """Neither eventlet nor the layer that sleeps comes with the driver."""
    code = (
        "import sys, store_lib.drivers.vmware; assert 'oslo_vmware' not in sys.modules;"
        "import store_lib.drivers.vmware.soap;"
        "assert not {'eventlet', 'oslo_service', 'oslo_vmware.api'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("host", "directory", "owned"),
    [
        ("vcenter.example.org", "openstack_glance", True),
        ("VCENTER.example.org:443", "openstack_glance", True),
        ("old.example.org:8443", "openstack_glance", True),
        ("old.example.org", "openstack_glance", False),
        ("other.example.org", "openstack_glance", False),
        ("old.example.org:8443", "elsewhere", False),
    ],
)
def test_uris_of_its_own_server_and_of_former_ones_are_the_stores(
    host: str, directory: str, owned: bool
) -> None:
    """On whichever datastore, and in its own directory alone."""
    driver = driver_for(former_places=["https://Old.example.org:8443/"])
    driver._parse_options()
    uri = f"vsphere://{host}/folder/{directory}/id?dcPath=other&dsName=other"
    assert driver.owns(driver.parse(uri)) is owned
    if not owned:
        with pytest.raises(BadStoreUri, match="Nothing is asked of other servers"):
            driver.stat(driver.parse(uri), context=None)


UPLOAD = f"store_lib-upload-{'a' * 32}-id"


@pytest.mark.parametrize(
    "file",
    [
        "vcenter.example.org/folder/openstack_glance/id",
        f"vcenter.example.org/folder/elsewhere/{UPLOAD}",
        f"other.example.org/folder/openstack_glance/{UPLOAD}",
    ],
)
def test_only_an_uploads_file_is_discarded(file: str) -> None:
    """Not an object, and nothing of another place."""
    driver = driver_for()
    driver._parse_options()
    key = f"vsphere://{file}?dcPath=dc&dsName=ds"
    with pytest.raises(Invalid, match="Expected the key of an incomplete upload of store vm"):
        driver.discard(Incomplete(key, "id", 1, 0.0), context=None)
