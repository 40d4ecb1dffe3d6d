"""Whole operations on Keystone, Cinder's API and vSphere that spoil one of their answers."""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store_lib import Stores
from store_lib.drivers.cinder import CinderDriver
from store_lib.exceptions import HasSnapshot, InUseByStore
from store_lib.options import StoreOptions
from tests.scripted_server import Reply, Request, serve
from tests.servers.vsphere.wsdl import write_wsdl
from tests.unit.drivers.vmware.test_session import PASSWORD, VCenter, answer
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.test_operations import DATA, Swift, World

_TOKEN = "token-canary-5"


def token(*services: tuple[str, str]) -> Reply:
    """Return Keystone's answer to a login, with a catalog of types and URLs."""
    catalog = [
        {
            "type": kind,
            "name": kind,
            "endpoints": [
                {"interface": each, "region": "one", "region_id": "one", "url": url}
                for each in ("admin", "public")
            ],
        }
        for kind, url in services
    ]
    told = {
        "methods": ["password"],
        "expires_at": "2999-01-01T00:00:00.000000Z",
        "issued_at": "2020-01-01T00:00:00.000000Z",
        "user": {"id": "uid", "name": "u", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": "pid", "name": "p", "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "r", "name": "member"}],
        "catalog": catalog,
    }
    return Reply(
        201,
        json.dumps({"token": told}).encode(),
        {"X-Subject-Token": _TOKEN, "Content-Type": "application/json"},
    )


class KeystoneSwift(Swift):
    """The small Swift, with a login at Keystone."""

    def answer(self, request: Request) -> Reply:
        """Answer as Keystone, or as Swift does."""
        if request.target.endswith("/auth/tokens"):
            return token(("object-store", "http://swift.example/v1/TEMP_test"))
        return super().answer(request)

    def reset(self) -> None:
        super().reset()
        self.small.tokens.add(_TOKEN)

    def opened(self) -> Stores:
        self.values |= {
            "swift_store_auth_version": "3",
            "swift_store_auth_address": "http://keystone.example/v3",
            "swift_store_user": "p:u",
        }
        return super().opened()


def _volume(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"b1f8a2b4-5c2e-4f1e-9d5a-00000000000{number}",
        "name": f"image-{number}",
        "status": "available",
        "size": 1,
        "metadata": {"glance_image_id": str(number), "image_size": str(len(DATA))},
        "volume_type": "fast",
        "multiattach": False,
        "encrypted": False,
        "attachments": [],
        "created_at": "2026-11-20T16:30:27.000000",
        "updated_at": "2026-11-20T16:30:27.000000",
        **more,
    }


_NONCE = "0123456789abcdef" * 2
_LEFT = {"store_lib_upload": "left", "store_lib_nonce": _NONCE, "store_lib_host": "elsewhere"}


class Volumes(World):
    """As much of Cinder as the driver asks, with a login at Keystone."""

    driver = "cinder"

    def opened(self) -> Stores:
        values = {
            "cinder_store_auth_address": "http://keystone.example/v3",
            "cinder_store_user_name": "u",
            "cinder_store_password": "password-canary",
            "cinder_store_project_name": "p",
            "cinder_state_transition_timeout": 3,
        }
        self.values = values
        self.sections = {"oslo_concurrency": {"lock_path": self.folder}}
        return super().opened()

    def reset(self) -> None:
        left = _volume(3, name=f"store_lib-upload-{_NONCE}", metadata=_LEFT)
        used = _volume(2, status="in-use", attachments=[{"attachment_id": "a", "host_name": "h"}])
        self.volumes = {each["id"]: each for each in (_volume(1), used, left)}
        self.attachments = {
            "a": {"id": "a", "status": "attached", "attached_at": "", "instance": ""}
        }
        if self.server.seed % 3 == 0:  # log in anew
            from store_lib.drivers.cinder.client import CinderClients

            driver: Any = self.store.driver
            driver._clients.close()
            options = StoreOptions.of(CinderDriver.options, **self.values)
            driver._clients = CinderClients("it", options, driver.retry)

    @property
    def cinder(self) -> Any:
        """Cinder, as the driver asks it."""
        driver: Any = self.store.driver
        return driver._clients.get(None)

    def answer(self, request: Request) -> Reply:
        """Answer as Keystone, or as Cinder does."""
        if request.target.endswith("/auth/tokens"):
            return token(("volumev3", "http://cinder.example/v3/pid"), ("block-storage", "x"))
        path, _, query = request.target.partition("?")
        kind, *rest = path.removeprefix("/v3/pid/").split("/")
        status, told = getattr(self, f"_{kind}")(request, rest, query)
        headers: dict[str, str | None] = {
            "Date": "Fri, 20 Nov 2026 18:30:27 GMT",
            "Content-Type": "application/json",
        }
        return Reply(status, b"" if told is None else json.dumps(told).encode(), headers)

    def _volumes(self, request: Request, rest: list[str], query: str) -> tuple[int, Any]:
        if request.method == "POST" and not rest:
            made = _volume(4, name="made", metadata={})
            self.volumes[made["id"]] = made
            return 202, {"volume": made}
        if rest == ["detail"] or not rest:
            return 200, {"volumes": [] if "marker" in query else list(self.volumes.values())}
        found = self.volumes.get(rest[0])
        if found is None:
            return 404, {"itemNotFound": {"message": "no such volume", "code": 404}}
        if request.method == "DELETE":
            if found["status"] != "available":
                return 400, {"badRequest": {"message": "it is in use", "code": 400}}
            del self.volumes[rest[0]]
            return 202, None
        return (202, None) if rest[1:] == ["action"] else (200, {"volume": found})

    def _attachments(self, request: Request, rest: list[str], query: str) -> tuple[int, Any]:
        if request.method == "GET":
            return 200, {"attachments": list(self.attachments.values())}
        made = {"id": "b", "status": "attaching", "connection_info": {"driver_volume_type": "x"}}
        if request.method == "DELETE":
            self.attachments.pop(rest[0], None)
            return 200, {"attachments": []}
        return (204, None) if rest[-1:] == ["action"] else (200, {"attachment": made})

    def _snapshots(self, request: Request, rest: list[str], query: str) -> tuple[int, Any]:
        return 200, {"snapshots": [{"id": "s"}]}

    def _types(self, request: Request, rest: list[str], query: str) -> tuple[int, Any]:
        fast = {"id": "t", "name": "fast", "is_public": True, "extra_specs": {}}
        return 200, {"volume_type": fast} if rest else {"volume_types": [fast]}

    def _uri(self, number: int) -> str:
        return f"cinder://it/{_volume(number)['id']}"

    def do_stat(self) -> None:
        self.see_size(self._uri(1))

    def do_list(self) -> None:
        told = {each.object_id: each.size for each in self.store.list()}
        self.see(told, {"1": len(DATA), "2": len(DATA)})

    def do_incomplete(self) -> None:
        self.see([each.object_id for each in self.store.list_incomplete()], ["left"])

    def do_sweep(self) -> None:
        self.store.sweep(0)
        assert _volume(1)["id"] in self.volumes
        self.see(_volume(3)["id"] in self.volumes, False)

    def do_delete(self) -> None:
        self.store.delete(self._uri(1))
        self.see(_volume(1)["id"] in self.volumes, False)
        assert _volume(2)["id"] in self.volumes

    def do_delete_used(self) -> None:
        with contextlib.suppress(HasSnapshot, InUseByStore):
            self.store.delete(self._uri(2))
        assert _volume(2)["id"] in self.volumes

    def do_create(self) -> None:
        made = self.cinder.create("made", 1, "fast", {"a": "b"})
        assert 0 <= made.size < 2**63

    def do_attach(self) -> None:
        cinder = self.cinder
        attachment = cinder.create_attachment(_volume(1)["id"], "rw", 3)
        assert isinstance(attachment, str)
        assert isinstance(cinder.update_attachment(attachment, {"host": "h"}).connection_info, dict)
        cinder.complete_attachment(attachment)
        cinder.delete_attachment(attachment)

    def do_settle(self) -> None:
        cinder = self.cinder
        assert isinstance(cinder.wait_until_stable(_volume(1)["id"]).status, str)
        assert cinder.default_type() in ("fast", None) or not self.cut
        cinder.has_type("fast")
        cinder.extend(_volume(1)["id"], 2)
        cinder.update(_volume(1)["id"], "image-1", {"a": "b"})

    def do_name(self) -> None:
        found = self.cinder.find("image-1")
        assert found is None or isinstance(found.id, str)


_SCHEMA = 'xmlns:s="http://www.w3.org/2001/XMLSchema"'
_PATHS = re.compile(rb">\[ds\] ([^<]*)<")


def _property(name: str, kind: str, value: str, more: str = "") -> str:
    return (
        f'<propSet><name>{name}</name><val {_SCHEMA} i:type="{kind}"{more}>{value}</val></propSet>'
    )


def _object(kind: str, name: str, properties: str) -> str:
    return f'<objects><obj type="{kind}">{name}</obj>{properties}</objects>'


class Datastore(World):
    """A vCenter Server with one datastore, on which tasks end at once."""

    driver = "vmware"

    def __init__(self) -> None:
        super().__init__()
        self.vcenter = VCenter()
        self.vcenter.further = self._further
        self.files: dict[str, bytes] = {}
        self.task = ""

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="store_lib-fuzz-") as folder:
            self.values = {
                "vmware_server_host": "vc.example",
                "vmware_server_username": "user",
                "vmware_server_password": PASSWORD,
                "vmware_datastores": ["dc:ds"],
                "vmware_store_image_dir": "/images",
                "vmware_wsdl_location": str(write_wsdl(Path(folder))),
                "vmware_task_timeout": 5,
            }
            with super().there():
                yield

    def reset(self) -> None:
        self.files = {"id": DATA, "other": DATA, f"store_lib-upload-{_NONCE}-left": b"x"}
        self.task = _property("info", "TaskInfo", "<state>success</state>")
        if self.server.seed % 3 == 0:  # log in anew, and look everything up
            driver: Any = self.store.driver
            driver._session._logins.take()
            driver._inventory._known.clear()
            driver._inventory._datacenters.clear()

    def answer(self, request: Request) -> Reply:
        """Answer as the API, or as what serves data does."""
        return self.vcenter(request)

    def _further(self, operation: str, request: Request) -> Reply | None:
        if request.target.startswith("/folder/"):
            return self._data(request)
        if operation.endswith("_Task"):
            self._begin(operation, [each.decode() for each in _PATHS.findall(request.body)])
            return answer(operation, '<returnval type="Task">task-1</returnval>')
        if operation == "RetrievePropertiesEx":
            return answer(operation, f"<returnval>{self._properties(request.body)}</returnval>")
        return answer(operation, "") if operation == "MakeDirectory" else None

    def _properties(self, body: bytes) -> str:
        if b"task-1" in body:
            return _object("Task", "task-1", self.task)
        if b"datastore-1" not in body:
            found = '<ManagedObjectReference type="Datastore">datastore-1</ManagedObjectReference>'
            stores = _property("datastore", "ArrayOfManagedObjectReference", found)
            return _object("Datacenter", "datacenter-1", stores)
        if b"summary" in body:
            told = _property("summary.capacity", "s:long", "1000000")
            told += _property("summary.freeSpace", "s:long", "500000")
            told += _property("summary.accessible", "s:boolean", "true")
        else:
            browser = ("ManagedObjectReference", "browser-1", ' type="HostDatastoreBrowser"')
            told = _property("browser", *browser) + _property("name", "s:string", "ds")
        return _object("Datastore", "datastore-1", told)

    def _begin(self, operation: str, paths: list[str]) -> None:
        names = [each.rpartition("/")[2] for each in paths]
        result, fault = "", ""
        if operation.startswith("Search"):
            files = "".join(
                f'<file i:type="FileInfo"><path>{name}</path><fileSize>{len(data)}</fileSize>'
                "<modification>2026-11-20T16:30:27Z</modification></file>"
                for name, data in self.files.items()
            )
            kind = "HostDatastoreBrowserSearchResults"
            result = f'<result i:type="{kind}"><folderPath>[ds] images</folderPath>{files}</result>'
        elif names[0] not in self.files:
            fault = "FileNotFound"
        elif operation.startswith("Delete"):
            del self.files[names[0]]
        elif names[1] in self.files:
            fault = "FileAlreadyExists"
        else:
            self.files[names[1]] = self.files.pop(names[0])
        state = f"<state>success</state>{result}"
        if fault:
            told = f'<fault i:type="{fault}"/><localizedMessage>no</localizedMessage>'
            state = f"<state>error</state><error>{told}</error>"
        self.task = _property("info", "TaskInfo", state)

    def _data(self, request: Request) -> Reply:
        name = request.target.partition("?")[0].rpartition("/")[2]
        dates: dict[str, str | None] = {
            "Last-Modified": "Fri, 20 Nov 2026 16:30:27 GMT",
            "Date": "Fri, 20 Nov 2026 18:30:27 GMT",
        }
        if request.method == "PUT":
            self.files[name] = request.body
            return Reply(201, headers=dates)
        if name not in self.files:
            return Reply(404)
        return serve(request, self.files[name], headers=dates)

    URI = "vsphere://vc.example/folder/images/id?dcPath=dc&dsName=ds"

    def do_get(self) -> None:
        self.read(self.URI)

    def do_get_range(self) -> None:
        self.read(self.URI, 1000, 2000)

    def do_stat(self) -> None:
        self.see_size(self.URI)

    def do_list(self) -> None:
        told = {each.object_id: each.size for each in self.store.list()}
        self.see(told, {"id": len(DATA), "other": len(DATA)})

    def do_incomplete(self) -> None:
        self.see([each.object_id for each in self.store.list_incomplete()], ["left"])

    def do_sweep(self) -> None:
        self.store.sweep(0)
        assert {"id", "other"} <= set(self.files)
        self.see(len(self.files), 2)

    def do_space(self) -> None:
        space = self.store.space()
        assert isinstance(space.total, int)
        self.see((space.total, space.free), (1000000, 500000))

    def do_add(self) -> None:
        assert self.store.add("new", [DATA], len(DATA)).size == len(DATA)
        self.see(self.files.get("new"), DATA)

    def do_delete(self) -> None:
        self.store.delete(self.URI)
        self.see("id" in self.files, False)
        assert "other" in self.files


pytestmark = pytest.mark.deep("fuzz", always=True)

_WHY = "each is a whole operation of several requests"

PARSERS = [
    KeystoneSwift().parser("operations on Swift by Keystone", 0.01, _WHY),
    Volumes().parser("operations on Cinder", 0.01, _WHY),
    Datastore().parser("operations on vSphere", 0.01, _WHY),
]


def test_operations(parser: Parser, batches: range, record_property: Any) -> None:
    """An operation tells the truth or one of the library's errors, soon, and leaves nothing."""
    feed(parser, batches, record_property)
