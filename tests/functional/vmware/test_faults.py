"""What goes wrong between a store and a vCenter Server: which error it is, and what is left."""

import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from store_lib import Store, Stores
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    BadStoreUri,
    Duplicate,
    ErrorStatus,
    Forbidden,
    InUseByStore,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    SizeMismatch,
    StorageFull,
    StorageWriteDenied,
    StoreAddDisabled,
    StoreError,
    TimeoutError,
)
from tests.functional.conformance import write_config
from tests.functional.vmware.conftest import Make
from tests.scripted_server import ScriptedServer
from tests.servers.process import free_ports
from tests.servers.vsphere import VSphere

MIB = 1024 * 1024
LARGE = bytes(range(256)) * 4096 * 4  # 4 MiB: several chunks, so that it is streamed


def problem(store: Store) -> BadStoreConfiguration:
    assert store.error is not None
    return store.error


def add(store: Store, object_id: str = "an-id", *, known: bool = True) -> str:
    return store.add(object_id, io.BytesIO(LARGE), len(LARGE) if known else None).uri


# The configuration


def test_a_wrong_password(make: Make) -> None:
    """A refused login is told when the store is made, with the options to look at."""
    store = make(vmware_server_password="not this one")
    assert "InvalidLogin" in str(problem(store))
    assert "vmware_server_password" in str(problem(store))
    assert "not this one" not in str(problem(store))
    with pytest.raises(StoreAddDisabled, match="vmware_server_password"):
        store.add("an-id", b"abc")


@pytest.mark.parametrize(
    ("datastore", "reason"),
    [
        ("/DC9:ds-a", "no datacenter 'DC9'"),
        ("/DC0:ds-9", "no datastore 'ds-9' in the datacenter 'DC0'"),
        ("/DC0:ds-c", "no datastore 'ds-c' in the datacenter 'DC0'"),
        ("/DC0:ds-a:heavy", "weight 'heavy' is not an integer"),
        (r"/DC0:ds\-a", "a backslash stands before"),
        ("/DC0:ds:a:1", "is to be written as"),
    ],
)
def test_a_wrong_datastore(make: Make, datastore: str, reason: str) -> None:
    """A datastore that is not there, or not well written, is told with what is wrong."""
    assert reason in str(problem(make(datastore)))


def test_objects_are_readable_while_a_datastore_is_missing(make: Make) -> None:
    """With one wrong datastore nothing is added, but what is there can be read."""
    uri = make("/DC0:ds-a").add("an-id", b"some bytes").uri
    store = make("/DC0:ds-a", "/DC0:ds-9")
    assert store.get(uri).read() == b"some bytes"
    with pytest.raises(StoreAddDisabled):
        store.add("another", b"abc")


@pytest.mark.parametrize("local", [False, True], ids=["fetched", "local"])
def test_a_wrong_authority(vcenter: VSphere, make: Make, tmp_path: Path, local: bool) -> None:
    """A server that another authority signed is refused at once, WSDL at hand or not."""
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    wsdl = str(vcenter.wsdl) if local else None
    store = make(vmware_ca_file=str(path), **({"vmware_wsdl_location": wsdl} if wsdl else {}))
    assert "TLS verification" in str(problem(store))
    assert "vmware_ca_file" in str(problem(store))


def test_the_environment_changes_nothing(
    vcenter: VSphere, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another bundle of authorities nor a proxy of the environment is heeded."""
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(path))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    store = make()
    assert store.get(add(store)).read() == LARGE


@pytest.mark.parametrize("option", ["vmware_insecure", "vmware_api_insecure"])
def test_without_verification(vcenter: VSphere, tmp_path: Path, option: str, caplog: Any) -> None:
    """vmware_insecure, by its old name too, works without an authority, and is warned of."""
    options = {**vcenter.options(), "vmware_ca_file": "", option: "true"}
    options["vmware_datastores"] = "DC0:ds-a"
    config = write_config(tmp_path, "vmware", *(f"{key} = {options[key]}" for key in options))
    with Stores.from_files(config, strict=True) as stores:
        assert stores.get(add(stores["it"])).read() == LARGE
    assert "certificates of the vSphere server are not verified" in caplog.text


def test_a_refused_port(vcenter: VSphere, make: Make, caplog: Any) -> None:
    """A server that is down is told of when it is asked, and works once it is up."""
    (port,) = free_ports(1)
    store = make(vmware_server_host=f"127.0.0.1:{port}", transfer_attempts=1)
    assert store.error is None
    assert "could not be looked up yet" in caplog.text
    with pytest.raises(RemoteServiceUnavailable, match="refused") as caught:
        add(store)
    assert caught.value.status is ErrorStatus.EXHAUSTED


# Sessions


@pytest.mark.parametrize("known", [True, False])
def test_every_operation_begins_a_new_session(vcenter: VSphere, make: Make, known: bool) -> None:
    """When an administrator ended all sessions, whatever comes next begins one by itself."""
    store = make(transfer_attempts=1)
    vcenter.logout()
    uri = add(store, known=known)
    for operation in (
        lambda: store.get(uri).read(),
        lambda: store.stat(uri),
        lambda: list(store.list()),
        lambda: store.space(),
        lambda: store.delete(uri),
    ):
        vcenter.logout()
        operation()
    assert vcenter.files() == []


@pytest.mark.parametrize(
    "operation",
    ["HEAD", "RetrievePropertiesEx", "MakeDirectory", "MoveDatastoreFile_Task"],
)
def test_a_session_that_ends_during_an_add(vcenter: VSphere, make: Make, operation: str) -> None:
    """Wherever in an add the session ends, the add goes on with a new one."""
    store = make(transfer_attempts=1)
    vcenter.plan(operation, "logout")
    assert store.get(add(store)).read() == LARGE


def test_a_session_that_ends_during_a_get(vcenter: VSphere, store: Store) -> None:
    """A get that is cut, and whose session has ended then, is continued with a new one."""
    uri = add(store)
    backdate(vcenter, "an-id")
    vcenter.plan("GET", f"cut {MIB}", "logout")
    assert store.get(uri).read() == LARGE


def test_the_session_ends_just_before_the_bytes(vcenter: VSphere, make: Make) -> None:
    """Bytes that lie in memory are sent again with a new session; a stream is given up."""
    store = make(transfer_attempts=1)
    vcenter.plan("PUT", "logout")
    assert store.get(store.add("small", b"small", 5).uri).read() == b"small"
    vcenter.plan("PUT", "logout")
    with pytest.raises(StoreError) as caught:
        add(store)
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert vcenter.files() == ["openstack_glance/small"]


@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT"])
def test_a_data_server_that_accepts_no_session(vcenter: VSphere, make: Make, method: str) -> None:
    """Where neither session nor ticket is taken, that is told, and nothing is left."""
    store = make(transfer_attempts=1)
    uri = store.add("before", b"abc").uri
    vcenter.plan(method, "status 401", "status 401")
    operations = {"HEAD": store.stat, "GET": store.get, "PUT": lambda _: store.add("a", b"abc")}
    with pytest.raises(NotAuthenticated, match="does not accept the session") as caught:
        operations[method](uri)
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert vcenter.files() == ["openstack_glance/before"]


# Objects


@pytest.mark.parametrize("query", ["dcPath=DC0&dsName=ds-a", "dcPath=DC0&dsName=ds-9"])
def test_a_missing_file_or_datastore(vcenter: VSphere, store: Store, query: str) -> None:
    """What is not there is NotFound to get, stat and delete."""
    uri = f"vsphere://{vcenter.host}/folder/openstack_glance/nothing?{query}"
    for operation in (store.get, store.stat, store.delete):
        with pytest.raises(NotFound):
            operation(uri)


def test_a_missing_datacenter(vcenter: VSphere, store: Store) -> None:
    """A datacenter that is not there is NotFound too."""
    uri = f"vsphere://{vcenter.host}/folder/openstack_glance/nothing?dcPath=DC9&dsName=ds-a"
    for operation in (store.get, store.stat, store.delete):
        with pytest.raises(NotFound):
            operation(uri)


def test_a_uri_of_another_host_or_directory_is_refused(vcenter: VSphere, store: Store) -> None:
    """Nothing is sent to a host that a URI names, and nothing outside the directory is touched."""
    disk = vcenter.directories["/DC0:ds-a"] / "vm"
    disk.mkdir(exist_ok=True)
    (disk / "disk.vmdk").write_bytes(b"somebody's disk")
    with ScriptedServer() as other:
        place = "openstack_glance/an-id?dcPath=DC0&dsName=ds-a"
        for uri in (
            f"vsphere://127.0.0.1:{other.port}/folder/{place}",
            f"vsphere://{vcenter.host}/folder/vm/disk.vmdk?dcPath=DC0&dsName=ds-a",
            f"vsphere://{vcenter.host}/folder/openstack_glance/..%2Fvm/disk.vmdk?dcPath=DC0&dsName=ds-a",
        ):
            for operation in (store.get, store.stat, store.delete):
                with pytest.raises(BadStoreUri):
                    operation(uri)
        assert other.connections == 0
    assert vcenter.files() == ["vm/disk.vmdk"]


@pytest.mark.parametrize("known", [True, False])
def test_a_full_datastore(vcenter: VSphere, make: Make, known: bool) -> None:
    """What does not fit is StorageFull and leaves nothing, whether its size was told or not."""
    store = make("/DC0:ds-small")
    vcenter.free("/DC0:ds-small", 2 * MIB)
    with pytest.raises(StorageFull, match=r"[Mm]ake room") as caught:
        add(store, known=known)
    assert caught.value.status is ErrorStatus.PERMANENT
    assert vcenter.files("/DC0:ds-small") == []
    assert len(vcenter.requests("PUT")) == (0 if known else 1)


def test_a_datastore_that_fills_up_meanwhile(vcenter: VSphere, make: Make) -> None:
    """A size that fitted when it was looked at is StorageFull all the same, and leaves nothing."""
    store = make("/DC0:ds-small")

    def source() -> Iterator[bytes]:
        vcenter.free("/DC0:ds-small", MIB)
        yield LARGE

    with pytest.raises(StorageFull, match="507"):
        store.add("an-id", source(), len(LARGE))
    assert vcenter.files("/DC0:ds-small") == []


@pytest.mark.parametrize("short", [True, False])
def test_a_source_of_a_wrong_size(vcenter: VSphere, store: Store, short: bool) -> None:
    """A source that is cut short, or too long, publishes nothing and leaves nothing."""
    size = len(LARGE) + (1 if short else -1)
    with pytest.raises(SizeMismatch):
        store.add("an-id", io.BytesIO(LARGE), size)
    assert vcenter.files() == []


@pytest.mark.parametrize("known", [True, False])
def test_an_upload_that_the_server_cuts(vcenter: VSphere, store: Store, known: bool) -> None:
    """A connection that ends under an upload ends the add, which leaves nothing."""
    vcenter.plan("PUT", "drop")
    with pytest.raises(RemoteServiceUnavailable) as caught:
        add(store, known=known)
    assert caught.value.status is ErrorStatus.EXHAUSTED
    assert vcenter.files() == []


@pytest.mark.parametrize(
    "action", ["drop", "drop-reply", "status 503", "task FileLocked", "logout"]
)
def test_trouble_while_cleaning_up(vcenter: VSphere, store: Store, action: str) -> None:
    """What a failed upload left is deleted all the same when the first attempt at it fails."""
    vcenter.plan("DeleteDatastoreFile_Task", action)
    with pytest.raises(SizeMismatch):
        store.add("an-id", io.BytesIO(LARGE), len(LARGE) + 1)
    assert len(vcenter.requests("DeleteDatastoreFile_Task")) >= 2
    assert vcenter.files() == []


def test_a_small_upload_is_sent_again(vcenter: VSphere, store: Store) -> None:
    """What lies in memory survives a lost connection and a busy server."""
    vcenter.plan("PUT", "drop", "status 503", "drop-reply")
    assert store.get(store.add("an-id", b"small", 5).uri).read() == b"small"
    assert vcenter.files() == ["openstack_glance/an-id"]


def test_a_silently_shortened_upload_is_found_out(vcenter: VSphere, store: Store) -> None:
    """A success whose file lacks bytes, as on a disk that ran full, is an error."""
    vcenter.plan("PUT", "truncate 1000")
    with pytest.raises(BackendException, match=r"Expected 4194304 bytes .* got 1000 bytes"):
        add(store)
    assert vcenter.files() == []


def backdate(vcenter: VSphere, object_id: str) -> None:
    """Make a file old enough for its time to identify it."""
    path = vcenter.directories["/DC0:ds-a"] / "openstack_glance" / object_id
    os.utime(path, (1_000_000, 1_000_000))


def test_a_get_that_the_server_cuts(vcenter: VSphere, store: Store) -> None:
    """A get whose connection ends is continued where it ended."""
    uri = add(store)
    backdate(vcenter, "an-id")
    vcenter.plan("GET", f"cut {MIB}", "cut 1", f"cut {MIB}")
    assert store.get(uri).read() == LARGE


def test_an_object_that_was_replaced_is_not_continued(vcenter: VSphere, store: Store) -> None:
    """Bytes of two objects are never joined."""
    uri = add(store)
    backdate(vcenter, "an-id")
    vcenter.plan("GET", f"cut {2 * MIB}")
    reader = store.get(uri)
    reader.read(10)
    path = vcenter.directories["/DC0:ds-a"] / "openstack_glance" / "an-id"
    path.write_bytes(LARGE)
    with pytest.raises(StoreError, match="changed"):
        reader.read()


# Tasks


@pytest.mark.parametrize("action", ["drop", "drop-reply", "status 503"])
@pytest.mark.parametrize(
    "operation", ["MoveDatastoreFile_Task", "RetrievePropertiesEx", "HEAD", "MakeDirectory"]
)
def test_a_lost_request_or_answer_of_an_add(
    vcenter: VSphere, make: Make, operation: str, action: str
) -> None:
    """Whichever small request of an add is lost, or its answer, the add succeeds, and is one."""
    store = make(vmware_store_image_dir=f"lost/{operation}/{action}".replace(" ", "-"))
    vcenter.plan(operation, action)
    uri = add(store)
    assert store.get(uri).read() == LARGE
    assert len(vcenter.files()) == 1
    assert len(vcenter.requests("PUT")) == 1


@pytest.mark.parametrize("action", ["drop", "drop-reply", "status 503"])
def test_a_lost_request_or_answer_of_a_delete(vcenter: VSphere, store: Store, action: str) -> None:
    """A delete whose request or answer is lost succeeds."""
    uri = add(store)
    vcenter.plan("DeleteDatastoreFile_Task", action)
    store.delete(uri)
    assert vcenter.files() == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("NoDiskSpace", StorageFull),
        ("CannotAccessFile", StorageWriteDenied),
        ("NoPermission", Forbidden),
        ("SystemError", BackendException),
        ("FileAlreadyExists", Duplicate),
        ("FileNotFound", BackendException),
    ],
)
def test_a_move_that_fails(
    vcenter: VSphere, store: Store, fault: str, kind: type[StoreError]
) -> None:
    """When the task that publishes fails, the error says why, and nothing is left."""
    vcenter.plan("MoveDatastoreFile_Task", f"task {fault}")
    with pytest.raises(kind) as caught:
        add(store)
    assert caught.value.status is ErrorStatus.PERMANENT
    assert vcenter.files() == []


@pytest.mark.parametrize("fault", ["FileLocked", "TaskInProgress"])
def test_a_move_that_comes_too_early(vcenter: VSphere, store: Store, fault: str) -> None:
    """When the server is not done with the file yet, moving it is tried again."""
    vcenter.plan("MoveDatastoreFile_Task", f"task {fault}")
    assert store.get(add(store)).read() == LARGE


def test_an_object_in_use_is_not_deleted(vcenter: VSphere, store: Store) -> None:
    """A file that something else holds open is InUseByStore, and stays."""
    uri = add(store)
    vcenter.plan("DeleteDatastoreFile_Task", "task FileLocked")
    with pytest.raises(InUseByStore):
        store.delete(uri)
    assert store.get(uri).read() == LARGE


def test_a_task_without_end(vcenter: VSphere, make: Make) -> None:
    """A task that does not end is given up after its time, and nothing is left."""
    store = make(vmware_task_timeout=1)
    vcenter.plan("MoveDatastoreFile_Task", "task running")
    with pytest.raises(TimeoutError, match="vmware_task_timeout"):
        add(store)
    assert vcenter.files() == []


@pytest.mark.parametrize(
    "operation", ["WSDL", "Login", "RetrievePropertiesEx", "HEAD", "PUT", "MoveDatastoreFile_Task"]
)
def test_a_server_that_stalls(vcenter: VSphere, make: Make, operation: str) -> None:
    """Whichever request is never answered, it ends after the time for it, and nothing is left."""
    options = {"vmware_read_timeout": 0.5, "transfer_attempts": 1}
    if operation in ("WSDL", "Login"):
        vcenter.plan(operation, "stall", "stall")
        store = make(**options)
    else:
        store = make(**options)
        vcenter.plan(operation, "stall", "stall")
    with pytest.raises(RemoteServiceUnavailable, match="vmware_read_timeout"):
        add(store)
    assert vcenter.files() == []


def test_a_server_that_does_not_even_speak(make: Make) -> None:
    """A port that accepts and says nothing is given up after vmware_connect_timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = make(
            vmware_server_host=f"127.0.0.1:{silent.getsockname()[1]}",
            vmware_connect_timeout=0.3,
            transfer_attempts=1,
        )
        with pytest.raises(RemoteServiceUnavailable, match="vmware_connect_timeout"):
            add(store)
