"""What operators write: configuration files, references to accounts, metadata, lists of places."""

import functools
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from store_lib.config import Configuration
from store_lib.drivers.filesystem import FilesystemDriver
from store_lib.drivers.filesystem.options import MountMetadata, data_directories, permissions
from store_lib.drivers.http.options import parse_proxy
from store_lib.drivers.swift import SwiftDriver
from store_lib.drivers.swift.references import load
from store_lib.drivers.vmware.options import parse_datastores, parse_directory
from store_lib.drivers.vmware.soap import wsdl_url
from store_lib.exceptions import BadStoreConfiguration
from store_lib.options import StoreOptions
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.mutation import CANARY, Mutator
from tests.unit.fuzz.test_uris import shows_no_secret

_REFERENCES = f"""
[DEFAULT]
auth_version = 3
[ref1]
user = service:swift
key = {CANARY}
auth_address = https://auth.example:5000/v3
[ref2]
auth_version = 1
user = test:tester
key = '{CANARY}'
auth_address = http://127.0.0.1/auth/v1.0
# a comment
"""
_CONFIG = f"""
[DEFAULT]
enabled_backends = fast:file, slow:swift
state_path = /var/lib
[glance_store]
default_backend = fast
transfer_memory_limit = 64
[fast]
filesystem_store_datadir = $state_path/images
weight = 5
[slow]
swift_store_key = {CANARY}
swift_store_user = a:b
transfer_stall_timeout = 30
"""
_PIECES = [
    *(
        "[",
        "]",
        "=",
        ":",
        "$",
        "${key}",
        "%(key)s",
        "%",
        "\n ",
        "\n[ref1]\n",
        "key = ",
        CANARY,
        "#",
    ),
    *("enabled_backends = x:y", "\n=\n", "[DEFAULT]", "\n\n", "user", "'", '"', "\t"),
]


def _written(data: bytes) -> str:
    """Return the path of a file with this in it, in memory where there is a place for that."""
    shared = Path("/dev/shm")
    folder = shared if shared.is_dir() else Path(tempfile.gettempdir())
    path = folder / f"store_lib-fuzz-{os.getpid()}"
    path.write_bytes(data)
    return str(path)


def _references(data: bytes) -> bool:
    options = StoreOptions.of(
        SwiftDriver.options,
        swift_store_config_file=_written(data),
        default_swift_reference="ref1",
    )
    try:
        found = load(options, SwiftDriver("store", options).misconfigured)
        for name in found.accounts:
            account = found.accounts[name]
            if isinstance(account, BadStoreConfiguration):
                raise account
            assert "password" not in repr(account)
        found.matching("http://127.0.0.1/auth", "test:tester")
    except BadStoreConfiguration as error:
        _hides(str(error), data)
        raise
    finally:
        os.unlink(_written(b""))
    return bool(found.accounts)


def _hides(said: str, data: bytes) -> None:
    """Assert that a message has no secret in it, unless that was written as something else."""
    text = data.decode("latin-1")
    if not re.search(rf"\[[^]\n]*{CANARY}|auth_[^\n]*{CANARY}|%\(key", text):
        assert CANARY not in said, said


def _configuration(data: bytes) -> bool:
    try:
        found = Configuration(files=[_written(data)])
        sections = found.sections()
        for each in sections:
            options = found.options(each.section, SwiftDriver.options)
            assert CANARY not in repr(options)
    finally:
        os.unlink(_written(b""))
    return bool(sections)


_misconfigured = FilesystemDriver("store", StoreOptions.of(FilesystemDriver.options)).misconfigured

_METADATA = [
    json.dumps([{"id": "a", "mountpoint": "/mnt/a", "more": ["x", {"y": "z"}]}]),
    json.dumps({"id": "b", "mountpoint": "/"}),
]


def _metadata(data: bytes) -> bool:
    options = StoreOptions.of(
        FilesystemDriver.options, filesystem_store_metadata_file=_written(data)
    )
    try:
        found = MountMetadata(options, _misconfigured)
    finally:
        os.unlink(_written(b""))
    for path in ("/mnt/a/x", "/mnt/ab", "/x"):
        given = found.of(path)
        above = os.path.normpath("/" + given.get("mountpoint", "").lstrip("/"))
        assert not given or f"{path}/".startswith(f"{above.rstrip('/')}/")
    return bool(found)


def _directories(given: tuple[list[str], int]) -> bool:
    entries, mode = given
    options = StoreOptions.of(
        FilesystemDriver.options,
        filesystem_store_datadirs=entries,
        filesystem_store_file_perm=mode,
    )
    found = data_directories(options, _misconfigured)
    assert all(each.real.startswith("/") for each in found)
    assert len({each.real for each in found}) == len(found)
    bits = permissions(options, "filesystem_store_file_perm", 0o400, _misconfigured)
    assert bits is None or 0o400 <= bits <= 0o7777
    return True


def _some_directories(mutator: Mutator) -> tuple[list[str], int]:
    corpus = ["/a/b:5", "/c", "/d/../e:-1", "/f:g:0"]
    entries = [mutator.text(corpus, [":", "/", "..", ":9"]) for _ in range(1 + mutator.below(3))]
    return entries, mutator.one([0, 640, 999, -1, 10**9, 4755, 77777])


def _datastores(entries: list[str]) -> bool:
    found = parse_datastores(entries)
    assert all(each.datacenter.strip("/") and each.name for each in found)
    return True


def _some_datastores(mutator: Mutator) -> list[str]:
    corpus = ["ha-datacenter:datastore1:100", "dc/a\\:b:ds", "dc:d\\\\s:-5"]
    return [mutator.text(corpus, [":", "\\", "\\:"]) for _ in range(1 + mutator.below(2))]


_PROXIES = [f"http://user:{CANARY}@proxy.example:3128", "proxy:80", "https://[::1]:1/"]


def _proxy(text: str) -> bool:
    try:
        found = parse_proxy(text)
    except ValueError as error:
        shows_no_secret(text if "://" in text else f"http://{text}", str(error))
        raise
    assert "@" not in found.url
    return True


def _folders(text: str) -> bool:
    assert not {"", ".", ".."} & set(parse_directory(text).split("/"))
    return True


def _description(location: str) -> bool:
    return bool(wsdl_url(location))


def _data(corpus: list[str]) -> Any:
    return functools.partial(
        Mutator.data, corpus=[each.encode() for each in corpus], pieces=_PIECES
    )


_SLOW = "oslo.config takes milliseconds to read a file"

pytestmark = pytest.mark.deep("fuzz", always=True)

PARSERS = [
    Parser("accounts of Swift", _data([_REFERENCES]), _references, (BadStoreConfiguration,), 0.25),
    Parser(
        "configuration files",
        _data([_CONFIG]),
        _configuration,
        (BadStoreConfiguration,),
        share=0.005,
        why=_SLOW,
    ),
    Parser("metadata of mounts", _data(_METADATA), _metadata, (BadStoreConfiguration,), 0.5),
    Parser("data directories", _some_directories, _directories, (BadStoreConfiguration,)),
    Parser("proxies", functools.partial(Mutator.text, corpus=_PROXIES), _proxy, (ValueError,)),
    Parser("datastores", _some_datastores, _datastores, (ValueError,)),
    Parser(
        "directories on datastores",
        functools.partial(Mutator.text, corpus=["/openstack_glance", "a/b c"]),
        _folders,
        (ValueError,),
    ),
    Parser(
        "places of the vSphere API's description",
        functools.partial(Mutator.text, corpus=["/a/vim.wsdl", "file:///a%20b", "file://[::1]/a"]),
        _description,
        (ValueError,),
    ),
]


def test_configs(parser: Parser, batches: range, record_property: Any) -> None:
    """A configuration is understood, or refused with the reason and without a secret."""
    feed(parser, batches, record_property)
