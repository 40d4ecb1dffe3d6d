"""How values are formatted: readable in a table, plain in the formats for programs."""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from cliff.columns import FormattableColumn

from store_lib.display import printable

#: Formats with their own escape sequences for unprintable characters.
_ESCAPING = ("json", "yaml")
#: Characters that a shell expands within double quotes; cliff escapes the quotes.
_SHELL = str.maketrans({"\\": "\\\\", "$": "\\$", "`": "\\`"})


class ByteSize(FormattableColumn[int | None]):
    """A number of bytes, rounded to a binary unit in a table; ``None`` if unknown."""

    def human_readable(self) -> str:
        if self._value is None:
            return ""
        amount = float(self._value)
        for unit in ("B", "KiB", "MiB", "GiB"):
            if amount < 1024:
                return f"{amount:.4g} {unit}"
            amount /= 1024
        return f"{amount:.4g} TiB"


class Words(FormattableColumn[list[str]]):
    """A list of words."""

    def human_readable(self) -> str:
        return ", ".join(self._value)


class Pairs(FormattableColumn[dict[str, str]]):
    """A mapping of names to values."""

    def __init__(self, value: Mapping[str, str]) -> None:
        super().__init__(dict(value))

    def human_readable(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._value.items())


class Optional(FormattableColumn[object]):
    """A value that may be ``None``, which is blank in a table."""

    def human_readable(self) -> str:
        return "" if self._value is None else str(self._value)


def timestamp(seconds: float | None) -> Optional:
    """Return a time since the epoch in ISO 8601 format, in UTC."""
    if seconds is None:
        return Optional(None)
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return Optional(when.isoformat(timespec="seconds").replace("+00:00", "Z"))


def printable_cells(data: Any, form: str) -> Any:
    """Return a value, or rows of values, with all text printable.

    :param form: the name of the output format
    """
    if form in _ESCAPING:
        return data
    if isinstance(data, FormattableColumn):
        return _Printable(data, form)
    if isinstance(data, str):
        text = printable(data)
        return text.translate(_SHELL) if form == "shell" else text
    if isinstance(data, Mapping):
        return {printable_cells(name, form): printable_cells(data[name], form) for name in data}
    if isinstance(data, Iterable):
        return [printable_cells(item, form) for item in data]
    return data


class _Printable(FormattableColumn[Any]):
    """A formatted value with its text made printable."""

    def __init__(self, column: FormattableColumn[Any], form: str) -> None:
        super().__init__(column)
        self._form = form

    def human_readable(self) -> str:
        return printable(self._value.human_readable())

    def machine_readable(self) -> Any:
        return printable_cells(self._value.machine_readable(), self._form)
