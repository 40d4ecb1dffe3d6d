"""Who Cinder is asked as, which of several stores holds a volume, and what is wrong with either."""

from collections.abc import Callable

import pytest

from store_lib import Stores
from store_lib.exceptions import (
    AuthorizationFailure,
    BadStoreConfiguration,
    NotAuthenticated,
    NotFound,
    StoreAddDisabled,
    StoreError,
)
from tests.functional.cinder.conftest import Context, Deployment

Open = Callable[..., Stores]


def test_stores_of_several_types_keep_their_volumes_apart(
    deployment: Deployment, opened: Open
) -> None:
    """Each store makes volumes of its type, names itself in the URI, and lists its own alone."""
    stores = opened(fast=deployment.lines("fast"), slow=deployment.lines("slow"))
    uris = {name: stores[name].add("same", name.encode()).uri for name in ("fast", "slow")}
    for name, uri in uris.items():
        assert uri.startswith(f"cinder://{name}/")
        assert stores[name].driver.url_prefix == f"cinder://{name}"
        assert [each.location.uri for each in stores[name].list()] == [uri]
        with stores.get(uri) as reader:
            assert reader.read() == name.encode()
    types = {each["volume_type"]: each for each in deployment.cinder.volumes()}
    assert set(types) == {"fast", "slow"}
    made = types["fast"]
    assert made["name"] == "image-same"
    project = deployment.keystone.login("glance").project_id
    metadata = made["metadata"]
    assert (metadata["glance_image_id"], metadata["image_size"]) == ("same", "4")
    assert (metadata["image_owner"], metadata["readonly"]) == (project, "True")
    for uri in uris.values():
        stores.delete(uri)


def test_old_uris_are_read_and_assigned_to_the_store_of_their_type(
    deployment: Deployment, opened: Open
) -> None:
    """A URI without a store's name is found; exactly the store of its volume's type claims it."""
    sections = {name: deployment.lines(name) for name in ("slow", "multi")}
    stores = opened(default=deployment.lines(None), **sections)
    for name, store in (("slow", "slow"), ("multi", "multi"), ("default", "default")):
        uri = stores[store].add("moved", b"old bytes").uri
        volume = uri.rpartition("/")[2]
        with stores.get(f"cinder://{volume}") as reader:
            assert reader.read() == b"old bytes"
        claims = {
            each.id: each.driver.is_image_associated_with_store(None, volume) for each in stores
        }
        assert claims == {each.id: each.id == name for each in stores}
        stores.delete(f"cinder://{volume}", store=store)
        with pytest.raises(NotFound):
            stores.stat(f"cinder://{volume}")
    nothing = "00000000-0000-0000-0000-000000000000"
    assert not any(each.driver.is_image_associated_with_store(Context, nothing) for each in stores)


def test_the_single_store_form_has_uris_without_a_store(deployment: Deployment) -> None:
    """An old configuration goes on making cinder://volume, which glance_store understands."""
    path = deployment.directory / "single.conf"
    lines = ["[glance_store]", "stores = cinder", "default_store = cinder"]
    lines += [*deployment.lines("fast"), "[oslo_concurrency]", f"lock_path = {deployment.locks}"]
    path.write_text("\n".join([*lines, ""]))
    with Stores.from_files(str(path), strict=True) as stores:
        made = stores.add("one", b"bytes")
        assert made.uri.count("/") == 2
        assert stores["cinder"].driver.url_prefix == "cinder://"
        with stores.get(made.uri) as reader:
            assert reader.read() == b"bytes"
        stores.delete(made.uri)


@pytest.mark.parametrize("form", ["v2", "v3"])
def test_without_a_login_volumes_are_the_callers_own(
    form: str, deployment: Deployment, opened: Open
) -> None:
    """The context's token and catalog, in either form, make volumes in the caller's project."""
    stores = opened(mine=deployment.lines(None, login=False))
    context = Context(deployment.keystone.login("demo"), form=form)
    made = stores.add("mine", b"demo's", context=context)
    [volume] = deployment.cinder.volumes()
    assert volume["os-vol-tenant-attr:tenant_id"] == context.project_id
    with stores.get(made.uri, context=context) as reader:
        assert reader.read() == b"demo's"
    other = Context(deployment.keystone.login("demo2"), form=form)
    with pytest.raises(NotFound):
        stores.get(made.uri, context=other)
    assert [each.object_id for each in stores["mine"].list(context=context)] == ["mine"]
    assert list(stores["mine"].list(context=other)) == []
    driver = stores["mine"].driver
    volume_id = made.uri.rpartition("/")[2]
    assert driver.is_image_associated_with_store(context, volume_id)
    assert not driver.is_image_associated_with_store(other, volume_id)
    stores.delete(made.uri, context=context)


def test_leftovers_in_a_callers_project_are_swept_with_a_context(
    deployment: Deployment, opened: Open
) -> None:
    """They are the caller's own, and another one neither sees nor removes them."""
    store = opened(mine=deployment.lines(None, login=False))["mine"]
    context, other = (Context(deployment.keystone.login(user)) for user in ("demo", "demo2"))
    writer = store.driver.create("begun", 5, nonce="0" * 32, context=context)
    writer.reserve(1)
    [begun] = store.list_incomplete(context=context)
    assert (begun.object_id, begun.live) == ("begun", True)
    assert store.sweep(0, context=context) == []
    for lock in deployment.locks.glob("store_lib-cinder-upload-*"):
        lock.unlink()  # as if its process had died
    assert store.sweep(0, context=other) == []
    assert store.driver.discard(begun, context=other) is False
    assert [each.key for each in store.sweep(0, context=context)] == [begun.key]
    writer.abort()


def test_a_template_stands_in_for_the_catalog(deployment: Deployment, opened: Open) -> None:
    """cinder_endpoint_template is filled in, from the context or with the login's project."""
    template = f"cinder_endpoint_template = {deployment.cinder.url}/%(tenant)s"
    stores = opened(
        mine=deployment.lines(None, template, login=False),
        service=deployment.lines("fast", template, "cinder_catalog_info = none::publicURL"),
    )
    context = Context(deployment.keystone.login("demo"))
    context.service_catalog = []
    for name in ("mine", "service"):
        made = stores[name].add("it", b"bytes", context=context)
        stores[name].delete(made.uri, context=context)


def test_an_application_credential_logs_in(deployment: Deployment, opened: Open) -> None:
    """Its id and secret with the address are enough."""
    key, secret = deployment.keystone.application_credential("glance")
    stores = opened(
        it=deployment.lines(
            "fast",
            f"cinder_store_auth_address = {deployment.keystone.url}",
            f"cinder_store_application_credential_id = {key}",
            f"cinder_store_application_credential_secret = {secret}",
            "cinder_catalog_info = volumev2::internalURL",
            login=False,
        )
    )
    made = stores.add("it", b"bytes")
    assert stores.stat(made.uri).size == 5
    stores.delete(made.uri)


def test_two_stores_log_in_as_two_users(deployment: Deployment, opened: Open) -> None:
    """Each store has a session of its own, as the volumes' projects show."""
    other = ["cinder_store_project_name = demo2"]
    lines = list(deployment.lines("fast", login=False))
    stores = opened(
        service=lines + deployment.login(),
        demo=lines
        + [line for line in deployment.login("demo2") if "project_name" not in line]
        + other,
    )
    uris = [stores[name].add("it", b"bytes").uri for name in ("service", "demo")]
    projects = {each["os-vol-tenant-attr:tenant_id"] for each in deployment.cinder.volumes()}
    assert projects == {deployment.keystone.login(user).project_id for user in ("glance", "demo2")}
    for uri in uris:
        stores.delete(uri)


def test_neither_a_login_nor_a_context_is_told(deployment: Deployment, opened: Open) -> None:
    """Every call says that it needs the one or the other."""
    store = opened(it=deployment.lines(None, login=False))["it"]
    uri = "cinder://it/00000000-0000-0000-0000-000000000000"
    for call in (
        lambda: store.add("it", b"bytes"),
        lambda: store.get(uri),
        lambda: store.stat(uri),
        lambda: store.delete(uri),
        lambda: list(store.list()),
    ):
        with pytest.raises(BadStoreConfiguration, match="cinder_store_user_name"):
            call()
    expired = Context(deployment.keystone.login("demo"))
    expired.auth_token = "gone"
    with pytest.raises(NotAuthenticated, match="expired"):
        store.add("it", b"bytes", context=expired)
    expired.service_catalog = []
    with pytest.raises(BadStoreConfiguration, match="catalog"):
        store.add("it", b"bytes", context=expired)
    expired.auth_token = None
    with pytest.raises(NotAuthenticated, match="auth_token"):
        store.add("it", b"bytes", context=expired)


def test_a_wrong_password_is_told_at_once(deployment: Deployment, opened: Open) -> None:
    """A store that checks its volume type is not usable; one without finds out at the call."""
    wrong = [line.replace("glance-pass", "wrong-pass") for line in deployment.login()]
    stores = opened(
        checked=deployment.lines("fast", *wrong, login=False),
        unchecked=deployment.lines(None, *wrong, login=False),
    )
    assert isinstance(stores["checked"].error.__cause__, AuthorizationFailure)
    with pytest.raises(StoreAddDisabled, match="refuses the login of the configured user"):
        stores["checked"].add("it", b"bytes")
    with pytest.raises(
        AuthorizationFailure, match="refuses the login of the configured user"
    ) as caught:
        stores["unchecked"].add("it", b"bytes")
    assert "wrong-pass" not in f"{caught.value}{caught.value.__cause__}"


def test_an_unknown_volume_type_leaves_a_store_to_read(
    deployment: Deployment, opened: Open
) -> None:
    """Adding is refused with the type's name; what is there can be read."""
    stores = opened(good=deployment.lines("fast"), bad=deployment.lines("absent"))
    made = stores["good"].add("it", b"bytes")
    assert "'absent'" in str(stores["bad"].error)
    with pytest.raises(StoreAddDisabled, match="'absent'"):
        stores["bad"].add("it", b"bytes")
    with stores["bad"].get(made.uri) as reader:
        assert reader.read() == b"bytes"
    stores.delete(made.uri)


def test_a_callers_unknown_volume_type_is_told_at_the_add(
    deployment: Deployment, opened: Open
) -> None:
    """Where there is no login to check it with, the add says which type there is not."""
    store = opened(it=deployment.lines("absent", login=False))["it"]
    with pytest.raises(BadStoreConfiguration, match="'absent'"):
        store.add("it", b"bytes", context=Context(deployment.keystone.login("demo")))


def test_a_role_that_may_not_is_forbidden(deployment: Deployment, opened: Open) -> None:
    """What Cinder's policy refuses is a StoreError that says so."""
    store = opened(it=deployment.lines(None, login=False))["it"]
    with pytest.raises(StoreError, match="403"):
        store.add("it", b"bytes", context=Context(deployment.keystone.login("reader")))


def test_stores_start_while_cinder_is_down(deployment: Deployment, opened: Open) -> None:
    """A volume type that cannot be checked now does not cost the store."""
    deployment.cinder.stop()
    try:
        store = opened(it=deployment.lines("fast", "transfer_attempts = 1"))["it"]
        assert store.error is None
        with pytest.raises(StoreError, match="could not be asked"):
            store.add("it", b"bytes")
    finally:
        deployment.cinder.start()
    made = store.add("it", b"bytes")
    store.delete(made.uri)
