"""The output to standard error while a command runs: log records and a progress bar."""

import logging
import os
from typing import Any, NoReturn, Self, TextIO

from tqdm import tqdm

from store_lib.display import printable
from store_lib.redaction import redact


class LogFormatter(logging.Formatter):
    """Formats a record with its secrets removed and its message on one printable line.

    ``%(level)s`` is the level's name in lower case.
    """

    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        return safe_text(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


class LogHandler(logging.StreamHandler[Any]):
    """Writes records above the progress bar, if one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class ProgressBar:
    """A progress bar to pass to the library as the ``progress`` callback of a transfer.

    :param enabled: whether to draw at all
    :param stream: the terminal
    :param label: the text before the bar
    """

    def __init__(self, enabled: bool, stream: TextIO, label: str) -> None:
        self._enabled = enabled
        self._stream = stream
        self._label = label
        self._bar: tqdm[NoReturn] | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """Draw ``done`` bytes of ``total``, which is ``None`` if unknown."""
        if not self._enabled:
            return
        if self._bar is None:
            tqdm.monitor_interval = 0  # the bar is updated for every chunk and needs no thread
            sized = os.get_terminal_size(self._stream.fileno()).columns > 0
            self._bar = tqdm(
                desc=self._label,
                total=total,
                file=self._stream,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                dynamic_ncols=sized,
                ncols=None if sized else 80,  # the size of a serial line is unknown
                nrows=None if sized else 24,
            )
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def safe_text(text: str) -> str:
    """Return text of one or more lines without secrets and unprintable characters."""
    return printable(redact(text), keep="\n")
