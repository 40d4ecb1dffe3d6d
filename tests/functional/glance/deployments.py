"""Every way in which the documentation deploys Glance, each running when it is first asked for."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tests.servers.glance import Deployment, Glance, documented, files, glance, set_up
from tests.servers.glance_environment import Library, glance_environment
from tests.servers.installed import NotInstalled
from tests.servers.web import apache, nginx

Made = TypeVar("Made")

WebServer = Callable[..., contextlib.AbstractContextManager[list[str]]]


@dataclasses.dataclass(frozen=True)
class Site:
    """Glance as a client meets it."""

    name: str
    #: What stands before ``/v2``.
    url: str
    data: Path

    def files(self, *stores: str) -> list[str]:
        """Return the names of the files in the directories of stores."""
        return files(self.data, *stores)


class Deployments:
    """Starts what a site needs, once.

    :param directory: where everything lies
    :param stack: ends it
    :param library: what Glance runs on; when left out, the two ways to switch take turns
    """

    def __init__(
        self, directory: Path, stack: contextlib.ExitStack, library: Library | None = None
    ) -> None:
        self._directory = directory
        self._stack = stack
        self._library = library
        self._made: dict[object, Any] = {}
        # Open to all: Apache's processes ask whether they may use it.
        self._environments = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._environments.chmod(0o755)

    def __getitem__(self, name: str) -> Site:
        """Return a site: a key of :data:`SITES`, or an application server that speaks HTTP.

        :raises NotInstalled: what it needs is missing
        """
        if name in MOD_WSGI:
            return Site(
                name,
                self._once("mod_wsgi", self._start_mod_wsgi)[name] + "/image",
                self._directory / "mod_wsgi/data",
            )
        if name in SITES:
            site = SITES[name]
            url = self._web(site.server)[name] + site.path
            return Site(name, url, self.glance(site.behind).data)
        behind = self.glance(name)  # type: ignore[arg-type]
        return Site(name, behind.url, behind.data)

    def _once(self, key: object, make: Callable[[], Made]) -> Made:
        """Return what ``make`` made the first time, or raise what it then raised."""
        if key not in self._made:
            try:
                self._made[key] = make()
            except NotInstalled as error:
                self._made[key] = error
        made: Made | NotInstalled = self._made[key]
        if isinstance(made, NotInstalled):
            raise made
        return made

    def python(self, library: Library) -> Path:
        """Return an interpreter with Glance on a library.

        :raises NotInstalled: it cannot be made
        """
        place = self._environments / library
        return self._once(library, lambda: glance_environment(place, library))

    def glance(self, deployment: Deployment) -> Glance:
        """Return Glance under an application server."""
        # So do loading Glance in each worker and loading it before the workers are forked.
        lazy = deployment == "uwsgi-http"
        library = self._library or ("distribution" if lazy else "script")
        place = self._directory / deployment
        python = self.python(library)
        return self._once(
            deployment,
            lambda: self._stack.enter_context(
                glance(place, deployment, library, python=python, lazy=lazy)
            ),
        )

    def _web(self, server: WebServer) -> dict[str, str]:
        """Return the URLs of a web server's sites."""
        return self._once(server, lambda: self._start_web(server))

    def _start_web(self, server: WebServer) -> dict[str, str]:
        names = [name for name, site in SITES.items() if site.server is server]
        texts = [SITES[name].text(self.glance(SITES[name].behind)) for name in names]
        urls = self._stack.enter_context(server(self._directory / server.__name__, texts))
        return dict(zip(names, urls, strict=True))

    def _start_mod_wsgi(self) -> dict[str, str]:
        """Return the URLs of the sites of an Apache that runs Glance itself."""
        directory = self._directory / "mod_wsgi"
        library = self._library or "script"
        # Of the system's Python, as mod_wsgi is.
        environment = self._environments / "mod_wsgi"
        python = glance_environment(environment, library, "/usr/bin/python3")
        set_up(directory, library, python=python)
        script = directory / "etc" / "wsgi.py"
        text = "from glance.wsgi.api import application\n"
        if library == "script":
            text = documented("glance_on_store_lib.py", {})
        place = os.fspath(directory / "etc")
        script.write_text(f"import os\nos.environ['OS_GLANCE_CONFIG_DIR'] = {place!r}\n{text}")
        places = {
            " user=glance group=glance": "",
            "/opt/glance": python.parents[1],
            "/etc/glance": place,
        }
        sites = [documented(_MOD_WSGI, {**places, **altered}) for altered in MOD_WSGI.values()]
        urls = self._stack.enter_context(apache(directory / "apache", sites, wsgi=True))
        return dict(zip(MOD_WSGI, urls, strict=True))


@dataclasses.dataclass(frozen=True)
class WebSite:
    """A site of Apache's or nginx's, as documented or altered."""

    server: WebServer
    file: str
    behind: Deployment
    #: Between the address and ``/v2``.
    path: str = ""
    #: What is to stand in the place of what is documented.
    altered: tuple[tuple[str, str], ...] = ()

    def text(self, behind: Glance) -> str:
        """Return the configuration in front of a Glance."""
        port = ":60999" if behind.url else ":60998"
        address = behind.address.rpartition(":")[2]
        return documented(self.file, {port: f":{address}", **dict(self.altered)})


_MOD_PROXY_UWSGI = "apache-mod_proxy_uwsgi.conf"
_MOD_WSGI = "apache-mod_wsgi.conf"
_UWSGI_PASS = "nginx-uwsgi_pass.conf"

#: Sites of mod_wsgi, and what is altered in them.
MOD_WSGI: Mapping[str, Mapping[str, str]] = {
    "apache-mod_wsgi": {},
    "apache-mod_wsgi-plain": {
        "WSGIChunkedRequest On": "",
        "WSGIDaemonProcess glance": "WSGIDaemonProcess plain",
        "WSGIProcessGroup glance": "WSGIProcessGroup plain",
    },
}

SITES = {
    "apache-mod_proxy": WebSite(apache, "apache-mod_proxy.conf", "uwsgi-http", "/image"),
    "apache-mod_proxy_uwsgi": WebSite(apache, _MOD_PROXY_UWSGI, "uwsgi-socket", "/image"),
    # The way out that Glance's documentation names.
    "apache-mod_proxy_uwsgi-sendcl": WebSite(
        apache,
        _MOD_PROXY_UWSGI,
        "uwsgi-socket",
        "/image",
        (("    ProxyPass", "    SetEnv proxy-sendcl 1\n    ProxyPass"),),
    ),
    "nginx-proxy_pass": WebSite(nginx, "nginx-proxy_pass.conf", "uwsgi-http"),
    "nginx-proxy_pass-buffered": WebSite(
        nginx,
        "nginx-proxy_pass.conf",
        "uwsgi-http",
        altered=(("proxy_request_buffering off;", ""), ("proxy_http_version 1.1;", "")),
    ),
    "nginx-uwsgi_pass": WebSite(nginx, _UWSGI_PASS, "uwsgi-socket"),
    "nginx-uwsgi_pass-plain": WebSite(
        nginx,
        _UWSGI_PASS,
        "uwsgi-socket",
        altered=(('uwsgi_param HTTP_TRANSFER_ENCODING "";', ""),),
    ),
    "nginx-uwsgi_pass-impatient": WebSite(
        nginx,
        _UWSGI_PASS,
        "uwsgi-socket",
        altered=(("uwsgi_read_timeout 10m;", "uwsgi_read_timeout 1ms;"),),
    ),
    "nginx-uwsgi_pass-limited": WebSite(
        nginx, _UWSGI_PASS, "uwsgi-socket", altered=(("client_max_body_size 0;", ""),)
    ),
}
