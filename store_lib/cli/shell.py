"""The application: global options, logging, and errors as one line."""

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

from store_lib import Stores, retry_at_most
from store_lib.cli.config import open_reserved_stores, open_stores
from store_lib.cli.console import LogFormatter, LogHandler, ProgressBar, safe_text
from store_lib.cli.formatting import printable_cells
from store_lib.cli.status import ExitStatus, Interrupted, status_of
from store_lib.display import printable
from store_lib.exceptions import Invalid, NotSupported
from store_lib.redaction import redact, redact_uri
from store_lib.version import VERSION

NAME = "store-lib"

#: Namespace of the entry points that are the commands; other packages may add some.
NAMESPACE = "store_lib.cli"

_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


class Shell(App):
    """The ``store-lib`` command line."""

    NAME = NAME

    def __init__(self) -> None:
        super().__init__(
            description="Add, get and delete disk images and other large objects.",
            version=VERSION,
            command_manager=CommandManager(NAMESPACE),
            deferred_help=True,  # after a command, --help shows the help of the command
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
            help="Configuration file. May be given several times; later files take precedence.",
        )
        parser.add_argument(
            "--config-dir",
            action="append",
            default=[],
            metavar="DIRECTORY",
            help="Directory whose .conf files are read after the configuration files. May be "
            "given several times.",
        )
        parser.add_argument(
            "--no-progress", action="store_true", help="Do not draw a progress bar."
        )
        volume = parser.add_mutually_exclusive_group()
        volume.add_argument(
            "-v",
            "--verbose",
            action="count",
            dest="verbose_level",
            default=1,
            help="Log informational messages; twice (-vv) logs debugging messages too.",
        )
        volume.add_argument(
            "-q",
            "--quiet",
            action="store_const",
            dest="verbose_level",
            const=0,
            help="Log errors only and do not draw a progress bar.",
        )
        parser.add_argument("--log-file", metavar="FILE", help="Log to a file too.")
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
            help="Show the commands, or the options of a command, and exit.",
        )
        use_short_errors(parser)
        return parser

    @property
    def stores(self) -> Stores:
        """The configured stores, opened on first use and closed when the command ends."""
        if self._stores is None:
            self._stores = open_stores(self.options.config_file, self.options.config_dir)
        return self._stores

    @property
    def reserved_stores(self) -> Stores:
        """Glance's reserved stores, if the configuration is Glance's."""
        if self._reserved_stores is None:
            files, directories = self.options.config_file, self.options.config_dir
            self._reserved_stores = open_reserved_stores(files, directories)
        return self._reserved_stores

    def progress_bar(self, label: str) -> ProgressBar:
        """Return a progress bar, which is drawn on a terminal unless an option says otherwise."""
        quiet = self.options.no_progress or self.options.verbose_level == 0
        return ProgressBar(not quiet and self.stderr.isatty(), self.stderr, label)

    def configure_logging(self) -> None:
        console = LogHandler(self.stderr)
        console.setFormatter(LogFormatter(f"{NAME}: %(level)s: %(message)s"))
        self._handlers.append(console)
        if self.options.log_file:
            try:
                to_file = logging.FileHandler(self.options.log_file)
            except OSError as error:
                self.parser.error(f"cannot write the log file: {_sentence(error)}")
            to_file.setFormatter(LogFormatter(self.LOG_FILE_MESSAGE_FORMAT))
            self._handlers.append(to_file)
        root = logging.getLogger()
        root.setLevel(_LEVELS[min(self.options.verbose_level, len(_LEVELS) - 1)])
        for handler in self._handlers:
            root.addHandler(handler)
        # The error of the store concerned is clearer than stevedore's warning.
        if self.options.verbose_level <= 1:
            console.addFilter(lambda record: not record.name.startswith("stevedore"))

    def run(self, argv: list[str]) -> int:
        """Run a command and return its exit status."""
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
        """Show the help, as there is no interactive mode."""
        cliff_help.HelpAction([], argparse.SUPPRESS, default=self)(
            self.parser, self.options, None, None
        )
        raise AssertionError("expected the help action to exit")

    def run_subcommand(self, argv: list[str]) -> int:
        self._check_command(argv)
        try:
            status = super().run_subcommand(argv)
            return self._finish_output(status)
        except BrokenPipeError:
            self._drop_output()
            return ExitStatus.BROKEN_PIPE
        except KeyboardInterrupt as error:
            self.print_message("interrupted")
            return 128 + error.number if isinstance(error, Interrupted) else ExitStatus.INTERRUPTED

    def _finish_output(self, status: int) -> int:
        """Flush the output; if this fails after a successful command, return the error's status."""
        try:
            self.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            self._drop_output()
            return status or self.fail(error)
        return status

    def _drop_output(self) -> None:
        """Discard buffered output, so that Python does not try to write it again when it exits."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stdout.fileno())

    def _check_command(self, argv: list[str]) -> None:
        """Refuse unknown commands, and abbreviations: new commands would change their meaning."""
        if argv[0].startswith("-"):
            self.parser.error(f"unknown global option {argv[0]}")
        try:
            _, name, _ = self.command_manager.find_command(argv)
        except ValueError:
            name = ""
        if name not in self.command_manager.commands:
            similar = " or ".join(self.get_fuzzy_matches(argv[0]))
            self.parser.error(f"{argv[0]!r} is not a command; did you mean {similar}?")

    def fail(self, error: Exception) -> ExitStatus:
        """Print an error as one line, after the traceback with --debug, and return the status."""
        if self.options.debug:
            self.stderr.write(safe_text("".join(traceback.format_exception(error))))
        self.print_message(f"error: {_sentence(error)}")
        if isinstance(error, NotSupported) and self._is_misconfigured(error.store):
            return ExitStatus.CONFIGURATION
        return status_of(error)

    def _is_misconfigured(self, store_id: str | None) -> bool:
        stores = self._stores
        if stores is None or store_id is None or store_id not in stores:
            return False
        return stores[store_id].error is not None

    def print_message(self, text: str) -> None:
        """Print a message as one line to standard error."""
        self.stderr.write(f"{NAME}: {printable(redact(' '.join(text.split())))}\n")


class StoreCommand(Command):
    """The base class of the commands: an error becomes one line and an exit status."""

    app: Shell
    #: Upper limit in seconds for ``transfer_retry_seconds``.
    retry_seconds: ClassVar[float] = math.inf

    def get_parser(self, prog_name: str) -> ArgumentParser:
        parser = super().get_parser(prog_name)
        use_short_errors(parser)
        return parser

    def get_epilog(self) -> str:
        return ""

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        """Return the names of the columns that the command can show."""
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
        """Refuse unknown columns in advance: cliff does so only after the command has run.

        :raises Invalid: a column is unknown
        """
        known = self.columns(parsed_args)
        for name in getattr(parsed_args, "columns", ()):
            if name.strip().lower() not in known:
                raise Invalid(f"Expected one of the columns {', '.join(known)}, got {name!r}.")


class ShowingCommand(StoreCommand, DisplayCommandBase[Any]):
    """The base class of commands that show values; makes them printable in every format."""

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Any
    ) -> int:
        cells = printable_cells(data, parsed_args.formatter)
        return super().produce_output(parsed_args, column_names, cells)  # type: ignore[safe-super]


def use_short_errors(parser: ArgumentParser) -> None:
    """Make a usage error one line, without the usage that argparse prints before it."""

    def error(message: str) -> NoReturn:
        command = parser.prog.removeprefix(NAME).strip()
        where = f"{command}: " if command else ""
        text = printable(redact_uri(message))
        parser.exit(
            ExitStatus.USAGE,
            f"{NAME}: error: {where}{text} (see '{parser.prog} --help')\n",
        )

    parser.error = error  # type: ignore[method-assign]


def _sentence(error: Exception) -> str:
    """Return the text of an error with its notes."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{redact_uri(str(error.filename))}: " if error.filename else ""
        text = where + error.strerror
    else:
        text = str(error) or type(error).__name__
    return " ".join([text, *(f"({note})" for note in getattr(error, "__notes__", ()))])
