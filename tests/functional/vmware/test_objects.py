"""Where objects go, how they are found again, and who gets in whose way."""

import concurrent.futures
import os
import threading
from collections.abc import Iterator

import pytest

from store_lib import CreateOnly, Stores
from store_lib.exceptions import BadStoreUri, Duplicate, NotFound, StorageFull
from tests.functional.vmware.conftest import Make
from tests.servers.vsphere import VSphere

MIB = 1024 * 1024


def test_an_object_is_a_file_under_its_id(vcenter: VSphere, make: Make) -> None:
    """An object has the URI that glance_store would give it, and lies under its id alone."""
    store = make("/folder/DC1:ds-c", vmware_store_image_dir="/images/glance")
    result = store.add("an-id", b"some bytes")
    prefix = f"vsphere://{vcenter.host}/folder/images/glance/"
    assert result.uri == f"{prefix}an-id?dcPath=folder%2FDC1&dsName=ds-c"
    assert store.driver is not None
    assert store.driver.url_prefix == prefix
    assert vcenter.files("/folder/DC1:ds-c") == ["images/glance/an-id"]
    assert store.get(result.uri).read() == b"some bytes"
    assert store.stat(result.uri).size == 10


def test_glance_stores_own_uri_is_read(vcenter: VSphere, make: Make) -> None:
    """A URI with the query the other way round, and the path with a slash, names the same."""
    store = make()
    store.add("an-id", b"some bytes")
    query = "dsName=ds-a&dcPath=%2FDC0"
    uri = f"vsphere://{vcenter.host}/folder/openstack_glance/an-id?{query}"
    assert store.get(uri).read() == b"some bytes"
    store.delete(uri)
    assert vcenter.files() == []


def test_the_highest_weight_with_room_is_taken(vcenter: VSphere, make: Make) -> None:
    """The heaviest datastore comes first; what does not fit goes to the next weight."""
    store = make("/DC0:ds-a:5", "/DC0:ds-small:10")
    assert "dsName=ds-small" in store.add("small", bytes(MIB), MIB).uri
    assert "dsName=ds-a" in store.add("large", bytes(9 * MIB), 9 * MIB).uri
    vcenter.free("/DC0:ds-small", 0)
    assert "dsName=ds-a" in store.add("unknown", iter([b"abc"])).uri


def test_among_equals_the_most_free_space_decides(vcenter: VSphere, make: Make) -> None:
    """Of datastores of one weight the one with the most room is taken, as it changes."""
    store = make("/DC0:ds-a", "/DC0:ds-b", "/folder/DC1:ds-c:-1")
    assert "dsName=ds-b" in store.add("one", b"abc").uri
    vcenter.free("/DC0:ds-b", 10 * MIB)
    assert "dsName=ds-a" in store.add("two", b"abc").uri
    space = store.space()
    assert space.total == (2048 + 10 + 4096) * MIB
    assert space.free == space.total - 6


def test_room_is_asked_for_in_one_call(vcenter: VSphere, make: Make) -> None:
    """However many datastores there are, one call of the property collector tells their room."""
    store = make("/DC0:ds-a", "/DC0:ds-b", "/DC0:ds-small", "/folder/DC1:ds-c")
    vcenter.reset()
    store.space()
    assert [each["operation"] for each in vcenter.requests()] == ["RetrievePropertiesEx"]


def test_an_add_is_refused_before_a_byte_moves_where_there_is_no_room(
    vcenter: VSphere, make: Make
) -> None:
    """A size that fits nowhere is StorageFull, which tells the room that there is."""
    store = make("/DC0:ds-small")
    with pytest.raises(StorageFull, match=r"9437184 bytes, got DC0:ds-small \(8388608 free\)"):
        store.add("large", bytes(9 * MIB), 9 * MIB)
    assert vcenter.requests("PUT") == []


def test_a_second_add_is_a_duplicate_on_any_datastore(vcenter: VSphere, make: Make) -> None:
    """An id that lies on one datastore cannot be added to another one."""
    store = make("/DC0:ds-a", "/DC0:ds-b")
    assert store.driver is not None
    assert store.driver.create_only is CreateOnly.CHECKED
    uri = store.add("an-id", b"first").uri
    assert "ds-b" in uri
    vcenter.free("/DC0:ds-b", 0)
    with pytest.raises(Duplicate, match="DC0:ds-b"):
        store.add("an-id", b"second")
    assert store.get(uri).read() == b"first"


def test_one_of_ten_racing_adds_wins(vcenter: VSphere, make: Make) -> None:
    """Of ten stores that add one id at once, one is told success, and its bytes are there."""
    stores = [make() for _ in range(10)]
    assert stores[0].driver is not None
    assert stores[0].driver.create_only is CreateOnly.ATOMIC
    begin = threading.Barrier(10)

    def race(number: int) -> str | None:
        begin.wait()
        try:
            return stores[number].add("an-id", bytes([number]) * 1000).uri
        except Duplicate:
            return None

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        uris = list(pool.map(race, range(10)))
    (winner,) = [number for number, uri in enumerate(uris) if uri]
    assert stores[0].get(str(uris[winner])).read() == bytes([winner]) * 1000
    assert vcenter.files() == ["openstack_glance/an-id"]


def test_what_shows_up_meanwhile_on_another_datastore_wins(vcenter: VSphere, make: Make) -> None:
    """An add that finds the id elsewhere once it has published takes its own back."""
    store = make("/DC0:ds-a", "/DC0:ds-b")
    other = make("/DC0:ds-a")
    uris = []

    def source() -> Iterator[bytes]:
        yield b"a" * MIB
        yield b"a" * MIB
        uris.append(other.add("an-id", b"the other one").uri)
        yield b"a"

    with pytest.raises(Duplicate, match="DC0:ds-a"):
        store.add("an-id", source())
    assert vcenter.files("/DC0:ds-b") == []
    assert store.get(uris[0]).read() == b"the other one"


def test_leftovers_are_told_and_swept(vcenter: VSphere, make: Make) -> None:
    """What a killed add left is listed with its id, is no object, and goes by its age."""
    store = make()
    store.add("whole", b"abc")
    name = f"store_lib-upload-{'0' * 32}-half"
    left = vcenter.directories["/DC0:ds-a"] / "openstack_glance" / name
    left.write_bytes(b"half of it")
    stranger = left.with_name("store_lib-upload-notes.txt")
    stranger.write_text("an operator's own")
    os.utime(left, (1000, 1000))
    assert [each.object_id for each in store.list()] == ["whole"]
    (found,) = store.list_incomplete()
    assert (found.object_id, found.size, found.modified) == ("half", 10, 1000)
    assert [each.object_id for each in store.sweep(3600)] == ["half"]
    assert vcenter.files() == [f"openstack_glance/{stranger.name}", "openstack_glance/whole"]
    stranger.unlink()


def test_a_store_lists_nothing_before_its_first_add(vcenter: VSphere, make: Make) -> None:
    """Without its directory a store is empty; the first add makes it."""
    store = make(vmware_store_image_dir="not/yet/there")
    assert list(store.list()) == []
    assert list(store.list_incomplete()) == []
    assert store.get(store.add("a", b"abc").uri).read() == b"abc"


def test_a_directory_that_went_away_is_made_again(vcenter: VSphere, make: Make) -> None:
    """An add whose directory was removed makes it anew, where its bytes can be sent again."""
    store = make(vmware_store_image_dir="temporary")
    store.delete(store.add("a", b"abc").uri)
    (vcenter.directories["/DC0:ds-a"] / "temporary").rmdir()
    assert store.get(store.add("b", b"abc").uri).read() == b"abc"


def test_two_stores_are_told_apart_by_their_uris(vcenter: VSphere) -> None:
    """In the multi-store form each store has the type vmware, and URIs find their store."""
    sections = {
        "DEFAULT": {"enabled_backends": "one:vmware, two:vmware"},
        "one": vcenter.options("/DC0:ds-a"),
        "two": vcenter.options("/DC0:ds-b", vmware_store_image_dir="two"),
    }
    with Stores.from_mapping(sections, strict=True) as stores:
        one = stores.add("an-id", b"first", store="one")
        two = stores.add("an-id", b"second", store="two")
        assert stores.get(one.uri).read() == b"first"
        assert stores.get(two.uri).read() == b"second"
        with pytest.raises(BadStoreUri, match=r"begins with .*/folder/openstack_glance/"):
            stores.get(two.uri, store="one")
        stores.delete(two.uri)
        with pytest.raises(NotFound):
            stores.stat(two.uri)
        assert stores.stat(one.uri).size == 5


def test_it_logs_out_when_it_is_closed(vcenter: VSphere, make: Make) -> None:
    """A closed store has no session on the server any more."""
    before = vcenter.sessions()
    store = make()
    store.add("a", b"abc")
    assert vcenter.sessions() == before + 1
    store.close()
    assert vcenter.sessions() == before


def test_tickets_are_used_where_a_session_is_refused(ticketing: VSphere) -> None:
    """Where the data server refuses the session, each request has a ticket of its own."""
    options = ticketing.options("/DC0:ds-a")
    sections = {"DEFAULT": {"enabled_backends": "vm:vmware"}, "vm": options}
    earlier = len(ticketing.requests("HEAD", "PUT", "GET"))
    with Stores.from_mapping(sections, strict=True) as stores:
        uri = stores.add("an-id", iter([b"a" * MIB, b"b" * MIB, b"c"])).uri
        assert stores.get(uri, 2 * MIB).read() == b"c"
        ticketing.logout()
        assert stores.get(uri, 2 * MIB - 1).read() == b"bc"
        stores.delete(uri)
    cookies = [each["cookie"] for each in ticketing.requests("HEAD", "PUT", "GET")][earlier:]
    assert cookies[0] == "vmware_soap_session"
    assert set(cookies[1:]) == {"vmware_cgi_ticket"}
    assert ticketing.files() == []
