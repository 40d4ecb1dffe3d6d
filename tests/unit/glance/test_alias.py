"""Putting store_lib.glance into the place of glance_store, each time in a process of its own."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[3]

SUBMODULES = (
    "backend",
    "multi_backend",
    "driver",
    "location",
    "exceptions",
    "capabilities",
    "i18n",
    "common.utils",
    "_drivers.filesystem",
    "_drivers.http",
    "_drivers.rbd",
    "_drivers.s3",
    "_drivers.swift",
    "_drivers.cinder",
    "_drivers.vmware_datastore",
)


def run(code: str, *path: Path) -> str:
    """Run Python code in a process that has ``path`` first, and return what it printed."""
    lines = ["import sys", f"sys.path[:0] = {[str(each) for each in path]}", textwrap.dedent(code)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(lines)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_each_module_has_one_object_under_both_names():
    """Every submodule path leads to the module that store_lib has, whichever comes first."""
    told = run(
        f"""
        import store_lib
        store_lib.install_as_glance_store()
        store_lib.install_as_glance_store()
        import importlib
        import glance_store._drivers.filesystem
        import store_lib.glance
        assert sys.modules["glance_store"] is store_lib.glance is glance_store
        for name in {SUBMODULES}:
            module = importlib.import_module("glance_store." + name)
            assert module is importlib.import_module("store_lib.glance." + name), name
            assert module.__spec__.name == "store_lib.glance." + name == module.__name__
        from glance_store import backend, exceptions, location
        from glance_store.common import utils
        import store_lib.exceptions
        assert exceptions.NotFound is store_lib.exceptions.NotFound is glance_store.NotFound
        print(len(sys.meta_path) - sum("_Finder" not in repr(each) for each in sys.meta_path))
        """
    )
    assert told == "1"


def test_only_the_private_half_is_not_glance_stores():
    """Modules of our own are in _impl; all others have a name that glance_store 5.7.0 has."""
    package = ROOT / "store_lib/glance"
    names = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if path.name != "__init__.py" and "_impl" not in path.parts
    }
    assert names == set(SUBMODULES)


def test_what_is_not_there_is_no_module():
    """An unknown submodule is the usual error, with the name that was asked for."""
    told = run(
        """
        import store_lib
        store_lib.install_as_glance_store()
        try:
            import glance_store.nothing
        except ModuleNotFoundError as error:
            print(error.name, importlib.util.find_spec("glance_store_other"))
        """.replace("import store_lib\n", "import importlib.util, store_lib\n", 1)
    )
    assert told == "glance_store.nothing None"


def test_the_real_one_must_not_be_imported_before(tmp_path):
    """When glance_store itself is there already, the call says what to do instead of mixing."""
    (tmp_path / "glance_store.py").write_text("")
    told = run(
        """
        import glance_store, store_lib
        try:
            store_lib.install_as_glance_store()
        except ImportError as error:
            print(error)
        """,
        tmp_path,
    )
    assert "before glance_store is imported" in told
    assert str(tmp_path) in told


def test_the_real_one_beside_is_not_loaded(tmp_path):
    """An installed glance_store stays out of the way once the alias is there."""
    (tmp_path / "glance_store").mkdir()
    (tmp_path / "glance_store" / "__init__.py").write_text("raise SystemExit('the real one')")
    told = run(
        """
        import store_lib
        store_lib.install_as_glance_store()
        import glance_store
        print(glance_store.__name__)
        """,
        tmp_path,
    )
    assert told == "store_lib.glance"


def test_mocks_by_name_reach_the_module():
    """mock.patch with a name of glance_store's patches what its users see."""
    run(
        """
        import store_lib
        store_lib.install_as_glance_store()
        from unittest import mock
        import glance_store
        with mock.patch("glance_store.get_store_from_store_identifier") as patched:
            assert glance_store.get_store_from_store_identifier is patched
        from oslo_config import cfg
        cfg.CONF.register_opt(cfg.StrOpt("delayed_delete"))
        cfg.CONF.import_opt("delayed_delete", "glance_store")
        """
    )


def test_the_distribution_puts_it_into_place():
    """The package of the second distribution gives store_lib.glance, submodules first or not."""
    for first in ("glance_store", "glance_store._drivers.filesystem"):
        told = run(
            f"""
            import {first}
            import glance_store
            from glance_store._drivers import filesystem
            import store_lib.glance._drivers.filesystem as ours
            assert filesystem is ours
            print(glance_store.__name__, sys.modules["glance_store"].__name__)
            """,
            ROOT / "glance_store_dist",
        )
        assert told == "store_lib.glance store_lib.glance"


def test_importing_store_lib_does_not_import_the_interface():
    """Who does not want the interface does not pay for it."""
    told = run("import store_lib; print([m for m in sys.modules if 'lib.glance' in m])")
    assert told == "[]"
