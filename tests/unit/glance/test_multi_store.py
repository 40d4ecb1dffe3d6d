"""Several stores, each with a section of its own, through glance_store's functions."""

import fcntl
import hashlib
import io
import os

import pytest
from oslo_config import cfg

import store_lib.glance as glance_store
from store_lib.glance import location, multi_backend
from store_lib.testing.content import Content, FileContent
from store_lib.transfer import digest
from tests.clock import SetClock
from tests.unit.glance.conftest import RESERVED, TWO_STORES

SIZE = 100_000
DATA = os.urandom(SIZE)


def add(conf, image_id="one", data=DATA, size=SIZE, store="fast", algorithm="sha512"):
    return glance_store.add_with_multihash(conf, image_id, io.BytesIO(data), size, store, algorithm)


def test_the_whole_way(two_stores, tmp_path):
    """An image is added, sized, read and deleted, each by glance_store's own tuple."""
    glance_store.verify_store()
    uri, size, checksum, multihash, metadata = add(two_stores)
    assert uri == f"file://{tmp_path}/fast/one"
    assert size == len(DATA)
    assert checksum == hashlib.md5(DATA).hexdigest()
    assert multihash == hashlib.sha512(DATA).hexdigest()
    assert metadata == {"store": "fast"}
    assert glance_store.get_size_from_uri_and_backend(uri, "fast") == len(DATA)
    pieces, length = glance_store.get(uri, "fast")
    assert (b"".join(pieces), length) == (DATA, len(DATA))
    assert glance_store.delete(uri, "fast") is None
    with pytest.raises(glance_store.NotFound):
        glance_store.delete(uri, "fast")


def test_four_values_without_an_algorithm(two_stores):
    """add() and a store's own add without an algorithm leave the second digest out."""
    four = glance_store.add(two_stores, "one", io.BytesIO(DATA), len(DATA), "slow")
    assert four[1:] == (len(DATA), hashlib.md5(DATA).hexdigest(), {"store": "slow"})
    store = glance_store.get_store_from_store_identifier("slow")
    assert len(store.add("two", io.BytesIO(DATA), len(DATA))) == 4
    assert len(store.add("three", io.BytesIO(DATA), len(DATA), None)) == 4
    assert len(store.add("four", io.BytesIO(DATA), len(DATA), context=None)) == 4
    assert len(store.add("five", io.BytesIO(DATA), len(DATA), "sha256")) == 5
    assert len(store.add("six", io.BytesIO(DATA), len(DATA), hashing_algo="sha256")) == 5
    assert len(store.add("seven", io.BytesIO(DATA), len(DATA), "md5", None, None)) == 5
    named = {"image_id": "eight", "image_file": io.BytesIO(DATA), "image_size": len(DATA)}
    assert len(store.add(**named)) == 4


def test_no_store_named_is_the_default_one(two_stores):
    """Adding to no store in particular adds to default_backend."""
    assert add(two_stores, store=None)[4] == {"store": "fast"}


def test_size_0_is_an_unknown_size(two_stores):
    """0 is what a service says of a chunked upload, not that the image is empty."""
    assert add(two_stores, size=0)[1] == len(DATA)
    assert add(two_stores, "empty", data=b"", size=0)[1] == 0
    assert (
        glance_store.get(f"file://{two_stores.fast.filesystem_store_datadir}/empty", "fast")[1] == 0
    )


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_another_size_than_declared_is_invalid(two_stores, size):
    """Too many or too few bytes are Invalid, as a service expects, and nothing is stored."""
    with pytest.raises(glance_store.Invalid, match="Expected"):
        add(two_stores, size=size)
    assert os.listdir(two_stores.fast.filesystem_store_datadir) == []


@pytest.mark.parametrize("algorithm", ["SHA256", "none such", "shake_128", None])
def test_an_unknown_algorithm_reads_nothing(two_stores, algorithm):
    """UnknownHashingAlgo comes before the first read; names are case-sensitive."""
    source = io.BytesIO(DATA)
    with pytest.raises(glance_store.UnknownHashingAlgo):
        glance_store.add_with_multihash(two_stores, "one", source, 0, "fast", algorithm)
    assert source.tell() == 0


def test_a_digest_is_known_everywhere_at_once(two_stores, monkeypatch, tmp_path):
    """A name that transfer.digest alone knows can be used here, and by the conformance checks."""
    name, usual = "blake2b-256", digest._template

    def template(wanted):
        return hashlib.blake2b(digest_size=32) if wanted == name else usual(wanted)

    monkeypatch.setattr(digest, "_template", template)
    expected = hashlib.blake2b(DATA, digest_size=32).hexdigest()
    assert add(two_stores, algorithm=name)[3] == expected
    (tmp_path / "file").write_bytes(DATA)
    assert FileContent(tmp_path / "file").digest(name) == expected
    content = Content(SIZE)
    assert content.digest(name) == hashlib.blake2b(content.whole(), digest_size=32).hexdigest()
    digest._known.cache_clear()  # which has learned it


def test_a_second_add_is_a_duplicate(two_stores):
    """An id that is taken is Duplicate, and what is there stays."""
    uri = add(two_stores)[0]
    with pytest.raises(glance_store.Duplicate):
        add(two_stores, data=b"other", size=5)
    assert b"".join(glance_store.get(uri, "fast")[0]) == DATA


def test_ranges(two_stores):
    """offset and chunk_size are a range; None and 0 as chunk_size mean the rest."""
    uri = add(two_stores)[0]
    for offset, length, wanted in (
        (10, 20, DATA[10:30]),
        (10, None, DATA[10:]),
        (0, 5, DATA[:5]),
        (0, 0, DATA),
        (len(DATA) - 3, 50, DATA[-3:]),
    ):
        pieces, size = glance_store.get(uri, "fast", offset=offset, chunk_size=length)
        assert (b"".join(pieces), size) == (wanted, len(wanted))


def test_errors_of_get_come_from_get(two_stores, tmp_path):
    """A missing image is NotFound at once, so that a service can try the next location."""
    with pytest.raises(glance_store.NotFound):
        glance_store.get(f"file://{tmp_path}/fast/none", "fast")


def test_no_store_named_is_a_search(two_stores, tmp_path):
    """Without a store's id every store that has such URIs is asked for it."""
    uri = add(two_stores, store="slow")[0]
    assert b"".join(glance_store.get(uri, None)[0]) == DATA
    glance_store.delete(uri, None)
    for call in (glance_store.get, glance_store.delete):
        with pytest.raises(glance_store.NotFound, match="in any configured backend"):
            call(uri, None)
        with pytest.raises(glance_store.NotFound):
            call("file:///etc/hosts", None)


def test_unknown_stores_and_schemes(with_web, tmp_path):
    """What is not configured is UnknownScheme with a text for the client, never KeyError."""
    with pytest.raises(glance_store.UnknownScheme) as caught:
        glance_store.get_store_from_store_identifier("nowhere")
    assert caught.value.msg == "Store for identifier nowhere not found"
    for uri, store in (
        ("nothing://x", "fast"),
        (f"file://{tmp_path}/fast/x", "nowhere"),
        (f"file://{tmp_path}/fast/x", "web"),
        (f"{tmp_path}/fast/x", "fast"),
    ):
        with pytest.raises(glance_store.UnknownScheme):
            location.get_location_from_uri_and_backend(uri, store)
    with pytest.raises(glance_store.UnknownScheme):
        glance_store.get_size_from_uri_and_backend(f"file://{tmp_path}/fast/x", None)
    with pytest.raises(glance_store.BadStoreUri):
        location.get_location_from_uri_and_backend("file://no/path", "fast")


def test_files_elsewhere_are_not_deleted(two_stores, tmp_path):
    """A URI outside of the store's directory is refused, and the file stays."""
    other = tmp_path / "other"
    other.write_text("here")
    with pytest.raises(glance_store.BadStoreUri):
        glance_store.delete(f"file://{other}", "fast")
    assert other.exists()


def test_a_store_whose_directory_begins_like_another_ones(service, tmp_path):
    """An image that Glance took for one of the wrong store, by the URI's beginning, is found."""
    conf = service.start(
        "[DEFAULT]\nenabled_backends = one:file, two:file\n[glance_store]\ndefault_backend = one\n"
        "[one]\nfilesystem_store_datadir = DIR/images\n"
        "[two]\nfilesystem_store_datadir = DIR/images-2\n"
        "[os_glance_staging_store]\nfilesystem_store_datadir = DIR/staging\n",
        {"os_glance_staging_store": "file"},
    )
    uri = add(conf, store="two")[0]
    (tmp_path / "images-3").mkdir()
    (tmp_path / "images-3" / "x").write_text("somebody else's")
    assert uri.startswith(glance_store.get_store_from_store_identifier("one").url_prefix)
    assert glance_store.get_size_from_uri_and_backend(uri, "one") == len(DATA)
    assert b"".join(glance_store.get(uri, "one")[0]) == DATA
    for call in (glance_store.get, glance_store.delete):
        for elsewhere, store in (
            (f"file://{tmp_path}/images-3/x", "one"),
            (uri, "os_glance_staging_store"),
        ):
            with pytest.raises(glance_store.BadStoreUri):
                call(elsewhere, store)
    glance_store.delete(uri, "one")
    assert os.listdir(tmp_path / "images-2") == []
    with pytest.raises(glance_store.NotFound):
        glance_store.get(uri, "one")


def test_what_glance_keeps_for_itself_can_be_deleted(two_stores, tmp_path):
    """Files in the staging and task directories go, by their store or by a search."""
    for store, folder in (
        ("os_glance_staging_store", "staging"),
        ("os_glance_tasks_store", "tasks"),
    ):
        staged = glance_store.get_store_from_store_identifier(store)
        assert staged.add("one", io.BytesIO(b"x"), 1)[0] == f"file://{tmp_path}/{folder}/one"
        loc = location.get_location_from_uri_and_backend(f"file://{tmp_path}/{folder}/one", store)
        staged.delete(loc)
        (tmp_path / folder / "two").write_text("x")
        glance_store.delete(f"file://{tmp_path}/{folder}/two", None)
        assert os.listdir(tmp_path / folder) == []


def test_reserved_stores_have_directories_of_their_own(service, tmp_path, monkeypatch):
    """Neither [backend_defaults] nor the driver's default moves what the service reads itself."""
    monkeypatch.setattr(
        "store_lib.glance._impl.options.RESERVED_DATADIR", str(tmp_path / "lib") + "/{}"
    )
    conf = service.start(
        "[DEFAULT]\nenabled_backends = fast:file\n"
        "[glance_store]\ndefault_backend = fast\n"
        "[backend_defaults]\nfilesystem_store_datadir = DIR/shared\n",
        RESERVED,
    )
    for name in RESERVED:
        assert conf[name].filesystem_store_datadir == f"{tmp_path}/lib/{name}"
        store = glance_store.get_store_from_store_identifier(name)
        assert store.add("one", io.BytesIO(b"x"), 1)[0] == f"file://{tmp_path}/lib/{name}/one"
    assert add(conf)[0] == f"file://{tmp_path}/shared/one"


def test_reserved_stores_are_shown_and_survive_new_options(service, tmp_path):
    """enabled_backends has the reserved stores, and filesystem under the name Glance knows."""
    conf = service.start(TWO_STORES, RESERVED)
    assert conf.enabled_backends == {"fast": "file", "slow": "file"} | RESERVED
    conf.register_opt(cfg.StrOpt("something_later"))
    assert conf.enabled_backends["slow"] == "file"
    assert glance_store.get_store_from_store_identifier("os_glance_tasks_store")


@pytest.mark.parametrize(
    ("lines", "durable", "checked"),
    [
        ("", [True, False, False], [True] * 3),
        ("filesystem_store_durable = true\n", [True] * 3, [True] * 3),
        ("filesystem_store_checked_publish = false\n", [True, False, False], [False] * 3),
    ],
    ids=["not set", "durable", "not checked"],
)
def test_what_a_service_expects_of_file_stores(service, tmp_path, lines, durable, checked):
    """Reserved stores sync nothing, and no store insists on links, unless an option is set."""
    reserved = "".join(f"[{name}]\nfilesystem_store_datadir = DIR/{name}\n" for name in RESERVED)
    service.start(
        "[DEFAULT]\nenabled_backends = fast:file\n"
        "[fast]\nfilesystem_store_datadir = DIR/fast\n"
        f"[backend_defaults]\n{lines}{reserved}",
        RESERVED,
    )
    stores = [
        glance_store.get_store_from_store_identifier(name).store_conf
        for name in ("fast", *RESERVED)
    ]
    assert [each.filesystem_store_durable for each in stores] == durable
    assert [each.filesystem_store_checked_publish for each in stores] == checked


def test_default_directory_of_reserved_stores(service):
    """The directory that Glance expects is the default."""
    conf = service.configure("[DEFAULT]\nenabled_backends = fast:file\n")
    glance_store.register_store_opts(conf, reserved_stores=RESERVED)
    for name in RESERVED:
        assert conf[name].filesystem_store_datadir == f"/var/lib/glance/{name}"


def test_what_services_read_of_a_store(with_web, tmp_path):
    """The maps, the prefix, the weight, and a file store's particulars are where they were."""
    entry = location.SCHEME_TO_CLS_BACKEND_MAP["file"]["fast"]
    store = entry["store"]
    assert store is glance_store.get_store_from_store_identifier("fast")
    assert store.url_prefix == f"file://{tmp_path}/fast"
    assert (store.weight, glance_store.get_store_weight("fast")) == (7, 7)
    assert glance_store.get_store_weight("slow") == 0
    assert (store.datadir, store.chunk_size) == (f"{tmp_path}/fast", 65536)
    assert store.thin_provisioning is False
    assert set(glance_store.get_known_schemes_for_multi_store()) == {
        "file",
        "filesystem",
        "http",
        "https",
    }
    assert with_web.fast.weight == 7
    assert with_web.fast.store_description is None
    assert store.is_capable(glance_store.capabilities.BitMasks.RW_ACCESS)
    assert not location.SCHEME_TO_CLS_BACKEND_MAP["http"]["web"]["store"].is_capable(
        glance_store.capabilities.BitMasks.WRITE_ACCESS
    )


def test_a_read_only_store(with_web):
    """The web store refuses with the errors that a service has an answer for."""
    with pytest.raises(glance_store.StoreAddDisabled):
        add(with_web, store="web")
    with pytest.raises(glance_store.StoreDeleteNotSupported):
        glance_store.delete("http://127.0.0.1:1/x", "web")


def test_a_size_that_cannot_be_had_is_told_soon(with_web, monkeypatch):
    """A web server that does not answer is no good URI after 3 seconds, not after 20."""
    clock = SetClock()
    monkeypatch.setattr("store_lib.transfer.timeouts.CLOCK", clock)
    with pytest.raises(glance_store.BadStoreUri):
        glance_store.get_size_from_uri_and_backend("http://127.0.0.1:1/x", "web")
    assert 2 < clock.now() < 3.2


def test_a_misconfigured_store_does_not_stop_the_others(service, tmp_path):
    """The store is there, refuses to add and to delete, and the rest works."""
    conf = service.start(
        "[DEFAULT]\nenabled_backends = good:file, bad:file, none:nothing, odd:s3\n"
        "[glance_store]\ndefault_backend = good\n"
        "[good]\nfilesystem_store_datadir = DIR/good\n"
        "[bad]\nfilesystem_store_datadir = relative\n"
    )
    assert add(conf, store="good")
    bad = glance_store.get_store_from_store_identifier("bad")
    assert bad.url_prefix is None
    assert bad.chunk_size == 65536
    with pytest.raises(glance_store.StoreAddDisabled, match="relative"):
        add(conf, store="bad")
    with pytest.raises(glance_store.StoreDeleteNotSupported):
        glance_store.delete(f"file://{tmp_path}/x", "bad")
    assert glance_store.get_store_from_store_identifier("odd").s3_store_thread_pools == 10
    with pytest.raises(glance_store.UnknownScheme):
        glance_store.get_store_from_store_identifier("none")


@pytest.mark.parametrize("default", ["", "default_backend = nowhere\n"])
def test_a_default_store_that_is_not_there(service, default):
    """verify_store() says so, as a RuntimeError; making the stores does not."""
    service.start(
        "[DEFAULT]\nenabled_backends = fast:file\n"
        f"[glance_store]\n{default}[fast]\nfilesystem_store_datadir = DIR/fast\n"
    )
    with pytest.raises(RuntimeError, match=r"default_backend|nowhere"):
        glance_store.verify_store()


def test_access_lists_are_skipped_where_there_are_none(two_stores, tmp_path):
    """set_acls does nothing on a store that has no such thing."""
    glance_store.set_acls_for_multi_store(
        f"file://{tmp_path}/fast/one", "fast", public=True, read_tenants=["a"], context=None
    )


def test_a_replaced_map_is_the_one_that_counts(two_stores):
    """Tests of services put a new map into the module; the functions use that."""
    location.SCHEME_TO_CLS_BACKEND_MAP = {}
    with pytest.raises(glance_store.UnknownScheme):
        glance_store.get_store_from_store_identifier("fast")
    multi_backend.create_multi_stores(two_stores)
    assert glance_store.get_store_from_store_identifier("fast")


def test_a_new_weight_and_a_new_type_count(two_stores, tmp_path):
    """A weight is what the configuration says now; an id may get another type of store."""
    two_stores.set_override("weight", 9, group="fast")
    assert glance_store.get_store_weight("fast") == 9
    two_stores.set_override("enabled_backends", {"fast": "http"})
    multi_backend.create_multi_stores(two_stores)
    with pytest.raises(glance_store.UnknownScheme):
        glance_store.get(f"file://{tmp_path}/fast/x", "fast")
    assert glance_store.get_store_from_store_identifier("fast").url_prefix == "http"
    two_stores.set_override("enabled_backends", {"fast": "http", "slow": "http"} | RESERVED)
    multi_backend._RESERVED_STORES.clear()
    multi_backend.create_multi_stores(two_stores, dict.fromkeys(RESERVED, "http"))
    assert set(glance_store.get_known_schemes_for_multi_store()) == {"http", "https"}


def test_deleting_a_staged_image_removes_what_broken_uploads_left(two_stores, tmp_path):
    """What a killed upload left goes with its image; another image's, and a live one, stays."""
    staging = tmp_path / "staging"
    staging.mkdir(exist_ok=True)
    killed, live, other = (
        staging / f".store_lib-{digit * 32}-{image}"
        for digit, image in (("1", "one"), ("2", "one"), ("3", "two"))
    )
    for each in (killed, live, other):
        each.write_text("half")
    store = glance_store.get_store_from_store_identifier("os_glance_staging_store")
    loc = location.get_location_from_uri_and_backend(
        f"file://{staging}/one", "os_glance_staging_store"
    )
    with live.open("rb") as upload:
        fcntl.flock(upload, fcntl.LOCK_EX)
        with pytest.raises(glance_store.NotFound):
            store.delete(loc)
        assert {live, other} == set(staging.iterdir())
    store.add("one", io.BytesIO(b"x"), 1)
    store.delete(loc)
    assert {other} == set(staging.iterdir())


def test_only_reserved_stores_lose_leftovers_with_a_delete(two_stores, tmp_path):
    """In a store of images leftovers wait for a sweep, as their pages say."""
    uri = add(two_stores, store="fast")[0]
    left = tmp_path / "fast" / f".store_lib-{'1' * 32}-{uri.rpartition('/')[2]}"
    left.write_text("half")
    glance_store.delete(uri, "fast")
    assert list((tmp_path / "fast").iterdir()) == [left]


def test_reserved_stores_are_not_synced(two_stores):
    """What is kept for a while only costs no sync, unless the operator wants it."""
    for name, durable in (("fast", True), *((name, False) for name in RESERVED)):
        store = glance_store.get_store_from_store_identifier(name)
        assert store.store_conf.filesystem_store_durable is durable
