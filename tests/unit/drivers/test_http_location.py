"""Which http and https URIs are taken, what is sent for them, and which hosts the lists admit."""

import pickle

import pytest

from store_lib.drivers.http import HttpDriver, HttpLocation
from store_lib.exceptions import BadStoreConfiguration, BadStoreUri
from store_lib.options import StoreOptions

SECRET = "canary0815"


@pytest.mark.parametrize(
    ("uri", "url", "origin"),
    [
        ("http://host/a", "http://host/a", ("http", "host", 80)),
        (
            "HTTPS://Host.Example.:8443",
            "https://host.example.:8443/",
            ("https", "host.example", 8443),
        ),
        ("http://host?x=1&y=%20", "http://host/?x=1&y=%20", ("http", "host", 80)),
        ("http://[::1]:81/a@b", "http://[::1]:81/a@b", ("http", "::1", 81)),
        ("http://u:p@host:80/a/../b", "http://host/a/../b", ("http", "host", 80)),
        ("http://my_host-1/a b?c/d", "http://my_host-1/a b?c/d", ("http", "my_host-1", 80)),
        ("https://10.0.0.1/\u00e4", "https://10.0.0.1/\u00e4", ("https", "10.0.0.1", 443)),
    ],
)
def test_good_uris(uri: str, url: str, origin: tuple[str, str, int]) -> None:
    """A good URI keeps its text, and names its server and what to ask of it."""
    location = HttpLocation.parse(uri)
    assert (location.uri, location.url, location.origin) == (uri, url, origin)


@pytest.mark.parametrize(
    "uri",
    [
        "http://",
        "http:///path",
        "http://:80/",
        "http://host:/",
        "http://host:0/",
        "http://host:65536/",
        "http://host:8o/",
        "http://host:" + "9" * 5000,
        "http://a..b/",
        "http://-a/",
        "http://h\u00f6st/",
        "http://host\\.evil/",
        "http://allowed\\@evil/",
        "http://h,st/",
        "http://" + "a" * 254,
        "http://[::1/",
        "http://[::1]x/",
        "http://[fe80::1%25eth0]/",
        "http://[10.0.0.1]/",
        "http://host/\r\nX: y",
        "http://host/\x00",
        " http://host/",
        "http://host/ ",
        "http://host/\ud800",
        "http://host/a#b",
        "http://host#",
        f"http://host/a?{SECRET}#b",
        f"http://host/a#b?{SECRET}",
        f"http:/host/a?{SECRET}",
        f"ftp://host/?{SECRET}",
        "file:///etc/passwd",
        "httpx://host/",
        f"http://u{SECRET}@host/",
        f"http://@{SECRET}:x@host/",
        f"http://u:{SECRET}/x@host/",
        f"http://u:{SECRET}?x@host/",
        f"http://u:{SECRET}#x@host/",
        f"http://u:'{SECRET}@host/",
        f"http://u:{SECRET} @host/",
        f"http://u:{SECRET}%zz@host/",
        f"http://u:{SECRET}%0a@host/",
        f"http://u:{SECRET}@host:port/",
        f"http://u:{SECRET}@/",
        f"http://u:'{SECRET}@h#@ost:port/",
    ],
)
def test_bad_uris(uri: str) -> None:
    """A URI that is not understood whole is refused, and no credential is in the message."""
    with pytest.raises(BadStoreUri) as caught:
        HttpLocation.parse(uri)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


def test_a_uri_is_a_str() -> None:
    """Bytes are no URI."""
    with pytest.raises(BadStoreUri, match="bytes"):
        HttpLocation.parse(b"http://host/")  # type: ignore[arg-type]


def test_credentials_and_query_are_not_printed() -> None:
    """Only ``uri`` and ``authorization`` have the credentials."""
    location = HttpLocation.parse(f"https://user:{SECRET}%40@host/a?auth={SECRET}")
    assert location.authorization == "Basic dXNlcjpjYW5hcnkwODE1QA=="
    for text in (location.shown, location.base, repr(location).replace("auth=", "")):
        assert f"{SECRET}%40" not in text
    assert location.shown == str(location) == "https://host/a?***"


def test_locations_are_values() -> None:
    """Equal URIs are equal locations; one survives pickling."""
    location = HttpLocation.parse("http://u:p@host:81/a?b")
    assert location == HttpLocation.parse("http://u:p@host:81/a?b")
    assert location != HttpLocation.parse("http://host:81/a?b")
    again = pickle.loads(pickle.dumps(location))
    assert (again, hash(again), again.url) == (location, hash(location), location.url)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("http_allowed_addresses", ["10.0.0.0/33"]),
        ("http_allowed_addresses", ["10.0.0.5/8"]),
        ("http_denied_addresses", ["10.0.0.256"]),
        ("http_denied_addresses", ["host:80"]),
        ("http_denied_addresses", ["*.example.org"]),
        ("http_denied_addresses", ["0x7f.1"]),
        ("http_denied_addresses", [""]),
        ("https_ca_certificates_file", "/nonexistent/ca.pem"),
        ("https_ca_certificates_file", "/dev/null"),
        ("http_proxy_information", {"ftp": "10.0.0.1:3128"}),
        ("http_proxy_information", {"http": ""}),
        ("http_proxy_information", {"http": "10.0.0.1:proxy"}),
        ("http_proxy_information", {"http": "http://10.0.0.1:3128/path"}),
        ("http_proxy_information", {"https": f"socks5://user:{SECRET}@10.0.0.1"}),
        ("http_proxy_information", {"https": f"us'er:{SECRET}@10.0.0.1"}),
    ],
)
def test_bad_option_values(option: str, value: object) -> None:
    """A value that cannot be used is told at configure, by its option's name."""
    driver = HttpDriver("web", StoreOptions.of(HttpDriver.options, **{option: value}))
    with pytest.raises(BadStoreConfiguration, match=f"web.*{option}") as caught:
        driver.configure()
    assert caught.value.store == "web"
    assert SECRET not in str(caught.value)


def test_good_option_values() -> None:
    """What the documentation shows is taken; host names may end in a digit."""
    proxies = "http:10.0.0.1:3128, https:http://user:pass@10.0.0.1:1080"
    options = StoreOptions.of(
        HttpDriver.options,
        http_proxy_information=proxies,
        http_allowed_addresses="web1, images.example.org, 192.0.2.0/24",
        http_denied_addresses="127.0.0.0/8, ::1, [fe80::1]",
    )
    driver = HttpDriver("web", options)
    driver.configure()
    driver.close()
