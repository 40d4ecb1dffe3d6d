"""Our own drivers pass the conformance suite, and the suite says clearly when it cannot run."""

import contextlib
import hashlib
import http.server
import pathlib
import re
import threading
from collections.abc import Iterator

import pytest

from store_lib.testing import Profile, Settings, all_checks, checks_for
from tests.functional.conformance import (
    configurations,
    passed,
    run_kit,
    write_config,
    write_inventory,
)

_FILE = "filesystem_store_"


DEPLOYMENTS = {
    "plain": [f"{_FILE}datadir = {{}}/a"],
    "thin, chunks of 64 KiB": [
        f"{_FILE}datadir = {{}}/a",
        "filesystem_thin_provisioning = true",
        f"{_FILE}chunk_size = 65536",
    ],
    "several directories": [
        f"{_FILE}datadirs = {{}}/a:100",
        f"{_FILE}datadirs = {{}}/b:200",
        f"{_FILE}datadirs = {{}}/c:200",
    ],
    "not durable, hung mounts watched": [
        f"{_FILE}datadir = {{}}/a",
        "filesystem_store_durable = false",
        f"{_FILE}timeout = 60",
    ],
}


@pytest.mark.parametrize(
    ("deployment", "profile"), configurations(list(DEPLOYMENTS)[:1], list(DEPLOYMENTS)[1:])
)
def test_the_filesystem_driver_conforms(
    deployment: str, profile: str, tmp_path: pathlib.Path
) -> None:
    """The filesystem driver passes every check, however it is set up."""
    lines = [line.format(tmp_path) for line in DEPLOYMENTS[deployment]]
    for line in lines:
        if _FILE + "datadir" in line:
            pathlib.Path(line.partition("= ")[2].partition(":")[0]).mkdir()
    config = write_config(tmp_path, "file", *lines)
    look = write_inventory(
        tmp_path, f"glob.glob('{tmp_path}/[abc]/**', recursive=True, include_hidden=True)"
    )
    result = run_kit(
        tmp_path,
        *("--store-config", config, "--store", "it", "--store-no-skip"),
        *("--store-inventory", look),
        profile=profile,
    )
    assert passed(result) == len(checks_for(Profile(Settings((config,), "it"))))
    left = [path for path in tmp_path.glob("[abc]/*") if not path.name.startswith(".store_lib-")]
    assert left == []


class _RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves one object with ranges and a validator, and keeps connections alive."""

    protocol_version = "HTTP/1.1"
    content = b""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        data, status = self.content, 200
        if self.path != "/image":
            data, status = b"nothing here", 404
        total = len(data)
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        if status == 200 and wanted and self.headers.get("If-Range", tag) == tag:
            first = int(wanted[1])
            last = min(int(wanted[2] or total - 1), total - 1)
            if first >= total:
                data, status = b"", 416
                headers["Content-Range"] = f"bytes */{total}"
            else:
                data, status = data[first : last + 1], 206
                headers["Content-Range"] = f"bytes {first}-{last}/{total}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a reader was dropped half way
            super().handle()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(tmp_path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """A web server with one object: its URI, and a file of the same bytes."""
    content = bytes(range(256)) * 20_000 + b"end"
    path = tmp_path / "image"
    path.write_bytes(content)
    handler = type("Handler", (_RangeHandler,), {"content": content})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/image", str(path)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.deep("kits", always=True)
def test_the_http_driver_conforms(web: tuple[str, str], tmp_path: pathlib.Path) -> None:
    """The http driver reads rightly, and refuses clearly what it does not claim."""
    uri, path = web
    config = write_config(tmp_path, "http")
    result = run_kit(
        tmp_path,
        *("--store-config", config, "--store", "it", "--store-no-skip"),
        *("--store-uri", uri, "--store-file", path),
    )
    settings = Settings((config,), "it", known_uri=uri, known_file=path)
    assert passed(result) == len(checks_for(Profile(settings)))


def test_every_check_says_what_it_proves() -> None:
    """Each check has a docstring, and the numbered ones of the suite's plan are all there."""
    texts = {check.name: check.function.__doc__ or "" for check in all_checks()}
    assert [name for name, text in texts.items() if not text.strip()] == []
    numbers = {int(n) for text in texts.values() for n in re.findall(r"Check (\d+):", text)}
    # Number 20, descriptors and threads, is looked at after each check.
    assert numbers == {*range(1, 11), 18, 19, 22, 23, 25, 28}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give --store-config FILE and --store ID"),
        (["--store", "it"], "give --store-config FILE and --store ID"),
        (["--store-config", "{config}"], "give --store-config FILE and --store ID"),
        (["--store-config", "{config}", "--store", "that"], "configured are: it, broken"),
        (["--store-config", "nowhere.conf", "--store", "it"], "nowhere.conf does not exist"),
        (["--store-config", "{config}", "--store", "broken"], "Store broken cannot be used"),
        (["--store-config", "{config}", "--store", "web"], "--store-uri URI"),
    ],
    ids=["nothing", "no config", "no store", "unknown store", "no file", "broken", "read-only"],
)
def test_without_a_usable_store_nothing_passes(
    arguments: list[str], reason: str, tmp_path: pathlib.Path
) -> None:
    """A run that cannot check anything is a usage error, never an empty pass."""
    config = tmp_path / "stores.conf"
    web = ", web:http" if "web" in arguments else ""
    config.write_text(
        f"[DEFAULT]\nenabled_backends = it:file, broken:file{web}\n"
        f"[it]\n{_FILE}datadir = {tmp_path}/a\n"
        f"[broken]\n{_FILE}datadir = {tmp_path}/stores.conf/no\n"
    )
    result = run_kit(tmp_path, *(each.format(config=config) for each in arguments))
    assert result.returncode == pytest.ExitCode.USAGE_ERROR, result.stdout
    assert f"ERROR: {''}" in result.stderr
    assert reason in result.stderr


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"CI": ""}], ids=["CI", "not CI"])
def test_a_skipped_check_fails_in_ci(environment: dict[str, str], tmp_path: pathlib.Path) -> None:
    """Where CI=true a check that was left out is a failure, elsewhere it is told."""
    (tmp_path / "a").mkdir()
    config = write_config(tmp_path, "file", f"{_FILE}datadir = {tmp_path}/a")
    blind = tmp_path / "blind.py"
    blind.write_text(
        "import store_lib.testing.checks.load as load\nload.has_proc = lambda: False\n"
    )
    result = run_kit(
        tmp_path,
        *("--store-config", config, "--store", "it", "-k", "memory", "-p", "blind", "-rs"),
        PYTHONPATH=str(tmp_path),
        **environment,
    )
    if environment["CI"]:
        assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
        assert "Expected no skipped check here" in result.stdout
    else:
        assert result.returncode == 0, result.stdout
        assert "1 skipped" in result.stdout
    assert "does not report the memory of a process" in result.stdout
