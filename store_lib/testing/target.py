"""Target: the store under test as a check sees it, with object ids, assertions and clean-up."""

import contextlib
import gc
import operator
import os
import pathlib
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from store_lib import AddResult, CreateOnly, Incomplete, ObjectReader, Store, Stores
from store_lib.exceptions import NotFound, StoreError
from store_lib.testing.children import Child
from store_lib.testing.content import Content, FileContent
from store_lib.testing.expect import expect, expect_bytes, expect_equal, raises
from store_lib.testing.pace import Deadline
from store_lib.testing.profile import Profile, Settings

_Case = TypeVar("_Case")


class Target:
    """The store under test for the duration of a check.

    :meth:`finish` removes whatever the check added through :meth:`add` or under an id from
    :meth:`new_id`, and fails if anything else was left behind.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.random = random.Random(profile.settings.store_id)
        self._own: Stores | None = None
        self._open: list[Stores] = []
        self._ids: list[str] = []
        self._worker_ids: set[str] = set()
        self._uris: dict[str, None] = {}
        self._directory: pathlib.Path | None = None
        self._existing_uploads = {upload.key for upload in self.incomplete_uploads()}
        self._inventory = profile.inventory()

    # What is under test

    @property
    def settings(self) -> Settings:
        """The settings of the suite."""
        return self.profile.settings

    @property
    def store_id(self) -> str:
        """The id of the store under test."""
        return self.settings.store_id

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that the store claims."""
        return self.profile.capabilities

    @property
    def create_only(self) -> CreateOnly:
        """The guarantee that the store claims for two adds of the same id."""
        return self.profile.create_only

    @property
    def chunk_size(self) -> int:
        """Size in bytes of the chunks that the engine passes to the driver."""
        return self.profile.chunk_size

    @property
    def stores(self) -> Stores:
        """The check's own Stores object, closed at its end."""
        if self._own is None:
            self._own = self.open()
        return self._own

    @property
    def store(self) -> Store:
        """The store under test, of :attr:`stores`."""
        return self.stores[self.store_id]

    def open(self) -> Stores:
        """Return another Stores object, closed at the end of the check."""
        stores = self.settings.open()
        self._open.append(stores)
        return stores

    def has_time_for(self, number: int) -> bool:
        """Return whether ``number`` small adds take less than a third of the check's time limit."""
        return number * self.profile.cycle_time < self.settings.check_timeout / 3

    def subset(self, cases: Sequence[_Case], number: int) -> Sequence[_Case]:
        """Return all cases, or in the short profile only ``number`` of them, evenly spaced.

        The first and the last case are always included, so they should be the important ones.
        """
        if not self.settings.short or len(cases) <= number:
            return cases
        return [cases[index * (len(cases) - 1) // (number - 1)] for index in range(number)]

    def rotate(self, variants: Sequence[_Case], number: int, cases: int) -> Sequence[_Case]:
        """Return the variants to try in case ``number`` of ``cases``; each takes an add.

        These are all variants.  In the short profile, and if the store is too slow for that, it is
        a single one, another in each case.
        """
        if self.settings.short or not self.has_time_for(cases * len(variants)):
            return (variants[number % len(variants)],)
        return variants

    @property
    def directory(self) -> pathlib.Path:
        """A directory for files, removed at the end of the check."""
        if self._directory is None:
            self._directory = pathlib.Path(tempfile.mkdtemp(prefix="store-lib-conformance-"))
        return self._directory

    def child(self, action: str, *, extra_configs: Sequence[str] = (), **spec: Any) -> Child:
        """Start a process that acts on the same store; see :mod:`.worker`.

        :param extra_configs: additional configuration files
        """
        configs = (*self.settings.configs, *extra_configs)
        context = self.settings.context
        return Child(configs, self.store_id, action, from_context=context, **spec)

    # Objects

    def new_id(self, *, for_worker: bool = False) -> str:
        """Return an unused object id.

        :param for_worker: another process adds the object, perhaps without reporting it
        """
        object_id = str(uuid.uuid4())
        self._ids.append(object_id)
        if for_worker:
            self._worker_ids.add(object_id)
        return object_id

    def track_id(self, object_id: str) -> str:
        """Register an id whose objects are removed at the end of the check; return it."""
        self._ids.append(object_id)
        return object_id

    def track_uri(self, uri: str) -> str:
        """Remove this object at the end of the check; return the URI."""
        self._uris[uri] = None
        return uri

    def add(self, data: Any, object_id: str | None = None, **options: Any) -> AddResult:
        """Add ``data``, Content or any source, under the given id or a new one."""
        if object_id is None:
            object_id = self.new_id()
        store: Store = options.pop("through", None) or self.store
        size = options.pop("size", data.size if isinstance(data, Content) else None)
        source = data.chunks() if isinstance(data, Content) else data
        result = store.add(object_id, source, size, **options)
        self.track_uri(result.uri)
        return result

    def sample(self, size: int | None = None) -> tuple[str, Content | FileContent]:
        """Return the URI and the content of an object: a new one, or that of a read-only store.

        :param size: size in bytes of a new object, by default a little more than two chunks
        """
        if self.profile.known is not None:
            assert self.settings.known_uri is not None
            return self.settings.known_uri, self.profile.known
        content = Content(2 * self.chunk_size + 7 if size is None else size, seed=5)
        return self.add(content).uri, content

    def expect_content(
        self, uri: str, content: Content | FileContent, what: str, store: Store | None = None
    ) -> None:
        """Fail unless stat and get of the object give exactly this content."""
        store = store or self.store
        # Only a web server may not know the size.
        sizes = (content.size,) if "add" in self.capabilities else (content.size, None)
        size = store.stat(uri).size
        expect(size in sizes, f"{what}: expected stat to return {content.size} bytes, got {size}")
        with store.get(uri) as reader:
            expect(
                reader.size in sizes,
                f"{what}: expected a reader of {content.size} bytes, got {reader.size}",
            )
            self.expect_reads(reader, content, what)

    def expect_reads(
        self, reader: ObjectReader, content: Content | FileContent, what: str, offset: int = 0
    ) -> None:
        """Fail unless ``reader`` gives the bytes of ``content`` from ``offset`` to the end."""
        for chunk in reader:
            expect_bytes(
                bytes(chunk), content.slice(offset, len(chunk)), f"{what}, from byte {offset} on"
            )
            offset += len(chunk)
        expect_equal(offset, content.size, f"{what}: bytes up to the end of the object")

    def expect_absent(self, object_id: str, what: str) -> None:
        """Fail if an object or an incomplete upload with this id is found."""
        uri = self.profile.uri_of(object_id)
        if uri is not None:
            with raises(NotFound, doing=f"{what}: stat of an object that must not exist"):
                self.store.stat(uri)
            with (
                raises(NotFound, doing=f"{what}: get of an object that must not exist"),
                self.store.get(uri),
            ):
                pass
        self.eventually_none(lambda: self.listed(object_id), f"{what}: listed objects with this id")
        self.expect_no_upload(object_id, what)

    def expect_not_added(self, object_id: str, what: str) -> None:
        """Fail if anything with this id is found, or if it cannot be added again."""
        self.expect_absent(object_id, what)
        content = Content(1000, seed=77)
        uri = self.add(content, object_id).uri
        self.expect_content(uri, content, f"{what}: a new add of the same id")

    def listing(self) -> dict[str, list[str]]:
        """Return the URIs that the store lists by object id, empty if it cannot list."""
        uris: dict[str, list[str]] = {}
        if "list" in self.capabilities:
            for entry in self.store.list():
                uris.setdefault(entry.object_id, []).append(entry.location.uri)
        return uris

    def listed(self, object_id: str) -> list[str]:
        """Return the listed URIs of an object id, empty if the store cannot list."""
        return self.listing().get(object_id, [])

    def incomplete_uploads(self) -> list[Incomplete]:
        """Return the store's incomplete uploads, empty if it cannot list them."""
        if "list_incomplete" not in self.capabilities:
            return []
        return list(self.store.list_incomplete())

    def uploads_of(self, *object_ids: str, or_unknown: bool = False) -> list[str]:
        """Return the keys of the incomplete uploads of some object ids.

        :param or_unknown: include new uploads whose object id the store does not know
        """
        return [
            upload.key
            for upload in self.incomplete_uploads()
            if upload.object_id in object_ids
            or (or_unknown and upload.object_id is None and self.is_new(upload))
        ]

    def expect_no_upload(self, object_id: str, what: str) -> None:
        """Fail if an incomplete upload with this id remains."""
        self.eventually_none(
            lambda: self.uploads_of(object_id), f"{what}: incomplete uploads with this id"
        )

    def is_new(self, incomplete: Incomplete) -> bool:
        """Return whether an upload was begun during the check, or has one of its object ids."""
        return incomplete.key not in self._existing_uploads or incomplete.object_id in self._ids

    def eventually(
        self, probe: Callable[[], object], what: str, patience: float | None = None
    ) -> None:
        """Fail unless ``probe`` returns a true value within a time.

        :param patience: seconds; ``None`` takes those of the settings
        """
        patience = self.settings.patience if patience is None else patience
        self._wait(probe, bool, f"{what}: expected within {patience:g} s, got", patience)

    def eventually_none(
        self, probe: Callable[[], object], what: str, patience: float | None = None
    ) -> None:
        """Fail unless ``probe`` returns a false value within a time, as :meth:`eventually`."""
        patience = self.settings.patience if patience is None else patience
        done = operator.not_
        self._wait(probe, done, f"{what}: expected none within {patience:g} s, got", patience)

    def _wait(
        self,
        probe: Callable[[], object],
        done: Callable[[object], bool],
        what: str,
        patience: float,
    ) -> None:
        deadline = Deadline(patience)
        pause = 0.001
        while not done(seen := probe()):
            expect(not deadline.passed, f"{what} {seen!r}")
            time.sleep(pause)
            pause = min(2 * pause, 0.5)

    # The end

    def finish(self) -> None:
        """Remove the check's objects and close its stores; fail if anything is left behind."""
        try:
            self._close()
            if "add" in self.capabilities:
                self._remove()
        finally:
            self._close()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)

    def _close(self) -> None:
        self._own = None
        while self._open:
            self._open.pop().close()
        gc.collect()  # readers and generators that the check dropped

    def _remove(self) -> None:
        problems: list[str] = []
        for uri in self._uris:
            self._delete(uri)
        listing = self.listing()
        for object_id in dict.fromkeys(self._ids):
            guessed = self.profile.uri_of(object_id)
            listed = listing.get(object_id, ())
            for uri in dict.fromkeys([*([guessed] if guessed else []), *listed]):
                gone = uri in self._uris or not self._delete(uri)
                if not gone and object_id not in self._worker_ids:
                    problems.append(f"object {object_id}, whose add did not succeed")
        problems += self._discard(
            upload
            for upload in self.incomplete_uploads()
            if self.is_new(upload) and (upload.object_id is None or upload.object_id in self._ids)
        )
        if problems:
            raise AssertionError(f"Expected nothing left behind, got: {'; '.join(problems)}")
        if "delete" in self.capabilities:
            self.eventually_none(
                lambda: sorted(self.profile.inventory() - self._inventory),
                "left in the backend (--store-inventory) but not in any listing of the store",
            )

    def _delete(self, uri: str) -> bool:
        """Delete an object and return whether it existed."""
        try:
            if "delete" not in self.capabilities:
                self.store.stat(uri)
            else:
                self.store.delete(uri)
        except NotFound:
            return False
        return True

    def _discard(self, incomplete: Iterable[Incomplete]) -> list[str]:
        problems = []
        for upload in incomplete:
            problems.append(f"incomplete upload {upload.key} of {upload.object_id}")
            driver = self.store.driver
            if "discard" in self.capabilities and driver is not None:
                with contextlib.suppress(StoreError):
                    driver.discard(upload, context=self.store.make_context())
        return problems


def has_proc() -> bool:
    """Return whether the system reports the memory of processes under /proc."""
    return os.path.exists("/proc/self/status")
