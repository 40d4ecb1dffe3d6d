"""Makes untrusted text safe to print in errors, logs and tables.

Names and URIs may contain line breaks, which forge log lines; terminal control sequences; marks
that change the direction of text; and surrogates, which cannot be encoded as UTF-8.
"""

import logging
from typing import Any


def printable(text: str, *, keep: str = "") -> str:
    r"""Return ``text`` with unprintable characters replaced by Python escape sequences.

    A line break becomes ``\n``, an escape character ``\x1b``.  The result is a single line and can
    be encoded.

    :param keep: characters not to replace
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shown(value: Any) -> str:
    """Return a short representation of any value for a message."""
    try:
        text = ascii(value)
    except Exception:  # an int with too many digits; a __repr__ that raises
        return f"a {type(value).__name__} without a representation"
    return text if len(text) <= 80 else f"{text[:80]}..."


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, which makes text and errors in its arguments printable."""
    logger = logging.getLogger(name)
    logger.addFilter(_show_arguments)
    return logger


def _show_arguments(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(_shown(argument) for argument in record.args)
    return True


def _shown(value: object) -> object:
    if isinstance(value, (str, BaseException)):
        return printable(str(value))
    return value
