"""Capabilities: what a store claims works, and anything else is refused at once."""

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
from store_lib.testing.sources import FileLike, PausedAdd
from store_lib.testing.target import Target


@check()
def check_store_and_driver_claims_agree(target: Target) -> None:
    """The store's capabilities are its driver's, and ``readable`` and ``writable`` match them."""
    store = target.store
    assert store.driver is not None
    expect_equal(store.capabilities, capabilities(store.driver), "capabilities of the store")
    expect_equal(store.readable, True, "readable")
    expect_equal(store.writable, "add" in target.capabilities, "writable")
    claim, schemes = store.driver.create_only, store.driver.schemes
    expect(isinstance(claim, CreateOnly), f"create_only: expected a CreateOnly, got {claim!r}")
    expect(schemes, f"schemes: expected at least one URI scheme, got {schemes!r}")


@check()
def check_claimed_listings_work(target: Target) -> None:
    """The server has the listings that the driver claims; else this check is skipped.

    The checks that need the missing listing are then not made.
    """
    if target.profile.unavailable:
        raise NotApplicable("; ".join(target.profile.unavailable.values()))


@check()
def check_an_object_is_found_by_its_uri_alone(target: Target) -> None:
    """A URI identifies its object without a store id, and has one of the driver's schemes."""
    uri, content = target.sample(100)
    scheme = uri.partition("://")[0]
    expect(
        scheme in target.profile.schemes,
        f"URI scheme: expected one of {target.profile.schemes}, got {scheme}",
    )
    size = target.stores.stat(uri).size
    expect(
        size in (content.size, None),
        f"stat without a store: expected a size of {content.size}, got {size}",
    )
    with target.stores.get(uri) as reader:
        expect_bytes(reader.read(), content.whole(), "get without a store")


@check()
def check_invalid_uris_are_refused(target: Target) -> None:
    """A malformed URI, and a URI of no store, raise the error that is meant for it."""
    store, scheme = target.store, target.profile.schemes[0]
    uri, _ = target.sample(10)
    for wrong in ("", "no-uri", "://", f"{scheme}:", f"{scheme}://", "no-such-scheme://host/x"):
        for name, call in (("get", store.get), ("stat", store.stat)):
            with raises(BadStoreUri, doing=f"{name} of {wrong!r}"):
                call(wrong)
        if "delete" in target.capabilities:
            with raises(BadStoreUri, doing=f"delete of {wrong!r}"):
                store.delete(wrong)
    for value in (None, 5, uri.encode()):
        wrong_type: Any = value
        with raises(BadStoreUri, doing=f"stat of {value!r}"):
            store.stat(wrong_type)
    with raises(UnknownScheme, doing="a get with an unknown scheme"):
        target.stores.get("no-such-scheme://host/x")
    with raises(UnknownStore, doing="a get from an unknown store"):
        target.stores.get(uri, store="no such store")
    with raises(UnknownStore, doing="access to an unknown store"):
        target.stores["no such store"]


@check(lacks="add")
def check_add_is_refused_where_not_claimed(target: Target) -> None:
    """A read-only store refuses an add before a byte is read."""
    source = FileLike(Content(10))
    for size in (10, None):
        with raises(StoreAddDisabled, doing="an add to a read-only store"):
            target.store.add(target.new_id(), source, size)
        with raises(StoreAddDisabled, doing="an add to a read-only store, through Stores"):
            target.stores.add(target.new_id(), source, size, target.store_id)
    expect_equal(source.reads, 0, "a refused add: reads of its source")
    with raises(StoreAddDisabled, doing="a copy to a read-only store"):
        target.stores.copy(target.sample()[0], target.new_id(), to=target.store_id)


@check(lacks="delete")
def check_delete_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot delete refuses it, and the object still exists."""
    uri, content = target.sample()
    with raises(StoreDeleteNotSupported, doing="a delete in a store that cannot delete"):
        target.store.delete(uri)
    target.expect_content(uri, content, "an object whose delete was refused")


@check(needs="list add")
def check_list_has_every_complete_object_once(target: Target) -> None:
    """A listing has every object once, with a usable location, and no incomplete upload."""
    contents = {target.new_id(): Content(size, seed=size) for size in (0, 100, 5000)}
    uris = {name: target.add(content, name).uri for name, content in contents.items()}
    unfinished = target.new_id()
    long = Content(target.profile.long_size)
    for object_id, content in contents.items():
        target.eventually(
            lambda object_id=object_id: target.listed(object_id) == [uris[object_id]],  # type: ignore[misc]
            f"object {object_id} once in the listing, with its URI",
        )
        (entry,) = [entry for entry in target.store.list() if entry.object_id == object_id]
        expect(
            entry.size in (content.size, None),
            f"size in the listing: expected {content.size}, got {entry.size}",
        )
        target.expect_content(entry.location.uri, content, "an object at its listed location")
    with PausedAdd(target.store, unfinished, long, at=long.size // 2):
        expect_equal(target.listed(unfinished), [], "objects listed while their add is in progress")
    begun = iter(target.store.list())
    next(begun)
    begun.close()  # type: ignore[attr-defined]
    if "delete" in target.capabilities:
        for object_id, uri in uris.items():
            target.store.delete(uri)
            target.eventually_none(
                lambda object_id=object_id: target.listed(object_id),  # type: ignore[misc]
                "a deleted object in the listing",
            )


@check(lacks="list")
def check_list_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot list raises NotSupported instead of returning an empty listing."""
    with raises(NotSupported, doing="a listing of a store that cannot list"):
        list(target.store.list())


@check(needs="list_incomplete add")
def check_incomplete_uploads_are_listed(target: Target) -> None:
    """An add is among the incomplete uploads while it is in progress, and not afterwards."""
    size = target.profile.long_size
    content = Content(size)
    object_id = target.new_id()

    def own_uploads() -> list[str]:
        return target.uploads_of(object_id, or_unknown=True)

    with PausedAdd(target.store, object_id, content, at=size // 2) as add:
        target.eventually(own_uploads, "an add in progress among the incomplete uploads")
        result = add.finish()
    target.track_uri(result.uri)
    target.eventually_none(own_uploads, "a finished add among the incomplete uploads")


@check(lacks="list_incomplete")
def check_list_incomplete_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot list incomplete uploads refuses that, and refuses to sweep."""
    with raises(NotSupported, doing="incomplete uploads of a store that cannot list them"):
        list(target.store.list_incomplete())
    with raises(NotSupported, doing="a sweep of a store that cannot list incomplete uploads"):
        target.store.sweep(0)


@check(needs="list_incomplete", lacks="discard")
def check_discard_is_refused_where_not_claimed(target: Target) -> None:
    """A store that cannot remove incomplete uploads refuses it."""
    driver = target.store.driver
    assert driver is not None
    for upload in target.incomplete_uploads()[:1]:
        with raises(NotSupported, doing="a discard in a store that cannot discard"):
            driver.discard(upload, context=target.store.make_context())


@check(needs="add")
def check_copies_are_independent(target: Target) -> None:
    """A copy has the same bytes, survives its origin and overwrites nothing."""
    for size in (0, 100, target.profile.long_size):
        content = Content(size, seed=12, zeros=target.chunk_size)
        uri = target.add(content).uri
        object_id = target.new_id()
        copied = target.stores.copy(uri, object_id, to=target.store_id)
        target.track_uri(copied.uri)
        expect(
            copied.uri != uri, f"a copy: expected another URI than its origin's, got {uri} for both"
        )
        expect_equal(copied.size, size, "size of a copy")
        target.expect_content(copied.uri, content, "a copy")
        if target.create_only is not CreateOnly.NEW_LOCATION:
            other = target.add(Content(50, seed=13)).uri
            with raises(Duplicate, doing="a copy over an existing object"):
                target.stores.copy(other, object_id, to=target.store_id)
            target.expect_content(copied.uri, content, "a copy that another copy must not replace")
        if "delete" in target.capabilities:
            target.store.delete(uri)
            target.expect_content(copied.uri, content, "a copy whose origin was deleted")
            late = target.new_id()
            with raises(NotFound, doing="a copy of a deleted object"):
                target.stores.copy(uri, late, to=target.store_id)
            target.expect_absent(late, "a copy of a deleted object")


@check(lacks="copy")
def check_copy_within_is_refused_where_not_claimed(target: Target) -> None:
    """A store whose backend cannot copy refuses to copy within itself."""
    uri, _ = target.sample(100)
    with raises(NotSupported, doing="a copy within a store that cannot copy"):
        target.store.copy(uri, target.new_id())


@check(needs="space")
def check_space_is_plausible(target: Target) -> None:
    """Total and free space are not negative, and free does not exceed total."""
    space = target.store.space()
    for name, value in (("total", space.total), ("free", space.free)):
        expect(value is None or value >= 0, f"expected {name} space of 0 or more, got {value}")
    if space.total is not None and space.free is not None:
        expect(space.free <= space.total, f"expected no more free space than in total, got {space}")


@check(lacks="space")
def check_space_is_refused_where_not_claimed(target: Target) -> None:
    """A store that does not know its space refuses the call."""
    with raises(NotSupported, doing="the space of a store that does not know it"):
        target.store.space()


@check(needs="set_acls add")
def check_set_acls_works(target: Target) -> None:
    """Access lists can be set and cleared, and the object stays as it is."""
    uri, content = target.sample(100)
    target.store.set_acls(uri, public=True, read_tenants=["a"], write_tenants=["b"])
    target.store.set_acls(uri, public=False, read_tenants=[], write_tenants=[])
    target.expect_content(uri, content, "an object whose access lists were set")


@check(lacks="set_acls")
def check_set_acls_is_refused_where_not_claimed(target: Target) -> None:
    """A store without access lists refuses to set them."""
    uri, _ = target.sample(100)
    with raises(NotSupported, doing="set_acls in a store without access lists"):
        target.store.set_acls(uri, public=True)


@check(needs="url")
def check_urls_read_the_object(target: Target) -> None:
    """A temporary URL contains no configured secret and, if it is http, reads the object."""
    uri, content = target.sample(100)
    url = target.store.url(uri, expires=300)
    expect(isinstance(url, str) and "://" in url, f"expected a URL as a str, got {type(url)}")
    # A URL signed for S3 contains the id of the access key, but not the secret key.
    visible = re.sub(r"([?&]X-Amz-Credential=)[^&/%]+", r"\1", url)
    for secret in target.profile.secrets:
        expect(
            secret not in visible, "expected a URL without configured secrets, but it contains one"
        )
    if url.startswith(("http://", "https://")):
        with urllib.request.urlopen(url, timeout=60) as reply:
            expect_bytes(reply.read(), content.whole(), "the object read through a temporary URL")


@check(lacks="url")
def check_url_is_refused_where_not_claimed(target: Target) -> None:
    """A store without temporary URLs refuses to make one."""
    uri, _ = target.sample(100)
    with raises(NotSupported, doing="a temporary URL of a store without them"):
        target.store.url(uri, expires=60)
