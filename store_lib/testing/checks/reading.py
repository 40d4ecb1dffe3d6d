"""Readers that are dropped half-way release their resources."""

import gc
import itertools
import time
from collections.abc import Callable, Iterator

from store_lib import Store
from store_lib.testing.catalogue import check
from store_lib.testing.expect import expect
from store_lib.testing.guard import Resources, lasting_growth
from store_lib.testing.target import Target

#: How often each way of dropping a reader is tried.
_CYCLES = 60
#: Seconds for all ways together.
_SECONDS = 8.0
#: Descriptors and threads that may remain.
_ALLOWED = 4


class _Stop(Exception):
    """Raised by a caller half-way through an object."""


def _close(store: Store, uri: str) -> None:
    reader = store.get(uri)
    next(iter(reader))
    reader.close()


def _forget(store: Store, uri: str) -> None:
    reader = store.get(uri)
    reader.read(1)


def _forget_unread(store: Store, uri: str) -> None:
    store.get(uri)


def _forget_iterator(store: Store, uri: str) -> None:
    chunks = iter(store.get(uri))
    next(chunks)


def _close_generator(store: Store, uri: str) -> None:
    def generate() -> Iterator[bytes]:
        with store.get(uri) as reader:
            yield from reader

    chunks = generate()
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]


def _raise(store: Store, uri: str) -> None:
    try:
        with store.get(uri) as reader:
            reader.read(1)
            raise _Stop
    except _Stop:
        pass


_WAYS: dict[str, Callable[[Store, str], None]] = {
    "closed": _close,
    "forgotten": _forget,
    "forgotten unread": _forget_unread,
    "forgotten as an iterator": _forget_iterator,
    "closed by GeneratorExit": _close_generator,
    "closed by an exception": _raise,
}


@check()
def check_dropped_readers_release_everything(target: Target) -> None:
    """Check 5: hundreds of dropped readers leave no descriptor and no thread behind."""
    uri, _ = target.sample(target.profile.long_size)
    for way in _WAYS.values():
        for _ in range(3):  # fills connection pools
            way(target.store, uri)
    gc.collect()
    base = Resources()
    cycles = 12 if target.settings.short else _CYCLES
    for name, way in _WAYS.items():
        deadline = time.monotonic() + _SECONDS / len(_WAYS)
        for number in itertools.count(1):
            way(target.store, uri)
            if number >= cycles or (number >= 8 and time.monotonic() > deadline):
                break
        complaints = lasting_growth(
            base,
            allow_fds=_ALLOWED,
            allow_threads=_ALLOWED,
            patience=target.settings.patience / 2,
        )
        expect(not complaints, f"after {number} readers {name}: {'; '.join(complaints)}")


@check()
def check_many_readers_at_once(target: Target) -> None:
    """Check 5: several readers of an object do not disturb each other."""
    uri, content = target.sample()
    readers = [target.store.get(uri) for _ in range(8)]
    for number, reader in enumerate(readers):
        reader.read(number * 1000)
    for number, reader in enumerate(readers):
        with reader:
            offset = min(number * 1000, content.size)
            target.expect_reads(reader, content, f"reader {number} of 8", offset)
