"""Apache and nginx on loopback, as plain processes, with sites from the documentation."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.servers.installed import NotInstalled, debian_packages
from tests.servers.process import ServerProcess, free_ports

_MODULES = Path("/usr/lib/apache2/modules")

_APACHE = """\
ServerRoot {directory}
ServerName 127.0.0.1
PidFile {directory}/apache.pid
DefaultRuntimeDir {directory}
Mutex posixsem
ErrorLog {directory}/output
LogLevel warn
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule env_module {modules}/mod_env.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule proxy_uwsgi_module {modules}/mod_proxy_uwsgi.so
{load_wsgi}
StartServers 1
{listen}
{sites}
"""

_NGINX = """\
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/output warn;
worker_processes 1;
{user}
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/client-body;
  proxy_temp_path {directory}/proxy;
  uwsgi_temp_path {directory}/uwsgi;
  fastcgi_temp_path {directory}/fastcgi;
  scgi_temp_path {directory}/scgi;
{sites}
}}
"""

#: The address in the documentation's sites, which is replaced by a free one for each site.
LISTEN = "127.0.0.1:9292"


@contextlib.contextmanager
def apache(directory: Path, sites: Sequence[str], *, wsgi: bool = False) -> Iterator[list[str]]:
    """Run Apache with some sites and yield their URLs.

    :param sites: texts of the configuration, which listen at :data:`LISTEN`
    :param wsgi: load mod_wsgi too
    :raises NotInstalled: Apache is missing, or mod_wsgi is for another Python
    """
    wanted = {
        "/usr/sbin/apache2": "apache2",
        str(_MODULES / "mod_proxy_uwsgi.so"): "libapache2-mod-proxy-uwsgi",
    }
    if wsgi:
        wanted[str(_MODULES / "mod_wsgi.so")] = "libapache2-mod-wsgi-py3"
    debian_packages(wanted, "Apache")
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if wsgi and not (_MODULES / f"mod_wsgi.so-{ours}").exists():
        raise NotInstalled(f"the system's mod_wsgi is not for Python {ours}, which Glance runs on")
    directory.mkdir(parents=True, exist_ok=True)
    texts, ports = _own_addresses(sites)
    config = directory / "apache.conf"
    config.write_text(
        _APACHE.format(
            directory=directory,
            modules=_MODULES,
            load_wsgi=f"LoadModule wsgi_module {_MODULES}/mod_wsgi.so" if wsgi else "",
            listen="\n".join(f"Listen 127.0.0.1:{port}" for port in ports),
            sites="\n".join(texts),
        )
    )
    command: list[str | Path] = ["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", config]
    if os.geteuid() == 0:
        # It refuses to run as root, but only the user can access a test's directory.
        caps = ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
        user = ["--reuid", "www-data", "--regid", "www-data", "--clear-groups"]
        command[:0] = ["setpriv", *user, *caps, "--pdeathsig", "KILL", "--"]
    yield from _served("apache", command, directory, ports)


@contextlib.contextmanager
def nginx(directory: Path, sites: Sequence[str]) -> Iterator[list[str]]:
    """Run nginx with some sites and yield their URLs.

    :param sites: texts of the configuration, which listen at :data:`LISTEN`
    :raises NotInstalled: nginx is missing
    """
    debian_packages({"nginx": "nginx-light"}, "nginx")
    directory.mkdir(parents=True, exist_ok=True)
    texts, ports = _own_addresses(sites)
    config = directory / "nginx.conf"
    config.write_text(
        _NGINX.format(
            directory=directory,
            # Only the user can access a test's directory.
            user="user root;" if os.geteuid() == 0 else "",
            sites="\n".join(texts),
        )
    )
    command: list[str | Path] = ["nginx", "-e", directory / "output", "-c", config]
    yield from _served("nginx", command, directory, ports)


def _own_addresses(sites: Sequence[str]) -> tuple[list[str], list[int]]:
    ports = free_ports(len(sites))
    texts = []
    for site, port in zip(sites, ports, strict=True):
        assert LISTEN in site
        texts.append(site.replace(LISTEN, f"127.0.0.1:{port}"))
    return texts, ports


def _served(
    name: str, command: Sequence[str | Path], directory: Path, ports: Sequence[int]
) -> Iterator[list[str]]:
    server = ServerProcess.start(name, command, log=directory / "output", directory=directory)
    try:
        for port in ports:
            server.wait_for_port(port)
        yield [f"http://127.0.0.1:{port}" for port in ports]
    finally:
        server.stop(kill=True)
