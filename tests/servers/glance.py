"""Real Glance on loopback under uWSGI or gunicorn, set up as the documentation says."""

import contextlib
import dataclasses
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from tests.servers.glance_environment import ROOT, Library, glance_environment
from tests.servers.installed import python_environment
from tests.servers.process import ServerFailed, ServerProcess, free_ports

#: The files that the documentation shows.
DOCUMENTED = ROOT / "doc" / "deployments"

#: The servers: uWSGI with HTTP, uWSGI with its own protocol, gunicorn.
Deployment = Literal["uwsgi-http", "uwsgi-socket", "gunicorn"]

#: The configuration of Glance's database, paste and so on in a test.
_BESIDES = """
[DEFAULT]
show_multiple_locations = True
show_image_direct_url = True
use_stderr = True
log_options = False
[database]
connection = sqlite:///{directory}/glance.sqlite?timeout=60
[paste_deploy]
config_file = {directory}/etc/glance-api-paste.ini
flavor = trusted
[import_filtering_opts]
allowed_hosts = [127.0.0.1]
allowed_ports = []
disallowed_ports = []
allowed_schemes = [http,https]
[image_import_opts]
image_import_plugins = []
[oslo_messaging_notifications]
driver = noop
[oslo_concurrency]
lock_path = {directory}
[oslo_policy]
enforce_scope = False
"""

#: A pipeline without Keystone, which trusts the identity that a client claims.
_TRUSTED = """
[composite:glance-api-trusted]
paste.composite_factory = glance.api:root_app_factory
/: api
/healthcheck: healthcheck
"""
_TRUSTED_PIPELINE = (
    "trusted = cors http_proxy_to_wsgi versionnegotiation osprofiler context rootapp\n"
)


@dataclasses.dataclass(frozen=True)
class Glance:
    """A running Glance."""

    #: The address, for HTTP or uWSGI's protocol.
    address: str
    #: ``http://`` and the address, empty without HTTP.
    url: str
    #: Parent of the stores' directories ``fast``, ``slow`` and ``staging``.
    data: Path
    server: ServerProcess
    #: The interpreter that Glance runs on.
    python: Path


def files(data: Path, *stores: str) -> list[str]:
    """Return the names of the files in the directories of stores, sorted.

    :param stores: ``fast``, ``slow`` and ``staging`` when left out
    """
    return sorted(
        each.name
        for store in stores or ("fast", "slow", "staging")
        for each in (data / store).glob("*")
    )


def documented(name: str, replaced: Mapping[str, object]) -> str:
    """Return a file of the documentation with the addresses and directories of a test.

    :param replaced: texts to replace, all of which must occur
    """
    text = (DOCUMENTED / name).read_text()
    for old, new in replaced.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, str(new))
    return text


@contextlib.contextmanager
def glance(
    directory: Path,
    deployment: Deployment = "uwsgi-http",
    library: Library = "distribution",
    *,
    python: Path | None = None,
    stores: Mapping[str, Mapping[str, object]] | None = None,
    default: str = "fast",
    processes: int = 2,
    lazy: bool = True,
    options: str = "",
) -> Iterator[Glance]:
    """Run Glance with its database and stores in ``directory``; it starts in about 6 s.

    There are two file stores, ``fast`` and ``slow``, and a read-only web store, ``web``.

    :param processes: number of workers
    :param lazy: load Glance in each worker; otherwise once, before the workers are forked

    The other parameters are those of :func:`set_up`.

    :raises NotInstalled: its environment cannot be made
    """
    (port,) = free_ports(1)
    python = set_up(
        directory,
        library,
        python=python,
        port=port,
        stores=stores,
        default=default,
        options=options,
    )
    config = directory / ("gunicorn.conf.py" if deployment == "gunicorn" else "uwsgi.ini")
    places: dict[str, object] = {"/etc/glance": directory / "etc"}
    if deployment == "gunicorn":
        places |= {":60999": f":{port}", "workers = 2": f"workers = {processes}"}
        text = documented("gunicorn.conf.py", places) + ("" if lazy else "preload_app = True\n")
        text += "control_socket_disable = True\n"  # it would lie in the user's home
        if library == "script":
            text = text.replace("glance.wsgi.api:", "glance_on_store_lib:")
            text += f'pythonpath = "{directory}/etc"\n'
        config.write_text(text)
        command: list[str | Path] = [python, "-m", "gunicorn", "-c", config]
    else:
        places |= {"/opt/glance": python.parents[1], "processes = 2": f"processes = {processes}"}
        places[":60999" if deployment == "uwsgi-http" else ":60998"] = f":{port}"
        places |= {} if lazy else {"lazy-apps = true\n": ""}
        if library == "script":
            module = "module = glance.wsgi.api:application"
            places[module] = f"wsgi-file = {directory}/etc/glance_on_store_lib.py"
        config.write_text(documented(f"{deployment}.ini", places))
        uwsgi = python_environment("glance") / "bin" / "uwsgi"
        command = [uwsgi, "--ini", config, "--no-orphans"]
    server = ServerProcess.start(
        f"glance under {deployment}",
        command,
        log=directory / "output",
        environment={"PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"},
        directory=directory,
    )
    try:
        # uWSGI listens before it loads; a connection then waits for the first worker.
        server.wait_for_port(port)
        address = f"127.0.0.1:{port}"
        url = "" if deployment == "uwsgi-socket" else f"http://{address}"
        yield Glance(address, url, directory / "data", server, python)
    finally:
        server.stop(kill=True)


def set_up(
    directory: Path,
    library: Library,
    *,
    python: Path | None = None,
    port: int = 0,
    stores: Mapping[str, Mapping[str, object]] | None = None,
    default: str = "fast",
    options: str = "",
) -> Path:
    """Make the files in ``directory`` that Glance needs, and return its interpreter.

    The configuration is in ``etc``, the files of the stores in ``data``.

    :param python: an interpreter of :func:`glance_environment` with ``library`` in it; by
        default it makes one
    :param stores: options of additional stores by id, with the driver's name as ``driver``
    :param default: id of the default store
    :param options: additional text of the configuration
    :raises NotInstalled: the environment cannot be made
    """
    directory.mkdir(parents=True, exist_ok=True)
    python = python or glance_environment(directory / "environment", library)
    _configure(directory, port, dict(stores or {}), default, options)
    script = "glance_on_store_lib.py"
    (directory / "etc" / script).write_text(documented(script, {}))
    run(python, "glance.cmd.manage", "--config-dir", directory / "etc", "db_sync")
    return python


def _configure(
    directory: Path,
    port: int,
    stores: dict[str, Mapping[str, object]],
    default: str,
    options: str,
) -> None:
    """Write Glance's configuration: the documented part about stores, and the rest."""
    etc = directory / "etc"
    etc.mkdir(exist_ok=True)
    for each in ("fast", "slow", "staging", "tasks"):
        (directory / "data" / each).mkdir(parents=True, exist_ok=True)
    sections = []
    enabled = "fast:file, slow:file, web:http"
    for store, given in stores.items():
        enabled += f", {store}:{given['driver']}"
        lines = [f"{name} = {value}" for name, value in given.items() if name != "driver"]
        sections.append("\n".join([f"[{store}]", *lines, ""]))
    places = {
        "fast:file, slow:file, web:http": enabled,
        "default_backend = fast": f"default_backend = {default}",
        ":60999": f":{port}",
        "/srv/glance": directory / "data",
    }
    text = documented("glance-api.conf", places) + _BESIDES.format(directory=directory)
    (etc / "glance-api.conf").write_text("\n".join([text, *sections, options]))
    paste = (python_environment("glance") / "etc/glance/glance-api-paste.ini").read_text()
    before = "default = cors"
    assert before in paste
    (etc / "glance-api-paste.ini").write_text(
        paste.replace(before, _TRUSTED_PIPELINE + before) + _TRUSTED
    )


def run(python: Path, module: str, *arguments: str | Path) -> str:
    """Run one of Glance's commands and return its output.

    :raises ServerFailed: the command failed; the text is the end of its output
    """
    done = subprocess.run(
        [python, "-W", "ignore", "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        said = "\n".join(done.stdout.splitlines()[-20:])
        raise ServerFailed(f"{module} ended with status {done.returncode}:\n{said}")
    return done.stdout
