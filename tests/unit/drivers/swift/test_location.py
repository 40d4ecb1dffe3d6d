"""The URIs of objects in Swift: every form that was written, and what is none."""

import pytest

from store_lib.drivers.swift import SwiftLocation
from store_lib.exceptions import BadStoreUri


@pytest.mark.parametrize(
    ("uri", "url", "user", "key", "container", "name"),
    [
        (
            "swift://acct%3Ausr:pass@example.org/v1/c/o",
            "https://example.org/v1",
            "acct:usr",
            "pass",
            "c",
            "o",
        ),
        (
            "swift+http://acct:usr:pass@h:5000/v3/c/o",
            "http://h:5000/v3",
            "acct:usr",
            "pass",
            "c",
            "o",
        ),
        ("swift+https://u:a/b/c@h/c/o", "https://h", "u", "a/b/c", "c", "o"),
        ("swift+https://u:a%3Ab%40c%2Fd@h/c/o", "https://h", "u", "a:b@c/d", "c", "o"),
        ("swift+https://u:a@b@h/c/o", "https://h", "u", "a@b", "c", "o"),
        ("swift+https://u:@h/c/o", "https://h", "u", "", "c", "o"),
        ("swift+https://h/v1/AUTH_x/c_i/i", "https://h/v1/AUTH_x", None, None, "c_i", "i"),
        ("swift+http://[::1]:80/v1/c/a%40b", "http://[::1]:80/v1", None, None, "c", "a@b"),
        ("swift+config://r/c/a%2Fb", None, None, None, "c", "a/b"),
        ("SWIFT+CONFIG://r/c/o", None, None, None, "c", "o"),
    ],
)
def test_every_form_is_taken_apart(
    uri: str, url: str | None, user: str | None, key: str | None, container: str, name: str
) -> None:
    """Each form gives its parts, keeps its text, and shows no key."""
    location = SwiftLocation.parse(uri)
    assert (location.url, location.user, location.key) == (url, user, key)
    assert (location.container, location.name) == (container, name)
    assert location.reference == ("r" if url is None else None)
    assert location.uri == uri
    if key:
        assert key not in str(location) + repr(location)


@pytest.mark.parametrize("name", ["o", "a/b", "a@b", "a:b", "ä%2F?#", " ", "a\nb"])
def test_what_is_written_comes_back(name: str) -> None:
    """Locations that are made have URIs that give the same places."""
    made = SwiftLocation.of_reference("a ref", "c d", name)
    read = SwiftLocation.parse(made.uri)
    assert (read.reference, read.container, read.name) == ("a ref", "c d", name)
    assert made == read
    stored = SwiftLocation.of_storage("https://h:8080/v1/AUTH_x/", "c", name)
    assert stored.uri.startswith("swift+https://h:8080/v1/AUTH_x/c/")
    assert SwiftLocation.parse(stored.uri).name == name


@pytest.mark.parametrize(
    "uri",
    [
        "swift+config://r/c",
        "swift+config://r//o",
        "swift+config:///c/o",
        "swift+config://a/b/c/o",
        "swift+config://u:key-5eCr@h/c/o",
        "swift+config://r/c/",
        "swift+config://r/c/%2e%2e",
        "swift+config://r/../o",
        "swift+config://r/a%2Fb/o",
        "swift+config://r/c/a%2F..%2Fb",
        "swift+config://r/c/.segments%2Fa",
        "swift+config://r/c/%ff",
        "swift+config://r/c/\udc80",
        "swift://u:key-5eCr@h/o",
        "swift://key-5eCr@h/c/o",
        "swift://u:key-5eCr@/c/o",
        "swift://u:key-5eCr@h?x/c/o",
        "swift://u:key-5eCr@h:port/c/o",
        "swift://https://u:key-5eCr@h/c/o",
        "swift:///c/o",
        "s3://h/c/o",
    ],
)
def test_what_is_no_uri_is_refused(uri: str) -> None:
    """A malformed URI is BadStoreUri, and its key is not in the message."""
    with pytest.raises(BadStoreUri) as caught:
        SwiftLocation.parse(uri)
    assert "key-5eCr" not in str(caught.value)
    assert str(caught.value).isprintable()
