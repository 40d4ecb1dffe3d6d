"""What leaves a client: a StoreError, in whose traceback no frame's variable holds a secret."""

import contextlib
import json
import ssl
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from store_lib.clients.keystone import Connecting, Credentials, KeystoneLogin
from store_lib.clients.library_calls import library_call
from store_lib.clients.tls import Tls
from store_lib.driver import once
from store_lib.drivers.cinder import CinderDriver
from store_lib.drivers.cinder.access import Access
from store_lib.drivers.http import HttpDriver
from store_lib.drivers.s3 import S3Driver
from store_lib.drivers.s3.client import Client
from store_lib.drivers.s3.options import settings_of
from store_lib.drivers.swift import SwiftDriver
from store_lib.drivers.vmware.options import OPTIONS as VMWARE
from store_lib.drivers.vmware.session import Session
from store_lib.drivers.vmware.soap import Api
from store_lib.drivers.vmware.wire import Wire
from store_lib.exceptions import Forbidden, NotFound, StoreError
from store_lib.options import StoreOptions
from store_lib.redaction import Secret
from tests.scripted_server import Reply, Request, ScriptedServer
from tests.servers.vsphere.wsdl import write_wsdl

CANARY = "c4naryc4nary"


def shown(error: BaseException) -> str:
    """Return what a traceback with the variables of its frames shows of an error."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format())


def frames(error: BaseException | None, seen: set[int] | None = None) -> Iterator[tuple[str, str]]:
    """Yield where and what every variable is in every frame that an error keeps alive."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    for frame, line in traceback.walk_tb(error.__traceback__):
        if "/tests/" not in frame.f_code.co_filename:
            for name, value in frame.f_locals.items():
                yield f"{frame.f_code.co_filename}:{line} {name}", repr(value)
    for each in (error.__cause__, error.__context__):
        yield from frames(each, seen)


@pytest.fixture(scope="module")
def wsdl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A description of vSphere's API."""
    return write_wsdl(tmp_path_factory.mktemp("wsdl"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A server's TLS, and the file with its authority."""
    made = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert("127.0.0.1").configure_cert(context)
    return context, str(path)


Ask = Callable[[str, str, Path], object]


def keystone(url: str, *_: object) -> None:
    """Log in by a password."""
    credentials = Credentials(auth_url=f"{url}/v3", username="u", password=CANARY, project_id="p")
    with contextlib.closing(KeystoneLogin(credentials, Connecting(timeout=5))) as login:
        login.token()


def application(url: str, *_: object) -> None:
    """Log in by an application credential, and ask for the catalog."""
    credentials = Credentials(
        auth_url=url, application_credential_id="u", application_credential_secret=CANARY
    )
    with contextlib.closing(KeystoneLogin(credentials, Connecting(timeout=5))) as login:
        login.endpoint("object-store", "public", None)


def trust(url: str, *_: object) -> None:
    """Ask Keystone with a user's token."""
    credentials = Credentials(auth_url=url, username="u", password="p")
    with contextlib.closing(KeystoneLogin(credentials, Connecting(timeout=5))) as login:
        login.call("GET", "/auth/tokens", Secret(CANARY))


def cinder(url: str, *_: object) -> None:
    """Ask Cinder with a user's token."""
    options = StoreOptions.of(CinderDriver.options, cinder_endpoint_template=url)
    with contextlib.closing(Access("it", options)) as access:
        access.cinder(SimpleNamespace(auth_token=CANARY, project_id="project")).get("it")


def old_login(url: str, *_: object) -> None:
    """Log in to Swift as in its first version."""
    options = {
        "swift_store_auth_address": f"{url}/auth/v1.0",
        "swift_store_auth_version": "1",
        "swift_store_user": "u",
        "swift_store_key": CANARY,
    }
    driver = SwiftDriver("it", StoreOptions.of(SwiftDriver.options, **options))
    driver.configure()
    with contextlib.closing(driver):
        driver._tenancy.own(None).ask("GET", "/it")


def swift(url: str, *_: object) -> None:
    """Ask Swift with a user's token."""
    options = {"swift_store_multi_tenant": True, "swift_store_endpoint": f"{url}/v1/AUTH_p"}
    driver = SwiftDriver("it", StoreOptions.of(SwiftDriver.options, **options))
    driver.configure()
    context = SimpleNamespace(auth_token=CANARY, service_catalog=[])
    with contextlib.closing(driver):
        driver._tenancy.own(context).ask("GET", "/it")


def http(url: str, *_: object) -> None:
    """Ask a web server with a login."""
    driver = HttpDriver("web", StoreOptions.of(HttpDriver.options))
    driver.configure()
    location = driver.parse(url.replace("://", f"://user:{CANARY}@") + f"/it?named={CANARY}")
    with contextlib.closing(driver):
        driver.read(location, 0, None, context=None)


def s3(url: str, *_: object) -> None:
    """Ask an S3 server; what is signed shows neither the key nor the signature."""
    options = StoreOptions.of(
        S3Driver.options,
        s3_store_host=url,
        s3_store_bucket="bucket",
        s3_store_access_key=CANARY,
        s3_store_secret_key=CANARY,
    )
    with contextlib.closing(Client(options, settings_of(options), once)) as client:
        client.call("head_object", Bucket="bucket", Key="k")


def vmware(url: str, authorities: str, wsdl: Path) -> None:
    """Log in to vSphere."""
    options = StoreOptions.of(VMWARE, vmware_ca_file=authorities)
    tls = Tls("it", options, authorities="vmware_ca_file", insecure="vmware_insecure", peers="it")
    port = int(url.rpartition(":")[2])
    wire = Wire("127.0.0.1", port, tls, connect_timeout=5, read_timeout=5)
    with contextlib.closing(wire):
        session = Session(wire, "user", CANARY, lambda post: Api(wire, post, wsdl.as_uri()))
        session.begin()


CLIENTS: list[Ask] = [
    *(keystone, application, trust, cinder, old_login, swift, http, s3, vmware),
]

_DEEP = b"[" * 50_000

#: What hostile and broken servers answer.
ANSWERS: dict[str, Callable[[Request], Reply]] = {
    "nothing": lambda _: Reply(raw=b"", then="fin"),
    "a reset": lambda _: Reply(raw=b"", then="rst"),
    "no HTTP": lambda _: Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n", then="fin"),
    "a cut head": lambda _: Reply(raw=b"HTTP/1.1 200 OK\r\nX-Subject-T", then="fin"),
    "a cut body": lambda _: Reply(body=b"{}", headers={"Content-Length": "99"}, then="fin"),
    "a page": lambda _: Reply(body=b"<html>It works!</html>"),
    "an empty object": lambda _: Reply(body=b"{}"),
    "a list": lambda _: Reply(201, b"[1, null]", {"X-Subject-Token": "t"}),
    "null": lambda _: Reply(201, b'{"token": null, "volume": null}', {"X-Subject-Token": "t"}),
    "depth": lambda _: Reply(body=_DEEP),
    "a long number": lambda _: Reply(body=b'{"token": %s}' % (b"9" * 5000)),
    "latin": lambda _: Reply(body=b"\xff\xfe{", headers={"X-Storage-Url": "http://\xff/"}),
    "an echo": lambda request: Reply(
        201,
        json.dumps({"token": {"expires_at": [CANARY], "methods": CANARY}}).encode(),
        {"X-Subject-Token": "t", "X-Storage-Url": CANARY, "X-Auth-Token": CANARY},
    ),
    "a redirect": lambda _: Reply(302, headers={"Location": "http://127.0.0.9:9/other"}),
    "no login": lambda _: Reply(401, b'{"error": {"message": "no", "code": 401}}'),
    "no right": lambda _: Reply(403, b"no"),
    "much": lambda _: Reply(413, b"{}", {"Retry-After": "x"}),
    "many": lambda _: Reply(429, b'{"overLimit": 1}', {"Retry-After": "x"}),
    "trouble": lambda _: Reply(500, b'{"badRequest": ["message"]}', {"Retry-After": "-1"}),
    "a gateway": lambda _: Reply(502, b"<html>", {"Retry-After": "9" * 5000}),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("ask", CLIENTS, ids=lambda each: each.__name__)
def test_a_hostile_answer_is_an_error_without_secrets(
    ask: Ask,
    answer: Callable[[Request], Reply],
    authority: tuple[ssl.SSLContext, str],
    wsdl: Path,
) -> None:
    """Neither a frame nor a text of all that led to the error holds what was sent."""
    context = authority[0] if ask is vmware else None
    with ScriptedServer(answer, tls=context) as server, contextlib.suppress(NotFound):
        try:
            ask(server.url, authority[1], wsdl)
        except StoreError as error:
            kept = dict(frames(error))
            text = str(error)
            chain = "".join(traceback.format_exception(error))
        else:
            # What any web server may say of an object, and what S3 says of one without a body.
            assert ask in (http, s3, swift, trust, keystone)
            return
    leaks = {where: value[:200] for where, value in kept.items() if CANARY in value}
    assert not leaks
    assert CANARY not in text
    assert CANARY not in chain.replace(Path(__file__).name, "")
    assert kept  # our own frames are there


def test_frames_of_the_library_go_and_others_stay() -> None:
    """The block's own frame is kept, and so is all that the caller was handling."""

    def library(password: str) -> None:
        try:
            raise KeyError(len(password))
        except KeyError as error:
            raise OSError("wrapped", ValueError(password[:1])) from error

    def client() -> None:
        with library_call(lambda error: Forbidden(str(error))):
            library(CANARY)

    with pytest.raises(RuntimeError) as mine:  # noqa: PT012
        try:
            raise RuntimeError("the caller's")
        except RuntimeError:
            with pytest.raises(Forbidden) as caught:
                client()
            raise
    assert mine.value.__traceback__ is not None
    assert mine.value.__traceback__.tb_next is None
    assert "the caller's" in shown(caught.value)
    assert CANARY not in shown(caught.value)
    assert "in client" in shown(caught.value)
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert "library" not in {each.name for each in traceback.extract_tb(cause.__traceback__)}


def test_an_error_of_ours_passes_without_the_librarys_frames() -> None:
    """What a hook of ours raised within a library is the very error, without what lay between."""
    error = NotFound("gone")

    def library(password: str) -> None:
        raise error

    with pytest.raises(NotFound) as caught, library_call(lambda error: Forbidden()):
        library(CANARY)
    assert caught.value is error
    assert CANARY not in shown(error)


def test_what_is_no_error_keeps_its_frames() -> None:
    """An interrupt shows where the process was."""

    def library() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught, library_call(lambda error: Forbidden()):
        library()
    assert "in library" in shown(caught.value)


def test_a_secret_is_not_represented() -> None:
    """It is the string that it is, but for what shows variables."""
    secret = Secret(CANARY)
    assert secret == CANARY
    assert f"{secret}" == CANARY
    assert CANARY not in repr({"X-Auth-Token": secret})
