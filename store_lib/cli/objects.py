"""The commands for single objects: add, get, stat, delete and copy."""

import argparse
import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cliff.show import ShowOne

from store_lib import AddResult
from store_lib import Stat as ObjectStat
from store_lib.cli.arguments import add_expect, add_store, count, expected
from store_lib.cli.formatting import Optional, Pairs, timestamp
from store_lib.cli.local_file import LocalFile
from store_lib.cli.shell import ShowingCommand, StoreCommand
from store_lib.cli.status import ExitStatus
from store_lib.redaction import redact_uri
from store_lib.store import DEFAULT_DIGESTS

#: The file name that means standard input or standard output.
STANDARD = "-"

#: The columns of a new object, before its digests.
_NEW_OBJECT_COLUMNS = ("id", "uri", "size", "store")

#: The columns of ``store-lib stat``, with the functions that return their values.
_STAT_COLUMNS: Mapping[str, Callable[[str, ObjectStat], Any]] = {
    "uri": lambda uri, stat: redact_uri(uri),
    "size": lambda uri, stat: Optional(stat.size),
    "modified": lambda uri, stat: timestamp(stat.modified),
    "metadata": lambda uri, stat: Pairs(stat.metadata),
}

_STORE_OF_URI = "Store of the object. Needed only if the URI does not identify it."


class Add(ShowingCommand, ShowOne):
    """Add a file to a store as a new object and show its URI and digests."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("file", metavar="FILE", help="File to add; - is standard input.")
        parser.add_argument("--id", metavar="ID", help="Id of the object. Default: a new UUID.")
        add_store(parser, "Store to add to. Default: the default store.")
        parser.add_argument(
            "--size",
            type=count,
            metavar="BYTES",
            help="Expected size of the data; any other is an error. For data from standard "
            "input, it also lets the store allocate space in advance.",
        )
        parser.add_argument(
            "--digest",
            action="append",
            metavar="ALGORITHM",
            help="Digest to compute, such as sha256. May be given several times. "
            f"Default: {', '.join(DEFAULT_DIGESTS)}.",
        )
        add_expect(parser)
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return (*_NEW_OBJECT_COLUMNS, *_digests(parsed_args), *expected(parsed_args))

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        object_id = parsed_args.id if parsed_args.id is not None else str(uuid.uuid4())
        data: Any = Path(parsed_args.file)
        if parsed_args.file == STANDARD:
            data = self.app.stdin.buffer
        with self.app.progress_bar("add") as bar:
            result = self.app.stores.add(
                object_id,
                data,
                parsed_args.size,
                parsed_args.store,
                digests=_digests(parsed_args),
                expected=expected(parsed_args) or None,
                progress=bar,
            )
        return _added(object_id, result)


class Copy(ShowingCommand, ShowOne):
    """Copy an object to another store, or to another id."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("uri", metavar="URI", help="Object to copy.")
        parser.add_argument("--id", metavar="ID", help="Id of the copy. Default: a new UUID.")
        add_store(parser, _STORE_OF_URI)
        parser.add_argument(
            "--to",
            metavar="STORE",
            help="Store to copy to. Default: the default store.",
        )
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return (*_NEW_OBJECT_COLUMNS, *DEFAULT_DIGESTS)

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        object_id = parsed_args.id if parsed_args.id is not None else str(uuid.uuid4())
        with self.app.progress_bar("copy") as bar:
            result = self.app.stores.copy(
                parsed_args.uri,
                object_id,
                store=parsed_args.store,
                to=parsed_args.to,
                progress=bar,
            )
        return _added(object_id, result)


class Get(StoreCommand):
    """Write an object, or a range of it, to a file or to standard output."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("uri", metavar="URI", help="Object to read.")
        parser.add_argument(
            "-o",
            "--output",
            default=STANDARD,
            metavar="FILE",
            help="File to write, which appears only when complete. Default: -, which is standard "
            "output.",
        )
        parser.add_argument("--force", action="store_true", help="Overwrite an existing file.")
        parser.add_argument(
            "--offset",
            type=count,
            default=0,
            metavar="BYTES",
            help="First byte to read. Default: 0.",
        )
        parser.add_argument(
            "--length",
            type=count,
            metavar="BYTES",
            help="Number of bytes to read. Default: all up to the end.",
        )
        add_store(parser, _STORE_OF_URI)
        add_expect(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        output = self._output(parsed_args)
        reader = self.app.stores.get(
            parsed_args.uri,
            parsed_args.offset,
            parsed_args.length,
            parsed_args.store,
            expected=expected(parsed_args) or None,
        )
        with reader, self.app.progress_bar("get") as bar, output as out:
            done = 0
            for chunk in reader:
                out.write(chunk)
                done += len(chunk)
                bar(done, reader.length)

    def _output(self, parsed_args: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
        if parsed_args.output != STANDARD:
            return LocalFile(parsed_args.output, force=parsed_args.force)
        if self.app.stdout.isatty():
            raise OSError(
                "Refused to write the object's bytes to a terminal. Name a file with -o, or "
                "redirect standard output."
            )
        return _flushing(self.app.stdout.buffer)


class Stat(ShowingCommand, ShowOne):
    """Show the size, modification time and metadata of an object."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("uri", metavar="URI", help="Object to show.")
        add_store(parser, _STORE_OF_URI)
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return tuple(_STAT_COLUMNS)

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        stat = self.app.stores.stat(parsed_args.uri, parsed_args.store)
        values = [value(parsed_args.uri, stat) for value in _STAT_COLUMNS.values()]
        return self.columns(parsed_args), values


class Delete(StoreCommand):
    """Delete objects, continuing with the others if one fails."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("uri", nargs="+", metavar="URI", help="Object to delete.")
        add_store(parser, _STORE_OF_URI)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        status = ExitStatus.OK
        stores = self.app.stores
        for uri in parsed_args.uri:
            try:
                stores.delete(uri, parsed_args.store)
            except Exception as error:
                failed = self.app.fail(error)
                status = status or failed
        return status


def _digests(parsed_args: argparse.Namespace) -> tuple[str, ...]:
    return tuple(parsed_args.digest or DEFAULT_DIGESTS)


def _added(object_id: str, result: AddResult) -> tuple[Sequence[str], Iterable[Any]]:
    """Return the columns and values of a new object, with a column for each digest."""
    columns = (*_NEW_OBJECT_COLUMNS, *result.digests)
    return columns, (object_id, result.uri, result.size, result.store, *result.digests.values())


@contextlib.contextmanager
def _flushing(stream: BinaryIO) -> Iterator[BinaryIO]:
    yield stream
    stream.flush()
