"""A service's configuration and the interface's own state, fresh for each test."""

from pathlib import Path

import pytest
from oslo_config import cfg

from store_lib.glance import backend, location, multi_backend

RESERVED = {"os_glance_staging_store": "file", "os_glance_tasks_store": "file"}


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """No test sees another one's stores."""
    monkeypatch.setattr(location, "SCHEME_TO_CLS_MAP", {})
    monkeypatch.setattr(location, "SCHEME_TO_CLS_BACKEND_MAP", {})
    monkeypatch.setattr(multi_backend, "_RESERVED_STORES", {})


class Service:
    """A service such as Glance: its ConfigOpts, its files, and its calls at the start."""

    def __init__(self, directory: Path, monkeypatch) -> None:
        self.directory = directory
        self.monkeypatch = monkeypatch

    def configure(self, text: str) -> cfg.ConfigOpts:
        """Read a configuration; ``DIR`` in it stands for the test's own directory."""
        path = self.directory / "service.conf"
        path.write_text(text.replace("DIR", str(self.directory)))
        conf = cfg.ConfigOpts()
        conf.register_opts(
            [
                cfg.DictOpt("enabled_backends", default={}),
                cfg.StrOpt("node_staging_uri", default=f"file://{self.directory}/staging/"),
            ]
        )
        conf.register_opt(cfg.StrOpt("work_dir"), group="task")
        conf(["--config-file", str(path)], project="service")
        for module in (backend, multi_backend):
            self.monkeypatch.setattr(module, "CONF", conf)
        return conf

    def start(self, text: str, reserved=None) -> cfg.ConfigOpts:
        """Start with several stores."""
        conf = self.configure(text)
        multi_backend.register_store_opts(conf, reserved_stores=reserved)
        multi_backend.create_multi_stores(conf, reserved_stores=reserved)
        return conf

    def start_single(self, text: str) -> cfg.ConfigOpts:
        """Start in the old single-store form."""
        conf = self.configure(text)
        backend.register_opts(conf)
        backend.create_stores(conf)
        return conf


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A service that is not configured yet."""
    return Service(tmp_path, monkeypatch)


TWO_STORES = """
[DEFAULT]
enabled_backends = fast:file, slow:filesystem
[glance_store]
default_backend = fast
[fast]
filesystem_store_datadir = DIR/fast
weight = 7
[slow]
filesystem_store_datadir = DIR/slow
[os_glance_staging_store]
filesystem_store_datadir = DIR/staging
[os_glance_tasks_store]
filesystem_store_datadir = DIR/tasks
"""


@pytest.fixture
def two_stores(service):
    """Two file stores, and those that Glance keeps for itself."""
    return service.start(TWO_STORES, RESERVED)


@pytest.fixture
def with_web(service):
    """The same and a read-only web store."""
    return service.start(TWO_STORES.replace("slow:filesystem", "slow:file, web:http"), RESERVED)


@pytest.fixture
def single_store(service):
    """The old form with one file store."""
    return service.start_single(
        "[glance_store]\nstores = file\nfilesystem_store_datadir = DIR/images\n"
    )
