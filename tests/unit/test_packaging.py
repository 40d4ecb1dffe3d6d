"""What stands around the code: README, documentation, sample, entry points, CI, house rules."""

import ast
import configparser
import contextlib
import importlib
import io
import re
import runpy
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from wsgiref.util import FileWrapper

import pytest
from oslo_config import cfg, generator

import store_lib
from store_lib.version import VERSION

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "store_lib").rglob("*.py"))


def test_the_readme_example_runs(tmp_path):
    """The Python example of the README does what it says."""
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "/tmp/store_lib_example" in example
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example.replace("/tmp/store_lib_example", str(tmp_path / "objects")), {})
    size, digest, part = printed.getvalue().split()
    assert (size, len(digest), part) == ("33", 64, "b'bytes'")
    assert list((tmp_path / "objects").iterdir()) == []


def test_the_configuration_example_works(tmp_path):
    """The configuration example of the README gives three usable stores."""
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```ini\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "example.conf"
    path.write_text(example.replace("/srv/", f"{tmp_path}/"))
    with store_lib.Stores.from_files(path, strict=True) as stores:
        assert [store.id for store in stores] == ["fast", "archive", "web"]
        assert stores.default is stores["fast"]


@pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")  # WebOb imports it
def test_the_wsgi_example_works(tmp_path, monkeypatch):
    """The service of the embedding page stores an image and sends it, by file and by range."""
    import webob

    conf = tmp_path / "stores.conf"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = a:file\n"
        f"[a]\nfilesystem_store_datadir = {tmp_path / 'data'}\n"
    )
    monkeypatch.setenv("IMAGE_SERVICE_CONF", str(conf))
    monkeypatch.setenv("IMAGE_SERVICE_DATABASE", str(tmp_path / "images.sqlite"))
    service = runpy.run_path(str(ROOT / "doc/examples/image_service.py"))
    data = bytes(range(256)) * 1000

    def ask(method, **given):
        request = webob.Request.blank("/images/x", method=method, **given)
        request.environ["wsgi.file_wrapper"] = FileWrapper
        return request.get_response(service["application"])

    with contextlib.closing(service["STORES"]):
        assert ask("PUT", body=data).status_int == 201
        assert ask("PUT", body=data).status_int == 409
        answer = ask("GET")
        assert (answer.status_int, answer.body) == (200, data)
        answer = ask("GET", headers={"Range": "bytes=100-106"})
        assert (answer.status_int, answer.body) == (206, data[100:107])
        assert answer.headers["Content-Range"] == f"bytes 100-106/{len(data)}"
        assert ask("DELETE").status_int == 204
        assert ask("GET").status_int == 404


def test_links_between_the_pages_hold():
    """Every file that the README and CONTRIBUTING point to is there."""
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), target


def test_the_sample_is_up_to_date():
    """etc/store_lib.conf.sample is what oslo-config-generator writes; else run make sample."""
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf(["--namespace", "store_lib"], default_config_files=[], default_config_dirs=[])
    written = io.StringIO()
    generator.generate(conf, written)
    assert (ROOT / "etc/store_lib.conf.sample").read_text() == written.getvalue()


def test_every_option_has_a_help():
    """Every option says what it is for."""
    from store_lib.options import list_opts

    for section, options in list_opts():
        for option in options:
            assert option.help, f"[{section}] {option.name}"


def test_every_entry_point_loads():
    """What setup.cfg names is there."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for group, text in setup["options.entry_points"].items():
        for line in text.strip().splitlines():
            name, _, target = (part.strip() for part in line.partition("="))
            module, _, attribute = target.partition(":")
            found = importlib.import_module(module)
            assert not attribute or getattr(found, attribute), f"{group}: {name}"


def test_both_names_of_the_filesystem_driver():
    """file and filesystem name one driver."""
    file, filesystem = (
        point.load()
        for point in entry_points(group="store_lib.drivers")
        if point.name in ("file", "filesystem")
    )
    assert file is filesystem


def test_the_version():
    """There is one version, and the package tells it."""
    assert store_lib.__version__ == VERSION
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_every_public_name_is_documented():
    """The pages have every name that store_lib exports."""
    pages = "".join(page.read_text() for page in (ROOT / "doc").glob("*.rst"))
    for name in store_lib.__all__:
        assert hasattr(store_lib, name)
        assert name.startswith("_") or re.search(rf"\b{name}\b", pages), name


def test_ci_runs_make_test_and_nothing_else():
    """What CI runs is what a developer runs."""
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o100
    lines = [line for line in script.read_text().splitlines() if line and line[0] != "#"]
    assert lines == ["set -eu", 'cd "$(dirname "$0")/.."', "exec make test"]


def test_every_changelog_fragment_has_a_known_type():
    """A fragment whose type towncrier does not know would be left out without a word."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
    types = {each["directory"] for each in settings["type"]}
    assert types == {"feature", "fix", "removal", "doc", "misc"}
    for fragment in (ROOT / settings["directory"]).iterdir():
        if fragment.name != "README.md":
            assert re.fullmatch(rf"(\d+|\+\w+)\.({'|'.join(types)})\.md", fragment.name)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_house_rules(path):
    """A module says in its first sentence what it is for, is no longer than 700 lines, and is
    named after what is inside, unless glance_store named it."""
    text = path.read_text()
    first = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
    assert first, "no docstring"
    assert len(text.splitlines()) <= 700
    if path != ROOT / "store_lib/glance/common/utils.py":
        assert not re.search("util|helper|manager|misc|common", path.stem)
