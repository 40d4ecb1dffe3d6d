"""URIs of every kind of store, and the texts that credentials are taken out of."""

import contextlib
import functools
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from store_lib import Stores
from store_lib.drivers.cinder.location import CinderLocation
from store_lib.drivers.filesystem.location import FileLocation
from store_lib.drivers.http.location import HttpLocation
from store_lib.drivers.rbd.location import RbdLocation
from store_lib.drivers.s3.location import S3Location
from store_lib.drivers.swift.location import SwiftLocation
from store_lib.drivers.vmware.location import VmwareLocation
from store_lib.exceptions import BadStoreUri, StoreError
from store_lib.location import Location, scheme_of
from store_lib.redaction import hide, redact, redact_uri
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.mutation import CANARY, Mutator

_UUID = "b1f8a2b4-5c2e-4f1e-9d5a-1c2d3e4f5a6b"
CORPUS: dict[type[Location], list[str]] = {
    FileLocation: ["file:///var/lib/glance/images/a", "filesystem:///a/b%20c?d#e", "file:///é/ü"],
    HttpLocation: [
        f"http://user:{CANARY}@host.example:8080/path/a%20b?sig={CANARY}&x=1",
        "https://[::1]:8443/a/b?c=d",
        "http://10.0.0.1",
    ],
    S3Location: [
        f"s3://AKIA:{CANARY}@s3.example.com:9000/bucket/key",
        f"s3+https://AK/IA+:{CANARY}@host/path/bucket/key",
        "s3+http://host/bucket/b1f8a2b4",
    ],
    SwiftLocation: [
        "swift+config://ref1/container/object",
        "swift+https://host:8080/v1/AUTH_x/container/a%2Fb",
        f"swift+http://project%3Auser:{CANARY}@auth.example/v1.0/container/object",
        f"swift://tenant:user:{CANARY}@host/v3/glance/{_UUID}",
    ],
    CinderLocation: [f"cinder://{_UUID}", f"cinder://fast-1/{_UUID}"],
    RbdLocation: [f"rbd://{_UUID}/images/a%2Fb/snap", "rbd://image-name_1"],
    VmwareLocation: [
        f"vsphere://vc.example/folder/openstack_glance/{_UUID}?dcPath=ha-datacenter&dsName=ds%201",
        "vsphere://[::1]:8443/folder/a/b/c?dcPath=%2Fdc%2Fx&dsName=d+s",
    ],
}
_ALL = [each for texts in CORPUS.values() for each in texts]
_PIECES = [
    *("://", "user:pw@", "@", "/", "?", "#", "%2F", "%40", "%00", ":8080", ":0", ":99999", "[::1]"),
    *("s3://", "file://", "swift+https://", "http://", "..", "/../", ".segments/x", CANARY, "key="),
    *("snap", "dcPath=", "dsName=", "&", "HTTP", "SWIFT", "\\", " ", "xn--"),
]


def shows_no_secret(text: str, shown: str) -> None:
    """Assert that what may be a login is not shown: in any word, up to its last ``@``.

    A text that begins as a URI is one, and may have blanks in it.  A ``file`` URI has no login.
    """
    scheme, mark, _ = text.partition("://")
    whole = bool(mark) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) is not None
    for word in [text] if whole else text.split():
        if "file" not in word.lower():
            start = word.find("://") if "://" in word else word.find(":")
            hidden = word[start : word.rfind("@") + 1].count(CANARY) if start >= 0 else 0
            assert not hidden or shown.count(CANARY) <= text.count(CANARY) - hidden, (text, shown)


def _login(found: Location, uri: str) -> str:
    """Return the login in a URI that was accepted, by the rules of its kind."""
    rest = uri.partition("://")[2]
    if isinstance(found, HttpLocation):
        return re.split("[/?]", rest, maxsplit=1)[0].rpartition("@")[0]
    if isinstance(found, S3Location | SwiftLocation):
        return rest.rsplit("/", 2)[0].rpartition("@")[0]
    return ""


def _parse(kind: type[Location], uri: str) -> bool:
    try:
        found = kind.parse(uri)
    except BadStoreUri as error:
        shows_no_secret(uri, str(error))
        raise
    again = kind.parse(found.uri)
    assert again.uri == found.uri
    assert again == found
    assert hash(again) == hash(found)
    secrets = _login(found, uri).count(CANARY)
    for shown in (str(found), repr(found), str(getattr(found, "shown", ""))):
        others = max(uri.count(CANARY), unquote(uri).count(CANARY)) - secrets
        assert not secrets or shown.count(CANARY) <= others, (uri, shown)
    if isinstance(found, S3Location | SwiftLocation):
        parts = [found.bucket] if isinstance(found, S3Location) else [found.container]
        assert all("/" not in each for each in parts)
    if isinstance(found, SwiftLocation):
        assert not {".", ".."} & set(f"{found.container}/{found.name}".split("/"))
    if isinstance(found, VmwareLocation):
        assert not {"", ".", ".."} & set(f"{found.directory}/{found.name}".split("/"))
    return True


def _scheme(uri: str) -> bool:
    assert scheme_of(uri) == uri.partition("://")[0].lower()
    return True


def _redact(text: str) -> bool:
    for cut in (False, True):
        shown = redact(text, cut=cut)
        shows_no_secret(text, shown)
        assert len(shown) <= 8 * len(text) + 8
    shows_no_secret(text, redact_uri(text))
    return CANARY in text


_PAGES = [
    f"<p>X-Auth-Token: {CANARY}</p>",
    f'{{"headers": {{"Authorization": "Bearer {CANARY}", "x": 1}}}}',
    f"GET /a?sig={CANARY}&b=1 HTTP/1.1\r\nCookie: a={CANARY}\r\n\r\n",
    f"nothing to see: http://u:{CANARY}@host/a?token={CANARY}#x",
]
_SECRETS = [CANARY, f'{CANARY}"<&\\', f"ü{CANARY} /", "abc", "", "aaaa", "\ud800xyz"]


def _hide(given: tuple[str, list[str], bool]) -> bool:
    text, secrets, cut = given
    shown = hide(text, secrets, cut=cut)
    assert not any(each in shown for each in secrets if len(each) >= 4 and each not in "****")
    return True


def _page(mutator: Mutator) -> tuple[str, list[str], bool]:
    secrets = [mutator.one(_SECRETS) for _ in range(mutator.below(3))]
    return mutator.text(_PAGES, _SECRETS), secrets, mutator.below(2) == 0


class Disk:
    """A store on a directory that has ways out of it."""

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Make the directory and the store."""
        with tempfile.TemporaryDirectory(prefix="store_lib-fuzz-") as folder:
            root = Path(folder).resolve()
            (root / "store/sub").mkdir(parents=True)
            (root / "other").mkdir()
            for path in ("store/a", "store/sub/a"):
                (root / path).write_bytes(b"inside")
            for path in ("secret", "other/a"):
                (root / path).write_bytes(b"out")
            (root / "store/link").symlink_to("../secret")
            (root / "store/way").symlink_to("..")
            (root / "store/sub/way").symlink_to("../../other")
            values = {
                "DEFAULT": {"enabled_backends": "disk:file"},
                "disk": {"filesystem_store_datadir": str(root / "store")},
            }
            self.root = str(root)
            with Stores.from_mapping(values, strict=True) as self.stores:
                yield

    def make(self, mutator: Mutator) -> str:
        """Return a URI of something in the directory, or near it."""
        paths = ["a", "sub/a", "link", "way/secret", "../secret", "sub/way/a", "./a", "sub/../a"]
        corpus = [f"file://{self.root}/store/{each}" for each in paths]
        return mutator.text(corpus, [*paths, self.root, "store"])

    def look(self, uri: str) -> bool:
        """Look at what is there, which is to lie within the store."""
        assert self.stores.stat(uri).size == len("inside"), "a file outside of the store"
        return True


def _kind(kind: type[Location]) -> Parser:
    make: Callable[[Mutator], str] = functools.partial(
        Mutator.text, corpus=[*CORPUS[kind] * 4, *_ALL], pieces=_PIECES
    )
    name = kind.__name__.removesuffix("Location").lower()
    return Parser(f"{name} URIs", make, functools.partial(_parse, kind), (BadStoreUri,))


pytestmark = pytest.mark.deep("fuzz", always=True)

_DISK = Disk()

PARSERS = [
    *(_kind(each) for each in CORPUS),
    Parser(
        "schemes of URIs",
        functools.partial(Mutator.text, corpus=_ALL, pieces=_PIECES),
        _scheme,
        (BadStoreUri,),
    ),
    Parser(
        "redaction of URIs",
        functools.partial(Mutator.text, corpus=[*_ALL, *_PAGES], pieces=_PIECES),
        _redact,
    ),
    Parser("redaction of pages", _page, _hide),
    Parser("file URIs in a store", _DISK.make, _DISK.look, (StoreError,), around=_DISK.there),
]


def test_uris(parser: Parser, batches: range, record_property: Any) -> None:
    """A URI is understood whole or refused, shows no secret, and leads nowhere else."""
    feed(parser, batches, record_property)
