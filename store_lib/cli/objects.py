"""The commands for one object: add, get, stat, delete and copy."""

import argparse
import contextlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cliff.show import ShowOne

from store_lib import AddResult
from store_lib.cli.arguments import add_expect, add_store, count, expected
from store_lib.cli.columns import Maybe, Pairs, moment
from store_lib.cli.local_file import LocalFile
from store_lib.cli.progress import Bar
from store_lib.cli.shell import ShowingCommand, StoreCommand
from store_lib.cli.status import ExitStatus
from store_lib.redaction import redact_uri
from store_lib.store import DEFAULT_DIGESTS

#: What stands for standard input and standard output.
STANDARD = "-"

#: What is shown of a new object, before its digests.
_NEW = ("id", "uri", "size", "store")


class Add(ShowingCommand, ShowOne):
    """Add a file to a store as a new object, and print its URI and digests."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("file", metavar="FILE", help="The data; - is standard input.")
        parser.add_argument("--id", metavar="ID", help="The object's id; a new UUID when left out.")
        add_store(parser, "The store to add to; the default store when left out.")
        parser.add_argument(
            "--size",
            type=count,
            metavar="BYTES",
            help="The size that the data must have; also lets a store prepare room for what "
            "comes from standard input.",
        )
        parser.add_argument(
            "--digest",
            action="append",
            metavar="ALGORITHM",
            help="A digest to compute, such as sha256; may be given several times. "
            "Default: sha512.",
        )
        add_expect(parser)
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return (*_NEW, *_digests(parsed_args), *expected(parsed_args))

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        object_id = parsed_args.id if parsed_args.id is not None else str(uuid.uuid4())
        data: Any = Path(parsed_args.file)
        if parsed_args.file == STANDARD:
            data = self.app.stdin.buffer
        with Bar(self.app.shows_progress, self.app.stderr, "add") as bar:
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
    """Copy an object to another store, or under another id."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("uri", metavar="URI", help="The object to copy.")
        parser.add_argument("--id", metavar="ID", help="The copy's id; a new UUID when left out.")
        add_store(parser, "The store that the object is in, where its URI does not tell.")
        parser.add_argument(
            "--to",
            metavar="STORE",
            help="The store to copy to; the default store when left out.",
        )
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return (*_NEW, *DEFAULT_DIGESTS)

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        object_id = parsed_args.id if parsed_args.id is not None else str(uuid.uuid4())
        with Bar(self.app.shows_progress, self.app.stderr, "copy") as bar:
            result = self.app.stores.copy(
                parsed_args.uri,
                object_id,
                store=parsed_args.store,
                to=parsed_args.to,
                progress=bar,
            )
        return _added(object_id, result)


class Get(StoreCommand):
    """Read an object, or part of it, into a file or to standard output."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("uri", metavar="URI", help="The object to read.")
        parser.add_argument(
            "-o",
            "--output",
            default=STANDARD,
            metavar="FILE",
            help="The file to write, which appears when it is whole; - is standard output, the "
            "default.",
        )
        parser.add_argument(
            "--force", action="store_true", help="Overwrite the file if it is there."
        )
        parser.add_argument(
            "--offset", type=count, default=0, metavar="BYTES", help="Where to begin."
        )
        parser.add_argument(
            "--length",
            type=count,
            metavar="BYTES",
            help="How much to read; to the end when left out.",
        )
        add_store(parser, "The store that the object is in, where its URI does not tell.")
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
        with reader, Bar(self.app.shows_progress, self.app.stderr, "get") as bar, output as out:
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
                "An object's bytes are not for a terminal. Name a file with -o, or redirect the "
                "output."
            )
        return _flushing(self.app.stdout.buffer)


class Stat(ShowingCommand, ShowOne):
    """Show what a store tells of an object without reading it."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("uri", metavar="URI", help="The object.")
        add_store(parser, "The store that the object is in, where its URI does not tell.")
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return ("uri", "size", "modified", "metadata")

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        found = self.app.stores.stat(parsed_args.uri, parsed_args.store)
        return (
            self.columns(parsed_args),
            (
                redact_uri(parsed_args.uri),
                Maybe(found.size),
                moment(found.modified),
                Pairs(found.metadata),
            ),
        )


class Delete(StoreCommand):
    """Delete objects; each that cannot be is said, and the others are deleted."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("uri", nargs="+", metavar="URI", help="An object to delete.")
        add_store(parser, "The store that the objects are in, where their URIs do not tell.")
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
    """Return what is shown of a new object; each digest is a column of its own."""
    columns = (*_NEW, *result.digests)
    return columns, (object_id, result.uri, result.size, result.store, *result.digests.values())


@contextlib.contextmanager
def _flushing(stream: BinaryIO) -> Iterator[BinaryIO]:
    yield stream
    stream.flush()
