"""cinder URIs: both forms come back as they were, and nothing else is taken for one."""

import pytest

from store_lib.drivers.cinder.location import CinderLocation
from store_lib.exceptions import BadStoreUri

_ID = "0123abcd-4567-89ef-0123-456789abcdef"


@pytest.mark.parametrize(
    ("uri", "store"),
    [
        (f"cinder://{_ID}", None),
        (f"cinder://fast/{_ID}", "fast"),
        (f"cinder://fast-1.b_c/{_ID}", "fast-1.b_c"),
    ],
)
def test_a_uri_comes_back(uri: str, store: str | None) -> None:
    """A volume's id, with a store's or without, is told apart and put together again."""
    location = CinderLocation.parse(uri)
    assert (location.volume_id, location.store_id, location.uri) == (_ID, store, uri)
    assert location == CinderLocation(_ID, store)


@pytest.mark.parametrize(
    "uri",
    [
        "cinder://",
        "cinder:///",
        f"cinder:///{_ID}",
        f"cinder://{_ID.upper()}",
        f"cinder://{_ID}/",
        f"cinder://{_ID[:-1]}",
        f"cinder://{_ID}0",
        f"cinder://{_ID.replace('-', '')}",
        f"cinder://a/b/{_ID}",
        f"cinder://a b/{_ID}",
        f"cinder://user:password@fast/{_ID}",
        f"cinder://fast/{_ID}?a=b",
        f"cinder://fast/{_ID}\n",
        f"rbd://{_ID}",
        _ID,
    ],
)
def test_anything_else_is_refused(uri: str) -> None:
    """What is not understood whole is malformed, and no password is told."""
    with pytest.raises(BadStoreUri) as caught:
        CinderLocation.parse(uri)
    assert "password" not in str(caught.value)
