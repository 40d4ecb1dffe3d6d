"""The upgrade examples of Glance's documentation, from one Cinder store to several."""

import io
import logging
import re
import uuid

import pytest

import store_lib.glance as glance_store
from store_lib.drivers.cinder.client import CinderClients
from store_lib.drivers.cinder.volume import Volume
from store_lib.exceptions import NotFound
from store_lib.glance import location
from tests.unit.drivers.cinder.small_cinder import volume_of

#: What is the same before and after in each example.
ACCESS = """\
cinder_store_auth_address = http://localhost/identity/v3
cinder_store_user_name = glance
cinder_store_password = admin
cinder_store_project_name = service
"""
CATALOG = """\
rootwrap_config = /etc/glance/rootwrap.conf
cinder_catalog_info = volumev2::publicURL
"""
BEFORE = """\
[glance_store]
stores = cinder, file, http
default_store = cinder
cinder_state_transition_timeout = 300
filesystem_store_datadir = DIR/images
"""
HERE = "[oslo_concurrency]\nlock_path = DIR\n"


def section(name: str, volume_type: str | None, description: str) -> str:
    """Return a store's section as the examples have it."""
    chosen = f"cinder_volume_type = {volume_type}\n" if volume_type else ""
    return f"[{name}]\n{chosen}description = {description}\n{CATALOG}{ACCESS}"


def after(default: str, *sections: tuple[str, str | None, str]) -> str:
    """Return the configuration after the upgrade."""
    stores = ", ".join(f"{name}:cinder" for name, *_ in sections)
    return (
        f"[DEFAULT]\nenabled_backends = {stores}\n[glance_store]\ndefault_backend = {default}\n"
        + "".join(section(*each) for each in sections)
    )


LVM, NFS = "LVM based cinder store", "NFS based cinder store"

#: Number of the example: before, after, Cinder's own default type, the store of old images.
EXAMPLES = {
    2: (
        BEFORE + CATALOG + ACCESS + "cinder_volume_type = glance-old\n",
        after("new", ("new", "glance-new", LVM), ("old", "glance-old", NFS)),
        "elsewhere",
        "old",
    ),
    3: (
        BEFORE + CATALOG + ACCESS,
        after("new", ("old", None, LVM), ("new", "glance-new", NFS)),
        "__DEFAULT__",
        "old",
    ),
    4: (
        BEFORE + CATALOG + ACCESS,
        after("old", ("old", "glance-old", LVM), ("new", "glance-new", NFS)),
        "glance-old",
        "old",
    ),
    5: (
        BEFORE + "rootwrap_config = /etc/glance/rootwrap.conf\n",
        after("new", ("new", "glance-new", NFS)),
        "glance-new",
        "new",
    ),
}


class Cinder:
    """As much of Cinder as sizes, deletions and types need."""

    def __init__(self, default_type: str) -> None:
        self.default = default_type
        self.volumes: dict[str, Volume] = {}

    def make(self, volume_type: str, size: int) -> str:
        """Add a volume as glance_store made it."""
        volume_id = str(uuid.uuid4())
        metadata = {"glance_image_id": "x", "image_size": str(size), "image_owner": "y"}
        self.volumes[volume_id] = volume_of(
            volume_id, name="image-x", metadata=metadata, volume_type=volume_type
        )
        return volume_id

    def get(self, volume_id: str) -> Volume:
        if volume_id not in self.volumes:
            raise NotFound(image=volume_id)
        return self.volumes[volume_id]

    def has_type(self, name: str) -> bool:
        return name in ("glance-old", "glance-new", "glance-fast", "glance-slow")

    def default_type(self) -> str:
        return self.default

    def has_snapshots(self, volume_id: str) -> bool:
        return False

    def delete(self, volume_id: str) -> None:
        del self.volumes[volume_id]


@pytest.fixture
def cinder(monkeypatch):
    """Cinder, the same for all stores."""
    made = Cinder("")
    monkeypatch.setattr(CinderClients, "get", lambda self, context: made)
    return made


def adopt(uri: str) -> tuple[str, str]:
    """Find the store of an old URI and write the new one, in the way that Glance does."""
    for name, entry in location.SCHEME_TO_CLS_BACKEND_MAP["cinder"].items():
        volume_id = uri.rpartition("/")[2]
        if entry["store"].is_image_associated_with_store(None, volume_id):
            return f"{entry['store'].url_prefix}/{volume_id}", name
    raise AssertionError("no store wants it")


@pytest.mark.parametrize("number", EXAMPLES)
def test_from_one_store_to_several(service, cinder, number):
    """Images of before are sized before and after, get a URI with a store, and are deleted."""
    before, later, cinder.default, store = EXAMPLES[number]
    volume_type = "glance-old" if number == 2 else cinder.default
    uri = f"cinder://{cinder.make(volume_type, 4711)}"
    service.start_single(before + HERE)
    assert glance_store.get_store_from_scheme("cinder").url_prefix == "cinder://"
    assert glance_store.get_size_from_backend(uri) == 4711

    conf = service.start(later + HERE)
    glance_store.verify_store()
    new_uri, found = adopt(uri)
    assert (new_uri, found) == (f"cinder://{store}/{uri.rpartition('/')[2]}", store)
    for each in (uri, new_uri):
        assert glance_store.get_size_from_uri_and_backend(each, found) == 4711
    assert conf[store].cinder_store_user_name == "glance"
    glance_store.delete(new_uri, found)
    assert cinder.volumes == {}
    with pytest.raises(glance_store.NotFound):
        glance_store.delete(new_uri, found)
    if number != 5:
        assert adopt(f"cinder://{cinder.make('glance-new', 1)}")[1] == "new"


def test_a_fresh_deployment(service, cinder):
    """Example 1: two types are two stores, described as the operator wrote."""
    service.start(after("fast", ("fast", "glance-fast", LVM), ("slow", "glance-slow", NFS)) + HERE)
    glance_store.verify_store()
    stores = location.SCHEME_TO_CLS_BACKEND_MAP["cinder"]
    details = {
        name: (entry["store"].store_conf.cinder_volume_type, entry["store"].backing.description)
        for name, entry in stores.items()
    }
    assert details == {"fast": ("glance-fast", LVM), "slow": ("glance-slow", NFS)}
    assert stores["fast"]["store"].store_conf.cinder_use_multipath is False


def test_a_type_that_cinder_lacks(service, cinder):
    """A store of a type that is not there refuses to add and says the type; others are served."""
    conf = service.start(after("new", ("new", "glance-new", LVM), ("old", "gone", NFS)) + HERE)
    uri = f"cinder://old/{cinder.make('gone', 5)}"
    assert glance_store.get_size_from_uri_and_backend(uri, "old") == 5
    with pytest.raises(glance_store.StoreAddDisabled, match="gone"):
        glance_store.add(conf, "one", io.BytesIO(b""), 0, "old")


def test_trouble_with_one_store_hides_no_image(service, cinder, monkeypatch):
    """is_image_associated_with_store means no where Cinder cannot be asked; it raises nothing."""
    service.start(after("new", ("new", "glance-new", LVM)) + HERE)
    store = glance_store.get_store_from_store_identifier("new")
    assert store.is_image_associated_with_store(None, str(uuid.uuid4())) is False

    def broken(self, context):
        raise RuntimeError("no network")

    monkeypatch.setattr(CinderClients, "get", broken)
    assert store.is_image_associated_with_store(None, str(uuid.uuid4())) is False


def test_no_password_is_printed(service, cinder, caplog):
    """The credentials of the examples are in no representation and no log line."""
    caplog.set_level("DEBUG")
    conf = service.start(after("new", ("new", "glance-new", LVM), ("old", "gone", NFS)) + HERE)
    conf.log_opt_values(logging.getLogger("test"), logging.DEBUG)
    store = glance_store.get_store_from_store_identifier("new")
    text = caplog.text + repr(store) + repr(store.store_conf)
    assert not re.search(r"password\s*=\s*admin|'admin'", text)
