"""The old form, all stores in one section, through glance_store's functions."""

import contextlib
import fcntl
import hashlib
import io
import os

import pytest
from oslo_config import cfg

import store_lib.glance as glance_store
from store_lib.glance import backend, location

DATA = os.urandom(50_000)


def add(conf, image_id="one", **named):
    return glance_store.add_to_backend_with_multihash(
        conf, image_id, io.BytesIO(DATA), len(DATA), "sha256", **named
    )


def test_the_whole_way(single_store, tmp_path):
    """An image is added, sized, read and deleted; the metadata names no store."""
    glance_store.verify_default_store()
    uri, size, checksum, multihash, metadata = add(single_store)
    assert (uri, size, metadata) == (f"file://{tmp_path}/images/one", len(DATA), {})
    assert checksum == hashlib.md5(DATA).hexdigest()
    assert multihash == hashlib.sha256(DATA).hexdigest()
    assert glance_store.get_size_from_backend(uri) == len(DATA)
    assert b"".join(glance_store.get_from_backend(uri)[0]) == DATA
    pieces, length = glance_store.get_from_backend(uri, offset=7, chunk_size=9)
    assert (b"".join(pieces), length) == (DATA[7:16], 9)
    glance_store.delete_from_backend(uri)
    for call in (
        glance_store.get_from_backend,
        glance_store.get_size_from_backend,
        glance_store.delete_from_backend,
    ):
        with pytest.raises(glance_store.NotFound):
            call(uri)


def test_stores_by_scheme_and_uri(single_store, tmp_path):
    """A store is found by its scheme, and by a URI of its."""
    store = glance_store.get_store_from_scheme("file")
    assert store is glance_store.get_store_from_scheme("filesystem")
    assert store is glance_store.get_store_from_uri(f"file://{tmp_path}/images/x")
    assert glance_store.get_store_from_location(f"file://{tmp_path}/images/x") == "file"
    assert set(glance_store.get_known_schemes()) == {"file", "filesystem"}
    assert (store.weight, store.backend_group) == (0, None)
    with pytest.raises(glance_store.UnknownScheme):
        glance_store.get_store_from_scheme("swift")
    assert add(single_store, scheme="filesystem")[0].startswith("file://")
    assert len(glance_store.add_to_backend(single_store, "two", io.BytesIO(DATA), 0)) == 4


def test_the_default_store_is_not_there(service):
    """verify_default_store() says so, as a RuntimeError."""
    service.start_single("[glance_store]\nstores = http\ndefault_store = file\n")
    with pytest.raises(RuntimeError, match="file"):
        glance_store.verify_default_store()


def test_old_names_of_drivers(service, tmp_path):
    """What very old files call the drivers still works."""
    service.start_single(
        "[glance_store]\nfilesystem_store_datadir = DIR/images\n"
        "stores = glance.store.filesystem.Store, glance.store.http.Store\n"
    )
    assert set(location.SCHEME_TO_CLS_MAP) == {"file", "filesystem", "http", "https"}


def test_the_staging_store_of_a_private_configuration(tmp_path):
    """A ConfigOpts that was never called, with an override, gives a store; in Glance's own way."""
    conf = cfg.ConfigOpts()
    for _ in range(2):
        backend.register_opts(conf)
    conf.set_override("filesystem_store_datadir", str(tmp_path / "s"), group="glance_store")
    store = backend._load_store(conf, "file")
    with pytest.raises(glance_store.BadStoreConfiguration, match="configure"):
        store.add("one", io.BytesIO(b"x"), 1)
    store.configure()
    uri, size, _, metadata = store.add("one", io.BytesIO(b"x"), 1)
    assert (uri, size, metadata) == (f"file://{tmp_path}/s/one", 1, {})
    with pytest.raises(glance_store.Duplicate):
        store.add("one", io.BytesIO(b"x"), 1)
    assert backend._load_store(conf, "none such") is None
    assert backend._load_store(None, "file", invoke_load=False).__name__ == "Store"


def test_what_glance_keeps_for_itself_can_be_deleted(single_store, tmp_path):
    """Files in the staging and task directories go, and cannot be read; one elsewhere stays."""
    single_store.set_override("work_dir", str(tmp_path / "work"), group="task")
    for folder in ("staging", "work", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one").write_text("x")
    for folder in ("staging", "work"):
        with pytest.raises(glance_store.BadStoreUri):
            glance_store.get_from_backend(f"file://{tmp_path}/{folder}/one")
    glance_store.delete_from_backend(f"file://{tmp_path}/staging/one")
    glance_store.delete_from_backend(f"file://{tmp_path}/work/one")
    for uri in (
        f"file://{tmp_path}/elsewhere/one",
        f"file://{tmp_path}/staging/../elsewhere/one",
    ):
        with pytest.raises(glance_store.BadStoreUri):
            glance_store.delete_from_backend(uri)
    with pytest.raises(glance_store.NotFound):
        glance_store.delete_from_backend(f"file://{tmp_path}/staging//one")
    (tmp_path / "staging").rmdir()
    with pytest.raises(glance_store.NotFound):
        glance_store.delete_from_backend(f"file://{tmp_path}/staging/one")
    assert not (tmp_path / "staging").exists()
    assert (tmp_path / "elsewhere" / "one").exists()


@pytest.mark.parametrize("staged", [True, False])
def test_what_broken_uploads_left_goes_with_a_staged_image(single_store, tmp_path, staged):
    """What a killed upload left goes with its image; another image's, and a live one, stays."""
    staging = tmp_path / "staging"
    staging.mkdir()
    killed, live, other = (
        staging / f".store_lib-{digit * 32}-{image}"
        for digit, image in (("1", "one"), ("2", "one"), ("3", "two"))
    )
    for each in (killed, live, other, *([staging / "one"] if staged else [])):
        each.write_text("half")
    missing = contextlib.nullcontext() if staged else pytest.raises(glance_store.NotFound)
    with live.open("rb") as upload:
        fcntl.flock(upload, fcntl.LOCK_EX)
        with missing:
            glance_store.delete_from_backend(f"file://{staging}/one")
    assert set(staging.iterdir()) == {live, other}


def test_access_lists_are_skipped_where_there_are_none(single_store, tmp_path):
    """set_acls does nothing on a store that has no such thing."""
    glance_store.set_acls(f"file://{tmp_path}/images/one", public=True)


def test_indexable():
    """Pieces are given by position, the last one again from any place in it."""

    class Pieces(backend.Indexable):
        def another(self):
            return next(self.wrapped)

    pieces = Pieces(iter([b"abc", b"de"]), 5)
    assert len(pieces) == 5
    assert (pieces[0:], pieces[1:], pieces[3:]) == (b"abc", b"bc", b"de")
    assert list(backend.Indexable([b"a", b"b"], 2)) == [b"a", b"b"]
    assert backend.Indexable(io.BytesIO(b"ab"), None).getvalue() == b"ab"
