"""The choice of the configuration."""

import pytest

from store_lib.cli.config import open_stores
from store_lib.exceptions import BadStoreConfiguration


@pytest.fixture
def conf(tmp_path):
    """A function that writes a configuration file with one store of a given name."""

    def conf(name, path=None):
        path = path or tmp_path / f"{name}.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"[DEFAULT]\nenabled_backends = {name}:file\n"
            f"[{name}]\nfilesystem_store_datadir = {tmp_path}/{name}\n"
        )
        return path

    return conf


def ids(run, *options):
    """The ids of the stores that the command sees."""
    outcome = run(*options, "stores", "-f", "value", "-c", "id")
    assert outcome.status == 0, outcome.err
    return outcome.text.split()


def test_nothing_configured(run, datadir):
    """Without a configuration, there is a single writable store in the XDG data directory."""
    (store,) = run("stores", "-f", "json").json
    assert (store["id"], store["driver"], store["writable"]) == ("local", "file", True)
    assert store["default"]
    assert datadir.is_dir()


def test_xdg_data_home(run, tmp_path, monkeypatch):
    """XDG_DATA_HOME sets the directory; a dollar sign in it does not refer to an option."""
    monkeypatch.setenv("XDG_DATA_HOME", f"{tmp_path}/with $ign")
    assert run("add", "-", "--id", "x", stdin=b"data").status == 0
    assert (tmp_path / "with $ign/store_lib/objects/x").read_bytes() == b"data"


def test_a_relative_xdg_directory_is_ignored(run, datadir, monkeypatch, tmp_path):
    """A relative XDG_DATA_HOME is ignored, as the specification requires."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert run("add", "-", "--id", "x").status == 0
    assert (datadir / "x").exists()


def test_the_users_own_file(run, conf, home):
    """store_lib.conf in the user's configuration directory is read if it exists."""
    conf("own", home / ".config/store_lib/store_lib.conf")
    assert ids(run) == ["own"]


def test_the_environment_comes_before_the_users_own_file(run, conf, home, monkeypatch):
    """STORE_LIB_CONFIG names files, of which later ones take precedence; the user's is not read."""
    conf("own", home / ".config/store_lib/store_lib.conf")
    monkeypatch.setenv("STORE_LIB_CONFIG", f"{conf('one')}:{conf('two')}")
    assert ids(run) == ["two"]


def test_the_options_come_first(run, conf, monkeypatch, tmp_path):
    """With --config-file or --config-dir, no other configuration is read."""
    monkeypatch.setenv("STORE_LIB_CONFIG", str(conf("environment")))
    assert ids(run, "--config-file", conf("one"), "--config-file", conf("two")) == ["two"]
    conf("three", tmp_path / "conf.d" / "50-three.conf")
    assert ids(run, "--config-dir", tmp_path / "conf.d") == ["three"]
    both = ("--config-file", conf("one"), "--config-dir", tmp_path / "conf.d")
    assert ids(run, *both) == ["three"]


def test_a_missing_file(run, tmp_path):
    """A missing configuration file ends with status 5 and is named."""
    outcome = run("--config-file", tmp_path / "absent.conf", "stores")
    assert outcome.status == 5
    assert f"{tmp_path}/absent.conf" in outcome.err


def test_a_file_that_is_no_configuration(run, tmp_path):
    """A configuration file that cannot be parsed ends with status 5."""
    (tmp_path / "bad.conf").write_text("what is this\n")
    assert run("--config-file", tmp_path / "bad.conf", "list").status == 5


def test_a_store_that_cannot_be_used(run, home):
    """If the only store is broken, an add gives the reason and ends with status 5."""
    (home / ".local").write_text("a file where a directory should be")
    outcome = run("add", "-", stdin=b"data")
    assert outcome.status == 5
    assert ".local" in outcome.err
    assert outcome.err.count("\n") == 1


def test_open_stores_takes_an_environment(conf):
    """The environment is a parameter, so that other programs can use the same rules."""
    with open_stores(environ={"STORE_LIB_CONFIG": str(conf("one"))}) as stores:
        assert [store.id for store in stores] == ["one"]
    with pytest.raises(BadStoreConfiguration):
        open_stores(environ={"STORE_LIB_CONFIG": "/nonexistent.conf"})
