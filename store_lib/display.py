"""Makes text from outside fit to be shown: in an error, a log, a table.

Names and URIs may hold line breaks, which forge lines of a log, escape sequences, which a terminal
obeys, marks that turn the direction of writing, and surrogates, which no UTF-8 has.
"""

import logging
from typing import Any


def printable(text: str, *, keep: str = "") -> str:
    r"""Return ``text`` with each character that does not print as an escape sequence of Python.

    A line break becomes ``\n``, an escape ``\x1b``.  The result has one line and can be encoded.

    :param keep: characters to leave as they are
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shown(value: Any) -> str:
    """Return what a message shows of a value that was handed in, which may be anything."""
    try:
        text = ascii(value)
    except Exception:  # an int of very many digits; a __repr__ that fails
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 80 else f"{text[:80]}..."


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, which shows texts and errors among its arguments printable."""
    logger = logging.getLogger(name)
    logger.addFilter(_show_arguments)
    return logger


def _show_arguments(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_shown(each) for each in record.args)
    return True


def _shown(value: object) -> object:
    if isinstance(value, (str, BaseException)):
        return printable(str(value))
    return value
