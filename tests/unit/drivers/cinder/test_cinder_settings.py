"""What a store on Cinder needs before it can be used, and what it makes of its options."""

import json
import pathlib
import ssl
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from urllib3.exceptions import InsecureRequestWarning

from store_lib.drivers.cinder import CinderDriver, CinderLocation
from store_lib.drivers.cinder.client import CinderClients
from store_lib.drivers.cinder.options import Settings
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    ErrorStatus,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
)
from store_lib.options import StoreOptions
from tests.scripted_server import Reply, ScriptedServer

_LOGIN = {
    "cinder_store_auth_address": "http://127.0.0.1:9/v3",
    "cinder_store_user_name": "glance",
    "cinder_store_password": "opensesame",
    "cinder_store_project_name": "service",
}

#: What Cinder says to who asks too often.
_LATER = b'{"overLimit": {"message": "Slow down"}}'

#: Configures stores in a process of their own, without a package where one is named.
_CONFIGURE = """
import json, sys
sections, lock_path, missing = json.loads(sys.argv[1])
if missing:
    sys.modules[missing] = None
from store_lib.config import Configuration
from store_lib.stores import Stores
values = {"DEFAULT": {"enabled_backends": dict.fromkeys(sections, "cinder")}, **sections}
if lock_path:
    values["oslo_concurrency"] = {"lock_path": lock_path}
with Stores(Configuration(values=values)) as stores:
    print(json.dumps([str(stores[name].error) for name in sections]))
"""


def _configure(lock_path: str | None = None, missing: str | None = None, **values: Any) -> str:
    """Return what is wrong with a store with these options."""
    [told] = _configure_all({"it": values}, lock_path, missing)
    return told


def _configure_all(
    sections: dict[str, dict[str, Any]], lock_path: str | None = None, missing: str | None = None
) -> list[str]:
    """Return what is wrong with each of some stores: a process for each takes long."""
    asked = json.dumps([sections, lock_path, missing])
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CONFIGURE, asked],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    told: list[str] = json.loads(result.stdout)
    return told


@pytest.mark.parametrize("missing", ["os_brick", "cinderclient", "keystoneauth1"])
def test_a_missing_package_is_named(missing: str, tmp_path: pathlib.Path) -> None:
    """With the extra that brings it."""
    told = _configure(str(tmp_path), missing)
    assert "pip install store_lib[cinder]" in told
    assert missing in told


def test_a_lock_path_is_needed(tmp_path: pathlib.Path) -> None:
    """It is read from the section where os-brick has it, and must be there."""
    assert "lock_path in [oslo_concurrency]" in _configure()
    assert str(tmp_path / "absent") in _configure(str(tmp_path / "absent"))


def _driver(section: str = "it", **values: Any) -> CinderDriver:
    options = StoreOptions.of(CinderDriver.options, **values)
    return CinderDriver("it", StoreOptions(dict(options), frozenset(values), section))


def test_uris_begin_with_the_store_where_there_are_several() -> None:
    """In the old single-store form they name the volume alone."""
    assert _driver().url_prefix == "cinder://it"
    assert _driver("glance_store").url_prefix == "cinder://"


def test_a_store_holds_uris_that_name_it_or_none() -> None:
    """Which of several is meant by none is for Cinder to tell."""
    volume = "0123abcd-4567-89ef-0123-456789abcdef"
    driver = _driver()
    assert driver.holds(CinderLocation(volume))
    assert driver.holds(CinderLocation(volume, "it"))
    assert not driver.holds(CinderLocation(volume, "other"))
    renamed = _driver(former_places=["cinder://other", "another"])
    assert renamed.holds(CinderLocation(volume, "other"))
    assert renamed.holds(CinderLocation(volume, "another"))
    assert not renamed.holds(CinderLocation(volume, "else"))


@pytest.mark.parametrize("object_id", ["a", "0123abcd-4567-89ef-0123-456789abcdef", "ä " * 124])
def test_usual_ids_are_taken(object_id: str) -> None:
    """As long as a volume's name has room for them."""
    assert _driver().id_problem(object_id) is None


@pytest.mark.parametrize("object_id", ["a" * 250, "a\U0001f600"])
def test_ids_that_a_database_may_alter_are_refused(object_id: str) -> None:
    """Long ones, and those with characters that MySQL's utf8 has no room for."""
    assert _driver().id_problem(object_id)


@pytest.mark.parametrize("text", ["volumev3", "volumev3:publicURL", ":a:b", "a:b:", "a:b:c:d"])
def test_malformed_catalog_entries_are_refused(text: str) -> None:
    """cinder_catalog_info has three parts, of which the middle one may be empty."""
    options = StoreOptions.of(CinderDriver.options, cinder_catalog_info=text)
    with pytest.raises(BadStoreConfiguration, match="service_type:service_name:interface"):
        CinderClients("it", options)


@pytest.mark.parametrize("left_out", [None, *_LOGIN])
def test_a_login_is_complete_or_none(left_out: str | None) -> None:
    """Where a part of it is missing, the request's context is used."""
    values = {name: value for name, value in _LOGIN.items() if name != left_out}
    clients = CinderClients("it", StoreOptions.of(CinderDriver.options, **values))
    assert clients.has_login == (left_out is None)
    if left_out is not None:
        with pytest.raises(BadStoreConfiguration, match="cinder_store_user_name") as caught:
            clients.get(None)
        assert "opensesame" not in str(caught.value)


def test_a_template_that_cannot_be_filled_in_is_told() -> None:
    """With what is missing."""

    class Context:
        auth_token = "token"
        project_id = "project"

    options = StoreOptions.of(
        CinderDriver.options, cinder_endpoint_template="http://127.0.0.1/%(nothing)s"
    )
    with pytest.raises(BadStoreConfiguration, match=r"cinder_endpoint_template.*nothing"):
        CinderClients("it", options).get(Context())


def test_a_context_without_a_project_is_told() -> None:
    """Where a template is filled in from it."""
    options = StoreOptions.of(
        CinderDriver.options, cinder_endpoint_template="http://127.0.0.1/%(tenant)s"
    )
    with pytest.raises(BadStoreConfiguration, match="project_id"):
        CinderClients("it", options).get(SimpleNamespace(auth_token="token"))


def test_a_file_of_authorities_that_cannot_be_used_is_told(tmp_path: pathlib.Path) -> None:
    """The store says so, whether it asks Cinder for its volume type or not; others are there."""
    files = [tmp_path / "absent.pem", tmp_path / "nonsense.pem"]
    files[1].write_text("no certificate")
    login = {**_LOGIN, "cinder_store_auth_address": "https://127.0.0.1:9/v3"}
    sections = {
        f"{file.stem}{number}": {"cinder_ca_certificates_file": str(file), **login, **more}
        for file in files
        for number, more in enumerate([{}, {"cinder_volume_type": "fast"}])
    }
    for section, told in zip(
        sections.values(), _configure_all(sections, str(tmp_path)), strict=True
    ):
        assert "cinder_ca_certificates_file" in told
        assert section["cinder_ca_certificates_file"] in told


def test_certificates_are_verified(tmp_path: pathlib.Path) -> None:
    """Cinder is trusted by the configured authority, or not at all, unless that is asked for."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    volume = "0123abcd-4567-89ef-0123-456789abcdef"
    caller = SimpleNamespace(auth_token="token", project_id="project")
    with ScriptedServer(lambda _: Reply(404), tls=context, name="localhost") as server:

        def ask(**values: Any) -> None:
            options = StoreOptions.of(
                CinderDriver.options, cinder_endpoint_template=f"{server.url}/v3", **values
            )
            clients = CinderClients("it", options)
            try:
                clients.get(caller).get(volume)
            finally:
                clients.close()

        with pytest.raises(NotFound):
            ask(cinder_ca_certificates_file=str(file))
        with pytest.warns(InsecureRequestWarning), pytest.raises(NotFound):
            ask(cinder_api_insecure=True)
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(other))
        with pytest.raises(RemoteServiceUnavailable):  # and the file is not ignored
            ask(cinder_api_insecure=True, cinder_ca_certificates_file=str(other))
        with pytest.raises(RemoteServiceUnavailable, match="cinder_ca_certificates_file") as caught:
            ask()
        assert caught.value.status is ErrorStatus.PERMANENT
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    with ScriptedServer(lambda _: Reply(404), tls=context, name="localhost") as server:
        with pytest.raises(RemoteServiceUnavailable, match="by a name that its cert") as caught:
            ask(cinder_ca_certificates_file=str(file))
        assert caught.value.status is ErrorStatus.PERMANENT


def _asked_once(server: ScriptedServer, **values: Any) -> StoreError:
    """Ask for a volume, and return the error."""
    options = StoreOptions.of(
        CinderDriver.options, cinder_endpoint_template=f"{server.url}/v3", **values
    )
    clients = CinderClients("it", options)
    with pytest.raises(StoreError) as caught:
        clients.get(SimpleNamespace(auth_token="token", project_id="p")).get("volume")
    clients.close()
    assert len(server.requests) == 1
    return caught.value


@pytest.mark.parametrize("code", [413, 429, 503])
@pytest.mark.parametrize("retries", [0, 3])
def test_the_client_repeats_nothing(code: int, retries: int) -> None:
    """An answer's Retry-After is kept in the error, and only the engine tries again."""
    with ScriptedServer() as server:
        server.reply(Reply(code, _LATER, {"Retry-After": "7"}), Reply(404))
        error = _asked_once(server, cinder_http_retries=retries)
    assert isinstance(error, RemoteServiceUnavailable)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>Welcome</html>"),
        Reply(200, b'{"volume": {"id"'),
        Reply(200, b"{}"),
        Reply(200, b'{"volume": {"id": "it", "size": [null], "attachments": [], "metadata": {}}}'),
        Reply(200, b'{"volume": {"id": "it", "size": 1, "attachments": 7, "metadata": {}}}'),
        Reply(413, b"{}", {"Retry-After": "soon"}),
        Reply(raw=b"", then="stall"),
    ],
)
def test_what_comes_is_an_error_of_ours(reply: Reply) -> None:
    """Whatever stands in an answer, and where none comes in time."""
    with ScriptedServer() as server:
        server.reply(reply)
        _asked_once(server, cinder_http_timeout=1)


def test_cinders_clock_is_that_of_its_answers() -> None:
    """This machine's plays no part, but for the time that has passed since."""
    with ScriptedServer(
        lambda _: Reply(404, b"{}", {"Date": "Thu, 01 Jan 1970 00:16:40 GMT"})
    ) as s:
        options = StoreOptions.of(CinderDriver.options, cinder_endpoint_template=f"{s.url}/v3")
        clients = CinderClients("it", options)
        cinder = clients.get(SimpleNamespace(auth_token="token", project_id="p"))
        assert cinder.now() is None
        with pytest.raises(NotFound):
            cinder.get("volume")
        clients.close()
    now = cinder.now()
    assert now is not None
    assert 1000 <= now < 1060


def test_a_page_of_a_listing_is_repeated() -> None:
    """By what the engine hands the driver, so that one busy moment ends no listing."""
    repeated: list[StoreError] = []

    def twice(call: Any) -> Any:
        try:
            return call()
        except StoreError as error:
            repeated.append(error)
            return call()

    with ScriptedServer() as server:
        server.reply(Reply(503, b"{}"), Reply(200, b'{"volumes": []}'))
        options = StoreOptions.of(CinderDriver.options, cinder_endpoint_template=f"{server.url}/v3")
        clients = CinderClients("it", options, twice)
        cinder = clients.get(SimpleNamespace(auth_token="token", project_id="p"))
        assert list(cinder.volumes()) == []
        clients.close()
    assert [each.status for each in repeated] == [ErrorStatus.TEMPORARY]


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://one/v3/p"),
        ({"cinder_os_region_name": "two"}, "http://two/v3/p"),
        ({"cinder_catalog_info": "volumev2::internalURL"}, "http://one:1/v3/p"),
        ({"cinder_catalog_info": "volumev3:second:publicURL"}, "http://second/v3/p"),
    ],
)
def test_cinder_is_looked_up_in_the_catalog(values: dict[str, str], url: str) -> None:
    """By type, name, interface and region."""
    catalog = [
        {
            "type": "volumev3",
            "name": "first",
            "endpoints": [
                {"region": each, "publicURL": f"http://{each}/v3/p", "internalURL": inner}
                for each, inner in (("one", "http://one:1/v3/p"), ("two", "http://two:1/v3/p"))
            ],
        },
        {
            "type": "volumev3",
            "name": "second",
            "endpoints": [{"region": "one", "publicURL": "http://second/v3/p"}],
        },
    ]
    caller = SimpleNamespace(auth_token="token", project_id="p", service_catalog=catalog)
    cinder: Any = CinderClients("it", StoreOptions.of(CinderDriver.options, **values)).get(caller)
    assert cinder._client.client.endpoint_override == url


def test_domains_and_the_time_limit_of_a_login() -> None:
    """Each option goes where Keystone is asked."""
    values = {
        **_LOGIN,
        "cinder_store_user_domain_name": "users",
        "cinder_store_project_domain_name": "projects",
        "cinder_http_timeout": 7,
        "cinder_api_insecure": True,
    }
    login: Any = CinderClients("it", StoreOptions.of(CinderDriver.options, **values))._login
    assert login.credentials.user_domain_name == "users"
    assert login.credentials.project_domain_name == "projects"
    assert (login.session.timeout, login.session.verify) == (7, False)


#: Makes ready for multipath in a process of its own, and tells what os-brick was asked.
_MULTIPATH = """
import json, sys
from os_brick.initiator import connector
from store_lib.drivers.cinder.host import Host
asked = []
connector.get_connector_properties = lambda *given, **more: asked.append(given[2:4]) or {}
class Factory:
    @staticmethod
    def factory(*given, **more):
        asked.append(more["use_multipath"])
connector.InitiatorConnector = Factory
for multipath, enforce in ((False, False), (True, False), (True, True)):
    host = Host(lock_path=sys.argv[1], helper_command="x", rootwrap_config="", mount_base="",
                multipath=multipath, enforce_multipath=enforce)
    host.properties()
    host.connector({"driver_volume_type": "iscsi"})
print(json.dumps(asked))
"""


def test_multipath_is_asked_of_os_brick(tmp_path: pathlib.Path) -> None:
    """Where it tells of this host, and where it attaches."""
    result = subprocess.run(
        [sys.executable, "-c", _MULTIPATH, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [
        *([False, False], False),
        *([True, False], True),
        *([True, True], True),
    ]


def test_attempts_are_told_as_seconds() -> None:
    """As long as glance_store's pauses take."""
    for attempts, seconds in ((1, 0), (2, 2), (5, 24), (6, 34)):
        options = StoreOptions.of(CinderDriver.options, cinder_attachment_retry_attempts=attempts)
        assert Settings.of("it", options).attach_timeout == seconds


_VOLUME = (
    b'{"volume": {"id": "it", "status": "STATE", "size": 1, "attachments": [], "metadata": {}}}'
)


@pytest.mark.parametrize(
    "state", ["creating", "awaiting-transfer", "maintenance", "backing-up", "error", "deleting"]
)
def test_a_state_in_which_nobody_can_attach_is_told_at_once(state: str) -> None:
    """With its name; nothing is asked again, and no advice is given that does not help."""
    with ScriptedServer() as server:
        server.reply(
            Reply(400, b'{"badRequest": {"message": "Invalid volume"}}'),
            Reply(200, _VOLUME.replace(b"STATE", state.encode())),
        )
        options = StoreOptions.of(CinderDriver.options, cinder_endpoint_template=f"{server.url}/v3")
        clients = CinderClients("it", options)
        cinder = clients.get(SimpleNamespace(auth_token="token", project_id="p"))
        with pytest.raises(StoreError, match=state[:5]) as caught:
            cinder.create_attachment("it", "ro", 24)
        clients.close()
        assert len(server.requests) == 2
    assert caught.value.status is ErrorStatus.PERMANENT
    assert isinstance(caught.value, NotFound) == (state == "deleting")
    assert "multiattach" not in str(caught.value)


def test_a_lost_answer_to_the_request_of_a_writer_costs_no_add() -> None:
    """Nobody else has its volume: an attachment that was begun is ended, and made anew."""
    reserved = b'{"attachments": [{"id": "lost", "status": "reserved", "volume_id": "it"}]}'
    with ScriptedServer() as server:
        server.reply(
            Reply(400, b'{"badRequest": {"message": "Invalid volume"}}'),
            Reply(200, _VOLUME.replace(b"STATE", b"reserved")),
            Reply(200, reserved),
            Reply(200, b'{"attachments": []}'),
            Reply(200, b'{"attachment": {"id": "made"}}'),
        )
        options = StoreOptions.of(CinderDriver.options, cinder_endpoint_template=f"{server.url}/v3")
        clients = CinderClients("it", options)
        cinder = clients.get(SimpleNamespace(auth_token="token", project_id="p"))
        assert cinder.create_attachment("it", "rw", 0) == "made"
        clients.close()
        assert [(each.method, each.target.rpartition("/")[2]) for each in server.requests][3] == (
            "DELETE",
            "lost",
        )


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_token_follows_no_redirect(code: int) -> None:
    """To another host or another scheme neither; the error says where it was to go."""
    with ScriptedServer() as server, ScriptedServer() as other:
        target = other.url.replace("://", "://user:opensesame@") + "/v3/volumes/volume?secret"
        server.reply(Reply(code, b"", {"Location": target}))
        error = _asked_once(server)
        assert other.requests == []
    assert type(error) is BackendException
    assert other.url in str(error)
    assert "secret" not in str(error)
    assert "opensesame" not in str(error)


def test_the_environment_plays_no_part(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No proxy, no credentials of a .netrc, and no authorities but those of the configuration."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password opensesame\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(netrc))
    with ScriptedServer() as proxy, ScriptedServer(lambda _: Reply(404)) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        _asked_once(server)
        assert proxy.requests == []
        assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    "options",
    [
        {**_LOGIN, "cinder_store_auth_address": "http://u:opensesame@127.0.0.1:9/v3"},
        {"cinder_endpoint_template": "http://u:opensesame@127.0.0.1:9/v3/%(tenant)s"},
        {"cinder_endpoint_template": "ftp://127.0.0.1/%(tenant)s"},
        {"cinder_endpoint_template": "http://u:opensesame@h/%(nothing)s"},
        {"cinder_endpoint_template": "http://u:opensesame@h/%"},
        {"cinder_endpoint_template": "http://%(tenant)s/"},
    ],
)
def test_addresses_hold_no_login(options: dict[str, Any]) -> None:
    """A login within a URL is refused and not shown, and so is what is no URL."""
    context = SimpleNamespace(auth_token="t", project_id="u:opensesame@h", service_catalog=[])
    with pytest.raises(BadStoreConfiguration, match=r"_address|_template") as caught:
        CinderClients("it", StoreOptions.of(CinderDriver.options, **options)).get(context)
    assert "opensesame" not in str(caught.value)
