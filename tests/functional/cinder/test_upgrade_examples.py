"""The five examples of Glance's documentation, from one store to several, on a real Cinder."""

import io
from collections.abc import Iterator
from typing import Any

import pytest

import store_lib.glance as glance_store
from store_lib.glance import backend, location, multi_backend
from tests.functional.cinder.conftest import Context, Deployment
from tests.servers.keystone import password, request
from tests.servers.process import eventually
from tests.unit.glance.conftest import Service
from tests.unit.glance.test_upgrade_examples import EXAMPLES, HERE, LVM, NFS, adopt, after

#: The volume types of the examples, and where their volumes lie.
_TYPES = {
    "glance-old": "plain",
    "glance-new": "loopfast",
    "glance-fast": "loopfast",
    "glance-slow": "nfs",
}


@pytest.fixture
def service(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service that is not configured yet, and whose stores no other test sees."""
    monkeypatch.setattr(location, "SCHEME_TO_CLS_MAP", {})
    monkeypatch.setattr(location, "SCHEME_TO_CLS_BACKEND_MAP", {})
    monkeypatch.setattr(multi_backend, "_RESERVED_STORES", {})
    return Service(tmp_path, monkeypatch)


class Types:
    """The volume types of the examples, and which of them a project has by default."""

    def __init__(self, deployment: Deployment) -> None:
        self._cinder, self._keystone = deployment.cinder, deployment.keystone
        self._chosen: set[str] = set()
        self._made = [
            self._cinder.call(
                "POST",
                "/types",
                {"volume_type": {"name": name, "extra_specs": {"volume_backend_name": where}}},
            )["volume_type"]["id"]
            for name, where in _TYPES.items()
        ]

    def _default(self, method: str, user: str, body: Any = None) -> None:
        headers = {
            "X-Auth-Token": self._keystone.login("glance").token,
            "OpenStack-API-Version": "volume 3.70",
        }
        project = self._keystone.login(user).project_id
        request(method, f"{self._cinder.url}/default-types/{project}", body, headers)

    def choose(self, name: str, user: str = "glance") -> None:
        """Choose the default type of a user's project."""
        self._default("PUT", user, {"default_type": {"volume_type": name}})
        self._chosen.add(user)

    def remove(self) -> None:
        """Remove them, once their volumes have gone."""
        for user in self._chosen:
            self._default("DELETE", user)
        eventually(
            lambda: not self._cinder.call("GET", "/volumes?all_tenants=1")["volumes"], "none"
        )
        for each in self._made:
            self._cinder.call("DELETE", f"/types/{each}")


@pytest.fixture
def types(deployment: Deployment) -> Iterator[Types]:
    """The volume types."""
    made = Types(deployment)
    yield made
    made.remove()


def _real(text: str, deployment: Deployment) -> str:
    """Return an example with this deployment's address and password in place of its own."""
    text = text.replace("http://localhost/identity/v3", deployment.keystone.url)
    text = text.replace("cinder_store_password = admin", f"cinder_store_password = {_PASSWORD}")
    return text + HERE


_PASSWORD = password("glance")
_DATA = b"what the image is made of"


def _add(conf: Any, image_id: str, context: Any, backend_id: str | None = None) -> str:
    """Add an image in the way that Glance does, and return its URI."""
    data = io.BytesIO(_DATA)
    if backend_id is None:
        uri = backend.add_to_backend_with_multihash(
            conf, image_id, data, len(_DATA), "sha512", "cinder", context
        )[0]
    else:
        uri = glance_store.add_with_multihash(
            conf, image_id, data, len(_DATA), backend_id, "sha512", context
        )[0]
    return str(uri)


def _get(uri: str, store: str | None = None, context: Any = None) -> bytes:
    """Return an image's bytes in the way that Glance reads them."""
    if store is None:
        found, _ = backend.get_from_backend(uri, context=context)
    else:
        found, _ = multi_backend.get(uri, store, context=context)
    return b"".join(found)


@pytest.mark.parametrize("number", EXAMPLES)
def test_from_one_store_to_several(
    number: int, service: Service, deployment: Deployment, types: Types
) -> None:
    """An image of before is read before and after, gets a URI with a store, and is deleted; a new
    one goes to the default store and its type."""
    before, later, default, store = EXAMPLES[number]
    if default in _TYPES:
        types.choose(default, "demo" if number == 5 else "glance")
    context = Context(deployment.keystone.login("demo" if number == 5 else "glance"))
    conf = service.start_single(_real(before, deployment))
    uri = _add(conf, "image-of-before", context)
    assert _get(uri, context=context) == _DATA
    volume_id = uri.rpartition("/")[2]
    if number == 5:
        _transfer(deployment, volume_id)

    conf = service.start(_real(later, deployment))
    glance_store.verify_store()
    new_uri, found = adopt(uri)
    assert (new_uri, found) == (f"cinder://{store}/{volume_id}", store)
    for each in (uri, new_uri):
        assert _get(each, found) == _DATA
    wanted = conf.glance_store.default_backend
    added = _add(conf, "image-of-later", None, wanted)
    assert added.startswith(f"cinder://{wanted}/")
    kinds = {each["id"]: each["volume_type"] for each in deployment.cinder.volumes()}
    assert kinds[added.rpartition("/")[2]] == conf[wanted].cinder_volume_type
    glance_store.delete(added, wanted)
    glance_store.delete(new_uri, found)
    eventually(lambda: not deployment.cinder.volumes(), "the volumes gone")
    with pytest.raises(glance_store.NotFound):
        glance_store.delete(new_uri, found)


def _transfer(deployment: Deployment, volume_id: str) -> None:
    """Hand a user's volume to the service's project, as the documentation has it."""
    call = deployment.cinder.call
    made = call("POST", "/volume-transfers", {"transfer": {"volume_id": volume_id}}, user="demo")[
        "transfer"
    ]
    call(
        "POST",
        f"/volume-transfers/{made['id']}/accept",
        {"accept": {"auth_key": made["auth_key"]}},
    )


def test_a_fresh_deployment(service: Service, deployment: Deployment, types: Types) -> None:
    """Example 1: two types are two stores, each on its own storage."""
    text = after("fast", ("fast", "glance-fast", LVM), ("slow", "glance-slow", NFS))
    mounts = f"cinder_mount_point_base = {deployment.mounts}\n"
    conf = service.start(_real(text.replace("[slow]\n", f"[slow]\n{mounts}"), deployment))
    glance_store.verify_store()
    for store in ("fast", "slow"):
        uri = _add(conf, f"image-{store}", None, store)
        assert _get(uri, store) == _DATA
        [volume] = deployment.cinder.volumes()
        assert volume["volume_type"] == f"glance-{store}"
        glance_store.delete(uri, store)
        eventually(lambda: not deployment.cinder.volumes(), "the volume gone")
