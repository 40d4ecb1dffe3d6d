"""The options that services register and read, and the namespaces of oslo-config-generator."""

import io

import pytest
from oslo_config import cfg, generator

from store_lib.glance import backend, driver, multi_backend
from store_lib.glance._impl.options import list_multi, list_single
from tests.unit.glance.conftest import RESERVED, TWO_STORES

DRIVERS = ("cinder", "file", "http", "rbd", "s3", "swift", "vmware")


def test_the_single_form_has_everything_in_one_section():
    """The namespace glance.store: first what concerns all stores, then every driver's options."""
    groups = list_single()
    assert [group for group, _ in groups] == ["glance_store", "glance_store"]
    names = {opt.name for _, opts in groups for opt in opts}
    assert {"stores", "default_store", "filesystem_store_datadir", "rbd_store_pool"} <= names


def test_several_stores_have_a_section_for_each_type():
    """The namespace glance.multi_store: a group for each type, named as in enabled_backends."""
    groups = dict(list_multi())
    assert tuple(name for name in groups if "_" not in name) == DRIVERS
    assert {opt.name for opt in groups["glance_store"]} >= {"default_backend"}
    assert "stores" not in {opt.name for opt in groups["glance_store"]}
    assert "filesystem_store_datadir" in {opt.name for opt in groups["file"]}


@pytest.mark.parametrize(
    ("namespace", "text"),
    [
        ("glance.store", "#default_store = file"),
        ("glance.multi_store", "[rbd]"),
    ],
)
def test_the_generator_knows_the_namespaces(namespace, text):
    """oslo-config-generator writes a sample for either namespace, as Glance's own files ask."""
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf(["--namespace", namespace], default_config_files=[], default_config_dirs=[])
    written = io.StringIO()
    generator.generate(conf, written)
    assert text in written.getvalue()


def test_services_read_the_options_that_they_know(service):
    """Each store's section has what Glance reads there by itself."""
    conf = service.start(
        TWO_STORES.replace("slow:filesystem", "slow:file, web:http, s:swift"), RESERVED
    )
    assert conf.glance_store.default_backend == "fast"
    assert conf.fast.filesystem_store_datadir == f"{service.directory}/fast"
    assert conf.s.swift_store_config_file is None
    assert conf.s.swift_store_multi_tenant is False
    for store in ("fast", "slow", "web", "s"):
        assert conf[store].store_description is None
        assert isinstance(conf[store].weight, int)


def test_registering_again_changes_nothing(service):
    """Programs register more than once, with the reserved stores or without."""
    conf = service.start(TWO_STORES, RESERVED)
    multi_backend.register_store_opts(conf)
    backend.register_opts(conf)
    backend.register_opts(conf)
    multi_backend.register_store_opts(conf, reserved_stores=RESERVED)
    assert conf.os_glance_tasks_store.filesystem_store_datadir == f"{service.directory}/tasks"


def test_a_group_with_defaults_shared_by_all(service):
    """BackendGroupConfiguration: the section, else [backend_defaults], else the default."""
    conf = service.configure("[one]\na = from one\n[backend_defaults]\na = shared\nb = shared\n")
    options = [cfg.StrOpt(name, default="default") for name in "abc"]
    group = driver.BackendGroupConfiguration(options, "one", conf=conf)
    assert (group.a, group.b, group.c) == ("from one", "shared", "default")
    assert (group.get("a"), group.get("none", 5)) == ("from one", 5)
    assert conf.one.b == "default"  # what the service itself sees is left alone
    conf.set_override("c", "now", group="one")
    assert group.c == "now"
