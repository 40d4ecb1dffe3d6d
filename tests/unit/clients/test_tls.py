"""When authorities are read: the system's at the first connection by TLS, a file at once."""

import ssl
from pathlib import Path

import pytest

from store_lib import Stores
from store_lib.exceptions import StoreError
from tests.scripted_server import Reply, ScriptedServer


def _web(**options: str) -> dict[str, dict[str, str]]:
    return {"DEFAULT": {"enabled_backends": "web:http"}, "web": options}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The files of authorities that were read; ``None`` for the system's."""
    files: list[str | None] = []
    make = ssl.create_default_context

    def counting(*, cafile: str | None = None) -> ssl.SSLContext:
        files.append(cafile)
        return make(cafile=cafile)

    monkeypatch.setattr(ssl, "create_default_context", counting)
    return files


def test_plain_http_reads_no_authorities(read: list[str | None]) -> None:
    """They take 30 ms, which a store without TLS does not spend; with TLS it does once."""
    with (
        ScriptedServer(lambda _: Reply(body=b"it")) as server,
        Stores.from_mapping(_web()) as stores,
    ):
        store = stores["web"]
        assert store.get(f"{server.url}/it").read() == b"it"
        assert read == []
        for _ in range(2):
            with pytest.raises(StoreError):
                store.get("https://127.0.0.1:1/it")  # nobody is there
        assert read == [None]


def test_a_file_of_authorities_is_read_at_once(read: list[str | None], tmp_path: Path) -> None:
    """A file that cannot be used is seen at the start, not at the first request."""
    path = tmp_path / "authorities"
    path.write_text("no certificate")
    with Stores.from_mapping(_web(https_ca_certificates_file=str(path))) as stores:
        assert stores["web"].error is not None
    assert read == [str(path)]
