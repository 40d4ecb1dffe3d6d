"""Real Glance on store_lib in every deployment that the documentation shows."""

import hashlib
import os
from collections.abc import Iterator

import pytest

from tests.functional.glance.deployments import Deployments, Site
from tests.scripted_server import Reply, ScriptedServer
from tests.servers.glance_api import ImageApi, Refused, pieces_of
from tests.servers.process import eventually

MIB = 1024 * 1024

BLOCK = os.urandom(MIB)


def piece_of(number: int) -> bytes:
    """Return a MiB that is like none of another number."""
    return number.to_bytes(8, "big") + BLOCK[8:]


#: What is sent.
DATA = b"".join(map(piece_of, range(32)))

GIB = 1024 * MIB

#: The sites that take chunked bodies, and whether Glance sees a body while it comes.
CHUNKED = {
    "uwsgi-http": True,
    "gunicorn": True,
    "apache-mod_proxy": True,
    "nginx-proxy_pass": True,
    "nginx-proxy_pass-buffered": False,
    "nginx-uwsgi_pass": False,
    "apache-mod_wsgi": True,
}
LENGTH_ONLY = {
    "apache-mod_proxy_uwsgi": True,
    "apache-mod_proxy_uwsgi-sendcl": True,
    "nginx-uwsgi_pass-plain": False,
    "apache-mod_wsgi-plain": True,
}

#: Where a gigabyte is sent, and whether in chunks too: each way of deploying, as documented.
BIG = {
    "gunicorn": True,
    "apache-mod_proxy": True,
    "apache-mod_proxy_uwsgi": False,
    "apache-mod_wsgi": True,
    "nginx-proxy_pass": True,
    "nginx-uwsgi_pass": True,
}

every_site = pytest.mark.parametrize("site", [*CHUNKED, *LENGTH_ONLY], indirect=True)
chunked_sites = pytest.mark.parametrize("site", CHUNKED, indirect=True)


def at(*sites: str) -> pytest.MarkDecorator:
    """Run a test at some sites."""
    return pytest.mark.parametrize("site", sites, indirect=True)


def assert_whole(api: ImageApi, image: str) -> None:
    """An image is active, has the digests of ``DATA``, and gives its bytes."""
    shown = api.show(image)
    assert (shown["status"], shown["size"]) == ("active", len(DATA))
    assert shown["checksum"] == hashlib.md5(DATA).hexdigest()
    assert shown["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
    status, data = api.read(image)
    assert status == 200
    assert data == DATA


@every_site
def test_upload_of_known_length(api: ImageApi, site: Site) -> None:
    """An upload with Content-Length is stored, comes back whole, and goes with its image."""
    with api.image() as image:
        api.upload(image, DATA, len(DATA))
        assert_whole(api, image)
        assert site.files() == [image]


@chunked_sites
def test_chunked_upload(api: ImageApi, site: Site) -> None:
    """A chunked upload is stored, in the store that it names."""
    with api.image() as image:
        api.upload(image, DATA, store="slow")
        assert_whole(api, image)
        assert site.files("slow") == [image]


@chunked_sites
def test_chunks_of_any_size(api: ImageApi) -> None:
    """A client may send chunks of one byte and of many MiB in one body."""
    sizes = [1, 5 * MIB, 1, 65536, 3, 9 * MIB]

    def pieces() -> Iterator[bytes]:
        start = 0
        for size in sizes:
            yield DATA[start : start + size]
            start += size
        yield DATA[start:]

    with api.image() as image:
        api.upload(image, pieces())
        assert_whole(api, image)


@pytest.fixture
def uploaded(api: ImageApi) -> Iterator[str]:
    """The id of an image with ``DATA``."""
    with api.image() as image:
        api.upload(image, DATA, len(DATA))
        yield image


@every_site
def test_ranges(api: ImageApi, uploaded: str) -> None:
    """A Range request answers 206 with those bytes and no others, and 416 behind the end."""
    size = len(DATA)
    for asked, start, end in [
        ("bytes=0-0", 0, 1),
        ("bytes=1048570-3000000", 1048570, 3000001),
        (f"bytes={size - 70000}-", size - 70000, size),
        ("bytes=-100", size - 100, size),
    ]:
        with api.download(uploaded, asked) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
            assert answer.read() == DATA[start:end]
    assert api.read(uploaded, f"bytes={size}-")[0] == 416


@every_site
def test_import_to_several_stores(api: ImageApi, site: Site) -> None:
    """A staged image goes to every store that the import names, and staging is cleared."""
    with api.image() as image:
        api.upload(image, DATA, len(DATA), to="stage")
        assert site.files() == [image]  # the staged one
        api.start_import(image, "glance-direct", stores=["fast", "slow"])
        shown = api.wait_imported(image)
        assert sorted(shown["stores"].split(",")) == ["fast", "slow"]
        assert_whole(api, image)
        assert site.files("fast") == site.files("slow") == [image]
        assert site.files("staging") == []


@every_site
def test_web_download(api: ImageApi, site: Site) -> None:
    """An image that Glance fetches from a web server goes where the import says."""
    with ScriptedServer(lambda request: Reply(body=DATA)) as web, api.image() as image:
        uri = f"http://127.0.0.1:{web.port}/image"
        api.start_import(image, "web-download", uri=uri, stores=["slow"])
        assert api.wait_imported(image)["stores"] == "slow"
        assert_whole(api, image)
        assert site.files() == [image]


@every_site
def test_copy_image(api: ImageApi, site: Site, uploaded: str) -> None:
    """copy-image brings an image from one store to another, and its data can leave either."""
    api.start_import(uploaded, "copy-image", stores=["slow"])
    assert api.wait_imported(uploaded)["stores"] == "fast,slow"
    assert site.files("fast") == site.files("slow") == [uploaded]
    api.json("DELETE", f"/v2/stores/fast/{uploaded}")
    assert site.files() == [uploaded]
    assert_whole(api, uploaded)


@every_site
def test_discovery(api: ImageApi, site: Site) -> None:
    """The stores and their details are told, the default one and the read-only one marked."""
    stores = {each["id"]: each for each in api.json("GET", "/v2/info/stores/detail")["stores"]}
    assert list(stores) == ["fast", "slow", "web"]
    assert stores["fast"]["default"] == "true"
    assert stores["fast"]["type"] == stores["slow"]["type"] == "file"
    assert stores["fast"]["properties"]["data_dir"] == str(site.data / "fast")
    assert stores["web"] == {
        "id": "web",
        "type": "http",
        "read-only": "true",
        "properties": {},
        "weight": 0,
    }
    plain = api.json("GET", "/v2/info/stores")["stores"]
    assert [each["id"] for each in plain] == ["fast", "slow", "web"]


@every_site
def test_health_check(api: ImageApi) -> None:
    """The health check answers OK."""
    answer = api.call("GET", "/healthcheck")
    assert (answer.status, answer.data) == (200, b"OK")


@every_site
def test_cut_upload(api: ImageApi, site: Site) -> None:
    """An upload that ends before its length leaves nothing, and the image waits for another."""
    assert_nothing_left(api, site, len(DATA))


@chunked_sites
def test_cut_chunked_upload(api: ImageApi, site: Site) -> None:
    """So does a chunked upload that ends without its last chunk."""
    assert_nothing_left(api, site, None)


def assert_nothing_left(api: ImageApi, site: Site, size: int | None) -> None:
    """Hang up in the middle of an upload; the next one succeeds."""
    with api.image() as image:
        with api.cut(image, DATA[: 3 * MIB], size=size):
            if {**CHUNKED, **LENGTH_ONLY}[site.name]:
                eventually(lambda: api.show(image)["status"] == "saving", "the upload's start")
        eventually(
            lambda: api.show(image)["status"] == "queued" and not site.files(),
            "the upload's end",
        )
        api.upload(image, DATA, len(DATA))
        assert_whole(api, image)


def gigabyte() -> Iterator[bytes]:
    """Yield 1 GiB in pieces of 1 MiB."""
    return map(piece_of, range(1024))


@pytest.fixture(scope="module")
def gigabyte_digests() -> tuple[str, str]:
    """What Glance is to tell of the gigabyte: md5 and sha512."""
    md5, sha512 = hashlib.md5(), hashlib.sha512()
    for piece in gigabyte():
        md5.update(piece)
        sha512.update(piece)
    return md5.hexdigest(), sha512.hexdigest()


@pytest.mark.parametrize(
    ("site", "chunked"),
    [(site, chunked) for site in BIG for chunked in (False, True)[: 1 + BIG[site]]],
    ids=lambda value: {False: "length", True: "chunked"}.get(value, value),
    indirect=["site"],
)
def test_a_gigabyte(
    api: ImageApi, site: Site, chunked: bool, gigabyte_digests: tuple[str, str]
) -> None:
    """1 GiB goes in and comes out as it was, its last MiB by itself too, and is deleted."""
    with api.image() as image:
        pieces = (part for piece in gigabyte() for part in pieces_of(piece))
        api.upload(image, pieces, None if chunked else GIB)
        assert site.files() == [image]
        shown = api.show(image)
        assert (shown["status"], shown["size"]) == ("active", GIB)
        assert (shown["checksum"], shown["os_hash_value"]) == gigabyte_digests
        with api.download(image) as answer:
            for piece in gigabyte():
                assert answer.read(MIB) == piece
            assert answer.read() == b""
        assert api.read(image, f"bytes=-{MIB}") == (206, piece_of(1023))
    assert site.files() == []


@at("apache-mod_proxy_uwsgi", "apache-mod_proxy_uwsgi-sendcl")
def test_mod_proxy_uwsgi_refuses_chunked_bodies(api: ImageApi) -> None:
    """Apache answers 411 to a chunked body, with proxy-sendcl or not; Content-Length works."""
    with api.image() as image:
        with pytest.raises(Refused, match="Length Required") as refused:
            api.upload(image, DATA)
        assert refused.value.status == 411
        api.upload(image, DATA, len(DATA))
        assert_whole(api, image)


@at("apache-mod_wsgi-plain")
def test_mod_wsgi_needs_a_directive(api: ImageApi) -> None:
    """Without WSGIChunkedRequest Apache answers 411 to a chunked body."""
    with api.image() as image:
        with pytest.raises(Refused, match="Length Required") as refused:
            api.upload(image, DATA)
        assert refused.value.status == 411


@at("nginx-uwsgi_pass-plain")
def test_uwsgi_pass_needs_a_parameter(api: ImageApi) -> None:
    """Without the empty HTTP_TRANSFER_ENCODING a chunked body ends in 500 and stores nothing."""
    with api.image() as image:
        with pytest.raises(Refused) as refused:
            api.upload(image, DATA)
        assert refused.value.status == 500
        assert api.show(image)["status"] == "queued"


@at("nginx-uwsgi_pass-limited")
def test_nginx_has_a_limit_of_its_own(api: ImageApi) -> None:
    """Without client_max_body_size nginx refuses what is above 1 MiB with 413."""
    with api.image() as image:
        for size in (len(DATA), None):
            with pytest.raises(Refused, match="Request Entity Too Large") as refused:
                api.upload(image, DATA, size)
            assert refused.value.status == 413
        assert api.show(image)["status"] == "queued"


@at("nginx-uwsgi_pass")
def test_an_upload_outlives_the_web_server_s_patience(
    api: ImageApi, deployments: Deployments
) -> None:
    """nginx answers 504 when it does not want to wait; the image becomes active all the same."""
    with api.image() as image:
        with (
            ImageApi(deployments["nginx-uwsgi_pass-impatient"].url) as impatient,
            pytest.raises(Refused) as refused,
        ):
            impatient.upload(image, DATA, len(DATA))
        assert refused.value.status == 504
        eventually(lambda: api.show(image)["status"] == "active", "the end of the upload")
        assert_whole(api, image)
