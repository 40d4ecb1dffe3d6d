"""What a service hands to a store and gets back, beyond the bytes."""

import hashlib
import io
import os
import socket

import pytest

import store_lib.glance as glance_store
from store_lib.glance import location
from tests.unit.glance.conftest import TWO_STORES

MIB = 1024 * 1024


class Verifier:
    """Keeps what it is shown; ``verify`` may be called once, as with cryptography's."""

    def __init__(self):
        self.seen = []
        self.verified = 0

    def update(self, data):
        assert type(data) is bytes
        self.seen.append(data)

    def verify(self):
        self.verified += 1


@pytest.mark.parametrize("size", [10, 3 * MIB + 5])
def test_a_verifier_sees_every_byte_and_is_left_to_the_service(two_stores, size):
    """The verifier gets all bytes in order before add returns; the service calls verify."""
    data, verifier = os.urandom(size), Verifier()
    glance_store.add_with_multihash(
        two_stores, "one", io.BytesIO(data), size, "fast", "md5", verifier=verifier
    )
    assert b"".join(verifier.seen) == data
    assert verifier.verified == 0


class Reads:
    """A service's reader: ``read`` needs an amount, and each call costs something."""

    def __init__(self, size, error=None):
        self.left = size
        self.error = error
        self.calls = []

    def read(self, amount):
        self.calls.append(amount)
        if self.error is not None and not self.left:
            raise self.error
        amount = min(amount, self.left)
        self.left -= amount
        return bytes(amount)


@pytest.mark.parametrize(("said", "amount"), [(16 * MIB, MIB), (0, MIB // 4)])
def test_reads_of_the_source(service, said, amount):
    """Few reads, at which Glance pauses; short ones of a chunked body, which it copies for each."""
    conf = service.start(TWO_STORES + "[fast]\nfilesystem_store_chunk_size = 8388608\n")
    source = Reads(16 * MIB)
    added = glance_store.add_with_multihash(conf, "one", source, said, "fast", "sha512")
    assert added[1:3] == (16 * MIB, hashlib.md5(bytes(16 * MIB)).hexdigest())
    assert len(source.calls) == 16 * MIB // amount + 1  # one that shows the end
    assert set(source.calls) == {amount}


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_an_error_of_the_source_is_handed_on(two_stores, tmp_path, size):
    """What the service's own reader raises reaches it as the same object; nothing is left."""
    error = RuntimeError("over the limit")
    with pytest.raises(RuntimeError) as caught:
        glance_store.add_with_multihash(two_stores, "one", Reads(size, error), 0, "fast", "md5")
    assert caught.value is error
    assert os.listdir(tmp_path / "fast") == []


def test_what_get_gives_can_be_added(two_stores):
    """A copy from store to store hands the iterator of get() to add, with or without a size."""
    data = os.urandom(2 * MIB + 1)
    uri = glance_store.add(two_stores, "one", io.BytesIO(data), len(data), "fast")[0]
    for number, wrap in enumerate((lambda each: each, lambda each: (piece for piece in each))):
        pieces, size = glance_store.get(uri, "fast")
        store = glance_store.get_store_from_store_identifier("os_glance_staging_store")
        copy = store.add(f"copy{number}", wrap(pieces), size)
        assert copy[1] == len(data)
        assert b"".join(store.get(_location(copy[0], "os_glance_staging_store"))[0]) == data


def _location(uri, store):
    return location.get_location_from_uri_and_backend(uri, store)


def test_a_location_shows_no_uri(two_stores, tmp_path):
    """What a service may log of a location and a store has no URI in it."""
    loc = _location(f"file://{tmp_path}/fast/one", "fast")
    assert loc.get_store_uri() == f"file://{tmp_path}/fast/one"
    assert loc.get_uri() is None
    store = glance_store.get_store_from_store_identifier("fast")
    for each in (loc, loc.store_location, store):
        assert "one" not in repr(each)
    assert repr(store) == "<store_lib.glance._drivers.filesystem.Store fast>"


def test_the_size_of_what_is_on_no_server(with_web):
    """A server that does not answer is a bad URI to a service that asks for the size."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
        with_web.set_override("transfer_attempts", 1, group="web")
        glance_store.create_multi_stores(with_web)
        with pytest.raises(glance_store.BadStoreUri, match="cannot be read"):
            glance_store.get_size_from_uri_and_backend(uri, "web")
        with pytest.raises(glance_store.RemoteServiceUnavailable):
            glance_store.get(uri, "web")


def test_metadata_of_the_metadata_file(service):
    """The file store's metadata are returned beside the store's id."""
    (service.directory / "meta.json").write_text(
        f'{{"id": "m", "mountpoint": "{service.directory}", "more": ["a"]}}'
    )
    conf = service.start(
        "[DEFAULT]\nenabled_backends = fast:file\n[glance_store]\ndefault_backend = fast\n"
        "[fast]\nfilesystem_store_datadir = DIR/fast\n"
        "filesystem_store_metadata_file = DIR/meta.json\n"
    )
    for _ in range(2):
        found = glance_store.add(conf, os.urandom(4).hex(), io.BytesIO(b"x"), 1, None)[3]
        assert found.pop("store") == "fast"
        assert found == {"id": "m", "mountpoint": str(service.directory), "more": ["a"]}


@pytest.mark.parametrize("bad", [None, 1, ("a",), {"a": 1}, ["a", {"b": [None]}]])
def test_metadata_that_cannot_be_kept(bad):
    """Only dict, list and str get into a service's database."""
    glance_store.check_location_metadata({"a": ["b", {"c": "d"}], "e": ""})
    with pytest.raises(glance_store.BackendException, match="invalid type"):
        glance_store.check_location_metadata({"x": bad})


def test_what_a_store_returns_is_checked():
    """A store whose metadata cannot be kept is a BackendException, not a broken database."""

    class Odd:
        def add(self, *args, **named):
            return "x://y", 1, "md5", self.metadata

    odd = Odd()
    for odd.metadata in ({"a": 1}, ["a"]):
        with pytest.raises(glance_store.BackendException, match="metadata"):
            glance_store.store_add_to_backend("one", None, 0, odd)
    odd.metadata = None
    assert glance_store.store_add_to_backend("one", None, 0, odd)[3] is None
