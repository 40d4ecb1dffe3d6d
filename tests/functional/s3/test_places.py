"""URIs of other servers and other buckets, on real S3 servers."""

import pytest

from store_lib.drivers.s3 import S3Driver
from store_lib.exceptions import BadStoreUri, Forbidden, NotFound
from tests.functional.s3.conftest import MakeStore, assert_nothing_is_left, bucket_of
from tests.functional.s3.places import Place


def test_an_old_servers_uris_and_another_buckets(place: Place, make_store: MakeStore) -> None:
    """Another bucket is read, an object in it deleted with a mark or the option; and so it is on a
    server that had another name."""
    old, new = make_store(place), make_store(place)
    marked = old.add("marked", [b"by a store"]).uri
    driver = old.driver
    assert isinstance(driver, S3Driver)
    client, bucket = driver._client.open(), bucket_of(old)["s3_store_bucket"]
    client.put_object(Bucket=bucket, Key="unmarked", Body=b"by glance_store")
    unmarked = marked.replace("/marked", "/unmarked")

    for uri, data in ((marked, b"by a store"), (unmarked, b"by glance_store")):
        assert new.stat(uri).size == len(data)
        with new.get(uri) as reader:
            assert reader.read() == data
    with pytest.raises(Forbidden, match="former_places"):
        new.delete(unmarked)
    new.delete(marked)
    with pytest.raises(NotFound):
        old.stat(marked)

    former = f"s3://old.example:81/{bucket}"
    with pytest.raises(BadStoreUri, match="former_places"):
        new.delete(f"{former}/unmarked")
    moved = make_store(place, former_places=[former], **bucket_of(new))
    with moved.get(f"{former}/unmarked") as reader:
        assert reader.read() == b"by glance_store"
    moved.delete(f"{former}/unmarked")
    assert_nothing_is_left(old)


@pytest.mark.parametrize("name", ["..", "."])
def test_dots_lead_nowhere(place: Place, make_store: MakeStore, name: str) -> None:
    """Neither to the bucket itself nor to the list of all buckets."""
    store = make_store(place)
    prefix = store.add("id", [b"x"]).uri.removesuffix("/id")
    host, _, bucket = prefix.rpartition("/")
    for uri in (f"{host}/{name}/{bucket}", f"{prefix}/{name}"):
        for call in (store.get, store.stat, store.delete):
            with pytest.raises(BadStoreUri):
                call(uri)
    assert [each.object_id for each in store.list()] == ["id"]
