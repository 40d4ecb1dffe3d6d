"""How values are shown: for people in a table, plain in the formats that programs read."""

import datetime
from collections.abc import Mapping

from cliff.columns import FormattableColumn


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
