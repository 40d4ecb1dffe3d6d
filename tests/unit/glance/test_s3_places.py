"""S3 URIs that glance_store wrote: they are obeyed whatever their host is, as it ignored that."""

import hashlib
import io
import logging

import pytest

import store_lib.glance as glance_store
from store_lib.glance import exceptions
from tests.scripted_server import ScriptedServer
from tests.unit.drivers.s3.server import S3Server

DATA = bytes(range(256)) * 300

SECTION = """
s3_store_host = HOST
s3_store_access_key = key-of-tests
s3_store_secret_key = secret-of-tests
s3_store_bucket = BUCKET
s3_store_bucket_url_format = FORMAT
"""


@pytest.fixture
def s3():
    with ScriptedServer() as server:
        yield S3Server(server)


def section(s3, bucket="box", path="", url_format="auto"):
    text = SECTION.replace("HOST", s3.server.url + path).replace("FORMAT", url_format)
    return text.replace("BUCKET", bucket)


def several(s3):
    return (
        "[DEFAULT]\nenabled_backends = s:s3, t:s3\n[glance_store]\ndefault_backend = s\n"
        f"[s]{section(s3)}[t]{section(s3, 'box-2')}"
    )


def host_of(s3):
    return s3.server.url.partition("://")[2]


WRITTEN = [
    "s3://HOST/box/one",
    "s3+http://HOST/box/one",
    "s3+https://HOST/box/one",
    "s3://KEY:SECRET@HOST/box/one",
    "s3+https://KEY:SEC/RET@HOST/box/one",
]


@pytest.mark.parametrize("uri", WRITTEN)
def test_each_form_that_glance_store_wrote_is_obeyed(service, s3, uri, caplog):
    """With a port, with a login, by either scheme; nothing is warned of and no secret printed."""
    conf = service.start(several(s3))
    uri = uri.replace("HOST", host_of(s3))
    s3.store("one", DATA)
    with caplog.at_level(logging.DEBUG, "store_lib"):
        assert glance_store.get_size_from_uri_and_backend(uri, "s") == len(DATA)
        pieces, length = glance_store.get(uri, "s")
        assert (b"".join(pieces), length) == (DATA, len(DATA))
        glance_store.delete(uri, "s")
    assert not s3.objects
    assert "SEC" not in caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert conf.enabled_backends == {"s": "s3", "t": "s3"}


@pytest.mark.parametrize("form", ["auto", "path"])
def test_a_server_below_a_path_is_part_of_the_uri(service, s3, form):
    """What is added has the URI that glance_store would have written, and is found by it."""
    s3.path = "/object/store"
    conf = service.start_single(
        "[glance_store]\nstores = s3\ndefault_store = s3\n"
        + section(s3, path=s3.path, url_format=form)
    )
    uri, *_ = glance_store.add_to_backend_with_multihash(
        conf, "one", io.BytesIO(DATA), len(DATA), "sha256"
    )
    assert uri == f"s3://{host_of(s3)}/object/store/box/one"
    pieces, _ = glance_store.get_from_backend(uri)
    assert hashlib.md5(b"".join(pieces)).digest() == hashlib.md5(DATA).digest()
    glance_store.delete_from_backend(uri)
    assert not s3.objects


@pytest.mark.parametrize("single", [True, False])
def test_an_old_host_is_obeyed_with_one_warning(service, s3, caplog, single):
    """It names the option, and comes once however many images have such URIs."""
    named = [] if single else ["s"]
    if single:
        service.start_single("[glance_store]\nstores = s3\ndefault_store = s3\n" + section(s3))
    else:
        service.start(several(s3))
    get, size, delete = (
        (
            glance_store.get_from_backend,
            glance_store.get_size_from_backend,
            glance_store.delete_from_backend,
        )
        if single
        else (glance_store.get, glance_store.get_size_from_uri_and_backend, glance_store.delete)
    )
    for place in ("s3://old.example:8080", "s3+https://KEY:SECRET@older.example/path"):
        s3.store("one", DATA)
        assert size(f"{place}/box/one", *named) == len(DATA)
        assert b"".join(get(f"{place}/box/one", *named)[0]) == DATA
        delete(f"{place}/box/one", *named)
        assert not s3.objects
        with pytest.raises(exceptions.NotFound):
            get(f"{place}/box/one", *named)
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "former_places" in warnings[0]
    assert "s3://old.example:8080/box/one" in warnings[0]
    assert "SECRET" not in caplog.text


def test_an_old_host_that_is_listed_is_not_warned_of(service, s3, caplog):
    """The operator knows."""
    service.start(several(s3).replace("[t]", "former_places = old.example\n[t]"))
    s3.store("one", DATA)
    assert glance_store.get_size_from_uri_and_backend("s3://old.example/box/one", "s") == len(DATA)
    glance_store.delete("s3://old.example/box/one", "s")
    assert not s3.objects
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_an_image_in_another_bucket_is_read_and_deleted_if_it_is_one_of_ours(service, s3):
    """glance_store leaves no mark, so a bucket that was given up has to be listed for deletes."""
    conf = service.start(several(s3))
    s3.twin = "former"
    s3.store("old", DATA)
    uri = f"s3://{host_of(s3)}/former/old"
    assert glance_store.get_size_from_uri_and_backend(uri, "s") == len(DATA)
    with pytest.raises(exceptions.Forbidden, match="former_places"):
        glance_store.delete(uri, "s")
    added = glance_store.add_with_multihash(conf, "new", io.BytesIO(DATA), len(DATA), "s", "md5")
    glance_store.delete(added[0].replace("/box/", "/former/"), "s")
    assert set(s3.objects) == {"old"}
    service.start(several(s3).replace("[t]", f"former_places = {host_of(s3)}/former\n[t]"))
    glance_store.delete(uri, "s")
    assert not s3.objects


def test_a_bucket_whose_name_begins_like_anothers_is_its_own_stores(service, s3, caplog):
    """Glance takes box-2 for box, by the prefix; what is there is deleted all the same."""
    service.start(several(s3))
    s3.twin = "box-2"
    s3.store("old", DATA)
    glance_store.delete(f"s3://{host_of(s3)}/box-2/old", "s")
    assert not s3.objects
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
