"""vsphere URIs, and the names of files on a datastore."""

import pytest

from store_lib.drivers.vmware.location import (
    VmwareLocation,
    datastore_path,
    id_problem,
    upload_name,
    uploaded_object_id,
)
from store_lib.drivers.vmware.options import Datastore
from store_lib.exceptions import BadStoreUri

GOOD = "vsphere://vcenter/folder/openstack_glance/an-id?dcPath=dc&dsName=ds"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (GOOD, ("vcenter", 443, "openstack_glance", "an-id", "dc", "ds")),
        (
            "vsphere://VCenter:9443/folder/a/b/c?dsName=my+ds&dcPath=%2Ffolder%2Fmy%20dc",
            ("vcenter", 9443, "a/b", "c", "/folder/my dc", "my ds"),
        ),
        (
            "vsphere://[2001:db8::1]/folder/a%20b/c?dcPath=%C3%A9&dsName=a%2Bb",
            ("2001:db8::1", 443, "a b", "c", "é", "a+b"),
        ),
        ("VSPHERE://h/folder/a b/c?dcPath=d&dsName=é", ("h", 443, "a b", "c", "d", "é")),
    ],
)
def test_uris_are_taken_apart(uri: str, expected: tuple[object, ...]) -> None:
    """A URI names server, directory, file, datacenter and datastore, in either order."""
    found = VmwareLocation.parse(uri)
    place = (found.datastore.datacenter, found.datastore.name)
    assert (found.host, found.port, found.directory, found.name, *place) == expected
    assert VmwareLocation.parse(found.uri) == found


def test_uris_are_put_together() -> None:
    """What would not stand for itself in a URI is percent-encoded."""
    place = Datastore("/folder/my dc", "a&b=c+d")
    found = VmwareLocation("2001:db8::1", 8443, "a b", "c?d#e", place)
    assert found.uri == (
        "vsphere://[2001:db8::1]:8443/folder/a%20b/c%3Fd%23e"
        "?dcPath=%2Ffolder%2Fmy%20dc&dsName=a%26b%3Dc%2Bd"
    )
    assert VmwareLocation.parse(found.uri) == found
    assert found.uri == f"vsphere://[2001:db8::1]:8443{found.target}"


@pytest.mark.parametrize(
    "uri",
    [
        "vsphere:",
        "vsphere://",
        "vsphere://vcenter",
        "vsphere://vcenter/folder/a/b",
        "https://vcenter/folder/a/b?dcPath=dc&dsName=ds",
        GOOD.replace("vcenter", ""),
        GOOD.replace("vcenter", "user:secret@vcenter"),
        GOOD.replace("vcenter", "vcenter:0"),
        GOOD.replace("vcenter", "vcenter:443x"),
        GOOD.replace("folder", "other"),
        GOOD.replace("openstack_glance/", ""),
        GOOD.replace("openstack_glance", ".."),
        GOOD.replace("openstack_glance", "a/%2E%2E/b"),
        GOOD.replace("openstack_glance", "a//b"),
        GOOD.replace("openstack_glance", "a%5Cb"),
        GOOD.replace("an-id", ""),
        GOOD.replace("an-id", "%00"),
        GOOD.replace("an-id", "a\nb"),
        GOOD.replace("an-id", "a%0Ab"),
        GOOD.replace("an-id", "%zz"),
        GOOD.replace("an-id", "%ff"),
        GOOD.replace("dcPath=dc&", ""),
        GOOD.replace("&dsName=ds", ""),
        GOOD.replace("dcPath=dc", "dcPath="),
        GOOD.replace("dcPath=dc", "dcPath=%2F"),
        GOOD.replace("dsName=ds", "dsName=ds&dsName=other"),
        GOOD.replace("dsName=ds", "dsName=%0A"),
        f"{GOOD}&x=y",
        f"{GOOD}&",
        f"{GOOD}#part",
        f"{GOOD}\udc80",
    ],
)
def test_anything_else_is_refused(uri: str) -> None:
    """A URI that is not understood whole is BadStoreUri, whose text has no login."""
    with pytest.raises(BadStoreUri) as caught:
        VmwareLocation.parse(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("object_id", ["a", "0" * 200, "A-b_c.d=e+f@g~h,i", "_", "store_lib-up"])
def test_ids_that_are_file_names_are_taken(object_id: str) -> None:
    """What needs no escaping anywhere is a name."""
    assert id_problem(object_id) is None


@pytest.mark.parametrize(
    "object_id",
    [
        *("", ".", "..", ".a", "-a", "a.", "a/b", "a b", "a%b", "[a]", "é", "a\n", "0" * 201),
        *("store_lib-upload-", upload_name("an-id", "0" * 32)),
    ],
)
def test_other_ids_are_refused(object_id: str) -> None:
    """What a datastore, or a tool that shows it, could take for something else is no name."""
    assert "Expected" in str(id_problem(object_id))


def test_uploads_are_known_by_their_names() -> None:
    """The name of an upload's file has its nonce, and the id that it is for."""
    name = upload_name("an-id", "0123456789abcdef" * 2)
    assert name == "store_lib-upload-0123456789abcdef0123456789abcdef-an-id"
    assert uploaded_object_id(name) == "an-id"
    for other in ("an-id", "store_lib-upload-notes.txt", name.replace("0", "x")):
        assert uploaded_object_id(other) is None


def test_paths_have_the_form_of_the_api() -> None:
    """A file is named by its datastore in brackets, and its path."""
    assert datastore_path("my ds", "dir", "file") == "[my ds] dir/file"
