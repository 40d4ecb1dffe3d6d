"""Tests of reading the configuration: whose option counts, and nothing of the caller's altered."""

import os
import pickle
import traceback
from pathlib import Path

import pytest
from oslo_config import cfg

from store_lib import Stores
from store_lib.config import Configuration
from store_lib.exceptions import BadStoreConfiguration, StoreError
from store_lib.options import StoreOptions, list_opts
from tests.frames import frames

OPTS = (
    cfg.StrOpt("place", default="/default"),
    cfg.IntOpt("number", default=5, min=1),
    cfg.StrOpt("password", secret=True),
    cfg.MultiStrOpt("many"),
)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def service(*files: str) -> cfg.ConfigOpts:
    """Return a service's ConfigOpts, with enabled_backends registered by the service."""
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.DictOpt("enabled_backends", help="the service's own"))
    conf(args=[], default_config_files=list(files), default_config_dirs=[])
    return conf


def test_precedence(tmp_path: Path) -> None:
    """A store's own section wins over backend_defaults, and that over the default."""
    path = write(
        tmp_path / "a.conf",
        "[DEFAULT]\nenabled_backends = one:x, two:x\n"
        "[backend_defaults]\nplace = /shared\nnumber = 7\n"
        "[one]\nplace = /one\n",
    )
    configuration = Configuration(files=[path])
    one = configuration.options("one", OPTS)
    two = configuration.options("two", OPTS)
    assert (one.place, one.number) == ("/one", 7)
    assert (two.place, two.number) == ("/shared", 7)
    assert one.is_set("place")
    assert two.is_set("number")
    assert not one.is_set("password")
    assert one.weight == 0


def test_a_default_that_is_written_down_counts_as_set(tmp_path: Path) -> None:
    """An option that the operator set to its default value wins over backend_defaults."""
    path = write(
        tmp_path / "a.conf",
        "[DEFAULT]\nenabled_backends = one:x\n[backend_defaults]\nnumber = 7\n[one]\nnumber = 5\n",
    )
    assert Configuration(files=[path]).options("one", OPTS).number == 5


def test_later_files_and_directories_win(tmp_path: Path) -> None:
    """Files are read in order, directories after them, in the order of names."""
    first = write(tmp_path / "a.conf", "[DEFAULT]\nenabled_backends=s:x\n[s]\nplace=/a\nnumber=1\n")
    second = write(tmp_path / "b.conf", "[s]\nplace=/b\n")
    folder = tmp_path / "d"
    folder.mkdir()
    write(folder / "10.conf", "[s]\nnumber=10\n")
    write(folder / "20.conf", "[s]\nnumber=20\n")
    options = Configuration(files=[first, second], directories=[str(folder)]).options("s", OPTS)
    assert (options.place, options.number) == ("/b", 20)


def test_caller_is_only_read(tmp_path: Path) -> None:
    """Nothing is registered on the caller's ConfigOpts, and its own registrations still work."""
    path = write(tmp_path / "a.conf", "[DEFAULT]\nenabled_backends=s:x\n[s]\nplace=/a\n")
    conf = service(path)
    before = set(conf)
    configuration = Configuration(conf)
    assert configuration.options("s", OPTS).place == "/a"
    assert set(conf) == before
    conf.register_opt(cfg.StrOpt("default_backend"), group="glance_store")
    conf.register_opts(OPTS, group="s")
    assert conf.s.place == "/a"


def test_caller_without_registrations_or_files() -> None:
    """A ConfigOpts that was never called and knows nothing gives the defaults."""
    configuration = Configuration(cfg.ConfigOpts())
    assert [section.driver for section in configuration.sections()] == ["file", "http"]


def test_caller_overrides_count(tmp_path: Path) -> None:
    """What the caller registered is read from the caller, with overrides and its own default."""
    path = write(tmp_path / "a.conf", "[DEFAULT]\nenabled_backends=s:x\n[s]\nplace=/a\n")
    conf = service(path)
    conf.register_opt(cfg.StrOpt("place", default="/callers"), group="s")
    conf.register_opt(cfg.IntOpt("number", default=99), group="s")
    conf.set_override("place", "/override", group="s")
    conf.set_override("enabled_backends", {"s": "x", "t": "y"})
    configuration = Configuration(conf)
    assert [section.store_id for section in configuration.sections()] == ["s", "t"]
    options = configuration.options("s", OPTS)
    assert (options.place, options.number) == ("/override", 99)
    assert options.is_set("place")
    assert not options.is_set("number")


def test_values_may_refer_to_the_callers_options(tmp_path: Path) -> None:
    """A value such as $state_path/images uses the caller's option."""
    path = write(
        tmp_path / "a.conf", "[DEFAULT]\nenabled_backends=s:x\n[s]\nplace=$state_path/images\n"
    )
    conf = service(path)
    conf.register_opt(cfg.StrOpt("state_path", default="/var/lib/svc"))
    assert Configuration(conf).options("s", OPTS).place == "/var/lib/svc/images"


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """oslo.config's environment variables count as set by the operator."""
    path = write(tmp_path / "a.conf", "[DEFAULT]\nenabled_backends=s:x\n")
    monkeypatch.setenv("OS_S__PLACE", "/env")
    options = Configuration(files=[path]).options("s", OPTS)
    assert options.place == "/env"
    assert options.is_set("place")


def test_single_store_form(tmp_path: Path) -> None:
    """The old form names drivers in [glance_store], beside their options, legacy names too."""
    path = write(
        tmp_path / "a.conf",
        "[glance_store]\nstores = glance.store.filesystem.Store, http, http\nplace = /old\n",
    )
    configuration = Configuration(files=[path])
    assert configuration.single
    assert [section.store_id for section in configuration.sections()] == ["filesystem", "http"]
    assert configuration.options("glance_store", OPTS).place == "/old"


@pytest.mark.parametrize("name", ["glance_store", "backend_defaults", "DEFAULT"])
def test_reserved_ids(name: str) -> None:
    """A store cannot have the name of a section that means something else."""
    configuration = Configuration(values={"DEFAULT": {"enabled_backends": f"{name}:file"}})
    with pytest.raises(BadStoreConfiguration, match="Choose another id"):
        configuration.sections()


@pytest.mark.parametrize("text", ["fast", "fast:file,fast:http", ":file"])
def test_malformed_list_of_stores(tmp_path: Path, text: str) -> None:
    """A list that is not of id:driver pairs, each once, is refused with the reason."""
    path = write(tmp_path / "a.conf", f"[DEFAULT]\nenabled_backends = {text}\n")
    with pytest.raises(BadStoreConfiguration, match="enabled_backends"):
        Configuration(files=[path]).sections()
    with pytest.raises(BadStoreConfiguration, match="enabled_backends"):
        Configuration(values={"DEFAULT": {"enabled_backends": text}}).sections()


def test_bad_values(tmp_path: Path) -> None:
    """A value of the wrong type is named with its option and section."""
    path = write(tmp_path / "a.conf", "[DEFAULT]\nenabled_backends=s:x\n[s]\nnumber=zero\n")
    with pytest.raises(BadStoreConfiguration, match=r"number in section \[s\]"):
        Configuration(files=[path]).options("s", OPTS)
    configuration = Configuration(values={"s": {"number": "0"}})
    with pytest.raises(BadStoreConfiguration, match=r"number in section \[s\]"):
        configuration.options("s", OPTS)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    """A file or directory that is not there, or cannot be parsed, is named."""
    with pytest.raises(BadStoreConfiguration, match=r"nope\.conf does not exist"):
        Configuration(files=[str(tmp_path / "nope.conf")])
    with pytest.raises(BadStoreConfiguration, match="nope does not exist"):
        Configuration(directories=[str(tmp_path / "nope")])
    broken = write(tmp_path / "b.conf", "no section here\n")
    with pytest.raises(BadStoreConfiguration, match="cannot be read"):
        Configuration(files=[broken])


def test_options_hide_their_values() -> None:
    """The representation of a store's options shows no value."""
    options = StoreOptions.of(OPTS, password="s3cr3t")
    assert "s3cr3t" not in repr(options)
    assert "password" in repr(options)
    assert options["password"] == "s3cr3t"
    assert dict(options)["number"] == 5
    with pytest.raises(AttributeError):
        _ = options.nothing
    with pytest.raises(ValueError, match="unknown options: bogus"):
        StoreOptions.of(OPTS, bogus=1)


def test_listing_for_the_generator() -> None:
    """Every driver's options are listed once, in a section named by the driver."""
    groups = dict(list_opts())
    assert {"DEFAULT", "glance_store", "backend_defaults", "file", "http"} <= set(groups)
    assert "filesystem" not in groups
    assert any(opt.name == "filesystem_store_datadir" for opt in groups["file"])
    assert all(opt.help for opts in groups.values() for opt in opts)


@pytest.mark.parametrize("value", ["pa$CANARY", "${CANARY}x", "$bad.password", "$password"])
@pytest.mark.parametrize("through", ["service", "files"])
def test_a_dollar_stops_one_store_only(tmp_path: Path, value: str, through: str) -> None:
    """A value with a $ that names nothing, or itself, makes one store bad, and is not shown."""
    path = write(
        tmp_path / "a.conf",
        "[DEFAULT]\nenabled_backends = bad:file, good:file\n"
        f"[bad]\nfilesystem_store_datadir = {tmp_path}/{value}\npassword = {value}\n"
        f"[good]\nfilesystem_store_datadir = {tmp_path}/x$$y\n",
    )
    conf = service(path)
    conf.register_opts(OPTS, group="bad")  # as a service that has the store's options too
    made = Stores.from_config(conf) if through == "service" else Stores.from_files(path)
    with made as stores:
        error = stores["bad"].error
        assert error is not None
        assert "Option filesystem_store_datadir in section [bad]" in str(error)
        assert "Write $$ for a $" in str(error)
        assert "CANARY" not in "".join(traceback.format_exception(error))
        uri = stores.add("id", b"x", store="good").uri
    assert uri == f"file://{tmp_path}/x$y/id"


def test_values_are_resolved_once(tmp_path: Path) -> None:
    """A copy of a configuration has the values that the first one had, a $ as a $."""
    values = {
        "DEFAULT": {"enabled_backends": "a:file"},
        "a": {"filesystem_store_datadir": f"{tmp_path}/x$$y$$$$z", "description": "$$s $$1"},
    }
    with Stores.from_mapping(values) as stores:
        copy = stores
        for _ in range(3):
            copy = pickle.loads(pickle.dumps(copy))
            assert copy["a"].options.filesystem_store_datadir == f"{tmp_path}/x$y$$z"
            assert copy["a"].description == "$s $1"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("weight =", "weight"),
        ("filesystem_store_chunk_size =", "filesystem_store_chunk_size"),
        ("transfer_retry_seconds =", "transfer_retry_seconds"),
    ],
)
def test_an_empty_value_is_said(tmp_path: Path, line: str, name: str) -> None:
    """An option that has a line and no value makes its store bad, by name."""
    path = write(
        tmp_path / "a.conf",
        "[DEFAULT]\nenabled_backends = bad:file, good:file\n"
        f"[bad]\nfilesystem_store_datadir = {tmp_path}/a\n{line}\n"
        f"[good]\nfilesystem_store_datadir = {tmp_path}/b\n",
    )
    with Stores.from_files(path) as stores:
        assert f"Option {name} of section [bad] is empty" in str(stores["bad"].error)
        stores.add("id", b"x", store="good")


@pytest.mark.parametrize("text", [b"[a]\ns3_store_secret_key CANARY\n", b"  CANARY\n[a]\n"])
def test_a_line_that_cannot_be_read_is_not_shown(tmp_path: Path, text: bytes) -> None:
    """A line without = is named by file and number, and nothing of it is shown."""
    path = tmp_path / "a.conf"
    path.write_bytes(text)
    number = 1 + text[: text.index(b"CANARY")].count(b"\n")
    with pytest.raises(BadStoreConfiguration, match=rf"a\.conf, line {number}: ") as caught:
        Stores.from_files(path)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, or a pipe among the files, are refused, and hang nothing."""
    path = tmp_path / "a.conf"
    path.write_bytes(b"# \xe9\n")
    with pytest.raises(BadStoreConfiguration, match="not UTF-8"):
        Stores.from_files(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadStoreConfiguration, match="to be a file"):
        Stores.from_files(directories=[tmp_path])


@pytest.mark.parametrize("line", ["filesystem_store_file_perm = x", "description = a$b", "CANARY"])
def test_no_frame_holds_the_configuration(tmp_path: Path, line: str) -> None:
    """What is wrong with an option, or a file, keeps no variable in which others' secrets are."""
    path = tmp_path / "it.conf"
    path.write_text(
        "[DEFAULT]\nenabled_backends = it:s3,other:file\n"
        "[it]\ns3_store_access_key = CANARY\ns3_store_secret_key = CANARY\n"
        f"[other]\n{line}\n"
    )
    errors: list[StoreError | None] = []
    try:
        with Stores.from_files(path) as stores:
            errors += [each.error for each in stores]
    except BadStoreConfiguration as error:
        errors.append(error)
    assert any(errors)
    for error in errors:
        assert not {where: value for where, value in frames(error) if "CANARY" in value}
