"""Whole operations on servers of http, Swift and S3 that spoil one of their answers."""

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.drivers.s3.client import NONCE
from store_lib.drivers.s3.options import ATOMIC, CHECKED, LARGEST_PUT, LOOK
from store_lib.drivers.s3.writer import S3Writer
from store_lib.exceptions import Forbidden, StoreError
from tests.scripted_server import Reply, Request, serve
from tests.unit.drivers.s3.server import S3Server, Started
from tests.unit.drivers.swift.small_swift import MODIFIED, SmallSwift
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.hostile import KINDS, Server
from tests.unit.fuzz.mutation import Mutator

DATA = bytes(range(256)) * 20
NEW = DATA[:3000] * 2
_SMALL = 4096


class World:
    """A store on a server, and what is done with it: each method ``do_...`` is an operation.

    An answer that was cut is never believed, so an operation that says to have succeeded has to
    say what is true.  One that was altered may be taken for the truth where it could be that.
    """

    driver = ""

    def __init__(self) -> None:
        self.server = Server(self.answer)
        self.values: dict[str, Any] = {}
        #: Further sections of the configuration.
        self.sections: dict[str, dict[str, Any]] = {}
        self.cut = False

    def answer(self, request: Request) -> Reply:
        """Return what a good server says."""
        raise NotImplementedError

    def reset(self) -> None:
        """Make the state that each operation finds."""

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Have the store, and its server, for as long as operations are made."""
        self.folder = tempfile.mkdtemp(prefix="store_lib-fuzz-")
        try:
            with self.server.connected():
                self.server.plan(-1, "", 0)
                self.stores = self.opened()
                self.tuned(self.stores)
                for name in self.names:
                    self.run((name, -1, "", 1))  # on a good server each is as it is to be
                yield
                self.stores.close()
        finally:
            shutil.rmtree(self.folder)

    def opened(self) -> Stores:
        """Return new stores, which have not logged in yet."""
        return Stores.from_mapping(
            {
                **self.sections,
                "DEFAULT": {"enabled_backends": f"it:{self.driver}, disk:file"},
                "it": {"transfer_attempts": 3, **self.values},
                "disk": {
                    "filesystem_store_datadir": self.folder,
                    "filesystem_store_durable": False,
                },
            },
            strict=True,
        )

    def tuned(self, stores: Stores) -> None:
        """Set what no option sets."""

    @property
    def names(self) -> list[str]:
        """What can be done."""
        return [each.removeprefix("do_") for each in dir(self) if each.startswith("do_")]

    @property
    def store(self) -> Store:
        """The store."""
        return self.stores["it"]

    def run(self, given: tuple[str, int, str, int]) -> bool:
        """Make an operation while an answer is spoiled, and see what it says against the truth."""
        name, number, kind, seed = given
        self.cut = kind in ("cut", "none at all", "")
        self.server.plan(number, kind, seed)
        self.reset()
        try:
            getattr(self, f"do_{name}")()
        finally:
            self.server.check()
        return True

    def parser(self, name: str, share: float, why: str) -> Parser:
        """Return what feeds operations."""

        def make(mutator: Mutator) -> tuple[str, int, str, int]:
            number = mutator.below(2) if mutator.below(2) else mutator.below(8)
            return mutator.one(self.names), number, mutator.one(KINDS), mutator.below(1 << 32)

        return Parser(name, make, self.run, (StoreError,), share, why, self.there)

    def read(self, uri: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read, and see that as many bytes came as the reader said."""
        with self.store.get(uri, offset, length) as reader:
            data = bytes(reader.read())
            assert reader.length is None or len(data) == reader.length
        truth = DATA[offset:] if length is None else DATA[offset : offset + length]
        self.see(data, truth)
        return data

    def see(self, told: object, truth: object) -> None:
        """Assert that the results are true, unless a whole answer said otherwise."""
        if self.cut:
            assert told == truth, (str(told)[:200], str(truth)[:200])

    def see_size(self, uri: str) -> None:
        """Ask for a size."""
        size = self.store.stat(uri).size
        assert size is None or 0 <= size < 2**63
        if size is not None:
            self.see(size, len(DATA))

    def see_copy(self, uri: str) -> None:
        """Copy to the other store."""
        try:
            added = self.stores.copy(uri, "copy", store="it", to="disk")
            self.see((added.size, os.path.getsize(f"{self.folder}/copy")), (len(DATA),) * 2)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/copy")


class Web(World):
    """A web server."""

    driver = "http"

    def answer(self, request: Request) -> Reply:
        """Serve the object, in chunks or not, perhaps behind a redirect."""
        dates: dict[str, str | None] = {
            "Last-Modified": "Fri, 20 Nov 2026 16:30:27 GMT",
            "Date": "Fri, 20 Nov 2026 16:40:27 GMT",
        }
        if request.target == "/away":
            return Reply(302, headers={"Location": "/plain"})
        reply = serve(request, DATA, headers=dates, ranges=request.target != "/chunks")
        return dataclasses.replace(reply, chunked=1000 if request.target == "/chunks" else None)

    def _uri(self) -> str:
        return f"http://web.example/{('plain', 'chunks', 'away')[self.server.seed % 3]}"

    def do_get(self) -> None:
        self.read(self._uri())

    def do_get_range(self) -> None:
        self.read("http://web.example/plain", 1000, 2000)

    def do_get_end(self) -> None:
        self.read("http://web.example/away", 5000)

    def do_stat(self) -> None:
        self.see_size(self._uri())

    def do_copy(self) -> None:
        self.see_copy(self._uri())


class Swift(World):
    """A small Swift with the old login."""

    driver = "swift"
    login = "/auth/v1.0"

    def answer(self, request: Request) -> Reply:
        """Answer as Swift does."""
        return self.small.usual(request)

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        with SmallSwift() as self.small:
            self.small.server.url = "http://swift.example"
            self.small.date = "Fri, 20 Nov 2026 18:30:27 GMT"
            self.values = self.small.options()
            with super().there():
                yield

    def tuned(self, stores: Stores) -> None:
        driver: Any = stores["it"].driver
        driver._layout = dataclasses.replace(driver._layout, cut_from=_SMALL, segment=_SMALL)

    def reset(self) -> None:
        small = self.small
        small.objects = {
            "glance/id": (DATA, {"etag": "x"}),
            "glance/.segments/left/" + "0" * 32 + "/00000001": (b"x", {}),
            "glance/s-00001": (DATA[:3000], {}),
            "glance/s-00002": (DATA[3000:], {}),
            "glance/static": (b"", {"x-static-large-object": "True"}),
            "glance/dynamic": (b"", {"x-object-manifest": "glance/s-"}),
        }
        small.manifests = {"glance/static": ["glance/s-00001", "glance/s-00002"]}
        small.containers = {"glance"}
        small.modified = MODIFIED
        del small.server.requests[:]

    def _uri(self) -> str:
        name = ("id", "static", "dynamic")[self.server.seed % 3]
        return f"swift+config://ref1/glance/{name}"

    def do_get(self) -> None:
        self.read(self._uri())

    def do_get_range(self) -> None:
        self.read(self._uri(), 2900, 200)

    def do_stat(self) -> None:
        self.see_size(self._uri())

    def do_copy(self) -> None:
        self.see_copy(self._uri())

    def do_list(self) -> None:
        told = {each.object_id: each.size for each in self.store.list()}
        assert all(size is None or 0 <= size < 2**63 for size in told.values())
        if None not in told.values():
            self.see(told, {"id": 5120, "static": 5120, "dynamic": 5120})

    def do_incomplete(self) -> None:
        self.see([each.object_id for each in self.store.list_incomplete()], ["left"])

    def do_sweep(self) -> None:
        self.store.sweep(0)
        self.see([each for each in self.small.names if ".segments" in each], [])
        assert {"glance/id", "glance/s-00001", "glance/static"} <= set(self.small.names)

    def do_add(self) -> None:
        added = self.store.add("new", [NEW], None if self.server.seed % 2 else len(NEW))
        assert added.size == len(NEW)
        found = b"".join(each or b"" for each in self.small._pieces("glance/new"))
        self.see(found, NEW)

    def do_delete(self) -> None:
        uri = self._uri()
        self.store.delete(uri)
        self.see(uri.rpartition("/")[2] in str(self.small.names), False)
        assert "glance/id" in self.small.names or uri.endswith("/id")

    def do_log_in(self) -> None:
        stores = self.opened()
        try:
            stores.stat("swift+config://ref1/glance/id")
        finally:
            stores.close()


class S3(World):
    """An S3 server in memory."""

    driver = "s3"

    def __init__(self) -> None:
        super().__init__()
        self.inside = S3Server(SimpleNamespace(handler=None, requests=[]))  # type: ignore[arg-type]
        self.values = {
            "s3_store_host": "http://s3.example",
            "s3_store_access_key": "access-key",
            "s3_store_secret_key": "secret-key",
            "s3_store_bucket": "box",
            "s3_store_thread_pools": 2,
        }

    def answer(self, request: Request) -> Reply:
        """Answer as S3 does."""
        return self.inside.handle(request)

    def tuned(self, stores: Stores) -> None:
        driver: Any = stores["it"].driver
        driver._settings = dataclasses.replace(driver._settings, large=_SMALL, part=_SMALL)

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Have copies made in small parts."""
        with pytest.MonkeyPatch.context() as self.patch:
            self.patch.setattr(S3Writer, "copy_part", _SMALL)
            with super().there():
                yield

    def reset(self) -> None:
        self.inside.reset()
        self.inside.twin = "twin"
        self.inside.decides = {"put", "copy", "complete"}
        # Whatever the store relies on, and found out by then; and copies in parts as well.
        driver: Any = self.stores["it"].driver
        driver._proof.mode = (CHECKED, ATOMIC, LOOK)[self.server.seed % 3]
        driver._proof._passed.clear()
        self.patch.setattr(S3Writer, "copy_limit", (_SMALL, LARGEST_PUT)[self.server.seed % 2])
        for name in ("id", "other"):
            self.inside.store(name, DATA)
        self.inside.uploads["upload-9"] = Started("left", parts={1: b"x"})

    URI = "s3://s3.example/box/id"

    def do_get(self) -> None:
        self.read(self.URI)

    def do_get_range(self) -> None:
        self.read(self.URI, 1000, 2000)

    def do_stat(self) -> None:
        self.see_size(self.URI)

    def do_copy(self) -> None:
        self.see_copy(self.URI)

    def do_copy_there(self) -> None:
        self.store.copy(self.URI, "twin")
        self.see(self.inside.objects["twin"].data, DATA)

    def do_list(self) -> None:
        told = {each.object_id: each.size for each in self.store.list()}
        self.see(told, {"id": len(DATA), "other": len(DATA)})

    def do_incomplete(self) -> None:
        self.see([each.object_id for each in self.store.list_incomplete()], ["left"])

    def do_sweep(self) -> None:
        self.store.sweep(0)
        self.see(list(self.inside.uploads), [])
        assert {"id", "other"} <= set(self.inside.objects)

    def do_add(self) -> None:
        size = (None, len(NEW), 10)[self.server.seed % 3]
        data = NEW[:size]
        assert self.store.add("new", [data], size).size == len(data)
        self.see(self.inside.objects["new"].data, data)

    def do_delete_elsewhere(self) -> None:
        self.inside.store("new", NEW, {NONCE: "0" * 32})
        with contextlib.suppress(Forbidden):  # an answer that was spoiled may show no mark
            self.store.delete(self.URI.replace("/box/id", "/twin/new"))
            self.see("new" in self.inside.objects, False)
        assert {"id", "other"} <= set(self.inside.objects)

    def do_delete(self) -> None:
        self.store.delete(self.URI)
        self.see("id" in self.inside.objects, False)
        assert "other" in self.inside.objects


pytestmark = pytest.mark.deep("fuzz", always=True)

_WHY = "each is a whole operation of several requests"

PARSERS = [
    Web().parser("operations on a web server", 0.05, _WHY),
    Swift().parser("operations on Swift", 0.02, _WHY),
    S3().parser("operations on S3", 0.02, _WHY),
]


def test_operations(parser: Parser, batches: range, record_property: Any) -> None:
    """An operation tells the truth or one of the library's errors, soon, and leaves nothing."""
    feed(parser, batches, record_property)
