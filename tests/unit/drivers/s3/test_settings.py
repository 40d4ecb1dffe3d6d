"""Options, locations, ids and part sizes of the s3 driver; nothing is connected to."""

import io
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from urllib3 import HTTPResponse

from store_lib import Stores
from store_lib.driver import CreateOnly
from store_lib.drivers.s3 import S3Driver, S3Location
from store_lib.drivers.s3.multipart import PartSizes
from store_lib.drivers.s3.options import LARGEST_PUT, MIB, MOST_PARTS, OPTIONS, settings_of
from store_lib.drivers.s3.writer import S3Writer
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    DriverLoadFailure,
    NotFound,
    StorageFull,
)
from store_lib.options import StoreOptions

TIB = 1024 * 1024 * MIB
GOOD = {
    "s3_store_host": "https://s3.example.org",
    "s3_store_access_key": "id",
    "s3_store_secret_key": "key",
    "s3_store_bucket": "images",
}


def driver(**options: object) -> S3Driver:
    """Return a configured driver."""
    made = S3Driver("it", StoreOptions.of(OPTIONS, **{**GOOD, **options}))
    made.configure()
    return made


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://host/bucket/key", ("s3", "host", "bucket", "key")),
        ("s3+http://host:80/bucket/key", ("s3+http", "host:80", "bucket", "key")),
        ("S3+HTTPS://host/bucket/key", ("s3+https", "host", "bucket", "key")),
        ("s3://host:8080/with/path/b/k", ("s3", "host:8080/with/path", "b", "k")),
        ("s3://h/b/a%2Fb?c#d @e", ("s3", "h", "b", "a%2Fb?c#d @e")),
        ("s3://AK:SE/CR+ET=@host/b/k", ("s3", "host", "b", "k")),
        ("s3+https://AK:S@C/R@ET@host:9000/b/k", ("s3+https", "host:9000", "b", "k")),
    ],
)
def test_a_uri_is_taken_apart_from_its_end(uri: str, parts: tuple[str, ...]) -> None:
    """Host, bucket and key are found whatever the credentials of an old URI hold."""
    found = S3Location.parse(uri)
    assert (found.scheme, found.host, found.bucket, found.key) == parts
    for text in (found.uri, str(found), repr(found)):
        assert not {"SE", "AK"} & {text[at : at + 2] for at in range(len(text))}
    assert S3Location.parse(found.uri) == found


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3://host",
        "s3://host/bucket",
        "s3://host/bucket/",
        "s3://host//key",
        "s3:///bucket/key",
        "s3://AK:SECRET@host/key",
        "s3://AK:SECRET@/bucket/key",
        "s3://https://host/bucket/key",
        "http://host/bucket/key",
        "s3://host/bucket/\udc80",
    ],
)
def test_a_malformed_uri_is_refused(uri: str) -> None:
    """A URI that lacks something is BadStoreUri, and shows no credential."""
    with pytest.raises(BadStoreUri) as caught:
        S3Location.parse(uri)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "endpoint", "scheme", "region"),
    [
        ("s3.example.org", "http://s3.example.org", "s3", None),
        ("10.0.0.1:7480", "http://10.0.0.1:7480", "s3", None),
        ("[::1]:7480", "http://[::1]:7480", "s3", None),
        ("https://s3.example.org:9000/", "https://s3.example.org:9000", "s3+https", None),
        ("https://host/path/", "https://host/path", "s3+https", None),
        (
            "https://s3.eu-west-1.amazonaws.com",
            "https://s3.eu-west-1.amazonaws.com",
            "s3+https",
            "eu-west-1",
        ),
        (
            "http://s3-ap-northeast-1.amazonaws.com",
            "http://s3-ap-northeast-1.amazonaws.com",
            "s3",
            "ap-northeast-1",
        ),
        ("https://s3.amazonaws.com", "https://s3.amazonaws.com", "s3+https", None),
        (
            "https://s3-cn-north-1.amazonaws.com.cn",
            "https://s3-cn-north-1.amazonaws.com.cn",
            "s3+https",
            "cn-north-1",
        ),
        (
            "https://s3-fips.dualstack.us-gov-west-1.amazonaws.com",
            "https://s3-fips.dualstack.us-gov-west-1.amazonaws.com",
            "s3+https",
            "us-gov-west-1",
        ),
        ("HTTPS://S3.example.org", "https://S3.example.org", "s3+https", None),
    ],
)
def test_a_host_may_have_scheme_and_port(
    host: str, endpoint: str, scheme: str, region: str | None
) -> None:
    """Without a scheme it is http, as ever; the region is taken from an Amazon name."""
    found = settings_of(StoreOptions.of(OPTIONS, **{**GOOD, "s3_store_host": host}))
    assert (found.endpoint, found.scheme, found.region) == (endpoint, scheme, region)
    location = S3Location(found.scheme, found.host, found.bucket, "id")
    assert location == S3Location.parse(location.uri)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"s3_store_host": None}, "set s3_store_host"),
        ({"s3_store_host": "ftp://host"}, "got 'ftp://host'"),
        ({"s3_store_host": "http://host:port"}, "got 'http://host:port'"),
        ({"s3_store_host": "http://host?a=b"}, "s3_store_host: expected"),
        ({"s3_store_host": "https://id:hush@host"}, "credentials have options of their own"),
        ({"s3_store_bucket": None}, "set s3_store_bucket"),
        ({"s3_store_bucket": "a b"}, "got 'a b'"),
        ({"s3_store_bucket": "a/b"}, "got 'a/b'"),
        ({"s3_store_bucket": "ab"}, "3 to 255"),
        ({"s3_store_bucket": "a..b"}, "got 'a..b'"),
        (
            {"s3_store_bucket": "Images", "s3_store_bucket_url_format": "virtual"},
            "s3_store_bucket_url_format to path",
        ),
        ({"s3_store_access_key": None}, "s3_store_access_key is missing"),
        ({"s3_store_secret_key": ""}, "s3_store_secret_key is missing"),
        ({"s3_store_cacert": "/nowhere.pem"}, "got /nowhere.pem"),
        ({"s3_store_region_name": "no region!"}, "region"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, str | None], reason: str) -> None:
    """What is missing or no good is BadStoreConfiguration with what was expected."""
    with pytest.raises(BadStoreConfiguration) as caught:
        driver(**options)
    assert reason in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("s3_store_large_object_chunk_size", "4"),
        ("s3_store_thread_pools", "0"),
        ("s3_store_large_object_size", "-1"),
        ("s3_store_bucket_url_format", "bogus"),
        ("s3_store_create_only", "perhaps"),
    ],
)
def test_an_option_out_of_bounds_disables_its_store(name: str, value: str) -> None:
    """A value that the option does not allow makes the store unusable, and is told."""
    with Stores.from_mapping(
        {"DEFAULT": {"enabled_backends": "it:s3"}, "it": {**GOOD, name: value}}
    ) as stores:
        assert not stores["it"].writable
        assert name in str(stores["it"].error)


def test_without_the_client_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without boto3 is told what to install."""
    monkeypatch.setitem(__import__("sys").modules, "botocore.config", None)
    options = {"s3_store_host": "h", "s3_store_bucket": "box"}
    with Stores.from_mapping({"DEFAULT": {"enabled_backends": "it:s3"}, "it": options}) as stores:
        assert isinstance(stores["it"].error, DriverLoadFailure)
        assert "pip install store_lib[s3]" in str(stores["it"].error)


@pytest.mark.parametrize(
    ("host", "atomic", "virtual"),
    [
        ("https://s3.example.org", False, False),
        ("https://s3.amazonaws.com.example.org", False, False),
        ("https://S3.us-west-2.Amazonaws.com", True, True),
        ("https://s3.amazonaws.com", True, True),
        ("http://s3-eu-west-1.amazonaws.com:80", True, True),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", True, True),
        ("https://s3-fips.us-gov-west-1.amazonaws.com", True, True),
        ("https://s3.cn-north-1.amazonaws.com.cn", True, True),
        ("https://s3.eusc-de-east-1.amazonaws.eu", True, True),
        ("https://s3-accelerate.amazonaws.com", True, True),
        ("https://bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com", True, False),
        # Other people's servers, on Amazon's machines.
        ("http://ec2-1-2-3-4.eu-west-1.compute.amazonaws.com:9000", False, False),
        ("https://minio-1234.eu-west-1.elb.amazonaws.com", False, False),
    ],
)
def test_what_auto_means_hangs_on_the_host(host: str, atomic: bool, virtual: bool) -> None:
    """Amazon's own servers decide everything, and are asked by the bucket's host name."""
    made = driver(s3_store_host=host)
    assert made.create_only is (CreateOnly.ATOMIC if atomic else CreateOnly.CHECKED)
    server = urllib.parse.urlsplit(host.lower()).netloc
    asked = f"images.{server}/key" if virtual else f"{server}/images/key"
    assert requested(made).lower().partition("://")[2] == asked


@pytest.mark.parametrize(
    ("bucket", "style", "asked"),
    [
        ("our.images", "auto", "s3.amazonaws.com/our.images/key"),
        ("Images", "auto", "s3.amazonaws.com/Images/key"),
        ("images", "path", "s3.amazonaws.com/images/key"),
        ("images", "virtual", "images.s3.amazonaws.com/key"),
    ],
)
def test_a_bucket_stands_in_the_host_where_that_can_be(bucket: str, style: str, asked: str) -> None:
    """A name that no host name, or no certificate, can hold stands in the path."""
    options = {"s3_store_bucket": bucket, "s3_store_bucket_url_format": style}
    made = driver(s3_store_host="https://s3.amazonaws.com", **options)
    assert requested(made) == f"https://{asked}"


def requested(made: S3Driver) -> str:
    """Return the URL of a request that the driver makes; it is not sent."""
    urls = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        urls.append(request.url)
        return AWSResponse(request.url, 404, {}, HTTPResponse(io.BytesIO(), preload_content=False))

    made._client.open().meta.events.register("before-send.s3", answer)
    with pytest.raises(NotFound):
        made.stat(made.parse(f"{made.url_prefix}/key"), context=None)
    return urls[0]


def test_the_region_is_found_in_the_name_of_an_endpoint() -> None:
    """A private endpoint's name holds it, too."""
    host = "https://bucket.vpce-1a2b-3c4d.s3.eu-west-3.vpce.amazonaws.com"
    found = settings_of(StoreOptions.of(OPTIONS, **{**GOOD, "s3_store_host": host}))
    assert found.region == "eu-west-3"


@pytest.mark.parametrize("value", ["checked", "atomic", "look"])
def test_what_the_store_claims_hangs_on_the_option(value: str) -> None:
    """It is atomic for who says so, whatever the host."""
    for host in ("https://s3.example.org", "https://s3.amazonaws.com"):
        made = driver(s3_store_host=host, s3_store_create_only=value)
        assert (made.create_only is CreateOnly.ATOMIC) is (value == "atomic")


def test_locations_are_held_by_host_and_bucket() -> None:
    """A store answers for URIs of its own server and bucket; the prefix is glance_store's."""
    made = driver()
    assert made.url_prefix == "s3+https://s3.example.org/images"
    for uri, held in (
        ("s3+https://s3.example.org/images/1", True),
        ("s3://AK:SECRET@S3.example.org/images/1", True),
        ("s3+https://s3.example.org/others/1", False),
        ("s3+https://other.example.org/images/1", False),
    ):
        assert made.holds(made.parse(uri)) is held


@pytest.mark.parametrize("object_id", ["a b", "..a", "a%2F?#", "é" * 127, "\U0001f4be", "a\\b"])
def test_an_odd_id_that_is_a_key_is_taken(object_id: str) -> None:
    """What can be a key as it stands is one."""
    assert driver().id_problem(object_id) is None


@pytest.mark.parametrize("least", [5, 10, 100, 5120])
def test_the_parts_that_are_allowed_hold_the_largest_objects(least: int) -> None:
    """10,000 parts hold 5 TiB of unknown length; of known length whatever they can at all."""
    unknown = PartSizes(None, least * MIB)
    sizes = [unknown.of(number) for number in range(1, MOST_PARTS + 1)]
    assert sum(sizes) >= 5 * TIB
    assert sizes == sorted(sizes)
    assert sizes[-1] <= LARGEST_PUT
    assert all(size % MIB == 0 for size in sizes)
    assert set(sizes[:1000]) == {least * MIB}
    for size in (1, 100 * MIB, 5 * TIB - 1, 5 * TIB, MOST_PARTS * LARGEST_PUT):
        part = PartSizes(size, least * MIB).of(1)
        assert -(-size // part) <= MOST_PARTS
        assert least * MIB <= part <= LARGEST_PUT


def test_an_object_that_no_upload_can_hold_is_refused_at_once() -> None:
    """More than 10,000 parts of 5 GiB is StorageFull before anything is asked of the server."""
    with pytest.raises(StorageFull, match="10000 parts of 5 GiB"):
        driver().create("id", MOST_PARTS * LARGEST_PUT + 1, nonce="0" * 32, context=None)


def test_the_secrets_are_known_as_such() -> None:
    """Both keys and the proxy's login are secret options, which configuration dumps hide."""
    assert {each.dest for each in OPTIONS if each.secret} == {
        "s3_store_access_key",
        "s3_store_proxy",
        "s3_store_secret_key",
    }


def test_the_page_has_the_codes_numbers() -> None:
    """What doc/drivers/s3.rst says of reading and copying in figures is what is done."""
    page = Path(__file__).parents[4] / "doc/drivers/s3.rst"
    text = " ".join(page.read_text().split())
    count = {2: "two", 3: "three", 4: "four", 6: "six", 8: "eight"}[S3Driver.read_concurrency]
    for words in (
        f"as long as that brings {S3Driver.single_stream_rate // MIB} MiB/s or more",
        f"in ranges of {S3Driver.read_size // MIB} MiB, {count} at once",
        f"in one request up to {S3Writer.copy_limit // (1024 * MIB)} GiB",
        f"in parts of at least {S3Writer.copy_part // MIB} MiB above",
        f"{MOST_PARTS:,} of them are the largest object",
    ):
        assert words in text
