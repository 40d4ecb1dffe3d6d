"""The commands that list: list, stores, incomplete and sweep."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cliff.lister import Lister

from store_lib import Entry, Incomplete, Store
from store_lib.cli.arguments import add_store, duration
from store_lib.cli.formatting import ByteSize, Optional, Words, timestamp
from store_lib.cli.shell import Shell, ShowingCommand
from store_lib.display import get_logger
from store_lib.exceptions import NotSupported, StoreError

LOG = get_logger(__name__)

#: Seconds for which requests are retried while a user waits for a table.
RETRY_SECONDS = 3.0

# The columns of each command, with the functions that return the value in a row.

_OBJECT_COLUMNS: Mapping[str, Callable[[Store, Entry], Any]] = {
    "id": lambda store, entry: entry.object_id,
    "size": lambda store, entry: Optional(entry.size),
    "modified": lambda store, entry: timestamp(entry.modified),
    "store": lambda store, entry: store.id,
    "uri": lambda store, entry: entry.location.uri,
}

_STORE_COLUMNS: Mapping[str, Callable[[Store], Any]] = {
    "id": lambda store: store.id,
    "driver": lambda store: store.driver_name,
    "default": lambda store: store.is_default,
    "weight": lambda store: store.weight,
    "readable": lambda store: store.readable,
    "writable": lambda store: store.writable,
    "capabilities": lambda store: Words(sorted(store.capabilities)),
    "free": lambda store: ByteSize(_free_space(store)),
    "description": lambda store: Optional(store.description),
    "error": lambda store: Optional(None if store.error is None else str(store.error)),
}

_INCOMPLETE_COLUMNS: Mapping[str, Callable[[Store, Incomplete], Any]] = {
    "store": lambda store, upload: store.id,
    "key": lambda store, upload: upload.key,
    "id": lambda store, upload: Optional(upload.object_id),
    "size": lambda store, upload: Optional(upload.size),
    "modified": lambda store, upload: timestamp(upload.modified),
    "live": lambda store, upload: upload.live,
}


class _ListingCommand(ShowingCommand, Lister):
    """A command that shows a table with a row for each item.

    ``column_values`` has the columns: functions of an item, which is a tuple of arguments.
    """

    column_values: Mapping[str, Callable[..., Any]]

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return tuple(self.column_values)

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        values = self.column_values.values()
        rows = [tuple(value(*item) for value in values) for item in self.items(parsed_args)]
        return self.columns(parsed_args), rows

    def items(self, parsed_args: argparse.Namespace) -> Iterable[tuple[Any, ...]]:
        """Return the items to show, in order."""
        raise NotImplementedError


class ListObjects(_ListingCommand):
    """List the objects in the stores."""

    retry_seconds = RETRY_SECONDS
    column_values = _OBJECT_COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_store(parser, "Store to list. Default: all stores that can list objects.")
        return parser

    def items(self, parsed_args: argparse.Namespace) -> Iterable[tuple[Store, Entry]]:
        objects = [
            (store, entry)
            for store in _chosen_stores(self.app, parsed_args.store, "list")
            for entry in store.list()
        ]
        return sorted(objects, key=lambda item: item[1].object_id)


class ListStores(_ListingCommand):
    """List the configured stores with their capabilities, free space and errors."""

    retry_seconds = RETRY_SECONDS
    column_values = _STORE_COLUMNS

    def items(self, parsed_args: argparse.Namespace) -> Iterable[tuple[Store]]:
        return ((store,) for store in self.app.stores)


class ListIncomplete(_ListingCommand):
    """List incomplete uploads: those of interrupted adds and those in progress."""

    retry_seconds = RETRY_SECONDS
    column_values = _INCOMPLETE_COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_store(parser, "Store to list. Default: all stores that can list incomplete uploads.")
        return parser

    def items(self, parsed_args: argparse.Namespace) -> Iterable[tuple[Store, Incomplete]]:
        stores = _chosen_stores(self.app, parsed_args.store, "list_incomplete", reserved=True)
        return ((store, upload) for store in stores for upload in store.list_incomplete())


class Sweep(_ListingCommand):
    """Remove the incomplete uploads of interrupted adds and list them; keep those in progress."""

    column_values = _INCOMPLETE_COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--older-than",
            type=duration,
            required=True,
            metavar="TIME",
            help="Keep uploads that were active within this time: 90 (seconds), 15m, 12h, 7d or "
            "2w, for example.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="List what would be removed, remove nothing."
        )
        add_store(parser, "Store to sweep. Default: all stores that can remove incomplete uploads.")
        return parser

    def items(self, parsed_args: argparse.Namespace) -> Iterable[tuple[Store, Incomplete]]:
        age, dry_run = parsed_args.older_than, parsed_args.dry_run
        stores = _chosen_stores(self.app, parsed_args.store, "discard", reserved=True)
        return ((store, upload) for store in stores for upload in store.sweep(age, dry_run=dry_run))


def _chosen_stores(
    app: Shell, store_id: str | None, capability: str, *, reserved: bool = False
) -> Iterator[Store]:
    """Yield the store with the given id or, without an id, every usable store with a capability.

    :param reserved: include Glance's reserved stores
    :raises NotSupported: no store has the capability
    """
    if store_id is not None:
        is_reserved = reserved and store_id not in app.stores and store_id in app.reserved_stores
        yield (app.reserved_stores if is_reserved else app.stores)[store_id]
        return
    able = 0
    for store in [*app.stores, *(app.reserved_stores if reserved else ())]:
        usable = store.error is None or (store.readable and capability != "discard")
        if not usable:
            LOG.warning("Skipping store %s: %s", store.id, store.error)
        elif capability in store.capabilities:
            able += 1
            yield store
        else:
            LOG.info("Skipping store %s: it does not support %s", store.id, capability)
    if not able:
        raise NotSupported(f"No configured store supports {capability}. See 'store-lib stores'.")


def _free_space(store: Store) -> int | None:
    """Return the free bytes of a store, or ``None`` if unknown."""
    if store.error is not None:
        return None
    try:
        return store.space().free
    except NotSupported:
        return None
    except StoreError as error:
        LOG.warning("The free space of store %s is unknown: %s", store.id, error)
        return None
