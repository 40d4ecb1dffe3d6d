"""How values are shown: for people in a table, plain in the formats that programs read."""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from cliff.columns import FormattableColumn

from store_lib.display import printable

#: Formats that have escape sequences of their own for what cannot be printed.
_ESCAPING = ("json", "yaml")
#: What a shell obeys within double quotes, besides the quotes, which cliff takes care of.
_SHELL = str.maketrans({"\\": "\\\\", "$": "\\$", "`": "\\`"})


class Room(FormattableColumn[int | None]):
    """A number of bytes of which nobody needs the last digit."""

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
    """Several words."""

    def human_readable(self) -> str:
        return ", ".join(self._value)


class Pairs(FormattableColumn[dict[str, str]]):
    """Names with values."""

    def __init__(self, value: Mapping[str, str]) -> None:
        super().__init__(dict(value))

    def human_readable(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self._value.items())


class Maybe(FormattableColumn[object]):
    """A value that may be unknown, which a table shows as nothing."""

    def human_readable(self) -> str:
        return "" if self._value is None else str(self._value)


def moment(seconds: float | None) -> Maybe:
    """Return a time as ISO 8601 in UTC."""
    if seconds is None:
        return Maybe(None)
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return Maybe(when.isoformat(timespec="seconds").replace("+00:00", "Z"))


def printable_cells(data: Any, form: str) -> Any:
    """Return values, or rows of them, in which every text can be printed.

    :param form: the name of the format that they are to be shown in
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
        return [printable_cells(each, form) for each in data]
    return data


class _Printable(FormattableColumn[Any]):
    """A value whose text can be printed, whatever it is."""

    def __init__(self, column: FormattableColumn[Any], form: str) -> None:
        super().__init__(column)
        self._form = form

    def human_readable(self) -> str:
        return printable(self._value.human_readable())

    def machine_readable(self) -> Any:
        return printable_cells(self._value.machine_readable(), self._form)
