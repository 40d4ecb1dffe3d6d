"""Every client of the library, each asked for one thing: of the server at a URL."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from store_lib.clients.http import HttpClient
from store_lib.clients.keystone import ConnectionSettings, Credentials, KeystoneLogin
from store_lib.clients.network_errors import OptionNames
from store_lib.clients.tls import Tls
from store_lib.driver import once
from store_lib.drivers.cinder import CinderDriver
from store_lib.drivers.cinder.client import CinderClients
from store_lib.drivers.http import HttpDriver
from store_lib.drivers.s3 import S3Driver
from store_lib.drivers.s3.client import Client
from store_lib.drivers.s3.options import settings_of
from store_lib.drivers.swift import SwiftDriver
from store_lib.drivers.vmware.client import Session
from store_lib.drivers.vmware.options import OPTIONS as VMWARE
from store_lib.drivers.vmware.soap import Api, SoapTransport
from store_lib.options import StoreOptions
from store_lib.redaction import Secret

#: The password, the key or the token that each of them sends.
CANARY = "c4naryc4nary"

#: Given the server's URL, the file with its authority, and the description of vSphere's API.
Ask = Callable[[str, str, Path], object]


def keystone(url: str, *_: object) -> None:
    """Log in by a password."""
    credentials = Credentials(auth_url=f"{url}/v3", username="u", password=CANARY, project_id="p")
    with contextlib.closing(KeystoneLogin(credentials, ConnectionSettings(timeout=5))) as login:
        login.token()


def application(url: str, *_: object) -> None:
    """Log in by an application credential, and ask for the catalog."""
    credentials = Credentials(
        auth_url=url, application_credential_id="u", application_credential_secret=CANARY
    )
    with contextlib.closing(KeystoneLogin(credentials, ConnectionSettings(timeout=5))) as login:
        login.endpoint("object-store", "public", None)


def trust(url: str, *_: object) -> None:
    """Ask Keystone with a user's token."""
    credentials = Credentials(auth_url=url, username="u", password="p")
    with contextlib.closing(KeystoneLogin(credentials, ConnectionSettings(timeout=5))) as login:
        login.call("GET", "/auth/tokens", Secret(CANARY))


def cinder(url: str, *_: object) -> None:
    """Ask Cinder with a user's token."""
    options = StoreOptions.of(CinderDriver.options, cinder_endpoint_template=url)
    with contextlib.closing(CinderClients("it", options)) as clients:
        clients.get(SimpleNamespace(auth_token=CANARY, project_id="project")).get("it")


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
    with contextlib.closing(
        HttpClient(tls, OptionNames("a", "b", "c"), connect_timeout=5, read_timeout=5)
    ) as client:
        transport = SoapTransport(client, url)
        session = Session(client, transport, lambda: Api(transport, wsdl.as_uri()), "user", CANARY)
        session.begin()


CLIENTS: list[Ask] = [
    *(keystone, application, trust, cinder, old_login, swift, http, s3, vmware),
]
