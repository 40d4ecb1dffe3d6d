"""Which rbd URIs are taken, and how they are written."""

import pickle

import pytest

from store_lib.drivers.rbd import RbdDriver, RbdLocation
from store_lib.exceptions import BadStoreUri

FSID = "0d0a2cf5-3f5d-4b3e-8d1c-3a52d4b3a3ce"


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        (f"rbd://{FSID}/images/abc/snap", ("abc", FSID, "images", "snap")),
        ("rbd://abc", ("abc", None, None, None)),
        ("rbd://a%2Fb%40c", ("a/b@c", None, None, None)),
        (f"rbd://{FSID}/my%20pool/%C3%A4/snap", ("\u00e4", FSID, "my pool", "snap")),
    ],
)
def test_good_uris(uri: str, parts: tuple[str | None, ...]) -> None:
    """A URI of either form is taken apart, and written the same again."""
    location = RbdLocation.parse(uri)
    found = (location.image, location.fsid, location.pool, location.snapshot)
    assert (found, location.uri) == (parts, uri)
    assert pickle.loads(pickle.dumps(location)) == location


def test_other_quoting_of_the_same_image() -> None:
    """What another writer quoted more than needed is the same image."""
    assert RbdLocation.parse("RBD://%61bc") == RbdLocation("abc")


@pytest.mark.parametrize(
    "uri",
    [
        "rbd://",
        "rbd:///",
        "rbd://a/",
        "rbd:///a",
        "rbd://fsid/pool/image",
        "rbd://fsid/pool/image/",
        "rbd://fsid//image/snap",
        "rbd:///pool/image/snap",
        "rbd://fsid/pool/image/snap/",
        "rbd://fsid/pool/image/snap/more",
        "rbd://a b",
        "rbd://a\n",
        "rbd://\u00e4",
        "rbd://\ud800",
        "rbd://a%2",
        "rbd://a%zz",
        "rbd://%ff",
        "rbd://%00",
        "rbd://a?b",
        "rbd://a#b",
        "rbd://user:secret@a",
        "rbd:abc",
        "file:///abc",
        "http://abc",
    ],
)
def test_bad_uris(uri: str) -> None:
    """A URI that is anything else is refused."""
    with pytest.raises(BadStoreUri):
        RbdLocation.parse(uri)


def test_the_driver_takes_its_own_scheme_alone() -> None:
    """The driver parses what its location class does, and no other scheme."""
    assert RbdDriver.schemes == ("rbd",)
