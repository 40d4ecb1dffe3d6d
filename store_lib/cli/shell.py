"""The application: global options, logging, and the one line that an error is."""

import argparse
import contextlib
import logging
import math
import os
import traceback
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from cliff import help as cliff_help
from cliff.app import App
from cliff.command import Command
from cliff.commandmanager import CommandManager
from cliff.display import DisplayCommandBase
from tqdm import tqdm

from store_lib import Stores, retry_at_most
from store_lib.cli.app import Interrupted
from store_lib.cli.columns import printable_cells
from store_lib.cli.setting import open_reserved_stores, open_stores
from store_lib.cli.status import ExitStatus, status_of
from store_lib.display import printable
from store_lib.exceptions import Invalid, NotSupported
from store_lib.redaction import redact, redact_uri
from store_lib.version import VERSION

NAME = "store-lib"

#: Entry points of this namespace are the commands; other packages may bring more.
NAMESPACE = "store_lib.cli"

_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


class _Formatter(logging.Formatter):
    """Writes log records without secrets, each message on one line that can be printed.

    ``level`` is the level's name in small letters.
    """

    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        return _shown(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


class _Console(logging.StreamHandler[Any]):
    """Writes a record above a progress bar, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class Shell(App):
    """The ``store-lib`` command line."""

    NAME = NAME

    def __init__(self) -> None:
        super().__init__(
            description="Adds, gets and deletes disk images and other big objects in stores.",
            version=VERSION,
            command_manager=CommandManager(NAMESPACE),
            deferred_help=True,  # so that it can stand after a command and mean that one
        )
        self._handlers: list[logging.Handler] = []
        self._stores: Stores | None = None
        self._reserved_stores: Stores | None = None

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> ArgumentParser:
        parser = ArgumentParser(
            prog=NAME, description=description, add_help=False, allow_abbrev=False
        )
        parser.add_argument(
            "--config-file",
            action="append",
            default=[],
            metavar="FILE",
            help="A configuration file. May be given several times; later files win.",
        )
        parser.add_argument(
            "--config-dir",
            action="append",
            default=[],
            metavar="DIRECTORY",
            help="A directory; its .conf files are read after the files. May be given several "
            "times.",
        )
        parser.add_argument(
            "--no-progress", action="store_true", help="Show no progress bar on a terminal."
        )
        volume = parser.add_mutually_exclusive_group()
        volume.add_argument(
            "-v",
            "--verbose",
            action="count",
            dest="verbose_level",
            default=1,
            help="Log more to standard error; twice logs everything.",
        )
        volume.add_argument(
            "-q",
            "--quiet",
            action="store_const",
            dest="verbose_level",
            const=0,
            help="No progress bar and no warnings, only errors.",
        )
        parser.add_argument("--log-file", metavar="FILE", help="Log to a file as well.")
        parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
        parser.add_argument(
            "--version",
            action="version",
            version=f"{NAME} {version}",
            help="Show the version and exit.",
        )
        parser.add_argument(
            "-h",
            "--help",
            action="store_true",
            dest="deferred_help",
            help="Show the commands, or the options of the command named, and exit.",
        )
        make_terse(parser)
        return parser

    @property
    def stores(self) -> Stores:
        """The configured stores, opened when first asked for and closed with the command."""
        if self._stores is None:
            self._stores = open_stores(self.options.config_file, self.options.config_dir)
        return self._stores

    @property
    def reserved_stores(self) -> Stores:
        """The stores that Glance keeps for itself, where the configuration is Glance's."""
        if self._reserved_stores is None:
            files, directories = self.options.config_file, self.options.config_dir
            self._reserved_stores = open_reserved_stores(files, directories)
        return self._reserved_stores

    @property
    def shows_progress(self) -> bool:
        """Whether a transfer draws a bar: standard error is a terminal and nobody objects."""
        options = self.options
        return bool(options.verbose_level > 0 and not options.no_progress and self.stderr.isatty())

    def configure_logging(self) -> None:
        console = _Console(self.stderr)
        console.setFormatter(_Formatter(f"{NAME}: %(level)s: %(message)s"))
        self._handlers.append(console)
        if self.options.log_file:
            try:
                to_file = logging.FileHandler(self.options.log_file)
            except OSError as error:
                self.parser.error(f"the log file cannot be written: {_sentence(error)}")
            to_file.setFormatter(_Formatter(self.LOG_FILE_MESSAGE_FORMAT))
            self._handlers.append(to_file)
        root = logging.getLogger()
        root.setLevel(_LEVELS[min(self.options.verbose_level, len(_LEVELS) - 1)])
        for handler in self._handlers:
            root.addHandler(handler)
        # What stevedore warns of is in the error of the store concerned, and better said there.
        if self.options.verbose_level <= 1:
            console.addFilter(lambda record: not record.name.startswith("stevedore"))

    def run(self, argv: list[str]) -> int:
        """Run the command that ``argv`` names and return its exit status."""
        root = logging.getLogger()
        level = root.level
        try:
            return super().run(argv)
        except SystemExit as leaving:  # argparse, after help or a usage error
            return leaving.code if isinstance(leaving.code, int) else ExitStatus.OK
        finally:
            root.setLevel(level)
            for handler in self._handlers:
                root.removeHandler(handler)
                handler.close()
            for stores in (self._stores, self._reserved_stores):
                if stores is not None:
                    stores.close()

    def interact(self) -> NoReturn:
        """Show the help: there is no interactive mode."""
        cliff_help.HelpAction([], argparse.SUPPRESS, default=self)(
            self.parser, self.options, None, None
        )
        raise AssertionError("the help action ends the command")

    def run_subcommand(self, argv: list[str]) -> int:
        self._check_command(argv)
        try:
            status = super().run_subcommand(argv)
            return self._finish_output(status)
        except BrokenPipeError:
            self._drop_output()
            return ExitStatus.BROKEN_PIPE
        except KeyboardInterrupt as error:
            self.say("interrupted")
            return 128 + error.number if isinstance(error, Interrupted) else ExitStatus.INTERRUPTED

    def _finish_output(self, status: int) -> int:
        """Write what is still buffered; an error of that counts unless there was one before."""
        try:
            self.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            self._drop_output()
            return status or self.fail(error)
        return status

    def _drop_output(self) -> None:
        """Forget what is still buffered, which must not be tried again when Python exits."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stdout.fileno())

    def _check_command(self, argv: list[str]) -> None:
        """Refuse what is no command, abbreviations too: they would change with new commands."""
        if argv[0].startswith("-"):
            self.parser.error(f"there is no global option {argv[0]}")
        try:
            _, name, _ = self.command_manager.find_command(argv)
        except ValueError:
            name = ""
        if name not in self.command_manager.commands:
            near = " or ".join(self.get_fuzzy_matches(argv[0]))
            self.parser.error(f"{argv[0]!r} is not a command; did you mean {near}?")

    def fail(self, error: Exception) -> ExitStatus:
        """Say what went wrong in one line, with the traceback if asked, and return the status."""
        if self.options.debug:
            self.stderr.write(_shown("".join(traceback.format_exception(error))))
        self.say(f"error: {_sentence(error)}")
        if isinstance(error, NotSupported) and self._is_misconfigured(error.store):
            return ExitStatus.CONFIGURATION
        return status_of(error)

    def _is_misconfigured(self, store_id: str | None) -> bool:
        stores = self._stores
        if stores is None or store_id is None or store_id not in stores:
            return False
        return stores[store_id].error is not None

    def say(self, text: str) -> None:
        """Write one line to standard error."""
        self.stderr.write(f"{NAME}: {printable(redact(' '.join(text.split())))}\n")


class StoreCommand(Command):
    """What all commands of the library share: their errors end in one line and a status."""

    app: Shell
    #: Seconds for which requests are repeated, where less than ``transfer_retry_seconds``.
    retry_seconds: ClassVar[float] = math.inf

    def get_parser(self, prog_name: str) -> ArgumentParser:
        parser = super().get_parser(prog_name)
        make_terse(parser)
        return parser

    def get_epilog(self) -> str:
        return ""

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        """Return the columns that there may be in what the command shows."""
        return ()

    def run(self, parsed_args: argparse.Namespace) -> int:
        try:
            self._check_columns(parsed_args)
            with retry_at_most(self.retry_seconds):
                return super().run(parsed_args)
        except BrokenPipeError:
            raise
        except Exception as error:
            return self.app.fail(error)

    def _check_columns(self, parsed_args: argparse.Namespace) -> None:
        """Refuse unknown columns beforehand: cliff does so when everything is done already.

        :raises Invalid: there is no such column
        """
        known = self.columns(parsed_args)
        for name in getattr(parsed_args, "columns", ()):
            if name.strip().lower() not in known:
                raise Invalid(f"Expected a column among {', '.join(known)}, got {name!r}.")


class ShowingCommand(StoreCommand, DisplayCommandBase[Any]):
    """What the commands share that show values: in every format they can be printed."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Any
    ) -> int:
        shown = printable_cells(data, parsed_args.formatter)
        return super().produce_output(parsed_args, column_names, shown)  # type: ignore[safe-super]


def make_terse(parser: ArgumentParser) -> None:
    """Let a usage error be one line too, where argparse would print the usage before it."""

    def error(message: str) -> NoReturn:
        command = parser.prog.removeprefix(NAME).strip()
        where = f"{command}: " if command else ""
        shown = printable(redact_uri(message))
        parser.exit(
            ExitStatus.USAGE,
            f"{NAME}: error: {where}{shown} (see '{parser.prog} --help')\n",
        )

    parser.error = error  # type: ignore[method-assign]


def _shown(text: str) -> str:
    """Return text of several lines as it may be shown."""
    return printable(redact(text), keep="\n")


def _sentence(error: Exception) -> str:
    """Return an error's text, and the notes that were added to it on the way."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{redact_uri(str(error.filename))}: " if error.filename else ""
        text = where + error.strerror
    else:
        text = str(error) or type(error).__name__
    return " ".join([text, *(f"({note})" for note in getattr(error, "__notes__", ()))])
