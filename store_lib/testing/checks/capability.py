"""What a store claims works; what it does not claim is refused clearly, and at once."""

import re
import urllib.request
from typing import Any

from store_lib import CreateOnly, capabilities
from store_lib.exceptions import (
    BadStoreUri,
    Duplicate,
    NotFound,
    NotSupported,
    StoreAddDisabled,
    StoreDeleteNotSupported,
    UnknownScheme,
    UnknownStore,
)
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import NotApplicable, expect, expect_bytes, expect_equal, raises
from store_lib.testing.sources import InFlight, Untouched
from store_lib.testing.target import Target


@check()
def check_claims_are_told_alike(target: Target) -> None:
    """The store's capabilities are its driver's, and it says that it can be read and written."""
    store = target.store
    assert store.driver is not None
    expect_equal(store.capabilities, capabilities(store.driver), "capabilities of the store")
    expect_equal(store.readable, True, "readable")
    expect_equal(store.writable, "add" in target.capabilities, "writable")
    claim, schemes = store.driver.create_only, store.driver.schemes
    expect(isinstance(claim, CreateOnly), f"create_only: expected a CreateOnly, got {claim!r}")
    expect(schemes, f"schemes: expected at least one URI scheme, got {schemes!r}")


@check()
def check_what_is_listed_can_be_asked_for(target: Target) -> None:
    """The server has the listings that the driver claims; where it withholds one this is skipped.

    The checks that need such a listing are then left out.
    """
    if target.profile.withheld:
        raise NotApplicable("; ".join(target.profile.withheld.values()))


@check()
def check_a_known_object_is_found_by_its_uri_alone(target: Target) -> None:
    """A URI names its object also when no store is told, and has one of the driver's schemes."""
    uri, content = target.sample(100)
    scheme = uri.partition("://")[0]
    expect(
        scheme in target.profile.schemes, f"expected one of {target.profile.schemes}, got {scheme}"
    )
    size = target.stores.stat(uri).size
    expect(
        size in (content.size, None),
        f"stat without a store: expected a size of {content.size}, got {size}",
    )
    with target.stores.get(uri) as reader:
        expect_bytes(reader.read(), content.whole(), "get without a store")


@check()
def check_wrong_uris_are_refused(target: Target) -> None:
    """A URI that is none, or none of this store's, is refused by its own kind of error."""
    store, scheme = target.store, target.profile.schemes[0]
    uri, _ = target.sample(10)
    for wrong in ("", "no-uri", "://", f"{scheme}:", f"{scheme}://", "no-such-scheme://host/x"):
        for name, call in (("get", store.get), ("stat", store.stat)):
            with raises(BadStoreUri, doing=f"{name} of {wrong!r}"):
                call(wrong)
        if "delete" in target.capabilities:
            with raises(BadStoreUri, doing=f"delete of {wrong!r}"):
                store.delete(wrong)
    for none in (None, 5, uri.encode()):
        wrong_type: Any = none
        with raises(BadStoreUri, doing=f"stat of {none!r}"):
            store.stat(wrong_type)
    with raises(UnknownScheme, doing="a get of an unknown scheme"):
        target.stores.get("no-such-scheme://host/x")
    with raises(UnknownStore, doing="a get from an unknown store"):
        target.stores.get(uri, store="no such store")
    with raises(UnknownStore, doing="an unknown store"):
        target.stores["no such store"]


@check(lacks="add")
def check_add_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot be added to says so before a byte is read."""
    source = Untouched(Content(10))
    for size in (10, None):
        with raises(StoreAddDisabled, doing="an add to a store that cannot"):
            target.store.add(target.new_id(), source, size)
        with raises(StoreAddDisabled, doing="an add to a store that cannot, by the set"):
            target.stores.add(target.new_id(), source, size, target.store_id)
    expect_equal(source.reads, 0, "a refused add: reads of its source")
    with raises(StoreAddDisabled, doing="a copy into a store that cannot"):
        target.stores.copy(target.sample()[0], target.new_id(), to=target.store_id)


@check(lacks="delete")
def check_delete_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot delete says so, and the object is still there."""
    uri, content = target.sample()
    with raises(StoreDeleteNotSupported, doing="a delete in a store that cannot"):
        target.store.delete(uri)
    target.expect_holds(uri, content, "an object whose delete was refused")


@check(needs="list add")
def check_list_tells_every_complete_object_once(target: Target) -> None:
    """A listing has each object with a location that reads it, and none that is unfinished."""
    contents = {target.new_id(): Content(size, seed=size) for size in (0, 100, 5000)}
    uris = {each: target.add(content, each).uri for each, content in contents.items()}
    unfinished = target.new_id()
    long = Content(target.profile.long_size)
    for object_id, content in contents.items():
        target.shortly(
            lambda object_id=object_id: target.listed(object_id) == [uris[object_id]],  # type: ignore[misc]
            f"object {object_id} once in the listing, with its URI",
        )
        (entry,) = [each for each in target.store.list() if each.object_id == object_id]
        expect(
            entry.size in (content.size, None),
            f"size in the listing: expected {content.size}, got {entry.size}",
        )
        target.expect_holds(entry.location.uri, content, "an object by its listed location")
    with InFlight(target.store, unfinished, long, at=long.size // 2):
        expect_equal(target.listed(unfinished), [], "listed while its add is at work")
    begun = iter(target.store.list())
    next(begun)
    begun.close()  # type: ignore[attr-defined]
    if "delete" in target.capabilities:
        for object_id, uri in uris.items():
            target.store.delete(uri)
            target.shortly_none(
                lambda object_id=object_id: target.listed(object_id),  # type: ignore[misc]
                "a deleted object in the listing",
            )


@check(lacks="list")
def check_list_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot list says so, and gives no empty listing."""
    with raises(NotSupported, doing="a listing of a store that cannot"):
        list(target.store.list())


@check(needs="list_incomplete add")
def check_unfinished_adds_are_told(target: Target) -> None:
    """An add at work is among the incomplete uploads; once it has ended it is not."""
    size = target.profile.long_size
    content = Content(size)
    object_id = target.new_id()

    def mine() -> list[str]:
        return [
            each.key
            for each in target.leftovers()
            if each.object_id == object_id or (each.object_id is None and target.is_new(each))
        ]

    with InFlight(target.store, object_id, content, at=size // 2) as add:
        target.shortly(mine, "an add at work among the incomplete uploads")
        result = add.finish()
    target.watch_uri(result.uri)
    target.shortly_none(mine, "a finished add among the incomplete uploads")


@check(lacks="list_incomplete")
def check_list_incomplete_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot tell its incomplete uploads says so, and so cannot sweep."""
    with raises(NotSupported, doing="incomplete uploads of a store that cannot tell"):
        list(target.store.list_incomplete())
    with raises(NotSupported, doing="a sweep of a store that cannot tell"):
        target.store.sweep(0)


@check(needs="list_incomplete", lacks="discard")
def check_discard_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot remove incomplete uploads refuses a sweep of any."""
    driver = target.store.driver
    assert driver is not None
    for each in target.leftovers()[:1]:
        with raises(NotSupported, doing="a discard in a store that cannot"):
            driver.discard(each, context=None)


@check(needs="add")
def check_copy_makes_an_object_of_its_own(target: Target) -> None:
    """A copy has the same bytes, outlives its origin and overwrites nothing; claimed or not."""
    for size in (0, 100, target.profile.long_size):
        content = Content(size, seed=12, zeros=target.chunk_size)
        uri = target.add(content).uri
        object_id = target.new_id()
        copied = target.stores.copy(uri, object_id, to=target.store_id)
        target.watch_uri(copied.uri)
        expect(copied.uri != uri, f"a copy: expected a URI of its own, got its origin's, {uri}")
        expect_equal(copied.size, size, "size of a copy")
        target.expect_holds(copied.uri, content, "a copy")
        if target.create_only is not CreateOnly.NEW_LOCATION:
            other = target.add(Content(50, seed=13)).uri
            with raises(Duplicate, doing="a copy over an existing object"):
                target.stores.copy(other, object_id, to=target.store_id)
            target.expect_holds(copied.uri, content, "a copy that another could not replace")
        if "delete" in target.capabilities:
            target.store.delete(uri)
            target.expect_holds(copied.uri, content, "a copy whose origin is gone")
            late = target.new_id()
            with raises(NotFound, doing="a copy of what is not there"):
                target.stores.copy(uri, late, to=target.store_id)
            target.expect_absent(late, "a copy of what is not there")


@check(lacks="copy")
def check_copy_within_is_refused_where_not_claimed(target: Target) -> None:
    """A store whose backend cannot copy says so when it is asked for just that."""
    uri, _ = target.sample(100)
    with raises(NotSupported, doing="a copy within a store that cannot"):
        target.store.copy(uri, target.new_id())


@check(needs="space")
def check_space_is_told(target: Target) -> None:
    """The room told makes sense."""
    space = target.store.space()
    for name, value in (("total", space.total), ("free", space.free)):
        expect(value is None or value >= 0, f"expected {name} room of 0 or more, got {value}")
    if space.total is not None and space.free is not None:
        expect(space.free <= space.total, f"expected no more free than there is, got {space}")


@check(lacks="space")
def check_space_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot tell its room says so."""
    with raises(NotSupported, doing="the space of a store that cannot tell"):
        target.store.space()


@check(needs="set_acls add")
def check_set_acls_works(target: Target) -> None:
    """Access lists can be set and cleared, and of what is not there is NotFound."""
    uri, content = target.sample(100)
    target.store.set_acls(uri, public=True, read_tenants=["a"], write_tenants=["b"])
    target.store.set_acls(uri, public=False, read_tenants=[], write_tenants=[])
    target.expect_holds(uri, content, "an object whose access lists were set")


@check(lacks="set_acls")
def check_set_acls_is_refused_where_not_claimed(target: Target) -> None:
    """A store without access lists says so."""
    uri, _ = target.sample(100)
    with raises(NotSupported, doing="access lists of a store that has none"):
        target.store.set_acls(uri, public=True)


@check(needs="url")
def check_urls_read_the_object(target: Target) -> None:
    """A temporary URL shows no configured secret, and reads the object where it is http."""
    uri, content = target.sample(100)
    url = target.store.url(uri, expires=300)
    expect(isinstance(url, str) and "://" in url, f"expected a URL as a str, got {type(url)}")
    # A URL signed for S3 names the key that it is signed with, by its id; never the key itself.
    shown = re.sub(r"([?&]X-Amz-Credential=)[^&/%]+", r"\1", url)
    for secret in target.profile.secrets:
        expect(secret not in shown, "expected a URL without a configured secret, it holds one")
    if url.startswith(("http://", "https://")):
        with urllib.request.urlopen(url, timeout=60) as reply:
            expect_bytes(reply.read(), content.whole(), "what a temporary URL gives")


@check(lacks="url")
def check_url_is_refused_where_not_claimed(target: Target) -> None:
    """A store without temporary URLs says so."""
    uri, _ = target.sample(100)
    with raises(NotSupported, doing="a temporary URL of a store that has none"):
        target.store.url(uri, expires=60)
