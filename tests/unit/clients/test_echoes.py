"""Servers whose error pages quote the request: what was sent to prove who asks is not shown."""

import contextlib
import html
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from store_lib import redaction
from store_lib.clients._urllib3 import sent_secrets
from store_lib.clients.http import HttpClient
from store_lib.clients.network_errors import OptionNames
from store_lib.clients.tls import Tls
from store_lib.drivers.cinder import CinderDriver
from store_lib.drivers.cinder.client import CinderClients
from store_lib.drivers.http import HttpDriver
from store_lib.drivers.swift import SwiftDriver
from store_lib.drivers.vmware.folder import Folder
from store_lib.drivers.vmware.options import OPTIONS as VMWARE
from store_lib.exceptions import StoreError
from store_lib.options import StoreOptions
from store_lib.redaction import hide
from tests.scripted_server import Reply, Request, ScriptedServer

CANARY = 'c4nary<of>&a"login'


def http(url: str, _: str) -> None:
    """Ask the http driver for an object behind a login."""
    driver = HttpDriver("web", StoreOptions.of(HttpDriver.options))
    driver.configure()
    login = "".join(f"%{ord(each):02x}" for each in CANARY)
    uri = url.replace("://", f"://user:{login}@") + f"/it?named={login}"
    with contextlib.closing(driver):
        driver.read(driver.parse(uri), 0, None, context=None)


def swift(url: str, _: str) -> None:
    """Ask Swift with a token."""
    options = {"swift_store_multi_tenant": True, "swift_store_endpoint": url}
    driver = SwiftDriver("it", StoreOptions.of(SwiftDriver.options, **options))
    driver.configure()
    with contextlib.closing(driver):
        driver._tenancy.own(SimpleNamespace(auth_token=CANARY, service_catalog=[])).ask(
            "GET", "/it"
        )


def cinder(url: str, _: str) -> None:
    """Ask Cinder with a token."""
    options = StoreOptions.of(CinderDriver.options, cinder_endpoint_template=url)
    with contextlib.closing(CinderClients("it", options)) as clients:
        clients.get(SimpleNamespace(auth_token=CANARY, project_id="project")).get("it")


def vmware(url: str, authorities: str) -> None:
    """Ask vSphere's data server with a session's cookie."""
    options = StoreOptions.of(VMWARE, vmware_ca_file=authorities)
    tls = Tls("it", options, authorities="vmware_ca_file", insecure="vmware_insecure", peers="it")
    client = HttpClient(tls, OptionNames("a", "b", "c"), connect_timeout=5, read_timeout=5)
    cookie = f'vmware_soap_session="{CANARY}"'
    session: Any = SimpleNamespace(cookie=cookie, server=client.server(url))
    folder = Folder(client, session)
    with (
        contextlib.closing(client),
        contextlib.closing(folder.send("GET", "/folder/it")) as response,
    ):
        raise folder.error_for_response(response, "Reading", "/folder/it")


def _plain(request: Request) -> str:
    return "\n".join(f"{name}: {value}" for name, value in request.headers.items())


#: Pages that a server makes of a request.
PAGES: dict[str, Callable[[Request], str]] = {
    "plain": _plain,
    "html": lambda request: f"<pre>{html.escape(_plain(request))}</pre>",
    "target": lambda request: f"The requested URL {request.target} is not good.",
    "values": lambda request: " ".join(request.headers.values()),
    **{
        f"behind {length}": lambda request, length=length: "." * length + _plain(request)  # type: ignore[misc]
        for length in (40, 90, 140, 150, 160, 170, 180, 190, 16_300)
    },
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
@pytest.mark.parametrize("ask", [http, swift, cinder, vmware], ids=lambda each: each.__name__)
def test_what_was_sent_is_not_quoted(
    ask: Callable[[str, str], None], page: Callable[[Request], str], tmp_path: Path
) -> None:
    """Neither whole nor in part does a login, a token or a cookie come back in an error."""
    authority, context = trustme.CA(), None
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    if ask is vmware:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)

    def handler(request: Request) -> Reply:
        text = page(request)
        if ask is cinder:
            text = json.dumps({"badRequest": {"message": text, "code": 400}})
        return Reply(400, text.encode(), {"Content-Type": "application/json"})

    with ScriptedServer(handler, tls=context) as server, pytest.raises(StoreError) as caught:
        ask(server.url, str(tmp_path / "ca.pem"))
    assert "c4nary" not in str(caught.value)
    assert "dXNlcjp" not in str(caught.value)  # user: in Base64


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a secret here", "a *** here"),
        ("at its end sec", "at its end sec"),
        ("at its end secr", "at its end ***"),
        ("X-Auth-Token: other", "X-Auth-Token: ***"),
        ("authorization=Basic other, x", "authorization=Basic ***, x"),
        ("Cookie: a=b; c", "Cookie: ***; c"),
        ("X-Auth-Token other", "X-Auth-Token ***"),
        ("The authorization header is malformed; no", "The authorization header is malformed; no"),
        ("The authorization mechanism is no good", "The authorization mechanism is no good"),
        ("Cookie is bad", "Cookie is bad"),
        ("the Authorization header: Bearer other", "the Authorization header: Bearer ***"),
        ("authorization header-other failed", "authorization *** failed"),
        ("Authorization: is other", "Authorization: *** other"),
        ("no tokens", "no tokens"),
        ("<AWSAccessKeyId>other</AWSAccessKeyId>", "<AWSAccessKeyId>***</AWSAccessKeyId>"),
        ("x-amz-security-token:o/t+h==\nhost", "x-amz-security-token:***\nhost"),
        ('{"accessKeyId": "other", "x": 1}', '{"accessKeyId": ***, "x": 1}'),
        ("Credential=other/2030, Signature=other", "Credential=***, Signature=***"),
        ("the signature we calculated", "the signature we calculated"),
    ],
)
def test_hiding(text: str, shown: str) -> None:
    """What is known to be a secret goes, its beginning at a cut, and what fields name as one."""
    assert hide(text, ["secret", "x"], cut=True) == shown


@pytest.mark.parametrize("name", [*sorted(redaction.SECRET_HEADERS), "X-Vault-Token"])
def test_one_list_of_secret_headers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name on the list is hidden where a page names the header, and where it quotes the value."""
    listed = redaction.SECRET_HEADERS | {name.lower()}
    monkeypatch.setattr(redaction, "SECRET_HEADERS", listed)
    assert hide(f"{name}: other", ()) == f"{name}: ***"
    for sent in ("s.T0p", b"s.T0p"):
        secrets = sent_secrets("", {name: sent, "X-Other": "valid"})
        assert hide("token s.T0p is not valid", secrets) == "token *** is not valid"
