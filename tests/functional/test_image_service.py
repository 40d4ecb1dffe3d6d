"""The documentation's image service under real servers, with real clients."""

import contextlib
import dataclasses
import http.client
import os
import socket
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import served
from tests.servers.glance_environment import glance_environment
from tests.servers.installed import python_environment
from tests.servers.process import ServerProcess, eventually, free_ports
from tests.servers.web import LISTEN, apache, nginx

EXAMPLES = Path(__file__).parents[2] / "doc" / "examples"
CONTENT = bytes(range(256)) * 20_000  # several chunks, and no whole number of them

SERVERS = ("uwsgi", "gunicorn", "mod_wsgi", "nginx", "nginx-plain")

_NGINX = """\
server {{
  listen {listen};
  client_max_body_size 0;
  location / {{
    include /etc/nginx/uwsgi_params;
    {blank}
    uwsgi_pass 127.0.0.1:{port};
  }}
}}
"""

_MOD_WSGI = """\
<VirtualHost {listen}>
  WSGIDaemonProcess images processes=1 threads=4 python-home={home} python-path={examples}
  WSGIProcessGroup images
  WSGIApplicationGroup %{{GLOBAL}}
  WSGIScriptAlias / {script}
  WSGIChunkedRequest On
  <Location />
    Require all granted
  </Location>
</VirtualHost>
"""


@dataclasses.dataclass
class Service:
    """A running image service."""

    address: str
    data: Path

    def files(self) -> list[str]:
        """Return what lies in the store's directory."""
        return sorted(each.name for each in self.data.iterdir())

    def connect(self) -> http.client.HTTPConnection:
        """Return a client's connection."""
        return http.client.HTTPConnection(self.address, timeout=30)

    def ask(
        self, method: str, image: str, body: object = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Make a request and return the answer with its body."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, f"/images/{image}", body, sent)  # type: ignore[arg-type]
            answer = connection.getresponse()
            return answer, answer.read()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An interpreter that has store_lib and WebOb."""
    place = tmp_path_factory.mktemp("service") / "environment"
    with served(contextlib.nullcontext()):
        yield glance_environment(place, "distribution")


@pytest.fixture(scope="module", params=SERVERS)
def service(
    environment: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service under each server."""
    with contextlib.ExitStack() as stack:
        directory = tmp_path_factory.mktemp(request.param)
        running = served(run(request.param, environment, directory, stack))
        yield stack.enter_context(running)


@contextlib.contextmanager
def run(kind: str, python: Path, directory: Path, stack: contextlib.ExitStack) -> Iterator[Service]:
    """Run the service as the documentation says."""
    data = directory / "data"
    conf = directory / "stores.conf"
    conf.write_text(
        f"[DEFAULT]\nenabled_backends = fast:file\n[fast]\nfilesystem_store_datadir = {data}\n"
    )
    variables = {
        "IMAGE_SERVICE_CONF": os.fspath(conf),
        "IMAGE_SERVICE_DATABASE": os.fspath(directory / "images.sqlite"),
        "PYTHONPATH": os.fspath(EXAMPLES),
        "PYTHONWARNINGS": "ignore",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    if kind == "mod_wsgi":
        # Apache's user has to read it.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.chmod(0o755)
        python = glance_environment(place / "environment", "distribution", "/usr/bin/python3")
        script = directory / "script.py"
        lines = [f"os.environ.update({variables!r})", "from image_service import application", ""]
        script.write_text("\n".join(["import os", *lines]))
        site = _MOD_WSGI.format(
            listen=LISTEN, home=python.parents[1], examples=EXAMPLES, script=script
        )
        (url,) = stack.enter_context(apache(directory / "apache", [site], wsgi=True))
    elif kind == "gunicorn":
        command: list[str | Path] = [python, "-m", "gunicorn", "--bind", address]
        command += ["--workers", "2", "--no-control-socket", "image_service:application"]
        url = _started(kind, command, directory, variables, port, stack)
    else:
        text = (EXAMPLES / "uwsgi.ini").read_text()
        assert "http-socket = 127.0.0.1:60999\n" in text
        listens = "http-socket" if kind == "uwsgi" else "socket"
        text = text.replace("http-socket = 127.0.0.1:60999", f"{listens} = {address}")
        (directory / "uwsgi.ini").write_text(f"{text}virtualenv = {python.parents[1]}\n")
        uwsgi = python_environment("glance") / "bin" / "uwsgi"
        command = [uwsgi, "--ini", directory / "uwsgi.ini", "--no-orphans"]
        url = _started(kind, command, directory, variables, port, stack)
        if kind != "uwsgi":
            blank = "" if kind == "nginx-plain" else 'uwsgi_param HTTP_TRANSFER_ENCODING "";'
            site = _NGINX.format(listen=LISTEN, blank=blank, port=port)
            (url,) = stack.enter_context(nginx(directory / "nginx", [site]))
    yield Service(urllib.parse.urlsplit(url).netloc, data)


def _started(
    kind: str,
    command: list[str | Path],
    directory: Path,
    variables: dict[str, str],
    port: int,
    stack: contextlib.ExitStack,
) -> str:
    server = ServerProcess.start(
        kind, command, log=directory / "output", environment=variables, directory=directory
    )
    stack.callback(server.stop, kill=True)
    server.wait_for_port(port)
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def image(service: Service) -> Iterator[str]:
    """An image of CONTENT; removed afterwards, and nothing else may be left."""
    answer, _ = service.ask("PUT", "it", CONTENT)
    assert answer.status == 201
    yield "it"
    service.ask("DELETE", "it")
    assert service.files() == []


@pytest.mark.parametrize("chunked", [False, True])
def test_upload_by_curl(service: Service, chunked: bool, tmp_path: Path) -> None:
    """What curl sends comes back the same, by length and in chunks; a second one is refused."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(CONTENT)
    url = f"http://{service.address}/images/curl"
    curl = ["curl", "--silent", "--show-error", "--write-out", "%{http_code}", "--output"]
    upload = [*curl, tmp_path / "answer", "--upload-file", source, url]
    if chunked:
        upload += ["--header", "Transfer-Encoding: chunked"]
    done = subprocess.run(upload, capture_output=True, text=True, timeout=60)
    if chunked and service.data.parent.name.startswith("nginx-plain"):
        # It passes a header on that is no longer true: refused, never stored wrong.
        # nginx says 502 when it has not sent the whole body yet.
        assert done.stdout in ("400", "502")
        assert service.files() == []
        return
    assert done.stdout == "201", done.stderr + (tmp_path / "answer").read_text()
    again = subprocess.run(upload, capture_output=True, text=True, timeout=60)
    assert again.stdout == "409"
    got = subprocess.run([*curl, target, url], capture_output=True, text=True, timeout=60)
    assert got.stdout == "200"
    assert target.read_bytes() == CONTENT
    assert service.ask("DELETE", "curl")[0].status == 204
    assert service.ask("GET", "curl")[0].status == 404
    assert service.files() == []


@pytest.mark.parametrize("chunked", [False, True])
def test_broken_upload(service: Service, chunked: bool) -> None:
    """An upload whose connection is cut stores nothing, and its id can be used again."""
    host, _, port = service.address.rpartition(":")
    head = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(CONTENT)}"
    with socket.create_connection((host, int(port)), timeout=30) as wire:
        wire.sendall(f"PUT /images/cut HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        piece = CONTENT[:300_000]
        wire.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        wire.sendall(b"10\r\n12345" if chunked else b"")
        wire.shutdown(socket.SHUT_WR)
        answered = b"".join(iter(lambda: wire.recv(65536), b""))
    assert b" 201 " not in answered
    assert service.ask("GET", "cut")[0].status == 404
    # A server may close the connection before the application has ended the add, which is refused
    # as a duplicate until then.
    eventually(
        lambda: service.ask("PUT", "cut", b"whole")[0].status == 201,
        "the id of an upload that was cut can be used again",
    )
    assert service.ask("GET", "cut")[1] == b"whole"
    assert service.ask("DELETE", "cut")[0].status == 204
    assert service.files() == []


def test_empty_upload(service: Service) -> None:
    """An upload of declared length 0 is an empty image."""
    assert service.ask("PUT", "empty", b"", Content_Length="0")[0].status == 201
    answer, body = service.ask("GET", "empty")
    assert (answer.status, answer.headers["Content-Length"], body) == (200, "0", b"")
    assert service.ask("DELETE", "empty")[0].status == 204
    assert service.files() == []


def test_neither_length_nor_chunks(service: Service) -> None:
    """A request without a length stores nothing but where the server itself says it is empty."""
    host, _, port = service.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as wire:
        wire.sendall(b"PUT /images/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answered = b"".join(iter(lambda: wire.recv(65536), b""))
    if b" 411 " not in answered:
        assert b" 201 " in answered
        assert service.ask("GET", "none")[1] == b""
        assert service.ask("DELETE", "none")[0].status == 204
    assert service.files() == []


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=5-9", 5, 9),
        ("bytes=-7", len(CONTENT) - 7, len(CONTENT) - 1),
        ("bytes=4000000-", 4_000_000, len(CONTENT) - 1),
    ],
)
def test_range(service: Service, image: str, wanted: str, first: int, last: int) -> None:
    """A range is 206 with its place and its bytes; HEAD has the same head."""
    for method in ("GET", "HEAD"):
        answer, body = service.ask(method, image, Range=wanted)
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(CONTENT)}"
        assert answer.headers["Content-Length"] == str(last + 1 - first)
        assert body == (CONTENT[first : last + 1] if method == "GET" else b"")


def test_range_outside(service: Service, image: str) -> None:
    """A range beyond the end is 416 and says the size."""
    answer, _ = service.ask("GET", image, Range=f"bytes={len(CONTENT)}-")
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


def test_conditions(service: Service, image: str) -> None:
    """Conditional requests: 304, 412, and a range only of the image that the client knows."""
    answer, body = service.ask("GET", image)
    etag = answer.headers["ETag"]
    assert (answer.status, body) == (200, CONTENT)
    assert service.ask("GET", image, If_None_Match=etag)[0].status == 304
    assert service.ask("GET", image, If_None_Match='"other"')[0].status == 200
    assert service.ask("GET", image, If_Match='"other"')[0].status == 412
    assert service.ask("GET", image, If_Range=etag, Range="bytes=1-2")[0].status == 206
    answer, body = service.ask("GET", image, If_Range='"other"', Range="bytes=1-2")
    assert (answer.status, body) == (200, CONTENT)
