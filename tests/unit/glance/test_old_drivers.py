"""Drivers that others wrote for glance_store and registered under its own entry points."""

import pytest

from tests.unit.glance.test_alias import run

#: A driver as one would write it for glance_store 5.7.0.
DRIVER = """
import hashlib
import io

from glance_store import capabilities, driver, exceptions, location
from glance_store.common import utils
from glance_store.i18n import _, _LE
from oslo_config import cfg

OPTIONS = [cfg.StrOpt("shelf", default="top", help="Which shelf.")]
KEPT = {}


class StoreLocation(location.StoreLocation):
    def process_specs(self):
        self.path = self.specs.get("path")

    def get_uri(self):
        return "shelf://%s" % self.path

    def parse_uri(self, uri):
        self.validate_schemas(uri, valid_schemas=("shelf://",))
        self.path = uri[len("shelf://"):]


class Store(driver.Store):
    _CAPABILITIES = (capabilities.BitMasks.READ_ACCESS | capabilities.BitMasks.WRITE_ACCESS)
    OPTIONS = OPTIONS
    EXAMPLE_URL = "shelf://<SHELF>/<ID>"

    def get_schemes(self):
        return ("shelf",)

    def configure_add(self):
        if self.backend_group:
            self.store_conf = driver.BackendGroupConfiguration(
                OPTIONS, self.backend_group, conf=self.conf)
        else:
            self.store_conf = self.conf.glance_store
        self.shelf = self.store_conf.shelf
        if self.shelf == "none":
            raise exceptions.BadStoreConfiguration(store_name="shelf", reason=_("no shelf"))

    @driver.back_compat_add
    @capabilities.check
    def add(self, image_id, image_file, image_size, hashing_algo, context=None, verifier=None):
        checksum = utils.get_hasher("md5", False)
        digest = utils.get_hasher(hashing_algo, False)
        data = b""
        for piece in utils.chunkreadable(image_file, 3):
            checksum.update(piece)
            digest.update(piece)
            data += piece
        loc = StoreLocation({"path": "%s/%s" % (self.shelf, image_id)}, self.conf)
        if loc.path in KEPT:
            raise exceptions.Duplicate(message=_("there already"))
        KEPT[loc.path] = data
        metadata = {"store": self.backend_group} if self.backend_group else {}
        return loc.get_uri(), len(data), checksum.hexdigest(), digest.hexdigest(), metadata

    @capabilities.check
    def get(self, location, offset=0, chunk_size=None, context=None):
        path = location.store_location.path
        if path not in KEPT:
            raise exceptions.NotFound(image=path)
        return utils.chunkiter(io.BytesIO(KEPT[path]), 2), len(KEPT[path])

    def get_size(self, location, context=None):
        return len(KEPT[location.store_location.path])

    @capabilities.check
    def delete(self, location, context=None):
        del KEPT[location.store_location.path]
"""

#: A service that has the driver, in the new form and in the old one.
SERVICE = """
import io
import store_lib
store_lib.install_as_glance_store()
import glance_store
from glance_store import location
from oslo_config import cfg

conf = cfg.CONF
conf.register_opt(cfg.DictOpt("enabled_backends", default={}))
conf(["--config-file", CONFIGURATION], project="service")
if conf.enabled_backends:
    glance_store.register_store_opts(conf)
    glance_store.create_multi_stores(conf)
    glance_store.verify_store()
    def call(name, uri, **named):
        return getattr(glance_store, name)(uri, "mine", **named)
    add, size = glance_store.add_with_multihash, "get_size_from_uri_and_backend"
    get, delete, which = "get", "delete", ("mine",)
else:
    glance_store.register_opts(conf)
    glance_store.create_stores(conf)
    glance_store.verify_default_store()
    def call(name, uri, **named):
        return getattr(glance_store, name)(uri, **named)
    add, size = glance_store.add_to_backend_with_multihash, "get_size_from_backend"
    get, delete, which = "get_from_backend", "delete_from_backend", ()
added = add(conf, "one", io.BytesIO(b"hello"), 5, *which, "sha256")
print(added[0], added[1], added[4])
print(call(size, added[0]), b"".join(call(get, added[0])[0]))
try:
    call(get, added[0], offset=1)
except glance_store.StoreRandomGetNotSupported as error:
    print(error)
call(delete, added[0])
try:
    call(get, added[0])
except glance_store.NotFound as error:
    print(type(error).__module__, error.msg)
"""


@pytest.fixture
def installed(tmp_path):
    """A directory with the driver as an installed package."""
    (tmp_path / "shelf_driver.py").write_text(DRIVER)
    info = tmp_path / "shelf_driver-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf_driver\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[glance_store.drivers]\nshelf = shelf_driver:Store\nbroken = shelf_driver:Nothing\n"
    )
    return tmp_path


def serve(installed, configuration):
    """Run the service and return what it printed."""
    path = installed / "service.conf"
    path.write_text(configuration)
    return run(SERVICE.replace("CONFIGURATION", repr(str(path))), installed).splitlines()


def test_among_several_stores(installed):
    """The driver serves its store beside ours, its options from its section or the shared one."""
    printed = serve(
        installed,
        f"[DEFAULT]\nenabled_backends = mine:shelf, files:file, lost:broken\n"
        f"[glance_store]\ndefault_backend = mine\n[backend_defaults]\nshelf = low\n"
        f"[files]\nfilesystem_store_datadir = {installed}/files\n",
    )
    assert printed[0] == "shelf://low/one 5 {'store': 'mine'}"
    assert printed[1] == "5 b'hello'"
    assert "Offset: 1" in printed[2]
    assert printed[3] == "store_lib.exceptions Object low/one not found"


def test_in_the_single_form(installed):
    """The same in the old form."""
    printed = serve(
        installed, "[glance_store]\nstores = shelf\ndefault_store = shelf\nshelf = middle\n"
    )
    assert printed[:2] == ["shelf://middle/one 5 {}", "5 b'hello'"]


def test_without_its_configuration_it_only_reads(installed):
    """A driver that refuses to be configured for adding is kept, and add is disabled."""
    path = installed / "service.conf"
    path.write_text(
        "[DEFAULT]\nenabled_backends = mine:shelf\n"
        "[glance_store]\ndefault_backend = mine\n[mine]\nshelf = none\n"
    )
    code = SERVICE.partition("added =")[0] + (
        "try:\n    add(conf, 'one', io.BytesIO(b''), 0, 'mine', 'md5')\n"
        "except glance_store.StoreAddDisabled as error:\n    print(error)\n"
        "print([opt.name for group, opts in glance_store.multi_backend._list_config_opts() "
        "if group == 'shelf' for opt in opts])\n"
    )
    printed = run(code.replace("CONFIGURATION", repr(str(path))), installed).splitlines()
    assert printed == [
        "Configuration for store failed. Adding images to this store is disabled.",
        "['shelf']",
    ]
