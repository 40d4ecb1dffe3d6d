"""What a check is handed: the store under test, fresh names, and a tidy end."""

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
    """The store under test for the time of one check.

    Whatever a check makes through :meth:`add`, or under a name from :meth:`new_id`, is removed
    by :meth:`finish`, which fails when something else was left behind.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.random = random.Random(profile.settings.store_id)
        self._own: Stores | None = None
        self._open: list[Stores] = []
        self._ids: list[str] = []
        self._lent: set[str] = set()
        self._uris: dict[str, None] = {}
        self._directory: pathlib.Path | None = None
        self._strangers = {each.key for each in self.leftovers()}
        self._inventory = profile.inventory()

    # What is under test

    @property
    def settings(self) -> Settings:
        """What the kit was told."""
        return self.profile.settings

    @property
    def store_id(self) -> str:
        """The id of the store under test."""
        return self.settings.store_id

    @property
    def capabilities(self) -> frozenset[str]:
        """What the store claims to be able to do."""
        return self.profile.capabilities

    @property
    def create_only(self) -> CreateOnly:
        """What the store claims of two adds of one id."""
        return self.profile.create_only

    @property
    def chunk_size(self) -> int:
        """Bytes of the chunks that the engine hands to the driver."""
        return self.profile.chunk_size

    @property
    def stores(self) -> Stores:
        """A set of stores of this check's own; closed at its end."""
        if self._own is None:
            self._own = self.open()
        return self._own

    @property
    def store(self) -> Store:
        """The store under test, in :attr:`stores`."""
        return self.stores[self.store_id]

    def open(self) -> Stores:
        """Return one more set of stores; closed at the check's end."""
        stores = self.settings.open()
        self._open.append(stores)
        return stores

    def affords(self, number: int) -> bool:
        """Tell whether ``number`` small adds leave a slow store most of the check's time."""
        return number * self.profile.pace < self.settings.check_timeout / 3

    def some(self, of: Sequence[_Case], number: int) -> Sequence[_Case]:
        """Return all cases, or in the short profile ``number`` of them, spread over the whole.

        The first and the last one are always there, so they should be the telling ones.
        """
        if not self.settings.short or len(of) <= number:
            return of
        return [of[place * (len(of) - 1) // (number - 1)] for place in range(number)]

    def in_turn(self, of: Sequence[_Case], number: int, cases: int) -> Sequence[_Case]:
        """Return what to try in case ``number`` of ``cases``, each of which takes an add.

        That is all of them; one, each in its turn, in the short profile and where the store is too
        slow for all of them in every case.
        """
        if self.settings.short or not self.affords(cases * len(of)):
            return (of[number % len(of)],)
        return of

    @property
    def directory(self) -> pathlib.Path:
        """A directory for files; removed at the check's end."""
        if self._directory is None:
            self._directory = pathlib.Path(tempfile.mkdtemp(prefix="store-lib-conformance-"))
        return self._directory

    def child(self, action: str, **spec: Any) -> Child:
        """Return a fresh process at work on the same store; see :mod:`.worker`."""
        return self.child_with((), action, **spec)

    def child_with(self, configs: Sequence[str], action: str, **spec: Any) -> Child:
        """Return a process such as :meth:`child` does, with more configuration files."""
        configs = (*self.settings.configs, *configs)
        context = self.settings.context
        return Child(configs, self.store_id, action, from_context=context, **spec)

    # Objects

    def new_id(self, *, lent: bool = False) -> str:
        """Return an object id that nobody has used.

        :param lent: for another process, so that it is not known here what becomes of it
        """
        object_id = str(uuid.uuid4())
        self._ids.append(object_id)
        if lent:
            self._lent.add(object_id)
        return object_id

    def watch_id(self, object_id: str) -> str:
        """Take an id of the check's own making into the account of what is removed."""
        self._ids.append(object_id)
        return object_id

    def watch_uri(self, uri: str) -> str:
        """Take an object that something else made into the account of what is removed."""
        self._uris[uri] = None
        return uri

    def add(self, data: Any, object_id: str | None = None, **options: Any) -> AddResult:
        """Add ``data`` (Content, or any source) under a fresh id, or the one given."""
        if object_id is None:
            object_id = self.new_id()
        store: Store = options.pop("through", None) or self.store
        size = options.pop("size", data.size if isinstance(data, Content) else None)
        source = data.pieces() if isinstance(data, Content) else data
        result = store.add(object_id, source, size, **options)
        self.watch_uri(result.uri)
        return result

    def sample(self, size: int | None = None) -> tuple[str, Content | FileContent]:
        """Return the URI and the content of a readable object, made for this or the known one.

        :param size: bytes of it, where it can be made; two chunks and a bit when left out
        """
        if self.profile.known is not None:
            assert self.settings.known_uri is not None
            return self.settings.known_uri, self.profile.known
        content = Content(2 * self.chunk_size + 7 if size is None else size, seed=5)
        return self.add(content).uri, content

    def expect_holds(
        self, uri: str, content: Content | FileContent, what: str, store: Store | None = None
    ) -> None:
        """Fail unless the object is there with exactly these bytes, by stat and by get."""
        store = store or self.store
        # Only a web server may be unable to tell a size.
        sizes = (content.size,) if "add" in self.capabilities else (content.size, None)
        size = store.stat(uri).size
        expect(size in sizes, f"{what}: expected stat to tell {content.size} bytes, got {size}")
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
        for piece in reader:
            expect_bytes(
                bytes(piece), content.slice(offset, len(piece)), f"{what}, from byte {offset} on"
            )
            offset += len(piece)
        expect_equal(offset, content.size, f"{what}: bytes up to the end of the object")

    def expect_absent(self, object_id: str, what: str) -> None:
        """Fail if anything of an object of this id shows: by its URI, in a listing, unfinished."""
        uri = self.profile.uri_of(object_id)
        if uri is not None:
            with raises(NotFound, doing=f"{what}: stat of an object that should not be there"):
                self.store.stat(uri)
            with (
                raises(NotFound, doing=f"{what}: get of an object that should not be there"),
                self.store.get(uri),
            ):
                pass
        self.shortly_none(lambda: self.listed(object_id), f"{what}: listed objects of this id")
        self.shortly_none(
            lambda: [each.key for each in self.leftovers() if each.object_id == object_id],
            f"{what}: incomplete uploads of this id",
        )

    def expect_not_added(self, object_id: str, what: str) -> None:
        """Fail if anything of this id shows, or if it cannot be added afresh."""
        self.expect_absent(object_id, what)
        content = Content(1000, seed=77)
        uri = self.add(content, object_id).uri
        self.expect_holds(uri, content, f"{what}: a new add of the same id")

    def listing(self) -> dict[str, list[str]]:
        """Return the URIs that the store lists, by id; nothing where it cannot list."""
        found: dict[str, list[str]] = {}
        if "list" in self.capabilities:
            for entry in self.store.list():
                found.setdefault(entry.object_id, []).append(entry.location.uri)
        return found

    def listed(self, object_id: str) -> list[str]:
        """Return the URIs under which the store lists an id; none where it cannot list."""
        return self.listing().get(object_id, [])

    def leftovers(self) -> list[Incomplete]:
        """Return what the store tells of unfinished adds; nothing where it cannot tell."""
        if "list_incomplete" not in self.capabilities:
            return []
        return list(self.store.list_incomplete())

    def is_new(self, incomplete: Incomplete) -> bool:
        """Tell whether an incomplete upload was not there before the check, or is of its ids."""
        return incomplete.key not in self._strangers or incomplete.object_id in self._ids

    def shortly(self, look: Callable[[], object], what: str, patience: float | None = None) -> None:
        """Fail unless ``look`` comes true within ``patience`` seconds, or those of the settings."""
        patience = self.settings.patience if patience is None else patience
        self._wait(look, bool, f"{what}: expected within {patience:g} s, got", patience)

    def shortly_none(
        self, look: Callable[[], object], what: str, patience: float | None = None
    ) -> None:
        """Fail unless ``look`` comes to give nothing within that time."""
        patience = self.settings.patience if patience is None else patience
        done = operator.not_
        self._wait(look, done, f"{what}: expected none within {patience:g} s, got", patience)

    def _wait(
        self,
        look: Callable[[], object],
        done: Callable[[object], bool],
        what: str,
        patience: float,
    ) -> None:
        deadline = Deadline(patience)
        pause = 0.001
        while not done(seen := look()):
            expect(not deadline.passed, f"{what} {seen!r}")
            time.sleep(pause)
            pause = min(2 * pause, 0.5)

    # The end

    def finish(self) -> None:
        """Remove what the check made, close the stores, and fail on what is left behind."""
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
        gc.collect()  # readers and generators that a check dropped

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
                if not gone and object_id not in self._lent:
                    problems.append(f"object {object_id}, whose add was not told to succeed")
        problems += self._discard(
            each
            for each in self.leftovers()
            if self.is_new(each) and (each.object_id is None or each.object_id in self._ids)
        )
        if problems:
            raise AssertionError(f"Expected nothing left behind, got: {'; '.join(problems)}")
        if "delete" in self.capabilities:
            self.shortly_none(
                lambda: sorted(self.profile.inventory() - self._inventory),
                "what is left in the backend (--store-inventory) and no listing of the store tells",
            )

    def _delete(self, uri: str) -> bool:
        """Delete an object if it is there, and say whether it was."""
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
        for each in incomplete:
            problems.append(f"incomplete upload {each.key} of {each.object_id}")
            driver = self.store.driver
            if "discard" in self.capabilities and driver is not None:
                with contextlib.suppress(StoreError):
                    driver.discard(each, context=None)
        return problems


def has_proc() -> bool:
    """Tell whether the system shows a process's memory under /proc."""
    return os.path.exists("/proc/self/status")
