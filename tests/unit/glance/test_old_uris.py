"""The URIs that glance_store 5.7.0 and earlier ones wrote, kept in databases of services."""

import pytest

from store_lib.glance._impl.registry import driver_class

VOLUME = "6f0e2d6c-0e0e-4d2c-9a6b-3f7f2c1b9b11"
IMAGE = "1f2b6d84-3b0a-4bb0-8a5e-0f4b3c0c9f55"
FSID = "db437934-7e1c-445b-a4f5-7cc5bc44ba1b"

#: By type of store: each form, for one store and for several.
WRITTEN = {
    "file": [f"file:///var/lib/glance/images/{IMAGE}", f"filesystem:///srv/a b%20/{IMAGE}"],
    "http": ["http://example.org:8080/a/b?c=d", "https://user:secret@example.org/x"],
    "rbd": [f"rbd://{FSID}/images/{IMAGE}/snap", f"rbd://{IMAGE}", "rbd://f%2Fs/p%20l/i%25d/snap"],
    "cinder": [f"cinder://{VOLUME}", f"cinder://fast/{VOLUME}"],
    "s3": [
        f"s3://example.org:8080/bucket/{IMAGE}",
        f"s3+https://example.org/bucket/{IMAGE}",
        f"s3://access:secret@example.org/bucket/{IMAGE}",
        f"s3+http://access:sec/ret@example.org/bucket/{IMAGE}",
    ],
    "swift": [
        f"swift+config://ref1/glance/{IMAGE}",
        f"swift+https://account%3Auser:secret@auth.example.org/v3/glance/{IMAGE}",
        f"swift+http://account%3Auser:secret@auth.example.org:5000/v3/glance/{IMAGE}",
        f"swift+https://storage.example.org/v1/AUTH_tenant/glance_{IMAGE}/{IMAGE}",
        f"swift://account%3Auser:secret@auth.example.org/v3/glance/{IMAGE}",
    ],
    "vmware": [
        f"vsphere://host/folder/openstack_glance/{IMAGE}?dcPath=dc&dsName=ds",
        f"vsphere://[::1]:8443/folder/a/b/{IMAGE}?dsName=d%20s&dcPath=folder%2Fdc",
    ],
}


@pytest.mark.parametrize(
    ("store_type", "uri"), [(name, uri) for name, uris in WRITTEN.items() for uri in uris]
)
def test_it_is_understood_and_not_printed_with_a_secret(store_type, uri):
    """Each form is taken apart by the driver of its type; what is printed has no secret."""
    driver = driver_class(store_type)
    assert uri.partition("://")[0] in driver.schemes
    location = driver.location_class.parse(uri)
    for text in (str(location), repr(location)):
        assert "secret" not in text
        assert "sec/ret" not in text
