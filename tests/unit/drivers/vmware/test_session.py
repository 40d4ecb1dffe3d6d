"""oslo.vmware's client on our own connections: replies, secrets, logins, and bodies cut short."""

import contextlib
import email.utils
import html
import io
import json
import logging
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trustme
from oslo_vmware import vim_util

from store_lib.drivers.vmware import VmwareDriver, client
from store_lib.drivers.vmware.location import upload_name
from store_lib.drivers.vmware.options import Datastore
from store_lib.drivers.vmware.tasks import File, TaskTimeouts
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.options import StoreOptions
from tests.scripted_server import Reply, Request, ScriptedServer
from tests.servers.vsphere.wsdl import write_wsdl

PASSWORD, SESSION = "s3cret-canary & more", "52c0ffee-session-canary"

_ENVELOPE = (
    '<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><e:Body>{}</e:Body></e:Envelope>'
)
_REFERENCES = ("rootFolder", "propertyCollector", "sessionManager", "searchIndex", "fileManager")
_ABOUT = ("name", "fullName", "vendor", "version", "build", "osType", "productLineId", "apiType")


def answer(operation: str, value: str) -> Reply:
    text = f'<{operation}Response xmlns="urn:vim25">{value}</{operation}Response>'
    return Reply(body=_ENVELOPE.format(text).encode(), headers={"Content-Type": "text/xml"})


def fault(kind: str, said: str = "no") -> Reply:
    text = (
        f"<e:Fault><faultcode>ServerFaultCode</faultcode><faultstring>{said}</faultstring>"
        f'<detail><{kind}Fault xmlns="urn:vim25" i:type="{kind}"/></detail></e:Fault>'
    )
    return Reply(500, _ENVELOPE.format(text).encode(), {"Content-Type": "text/xml"})


def content() -> str:
    given = "".join(f'<{name} type="X">{name}</{name}>' for name in _REFERENCES)
    about = "".join(f"<{name}>x</{name}>" for name in _ABOUT)
    return f"<returnval>{given}<about>{about}<apiVersion>8</apiVersion></about></returnval>"


class VCenter:
    """Answers the calls of a driver that is being configured."""

    def __init__(self) -> None:
        self.further: Any = None
        self.login = answer(
            "Login",
            f"<returnval><key>{SESSION}</key><userName>u</userName><fullName>u</fullName>"
            "<loginTime>2026-01-01T00:00:00Z</loginTime>"
            "<lastActiveTime>2026-01-01T00:00:00Z</lastActiveTime><locale>en</locale>"
            "<messageLocale>en</messageLocale></returnval>",
        )
        self.login.headers["Set-Cookie"] = f'vmware_soap_session="{SESSION}"; Path=/; HttpOnly'

    def __call__(self, request: Request) -> Reply:
        found = re.search(rb"Body[^>]*><(?:\w+:)?(\w+)", request.body)
        operation = found[1].decode() if found else request.method
        if self.further is not None:
            reply = self.further(operation, request)
            if reply is not None:
                return reply  # type: ignore[no-any-return]
        if operation == "RetrieveServiceContent":
            return answer(operation, content())
        if operation == "Login":
            return self.login
        if operation == "Logout":
            return answer(operation, "")
        if operation == "FindByInventoryPath":
            return answer(operation, '<returnval type="Datacenter">datacenter-1</returnval>')
        return Reply(503)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def wsdl(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_wsdl(tmp_path_factory.mktemp("wsdl")))


@pytest.fixture
def vcenter() -> VCenter:
    return VCenter()


@pytest.fixture
def server(authority: trustme.CA, vcenter: VCenter) -> Iterator[ScriptedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedServer(vcenter, tls=context) as server:
        yield server


@pytest.fixture
def driver(
    server: ScriptedServer, authority: trustme.CA, wsdl: str, tmp_path: Path
) -> Iterator[VmwareDriver]:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    options = {
        "vmware_server_host": f"127.0.0.1:{server.port}",
        "vmware_server_username": "user",
        "vmware_server_password": PASSWORD,
        "vmware_datastores": ["dc:ds"],
        "vmware_ca_file": str(path),
        "vmware_wsdl_location": wsdl,
        "vmware_read_timeout": 5.0,
    }
    driver = VmwareDriver("vm", StoreOptions.of(VmwareDriver.options, **options))
    yield driver
    driver.close()


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many threads were at once where suds keeps a reply in an object that all share."""
    from suds.bindings.multiref import MultiRef

    inside: set[int] = set()
    counts: list[int] = []
    process = MultiRef.process

    def counted(self: Any, body: Any) -> Any:
        inside.add(threading.get_ident())
        time.sleep(0)  # lets another one in, if there is a way
        counts.append(len(inside))
        try:
            return process(self, body)
        finally:
            inside.discard(threading.get_ident())

    monkeypatch.setattr(MultiRef, "process", counted)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield counts
    sys.setswitchinterval(usual)


def operations(server: ScriptedServer) -> list[str]:
    found = (re.search(rb"Body[^>]*><(?:\w+:)?(\w+)", each.body) for each in server.requests)
    return [each[1].decode() for each in found if each]


def test_threads_get_their_own_replies(
    driver: VmwareDriver, server: ScriptedServer, vcenter: VCenter, crowd: list[int]
) -> None:
    """Of calls that many threads make at once, each gets the reply to its own."""
    driver.configure()

    def further(operation: str, request: Request) -> Reply | None:
        path = re.search(rb"inventoryPath>([^<]*)<", request.body)
        if path is None:
            return None
        return answer(operation, f'<returnval type="Datacenter">{path[1].decode()}</returnval>')

    vcenter.further = further
    wrong: list[object] = []

    def work(number: int) -> None:
        for each in range(15):
            path = f"path-{number}-{each}"
            found = driver._session.call(
                "it",
                lambda api, path=path: api.FindByInventoryPath(  # type: ignore[misc]
                    api.service_content.searchIndex, inventoryPath=path
                ),
            )
            if getattr(found, "value", None) != path:
                wrong.append((path, found))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
    assert max(crowd) == 1


def objects(operation: str, numbers: Iterable[int], token: str) -> Reply:
    found = "".join(
        f'<objects><obj type="Datastore">datastore-{number}</obj><propSet><name>name</name>'
        f'<val xmlns:s="http://www.w3.org/2001/XMLSchema" i:type="s:string">ds-{number}</val>'
        "</propSet></objects>"
        for number in numbers
    )
    return answer(operation, f"<returnval>{token}{found}</returnval>")


def test_a_server_that_tells_of_few_objects_at_a_time_is_asked_on(
    driver: VmwareDriver, server: ScriptedServer, vcenter: VCenter
) -> None:
    """Where an answer ends with a token, the rest is asked for by it, until there is none."""
    driver.configure()
    pages = {
        "RetrievePropertiesEx": (range(2), "<token>one</token>"),
        "one": (range(2, 4), "<token>two</token>"),
        "two": (range(4, 5), ""),
    }

    def further(operation: str, request: Request) -> Reply | None:
        token = re.search(rb"token>([^<]*)<", request.body)
        page = pages.get(token[1].decode() if token else operation)
        return objects(operation, *page) if page else None

    vcenter.further = further

    def ask(api: Any) -> dict[str, Any]:
        references = [vim_util.get_moref(f"datastore-{number}", "Datastore") for number in range(5)]
        found: dict[str, Any] = api.properties("Datastore", references, ["name"])
        return found

    found = driver._session.call("it", ask)
    assert found == {f"datastore-{number}": {"name": f"ds-{number}"} for number in range(5)}


def test_when_to_come_again(driver: VmwareDriver, vcenter: VCenter) -> None:
    """A busy server's Retry-After comes with the error, from the API and from the data server."""
    driver.configure()
    vcenter.further = lambda *_: Reply(503, headers={"Retry-After": "7"})
    for call in (
        lambda: driver._session.call("it", lambda api: api.Logout("manager")),
        lambda: driver._folder.stat("/folder/it"),
    ):
        with pytest.raises(RemoteServiceUnavailable) as caught:
            call()
        assert caught.value.retry_after == 7


def test_an_answer_to_a_put_that_is_cut(driver: VmwareDriver, vcenter: VCenter) -> None:
    """Where the server's words about what it stored end early, another attempt may do better."""
    driver.configure()
    vcenter.further = lambda *_: Reply(201, b"stored", {"Content-Length": "100"}, then="fin")
    with pytest.raises(RemoteServiceUnavailable):
        driver._folder.put("/folder/it", Small(b"data"))


class Small(io.BytesIO):
    """A body in memory."""

    size = 4
    rewindable = True

    def views(self) -> Iterator[memoryview]:
        yield memoryview(self.getvalue())


def test_ages_go_by_the_servers_clock(
    driver: VmwareDriver, vcenter: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload is as old as the server says, whatever this machine takes for the time."""
    ahead = time.time() + 3 * 3600

    def further(operation: str, request: Request) -> None:
        vcenter.login.headers["Date"] = email.utils.formatdate(ahead, usegmt=True)

    vcenter.further = further
    driver.configure()
    files = [
        File(upload_name("an-id", "0" * 32), 1, ahead - 10),
        File(upload_name("other", "1" * 32), 1, None),
    ]
    monkeypatch.setattr(driver._files, "search", lambda *_: files)
    known, unknown = driver.list_incomplete(context=None)
    assert known.age == pytest.approx(10, abs=60)
    assert unknown.live


def test_a_listing_is_asked_for_again(
    driver: VmwareDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy moment of the server ends neither a listing nor a look for leftovers."""
    driver.configure()
    failing = [RemoteServiceUnavailable("busy"), RemoteServiceUnavailable("busy")]

    def search(*_: object) -> list[File]:
        if failing:
            raise failing.pop()
        return [File("an-id", 1, 1.0), File(upload_name("an-id", "0" * 32), 1, 1.0)]

    def retry(call: Any) -> Any:
        while True:
            with contextlib.suppress(RemoteServiceUnavailable):
                return call()

    monkeypatch.setattr(driver._files, "search", search)
    driver.retry = retry
    assert [each.object_id for each in driver.list(context=None)] == ["an-id"]
    failing.append(RemoteServiceUnavailable("busy"))
    assert [each.object_id for each in driver.list_incomplete(context=None)] == ["an-id"]
    assert not failing


_TASK = '<objects><obj type="Task">t</obj>{}</objects>'


@pytest.mark.parametrize(
    "properties",
    [
        "",
        "<objects/>",
        _TASK.format(""),
        _TASK.format("<propSet><name>other</name><val>1</val></propSet>"),
        _TASK.format("<propSet><name>info</name></propSet>"),
        _TASK.format('<propSet><name>info</name><val i:type="TaskInfo"/></propSet>'),
        _TASK.format(
            '<propSet><name>info</name><val i:type="TaskInfo"><state>error</state></val></propSet>'
        ),
        "<objects>" * 2000 + "</objects>" * 2000,
        "no objects",
    ],
)
def test_a_task_that_is_none(driver: VmwareDriver, vcenter: VCenter, properties: str) -> None:
    """Whatever a server says of a task in place of its state is the library's own error."""
    driver.configure()

    def further(operation: str, request: Request) -> Reply | None:
        if operation == "DeleteDatastoreFile_Task":
            return answer(operation, '<returnval type="Task">t</returnval>')
        if operation == "RetrievePropertiesEx":
            return answer(operation, f"<returnval>{properties}</returnval>")
        return None

    vcenter.further = further
    driver._files._timeouts = TaskTimeouts(interval=0.01, timeout=1.0, failures=1)
    with pytest.raises(StoreError):
        driver._files.delete(Datastore("dc", "ds"), "it")


def test_no_secret_is_logged(
    driver: VmwareDriver, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG neither the password nor the session's key shows, though suds prints messages."""
    caplog.set_level(logging.DEBUG)
    driver.configure()
    assert b"s3cret-canary &amp; more" in b"".join(each.body for each in server.requests)
    assert "Login" in operations(server)
    assert "s3cret-canary" not in caplog.text
    assert "session-canary" not in caplog.text
    assert "s3cret-canary" not in repr(driver.conf) + repr(vars(driver))


def test_the_cookie_goes_back_as_it_came(driver: VmwareDriver, server: ScriptedServer) -> None:
    """The server's cookie, quotes and all, is sent with what follows the login."""
    driver.configure()
    cookies = {
        name: each.headers.get("cookie")
        for name, each in zip(operations(server), server.requests, strict=True)
    }
    assert cookies["Login"] is None
    assert cookies["FindByInventoryPath"] == f'vmware_soap_session="{SESSION}"'
    assert server.requests[0].headers["soapaction"] == '"urn:vim25/6.5"'


def test_a_refused_login_is_told(driver: VmwareDriver, vcenter: VCenter) -> None:
    """A fault has its name and words in the message, and what to look at."""
    vcenter.login = fault("InvalidLogin", "Cannot complete login")
    with pytest.raises(BadStoreConfiguration, match=r"InvalidLogin \(Cannot complete login\)"):
        driver.configure()


def test_a_fault_that_quotes_the_password(driver: VmwareDriver, vcenter: VCenter) -> None:
    """What was sent to log in is not in the error, whatever words the server has for it."""
    vcenter.login = fault("InvalidLogin", f"no login by {html.escape(PASSWORD)}")
    with pytest.raises(BadStoreConfiguration, match="InvalidLogin") as caught:
        driver.configure()
    assert "canary" not in str(caught.value)


def test_a_store_that_cannot_be_used_logs_out(
    driver: VmwareDriver, server: ScriptedServer, vcenter: VCenter
) -> None:
    """Where the login is good and what follows is refused, no session stays on the server."""
    vcenter.further = lambda operation, request: (
        fault("NoPermission") if operation == "FindByInventoryPath" else None
    )
    with pytest.raises(BadStoreConfiguration, match="NoPermission"):
        driver.configure()
    assert operations(server)[-1] == "Logout"


def test_a_process_that_ends_logs_out(driver: VmwareDriver, server: ScriptedServer) -> None:
    """Who never closes a store leaves no session on the server; a child leaves its parent's."""
    program = (
        "import json, os, sys\n"
        "from store_lib.drivers.vmware import VmwareDriver\n"
        "from store_lib.options import StoreOptions\n"
        "driver = VmwareDriver('vm', StoreOptions.of(VmwareDriver.options, **json.load(sys.stdin)))"
        "\ndriver.configure()\n"
        "if os.fork() == 0:\n    sys.exit()\n"
        "os.wait()\n"
    )
    options = {name: driver.conf[name] for name in driver.conf if driver.conf.is_set(name)}
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(options), text=True, capture_output=True
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert operations(server).count("Login") == 1
    assert operations(server).count("Logout") == 1


def test_the_end_of_a_process_does_not_wait_for_a_dead_server(
    driver: VmwareDriver, vcenter: VCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever vmware_read_timeout says, logging out at the end takes no longer than a moment."""
    driver.configure()
    monkeypatch.setattr(client, "_EXIT_TIMEOUT", 0.2)
    answered = threading.Event()

    def further(operation: str, request: Request) -> None:
        if operation == "Logout":
            answered.wait(4)

    vcenter.further = further
    begun = time.monotonic()
    client._SESSIONS._call(client._end_at_exit)
    took = time.monotonic() - begun
    answered.set()
    assert took < 2


class Counted:
    """A lock that tells when so many threads have come to it."""

    def __init__(self, lock: Any, number: int) -> None:
        self.everybody = threading.Event()
        self._lock = lock
        self._missing = iter(range(number - 1, -1, -1))

    def __enter__(self) -> None:
        if next(self._missing, None) == 0:
            self.everybody.set()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_those_who_wait_for_a_login_share_its_failure(
    driver: VmwareDriver, server: ScriptedServer, vcenter: VCenter
) -> None:
    """When a server is down, those who come meanwhile do not try it one after the other."""
    driver.configure()
    driver._session.end()
    login: Any = driver._session._logins.get()
    login.attempts.lock = counted = Counted(login.attempts.lock, 6)
    first = threading.Event()

    def further(operation: str, request: Request) -> Reply | None:
        if operation == "Login" and not first.is_set():
            first.set()
            counted.everybody.wait(30)
        return Reply(503)

    vcenter.further = further
    errors: list[StoreError] = []

    def begin() -> None:
        try:
            driver._session.begin()
        except StoreError as error:
            errors.append(error)

    seen = len(server.requests)
    threads = [threading.Thread(target=begin) for _ in range(6)]
    threads[0].start()
    assert first.wait(30)
    for each in threads[1:]:
        each.start()
    for each in threads:
        each.join()
    assert [type(each) for each in errors] == [RemoteServiceUnavailable] * 6
    assert len({id(each) for each in errors}) == 6
    # The one that was under way, and one for all who came after it had begun.
    assert len(server.requests) - seen == 2


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(200, b"<html>not an API</html>"), BackendException),
        (Reply(200, b"not even XML"), BackendException),
        (Reply(404), BackendException),
        (Reply(301, headers={"Location": "https://elsewhere/"}), BackendException),
        (Reply(503), RemoteServiceUnavailable),
        (Reply(200, b"x" * 10, cut=3, then="fin"), RemoteServiceUnavailable),
        (fault("SystemError"), BackendException),
        (fault("NoSuchFaultInTheSchema"), BackendException),
    ],
    ids=["html", "text", "404", "redirect", "503", "cut", "fault", "unknown fault"],
)
def test_what_is_no_answer_is_told(
    driver: VmwareDriver, vcenter: VCenter, reply: Reply, kind: type[StoreError]
) -> None:
    """Whatever a server says in place of an answer comes out as an error of the library."""
    driver.configure()
    vcenter.further = lambda operation, request: reply
    with pytest.raises(kind) as caught:
        driver.space(context=None)
    assert str(caught.value).startswith(("https://127.0.0.1", "No answer from https://127.0.0.1"))


def test_a_redirect_is_not_followed(
    driver: VmwareDriver, server: ScriptedServer, vcenter: VCenter
) -> None:
    """A data server that sends elsewhere is told of; the login does not go there."""
    driver.configure()
    place = f"{driver.url_prefix}an-id?dcPath=dc&dsName=ds"
    with ScriptedServer() as other:
        elsewhere = {"Location": f"http://127.0.0.1:{other.port}/folder/x"}
        vcenter.further = lambda operation, request: Reply(302, headers=dict(elsewhere))
        location = driver.parse(place)
        with pytest.raises(BackendException, match=r"redirects it \(302\)"):
            driver.stat(location, context=None)
        with pytest.raises(BackendException, match=r"redirects it \(302\)"):
            driver.read(location, 0, None, context=None)
        body: Any = mock.Mock(size=3, rewindable=True)
        body.views.return_value = [memoryview(b"abc")]
        with pytest.raises(BackendException, match=r"redirects it \(302\)"):
            driver._folder.put(location.target, body)
        assert other.connections == 0
    assert "vmware_soap_session" in server.requests[-1].headers["cookie"]


def test_a_description_that_refers_elsewhere_is_not_followed(
    driver: VmwareDriver, tmp_path: Path
) -> None:
    """No file of the API's description is fetched from another server."""
    path = tmp_path / "vimService.wsdl"
    path.write_text(
        '<definitions xmlns="http://schemas.xmlsoap.org/wsdl/" targetNamespace="urn:a">'
        '<import location="http://127.0.0.1:9/vim.wsdl" namespace="urn:b"/></definitions>'
    )
    driver.conf._values["vmware_wsdl_location"] = str(path)
    with pytest.raises(BadStoreConfiguration, match=r"refers to http://127\.0\.0\.1:9"):
        driver.configure()


class Body:
    """A large body that is streamed, and raises on the way."""

    size: int | None = 64 * 1024 * 1024
    rewindable = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    def views(self) -> Iterator[memoryview]:
        yield memoryview(bytes(1024 * 1024))
        raise self._error


def test_a_body_that_raises_ends_the_request_first(
    driver: VmwareDriver, server: ScriptedServer
) -> None:
    """When a body raises, its error comes out once the server has seen the connection end."""
    driver.configure()
    seen = len(server.requests)
    body: Any = Body(KeyError("the source broke"))
    with pytest.raises(KeyError, match="the source broke"):
        driver._folder.put("/folder/d/f?dcPath=dc&dsName=ds", body)
    (request,) = server.requests[seen:]
    assert request.method == "PUT"
    assert len(request.body) == 1024 * 1024
