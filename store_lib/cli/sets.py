"""The commands for whole stores: list, stores, incomplete and sweep."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cliff.lister import Lister

from store_lib import Incomplete, Store
from store_lib.cli.arguments import add_store, duration
from store_lib.cli.columns import Maybe, Room, Words, moment
from store_lib.cli.shell import Shell, ShowingCommand
from store_lib.display import get_logger
from store_lib.exceptions import NotSupported, StoreError

LOG = get_logger(__name__)

_EVERY = "One store; every one that can when left out."

#: Seconds for which a command repeats requests whose user waits for a table.
SOON = 3.0

_LEFTOVER = ("store", "key", "id", "size", "modified", "live")


class ListObjects(ShowingCommand, Lister):
    """List the objects in the stores."""

    retry_seconds = SOON

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_store(parser, _EVERY)
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return ("id", "size", "modified", "store", "uri")

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        rows = [
            (
                entry.object_id,
                Maybe(entry.size),
                moment(entry.modified),
                store.id,
                entry.location.uri,
            )
            for store in _chosen(self.app, parsed_args.store, "list")
            for entry in store.list()
        ]
        return self.columns(parsed_args), sorted(rows, key=lambda row: row[0])


class ListStores(ShowingCommand, Lister):
    """Show the configured stores: what each can do, its free space, and what is wrong with it."""

    retry_seconds = SOON

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return (
            "id",
            "driver",
            "default",
            "weight",
            "readable",
            "writable",
            "capabilities",
            "free",
            "description",
            "error",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        return self.columns(parsed_args), [_about(store) for store in self.app.stores]


class ListIncomplete(ShowingCommand, Lister):
    """List what unfinished adds have left in the stores, and what running ones have so far."""

    retry_seconds = SOON

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        add_store(parser, _EVERY)
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return _LEFTOVER

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        return _LEFTOVER, _leftovers(
            (store, leftover)
            for store in _chosen(self.app, parsed_args.store, "list_incomplete", reserved=True)
            for leftover in store.list_incomplete()
        )


class Sweep(ShowingCommand, Lister):
    """Remove what unfinished adds have left, and list it; running adds are not touched."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--older-than",
            type=duration,
            required=True,
            metavar="TIME",
            help="Leave alone what showed a sign of life within this time: 90 (seconds), 15m, "
            "12h, 7d, 2w.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only list what would be removed."
        )
        add_store(parser, _EVERY)
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return _LEFTOVER

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        return _LEFTOVER, _leftovers(
            (store, leftover)
            for store in _chosen(self.app, parsed_args.store, "discard", reserved=True)
            for leftover in store.sweep(parsed_args.older_than, dry_run=parsed_args.dry_run)
        )


def _chosen(
    app: Shell, named: str | None, capability: str, *, reserved: bool = False
) -> Iterator[Store]:
    """Yield the store that was named, or every usable one with the capability.

    :param reserved: count those that Glance keeps for itself, too
    :raises NotSupported: no store was named and none has it
    """
    if named is not None:
        kept = reserved and named not in app.stores and named in app.reserved_stores
        yield (app.reserved_stores if kept else app.stores)[named]
        return
    able = 0
    for store in [*app.stores, *(app.reserved_stores if reserved else ())]:
        usable = store.error is None or (store.readable and capability != "discard")
        if not usable:
            LOG.warning("Store %s is left out: %s", store.id, store.error)
        elif capability in store.capabilities:
            able += 1
            yield store
        else:
            LOG.info("Store %s is left out: it does not have %s", store.id, capability)
    if not able:
        raise NotSupported(f"No configured store has {capability}. See 'store-lib stores'.")


def _about(store: Store) -> tuple[Any, ...]:
    return (
        store.id,
        store.driver_name,
        store.is_default,
        store.weight,
        store.readable,
        store.writable,
        Words(sorted(store.capabilities)),
        Room(_known(lambda: store.space().free) if store.error is None else None),
        Maybe(store.description),
        Maybe(None if store.error is None else str(store.error)),
    )


def _known(ask: Callable[[], int | None]) -> int | None:
    """Return an answer, or ``None`` where the store does not tell or is out of reach."""
    try:
        return ask()
    except NotSupported:
        return None
    except StoreError as error:
        LOG.warning("Store %s does not tell its free space: %s", error.store, error)
        return None


def _leftovers(found: Iterable[tuple[Store, Incomplete]]) -> list[tuple[Any, ...]]:
    return [
        (
            store.id,
            leftover.key,
            Maybe(leftover.object_id),
            Maybe(leftover.size),
            moment(leftover.modified),
            leftover.live,
        )
        for store, leftover in found
    ]
