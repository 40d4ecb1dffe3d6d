"""Options of stores on the real Swift, in each of the three ways to log in; and contexts."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import urllib3

from tests.servers.keystone import Keystone, Login, password
from tests.servers.swift import TEMPAUTH_USERS, Swift

#: What signs temporary URLs in the accounts of the tests.
TEMP_URL_KEY = "temporary-5eCr"

#: Segments of the least size; Swift takes 16 MiB in one object here.
LAYOUT: dict[str, Any] = {
    "swift_store_create_container_on_put": "true",
    "swift_store_large_object_size": "1",
    "swift_store_large_object_chunk_size": "1",
}


def v1(swift: Swift, container: str, **more: Any) -> dict[str, Any]:
    """Return the options of a single-tenant store with the old login."""
    return {
        **LAYOUT,
        "swift_store_auth_version": "1",
        "swift_store_auth_address": swift.v1_url,
        "swift_store_user": "test:tester",
        "swift_store_key": TEMPAUTH_USERS["test:tester"],
        "swift_store_container": container,
        **more,
    }


def v3(keystone: Keystone, container: str, directory: Path, **more: Any) -> dict[str, Any]:
    """Return the options of a single-tenant store with Keystone, by a file of references."""
    file = directory / "references.conf"
    file.write_text(
        f"[main]\nuser = service:glance\nkey = '{password('glance')}'\n"
        f"auth_address = {keystone.url}\nauth_version = 3\n"
        f"user_domain_id = default\nproject_domain_id = default\n"
        f"[other]\nuser = demo:demo\nkey = {password('demo')}\nauth_address = {keystone.url}\n"
    )
    return {
        **LAYOUT,
        "swift_store_config_file": str(file),
        "default_swift_reference": "main",
        "swift_store_container": container,
        **more,
    }


def tenants(keystone: Keystone, container: str, **more: Any) -> dict[str, Any]:
    """Return the options of a multi-tenant store."""
    return {
        **LAYOUT,
        "swift_store_multi_tenant": "true",
        "swift_store_auth_address": keystone.url,
        "swift_store_user": "service:glance",
        "swift_store_key": password("glance"),
        "swift_store_container": container,
        **more,
    }


def catalog_v2(login: Login) -> list[dict[str, Any]]:
    """Return a catalog in the form in which services hand it on."""
    return [
        {
            "type": service["type"],
            "name": service["name"],
            "endpoints": [
                {"region": each["region"], f"{each['interface']}URL": each["url"]}
                for each in service["endpoints"]
            ],
        }
        for service in login.catalog
    ]


def context_of(login: Login) -> SimpleNamespace:
    """Return a request's context as a service has it."""
    return SimpleNamespace(
        auth_token=login.token,
        user_id=login.user_id,
        project_id=login.project_id,
        roles=list(login.roles),
        service_catalog=catalog_v2(login),
    )


def context_file(login: Login, path: Path) -> str:
    """Write the context for the conformance kit, and return the file's path."""
    path.write_text(
        "from types import SimpleNamespace\n"
        f"_CONTEXT = SimpleNamespace(**{vars(context_of(login))!r})\n"
        "def context():\n    return _CONTEXT\n"
    )
    return str(path)


@dataclasses.dataclass
class Raw:
    """Plain requests to an account, beside any store."""

    url: str
    token: str

    def __call__(
        self, method: str, path: str = "", body: bytes = b"", **headers: str
    ) -> urllib3.BaseHTTPResponse:
        """Make a request; underscores in the names of headers stand for dashes."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with urllib3.PoolManager(retries=False) as pool:
            return pool.request(
                method, self.url + path, body=body, headers={"X-Auth-Token": self.token, **sent}
            )

    def names(self, container: str) -> list[str]:
        """Return the names of everything in a container."""
        return self("GET", f"/{container}").data.decode().split("\n")[:-1]


def raw_v1(swift: Swift) -> Raw:
    """Return plain requests to the account of the old login."""
    headers = {"X-Auth-User": "test:tester", "X-Auth-Key": TEMPAUTH_USERS["test:tester"]}
    with urllib3.PoolManager(retries=False) as pool:
        reply = pool.request("GET", swift.v1_url, headers=headers)
    return Raw(reply.headers["X-Storage-Url"], reply.headers["X-Auth-Token"])


def raw_v3(keystone: Keystone, swift: Swift, user: str) -> Raw:
    """Return plain requests to the account of a user's project."""
    login = keystone.login(user)
    return Raw(swift.keystone_url + login.project_id, login.token)
